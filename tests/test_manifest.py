"""Model manifests: what is written is read back, and every kind of damage is named with its cure."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from tiny_models import FACTS, KEYNET_TENSORS

import hand_tracking_ros
from hand_tracking_ros.errors import ModelError
from hand_tracking_ros.manifest import (
    REQUIRED,
    TensorSpec,
    file_sha256,
    find_manifest,
    list_manifests,
    load_manifest,
    write_manifest,
)
from hand_tracking_ros.paths import models_directory

CARDS = Path(hand_tracking_ros.__file__).parent / "training" / "cards"
CONTENT = b"the bytes of a model"


@pytest.fixture
def written(tmp_path):
    """A manifest with a stand-in model file: no manifest function looks into the file."""
    (tmp_path / "keynet.onnx").write_bytes(CONTENT)
    values = {"name": "keynet", "task": "keypoints", "file": "keynet.onnx", "max_batch": 4, **KEYNET_TENSORS, **FACTS}
    return write_manifest(tmp_path / "keynet.yaml", **values)


def test_written_manifest_reads_back_equal_and_verifies(written):
    loaded = load_manifest(written.path)
    assert loaded == written
    assert loaded.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert loaded.inputs == {"crop": TensorSpec("uint8", ("N", 1, 96, 96))}
    assert loaded.outputs["keypoints"] == TensorSpec("float32", ("N", 21, 2))
    assert loaded.file == written.path.parent / "keynet.onnx"
    loaded.verify()


def test_yaml_has_a_fixed_order_and_shapes_on_one_line(written):
    text = written.path.read_text()
    assert tuple(yaml.safe_load(text)) == REQUIRED
    assert "shape: [N, 1, 96, 96]" in text


def test_numpy_values_and_tuples_are_written_as_plain_yaml(tmp_path, written):
    values = {key: getattr(written, key) for key in REQUIRED if key != "sha256"}
    accuracy = {"pck": np.float32(0.5), "images": np.int64(7), "range": (1, 2)}
    again = write_manifest(tmp_path / "other.yaml", **{**values, "accuracy": accuracy, "file": "keynet.onnx"})
    assert load_manifest(again.path).accuracy == {"pck": 0.5, "images": 7, "range": [1, 2]}


def test_hash_of_digits_alone_stays_text(tmp_path, written):
    document = yaml.safe_load(written.path.read_text())
    document["sha256"] = "1234567890" * 6 + "1234"
    written.path.write_text(yaml.safe_dump(document))
    assert load_manifest(written.path).sha256 == document["sha256"]


def test_missing_model_file(written):
    written.file.unlink()
    with pytest.raises(ModelError, match=r"keynet\.onnx is missing .*hand-tracking models verify"):
        load_manifest(written.path).verify()


@pytest.mark.parametrize("damage", [CONTENT[:-1], b"T" + CONTENT[1:], b""], ids=["truncated", "changed", "empty"])
def test_corrupted_model_file_names_file_hashes_and_cure(written, damage):
    written.file.write_bytes(damage)
    with pytest.raises(ModelError) as error:
        load_manifest(written.path).verify()
    message = str(error.value)
    for part in (str(written.file), hashlib.sha256(damage).hexdigest(), written.sha256, "hand-tracking models verify"):
        assert part in message


def test_unknown_name_lists_known_models():
    with pytest.raises(ModelError, match=r"unknown model 'no_such_net'.*models there"):
        load_manifest("no_such_net")


@pytest.mark.parametrize("name", ["../keynet", "sub/keynet", "keynet.onnx"])
def test_names_do_not_reach_out_of_the_models_folder(name):
    with pytest.raises(ModelError, match="unknown model"):
        find_manifest(name)


def test_missing_path(tmp_path):
    with pytest.raises(ModelError, match=r"gone\.yaml does not exist"):
        load_manifest(tmp_path / "gone.yaml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"opset": None}, "'opset' must be a positive integer"),
        ({"opset": True}, "'opset' must be a positive integer"),
        ({"max_batch": 0}, "'max_batch' must be a positive integer"),
        ({"task": "segment"}, "'task' must be one of detect, keypoints; got 'segment'"),
        ({"sha256": "abc"}, "'sha256' must be 64 lower-case hex digits"),
        ({"licence": ""}, "'licence' must be text"),
        ({"inputs": {}}, "'inputs' must name at least one tensor"),
        ({"inputs": ["crop"]}, "'inputs' must be a mapping"),
        ({"inputs": {"crop": {"dtype": "uint8"}}}, "inputs.crop lacks the key.* shape"),
        ({"inputs": {"crop": {"dtype": "u8", "shape": [1]}}}, "inputs.crop: dtype must be one of uint8"),
        ({"inputs": {"crop": {"dtype": "uint8", "shape": [0, 1]}}}, "inputs.crop: shape must be a list of positive"),
        ({"inputs": {"crop": {"dtype": "uint8", "shape": [1, 1]}}}, "max_batch is 4, but no input has a free"),
        ({"training": {"data": []}}, "training lacks the key.* command, seed, hours, notes"),
        ({"surprise": 1}, "unknown key.* surprise; known: name, task"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_values_are_named(written, change, message):
    written.path.write_text(yaml.safe_dump({**yaml.safe_load(written.path.read_text()), **change}))
    with pytest.raises(ModelError, match=message) as error:
        load_manifest(written.path)
    assert str(written.path) in str(error.value)


@pytest.mark.parametrize("key", REQUIRED)
def test_every_key_is_required(written, key):
    document = yaml.safe_load(written.path.read_text())
    del document[key]
    written.path.write_text(yaml.safe_dump(document))
    with pytest.raises(ModelError, match=rf"lacks the key\(s\) {key};"):
        load_manifest(written.path)


def test_incomplete_data_entry_is_named(written):
    document = yaml.safe_load(written.path.read_text())
    del document["training"]["data"][0]["licence"]
    written.path.write_text(yaml.safe_dump(document))
    with pytest.raises(ModelError, match=r"training\.data\[0\] lacks the key\(s\) licence"):
        load_manifest(written.path)


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "name: [", "\x00"])
def test_what_is_no_mapping_is_refused(tmp_path, text):
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(ModelError, match=r"broken\.yaml"):
        load_manifest(path)


def test_nothing_is_written_when_a_value_is_wrong(tmp_path, written):
    values = {key: getattr(written, key) for key in REQUIRED if key != "sha256"}
    path = tmp_path / "wrong.yaml"
    with pytest.raises(ModelError, match="'task' must be one of"):
        write_manifest(path, **{**values, "file": "keynet.onnx", "task": "?"})
    with pytest.raises(ModelError, match="'file' must be a file in"):
        write_manifest(path, **{**values, "file": "absent.onnx"})
    assert not path.exists()


def test_all_shipped_networks_have_a_card():
    assert {path.stem for path in CARDS.glob("*.yaml")} == {
        path.stem for path in list_manifests() if not path.stem.endswith("_int8")
    }


@pytest.mark.parametrize("name", sorted(path.stem for path in CARDS.glob("*.yaml")))
def test_cards_say_what_the_shipped_manifests_say(name):
    """New weights would otherwise be exported with the card of the old ones."""
    card = yaml.safe_load((CARDS / f"{name}.yaml").read_text())
    manifest = yaml.safe_load((models_directory() / f"{name}.yaml").read_text())
    assert {"training", "accuracy", "licence"} <= set(card)
    assert card == {key: manifest[key] for key in card}


def test_every_size_knows_the_next_smaller_one(tmp_path):
    text = (models_directory() / "keynet.yaml").read_text()
    for name in ("mine_f", "mine_f_small", "mine_f_nano", "mine_int8"):
        (tmp_path / f"{name}.yaml").write_text(text.replace("name: keynet\n", f"name: {name}\n"))
    shutil.copy(models_directory() / "keynet.onnx", tmp_path)
    found = load_manifest(tmp_path / "mine_f.yaml")
    assert (found.size, found.smaller().name, found.smaller().size) == ("base", "mine_f_small", "small")
    nano = found.smaller().smaller()
    assert (nano.name, nano.size, nano.smaller()) == ("mine_f_nano", "nano", None)
    (tmp_path / "mine_f_nano.yaml").unlink()
    assert found.smaller().smaller() is None
    assert load_manifest(tmp_path / "mine_int8.yaml").size == "base"


@pytest.mark.parametrize("name", [name + end for name in ("detnet", "keynet") for end in ("", "_int8")])
def test_permissive_weights_come_from_permissive_data_only(name):
    """Unlike the default ones, which are share-alike; a licence that is not known here has to be looked at first."""
    permissive = load_manifest(name.replace("net", "net_permissive"))
    assert permissive.licence == "Apache-2.0"
    assert {data["licence"] for data in permissive.training["data"]} <= {
        "Apache-2.0", "MIT", "public domain", "CC0", "CC0 mesh (MakeHuman)",
    }  # fmt: skip
    default = load_manifest(name)
    assert default.licence == "CC-BY-SA-4.0" and default.inputs == permissive.inputs


def test_shipped_manifests_load_and_verify():
    paths = list_manifests()
    if not paths:
        pytest.skip("models/ holds no models yet")
    for path in paths:
        manifest = load_manifest(path.stem)
        manifest.verify()
        assert manifest.name == path.stem
        assert manifest.file.stat().st_size < 10_000_000
        assert file_sha256(manifest.file) == manifest.sha256
