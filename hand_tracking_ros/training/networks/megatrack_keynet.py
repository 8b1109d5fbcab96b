"""KeyNet-F as MEgATrack publishes it: 21 keypoints from a 96x96 mono crop and the keypoints expected there.

"MEgATrack: Monochrome Egocentric Articulated Hand-Tracking for Virtual Reality", Han et al., ACM Trans. Graph. 39(4),
2020, doi 10.1145/3386569.3392452, the table of KeyNet-F. The reference that networks/keynet.py is measured against.
The expected keypoints, extrapolated from the last two frames, are what lowers the jitter and carries fingers through
occlusion; a new hand has none, and gets zeros.

Where the table leaves a choice
- A repeated row strides in its first block only, and changes width in it (96 to 64 after the fusion).
- The first block expands 32 channels to 32. As in MobileNetV2 it has no 1x1 expansion then: 161.7 MMAC, which is the
  published 162; with one it would be 164.0.
- The transposed convolution has neither batch norm nor ReLU: the table gives them for the two convolutions only.
- Both heads end in a ReLU, as listed, so heatmaps are not negative.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hand_tracking_ros.skeleton import NUM_JOINTS
from hand_tracking_ros.training.networks.blocks import conv_bn_relu, inverted_residuals

BINS = 18  # cells of a heatmap along x, y and distance


class MegatrackKeyNet(nn.Module):
    """crop (B, 1, 96, 96), expected (B, 21, 3) -> heatmaps (B, 21, 18, 18), distances (B, 21, 18).

    ``expected``: x, y and relative distance of each keypoint, all zero for a new hand.
    """

    def __init__(self) -> None:
        super().__init__()
        # (expanded, out channels, stride, repeat)
        self.image = nn.Sequential(
            conv_bn_relu(1, 32, stride=2),
            inverted_residuals(32, (32, 32, 1, 1), (96, 32, 2, 1), (192, 32, 1, 1), (192, 64, 2, 1), (384, 64, 1, 2)),
        )
        self.keypoints = nn.Sequential(
            nn.Flatten(), nn.Linear(3 * NUM_JOINTS, 32 * 12 * 12), nn.ReLU(inplace=True), nn.Unflatten(1, (32, 12, 12))
        )
        self.fused = inverted_residuals(
            64 + 32,
            (384, 64, 1, 2),
            (384, 64, 1, 3),
            (384, 96, 1, 1),
            (480, 96, 1, 2),
            (576, 128, 2, 1),
            (768, 128, 1, 2),
            (768, 160, 1, 1),
        )
        self.heatmaps = nn.Sequential(
            conv_bn_relu(160, 3 * NUM_JOINTS, padding=2),  # (B, 63, 8, 8)
            nn.ConvTranspose2d(3 * NUM_JOINTS, 2 * NUM_JOINTS, 2, 2),  # (B, 42, 16, 16)
            conv_bn_relu(2 * NUM_JOINTS, NUM_JOINTS, padding=2),  # (B, 21, 18, 18)
        )
        self.distances = nn.Sequential(
            nn.AvgPool2d(6), nn.Conv2d(160, NUM_JOINTS * BINS, 1), nn.ReLU(inplace=True), nn.Flatten()
        )

    def forward(self, crop: Tensor, expected: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.cat([self.image(crop), self.keypoints(expected)], dim=1)  # (B, 96, 12, 12)
        x = self.fused(x)  # (B, 160, 6, 6)
        return self.heatmaps(x), self.distances(x).unflatten(1, (NUM_JOINTS, BINS))
