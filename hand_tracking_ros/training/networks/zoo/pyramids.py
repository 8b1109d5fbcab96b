"""ESPNet's blocks: one input seen by several dilated convolutions, whose sums hide the gaps of the wide ones."""

from __future__ import annotations

from itertools import accumulate
from math import gcd

import torch
from torch import Tensor, nn

from hand_tracking_ros.training.networks.zoo.grouped import Shortcut
from hand_tracking_ros.training.networks.zoo.mobile import depthwise

BRANCHES = 4


class EspV1(nn.Module):
    """Efficient spatial pyramid (ESPNet, Mehta et al., ECCV 2018).

    1x1 to a quarter, 3x3 with dilations 1, 2, 4, 8, hierarchical fusion (the outputs but the first are summed up from
    the narrow to the wide), all side by side. A stride makes the 1x1 a strided 3x3, as in the paper.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__()
        width = outputs // BRANCHES
        kernel = 3 if stride == 2 else 1
        self.reduce = nn.Conv2d(inputs, width, kernel, stride, kernel // 2, bias=False)
        self.branches = nn.ModuleList(
            nn.Conv2d(width, width, 3, 1, dilation, dilation, bias=False) for dilation in (1, 2, 4, 8)
        )
        self.out = nn.Sequential(nn.BatchNorm2d(outputs), nn.PReLU(outputs))
        self.has_identity = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        reduced = self.reduce(x)
        first, *others = [branch(reduced) for branch in self.branches]
        y = torch.cat([first, *accumulate(others)], dim=1)
        return self.out(x + y if self.has_identity else y)


class EspV2(nn.Module):
    """Extremely efficient spatial pyramid, EESP (ESPNetv2, Mehta et al., CVPR 2019).

    As EspV1 with 1x1 convolutions in groups before and behind, and depthwise ones with dilations 1, 2, 3, 4 between.
    A strided unit is joined to the pooled input. The paper's link to the input image is left out.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__()
        self.shortcut = Shortcut(inputs, outputs, stride)
        new = self.shortcut.new
        width = new // BRANCHES
        reduce = nn.Conv2d(inputs, width, 1, groups=gcd(BRANCHES, width), bias=False)
        self.reduce = nn.Sequential(reduce, nn.BatchNorm2d(width), nn.PReLU(width))
        self.branches = nn.ModuleList(depthwise(width, stride, dilation=dilation) for dilation in (1, 2, 3, 4))
        self.fuse = nn.Sequential(
            nn.BatchNorm2d(new),
            nn.PReLU(new),
            nn.Conv2d(new, new, 1, groups=BRANCHES, bias=False),
            nn.BatchNorm2d(new),
        )
        self.activation = nn.PReLU(outputs)

    def forward(self, x: Tensor) -> Tensor:
        reduced = self.reduce(x)
        y = torch.cat(list(accumulate(branch(reduced) for branch in self.branches)), dim=1)
        return self.activation(self.shortcut(x, self.fuse(y)))
