"""NetAdapt: what it takes from a network, how much at a time, and where it ends."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch", reason="training needs the 'train' extra: pip install '.[train]'")
pytest.importorskip("onnx", reason="export needs the 'train' extra: pip install '.[train]'")

# ruff: noqa: E402
import tiny_training

from hand_tracking_ros.cli import main
from hand_tracking_ros.config import InferenceConfig
from hand_tracking_ros.errors import ConfigError
from hand_tracking_ros.training.networks import NETWORKS, input_hw
from hand_tracking_ros.training.networks.blocks import Residual
from hand_tracking_ros.training.networks.detnet import DetNetConfig
from hand_tracking_ros.training.networks.keynet import KeyNetConfig
from hand_tracking_ros.training.recipe import load_recipe, save_recipe
from hand_tracking_ros.training.search import netadapt
from hand_tracking_ros.training.search.judge import Judge
from hand_tracking_ros.training.search.measure import network_run
from hand_tracking_ros.training.search.netadapt import NetAdapt, coarser, without
from hand_tracking_ros.training.search.places import names
from hand_tracking_ros.training.search.reward import Reward
from hand_tracking_ros.training.slimming import inner_norms

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
INT8 = InferenceConfig(backend="onnxruntime", precision="int8")
SMALL = {"width": 0.5, "resolution": 0.5, "depth": 0.4}  # one block after that which strides, at strides 8 and 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_training.pictures(tmp_path_factory.mktemp("data") / "own")


def network_of(task="keynet", **changes) -> torch.nn.Module:
    torch.manual_seed(0)
    config = (KeyNetConfig if task == "keynet" else DetNetConfig)(**changes)
    return NETWORKS[task](config).eval()


def judge_of(folder, run, target_ms: float, **changes) -> Judge:
    recipe, data = tiny_training.recipe(folder, **{"network": SMALL, **changes})
    return Judge(recipe, data, INT8, Reward(target_ms), run, workers=0, rounds=5)


@pytest.mark.parametrize(
    ("task", "before", "after"), [("keynet", (96, 96), (80, 80)), ("detnet", (240, 320), (224, 304))]
)
def test_a_coarser_network_sees_16_px_less_with_the_same_weights(task, before, after):
    network = network_of(task)
    smaller = coarser(network)
    assert (input_hw(network), input_hw(smaller)) == (before, after)
    for (name, own), theirs in zip(network.state_dict().items(), smaller.state_dict().values()):
        assert torch.equal(own, theirs) or own.ndim == 2, name  # what sees the whole map is resampled
    assert coarser(network_of(task, resolution=16 / min(before))) is None
    assert input_hw(coarser(network, 48))[0] == before[0] - 48


def test_the_block_that_adds_least_goes_first_and_one_that_adds_nothing_is_not_missed():
    network = network_of(temporal=True, verdict=8)
    idle = [layer for layer in network.places() if isinstance(layer, Residual)][3]
    torch.nn.init.zeros_(idle.body[1][1].weight)
    place = network.places().index(idle)
    assert netadapt._by_weight(network)[0] == place
    smaller = without(network, [place]).eval()
    assert [i for i, name in enumerate(names(smaller.config)) if name == "fbnet_skip"] == [place]
    crop, prior = torch.randn(2, 1, 96, 96), torch.rand(2, 21, 24, 24)
    with torch.no_grad():
        for own, theirs in zip(network(crop, prior), smaller(crop, prior)):
            torch.testing.assert_close(own, theirs)
    first, *others = netadapt._shallower(network)
    assert names(first().config) == names(smaller.config)
    assert names(others[-1]().config).count("fbnet_skip") == 8  # those that change the shape stay


def test_as_little_goes_as_meets_the_step():
    network = network_of(width=0.5)
    for norm in inner_norms(network):
        torch.nn.init.uniform_(norm.weight)
    asked = []

    def clock(config):
        """As if only channels inside of blocks took time."""
        asked.append(config)
        return sum(int(name.partition(":")[2] or 64) for name in names(config) if name != "conv") / 100

    networks = netadapt._narrower(network)
    times = [clock(one().config) for one in networks]
    assert times == sorted(times, reverse=True)
    asked.clear()
    found = netadapt._least(networks, 5, clock)
    assert clock(found.config) == max(ms for ms in times if ms <= 5) and len(asked) <= 6
    assert netadapt._least(networks, 0.01, clock) is None and netadapt._least([], 1.0, clock) is None


def started(folder, run, share: float, start) -> Judge:
    """A search that has begun with the network in ``start``, for so much of its time."""
    judge = judge_of(folder, run, 1.0)
    first = judge.start(str(start))
    judge.reward = Reward(share * first.measured_ms)
    return judge


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    network = network_of(**SMALL)
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(layer.weight)
    path = tmp_path_factory.mktemp("start") / "start.pt"
    torch.save({"average": network.state_dict(), "config": dataclasses.asdict(network.config)}, path)
    return path


def convolutions(path) -> list[torch.Tensor]:
    return [value for value in torch.load(path)["average"].values() if value.ndim == 4]


def test_it_ends_at_the_first_network_that_meets_the_target_and_goes_on(folder, tmp_path, start):
    judge = started(folder, tmp_path / "run", 0.7, start)
    found = NetAdapt(str(start)).search(judge)
    tried = judge.history()
    assert tried[0].network == SMALL and found in tried[1:] and found.measured_ms <= judge.reward.target_ms
    assert all(c.predicted_ms is None and 0 <= c.accuracy <= 1 for c in tried)
    kept = convolutions(judge.checkpoint(judge.base))
    assert all(torch.equal(own, given) for own, given in zip(kept, convolutions(start)))
    first = convolutions(judge.checkpoint(judge.config(tried[1])).parent / "start.pt")
    inherited = [any(torch.equal(own, given) for given in kept) for own in first]
    assert sum(inherited) >= len(inherited) - 4  # narrowed blocks have two convolutions each, and there are two
    lines = judge.log.read_text(), (judge.run / "latencies.jsonl").read_text()
    assert NetAdapt(str(start)).search(judge) == found
    assert (judge.log.read_text(), (judge.run / "latencies.jsonl").read_text()) == lines


def test_where_nothing_is_left_to_take_away_it_says_so(folder, tmp_path, start):
    with pytest.raises(ConfigError, match="nothing is left to take away at .* start from a faster network"):
        NetAdapt(str(start)).search(started(folder, tmp_path / "run", 1e-6, start))


def test_networks_that_are_no_faster_are_not_gone_on_with(folder, tmp_path, start, monkeypatch):
    """As on a GPU that takes as long to start a small network as a large one."""
    judge = started(folder, tmp_path / "run", 0.5, start)
    monkeypatch.setattr(netadapt, "_Clock", lambda judge, first: lambda config: first.measured_ms)
    with pytest.raises(ConfigError, match="nothing is left to take away"):
        NetAdapt(str(start)).search(judge)
    assert len(judge.history()) == 1


def test_a_run_of_another_device_or_start_is_refused(folder, tmp_path, start):
    judge = judge_of(folder, tmp_path / "run", 1.0)
    judge.begin("netadapt", init="a.pt", precision="int8")
    judge.begin("netadapt", init="a.pt", precision="int8")
    for other in ({"init": "b.pt", "precision": "int8"}, {"init": "a.pt", "precision": "fp32"}):
        with pytest.raises(ConfigError, match="take another --run"):
            judge.begin("netadapt", **other)


def test_int8_networks_are_measured_as_such():
    """The int8 graph that is run answers what it answers, and takes KeyNet-F's inputs."""
    config = KeyNetConfig(**SMALL, temporal=True)
    answer = network_run("keynet", config, INT8)()
    assert answer["keypoints"].shape == (1, 21, 2)
    torch.manual_seed(1)
    exact = network_run("keynet", config, dataclasses.replace(INT8, precision="fp32"))
    torch.manual_seed(1)
    rounded = network_run("keynet", config, INT8)
    gap = abs(exact()["depth"] - rounded()["depth"]).max()
    assert 0 < gap < 1  # the same network, rounded


