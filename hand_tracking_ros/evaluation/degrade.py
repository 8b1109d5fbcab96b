"""A labelled image under one difficulty at a time, with its label moved along exactly.

Every image becomes a 640x480 canvas in which its largest hand is ``HAND_PX`` long, and one thing is made worse: light,
noise, motion, compression, size, direction. What depends on chance depends on the image's name and on the condition
alone, so every tracker gets the same pixels; placement and background are those of the image, in all its conditions.
Only the camera image changes: 3D labels and intrinsics, which the canvas no longer fits, are dropped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from hand_tracking_ros.errors import SourceError
from hand_tracking_ros.geometry import apply, rotation, warp
from hand_tracking_ros.images import as_mono
from hand_tracking_ros.records import LabelledImage
from hand_tracking_ros.skeleton import Side
from hand_tracking_ros.sources import IMAGE_SUFFIXES, read_image

CANVAS_WH = (640, 480)
HAND_PX = 160.0  # long side of the tight upright box of the largest hand, where the condition is not about size
MARGIN = 0.25  # around the image its edges go on, fading out over this share of hand_px
_OTHER_SIDE = {Side.LEFT: Side.RIGHT, Side.RIGHT: Side.LEFT, Side.UNKNOWN: Side.UNKNOWN}


@dataclass(frozen=True)
class Condition:
    """What differs from a clear image. Applied in the order of the fields."""

    hand_px: float = HAND_PX
    turn_deg: float = 0.0  # clockwise on the screen
    mirrored: bool = False
    blur_share: float = 0.0  # length of a straight motion blur, share of hand_px
    brightness: float = 1.0
    noise_sigma: float = 0.0  # grey levels, Gaussian
    jpeg_quality: int | None = None


CONDITIONS = {
    "clear": Condition(),
    "brightness_25": Condition(brightness=0.25),
    "noise_15": Condition(noise_sigma=15),
    "noise_15_64px": Condition(noise_sigma=15, hand_px=64),
    "dark_noise": Condition(brightness=0.25, noise_sigma=5),
    "motion_blur": Condition(blur_share=0.15),
    "jpeg_20": Condition(jpeg_quality=20),
    **{f"hand_{size}px": Condition(hand_px=size) for size in (112, 80, 64, 48, 32)},
    **{f"turned_{angle}": Condition(turn_deg=angle) for angle in (45, 90, 180)},
    "mirrored": Condition(mirrored=True),
}


def degrade(
    image: np.ndarray, label: LabelledImage, name: str, backgrounds: Sequence[np.ndarray] = ()
) -> tuple[np.ndarray, LabelledImage]:
    """``image`` (H, W) mono or (H, W, 3) BGR uint8 under condition ``name``, and its label.

    The canvas has the channels of the image. Hands without keypoints, and hands that do not lie on it whole, become
    ignored regions. ``backgrounds``: BGR pictures to put behind the image; without any its own edges go on, blurred.
    Raises ValueError when no hand of the label has keypoints.
    """
    condition = CONDITIONS[name]
    scene = _generator(label, "scene")
    canvas_from_image = _placement(label, condition, scene)
    canvas = _canvas(image, canvas_from_image, condition.hand_px, backgrounds, scene)
    return _worse(canvas, condition, _generator(label, name)), _moved(label, canvas_from_image, condition.mirrored)


def _generator(label: LabelledImage, purpose: str) -> np.random.Generator:
    key = f"{label.file or label.video}|{label.frame}|{purpose}"
    return np.random.default_rng(int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big"))


def _placement(label: LabelledImage, condition: Condition, random: np.random.Generator) -> np.ndarray:
    """2x3 matrix from image to canvas: hands near the middle, but no more padding than the image's size asks for."""
    hands = [hand.keypoints_px for hand in label.hands if hand.keypoints_px is not None]
    if not hands:
        raise ValueError(f"{label.file or label.video}: no hand has keypoints, so there is no size to scale to")
    sizes = [float(np.ptp(points, axis=0).max()) for points in hands]
    linear = condition.hand_px / max(max(sizes), 1.0) * rotation(np.radians(condition.turn_deg))
    if condition.mirrored:
        linear = np.diag([-1.0, 1.0]) @ linear
    points = np.concatenate(hands) @ linear.T
    corners = np.array([(0, 0), (label.width, 0), (0, label.height), (label.width, label.height)]) @ linear.T
    everything = np.concatenate([points, corners])  # of tight crops, joints may lie outside
    if (np.ptp(points, axis=0) > CANVAS_WH).any():
        points = hands[int(np.argmax(sizes))] @ linear.T
    shift = CANVAS_WH * random.uniform(0.4, 0.6, 2) - (points.min(axis=0) + points.max(axis=0)) / 2
    gap_low, gap_high = everything.min(axis=0) + shift, CANVAS_WH - (everything.max(axis=0) + shift)
    fits = gap_low + gap_high >= 0  # per axis: the image moves inside the canvas, or else fills it
    low, high = np.where(fits, -gap_low, gap_low), np.where(fits, -gap_high, gap_high)
    towards = np.where(fits, 1, -1)
    shift += towards * (np.maximum(low, 0) - np.maximum(high, 0))
    return np.column_stack([linear, shift])


