"""Blocks of group convolutions: the ShuffleNets and CondenseNet."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hand_tracking_ros.training.networks.blocks import Select, channel_shuffle, conv1x1
from hand_tracking_ros.training.networks.zoo.mobile import depthwise

GROUPS = 4


class Shortcut(nn.Module):
    """How a block's input gets to its output: added where the shape stays, put beside where the block widens.

    ``new`` is how many channels the block itself has to make. The input is average-pooled for a stride. A block that
    neither keeps its shape nor widens has no shortcut.
    """

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.adds = stride == 1 and inputs == outputs
        self.joins = outputs > inputs
        self.new = outputs - inputs if self.joins else outputs
        self.pool = nn.AvgPool2d(3, 2, 1) if stride == 2 and self.joins else nn.Identity()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        if self.adds:
            return x + y
        return torch.cat([self.pool(x), y], dim=1) if self.joins else y


class ShuffleV1(nn.Module):
    """ShuffleNet unit (Zhang et al., CVPR 2018): 1x1 in groups to a quarter, shuffle, 3x3 depthwise, 1x1 in groups."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__()
        self.shortcut = Shortcut(inputs, outputs, stride)
        middle, new = max(8, outputs // 4 // GROUPS * GROUPS), self.shortcut.new
        self.body = nn.Sequential(
            nn.Conv2d(inputs, middle, 1, groups=GROUPS, bias=False),
            nn.BatchNorm2d(middle),
            nn.ReLU(inplace=True),
            channel_shuffle(middle, GROUPS),
            depthwise(middle, stride),
            nn.BatchNorm2d(middle),
            nn.Conv2d(middle, new, 1, groups=GROUPS, bias=False),
            nn.BatchNorm2d(new),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.shortcut(x, self.body(x)))


class ShuffleV2(nn.Module):
    """ShuffleNet V2 unit (Ma et al., ECCV 2018).

    Where the shape stays, one half of the channels passes and the other goes through 1x1, 3x3 depthwise, 1x1; else
    both branches see all channels and the first gets 3x3 depthwise and 1x1. Then the two are shuffled.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__()
        half = outputs // 2
        self.splits = stride == 1 and inputs == outputs
        self.first = nn.Identity()
        if not self.splits:
            self.first = nn.Sequential(depthwise(inputs, stride), nn.BatchNorm2d(inputs), conv1x1(inputs, half))
        self.second = nn.Sequential(
            conv1x1(half if self.splits else inputs, half),
            depthwise(half, stride),
            nn.BatchNorm2d(half),
            conv1x1(half, half),
        )
        self.shuffle = channel_shuffle(outputs, 2)

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=1) if self.splits else (x, x)
        return self.shuffle(torch.cat([self.first(first), self.second(second)], dim=1))


class LearnedGroupConv(nn.Conv2d):
    """1x1 convolution that learns which inputs each group of its outputs needs (CondenseNet, Huang et al., CVPR 2018).

    It starts dense. At the end of each of ``factor - 1`` equal parts of the first half of training, every group drops
    the 1 / ``factor`` of all inputs whose weights have the smallest L1 norm. The paper's group lasso is left out.
    """

    def __init__(self, inputs: int, outputs: int, out_groups: int = GROUPS, factor: int = GROUPS):
        super().__init__(inputs, outputs, 1, bias=False)
        self.out_groups, self.factor = out_groups, factor
        # bool, so that a moving average of the weights copies it
        self.register_buffer("keeps", torch.ones(out_groups, inputs, dtype=torch.bool))

    def forward(self, x: Tensor) -> Tensor:
        mask = self.keeps.repeat_interleave(self.out_channels // self.out_groups, dim=0)
        return F.conv2d(x, self.weight * mask[:, :, None, None])

    @torch.no_grad()
    def set_progress(self, share: float) -> None:
        """Drop what is due after ``share`` (0..1) of the training; what is dropped stays so."""
        done = min(self.factor - 1, int(share * 2 * (self.factor - 1)))
        count = self.in_channels - done * (self.in_channels // self.factor)
        if count < int(self.keeps[0].sum()):
            norms = self.weight.abs().reshape(self.out_groups, -1, self.in_channels).sum(dim=1)
            best = norms.masked_fill(~self.keeps, -1.0).topk(count, dim=1).indices
            self.keeps.zero_().scatter_(1, best, True)

    def final(self) -> nn.Module:
        """An index and an ordinary group convolution with the same outputs; itself while it is not fully condensed."""
        count = int(self.keeps[0].sum())
        if count > self.in_channels - (self.factor - 1) * (self.in_channels // self.factor):
            return self
        index = torch.stack([row.nonzero()[:, 0] for row in self.keeps])  # (groups, count)
        conv = nn.Conv2d(index.numel(), self.out_channels, 1, groups=self.out_groups, bias=False)
        rows = self.weight.detach().reshape(self.out_groups, -1, self.in_channels)
        chosen = rows.gather(2, index[:, None].expand(-1, rows.shape[1], -1))
        conv.weight = nn.Parameter(chosen.reshape(conv.weight.shape))
        return nn.Sequential(Select(index.flatten()), conv).train(self.training)


class Condense(nn.Module):
    """CondenseNet layer: learned 1x1 groups, shuffle, 3x3 in groups, batch norm and ReLU before each convolution.

    The new channels are put beside the input as in the paper where the block widens; else the identity is added.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__()
        self.shortcut = Shortcut(inputs, outputs, stride)
        new = self.shortcut.new
        self.body = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.ReLU(),
            LearnedGroupConv(inputs, outputs),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            channel_shuffle(outputs, GROUPS),
            nn.Conv2d(outputs, new, 3, stride, 1, groups=GROUPS, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x, self.body(x))
