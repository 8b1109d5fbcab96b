"""Image-plane geometry: boxes, crops, and the transforms between image and crop.

Conventions
- Pixels: (0, 0) is the top-left CORNER of the image, x right, y down; the centre of the first pixel is (0.5, 0.5).
  Scaling an image by s maps a point p to s * p, without half-pixel terms. OpenCV's warps count pixel centres as
  integers; ``warp`` converts, so nobody else has to.
- Angles: radians, from image x towards image y (clockwise on the screen). A box at angle 0 is upright; a hand whose
  fingers point up in the image has angle 0, one whose fingers point right has angle pi/2.
- Transforms are 2x3 affine matrices named ``a_from_b``: ``p_a = a_from_b @ [p_b, 1]``.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

WRIST, MIDDLE_MCP = 0, 9


@dataclass(frozen=True)
class Box:
    """A rotated box in image pixels: centre, size along its own axes, angle in radians (module conventions)."""

    center_px: tuple[float, float]
    size_px: tuple[float, float]
    angle_rad: float = 0.0

    def __post_init__(self) -> None:
        values = (*self.center_px, *self.size_px, self.angle_rad)
        if not np.all(np.isfinite(values)):
            raise ValueError(f"box has a value that is not finite: {self.center_px}, {self.size_px}, {self.angle_rad}")
        if min(self.size_px) <= 0:
            raise ValueError(f"box size must be positive, got {self.size_px} px")

    def scaled(self, factor: float) -> Box:
        """The same box with both sides multiplied by ``factor``."""
        return Box(self.center_px, (self.size_px[0] * factor, self.size_px[1] * factor), self.angle_rad)

    def corners(self) -> np.ndarray:
        """(4, 2) corners in px: top left, top right, bottom right, bottom left of the box's own frame."""
        half = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * np.array(self.size_px) / 2
        return half @ rotation(self.angle_rad).T + self.center_px

    def bounds(self) -> tuple[float, float, float, float]:
        """Axis-aligned (x0, y0, x1, y1) in px around the rotated box."""
        corners = self.corners()
        return (*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist())

    def area_inside(self, width: int, height: int) -> float:
        """Share (0..1) of the axis-aligned bounds that lies inside an image of ``width`` x ``height`` px."""
        x0, y0, x1, y1 = self.bounds()
        inside = max(0.0, min(x1, width) - max(x0, 0.0)) * max(0.0, min(y1, height) - max(y0, 0.0))
        return inside / ((x1 - x0) * (y1 - y0))


def rotation(angle_rad: float) -> np.ndarray:
    """(2, 2) matrix that turns by ``angle_rad`` from x towards y."""
    cos, sin = np.cos(angle_rad), np.sin(angle_rad)
    return np.array([[cos, -sin], [sin, cos]])


def wrap_angle(angle_rad):
    """Angle(s) wrapped into [-pi, pi)."""
    return (angle_rad + np.pi) % (2 * np.pi) - np.pi


def apply(a_from_b: np.ndarray, points_b: np.ndarray) -> np.ndarray:
    """Map points (..., 2) with a 2x3 affine matrix."""
    return points_b @ a_from_b[:, :2].T + a_from_b[:, 2]


def invert(a_from_b: np.ndarray) -> np.ndarray:
    """Inverse of a 2x3 affine matrix."""
    linear = np.linalg.inv(a_from_b[:, :2])
    return np.column_stack([linear, -linear @ a_from_b[:, 2]])


def crop_from_image(box: Box, crop_wh: tuple[int, int]) -> np.ndarray:
    """2x3 matrix from image pixels to the pixels of a ``crop_wh`` crop that ``box`` fills exactly."""
    scale = np.array(crop_wh) / np.array(box.size_px)
    linear = scale[:, None] * rotation(-box.angle_rad)
    return np.column_stack([linear, np.array(crop_wh) / 2 - linear @ np.array(box.center_px)])


