"""Blocks of depthwise convolutions: the MobileNets and what was searched from them."""

from __future__ import annotations

from torch import nn

from hand_tracking_ros.training.networks.blocks import InvertedResidual


def mobilenet_v2(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    """Inverted residual (MobileNetV2, Sandler et al., CVPR 2018), six times as wide in the middle."""
    return InvertedResidual(inputs, 6 * inputs, outputs, stride)
