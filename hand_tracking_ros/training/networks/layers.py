"""Layers shared by our own networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def stem(outputs: int, kernel: int, stride: int) -> nn.Sequential:
    """One large strided convolution from the grey image: skips the costly high-resolution stages."""
    conv = nn.Conv2d(1, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """3x3 convolution, batch norm, ReLU."""
    conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def conv1x1(inputs: int, outputs: int) -> nn.Sequential:
    """1x1 convolution, batch norm, ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class Residual(nn.Module):
    """Two 3x3 convolutions around an identity (He et al., CVPR 2016)."""

    def __init__(self, channels: int):
        super().__init__()
        second = nn.Sequential(nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels))
        self.body = nn.Sequential(conv3x3(channels, channels), second)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.body(x))


def normalised(image: Tensor) -> Tensor:
    """Zero mean and unit deviation per image (B, 1, H, W), input in grey levels 0..255; flat images stay near zero.

    Exposure and contrast drop out here, which is what carries the networks into dark images.
    """
    mean = image.mean(dim=(2, 3), keepdim=True)
    deviation = ((image - mean) ** 2).mean(dim=(2, 3), keepdim=True).sqrt()
    return (image - mean) / (deviation + 4.0)
