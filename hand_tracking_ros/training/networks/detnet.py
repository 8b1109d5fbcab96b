"""DetNet: every hand in a 320x240 mono image, from a dense centre head.

Own variant of MEgATrack's DetNet (networks/megatrack_detnet.py holds the paper's, which regresses one left and one
right hand from globally pooled features). Here each cell of a stride-8 map says whether a hand is centred in it
(CenterNet, Zhou et al. 2019), so any number of hands, two left ones too, can be found.

Per cell, in network input pixels (corner origin): centre offset, side of the tight square box in the hand's own
direction, that direction as (cos, sin), and the side of the person.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hand_tracking_ros.training.networks.blocks import conv1x1, normalised, stem
from hand_tracking_ros.training.networks.scaling import Scaling
from hand_tracking_ros.training.networks.zoo import block, stage

STRIDE = 8
SIDE_UNIT_PX = 32.0  # the network regresses log(side / unit)
FIELDS = 6  # dx, dy, log side, cos, sin, right-hand logit


@dataclass(frozen=True)
class DetNetConfig(Scaling):
    """Input size, and widths at strides 4, 8, 16, 32 and of the pyramid, all at scale 1."""

    full_size: tuple[int, int] = (320, 240)
    stride4: int = 24
    stride8: int = 32
    stride16: int = 64
    stride32: int = 96
    pyramid: int = 48
    head: int = 32

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the image in px."""
        width, height = self.full_size
        return self.pixels(width), self.pixels(height)

    @property
    def stages(self) -> tuple[int, int, int]:
        """Blocks at strides 8, 16 and 32."""
        return self.repeats(2), self.repeats(2), self.repeats(3)


class DetNet(nn.Module):
    """image (B, 1, H, W) float, normalised -> centre logits (B, 1, H/8, W/8) and fields (B, 6, H/8, W/8)."""

    def __init__(self, config: DetNetConfig = DetNetConfig()):
        super().__init__()
        self.config = c = config
        stride4, stride8, stride16, stride32 = map(c.channels, (c.stride4, c.stride8, c.stride16, c.stride32))
        pyramid, head = c.channels(c.pyramid), c.channels(c.head)
        counts = c.stages
        names = iter(c.block_names(sum(counts)))
        self.to_stride8 = nn.Sequential(stem(stride4, 7, 4), *stage(names, counts[0], stride4, stride8))
        self.to_stride16 = nn.Sequential(*stage(names, counts[1], stride8, stride16))
        self.to_stride32 = nn.Sequential(*stage(names, counts[2], stride16, stride32))
        self.lateral32 = conv1x1(stride32, pyramid)
        self.lateral16 = conv1x1(stride16, pyramid)
        self.lateral8 = conv1x1(stride8, pyramid)
        merge16, merge8 = c.neck_names(2)
        self.merge16 = block(merge16, pyramid, pyramid)
        self.merge8 = block(merge8, pyramid, head)
        self.centre = nn.Conv2d(head, 1, 1)
        self.fields = nn.Conv2d(head, FIELDS, 1)
        nn.init.constant_(self.centre.bias, -4.0)  # most cells hold no hand (focal loss, Lin et al. 2017)

    def places(self) -> list[nn.Module]:
        """The blocks that ``block`` names, then those that ``neck`` names, in their order."""
        return [*self.to_stride8[1:], *self.to_stride16, *self.to_stride32, self.merge16, self.merge8]

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x8 = self.to_stride8(image)  # (B, 32, 30, 40)
        x16 = self.to_stride16(x8)  # (B, 64, 15, 20)
        x32 = self.to_stride32(x16)  # (B, 96, 8, 10)
        up = F.interpolate(self.lateral32(x32), size=x16.shape[2:], mode="nearest")
        y16 = self.merge16(self.lateral16(x16) + up)
        y8 = self.merge8(self.lateral8(x8) + F.interpolate(y16, scale_factor=2.0, mode="nearest"))  # (B, 32, 30, 40)
        return self.centre(y8), self.fields(y8)


class DetNetRuntime(nn.Module):
    """The exported graph: uint8 image (N, 1, H, W) -> scores (N, H/8, W/8), peaks only, and boxes (N, 6, H/8, W/8).

    Boxes: centre x, centre y, side in px, cos, sin of the angle, probability of a right hand. Cells that are not the
    largest of their 3x3 neighbourhood score 0.
    """

    inputs = ("image",)
    outputs = ("scores", "boxes")

    def __init__(self, network: DetNet):
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        centre, fields = self.network(normalised(image.float()))
        scores = torch.sigmoid(centre)
        peaks = F.max_pool2d(scores, 3, 1, 1)
        scores = torch.where(scores >= peaks, scores, torch.zeros_like(scores))
        rows = torch.arange(fields.shape[2], device=fields.device, dtype=fields.dtype).reshape(1, -1, 1)
        columns = torch.arange(fields.shape[3], device=fields.device, dtype=fields.dtype).reshape(1, 1, -1)
        x = (columns + 0.5 + fields[:, 0]) * STRIDE
        y = (rows + 0.5 + fields[:, 1]) * STRIDE
        side = torch.exp(fields[:, 2].clamp(-4, 4)) * SIDE_UNIT_PX
        norm = torch.sqrt(fields[:, 3] ** 2 + fields[:, 4] ** 2 + 1e-6)
        boxes = torch.stack([x, y, side, fields[:, 3] / norm, fields[:, 4] / norm, torch.sigmoid(fields[:, 5])], dim=1)
        return scores[:, 0], boxes


@dataclass(frozen=True)
class DetNetTarget:
    """Dense targets: ``centre`` (B, h, w) in 0..1, ``fields`` (B, 6, h, w), and masks (B, h, w) of what is known."""

    centre: Tensor
    fields: Tensor  # right-hand field: 0 or 1
    box_weight: Tensor
    angle_weight: Tensor
    side_weight: Tensor
    centre_weight: Tensor  # 0 in regions to ignore


DETNET_WEIGHTS = {"centre": 1.0, "box": 2.0, "angle": 0.5, "side": 0.2}  # of the parts of detnet_loss


def detnet_loss(outputs: tuple[Tensor, Tensor], target: DetNetTarget) -> dict[str, Tensor]:
    """Parts: penalty-reduced focal loss on the centres (CornerNet, Law and Deng 2018), smooth L1 on the box fields."""
    centre, fields = outputs[0][:, 0].float(), outputs[1].float()
    log_p, log_not_p = F.logsigmoid(centre), F.logsigmoid(-centre)
    p = torch.sigmoid(centre)
    positive = (target.centre > 0.999).float()
    hit = -((1 - p) ** 2) * log_p * positive
    miss = -(p**2) * log_not_p * (1 - target.centre) ** 4 * (1 - positive)
    hands = positive.sum().clamp(min=1)
    centre_loss = ((hit + miss) * target.centre_weight).sum() / hands

    error = F.smooth_l1_loss(fields, target.fields, reduction="none", beta=0.1)
    weight_sum = target.box_weight.sum().clamp(min=1e-3)
    box_loss = (error[:, :3].sum(dim=1) * target.box_weight).sum() / weight_sum
    angle_loss = (error[:, 3:5].sum(dim=1) * target.angle_weight).sum() / target.angle_weight.sum().clamp(min=1e-3)
    side_error = F.binary_cross_entropy_with_logits(fields[:, 5], target.fields[:, 5], reduction="none")
    side_loss = (side_error * target.side_weight).sum() / target.side_weight.sum().clamp(min=1e-3)

    return {"centre": centre_loss, "box": box_loss, "angle": angle_loss, "side": side_loss}
