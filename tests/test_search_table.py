"""The latency table: what is exported and measured, what is predicted from it, and how that is checked."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="networks need the 'train' extra: pip install '.[train]'")
onnx = pytest.importorskip("onnx", reason="export needs the 'train' extra: pip install '.[train]'")

# ruff: noqa: E402
from hand_tracking_ros.backends import backend_status
from hand_tracking_ros.config import InferenceConfig
from hand_tracking_ros.errors import ConfigError
from hand_tracking_ros.training.export import example_of
from hand_tracking_ros.training.networks import CONFIGS, runtime_of
from hand_tracking_ros.training.networks.detnet import DetNetConfig
from hand_tracking_ros.training.networks.keynet import KeyNetConfig
from hand_tracking_ros.training.search import measure
from hand_tracking_ros.training.search.places import Place, names, places, with_names
from hand_tracking_ros.training.search.table import (
    Table,
    agreement,
    bases,
    checked,
    measured_table,
    random_config,
    rest_key,
    spearman,
)

torch.set_num_threads(1)
TINY = KeyNetConfig(width=0.25, resolution=0.35)  # crops of 32 px
DEVICE = {"machine": {"cpu": "a"}, "backend": "onnxruntime", "precision": "fp32", "threads": 1}


def test_places_have_the_shapes_that_networks_give_their_blocks():
    found = places("keynet", KeyNetConfig())
    assert found[:2] == [Place(16, 32, 2, 48, 48), Place(32, 32, 1, 24, 24)]
    assert found[-3:] == [Place(128, 128, 1, 6, 6), Place(64, 64, 1, 12, 12), Place(64, 48, 1, 24, 24)]
    odd = places("detnet", DetNetConfig(block="mobilenet_v1", depth=0.5))  # 15 rows become 8
    assert odd[2:] == [Place(64, 96, 2, 15, 20), Place(96, 96, 1, 8, 10), Place(48, 48, 1, 15, 20),
                       Place(48, 32, 1, 30, 40)]  # fmt: skip
    assert len(places("keynet", KeyNetConfig(depth=0.5))) == 8
    assert Place(16, 16, 1, 8, 8).takes("fbnet_skip") and not Place(16, 16, 2, 8, 8).takes("fbnet_skip")
    assert Place(16, 16, 1, 8, 8).takes("residual:8") and not Place(16, 24, 1, 8, 8).takes("residual:8")


def test_names_are_written_down_and_read_back():
    config = KeyNetConfig(width=0.5)
    assert names(config) == ["residual"] * 11 + ["conv"] * 2
    chosen = ["conv"] * 10 + ["xception", "mnasnet", "squeezenet"]
    assert names(with_names(config, chosen)) == chosen and with_names(config, chosen).width == 0.5


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_deep_networks_are_measured_though_random_weights_blow_rounding_errors_up():
    """Torch and ONNX Runtime disagree about them: that must not end a search for a network's size."""
    torch.manual_seed(4)
    deep = KeyNetConfig(block="mobilenet_v1", width=0.5, depth=4.0, resolution=0.75)
    inference = InferenceConfig(backend="onnxruntime", precision="fp32")
    (ms,) = measure.network_ms("keynet", [deep], inference, 2)
    assert ms > 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("task", "config", "kept", "between"), [
    ("keynet", TINY, ["crop", "block_1", "block_4", "block_10", "block_11", "block_12"], 3),
    ("keynet", dataclasses.replace(TINY, temporal=True), ["crop", "prior", "prior_scores", "block_1"], 4),
    ("detnet", DetNetConfig(width=0.25, resolution=0.3), ["image", "block_1", "block_3", "block_6", "block_7"], 3),
])  # fmt: skip
def test_the_rest_is_the_network_without_its_blocks(task, config, kept, between, tmp_path):
    """Given what the blocks answer, it answers what the network does; the exported graph takes only what it needs."""
    torch.manual_seed(0)
    network = measure.settled_network(task, config)
    feeds = {name: value[:1] for name, value in example_of(task, network).items()}
    blocks = network.places()
    weights = sum(p.numel() for layer in blocks for p in layer.parameters())
    with torch.no_grad():
        expected = runtime_of(network)(*feeds.values())
        rest = measure._Rest(network)
        answers = rest.outputs_of_blocks(feeds)
        outputs = rest(*feeds.values(), *answers.values())
    assert (
        len(answers) == len(blocks) and len(outputs) == len(expected) + between
    )  # stem, two merges, and the sum with the prior
    for mine, theirs in zip(outputs, expected):
        torch.testing.assert_close(mine, theirs)
    left = sum(p.numel() for p in rest.runtime.parameters())
    assert left == sum(p.numel() for p in measure.settled_network(task, config).parameters()) - weights
    manifest = measure.export_rest(task, config, tmp_path)
    assert list(manifest.inputs)[: len(kept)] == kept
    outputs = measure.loaded(manifest, InferenceConfig(backend="onnxruntime", precision="fp32"))()
    assert all(np.isfinite(value).all() for value in outputs.values())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_blocks_are_exported_as_they_are_at_their_place(tmp_path):
    place = Place(16, 24, 2, 9, 8)
    manifest = measure.export_block("condensenet", place, tmp_path)
    assert manifest.inputs["x"].shape == (1, 16, 9, 8) and manifest.outputs["y0"].shape == (1, 24, 5, 4)
    kinds = [node.op_type for node in onnx.load(manifest.file).graph.node]
    assert "Gather" in kinds  # condensed, as when training has ended
    empty = measure.export_block("", place, tmp_path)
    assert [node.op_type for node in onnx.load(empty.file).graph.node] == ["Identity"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_device_is_measured_checked_and_kept(backend, tmp_path):
    if not backend_status(backend).usable:
        pytest.skip(f"{backend} cannot run here: {backend_status(backend).detail}")
    inference = InferenceConfig(backend=backend, precision="fp32", threads=1)
    wider = dataclasses.replace(TINY, width=0.5)
    blocks = ["conv", "residual:8", "mobilenet_v1", "fbnet_skip"]
    table = measured_table("keynet", [TINY, wider], blocks, inference, rounds=3)
    assert list(table.rest) == ["width=0.25, resolution=0.35", "width=0.5, resolution=0.35"]
    assert bases(table) == [TINY, wider]
    for config in (TINY, wider):
        for place in places("keynet", config):
            keeps = place.stride == 1 and place.inputs == place.outputs
            assert table.candidates(place) == (blocks if keeps else ["conv", "mobilenet_v1"])
    assert table.device["version"] == backend_status(backend).version and table.device["rounds"] == 3
    assert (table.device["backend"], table.device["clock"], table.device["threads"]) == (backend, "cpu", 1)
    path = tmp_path / "device.json"
    table = checked(table, 4, rounds=3)
    table.save(path)
    assert Table.load(path) == table and table.inference() == inference
    assert table.check["networks"] == 4 and -1 <= table.check["spearman"] <= 1 and table.line != (1.0, 0.0)
    config = random_config(table, TINY, np.random.default_rng(0))
    parts = [table.blocks[str(place)][name] for place, name in zip(places("keynet", config), names(config))]
    total = table.line[0] * (sum(parts) + table.rest[rest_key(config)]) + table.line[1]
    assert table.predict_ms(config) == pytest.approx(total)


def made_up_table(**changes) -> Table:
    """TINY from blocks of 1 and 2 ms, the rest at 10 ms."""
    rows = {str(place): {"conv": 1.0, "mobilenet_v1": 2.0} for place in places("keynet", TINY)}
    return Table("keynet", DEVICE, rows, {rest_key(TINY): 10.0}, **changes)


def test_predictions_are_sums_on_a_line():
    config = with_names(TINY, ["conv"] * 7 + ["mobilenet_v1"] * 6)
    assert made_up_table().predict_ms(config) == pytest.approx(10 + 7 + 12)
    assert made_up_table(line=(0.5, 3.0)).predict_ms(config) == pytest.approx(0.5 * 29 + 3)
    assert not made_up_table().covers(TINY)
    with pytest.raises(ConfigError, match="table has no 'residual' of 8 to 8, stride 2"):
        made_up_table().predict_ms(TINY)
    with pytest.raises(ConfigError, match="no rest of a network with width=0.25, resolution=0.35, temporal=True"):
        made_up_table().predict_ms(dataclasses.replace(config, temporal=True))
    with pytest.raises(ConfigError, match="no block of 8 to 16, stride 2, 16x16; .* measure again"):
        made_up_table().candidates(Place(8, 16, 2, 16, 16))


def test_tables_are_checked_where_they_were_measured(tmp_path):
    with pytest.raises(ConfigError, match="measured on 'a': check it there"):
        checked(made_up_table(), 5, 1)
    here = {**DEVICE, "machine": measure.machine()}
    with pytest.raises(ConfigError, match="through 2 networks"):
        checked(dataclasses.replace(made_up_table(), device=here), 2, 1)
    for text in ("{", "[]", json.dumps({"task": "keynet"})):
        (tmp_path / "no.json").write_text(text)
        with pytest.raises(ConfigError, match=r"no\.json is not a latency table"):
            Table.load(tmp_path / "no.json")


def test_agreement_of_sums_and_networks():
    sums = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    facts = agreement(sums, 1.5 * sums - 0.5)
    assert facts["line"] == pytest.approx((1.5, -0.5))
    assert facts["check"]["spearman"] == 1.0 and facts["check"]["median_error_percent_calibrated"] == 0.0
    assert facts["check"]["median_error_percent"] == 25.0  # of 4 ms, 3 were predicted
    one_off = agreement(sums, np.array([1.0, 2.0, 3.0, 4.0, 50.0]))  # the others' line does not know the last one
    assert one_off["check"]["median_error_percent"] == 0.0 < one_off["check"]["median_error_percent_calibrated"]


def test_rank_correlation_counts_ties_as_equal():
    assert spearman(np.array([1.0, 2, 3, 4]), np.array([10.0, 20, 30, 400])) == pytest.approx(1.0)
    assert spearman(np.array([1.0, 2, 3, 4]), np.array([4.0, 3, 2, 1])) == pytest.approx(-1.0)
    assert spearman(np.array([1.0, 2, 2, 4]), np.array([1.0, 3, 2, 4])) == pytest.approx(0.9486833)


def test_every_field_of_a_configuration_is_either_in_the_blocks_or_in_the_rest():
    """A new field that changes the rest must change its key."""
    for task, kind in CONFIGS.items():
        assert rest_key(kind()) == "default"
        assert rest_key(kind(width=0.5, depth=2.0, block="conv")) == "width=0.5", task
    assert rest_key(KeyNetConfig(depth=2.0, stem=8)) == "stem=8"
