"""training.soup: the mean of the weights of several runs."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="training needs the 'train' extra: pip install '.[train]'")

# ruff: noqa: E402
from hand_tracking_ros.errors import ConfigError
from hand_tracking_ros.training.networks.keynet import KeyNet, KeyNetConfig
from hand_tracking_ros.training.soup import main, mixed


def run(folder, seed: int, width: float = 0.25, temporal: bool = False):
    """A folder with the checkpoint of an untrained network, and its weights."""
    torch.manual_seed(seed)
    weights = KeyNet(KeyNetConfig(width=width, temporal=temporal)).state_dict()
    folder.mkdir()
    averaged = {k: v + 1 if v.is_floating_point() else v for k, v in weights.items()}
    torch.save({"network": weights, "average": averaged, "config": {}, "samples": seed}, folder / "checkpoint.pt")
    return weights


def test_a_soup_is_the_mean_by_shares_of_all_weights(tmp_path):
    first, second = run(tmp_path / "a", 1), run(tmp_path / "b", 2)
    assert main([str(tmp_path / "a"), f"{tmp_path / 'b'}=3", "--run", str(tmp_path / "soup")]) == 0
    soup = torch.load(tmp_path / "soup" / "checkpoint.pt")
    assert soup["samples"] == 2  # the rest is of the last run
    floats = [name for name, value in first.items() if value.is_floating_point()]
    assert len(floats) > 20
    for name in floats:
        expected = 0.25 * first[name] + 0.75 * second[name]
        torch.testing.assert_close(soup["network"][name], expected)
        torch.testing.assert_close(soup["average"][name], expected + 1)
    assert all(torch.equal(soup["network"][n], second[n]) for n in first if n not in floats)


def test_a_keynet_and_a_keynet_f_are_averaged_in_what_both_have(tmp_path):
    temporal, plain = run(tmp_path / "f", 1, temporal=True), run(tmp_path / "k", 2)
    assert main([str(tmp_path / "f"), str(tmp_path / "k"), "--run", str(tmp_path / "soup")]) == 0
    soup = torch.load(tmp_path / "soup" / "checkpoint.pt")
    assert soup["network"].keys() == plain.keys() < temporal.keys()
    name = "to_stride4.0.0.weight"
    torch.testing.assert_close(soup["network"][name], (temporal[name] + plain[name]) / 2)
    assert main([f"{tmp_path / 'k'}=3", str(tmp_path / "f"), "--run", str(tmp_path / "soup")]) == 0
    soup = torch.load(tmp_path / "soup" / "checkpoint.pt")
    assert soup["network"].keys() == temporal.keys()
    torch.testing.assert_close(soup["network"][name], 0.25 * temporal[name] + 0.75 * plain[name])
    torch.testing.assert_close(soup["network"]["prior.weight"], temporal["prior.weight"])


def test_networks_that_differ_and_runs_that_are_not_there_are_refused(tmp_path, capsys):
    run(tmp_path / "a", 1)
    run(tmp_path / "wide", 1, width=0.5)
    assert main([str(tmp_path / "a"), str(tmp_path / "wide"), "--run", str(tmp_path / "soup")]) == 2
    assert "different networks" in capsys.readouterr().err and not (tmp_path / "soup").exists()
    assert main([str(tmp_path / "none"), "--run", str(tmp_path / "soup")]) == 2
    assert "none" in capsys.readouterr().err
    assert main([f"{tmp_path / 'a'}=many", "--run", str(tmp_path / "soup")]) == 2
    assert "RUN=SHARE" in capsys.readouterr().err
    checkpoint = torch.load(tmp_path / "a" / "checkpoint.pt")
    (tmp_path / "wide" / "checkpoint.pt").write_bytes(b"junk")
    assert main([str(tmp_path / "wide"), "--run", str(tmp_path / "soup")]) == 2
    assert "wide/checkpoint.pt: no weights of PyTorch" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="above 0"):
        mixed([checkpoint, checkpoint], [1.0, 0.0])
