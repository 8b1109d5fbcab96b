"""Blocks of ordinary convolutions: residual, and SqueezeNet's fire."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hand_tracking_ros.errors import ConfigError
from hand_tracking_ros.training.networks.blocks import Residual, conv1x1, conv_bn_relu


def residual(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    """Residual 3x3 block (He et al., CVPR 2016); where the shape changes, one 3x3 convolution without a shortcut."""
    return Residual(inputs) if stride == 1 and inputs == outputs else conv_bn_relu(inputs, outputs, stride)


def narrowed(inner: int, inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    """Residual block with ``inner`` channels between its convolutions. Raises ConfigError where the shape changes."""
    if stride != 1 or inputs != outputs or not 1 <= inner <= outputs:
        raise ConfigError(
            f"residual:{inner} needs stride 1 and as many outputs as inputs, at least {inner}; "
            f"got {inputs} to {outputs}, stride {stride}: only residual blocks around an identity can be narrowed"
        )
    return Residual(inputs, inner)


class Fire(nn.Module):
    """Fire module (SqueezeNet, Iandola et al., 2016): squeeze by 1x1 to an eighth, expand by as many 1x1 as 3x3.

    With the paper's simple bypass where the shape stays, and batch norm, which the paper is older than. A stride is a
    max pool in front, as there.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__()
        squeezed = max(8, outputs // 8)
        self.pool = nn.MaxPool2d(3, 2, 1) if stride == 2 else nn.Identity()
        self.squeeze = conv1x1(inputs, squeezed)
        self.expand1 = conv1x1(squeezed, outputs // 2)
        self.expand3 = conv_bn_relu(squeezed, outputs - outputs // 2)
        self.has_identity = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        squeezed = self.squeeze(self.pool(x))
        y = torch.cat([self.expand1(squeezed), self.expand3(squeezed)], dim=1)
        return x + y if self.has_identity else y