def warp(image: np.ndarray, out_from_image: np.ndarray, out_wh: tuple[int, int], border_value: int | None = 0):
    """Resample ``image`` (H, W) or (H, W, C) through a corner-origin 2x3 matrix, bilinear.

    Outside the image: ``border_value``, or the nearest edge pixel when it is None. When the map shrinks by more than
    two, the image region is area-averaged first, so that small crops of large hands do not alias.
    """
    scale = np.sqrt(abs(np.linalg.det(out_from_image[:, :2])))
    shrink = int(1.0 / scale) if scale > 0 else 1
    if shrink >= 2:
        image, out_from_image = _shrunk_region(image, out_from_image, out_wh, shrink)
    centre_matrix = out_from_image.astype(np.float64)
    centre_matrix[:, 2] += out_from_image[:, :2] @ [0.5, 0.5] - 0.5
    mode = cv2.BORDER_REPLICATE if border_value is None else cv2.BORDER_CONSTANT
    return cv2.warpAffine(
        image, centre_matrix, out_wh, flags=cv2.INTER_LINEAR, borderMode=mode, borderValue=border_value or 0
    )


def _shrunk_region(image, out_from_image, out_wh, shrink):
    """The part of ``image`` that the warp reads, area-averaged by ``shrink``, and the matrix that reads it."""
    corners = np.array([(0, 0), (out_wh[0], 0), out_wh, (0, out_wh[1])], dtype=np.float64)
    needed = apply(invert(out_from_image), corners)
    height, width = image.shape[:2]
    limit = np.array([width, height])
    low = np.clip(np.floor(needed.min(axis=0)).astype(int) - shrink, 0, np.maximum(limit - 1, 0))
    high = np.clip(np.ceil(needed.max(axis=0)).astype(int) + shrink, low + 1, limit)
    cells = np.maximum((high - low) // shrink, 1)
    region = image[low[1] : high[1], low[0] : high[0]]
    small = cv2.resize(region, tuple(cells.tolist()), interpolation=cv2.INTER_AREA)
    image_from_small = np.column_stack([np.diag((high - low) / cells), low])
    linear = out_from_image[:, :2] @ image_from_small[:, :2]
    return small, np.column_stack([linear, apply(out_from_image, image_from_small[:, 2])])


def hand_angle(points_px: np.ndarray) -> float:
    """Angle of the hand, from the wrist to the mean of the finger bases 5, 9, 13; 0 when that points up in the image.

    ``points_px`` (21, 2). A palm seen end-on, where the two coincide, has no direction in the image: 0.
    """
    forward = points_px[[5, MIDDLE_MCP, 13]].mean(axis=0) - points_px[WRIST]
    if np.hypot(*forward) < 1e-6:
        return 0.0
    return float(np.arctan2(forward[0], -forward[1]))


def box_around(points_px: np.ndarray, angle_rad: float | None = None) -> Box:
    """Square box, tight around points (N, 2), turned to ``angle_rad`` (default: the hand's own angle)."""
    angle = hand_angle(points_px) if angle_rad is None else angle_rad
    local = points_px @ rotation(angle)  # rows times R = R^T p: image -> box frame
    low, high = local.min(axis=0), local.max(axis=0)
    side = float(max((high - low).max(), 1.0))
    center = rotation(angle) @ ((low + high) / 2)
    return Box((float(center[0]), float(center[1])), (side, side), float(wrap_angle(angle)))


def iou(a: Box, b: Box) -> float:
    """Intersection over union of the axis-aligned bounds of two boxes, 0..1."""
    ax0, ay0, ax1, ay1 = a.bounds()
    bx0, by0, bx1, by1 = b.bounds()
    inter = max(0.0, min(ax1, bx1) - max(ax0, bx0)) * max(0.0, min(ay1, by1) - max(ay0, by0))
    return inter / ((ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - inter)
