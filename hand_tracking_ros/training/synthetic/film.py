"""Films scenes in motion: pictures of one camera with blur and rolling shutter, their labels, and the files of both.

Frame k shows the moment k / fps: the middle of its exposure, and with a rolling shutter that of its middle row. Blur
and rolling shutter come from several renders within the exposure, so they follow the motion of every finger.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from hand_tracking_ros.errors import HandTrackingError
from hand_tracking_ros.records import LabelledHand, LabelledImage
from hand_tracking_ros.training.synthetic import lenses, photo
from hand_tracking_ros.training.synthetic.dataset import HandLabel, label_of
from hand_tracking_ros.training.synthetic.lenses import Lens, RigCamera
from hand_tracking_ros.training.synthetic.render import Lights, Renderer, SceneHand, Solid

SUPERSAMPLING = 2
STEP_PX, MOST_STEPS = 4.0, 7  # renders within an exposure: so that nothing moves further from one to the next
LEAST_INSIDE, LEAST_VISIBLE = 8, 4  # a hand with fewer joints in the picture, or to be seen, counts neither way
IGNORE_MARGIN_PX = 10


@dataclass(frozen=True)
class Exposure:
    """Seconds that a row collects light for, and from the first row's time to the last one's (rolling shutter)."""

    seconds: float = 0.0
    readout_s: float = 0.0

    def span_s(self) -> float:
        return self.seconds + self.readout_s

    def weights(self, steps: int, rows: int) -> np.ndarray:
        """(steps, rows): how much each render, the middle of an equal part of the span, adds to each row."""
        edges = np.linspace(-0.5, 0.5, steps + 1) * self.span_s()
        middle = ((np.arange(rows) + 0.5) / rows - 0.5) * self.readout_s
        half = max(self.seconds, self.span_s() / steps) / 2  # less than one part: between the two nearest renders
        overlap = np.minimum(edges[1:, None], middle + half) - np.maximum(edges[:-1, None], middle - half)
        overlap = np.maximum(overlap, 0)
        return (overlap / overlap.sum(axis=0)).astype(np.float32)


def film(
    renderer: Renderer, camera: RigCamera, at: Callable[[float], tuple[list[SceneHand], list[Solid]]], lights: Lights,
    background: np.ndarray, shot: photo.Shot, exposure: Exposure, times_s: np.ndarray, rng: np.random.Generator,
    mono: tuple[float, float, float] | None = None,
) -> Iterator[tuple[np.ndarray, list[HandLabel]]]:  # fmt: skip
    """What one camera sees of the scene ``at`` each time: uint8 (H, W) or RGB (H, W, 3), and the labels of all hands.

    background: (H, W, 3) linear RGB; mono: how a grey sensor weighs red, green and blue.
    """
    if mono is not None:
        background = photo.to_mono(background, mono)
    for time_s in times_s:
        light, cover, labels = expose(renderer, camera, at, lights, exposure, time_s, mono)
        yield photo.compose(light, cover, background, shot, rng), labels


def expose(renderer: Renderer, camera: RigCamera, at, lights: Lights, exposure: Exposure, time_s: float, mono):
    """Light (H, W) or (H, W, 3) and coverage (H, W) that one exposure of ``film`` collects, and the labels."""
    steps = steps_within(camera, at, exposure, time_s)
    factor = SUPERSAMPLING if steps == 1 else 1
    weights = exposure.weights(steps, camera.lens.size_wh[1]) if steps > 1 else np.ones((1, 1), np.float32)
    light = cover = np.float32(0)
    for step in range(steps):
        moment = time_s + exposure.span_s() * ((step + 0.5) / steps - 0.5)
        hands, solids, lit = camera.scene(*at(moment), lights)
        is_middle = step == steps // 2
        # A single render is supersampled; many are each shifted within a pixel, but for the one with the labels.
        shift = (0.0, 0.0) if is_middle else tuple((np.array([0.755, 0.570]) * step) % 1 - 0.5)
        lens = camera.lens.scaled(factor, shift)
        part, depth = lenses.render(renderer, lens, hands, lit, solids)
        if is_middle:
            labels = [label_of(hand, lens, depth, factor) for hand in hands]
        part, mask = shrunk(part, factor), shrunk((depth > 0).astype(np.float32), factor)
        weight = weights[step][:, None]
        light = light + (part * weight[..., None] if mono is None else photo.to_mono(part, mono) * weight)
        cover = cover + mask * weight
    return light, cover, labels


def shrunk(image: np.ndarray, factor: int) -> np.ndarray:
    if factor == 1:
        return image
    return cv2.resize(image, (image.shape[1] // factor, image.shape[0] // factor), interpolation=cv2.INTER_AREA)


def steps_within(camera: RigCamera, at, exposure: Exposure, time_s: float) -> int:
    """How many renders the exposure at ``time_s`` needs, from how far things move in the picture meanwhile; odd."""
    if exposure.span_s() == 0:
        return 1
    pixels = []
    for sign in (-1, 1):
        hands, solids = at(time_s + sign * exposure.span_s() / 2)
        points = [hand.keypoints_m() for hand in hands] + [solid.translation[None] for solid in solids]
        pixels.append(camera.lens.camera.project(camera.points(np.concatenate(points or [np.zeros((0, 3))]))))
    inside = camera.lens.inside(pixels[0]) & camera.lens.inside(pixels[1])
    longest = np.linalg.norm(pixels[1] - pixels[0], axis=1)[inside].max(initial=0)
    return min(MOST_STEPS, 1 + 2 * int(longest / (2 * STEP_PX) + 0.5))


def labelled(
    index: int, labels: list[HandLabel], lens: Lens, fps: float, video: str, ids=None, person: str | None = None
) -> LabelledImage:
    """The record of one frame; ``labels`` of all hands in the order of ``ids`` (default 1, 2, ...).

    A hand that is mostly outside the picture, or hidden, becomes an area that counts neither way.
    """
    hands, ignore, size = [], [], lens.size_wh
    for number, label in zip(ids or range(1, len(labels) + 1), labels, strict=True):
        points, inside = label.keypoints_px, lens.inside(label.keypoints_px).sum()
        if inside >= LEAST_INSIDE and label.visible.sum() >= LEAST_VISIBLE and np.isfinite(points).all():
            box = (*points.min(axis=0).tolist(), *points.max(axis=0).tolist())
            hands.append(LabelledHand(label.side, box, points, label.visible, label.keypoints_m, number))
        elif np.isfinite(points).any():
            low, high = np.nanmin(points, axis=0) - IGNORE_MARGIN_PX, np.nanmax(points, axis=0) + IGNORE_MARGIN_PX
            low, high = np.clip(low, 0, size), np.clip(high, 0, size)
            if (high - low).min() >= 1:
                ignore.append((*low.tolist(), *high.tolist()))
    return LabelledImage(
        *size, tuple(hands), video=video, frame=index, stamp_s=round(index / fps, 6), ignore=tuple(ignore),
        camera=lens.record(), person=person,
    )  # fmt: skip


class VideoFile:
    """Writes uint8 frames, mono (H, W) or BGR (H, W, 3), to a video file. Raises HandTrackingError."""

    def __init__(self, path: Path, codec: str, fps: float, size_wh: tuple[int, int], color: bool):
        self._writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), fps, size_wh, color)
        if not self._writer.isOpened():
            raise HandTrackingError(
                f"cannot write {path}: this OpenCV has no {codec} encoder; install opencv-python-headless"
            )

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(self, *_) -> None:
        self._writer.release()

    def write(self, image: np.ndarray) -> None:
        self._writer.write(image)
