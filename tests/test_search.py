"""The searchers: rewards, what evolution breeds, what preferences learn, where bisection ends, and the command."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the 'train' extra: pip install '.[train]'")
pytest.importorskip("onnx", reason="export needs the 'train' extra: pip install '.[train]'")

# ruff: noqa: E402
import tiny_training

from hand_tracking_ros.cli import main
from hand_tracking_ros.errors import ConfigError
from hand_tracking_ros.training.networks.keynet import KeyNet, KeyNetConfig
from hand_tracking_ros.training.networks.scaling import not_default
from hand_tracking_ros.training.networks.zoo import fbnet
from hand_tracking_ros.training.recipe import load_recipe, save_recipe
from hand_tracking_ros.training.search import measure
from hand_tracking_ros.training.search.compound import Compound
from hand_tracking_ros.training.search.differentiable import Differentiable, LatencyLoss, SearchTrainer
from hand_tracking_ros.training.search.evolution import Evolution, mutated, with_depth
from hand_tracking_ros.training.search.judge import Candidate, Judge
from hand_tracking_ros.training.search.places import names, places, with_names
from hand_tracking_ros.training.search.reward import Reward
from hand_tracking_ros.training.search.table import Table, rest_key

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
BASE = {"width": 0.25, "resolution": 0.5, "block": "conv", "neck": "conv"}


def table_of(costs: dict[str, float], widths=(0.25,), cpu="elsewhere") -> Table:
    """What each block costs, wherever it fits; the rests cost 1 ms. ``cpu``: where it says that it was measured."""
    configs = [KeyNetConfig(**{**BASE, "width": width}) for width in widths]
    found = {place for config in configs for place in places("keynet", config)}
    rows = {str(place): {name: ms for name, ms in costs.items() if place.takes(name)} for place in found}
    device = {"machine": {"cpu": cpu}, "backend": "onnxruntime", "precision": "fp32", "threads": 1}
    return Table("keynet", device, rows, {rest_key(config): 1.0 for config in configs})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_training.pictures(tmp_path_factory.mktemp("data") / "own")


def judge_of(folder, run, table, target_ms=5.0, **changes) -> Judge:
    recipe, data = tiny_training.recipe(folder, **{"network": BASE, **changes})
    return Judge(recipe, data, table, Reward(target_ms), run, workers=0, rounds=3)


def test_rewards_are_those_of_mnasnet():
    soft, hard = Reward(2.0), Reward(2.0, "hard")
    assert soft(0.8, 2.0) == hard(0.8, 2.0) == 0.8
    assert soft(0.8, 4.0) == pytest.approx(0.8 * 0.9526, rel=1e-4)  # half as fast has to be 5 % better
    assert soft(0.8, 1.0) == pytest.approx(0.8 / 0.9526, rel=1e-4)
    assert hard(0.8, 4.0) == pytest.approx(0.4) and hard(0.8, 1.0) == 0.8
    with pytest.raises(ConfigError, match="more than 0 ms, got 0"):
        Reward(0.0)
    with pytest.raises(ConfigError, match="one of soft, hard; got 'firm'"):
        Reward(1.0, "firm")


def test_recipes_are_written_as_they_are_read(tmp_path):
    for task in ("keynet", "detnet"):
        recipe = dataclasses.replace(load_recipe(task), network={"block": "conv,xception"})
        save_recipe(recipe, tmp_path / "copy.yaml", "a comment")
        assert load_recipe(tmp_path / "copy.yaml") == recipe
        assert (tmp_path / "copy.yaml").read_text().startswith("# a comment\ntask:")


def test_a_mutation_changes_one_thing():
    table = table_of({"conv": 1.0, "mobilenet_v1": 0.5, "residual:8": 2.0}, widths=(0.25, 0.5))
    config, kinds = KeyNetConfig(**BASE), set()
    parent = with_names(config, ["conv", "mobilenet_v1"] * 6 + ["conv"])
    for seed in range(60):
        child = mutated(parent, table, (0.5, 1.0), np.random.default_rng(seed))
        assert table.covers(child)
        if child.width != parent.width:
            assert names(child) == names(parent) and child.width == 0.5
            kinds.add("width")
        elif child.depth != parent.depth:
            assert names(child) == names(with_depth(parent, 0.5))
            kinds.add("depth")
        else:
            assert sum(a != b for a, b in zip(names(child), names(parent))) == 1
            kinds.add("place")
    assert kinds == {"width", "depth", "place"}
    with pytest.raises(ConfigError, match="knows no other network"):
        mutated(config, table_of({"conv": 1.0}), (), np.random.default_rng(0))


def test_other_depths_cut_and_repeat_the_ends_of_stages():
    config = with_names(KeyNetConfig(), list("abcdefghijk") + ["x", "y"])
    assert "".join(names(with_depth(config, 0.3))) == "acfgxy"
    assert "".join(names(with_depth(config, 1.5))) == "abb" + "cdeee" + "fghijkkkk" + "xy"
    assert with_depth(config, 1.5).stages == (3, 5, 9)


def test_evolution_breeds_from_the_young_and_forgets_the_old(folder, tmp_path):
    table = table_of({"conv": 1.0, "mobilenet_v1": 0.5, "squeezenet": 0.7})
    judge = judge_of(folder, tmp_path / "run", table)
    search = Evolution(population=3, sample=3)
    assert search.proposal(judge, []) == judge.base

    def candidate(block: str, reward: float) -> Candidate:
        return Candidate({**BASE, "block": ",".join([block] * 11), "neck": f"{block},{block}"}, 1.0, None, 0.5, reward)

    first = candidate("conv", 0.9)  # the best of all, but too old
    history = [first, candidate("squeezenet", 0.2), candidate("mobilenet_v1", 0.7), candidate("squeezenet", 0.4)]
    random = search.proposal(judge, [first])
    assert random == search.proposal(judge, [first]) != search.proposal(judge, [first, first])
    for count in range(8):
        child = search.proposal(judge, history[:1] * count + history)
        assert names(child).count("mobilenet_v1") == 12


def test_evolution_trains_logs_and_goes_on(folder, tmp_path):
    table = table_of({"conv": 1.0, "mobilenet_v1": 0.5}, cpu=measure.machine()["cpu"])
    judge = judge_of(folder, tmp_path / "run", table)
    best = Evolution(candidates=2).search(judge)
    lines = judge.log.read_text().splitlines()
    found = [Candidate(**json.loads(line)) for line in lines]
    assert found[0].network == BASE and found[0].predicted_ms == pytest.approx(14.0)
    assert len(found) == 2 and best == max(found, key=lambda c: c.reward)
    for one in found:
        assert 0 <= one.accuracy <= 1 and one.measured_ms > 0 and one.latency_ms == one.measured_ms
        assert one.reward == pytest.approx(one.accuracy * (one.measured_ms / 5) ** -0.07, abs=2e-5)
    again = judge_of(folder, tmp_path / "run", table)
    Evolution(candidates=3).search(again)
    assert again.log.read_text().splitlines()[:2] == lines and len(again.history()) == 3
    assert again.train(again.base) == found[0].accuracy  # known, not trained again
    assert len(list((tmp_path / "run").glob("*/checkpoint.pt"))) == 3
    with pytest.raises(ConfigError, match="no 'residual' of"):  # the recipe's network must be in the table
        Evolution().search(judge_of(folder, tmp_path / "r", table, network={**BASE, "block": "residual"}))


def test_a_run_belongs_to_one_search(folder, tmp_path):
    table = table_of({"conv": 1.0})
    judge_of(folder, tmp_path / "run", table).begin("evolution")
    judge_of(folder, tmp_path / "run", table).begin("evolution")
    with pytest.raises(ConfigError, match=r"holds a search with .*5\.0.*, not .*7\.0.*: take another --run"):
        judge_of(folder, tmp_path / "run", table, target_ms=7.0).begin("evolution")
    with pytest.raises(ConfigError, match="the recipe has no checks"):
        judge_of(folder, tmp_path / "run", table, checks={})
    with pytest.raises(ConfigError, match="table is of detnet, the recipe of keynet"):
        judge_of(folder, tmp_path / "run", dataclasses.replace(table, task="detnet"))


def test_what_is_not_measured_here_is_predicted(folder, tmp_path):
    judge = judge_of(folder, tmp_path / "run", table_of({"conv": 0.5}))
    found = judge.note(judge.base, 0.6)
    assert (found.measured_ms, found.predicted_ms, found.latency_ms) == (None, 7.5, 7.5)
    assert found.reward == pytest.approx(0.6 * (7.5 / 5) ** -0.07, abs=1e-5)
    assert judge.history() == [found] and judge.config(found) == judge.base
    with pytest.raises(ConfigError, match="run it on the machine of the latency table"):
        Compound().search(judge)


def test_latency_is_a_factor_or_a_summand_that_is_1_at_the_target():
    loss, ms = torch.tensor(3.0), torch.tensor(2.0, requires_grad=True)
    assert float(LatencyLoss(2.0)(loss, ms).detach()) == pytest.approx(3.0)
    assert float(LatencyLoss(2.0, "sum", 0.5)(loss, ms).detach()) == pytest.approx(3.5)
    slow = float(LatencyLoss(2.0)(loss, 2 * ms).detach())
    assert slow == pytest.approx(3.0 * (np.log(4000) / np.log(2000)) ** 0.6)
    LatencyLoss(2.0)(loss, ms).backward()
    assert float(ms.grad) == pytest.approx(3.0 * 0.6 / np.log(2000) / 2.0, rel=1e-5)
    with pytest.raises(ConfigError, match=r"product, sum and a target .* got 'times', 2\.0 ms"):
        LatencyLoss(2.0, "times")


def test_weights_and_preferences_learn_apart_and_latency_decides(folder, tmp_path):
    """All candidates cost 0.01 ms but one, 3 ms: that one must lose wherever it is."""
    costs = dict.fromkeys(fbnet.CANDIDATES, 0.01) | {"fbnet_k3_e1": 3.0}
    network = {**BASE, "depth": 0.3}
    judge = judge_of(folder, tmp_path / "run", table_of(costs), minutes=1.0, network=network)
    torch.manual_seed(0)
    trainer = SearchTrainer(judge, LatencyLoss(5.0, "sum", weight=1e4))
    expected = 1 + sum(0.01 + 2.99 / len(layer.candidates) for layer in fbnet.mixed_layers(trainer.network))
    assert float(trainer.expected_ms().detach()) == pytest.approx(expected)
    batch = trainer.task.batch(np.random.default_rng(0), 2)

    def snapshot():
        weights = {id(p) for p in trainer.preferences}
        others = [p.detach().clone() for p in trainer.network.parameters() if id(p) not in weights]
        return torch.cat(trainer.preferences).detach().clone(), torch.cat([p.flatten() for p in others])

    changes = []
    for spent_s in [0.0] * 5 + [30.0] * 5:  # the warm-up, and behind it
        trainer.spent_s = spent_s
        before = snapshot()
        trainer.step(batch)
        changes.append(tuple(not torch.equal(a, b) for a, b in zip(before, snapshot())))
    assert changes == [(False, True)] * 9 + [(True, False)]
    for _ in range(10):
        trainer.turn = 4
        trainer.step(batch)
    for layer in fbnet.mixed_layers(trainer.network):
        assert list(layer.candidates)[int(layer.preference.argmin())] == "fbnet_k3_e1"
    assert float(trainer.expected_ms().detach()) < expected - 0.05
    state = trainer.state()
    other = SearchTrainer(judge, trainer.latency)
    other.restore(state)
    assert torch.equal(torch.cat(other.preferences), torch.cat(trainer.preferences))
    assert len(other.chooser.state) == len(trainer.preferences)


def test_fbnet_finds_an_ordinary_network(folder, tmp_path):
    judge = judge_of(folder, tmp_path / "run", table_of(dict.fromkeys(fbnet.CANDIDATES, 0.1)), minutes=0.02)
    found = Differentiable().search(judge)  # its table says that all cost the same
    config = judge.config(found)
    assert set(names(config)) <= set(fbnet.CANDIDATES) and config.width == 0.25
    assert KeyNet(config)(torch.zeros(1, 1, 48, 48))[0].shape == (1, 21, 12, 12)
    assert found.predicted_ms == pytest.approx(2.3) and 0 <= found.accuracy <= 1
    assert Differentiable().search(judge) == found and len(judge.history()) == 1
    with pytest.raises(ConfigError, match="no 'fbnet_k3_e1' of"):
        Differentiable().search(judge_of(folder, tmp_path / "other", table_of({"conv": 1.0})))


def test_compound_scaling_ends_where_the_next_step_is_too_slow(folder, tmp_path):
    """Real networks, measured: whatever the machine says, the log must show that the answer is the edge."""
    here = table_of({"conv": 1.0}, cpu=measure.machine()["cpu"])
    network = {"block": "mobilenet_v1", "width": 0.5}
    judge = judge_of(folder, tmp_path / "run", here, network=network)
    target_ms = judge.measured_ms(dataclasses.replace(judge.base, width=0.75))  # far from both ends of the search
    judge = judge_of(folder, tmp_path / "run", here, target_ms=target_ms, network=network)
    found = Compound().search(judge)
    tried = judge.history()
    assert found == tried[-1] and found.measured_ms <= target_ms < max(c.measured_ms for c in tried)
    assert found.predicted_ms is None and found.accuracy is not None  # no table has these widths
    assert [c.accuracy for c in tried[:-1]] == [None] * (len(tried) - 1) and len(tried) >= 4
    scales = [(judge.config(c).width, judge.config(c).resolution) for c in tried]
    slower = [scale for scale, c in zip(scales, tried) if c.measured_ms > target_ms]
    assert scales[-1] < min(slower)
    assert Compound().search(judge) == found and len(judge.history()) == len(tried)
    with pytest.raises(ConfigError, match="even at 1/64 of its cost the network takes .* start from a faster"):
        Compound().search(judge_of(folder, tmp_path / "fast", here, target_ms=1e-5, network=network))


def test_from_a_device_to_a_trained_network(folder, tmp_path, capsys):
    """The search in a process of its own, as users run it: it forks workers for one training after the other."""
    recipe, _ = tiny_training.recipe(folder, network=BASE)
    start, found, table, run = (tmp_path / name for name in ("start.yaml", "found.yaml", "device.json", "run"))
    save_recipe(recipe, start, "tiny")
    options = f"--config {start} --blocks conv mobilenet_v1 --rounds 2"
    assert main(f"search keynet --measure {options} --output {table}".split()) == 0
    assert "14 blocks at 7 places, and 1 rests" in capsys.readouterr().out
    options = f"--method evolution --table {table} --target-ms 0.2 --candidates 2 --rounds 2 --output {found}"
    words = f"-m hand_tracking_ros.cli search keynet {options} --config {start} --data {folder.parent} --run {run}"
    done = subprocess.run([sys.executable, *words.split()], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and f"--config {found}" in done.stdout, done.stderr
    written = load_recipe(found)
    assert written.sources == recipe.sources and written.minutes == recipe.minutes
    best = max(map(json.loads, (run / "candidates.jsonl").open()), key=lambda line: line["reward"])
    assert written.network == best["network"] and written.network["width"] == 0.25
    options = f"--config {found} --data {folder.parent} --run {tmp_path / 'trained'} --workers 0"
    assert main(f"train keynet {options}".split()) == 0
    config = torch.load(tmp_path / "trained" / "checkpoint.pt")["config"]
    assert not_default(KeyNetConfig(**config)) == best["network"]


def test_from_a_slim_training_to_a_pruned_one(folder, tmp_path, capsys):
    recipe, _ = tiny_training.recipe(folder, network={"width": 0.5, "resolution": 0.5}, loss={"slim": 1e-3})
    start, slim, fat = (tmp_path / name for name in ("start.yaml", "slim.yaml", "fat"))
    save_recipe(recipe, start, "tiny")
    data = f"--data {folder.parent} --workers 0"
    assert main(f"train keynet --config {start} {data} --run {fat}".split()) == 0
    assert main(f"search keynet --prune 0.5 --run {fat} --config {start} --rounds 2 --output {slim}".split()) == 0
    assert re.search(r"residual:.*\n.* ms before, .* ms now \(onnxruntime\)", capsys.readouterr().out)
    assert "residual:" in load_recipe(slim).network["block"]
    weights = slim.with_suffix(".pt")
    options = f"--config {slim} {data} --init {weights} --run {tmp_path / 'slim'}"
    assert main(f"train keynet {options}".split()) == 0
    assert f"took {len(torch.load(weights)['average'])} tensors of {weights}" in capsys.readouterr().out


@pytest.mark.parametrize(("options", "message"), [
    ("--method fbnet --table t.json", "--target-ms, --run, --output must be given"),
    ("--check 5", "--table must be given"),
    ("--prune 0.3 --run nowhere --output o.yaml", "cannot read nowhere/checkpoint.pt: No such file or directory"),
    ("--measure --output o.json --blocks resnext", "no place takes the block 'resnext'; known: conv"),
    ("--measure --output o.json --blocks conv residual:136", "no place takes the block 'residual:136'"),
    ("--measure --output o.json --blocks fbnet", "no place takes the block 'fbnet'"),
    ("--measure --output folder", "cannot write folder: it is a folder; give the name of a file"),
    ("--measure --output o.json --rounds 0", "--rounds must be at least 1, got 0"),
    ("--measure --output o.json --widths -1", "width of a network must be above 0, got -1"),
    ("--measure --output o.json --resolutions 1 0", "resolution of a network must be above 0, got 0"),
    ("--measure --output o.json --threads 0", "--threads must be at least 1, got 0"),
    ("--method evolution --table t.json --output o.yaml --candidates 0", "--candidates must be at least 1, got 0"),
])  # fmt: skip
def test_what_is_missing_or_wrong_is_named(options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    assert main(f"search keynet {options}".split()) == 2
    assert message in capsys.readouterr().err
