"""The zoo: shapes, gradients, costs and what each block promises; every network exports, and equals itself there."""

from __future__ import annotations

import copy
import dataclasses
import hashlib

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="networks need the 'train' extra: pip install '.[train]'")
pytest.importorskip("onnx", reason="export needs the 'train' extra: pip install '.[train]'")

# ruff: noqa: E402
from torch import nn

from hand_tracking_ros.errors import ConfigError
from hand_tracking_ros.training.export import export
from hand_tracking_ros.training.networks import CONFIGS, NETWORKS, config_of, from_checkpoint
from hand_tracking_ros.training.networks.blocks import channel_shuffle, count_macs, count_parameters
from hand_tracking_ros.training.networks.detnet import DetNet, DetNetConfig, DetNetRuntime
from hand_tracking_ros.training.networks.keynet import KeyNet, KeyNetConfig, KeyNetRuntime
from hand_tracking_ros.training.networks.scaling import Scaling, compound
from hand_tracking_ros.training.networks.zoo import BLOCKS, block, fbnet, finalise, set_progress
from hand_tracking_ros.training.networks.zoo.grouped import Condense, LearnedGroupConv, ShuffleV1, ShuffleV2
from hand_tracking_ros.training.networks.zoo.mobile import SqueezeExcite
from hand_tracking_ros.training.train import Average

torch.set_num_threads(1)

PAPERS = [name for name in BLOCKS if name not in fbnet.CANDIDATES]
CAN_CHANGE_SHAPE = [name for name in BLOCKS if name != "fbnet_skip"]


