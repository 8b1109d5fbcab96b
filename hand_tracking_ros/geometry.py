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

import math
from dataclasses import dataclass

import cv2
import numpy as np

_HEADING = np.array([0, 5, 9, 13])  # the wrist, and the finger bases that say where the hand points


@dataclass(frozen=True)
class Box:
    """A rotated box in image pixels: centre, size along its own axes, angle in radians (module conventions)."""

    center_px: tuple[float, float]
    size_px: tuple[float, float]
    angle_rad: float = 0.0

    def __post_init__(self) -> None:
        values = (*self.center_px, *self.size_px, self.angle_rad)
        if not all(map(math.isfinite, values)):
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
        cos, sin = abs(math.cos(self.angle_rad)), abs(math.sin(self.angle_rad))
        (x, y), (width, height) = self.center_px, self.size_px
        half_x, half_y = (width * cos + height * sin) / 2, (width * sin + height * cos) / 2
        return x - half_x, y - half_y, x + half_x, y + half_y

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


def mirrored(crop_from_image: np.ndarray, width: float) -> np.ndarray:
    """The same 2x3 map into a crop of that width, followed by a left-right mirror of the crop."""
    flip = np.array([[-1.0, 0.0], [0.0, 1.0]])
    return np.column_stack([flip @ crop_from_image[:, :2], flip @ crop_from_image[:, 2] + [width, 0.0]])


def invert(a_from_b: np.ndarray) -> np.ndarray:
    """Inverse of a 2x3 affine matrix. Raises numpy.linalg.LinAlgError when it has none."""
    (a, b, x), (c, d, y) = a_from_b.tolist()
    determinant = a * d - b * c
    if determinant == 0 or not math.isfinite(determinant):
        raise np.linalg.LinAlgError(f"this map has no inverse: {a_from_b.tolist()}")
    a, b, c, d = d / determinant, -b / determinant, -c / determinant, a / determinant
    return np.array([[a, b, -(a * x + b * y)], [c, d, -(c * x + d * y)]])


def crop_from_image(box: Box, crop_wh: tuple[int, int]) -> np.ndarray:
    """2x3 matrix from image pixels to the pixels of a ``crop_wh`` crop that ``box`` fills exactly."""
    cos, sin = math.cos(box.angle_rad), math.sin(box.angle_rad)
    x, y = box.center_px
    width, height = crop_wh
    across, down = width / box.size_px[0], height / box.size_px[1]
    return np.array(
        [
            [across * cos, across * sin, width / 2 - across * (cos * x + sin * y)],
            [-down * sin, down * cos, height / 2 - down * (cos * y - sin * x)],
        ]
    )


def warp(
    image: np.ndarray,
    out_from_image: np.ndarray,
    out_wh: tuple[int, int],
    border_value: int | None = 0,
    fast: bool = False,
):
    """Resample ``image`` (H, W) or (H, W, C) through a corner-origin 2x3 matrix, bilinear.

    Outside the image: ``border_value``, or the nearest edge pixel when it is None. When the map shrinks by more than
    two, the image region is area-averaged first, so that small crops of large hands do not alias; ``fast``: see
    ``shrunk_region``.
    """
    (a, b, _), (c, d, _) = out_from_image.tolist()
    scale = math.sqrt(abs(a * d - b * c))
    shrink = int(1.0 / scale) if scale > 0 else 1
    if shrink >= 2:
        corners = np.array([(0, 0), (out_wh[0], 0), out_wh, (0, out_wh[1])], dtype=np.float64)
        needed = apply(invert(out_from_image), corners)
        image, low, scale = shrunk_region(image, needed.min(axis=0), needed.max(axis=0), shrink, fast)
        out_from_image = np.column_stack([out_from_image[:, :2] * scale, apply(out_from_image, low)])
    centre_matrix = out_from_image.astype(np.float64)
    centre_matrix[:, 2] += out_from_image[:, :2] @ [0.5, 0.5] - 0.5
    mode = cv2.BORDER_REPLICATE if border_value is None else cv2.BORDER_CONSTANT
    return cv2.warpAffine(
        image, centre_matrix, out_wh, flags=cv2.INTER_LINEAR, borderMode=mode, borderValue=border_value or 0
    )


