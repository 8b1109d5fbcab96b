"""KeyNet-F is told its own answers in training, as a tracker tells it in use."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_training

torch = pytest.importorskip("torch", reason="training needs torch (pip install '.[train]')")

from hand_tracking_ros.errors import ConfigError  # noqa: E402
from hand_tracking_ros.training.networks.blocks import normalised  # noqa: E402
from hand_tracking_ros.training.networks.keynet import soft_argmax  # noqa: E402
from hand_tracking_ros.training.priors import told_itself  # noqa: E402
from hand_tracking_ros.training.tasks import KeyNetTask  # noqa: E402
from hand_tracking_ros.training.weights import measure_norms  # noqa: E402


def task_that_tells(tmp_path, share: float, temporal: bool = True) -> KeyNetTask:
    tmp_path.mkdir(exist_ok=True)
    recipe, data = tiny_training.recipe(
        tiny_training.pictures(tmp_path / "own"), network={"width": 0.25, "resolution": 0.5, "temporal": temporal},
        sampling={"self_told": share},
    )  # fmt: skip
    return KeyNetTask(recipe, data)


def peaks(maps: torch.Tensor, size: int) -> torch.Tensor:
    """Where maps (B, 21, cells, cells) have their centres of mass, (B, 21, 2) px."""
    return soft_argmax(torch.log(maps.clamp(min=1e-6)), size)[0]


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_a_share_of_the_samples_is_marked(tmp_path, share):
    batch = task_that_tells(tmp_path, share).batch(np.random.default_rng(0), 400)
    assert batch["self_told"].mean() == pytest.approx(share, abs=0.07)


def test_marked_samples_are_told_the_answer_of_the_network(tmp_path):
    torch.manual_seed(0)
    task = task_that_tells(tmp_path, 0.5)
    network, batch, size = task.network(), task.batch(np.random.default_rng(0), 24), task.config.size
    torch.nn.init.normal_(network.heatmaps.weight)  # sure of something, here or there
    batch["prior_scores"][:] = 1.0
    crop, own = normalised(batch["crop"][:, None].float()), batch["self_told"] > 0.5
    network.train()
    statistics = {name: value.clone() for name, value in network.state_dict().items()}
    maps = task._expected(network, crop, batch)
    assert all(torch.equal(value, statistics[name]) for name, value in network.state_dict().items())
    assert all(module.training for module in network.modules())
    batch["self_told"][:] = 0.0
    simulated = task._expected(network, crop, batch)
    assert torch.equal(maps[~own], simulated[~own]) and 0 < own.sum() < 24
    answer, _ = soft_argmax(network.eval()(crop, simulated)[0], size)
    gaps = (peaks(maps, size) - answer).norm(dim=-1).mean(dim=1)
    assert gaps[own].max() < 0.07 * size < gaps[~own].median()


def test_an_answer_is_carried_along_with_what_flow_gets_wrong():
    torch.manual_seed(0)
    answer, scores = torch.full((500, 21, 2), 48.0), torch.ones(500, 21)
    scores[:100] = 0.0  # of these nothing was known
    scores[100:, 4] = 0.0  # lost by flow
    carried, known = told_itself(answer, scores, 96)
    assert (carried - answer).std() == pytest.approx(96 * np.hypot(0.02, 0.008), rel=0.1)
    assert (carried - carried.mean(dim=1, keepdim=True)).std() == pytest.approx(96 * 0.008, rel=0.1)
    assert (known[:100] == 1).all() and (known[100:] == scores[100:]).all()


def test_norms_are_measured_though_the_network_runs_twice(tmp_path):
    """The statistics are those of what the network sees, not their multiple."""
    task, means = task_that_tells(tmp_path, 1.0), []
    batch = task.batch(np.random.default_rng(0), 16)
    for told in (0.0, 1.0):  # of all samples: the first layers see the same images twice
        torch.manual_seed(0)
        network, own = task.network(), {**batch, "self_told": torch.full((16,), told)}
        measure_norms(network, lambda network=network, own=own: task.loss(network, own), batches=2)
        means.append(next(m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)).running_mean)
    np.testing.assert_allclose(means[0], means[1], rtol=1e-4, atol=1e-7)


def test_who_is_told_nothing_cannot_be_told_its_own_answers(tmp_path):
    with pytest.raises(ConfigError, match="self_told is for KeyNet-F.*add --temporal"):
        task_that_tells(tmp_path, 0.3, temporal=False)