def _canvas(
    image: np.ndarray,
    canvas_from_image: np.ndarray,
    hand_px: float,
    backgrounds: Sequence[np.ndarray],
    random: np.random.Generator,
) -> np.ndarray:
    """The image on its canvas: around it its edge pixels go on, and fade into a background or a blur of themselves."""
    canvas = warp(image, canvas_from_image, CANVAS_WH, border_value=None)
    inside = warp(np.full(image.shape[:2], 255, np.uint8), canvas_from_image, CANVAS_WH)
    if (inside == 255).all():
        return canvas
    away_px = cv2.distanceTransform((inside < 128).astype(np.uint8), cv2.DIST_L2, 5)
    if len(backgrounds):
        behind = _background(backgrounds[random.integers(len(backgrounds))], random)
        behind = as_mono(behind) if image.ndim == 2 else behind
    else:
        behind = _blend(_blurred(canvas, hand_px / 8, 4), _blurred(canvas, 64, 8), away_px / hand_px)
    return _blend(canvas, behind, away_px / (MARGIN * hand_px))


def _blend(front: np.ndarray, back: np.ndarray, share: np.ndarray) -> np.ndarray:
    """``front`` where ``share`` (H, W) is 0, ``back`` where it is 1 or more."""
    share = np.minimum(share, 1.0) if front.ndim == 2 else np.minimum(share, 1.0)[..., None]
    return (front + share * (back.astype(np.float32) - front) + 0.5).astype(np.uint8)


def _blurred(canvas: np.ndarray, sigma_px: float, shrink: int) -> np.ndarray:
    """A wide Gaussian blur, worked out on an image ``shrink`` times smaller, which costs a fraction."""
    width, height = CANVAS_WH
    small = cv2.resize(canvas, (width // shrink, height // shrink), interpolation=cv2.INTER_AREA)
    return cv2.resize(cv2.GaussianBlur(small, (0, 0), sigma_px / shrink), CANVAS_WH, interpolation=cv2.INTER_CUBIC)


def _background(picture: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A random cut of a picture that fills the canvas."""
    wh = np.array(picture.shape[1::-1])
    scale = float((CANVAS_WH / wh).max()) * random.uniform(1.0, 1.5)
    low = random.uniform(0, 1, 2) * (wh - np.array(CANVAS_WH) / scale)
    return warp(picture, np.column_stack([scale * np.eye(2), -scale * low]), CANVAS_WH, border_value=None)


def _worse(canvas: np.ndarray, condition: Condition, random: np.random.Generator) -> np.ndarray:
    if condition.blur_share:
        kernel = motion_kernel(condition.blur_share * condition.hand_px, random.uniform(0, np.pi))
        canvas = cv2.filter2D(canvas, -1, kernel)
    if condition.brightness != 1.0 or condition.noise_sigma:
        light = canvas * np.float32(condition.brightness)
        light += condition.noise_sigma * random.standard_normal(canvas.shape, np.float32)
        canvas = np.clip(np.rint(light), 0, 255).astype(np.uint8)
    if condition.jpeg_quality is not None:
        _, encoded = cv2.imencode(".jpg", canvas, [cv2.IMWRITE_JPEG_QUALITY, condition.jpeg_quality])
        canvas = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED)
    return canvas


def motion_kernel(length_px: float, angle_rad: float) -> np.ndarray:
    """A line of this length through the middle, float32, sum 1: the labels are those of the middle of the exposure."""
    radius = int(np.ceil(length_px / 2)) + 1
    kernel = np.zeros((2 * radius + 1, 2 * radius + 1), np.float32)
    along = (np.arange(16 * radius) + 0.5) / (16 * radius) - 0.5
    points = radius + length_px * along[:, None] * [np.cos(angle_rad), np.sin(angle_rad)]
    cell = np.floor(points).astype(int)
    part = points - cell
    for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):  # each point goes to its four pixels
        share = (part[:, 0] if dx else 1 - part[:, 0]) * (part[:, 1] if dy else 1 - part[:, 1])
        np.add.at(kernel, (cell[:, 1] + dy, cell[:, 0] + dx), share)
    return kernel / kernel.sum()


def _moved(label: LabelledImage, canvas_from_image: np.ndarray, mirrored: bool) -> LabelledImage:
    """The label on the canvas."""
    hands, ignore = [], list(label.ignore)
    for hand in label.hands:
        points = None if hand.keypoints_px is None else apply(canvas_from_image, hand.keypoints_px)
        if points is None or (points < 0).any() or (points > CANVAS_WH).any():
            ignore.append(hand.bounds())
            continue
        side = _OTHER_SIDE[hand.side] if mirrored else hand.side
        hands.append(replace(hand, side=side, box_px=None, keypoints_px=points, keypoints_m=None))
    width, height = CANVAS_WH
    regions = [_region(region, canvas_from_image) for region in ignore]
    regions = [(x0, y0, x1, y1) for x0, y0, x1, y1 in regions if x0 < x1 and y0 < y1]
    return replace(label, width=width, height=height, hands=tuple(hands), ignore=tuple(regions), camera=None)


def _region(region: tuple[float, float, float, float], canvas_from_image: np.ndarray) -> tuple[float, ...]:
    """The upright region around a moved one, as far as it lies on the canvas."""
    x0, y0, x1, y1 = region
    corners = apply(canvas_from_image, np.array([(x0, y0), (x1, y0), (x0, y1), (x1, y1)]))
    clipped = np.clip(corners, 0, CANVAS_WH)
    return (*clipped.min(axis=0).tolist(), *clipped.max(axis=0).tolist())


def load_backgrounds(paths: Sequence[Path]) -> list[np.ndarray]:
    """BGR pictures: files, or all images of folders. Raises SourceError."""
    files: list[Path] = []
    for path in paths:
        files += sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES) if path.is_dir() else [path]
    if paths and not files:
        raise SourceError(f"no background images in {', '.join(map(str, paths))}")
    pictures = [read_image(file) for file in files]
    return [cv2.cvtColor(p, cv2.COLOR_GRAY2BGR) if p.ndim == 2 else p for p in pictures]
