"""KeyNet: 21 keypoints, relative depth, presence and side of the hand in a 96x96 mono crop.

Own variant of MEgATrack's KeyNet (networks/megatrack_keynet.py holds the paper's): dense 3x3 residual blocks, which
train several times faster than depthwise ones on a CPU and run as fast there, a feature pyramid up to stride 4, and
soft-argmax over 24x24 heatmaps (integral regression, Sun et al., ECCV 2018).

With ``verdict`` the presence has a head of its own, which can be trained on what the others take for hands, while they
stay as they are (``only`` in a recipe); a KeyNet's weights make one that starts as good as it.

With ``temporal`` it is KeyNet-F (MEgATrack, section 4.2): it also sees where the keypoints are expected, as heatmaps at
stride 4 that are added to the features there. All zero means that nothing is known, as for a new hand; a KeyNet's
weights make a KeyNet-F that starts as good as it.

Pixels are corner-origin pixels of the crop (geometry.py). Depth is in palm lengths, relative to joint 9.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hand_tracking_ros.skeleton import NUM_JOINTS
from hand_tracking_ros.training.networks.blocks import conv1x1, conv_bn_relu, normalised
from hand_tracking_ros.training.networks.scaling import Scaling
from hand_tracking_ros.training.networks.zoo import block, stage

MAP_CHANNELS = 32  # of the map of which one layer sees all
# As shares of the crop's side, so that scores mean the same at every resolution:
HEATMAP_SIGMA = 2.6 / 96  # of the target Gaussian
PRIOR_SIGMA = 4.0 / 96  # of the Gaussians that say where keypoints are expected


@dataclass(frozen=True)
class KeyNetConfig(Scaling):
    """Input size, and widths of the four stages (strides 2, 4, 8, 16) and of the two pyramid levels, all at scale 1.

    ``temporal``: KeyNet-F. ``verdict``: features of a head of its own for the presence; 0: it has none.
    """

    full_size: int = 96
    stem: int = 16
    stride4: int = 32
    stride8: int = 64
    stride16: int = 128
    pyramid: int = 64
    head: int = 48
    temporal: bool = False
    verdict: int = 0

    @property
    def size(self) -> int:
        """Side of the crop in px."""
        return self.pixels(self.full_size)

    @property
    def stages(self) -> tuple[int, int, int]:
        """Blocks at strides 4, 8 and 16: most where the whole hand is seen."""
        return self.repeats(2), self.repeats(3), self.repeats(6)


class KeyNet(nn.Module):
    """crop (B, 1, S, S) float, normalised -> heatmap logits (B, 21, S/4, S/4), depth (B, 21), presence, right (B,).

    KeyNet-F takes ``prior`` (B, 21, S/4, S/4) as well, see prior_maps.
    """

    def __init__(self, config: KeyNetConfig = KeyNetConfig()):
        super().__init__()
        self.config = c = config
        stem, stride4, stride8, stride16 = map(c.channels, (c.stem, c.stride4, c.stride8, c.stride16))
        pyramid, head = c.channels(c.pyramid), c.channels(c.head)
        counts = c.stages
        names = iter(c.block_names(sum(counts)))
        self.to_stride4 = nn.Sequential(conv_bn_relu(1, stem, 2), *stage(names, counts[0], stem, stride4))
        self.to_stride8 = nn.Sequential(*stage(names, counts[1], stride4, stride8))
        self.to_stride16 = nn.Sequential(*stage(names, counts[2], stride8, stride16))
        self.lateral16 = conv1x1(stride16, pyramid)
        self.lateral8 = conv1x1(stride8, pyramid)
        self.lateral4 = conv1x1(stride4, pyramid)
        merge8, merge4 = c.neck_names(2)
        self.merge8 = block(merge8, pyramid, pyramid)
        self.merge4 = block(merge4, pyramid, head)
        self.heatmaps = nn.Conv2d(head, NUM_JOINTS, 1)
        cells = (c.size // 16) ** 2
        self.vector = nn.Sequential(
            conv1x1(stride16, MAP_CHANNELS), nn.Flatten(), nn.Linear(MAP_CHANNELS * cells, NUM_JOINTS + 2)
        )
        if c.temporal:
            self.prior = nn.Conv2d(NUM_JOINTS, stride4, 3, 1, 1, bias=False)
            nn.init.zeros_(self.prior.weight)
        if c.verdict:
            features = [
                conv1x1(stride16, MAP_CHANNELS), nn.Flatten(), nn.Linear(MAP_CHANNELS * cells, c.verdict),
                nn.ReLU(inplace=True),
            ]  # fmt: skip
            self.verdict = nn.Sequential(*features, nn.Linear(c.verdict, 1))
            nn.init.zeros_(self.verdict[-1].weight)
            nn.init.zeros_(self.verdict[-1].bias)

    def places(self) -> list[nn.Module]:
        """The blocks that ``block`` names, then those that ``neck`` names, in their order."""
        return [*self.to_stride4[1:], *self.to_stride8, *self.to_stride16, self.merge8, self.merge4]

    def forward(self, crop: Tensor, prior: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x4 = self.to_stride4(crop)  # (B, 32, 24, 24)
        if prior is not None:
            x4 = x4 + self.prior(prior)
        x8 = self.to_stride8(x4)  # (B, 64, 12, 12)
        x16 = self.to_stride16(x8)  # (B, 128, 6, 6)
        y8 = self.merge8(self.lateral8(x8) + F.interpolate(self.lateral16(x16), scale_factor=2.0, mode="nearest"))
        y4 = self.merge4(self.lateral4(x4) + F.interpolate(y8, scale_factor=2.0, mode="nearest"))
        vector, heatmaps = self.vector(x16), self.heatmaps(y4)  # (B, 23), (B, 21, 24, 24)
        presence = vector[:, NUM_JOINTS]
        if self.config.verdict:  # last: weights of a network without it fit the layers before
            presence = presence + self.verdict(x16)[:, 0]
        return heatmaps, vector[:, :NUM_JOINTS], presence, vector[:, NUM_JOINTS + 1]


def cell_centres(cells: int, size: int, like: Tensor) -> Tensor:
    """Crop pixel coordinate (corner origin) of each heatmap cell's centre, (cells,)."""
    return (torch.arange(cells, device=like.device, dtype=torch.float32) + 0.5) * (size / cells)


