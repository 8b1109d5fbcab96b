"""The commands around training: what they say of arguments, folders and files that are wrong, what an export gets."""

from __future__ import annotations

import json

import pytest

torch = pytest.importorskip("torch", reason="training needs the 'train' extra: pip install '.[train]'")

# ruff: noqa: E402
import tiny_training
import yaml

from hand_tracking_ros.cli import main
from hand_tracking_ros.manifest import load_manifest
from hand_tracking_ros.training import card, export, pack, quantise
from hand_tracking_ros.training.networks.keynet import KeyNet, KeyNetConfig


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return tiny_training.pictures(tmp_path_factory.mktemp("training") / "own")


@pytest.fixture
def here(images, tmp_path, monkeypatch):
    """The folder that the command runs in: 'own' are labelled images, 'bare' has no labels."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own").symlink_to(images)
    (tmp_path / "bare").mkdir()
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "labels.jsonl").write_text('{"file": "0.png", "hands": []}\n{"file"')
    (tmp_path / "file").write_text("a: 1\n")
    (tmp_path / "junk").mkdir()
    (tmp_path / "junk" / "checkpoint.pt").write_bytes(b"junk")
    (tmp_path / "other").mkdir()
    torch.save({"something": 1}, tmp_path / "other" / "checkpoint.pt")
    return tmp_path


def said(capsys) -> str:
    """What stands on stderr: one line."""
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "error: " in error, error
    return error


@pytest.mark.parametrize(("options", "message"), [
    ("--processes 0", "--processes must be at least 1, got 0"),
    ("--processes -2", "--processes must be at least 1, got -2"),
    ("--threads 0", "--threads must be at least 1, got 0"),
    ("--workers -1", "--workers must be at least 0, got -1"),
    ("--save-every-s -3", "--save-every-s must be at least 0, got -3"),
    ("--learning-rate -1", "learning_rate of a training must be above 0, got -1"),
    ("--seed -3", "seed of a training must be 0 or more, got -3"),
    ("--mining -3", "mining of a training must be 0 (all images alike) or more, got -3"),
    ("--run file", "--run: cannot make the folder file: File exists"),
    ("--run file/run", "--run: cannot make the folder file/run: Not a directory"),
    ("--run junk", "cannot read junk/checkpoint.pt: no weights of PyTorch; give the checkpoint.pt of a"),
    ("--run other", "other/checkpoint.pt is no checkpoint of a training"),
    ("--negatives nope.npz", "cannot read nope.npz: No such file or directory; 'python -m hand_tracking_ros.training."),
    ("--negatives file", "cannot read file: no pool of synthetic frames; 'python -m"),
    ("--config keynet", "--images trains on those images alone: leave out --config, or --images"),
    ("--data d --synthetic a.npz", "leave out --data and --synthetic, or --images"),
    ("--images nope", "--images: nope is not a folder; give folders of labelled images"),
    ("--images torn", "labels.jsonl, line 2 does not state 'file' and 'hands' as docs/evaluation.md describes them"),
    ("--images bare", "--images: bare has no labels.jsonl: 'hand-tracking label bare' writes it"),
])  # fmt: skip
def test_what_is_wrong_with_a_training_is_said_in_one_line(here, options, message, capsys):
    assert main(f"train keynet --images own --minutes 0.1 --run run {options}".split()) == 2
    assert message in said(capsys)


@pytest.mark.parametrize(
    ("pool", "what"), [("nope.npz", "No such file or directory"), ("file", "no pool of synthetic")]
)
def test_a_pool_that_cannot_be_read_is_named(here, pool, what, capsys):
    assert main(f"train keynet --data own --synthetic {pool} --run run".split()) == 2
    assert f"cannot read {pool}: {what}" in said(capsys)


def test_what_a_process_of_several_finds_wrong_is_said_in_one_line(here, capfd):
    assert main(["train", "keynet", "--images", "own", "--minutes", "0.1", "--run", "junk", "--processes", "2"]) == 2
    assert "hand-tracking: error: cannot read junk/checkpoint.pt: no weights" in capfd.readouterr().err.splitlines()[-1]


def test_a_fine_tuned_network_is_exported_with_a_card_of_its_own(here, capsys):
    """The run says what it is, also when it is started again; the manifest has the licence of the shipped weights, the
    figures of the run, and none of theirs."""
    tune = "train keynet --images own --samples 8 --batch 4 --workers 0 --seed 5 --run run"
    assert main(tune.split()) == 0
    assert "sources: own (10 images)" in capsys.readouterr().out
    assert main(tune.split()) == 0
    assert "; it is done: give more --minutes or --samples, or another --run" in capsys.readouterr().out
    assert len((here / "run" / "log.jsonl").read_text().splitlines()) == 1
    assert main([*tune.split(), "--samples", "16", "--optimiser", "adamw"]) == 2
    assert "run/checkpoint.pt is of another --optimiser than adamw" in capsys.readouterr().err
    assert main([*tune.split(), "--samples", "12", "--init", "ignored"]) == 0
    assert main(tune.replace("keynet", "detnet").split()) == 2
    assert "run/checkpoint.pt is no checkpoint of a detnet training" in capsys.readouterr().err

    assert export.main(["keynet", "--run", "run", "--output", "new/models", "--name", "mine"]) == 0
    made, shipped = load_manifest(here / "new" / "models" / "mine.yaml"), load_manifest("keynet")
    made.verify()
    assert (made.licence, made.preprocessing, made.precision) == (shipped.licence, shipped.preprocessing, "fp32")
    assert made.training["data"][:-1] == shipped.training["data"] and made.training["data"][-1]["images"] == 10
    assert made.training["command"] == "hand-tracking train keynet --images own --kind frame --init keynet"
    assert made.training["seed"] == 5 and "12 samples" in made.training["notes"]
    *_, report = map(json.loads, (here / "run" / "log.jsonl").read_text().splitlines())
    assert made.accuracy["held_out_palm_percent"] == report["held_out_palm_percent"]
    assert not made.accuracy.keys() & (shipped.accuracy.keys() - {"measured_on"})


@pytest.mark.parametrize(("options", "message"), [
    ("--run nope", "cannot read the card nope/card.yaml: No such file or directory; only fine-tuning of a model on"),
    ("--run nope --card card.yaml", "cannot read nope/checkpoint.pt: No such file or directory; give the"),
    ("--run junk --card card.yaml", "cannot read junk/checkpoint.pt: no weights of PyTorch"),
    ("--run other --card card.yaml", "other/checkpoint.pt is no checkpoint of a training"),
    ("--run run --card nope.yaml", "cannot read the card nope.yaml: No such file or directory; docs/training.md shows"),
    ("--run run --card empty.yaml", "the card empty.yaml lacks the key(s) preprocessing, keypoint_order, precision"),
    ("--run run --card file", "the card file lacks the key(s) preprocessing"),
    ("--run run --card run/checkpoint.pt", "the card run/checkpoint.pt is not valid YAML"),
    ("--run run --card card.yaml --output file", "file: File exists"),
])  # fmt: skip
def test_what_is_wrong_with_an_export_is_said_in_one_line(here, options, message, capsys):
    (here / "empty.yaml").touch()
    (here / "card.yaml").write_text(yaml.safe_dump(dict.fromkeys(card.KEYS, "x")))
    (here / "run").mkdir()
    torch.save({"average": KeyNet(KeyNetConfig()).state_dict()}, here / "run" / "checkpoint.pt")
    assert export.main(f"keynet --output new {options}".split()) == 2
    assert message in said(capsys) and not (here / "new").exists()


@pytest.mark.parametrize(("tool", "arguments", "message"), [
    (pack, "--data nope --labels nope --output p", "labels.jsonl does not exist: 'hand-tracking label nope/"),
    (quantise, "keynet --data nope --labels nope --models nope", "nope/keynet.yaml does not exist"),
    (quantise, "keynet --data nope --labels nope --models models", "nope/hagrid_hand_crops does not exist"),
])  # fmt: skip
def test_what_is_wrong_with_a_tool_is_said_in_one_line(here, tool, arguments, message, capsys):
    (here / "models").symlink_to(load_manifest("keynet").path.parent)
    assert tool.main(arguments.split()) == 2
    assert message in said(capsys)
