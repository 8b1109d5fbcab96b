"""Pruning: which channels go, that dead ones are not missed, and that what is left is an ordinary network."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="networks need the 'train' extra: pip install '.[train]'")
pytest.importorskip("onnx", reason="export needs the 'train' extra: pip install '.[train]'")

# ruff: noqa: E402
import tiny_training

from hand_tracking_ros.errors import ConfigError
from hand_tracking_ros.training.networks.blocks import count_macs
from hand_tracking_ros.training.networks.detnet import DetNet, DetNetConfig
from hand_tracking_ros.training.networks.keynet import KeyNet, KeyNetConfig
from hand_tracking_ros.training.networks.zoo import block
from hand_tracking_ros.training.search.measure import settled
from hand_tracking_ros.training.slimming import inner_norms, kept_channels, penalty, pruned
from hand_tracking_ros.training.tasks import KeyNetTask
from hand_tracking_ros.training.train import Trainer

torch.set_num_threads(1)


def small_keynet() -> KeyNet:
    """Inner channels 16, 32, 32, and 64 five times."""
    torch.manual_seed(0)
    return settled(KeyNet(KeyNetConfig(width=0.5, resolution=0.5)), 1, 48, 48)


def test_the_penalty_is_the_sum_over_the_inner_norms():
    network = small_keynet()
    norms = inner_norms(network)
    assert [norm.num_features for norm in norms] == [16, 32, 32, *[64] * 5]
    with torch.no_grad():
        for norm in norms:
            norm.weight.fill_(-0.5)
    assert float(penalty(network).detach()) == pytest.approx(0.5 * 400)
    with pytest.raises(ConfigError, match="slim needs residual blocks"):
        penalty(KeyNet(KeyNetConfig(block="mobilenet_v1", width=0.25)))


def test_one_threshold_for_all_blocks_and_multiples_of_8():
    network = small_keynet()
    weak = torch.arange(0, 32, 2)
    with torch.no_grad():
        for norm in inner_norms(network):
            norm.weight.fill_(1.0)
        inner_norms(network)[1].weight[weak] = -0.01
        inner_norms(network)[4].weight[:3] = 0.02  # 61 stay: the nearest multiple of 8 is 64
    kept = kept_channels(network, 19 / 400)
    assert [len(indices) for indices in kept] == [16, 16, 32, *[64] * 5]
    assert kept[1].tolist() == list(range(1, 32, 2))
    assert [len(indices) for indices in kept_channels(network, 0.0)] == [16, 32, 32, *[64] * 5]
    with torch.no_grad():
        inner_norms(network)[0].weight.fill_(1e-4)
    assert [len(indices) for indices in kept_channels(network, 16 / 400)] == [8, 32, 32, *[64] * 5]  # never none at all
    for share in (-0.1, 1.0):
        with pytest.raises(ConfigError, match="share of channels"):
            kept_channels(network, share)
    with pytest.raises(ConfigError, match="only residual blocks"):
        kept_channels(KeyNet(KeyNetConfig(block="conv", width=0.25)), 0.5)


def test_dead_channels_are_not_missed_and_cost_is_saved():
    network = small_keynet()
    dead = torch.arange(0, 48)
    with torch.no_grad():
        norm = inner_norms(network)[3]
        norm.weight[dead], norm.bias[dead] = 0.0, 0.0
    slim = pruned(network, 48 / 400)
    assert slim.config.block == ",".join(["residual"] * 6 + ["residual:16"] + ["residual"] * 4)
    assert slim.config.neck == "conv,conv"
    x = torch.randn(2, 1, 48, 48)
    with torch.no_grad():
        for mine, theirs in zip(slim(x), network(x)):
            torch.testing.assert_close(mine, theirs)
    saved = count_macs(network, x[:1]) - count_macs(slim, x[:1])
    assert saved == 48 * 9 * 3 * 3 * 64 * 2  # two 3x3 convolutions around 48 channels, on 3x3 cells
    assert KeyNet(slim.config).load_state_dict(slim.state_dict())  # the configuration says all


def test_detnet_and_residual_necks_are_pruned_too():
    torch.manual_seed(0)
    network = settled(DetNet(DetNetConfig(width=0.5, resolution=0.3, neck="residual")), 1, 64, 96)
    with torch.no_grad():
        for norm in inner_norms(network):
            norm.weight.uniform_(0.1, 1.0)
    slim = pruned(network, 0.5)
    assert slim.config.neck.startswith("residual:") and slim.config.neck.endswith(",residual")
    before, after = (sum(norm.num_features for norm in inner_norms(n)) for n in (network, slim))
    assert after == pytest.approx(before / 2, abs=8 * 2.5)
    assert torch.isfinite(slim(torch.randn(1, 1, 64, 96))[0]).all()


def test_a_narrowed_block_needs_an_identity():
    assert block("residual:8", 16, 16).body[0][0].weight.shape == (8, 16, 3, 3)
    for arguments in ((16, 16, 2), (16, 24, 1), (8, 8, 1)):
        with pytest.raises(ConfigError, match="residual:16 needs stride 1 and as many outputs as inputs, at least 16"):
            block("residual:16", *arguments)
    with pytest.raises(ConfigError, match="no block 'conv:8'"):
        block("conv:8", 16, 16)


def test_training_with_the_penalty_makes_the_norms_smaller(tmp_path):
    folder = tiny_training.pictures(tmp_path / "own")
    means = {}
    for slim in (0.0, 0.5):
        recipe, data = tiny_training.recipe(folder, loss={"slim": slim}, minutes=1.0, learning_rate=0.01)
        torch.manual_seed(0)
        trainer = Trainer(recipe, KeyNetTask(recipe, data), tmp_path / str(slim))
        batch = trainer.task.batch(np.random.default_rng(0), 4)
        trainer.spent_s = 6.0  # behind the warm-up
        for _ in range(10):
            trainer.step(batch)
        means[slim] = float(torch.cat([norm.weight.detach() for norm in inner_norms(trainer.network)]).mean())
    assert means[0.5] < means[0.0] - 0.03
