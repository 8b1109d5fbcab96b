"""Blocks that the networks are made of, and a count of their multiply-accumulates."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def conv_bn_relu(inputs: int, outputs: int, stride: int = 1, padding: int = 1) -> nn.Sequential:
    """3x3 convolution, batch norm, ReLU."""
    conv = nn.Conv2d(inputs, outputs, 3, stride, padding, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def conv1x1(inputs: int, outputs: int) -> nn.Sequential:
    """1x1 convolution, batch norm, ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def stem(outputs: int, kernel: int, stride: int) -> nn.Sequential:
    """One large strided convolution from the grey image: skips the costly high-resolution stages."""
    conv = nn.Conv2d(1, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class Residual(nn.Module):
    """Two 3x3 convolutions around an identity (He et al., CVPR 2016), ``inner`` channels between them."""

    def __init__(self, channels: int, inner: int | None = None):
        super().__init__()
        inner = inner or channels
        second = nn.Sequential(nn.Conv2d(inner, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels))
        self.body = nn.Sequential(conv_bn_relu(channels, inner), second)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.body(x))


class Select(nn.Module):
    """Channels in the order of ``index``; one may come several times. One Gather in the exported graph."""

    def __init__(self, index: Tensor):
        super().__init__()
        self.register_buffer("index", index)

    def forward(self, x: Tensor) -> Tensor:
        return x.index_select(1, self.index)


def channel_shuffle(channels: int, groups: int) -> Select:
    """Deal the channels of ``groups`` groups out in turn, so that the next group convolution sees all of them."""
    return Select(torch.arange(channels).reshape(groups, -1).T.flatten())


class InvertedResidual(nn.Module):
    """Inverted residual block (MobileNetV2, Sandler et al., CVPR 2018): 1x1 expand, 3x3 depthwise, 1x1 linear.

    ``expanded`` is the width in the middle; where it equals ``inputs`` there is no expansion. The identity is added
    where input and output have the same shape. What its descendants add: ``excite``, a layer behind the depthwise
    convolution; and ``groups`` in both 1x1 convolutions, then always two, with a shuffle behind the first.
    """

    def __init__(
        self,
        inputs: int,
        expanded: int,
        outputs: int,
        stride: int = 1,
        kernel: int = 3,
        groups: int = 1,
        activation=nn.ReLU,
        excite: nn.Module | None = None,
    ):
        super().__init__()
        self.expand = nn.Identity()
        if expanded != inputs or groups > 1:
            conv = nn.Conv2d(inputs, expanded, 1, groups=groups, bias=False)
            self.expand = nn.Sequential(conv, nn.BatchNorm2d(expanded), activation(inplace=True))
            if groups > 1:
                self.expand.append(channel_shuffle(expanded, groups))
        self.depthwise = nn.Sequential(
            nn.Conv2d(expanded, expanded, kernel, stride, kernel // 2, groups=expanded, bias=False),
            nn.BatchNorm2d(expanded),
            activation(inplace=True),
        )
        self.excite = excite or nn.Identity()
        project = nn.Conv2d(expanded, outputs, 1, groups=groups, bias=False)
        self.project = nn.Sequential(project, nn.BatchNorm2d(outputs))
        self.has_identity = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.excite(self.depthwise(self.expand(x))))
        return x + y if self.has_identity else y


def inverted_residuals(inputs: int, *rows: tuple[int, int, int, int]) -> nn.Sequential:
    """Blocks from table rows (expanded, outputs, stride, repeat); the stride is that of the first of the repeats."""
    blocks = []
    for expanded, outputs, stride, repeat in rows:
        for index in range(repeat):
            blocks.append(InvertedResidual(inputs, expanded, outputs, stride if index == 0 else 1))
            inputs = outputs
    return nn.Sequential(*blocks)


def count_parameters(network: nn.Module) -> int:
    """Number of trained parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def count_macs(network: nn.Module, *inputs: Tensor) -> int:
    """Multiply-accumulates of the convolutions and linear layers in one forward pass of ``network`` on ``inputs``."""
    total = 0

    def convolution(layer: nn.Conv2d, _: object, output: Tensor) -> None:
        nonlocal total
        total += output.numel() * layer.weight[0].numel()

    def transposed(layer: nn.ConvTranspose2d, taken: tuple[Tensor], _: object) -> None:
        nonlocal total
        total += taken[0].numel() * layer.weight[0].numel()

    def linear(layer: nn.Linear, _: object, output: Tensor) -> None:
        nonlocal total
        total += output.numel() * layer.in_features

    counters = {nn.Conv2d: convolution, nn.ConvTranspose2d: transposed, nn.Linear: linear}
    hooks = [
        module.register_forward_hook(counter)
        for module in network.modules()
        for kind, counter in counters.items()
        if isinstance(module, kind)
    ]
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            network(*inputs)
    finally:
        network.train(was_training)
        for hook in hooks:
            hook.remove()
    return total


def normalised(image: Tensor) -> Tensor:
    """Zero mean and unit deviation per image (B, 1, H, W), input in grey levels 0..255; flat images stay near zero.

    Exposure and contrast drop out here, which is what carries the networks into dark images.
    """
    centred = image - image.mean(dim=(2, 3), keepdim=True)
    deviation = (centred * centred).mean(dim=(2, 3), keepdim=True).sqrt()
    return centred * (1 / (deviation + 4.0))