def test_the_command_writes_a_recipe_and_says_how_to_go_on(folder, tmp_path, capsys):
    recipe, _ = tiny_training.recipe(folder, network=SMALL)
    start, config, found = tmp_path / "start.pt", tmp_path / "start.yaml", tmp_path / "found.yaml"
    torch.save({"average": network_of(**SMALL).state_dict()}, start)
    save_recipe(recipe, config, "tiny")
    options = f"--method netadapt --precision int8 --target-ms 1000 --rounds 2 --config {config} --output {found}"
    options = f"{options} --data {folder.parent} --run {tmp_path / 'run'} --init {start}"
    words = f"-m hand_tracking_ros.cli search keynet {options}"
    done = subprocess.run([sys.executable, *words.split()], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert load_recipe(found).network == SMALL  # that meets the target as it is
    command = done.stdout.splitlines()[-1].removeprefix("train it: hand-tracking ")
    options = f"{command} --data {folder.parent} --run {tmp_path / 'trained'} --workers 0"
    assert main(options.split()) == 0 and "took" in capsys.readouterr().out
    assert main(f"search keynet --method netadapt --target-ms 1 --run {tmp_path} --output {found}".split()) == 2
    assert "--init must be given" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="a multiple of 16 px, got 24"):
        NetAdapt("keynet", 24)
    assert main(f"search keynet --measure --precision int8 --output {found}".split()) == 2
    assert "no ranges to quantise it with" in capsys.readouterr().err
