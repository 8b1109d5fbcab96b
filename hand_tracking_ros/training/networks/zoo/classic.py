"""Blocks of ordinary convolutions: plain, residual, and SqueezeNet's fire."""

from __future__ import annotations

from torch import nn

from hand_tracking_ros.training.networks.blocks import Residual, conv_bn_relu


def residual(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    """Residual 3x3 block (He et al., CVPR 2016); where the shape changes, one 3x3 convolution without a shortcut."""
    return Residual(inputs) if stride == 1 and inputs == outputs else conv_bn_relu(inputs, outputs, stride)