@pytest.mark.parametrize("name", CAN_CHANGE_SHAPE)
def test_shapes_and_gradients(name):
    """Odd maps as in DetNet (15x20 to 8x10), and each change of width that the networks have."""
    for inputs, outputs, stride in ((16, 16, 1), (16, 24, 1), (24, 16, 1), (8, 8, 2), (16, 32, 2), (24, 16, 2)):
        torch.manual_seed(0)
        layer = block(name, inputs, outputs, stride)
        x = torch.randn(2, inputs, 15, 20, requires_grad=True)
        y = layer(x)
        assert y.shape == (2, outputs, *((15, 20) if stride == 1 else (8, 10)))
        (y * torch.randn_like(y)).sum().backward()
        silent = [n for n, p in layer.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
        assert silent == [] and x.grad.abs().sum() > 0
        assert torch.isfinite(y).all()


@pytest.mark.parametrize("name", PAPERS)
def test_every_channel_of_the_input_matters(name):
    """Groups and splits would hide some; two blocks in a row must not."""
    torch.manual_seed(0)
    layers = nn.Sequential(block(name, 16, 16), block(name, 16, 16)).eval()
    x = torch.randn(1, 16, 8, 8, requires_grad=True)
    (layers(x) ** 2).sum().backward()
    assert (x.grad.abs().sum(dim=(0, 2, 3)) > 0).all()


def test_unknown_blocks_are_named():
    with pytest.raises(ConfigError, match="no block 'resnext'; known: conv, residual"):
        block("resnext", 8, 8)
    with pytest.raises(ConfigError, match="cannot change the shape"):
        block("fbnet_skip", 8, 16)


def macs(name, inputs, outputs, stride=1, cells=16):
    return count_macs(block(name, inputs, outputs, stride), torch.zeros(1, inputs, cells, cells))


def test_costs_are_those_of_the_papers():
    plain = macs("conv", 32, 64)
    assert plain == 9 * 32 * 64 * 256
    # depthwise separable over plain convolution: 1/N + 1/D^2 (MobileNet, equation 5)
    assert macs("mobilenet_v1", 32, 64) / plain == pytest.approx(1 / 64 + 1 / 9)
    # t d h w (d' + k^2 + d'') (MobileNetV2, section 3.3)
    assert macs("mobilenet_v2", 16, 24) == 6 * 16 * 256 * (16 + 9 + 24)
    # h w (2 c m / g + 9 m) (ShuffleNet, section 3.2)
    assert macs("shufflenet_v1", 64, 64) == 256 * (2 * 64 * 16 // 4 + 9 * 16)
    # half of the channels through 1x1, 3x3 depthwise, 1x1
    assert macs("shufflenet_v2", 64, 64) == 256 * (2 * 32 * 32 + 9 * 32)
    # squeeze, then half the outputs by 1x1 and half by 3x3
    assert macs("squeezenet", 64, 64) == 256 * (64 * 8 + 8 * 32 + 9 * 8 * 32)
    # with K branches: M N / K + (n N)^2 / K (ESPNet, section 3.1)
    assert macs("espnet_v1", 64, 64) == 256 * (64 * 64 // 4 + 9 * 64 * 64 // 4)
    assert macs("xception", 32, 32) == 256 * 3 * (9 * 32 + 32 * 32)
    # reduce in groups, four depthwise branches, expand in groups
    assert macs("espnet_v2", 64, 64) == 256 * (64 * 16 // 4 + 4 * 9 * 16 + 64 * 64 // 4)


def test_shuffle_deals_the_groups_out():
    x = torch.arange(6.0).reshape(1, 6, 1, 1)
    assert channel_shuffle(6, 2)(x).flatten().tolist() == [0, 3, 1, 4, 2, 5]
    assert channel_shuffle(6, 3)(x).flatten().tolist() == [0, 2, 4, 1, 3, 5]


def test_shuffle_v1_joins_the_pooled_input_at_a_stride():
    layer = ShuffleV1(8, 24, 2).eval()
    x = torch.rand(1, 8, 6, 6)
    with torch.no_grad():
        assert torch.allclose(layer(x)[:, :8], nn.AvgPool2d(3, 2, 1)(x))


def test_shuffle_v2_lets_one_half_pass():
    layer = ShuffleV2(8, 8).eval()
    x = torch.randn(1, 8, 4, 4)
    with torch.no_grad():
        assert torch.equal(layer(x)[:, 0::2], x[:, :4])


def test_squeeze_excite_scales_channels():
    torch.manual_seed(0)
    layer, x = SqueezeExcite(8, 2), torch.randn(2, 8, 5, 5)
    with torch.no_grad():
        ratio = layer(x) / x
        means = layer(torch.flip(x, (2, 3))) / torch.flip(x, (2, 3))
    assert torch.allclose(ratio, ratio[:, :, :1, :1].expand_as(ratio), atol=1e-5)  # one factor per channel
    assert ratio.min() > 0 and ratio.max() < 1 and ratio[0, :, 0, 0].std() > 0
    assert torch.allclose(ratio, means, atol=1e-4)  # which depends on the channels' means alone


def test_learned_groups_condense_on_schedule_to_what_was_strongest():
    torch.manual_seed(0)
    layer = LearnedGroupConv(16, 8, out_groups=2, factor=4)
    with torch.no_grad():
        layer.weight[:4, :4] *= 100  # the first group's outputs need the inputs 0..3, the second's 12..15
        layer.weight[4:, 12:] *= 100
    kept = []
    for share in (0.0, 0.16, 0.17, 0.34, 0.3, 0.5, 1.0):
        layer.set_progress(share)
        kept.append(layer.keeps.sum(dim=1).tolist())
    assert kept == [[16, 16]] * 2 + [[12, 12]] + [[8, 8]] * 2 + [[4, 4]] * 2
    assert layer.keeps.nonzero()[:, 1].tolist() == [0, 1, 2, 3, 12, 13, 14, 15]
    layer(torch.randn(1, 16, 2, 2)).sum().backward()
    dropped = ~layer.keeps.repeat_interleave(4, dim=0)
    assert layer.weight.grad[:, :, 0, 0][dropped].abs().max() == 0


def test_condensed_layers_equal_the_masked_ones_at_a_quarter_of_the_cost():
    torch.manual_seed(0)
    layer = Condense(32, 32).eval()
    x = torch.randn(2, 32, 8, 8)
    dense = count_macs(layer, x)
    assert finalise(copy.deepcopy(layer)).body[2].groups == 1  # not condensed yet: stays what it is
    set_progress(layer, 1.0)
    final = finalise(copy.deepcopy(layer))
    with torch.no_grad():
        assert torch.allclose(final(x), layer(x), atol=1e-5)
    assert dense - count_macs(final, x) == 2 * 64 * 32 * 32 * 3 // 4
    assert final.body[2][1].groups == 4


def test_the_average_and_a_checkpoint_keep_the_learned_groups():
    torch.manual_seed(0)
    network = nn.Sequential(LearnedGroupConv(16, 16))
    average = Average(network)
    set_progress(network, 1.0)
    average.update(network)
    restored = nn.Sequential(LearnedGroupConv(16, 16))
    restored.load_state_dict(average.network.state_dict())
    assert torch.equal(restored[0].keeps, network[0].keeps) and restored[0].keeps.sum() == 4 * 4
    set_progress(restored, 0.1)  # a run that was prolonged
    assert torch.equal(restored[0].keeps, network[0].keeps)


def test_searchable_layer_mixes_in_training_and_chooses_afterwards():
    torch.manual_seed(0)
    layer = fbnet.Mixed({"twice": nn.Conv2d(1, 1, 1, bias=False), "same": nn.Identity()})
    nn.init.constant_(layer.candidates["twice"].weight, 2.0)
    x = torch.ones(1, 1, 1, 1)
    drawn = [float(layer(x).detach()) for _ in range(200)]
    assert all(1 < value < 2 for value in drawn)
    layer.temperature = 0.02
    cold = np.array([float(layer(x).detach()) for _ in range(200)])
    assert np.mean((cold > 1.99) | (cold < 1.01)) > 0.9 > np.mean(cold > 1.99)  # nearly one choice, but not always one
    with torch.no_grad():
        layer.preference[:] = torch.tensor([1.0, 0.0])
    assert (
        float(layer.eval()(x).detach()) == 2
        and layer.best_name() == "twice"
        and layer.best() is layer.candidates["twice"]
    )


def test_expected_latency_is_the_mean_of_the_table_and_teaches():
    layer = fbnet.Mixed({"slow": nn.Identity(), "fast": nn.Identity()})
    with pytest.raises(KeyError, match="slow"):
        layer.expected_latency_ms()
    layer.latency_ms = {"slow": 3.0, "fast": 1.0}
    network = nn.Sequential(layer, copy.deepcopy(layer))
    assert float(fbnet.expected_latency_ms(network).detach()) == pytest.approx(4.0)
    with torch.no_grad():
        layer.preference[:] = torch.log(torch.tensor([3.0, 1.0]))
    assert float(layer.expected_latency_ms().detach()) == pytest.approx(0.75 * 3 + 0.25 * 1)
    winners = torch.stack([nn.functional.gumbel_softmax(layer.preference.detach(), hard=True) for _ in range(4000)])
    assert float((winners @ torch.tensor([3.0, 1.0])).mean()) == pytest.approx(2.5, abs=0.06)  # as drawn
    layer.expected_latency_ms().backward()
    assert layer.preference.grad[0] > 0 > layer.preference.grad[1]  # descent turns to the fast one


def test_searchable_layer_cools_down():
    layer = block("fbnet", 8, 8)
    temperatures = []
    for share in (0.0, 0.5, 1.0):
        set_progress(layer, share)
        temperatures.append(layer.temperature)
    assert temperatures == pytest.approx([5.0, 0.66, 0.087], abs=0.005)
    assert "fbnet_skip" in layer.candidates and "fbnet_skip" not in block("fbnet", 8, 8, 2).candidates


@pytest.mark.parametrize("task", ["keynet", "detnet"])
def test_a_found_network_is_an_ordinary_one(task):
    torch.manual_seed(0)
    config = CONFIGS[task](block="fbnet", width=0.25)
    network = NETWORKS[task](config).eval()
    layers = fbnet.mixed_layers(network)
    for layer in layers:
        nn.init.normal_(layer.preference)
    names = [layer.best_name() for layer in layers]
    found = dataclasses.replace(config, block=",".join(names[:-2]), neck=",".join(names[-2:]))
    ordinary, final = NETWORKS[task](found).eval(), finalise(network)
    ordinary.load_state_dict(final.state_dict())
    x = torch.randn(1, 1, 96, 96) if task == "keynet" else torch.randn(1, 1, 240, 320)
    with torch.no_grad():
        assert all(map(torch.equal, ordinary(x), final(x)))


def test_multipliers():
    config = Scaling(width=0.75)
    assert [config.channels(base) for base in (16, 24, 32, 48, 64, 128)] == [16, 24, 24, 40, 48, 96]
    assert all(Scaling().channels(base) == base for base in (16, 24, 32, 48, 64, 96, 128))
    assert Scaling(width=0.1).channels(16) == 8
    assert [Scaling(depth=depth).repeats(3) for depth in (0.1, 0.5, 1.0, 1.2)] == [1, 2, 3, 4]
    assert KeyNetConfig().size == 96 and KeyNetConfig(resolution=0.7).size == 64
    assert DetNetConfig().size == (320, 240) and DetNetConfig(resolution=0.75).size == (240, 176)
    with pytest.raises(ConfigError, match="block names 3 blocks, the network has 11 places"):
        KeyNet(KeyNetConfig(block="conv,conv,residual"))


def test_compound_scaling_doubles_the_cost():
    """At multiples of 8 channels, whole blocks and 16 px it can only be near 2; at phi 3, 8 times, nearer."""
    config = KeyNetConfig(block="efficientnet")
    costs = []
    for phi in (0, 3):
        scaled = compound(config, phi)
        costs.append(count_macs(KeyNet(scaled), torch.zeros(1, 1, scaled.size, scaled.size)))
    assert costs[1] / costs[0] == pytest.approx(8, rel=0.25)
    assert dataclasses.asdict(compound(config, 0)) == dataclasses.asdict(config)


def test_width_is_nearly_quadratic_in_cost_and_resolution_exactly():
    def cost(**scaling):
        config = KeyNetConfig(block="mobilenet_v1", **scaling)
        network = KeyNet(config)
        network.vector = nn.Identity()  # its linear layer grows with the map, but is no convolution
        return count_macs(_Body(network), torch.zeros(1, 1, config.size, config.size))

    assert 0.25 < cost(width=0.5) / cost() < 0.4  # the depthwise part is only linear
    assert cost(resolution=0.5) / cost() == pytest.approx(0.25)


class _Body(nn.Module):
    def __init__(self, network: KeyNet):
        super().__init__()
        self.stages = nn.Sequential(network.to_stride4, network.to_stride8, network.to_stride16)

    def forward(self, x):
        return self.stages(x)


def test_the_default_networks_are_what_checkpoints_were_trained_as():
    """Names, order and sizes: older checkpoints, which state no configuration, load and resume."""
    keynet, detnet = KeyNet(), DetNet()
    assert (count_parameters(keynet), count_parameters(detnet)) == (1852204, 551791)
    assert (len(keynet.state_dict()), len(detnet.state_dict())) == (160, 106)
    digests = []
    for network in (keynet, detnet):
        layout = "".join(f"{name}{tuple(value.shape)}" for name, value in network.state_dict().items())
        digests.append(hashlib.sha256(layout.encode()).hexdigest()[:16])
    assert digests == ["6bac960fd47c8365", "cd2d6b8118dea7a5"]
    old = {"average": keynet.state_dict()}
    assert from_checkpoint("keynet", old).config == config_of("keynet", old) == KeyNetConfig()


def test_a_checkpoint_says_which_network_it_holds(tmp_path):
    config = DetNetConfig(block="shufflenet_v2", width=0.5, resolution=0.8)
    state = {"average": DetNet(config).state_dict(), "config": dataclasses.asdict(config)}
    torch.save(state, tmp_path / "checkpoint.pt")
    network = from_checkpoint("detnet", torch.load(tmp_path / "checkpoint.pt"))
    assert network.config == config and network.config.size == (256, 192)


CARD = {
    "preprocessing": "none", "keypoint_order": "mediapipe_21",
    "precision": "fp32", "licence": "Apache-2.0",
    "training": {"data": [], "command": "", "seed": 0, "hours": 0.0, "notes": ""}, "accuracy": {},
}  # fmt: skip


def exported_equals_torch(task, config, folder):
    import onnxruntime

    torch.manual_seed(0)
    network = NETWORKS[task](config).train()
    set_progress(network, 1.0)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0  # normalise at once: in a fading signal every cell would be a peak or none
    width, height = (config.size, config.size) if task == "keynet" else config.size
    with torch.no_grad():
        network(torch.randn(2, 1, height, width))
    network = finalise(network.eval())
    path = export(task, network, folder, "exported", CARD)
    image = np.random.default_rng(0).integers(0, 256, (3 if task == "keynet" else 1, 1, height, width)).astype(np.uint8)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # starts sooner
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    outputs = session.run(None, {session.get_inputs()[0].name: image})
    with torch.no_grad():
        expected = {"keynet": KeyNetRuntime, "detnet": DetNetRuntime}[task](network)(torch.from_numpy(image))
    for got, wanted in zip(outputs, (value.numpy() for value in expected), strict=True):
        if task == "detnet" and got is outputs[0]:  # of cells that are alike, the last bit decides which is a peak
            assert ((got > 0) != (wanted > 0)).mean() < 0.1
            peaks = (got > 0) & (wanted > 0)
            got, wanted = got[peaks], wanted[peaks]
            assert len(got) >= 1
        np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=2e-3)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", PAPERS)
def test_keynet_of_every_block_exports_and_equals_torch(name, tmp_path):
    """Exported with two crops, run with three: nothing may have taken the batch for a constant."""
    exported_equals_torch("keynet", KeyNetConfig(block=name, width=0.25, depth=0.3, resolution=0.7), tmp_path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("names", [PAPERS[:9], PAPERS[-9:]], ids=["first", "last"])
def test_detnet_of_all_blocks_exports_and_equals_torch(names, tmp_path):
    """A different block at each of the nine places, on maps of 7 and 4 rows at strides 16 and 32."""
    config = DetNetConfig(block=",".join(names[:7]), neck=",".join(names[7:]), width=0.25, resolution=0.45)
    exported_equals_torch("detnet", config, tmp_path)