def averaged(image: np.ndarray, wh: tuple[int, int]) -> np.ndarray:
    """``image`` (H, W) or (H, W, C) as one of ``wh`` px, by area averages: halved as often as that comes out even.

    OpenCV halves many times faster than it takes other averages. Rounded at every step: off by a grey level here and
    there.
    """
    height, width = image.shape[:2]
    while width % (2 * wh[0]) == height % (2 * wh[1]) == 0:
        height, width = height // 2, width // 2
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return cv2.resize(image, wh, interpolation=cv2.INTER_AREA)


def shrunk_region(image: np.ndarray, low_px: np.ndarray, high_px: np.ndarray, shrink: int, fast: bool = False):
    """(small, low, scale): the part of ``image`` from ``low_px`` to ``high_px``, area-averaged by about ``shrink``.

    A point p of the image is ``(p - low) / scale`` in ``small``; all are (2,), x first. ``fast``: ``averaged``, and in
    whole cells, for which up to ``shrink`` - 1 px are left out at the image's edge.
    """
    columns = _cells(low_px[0], high_px[0], shrink, image.shape[1], fast)
    rows = _cells(low_px[1], high_px[1], shrink, image.shape[0], fast)
    region, size = image[rows[0] : rows[1], columns[0] : columns[1]], (columns[2], rows[2])
    small = averaged(region, size) if fast else cv2.resize(region, size, interpolation=cv2.INTER_AREA)
    scale = np.array([(columns[1] - columns[0]) / columns[2], (rows[1] - rows[0]) / rows[2]])
    return small, np.array([columns[0], rows[0]], np.float64), scale


def _cells(low: float, high: float, shrink: int, limit: int, whole: bool) -> tuple[int, int, int]:
    """(first, end, cells): pixels that cover ``low`` to ``high`` with a margin, in whole cells where the image allows.

    OpenCV averages whole cells several times faster than fractions of pixels. ``whole``: rather than fractions, leave
    pixels out.
    """
    first = min(max(math.floor(low) - shrink, 0), limit - 1)
    end = min(max(math.ceil(high) + shrink, first + 1), limit)
    cells = max(-(-(end - first) // shrink), 1)
    if first + cells * shrink <= limit:
        end = first + cells * shrink
    elif limit - cells * shrink >= 0:
        first, end = limit - cells * shrink, limit
    else:
        cells = max((end - first) // shrink, 1)
        if whole:
            end = min(first + cells * shrink, limit)
    return first, end, cells


def hand_angle(points_px: np.ndarray) -> float:
    """Angle of the hand, from the wrist to the mean of the finger bases 5, 9, 13; 0 when that points up in the image.

    ``points_px`` (21, 2). A palm seen end-on, where the two coincide, has no direction in the image: 0.
    """
    (x0, y0), *bases = points_px[_HEADING].tolist()
    x, y = sum(p[0] for p in bases) / 3 - x0, sum(p[1] for p in bases) / 3 - y0
    return math.atan2(x, -y) if math.hypot(x, y) >= 1e-6 else 0.0


def box_around(points_px: np.ndarray, angle_rad: float | None = None) -> Box:
    """Square box, tight around points (N, 2), turned to ``angle_rad`` (default: the hand's own angle)."""
    angle = hand_angle(points_px) if angle_rad is None else angle_rad
    cos, sin = math.cos(angle), math.sin(angle)
    local = points_px @ np.array([[cos, -sin], [sin, cos]])  # rows times R = R^T p: image -> box frame
    (left, top), (right, bottom) = local.min(axis=0).tolist(), local.max(axis=0).tolist()
    side = max(right - left, bottom - top, 1.0)
    x, y = (left + right) / 2, (top + bottom) / 2
    return Box((cos * x - sin * y, sin * x + cos * y), (side, side), float(wrap_angle(angle)))


NOWHERE = Box((0.0, 0.0), (1.0, 1.0))  # of a hand that has no place in the image


def box_around_known(points_px: np.ndarray) -> Box:
    """As ``box_around`` of a hand (21, 2), some of whose keypoints may be NaN; ``NOWHERE`` when all are."""
    known = np.isfinite(points_px).all(axis=1)
    if known.all():
        return box_around(points_px)
    return box_around(points_px[known], 0.0) if known.any() else NOWHERE


def iou(a: Box, b: Box) -> float:
    """Intersection over union of the axis-aligned bounds of two boxes, 0..1."""
    ax0, ay0, ax1, ay1 = a.bounds()
    bx0, by0, bx1, by1 = b.bounds()
    inter = max(0.0, min(ax1, bx1) - max(ax0, bx0)) * max(0.0, min(ay1, by1) - max(ay0, by0))
    return inter / ((ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - inter)
