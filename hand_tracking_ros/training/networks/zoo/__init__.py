"""The zoo: building blocks from the literature behind one call, ``block(name, inputs, outputs, stride)``.

Every block maps (B, inputs, H, W) to (B, outputs, ceil(H / stride), ceil(W / stride)), stride 1 or 2, channels in
multiples of 8. Identities are added where the shape stays. docs/zoo.md compares them.

Two optional methods let a layer change over a training run: ``set_progress(share)`` with the share of the run that is
over, and ``final()``, the layer that takes its place when training has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import nn

from hand_tracking_ros.errors import ConfigError
from hand_tracking_ros.training.networks.blocks import conv_bn_relu
from hand_tracking_ros.training.networks.zoo import classic, fbnet, grouped, mobile, pyramids

BlockFactory = Callable[[int, int, int], nn.Module]  # inputs, outputs, stride

BLOCKS: dict[str, BlockFactory] = {
    "conv": conv_bn_relu,
    "residual": classic.residual,
    "squeezenet": classic.Fire,
    "mobilenet_v1": mobile.DepthwiseSeparable,
    "mobilenet_v2": mobile.mobilenet_v2,
    "mobilenet_v3": mobile.mobilenet_v3,
    "mnasnet": mobile.mnasnet,
    "efficientnet": mobile.efficientnet,
    "xception": mobile.Xception,
    "shufflenet_v1": grouped.ShuffleV1,
    "shufflenet_v2": grouped.ShuffleV2,
    "condensenet": grouped.Condense,
    "espnet_v1": pyramids.EspV1,
    "espnet_v2": pyramids.EspV2,
    "fbnet": fbnet.searchable,
    **fbnet.CANDIDATES,  # so that what a search found is an ordinary network: one name per place
}


def block(name: str, inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    """A block by its name; 'residual:N' has N inner channels. Raises ConfigError for a name that is not in BLOCKS."""
    kind, _, inner = name.partition(":")
    if kind == "residual" and inner.isdecimal():
        return classic.narrowed(int(inner), inputs, outputs, stride)
    if name not in BLOCKS:
        raise ConfigError(f"there is no block '{name}'; known: {', '.join(BLOCKS)}")
    return BLOCKS[name](inputs, outputs, stride)


def stage(names: Iterator[str], count: int, inputs: int, outputs: int) -> list[nn.Module]:
    """``count`` blocks, named by the next ``names``; the first halves the resolution and changes the width."""
    return [
        block(next(names), inputs if first else outputs, outputs, 2 if first else 1)
        for first in (index == 0 for index in range(count))
    ]


def set_progress(network: nn.Module, share: float) -> None:
    """Tell every layer that changes in the course of training how much of it is over, 0..1."""
    for layer in network.modules():
        if hasattr(layer, "set_progress"):
            layer.set_progress(share)


def finalise(network: nn.Module) -> nn.Module:
    """Put the final form of every layer that has one in its place, for export; returns the network."""
    for name, layer in list(network.named_children()):
        setattr(network, name, finalise(layer.final() if hasattr(layer, "final") else layer))
    return network