def soft_argmax(heatmaps: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Heatmap logits (B, K, H, W) -> expected position (B, K, 2) in crop px and its variance (B, K) in px^2."""
    joints, height, width = map(int, heatmaps.shape[1:])  # constants of the exported graph
    middle = size / 2
    y, x = torch.meshgrid(
        cell_centres(height, size, heatmaps) - middle, cell_centres(width, size, heatmaps) - middle, indexing="ij"
    )
    moments = torch.stack([x, y, x * x + y * y], dim=-1).reshape(-1, 3)
    with torch.autocast(heatmaps.device.type, enabled=False):  # one product, which needs all of fp32
        found = torch.softmax(heatmaps.float().reshape(-1, joints, height * width), dim=-1) @ moments
    mean = found[..., :2]
    return mean + middle, found[..., 2] - (mean * mean).sum(dim=-1)


class KeyNetRuntime(nn.Module):
    """The exported graph: uint8 crop (N, 1, S, S) -> keypoints px, scores, depth, presence, right.

    A keypoint's score is the spread (standard deviation) of the target heatmap over that of the predicted one, at most
    1: a sure joint has a heatmap as narrow as in training, a hidden one is spread out.
    """

    inputs = ("crop",)
    outputs = ("keypoints", "scores", "depth", "presence", "right")

    def __init__(self, network: KeyNet):
        super().__init__()
        self.network = network

    def forward(self, crop: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        return self.decoded(*self.network(normalised(crop.float())))

    def decoded(self, heatmaps: Tensor, depth: Tensor, presence: Tensor, right: Tensor) -> tuple[Tensor, ...]:
        """The outputs from those of the network."""
        keypoints, variance = soft_argmax(heatmaps, self.network.config.size)
        expected = 2 * (HEATMAP_SIGMA * self.network.config.size) ** 2
        scores = torch.sqrt(expected / variance.clamp(min=expected))
        return keypoints, scores, depth, torch.sigmoid(presence), torch.sigmoid(right)


class KeyNetFRuntime(KeyNetRuntime):
    """The exported graph of KeyNet-F: also takes prior (N, 21, 2) crop px and prior_scores (N, 21), 0 for unknown."""

    inputs = ("crop", "prior", "prior_scores")

    def forward(self, crop: Tensor, prior: Tensor, prior_scores: Tensor) -> tuple[Tensor, ...]:
        size = self.network.config.size
        maps = prior_maps(prior, prior_scores, size // 4, size)
        return self.decoded(*self.network(normalised(crop.float()), maps))


def prior_maps(keypoints: Tensor, scores: Tensor, cells: int, size: int) -> Tensor:
    """Gaussians (B, K, cells, cells) with peak ``scores`` (B, K) around keypoints (B, K, 2) in crop px."""
    axis = cell_centres(cells, size, keypoints)
    gx, gy = (torch.exp(-((axis - keypoints[..., k, None]) ** 2) / (2 * (PRIOR_SIGMA * size) ** 2)) for k in (0, 1))
    return (gy * scores[..., None])[..., :, None] * gx[..., None, :]


@dataclass(frozen=True)
class KeyNetTarget:
    """Batch of targets. ``presence`` (B,) 0/1; where 0 the rest is ignored. NaN in depth and 0.5 in right: unknown."""

    keypoints: Tensor  # (B, 21, 2) crop px
    depth: Tensor  # (B, 21)
    presence: Tensor  # (B,)
    right: Tensor  # (B,)


KEYNET_WEIGHTS = {"kp": 1.0, "depth": 1.0, "presence": 0.5, "side": 0.3}  # of the parts of keynet_loss


def keynet_loss(
    outputs: tuple[Tensor, ...], target: KeyNetTarget, size: int, right_share: float = 0.5
) -> dict[str, Tensor]:
    """Parts: keypoints (heatmap cross-entropy and smooth L1 on the position), depth, presence and side.

    ``right_share``: of the hands in the training data. The side's output is taught to leave it out (logit adjustment,
    Menon et al., ICLR 2021): it says what the picture says, as if left and right were equally frequent.
    """
    heatmaps, depth, presence, right = outputs
    has_hand = target.presence > 0.5
    inside = ((target.keypoints > 0) & (target.keypoints < size)).all(dim=-1) & has_hand[:, None]  # (B, 21)
    count = inside.sum().clamp(min=1)

    predicted, _ = soft_argmax(heatmaps, size)
    position = F.smooth_l1_loss(predicted, target.keypoints, reduction="none", beta=1.5).sum(dim=-1)
    log_p = torch.log_softmax(heatmaps.float().flatten(2), dim=-1)
    wanted = gaussian_maps(target.keypoints, heatmaps.shape[-1], size).flatten(2)
    cross_entropy = -(wanted * log_p).sum(dim=-1)
    keypoint_loss = ((0.5 * position + 0.5 * cross_entropy) * inside).sum() / count

    depth_known = torch.isfinite(target.depth) & has_hand[:, None]
    depth_error = F.smooth_l1_loss(depth, torch.nan_to_num(target.depth), reduction="none", beta=0.1)
    depth_loss = (depth_error * depth_known).sum() / depth_known.sum().clamp(min=1)
    presence_loss = F.binary_cross_entropy_with_logits(presence, target.presence)
    side_known = (target.right != 0.5) & has_hand
    side_error = F.binary_cross_entropy_with_logits(
        right + math.log(right_share / (1 - right_share)), target.right, reduction="none"
    )
    side_loss = (side_error * side_known).sum() / side_known.sum().clamp(min=1)

    return {"kp": keypoint_loss, "depth": depth_loss, "presence": presence_loss, "side": side_loss}


def gaussian_maps(keypoints: Tensor, cells: int, size: int) -> Tensor:
    """Normalised Gaussians (B, K, cells, cells) around keypoints (B, K, 2) in crop px."""
    axis = cell_centres(cells, size, keypoints)
    gx = torch.exp(-((axis - keypoints[..., 0:1]) ** 2) / (2 * (HEATMAP_SIGMA * size) ** 2))
    gy = torch.exp(-((axis - keypoints[..., 1:2]) ** 2) / (2 * (HEATMAP_SIGMA * size) ** 2))
    maps = gy[..., :, None] * gx[..., None, :]
    return maps / maps.sum(dim=(-2, -1), keepdim=True).clamp(min=1e-8)
