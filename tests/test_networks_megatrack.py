"""The paper's networks against its tables: shapes of every stage, multiply-accumulates, parameters, gradients."""

import pytest

torch = pytest.importorskip("torch", reason="networks need the 'train' extra")

from hand_tracking_ros.training.networks.blocks import (  # noqa: E402
    InvertedResidual,
    count_macs,
    count_parameters,
    inverted_residuals,
)
from hand_tracking_ros.training.networks.megatrack_detnet import MegatrackDetNet  # noqa: E402
from hand_tracking_ros.training.networks.megatrack_keynet import MegatrackKeyNet  # noqa: E402

torch.set_num_threads(1)  # these networks are small: threads that wait for each other only slow them down


def block_shapes(body, x):
    """(channels, width, height) after every block."""
    shapes = []
    with torch.no_grad():
        for block in body:
            x = block(x)
            shapes.append((x.shape[1], x.shape[3], x.shape[2]))
    return shapes


def detnet_inputs(batch=1):
    return (torch.randn(batch, 1, 480, 640),)


def keynet_inputs(batch=1):
    return torch.randn(batch, 1, 96, 96), torch.randn(batch, 21, 3)


@pytest.mark.parametrize(
    ("network", "inputs", "mmacs", "million_parameters"),
    [(MegatrackDetNet, detnet_inputs, 137, 1.4), (MegatrackKeyNet, keynet_inputs, 162, 1.9)],
)
def test_size_is_the_published_one(network, inputs, mmacs, million_parameters):
    assert round(count_macs(network(), *inputs()) / 1e6) == mmacs
    assert count_parameters(network()) / 1e6 == pytest.approx(million_parameters, abs=0.05)


def test_detnet_stages():
    network = MegatrackDetNet().eval()
    with torch.no_grad():
        pooled = network.stem[0](*detnet_inputs())
        x = network.stem(*detnet_inputs())
    assert pooled.shape == (1, 1, 120, 160)
    assert x.shape == (1, 32, 60, 80)
    assert block_shapes(network.body, x) == (
        [(32, 40, 30)] * 2
        + [(64, 20, 15)] * 3
        + [(64, 10, 8)] * 4
        + [(96, 10, 8)] * 3
        + [(128, 5, 4)] * 3
        + [(160, 5, 4)]
    )


def test_keynet_stages():
    network = MegatrackKeyNet().eval()
    crop, expected = keynet_inputs()
    with torch.no_grad():
        x = network.image[0](crop)
        assert x.shape == (1, 32, 48, 48)
        assert network.keypoints(expected).shape == (1, 32, 12, 12)
        heads = block_shapes(network.heatmaps, torch.randn(1, 160, 6, 6))
        distances = network.distances(torch.randn(1, 160, 6, 6))
    assert block_shapes(network.image[1], x) == [(32, 48, 48)] + [(32, 24, 24)] * 2 + [(64, 12, 12)] * 3
    assert block_shapes(network.fused, torch.randn(1, 96, 12, 12)) == (
        [(64, 12, 12)] * 5 + [(96, 12, 12)] * 3 + [(128, 6, 6)] * 3 + [(160, 6, 6)]
    )
    assert heads == [(63, 8, 8), (42, 16, 16), (21, 18, 18)]
    assert distances.shape == (1, 21 * 18)


def test_outputs():
    centers, radii, confidences = MegatrackDetNet()(*detnet_inputs(2))
    assert (centers.shape, radii.shape, confidences.shape) == ((2, 2, 2), (2, 2), (2, 2))
    assert confidences.min() >= 0 and confidences.max() <= 1
    heatmaps, distances = MegatrackKeyNet()(*keynet_inputs(2))
    assert (heatmaps.shape, distances.shape) == ((2, 21, 18, 18), (2, 21, 18))
    assert heatmaps.min() >= 0 and distances.min() >= 0


@pytest.mark.parametrize(("network", "inputs"), [(MegatrackDetNet, detnet_inputs), (MegatrackKeyNet, keynet_inputs)])
def test_gradients_reach_every_parameter(network, inputs):
    torch.manual_seed(0)
    network = network()
    sum((output * torch.randn_like(output)).sum() for output in network(*inputs(2))).backward()
    silent = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


def test_keynet_takes_a_new_hand_and_uses_the_keypoints_of_a_known_one():
    torch.manual_seed(0)
    network = MegatrackKeyNet().eval()
    crop, expected = keynet_inputs()
    with torch.no_grad():
        new, known = network(crop, torch.zeros_like(expected)), network(crop, expected)
    for without, with_keypoints in zip(new, known, strict=True):
        assert torch.isfinite(without).all()
        assert not torch.allclose(without, with_keypoints)


def test_identity_only_where_shapes_allow():
    block = InvertedResidual(8, 16, 8).eval()
    torch.nn.init.zeros_(block.project[0].weight)
    x = torch.randn(1, 8, 4, 4)
    assert torch.equal(block(x), x)
    for outputs, stride in ((8, 2), (12, 1)):
        assert not InvertedResidual(8, 16, outputs, stride).has_identity


def test_counts_by_hand():
    """Expand 4*8, depthwise 8*9 and project 8*6 per pixel, at the resolution of each."""
    block = InvertedResidual(4, 8, 6, stride=2)
    assert count_macs(block, torch.zeros(1, 4, 10, 10)) == 4 * 8 * 100 + (8 * 9 + 8 * 6) * 25
    assert count_parameters(block) == 4 * 8 + 8 * 9 + 8 * 6 + 2 * (8 + 8 + 6)
    assert count_macs(InvertedResidual(8, 8, 8), torch.zeros(1, 8, 2, 2)) == (8 * 9 + 8 * 8) * 4  # nothing to expand
    assert count_macs(torch.nn.ConvTranspose2d(3, 5, 2, 2), torch.zeros(1, 3, 7, 7)) == 3 * 5 * 4 * 49
    assert count_macs(torch.nn.Linear(63, 10), torch.zeros(2, 63)) == 2 * 630


def test_counting_leaves_the_network_as_it_was():
    network = inverted_residuals(4, (8, 4, 1, 2)).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    count_macs(network, torch.randn(1, 4, 6, 6))
    assert network.training and all(not m._forward_hooks for m in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
