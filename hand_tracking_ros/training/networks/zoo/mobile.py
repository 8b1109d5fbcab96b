"""Blocks of depthwise convolutions: the MobileNets, what was searched from them, and Xception."""

from __future__ import annotations

from torch import Tensor, nn

from hand_tracking_ros.training.networks.blocks import InvertedResidual, conv1x1


def depthwise(channels: int, stride: int = 1, kernel: int = 3, dilation: int = 1) -> nn.Conv2d:
    """One filter per channel."""
    padding = dilation * (kernel // 2)
    return nn.Conv2d(channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False)


class DepthwiseSeparable(nn.Sequential):
    """3x3 depthwise, then 1x1, each with batch norm and ReLU (MobileNet, Howard et al., 2017).

    Its width and resolution multipliers are those of Scaling.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        each = nn.Sequential(depthwise(inputs, stride), nn.BatchNorm2d(inputs), nn.ReLU(inplace=True))
        super().__init__(each, conv1x1(inputs, outputs))


def mobilenet_v2(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    """Inverted residual (MobileNetV2, Sandler et al., CVPR 2018), six times as wide in the middle."""
    return InvertedResidual(inputs, 6 * inputs, outputs, stride)


class SqueezeExcite(nn.Module):
    """Scale each channel by a gate computed from the means of all of them (Hu et al., CVPR 2018)."""

    def __init__(self, channels: int, squeezed: int, activation=nn.ReLU, gate=nn.Sigmoid):
        super().__init__()
        squeeze, excite = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)
        self.gate = nn.Sequential(squeeze, activation(), excite, gate())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x.mean(dim=(2, 3), keepdim=True))


def mobilenet_v3(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    """MobileNetV3 (Howard et al., ICCV 2019): four times as wide, squeeze-excite to a quarter, hard swish."""
    excite = SqueezeExcite(4 * inputs, inputs, gate=nn.Hardsigmoid)
    return InvertedResidual(inputs, 4 * inputs, outputs, stride, activation=nn.Hardswish, excite=excite)


def mnasnet(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    """MBConv3 with 5x5 and squeeze-excite, as most of MnasNet-A1 (Tan et al., CVPR 2019)."""
    excite = SqueezeExcite(3 * inputs, max(4, inputs // 4))
    return InvertedResidual(inputs, 3 * inputs, outputs, stride, kernel=5, excite=excite)


def efficientnet(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    """MBConv6 with squeeze-excite and swish (EfficientNet, Tan and Le, ICML 2019); scaling.compound is its scaling."""
    excite = SqueezeExcite(6 * inputs, max(4, inputs // 4), activation=nn.SiLU)
    return InvertedResidual(inputs, 6 * inputs, outputs, stride, activation=nn.SiLU, excite=excite)


class Xception(nn.Module):
    """Separable convolutions around a shortcut (Xception, Chollet, CVPR 2017).

    Where the shape stays, three of them and the identity (the paper's middle flow); else two of them, a max pool for
    the stride, and a 1x1 convolution as the shortcut (its entry flow). ReLU comes first, none inside a separable one.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__()
        keeps = stride == 1 and inputs == outputs
        layers: list[nn.Module] = []
        for index in range(3 if keeps else 2):
            channels = outputs if index else inputs
            conv = nn.Conv2d(channels, outputs, 1, bias=False)
            layers += [nn.ReLU(), depthwise(channels), conv, nn.BatchNorm2d(outputs)]
        if stride == 2:
            layers.append(nn.MaxPool2d(3, 2, 1))
        self.body = nn.Sequential(*layers)
        self.shortcut = nn.Identity()
        if not keeps:
            conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.body(x)
