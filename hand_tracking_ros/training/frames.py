"""Training samples of DetNet: 320x240 mono frames with any number of hands, and their dense targets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from hand_tracking_ros.geometry import Box, apply, box_around, rotation, warp
from hand_tracking_ros.skeleton import NUM_JOINTS
from hand_tracking_ros.training.augment import blend, blob_mask, degrade, hand_mask, random_patch
from hand_tracking_ros.training.labelled import LabelledHand, LabelledImage, read_pool
from hand_tracking_ros.training.networks.detnet import FIELDS, SIDE_UNIT_PX, STRIDE

MIN_SIDE_PX, MAX_SIDE_PX = 14.0, 210.0  # of hands pasted into a 320x240 frame
LETTERBOXED = 0.4  # share of frames that have another shape than the network's input
LEAST_VISIBLE = 2  # joints of a synthetic hand: with fewer it is hidden behind something
ASPECTS = (16 / 9, 16 / 10, 5 / 4, 1.0, 3 / 4)  # their width over their height


@dataclass(frozen=True)
class FrameHand:
    """A hand in a training frame. ``angle_known`` and ``right`` 0.5: unknown facts do not train."""

    box: Box
    right: float
    angle_known: bool


@dataclass(frozen=True)
class FrameSample:
    """image (H, W) uint8 and its hands."""

    image: np.ndarray
    hands: tuple[FrameHand, ...]


def moved(hand: LabelledHand, matrix: np.ndarray) -> FrameHand:
    """The hand after a 2x3 map that may mirror."""
    mirror = np.linalg.det(matrix[:, :2]) < 0
    right = 1.0 - hand.right if mirror else hand.right
    if hand.has_keypoints:
        return FrameHand(box_around(apply(matrix, hand.keypoints_px)), right, True)
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    centre = apply(matrix, np.array(hand.box.center_px))
    side = hand.box.size_px[0] * scale
    return FrameHand(Box((float(centre[0]), float(centre[1])), (side, side), 0.0), right, False)


def similarity(centre_from, centre_to, scale: float, angle_rad: float, mirror: bool) -> np.ndarray:
    """2x3 map that takes one centre to the other, scales, turns and perhaps mirrors."""
    linear = scale * rotation(angle_rad) @ np.diag([-1.0 if mirror else 1.0, 1.0])
    return np.column_stack([linear, np.asarray(centre_to) - linear @ np.asarray(centre_from)])


class FrameSampler:
    """Draws frames: real ones with all hands labelled, hands pasted on backgrounds, and synthetic ones."""

    def __init__(self, frames, pasteable, synthetic, backgrounds, size=(320, 240), shares=(0.35, 0.35, 0.3)):
        self.frames, self.pasteable, self.synthetic, self.backgrounds, self.size = (
            frames, pasteable, synthetic, backgrounds, size
        )  # fmt: skip
        available = np.array(shares) * [bool(frames), bool(pasteable), bool(synthetic)]
        self.shares = available / available.sum()

    def sample(self, rng: np.random.Generator) -> FrameSample:
        """One augmented sample."""
        make = (self._real, self._pasted, self._synthetic)[rng.choice(3, p=self.shares)]
        sample = make(rng)
        sample = FrameSample(degrade(sample.image, rng), sample.hands)
        return letterboxed(sample, ASPECTS[rng.integers(len(ASPECTS))]) if rng.random() < LETTERBOXED else sample

    def _real(self, rng) -> FrameSample:
        return self._warped(self.frames[rng.integers(len(self.frames))], rng, (0.55, 1.9))

    def _synthetic(self, rng) -> FrameSample:
        return self._warped(self.synthetic[rng.integers(len(self.synthetic))], rng, (0.8, 1.3))

    def _warped(self, image: LabelledImage, rng, scales) -> FrameSample:
        height, width = image.mono.shape
        fit = min(self.size[0] / width, self.size[1] / height)
        scale = fit * np.exp(rng.uniform(*np.log(scales)))
        turn = rng.uniform(-np.pi, np.pi) if rng.random() < 0.35 else rng.normal(0, 0.3)
        target = np.array(self.size) * rng.uniform(0.3, 0.7, 2)
        matrix = similarity((width / 2, height / 2), target, scale, turn, rng.random() < 0.5)
        if rng.random() < 0.5:
            picture = warp(image.mono, matrix, self.size, border_value=0)
            inside = warp(np.full(image.mono.shape, 255, np.uint8), matrix, self.size, border_value=0)
            picture = blend(picture, random_patch(self.backgrounds, self.size, rng), inside.astype(np.float32) / 255.0)
        else:
            picture = warp(image.mono, matrix, self.size, border_value=int(rng.integers(0, 256)))
        return FrameSample(picture, tuple(h for h in (moved(hand, matrix) for hand in image.hands) if self._visible(h)))

    def _pasted(self, rng) -> FrameSample:
        picture = random_patch(self.backgrounds, self.size, rng)
        hands: list[FrameHand] = []
        for _ in range(rng.integers(0, 3)):
            self._paste_decoy(picture, rng)
        for _ in range(rng.choice(4, p=(0.15, 0.45, 0.3, 0.1))):
            self._paste_hand(picture, hands, rng)
        return FrameSample(picture, tuple(hands))

    def _paste_decoy(self, picture, rng) -> None:
        """Blend a cut-out without a hand into ``picture``: the seam alone is no hand."""
        width, height = (int(v) for v in np.exp(rng.uniform(np.log(MIN_SIDE_PX), np.log(MAX_SIDE_PX), 2)))
        x, y = int(rng.integers(0, max(1, self.size[0] - width))), int(rng.integers(0, max(1, self.size[1] - height)))
        region = picture[y : y + height, x : x + width]
        wh = (region.shape[1], region.shape[0])
        region[:] = blend(random_patch(self.backgrounds, wh, rng), region, blob_mask(wh, rng))

    def _paste_hand(self, picture, hands, rng) -> None:
        """Blend a random hand into ``picture`` and add it to ``hands``, unless it would cover another one."""
        image = self.pasteable[rng.integers(len(self.pasteable))]
        source = image.hands[0]
        side = np.exp(rng.uniform(np.log(MIN_SIDE_PX), np.log(MAX_SIDE_PX)))
        turn = rng.uniform(-np.pi, np.pi) if rng.random() < 0.45 else rng.normal(0, 0.5)
        target = rng.uniform(0.02, 0.98, 2) * self.size
        scale = side / source.box.size_px[0]
        matrix = similarity(source.box.center_px, target, scale, turn, rng.random() < 0.5)
        hand = moved(source, matrix)
        if not self._visible(hand) or not all(_apart(hand.box, other.box) for other in hands):
            return
        x0, y0, x1, y1 = (int(v) for v in hand.box.scaled(2.2).bounds())
        x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1 + 1, self.size[0]), min(y1 + 1, self.size[1])
        region, wh = picture[y0:y1, x0:x1], (x1 - x0, y1 - y0)
        local = np.column_stack([matrix[:, :2], matrix[:, 2] - [x0, y0]])
        opaque = np.full(image.mono.shape, 255, np.uint8) if image.alpha is None else image.alpha
        mask = warp(opaque, local, wh, border_value=0).astype(np.float32) / 255.0
        if image.alpha is None:
            mask *= hand_mask(apply(local, source.keypoints_px), wh, rng)
        front = cv2.convertScaleAbs(warp(image.mono, local, wh, border_value=None), alpha=rng.uniform(0.6, 1.4))
        region[:] = blend(front, region, mask)
        hands.append(hand)

    def _visible(self, hand: FrameHand) -> bool:
        x, y = hand.box.center_px
        return 0 <= x < self.size[0] and 0 <= y < self.size[1] and 6 <= hand.box.size_px[0] <= 400


def letterboxed(sample: FrameSample, aspect: float) -> FrameSample:
    """The top left part of a frame, ``aspect`` times as wide as high, on black: as the detector sees such images."""
    height, width = sample.image.shape
    inside_wh = min(width, round(height * aspect)), min(height, round(width / aspect))
    image = np.zeros_like(sample.image)
    image[: inside_wh[1], : inside_wh[0]] = sample.image[: inside_wh[1], : inside_wh[0]]
    return FrameSample(image, tuple(hand for hand in sample.hands if (hand.box.center_px < np.array(inside_wh)).all()))


def _apart(a: Box, b: Box) -> bool:
    gap = np.hypot(a.center_px[0] - b.center_px[0], a.center_px[1] - b.center_px[1])
    return gap > 0.45 * (a.size_px[0] + b.size_px[0]) / 2 + STRIDE


def dense_target(hands: tuple[FrameHand, ...], size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Targets of networks/detnet.py's DetNetTarget for one frame, as float32 maps."""
    width, height = size[0] // STRIDE, size[1] // STRIDE
    maps = {
        name: np.zeros((height, width), np.float32) for name in ("centre", "box_weight", "angle_weight", "side_weight")
    }
    fields = np.zeros((FIELDS, height, width), np.float32)
    rows, columns = np.mgrid[:height, :width].astype(np.float32) + 0.5
    for hand in hands:
        x, y = np.array(hand.box.center_px) / STRIDE
        column, row = min(int(x), width - 1), min(int(y), height - 1)
        sigma = max(0.6, hand.box.size_px[0] / STRIDE / 9)
        bump = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))
        maps["centre"] = np.maximum(maps["centre"], 0.99 * bump)
        maps["centre"][row, column] = 1.0
        # Neighbours that may win the peak learn the same box, unless another hand's peak is nearer.
        near = (bump > 0.7) & (bump > maps["box_weight"])
        near[row, column] = True
        log_side = np.log(max(hand.box.size_px[0], 4.0) / SIDE_UNIT_PX)
        angle = hand.box.angle_rad
        values = (x - columns, y - rows, log_side, np.cos(angle), np.sin(angle), hand.right)
        for index, value in enumerate(values):
            fields[index][near] = value[near] if isinstance(value, np.ndarray) else value
        weight = bump[near]
        maps["box_weight"][near] = weight
        maps["angle_weight"][near] = weight * hand.angle_known
        maps["side_weight"][near] = weight * (hand.right != 0.5)
    return {**maps, "fields": fields, "centre_weight": np.ones((height, width), np.float32)}


def load_synthetic_frames(path: Path) -> list[LabelledImage]:
    """A pool written by ``python -m hand_tracking_ros.training.synthetic --kind frames``. Hidden hands are none.

    Raises ConfigError.
    """
    names = ("images", "hand_image_index", "keypoints", "side", "visible")
    images, indices, keypoints, sides, visible = read_pool(path, "frames", names)
    hands: list[list[LabelledHand]] = [[] for _ in images]
    seen = visible.sum(axis=1) >= LEAST_VISIBLE
    for index, points, side in zip(indices[seen], keypoints[seen], sides[seen]):
        points = points.astype(np.float64)
        unknown = np.full(NUM_JOINTS, np.nan)
        hands[index].append(LabelledHand(points, unknown, float(side == 2), box_around(points)))
    return [LabelledImage(f"{path.stem}/{i}", image, tuple(h)) for i, (image, h) in enumerate(zip(images, hands))]
