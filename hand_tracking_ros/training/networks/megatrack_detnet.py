"""DetNet as MEgATrack publishes it: one left and one right hand in a 640x480 mono image.

"MEgATrack: Monochrome Egocentric Articulated Hand-Tracking for Virtual Reality", Han et al., ACM Trans. Graph. 39(4),
2020, doi 10.1145/3386569.3392452, the table of DetNet. The reference that networks/detnet.py is measured against.

Where the table leaves a choice
- A repeated row strides in its first block only. With it the network has 137.1 MMAC and 1.42 M weights (1.45 M with
  batch norm), as published.
- The heads' 1x1 convolutions and batch norms come before the average pool, as listed; centre and radius are linear.
- The first head's four numbers are read as slot (left, right) by coordinate (x, y).
- Units are not given: here centres and radii are in widths of the image, like the loss that trains them.
"""

from __future__ import annotations

from torch import Tensor, nn

from hand_tracking_ros.training.networks.blocks import conv_bn_relu, inverted_residuals


class MegatrackDetNet(nn.Module):
    """image (B, 1, 480, 640) -> centres (B, 2, 2), radii (B, 2), confidences (B, 2) in 0..1; slots: left, right."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.AvgPool2d(4), conv_bn_relu(1, 32, stride=2))
        # (expanded, out channels, stride, repeat)
        self.body = inverted_residuals(
            32,
            (96, 32, 2, 1),
            (96, 32, 1, 1),
            (192, 64, 2, 1),
            (384, 64, 1, 2),
            (384, 64, 2, 1),
            (384, 64, 1, 3),
            (384, 96, 1, 1),
            (576, 96, 1, 2),
            (576, 128, 2, 1),
            (768, 128, 1, 2),
            (768, 160, 1, 1),
        )
        self.center = _head(4)
        self.radius = _head(2)
        self.confidence = nn.Sequential(_head(2), nn.Sigmoid())

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.stem(image)  # (B, 32, 60, 80)
        x = self.body(x)  # (B, 160, 4, 5)
        return self.center(x).unflatten(1, (2, 2)), self.radius(x), self.confidence(x)


def _head(outputs: int) -> nn.Sequential:
    conv = nn.Conv2d(160, outputs, 1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.AvgPool2d((4, 5)), nn.Flatten())
