"""Training samples of KeyNet: a 96x96 crop around a hand as the tracker would cut it, or around no hand."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from hand_tracking_ros.errors import ConfigError
from hand_tracking_ros.geometry import Box, apply, box_around, crop_from_image, invert, iou, mirrored, warp, wrap_angle
from hand_tracking_ros.skeleton import NUM_JOINTS
from hand_tracking_ros.training.augment import blend, blob_mask, degrade, hand_mask, occlude, random_patch
from hand_tracking_ros.training.labelled import LabelledHand, LabelledImage, read_pool
from hand_tracking_ros.training.mining import Draw, Mistakes
from hand_tracking_ros.training.priors import no_prior, simulated_prior

OWN = ("absent", "degraded", "right", "mistaken", "self_told")  # options of CropSampler itself
MISTAKES = 8192  # pictures that are kept
LEAST_MISTAKEN = 0.1  # presence
MARGIN = 1.5  # side of their pictures over that of the crop: room to frame them anew
TOO_WIDE = (4.6, 8.0)  # side of a box over that of a hand in it: what fills it is an arm, or a body


@dataclass(frozen=True)
class CropJitter:
    """How far the tracker's crop may be off. Angles in radians, shift as a share of the box side."""

    scale: float = 1.5
    scale_sigma: float = 0.14
    shift: float = 0.14
    angle_sigma: float = 0.4
    any_angle: float = 0.3  # share of samples turned to any angle
    stretch: float = 0.08
    lost: float = 0.2  # share of samples framed badly: far too tight, too loose or off centre, to be found back from


def jittered(hand: LabelledHand, jitter: CropJitter, rng: np.random.Generator) -> Box:
    """A crop box around the hand as an imperfect tracker would choose it."""
    turn = rng.uniform(-np.pi, np.pi) if rng.random() < jitter.any_angle else rng.normal(0, jitter.angle_sigma)
    base = box_around(hand.keypoints_px)
    scale, shift = np.clip(jitter.scale * np.exp(rng.normal(0, jitter.scale_sigma)), 1.12, 2.3), jitter.shift
    if rng.random() < jitter.lost:
        scale, shift = np.exp(rng.uniform(np.log(0.6), np.log(3.0))), 0.4
    side = base.size_px[0]
    centre = np.array(base.center_px) + rng.uniform(-shift, shift, 2) * side
    stretch = np.exp(rng.uniform(-jitter.stretch, jitter.stretch))
    size = (side * scale * stretch, side * scale / stretch)
    return Box((float(centre[0]), float(centre[1])), size, float(wrap_angle(base.angle_rad + turn)))


def sampling_options(shares: Mapping[str, float]) -> dict[str, Any]:
    """Arguments of CropSampler from a recipe's ``sampling``. Raises ConfigError for unknown names."""
    own = {name: shares[name] for name in OWN if name in shares}
    jitter = {name: value for name, value in shares.items() if name not in own}
    if unknown := sorted(set(jitter) - {field.name for field in fields(CropJitter)}):
        known = [*OWN, *(field.name for field in fields(CropJitter))]
        raise ConfigError(f"sampling: unknown key(s) {', '.join(unknown)}; known: {', '.join(known)}")
    return {**own, "jitter": CropJitter(**jitter)}


@dataclass(frozen=True)
class CropSample:
    """crop (S, S) uint8; keypoints (21, 2) crop px; depth (21,) or NaN; presence, right as KeyNetTarget has them;
    prior (21, 2) and prior_scores (21,): what KeyNet-F is told to expect; self_told: it is then told its own answer."""

    crop: np.ndarray
    keypoints: np.ndarray
    depth: np.ndarray
    presence: float
    right: float
    prior: np.ndarray
    prior_scores: np.ndarray
    self_told: bool = False


class CropSampler:
    """Draws samples from groups of labelled images; ``kind`` of a group: 'frame', 'tight', 'cutout' or 'synthetic'.

    Tight crops have no margin and cut-outs no background: both get one, in several ways, so that the network cannot
    learn the seam. ``right``: share of the hands of known side that are shown as right ones, mirrored where they are
    left; the tracker mirrors the crops of hands that it believes to be left, so right ones are what KeyNet mostly sees.
    ``mistaken``: share of the samples without a hand that show what the network took for one (``look_for_mistakes``).
    ``self_told``: share of the samples of which KeyNet-F is told what it answers by itself, right or wrong.
    """

    def __init__(
        self, groups, backgrounds, negatives=(), size: int = 96, jitter: CropJitter = CropJitter(),
        absent: float = 0.3, degraded: float = 1.0, right: float = 0.5, mining: float = 0.0, mistaken: float = 0.0,
        self_told: float = 0.0,
    ):  # fmt: skip
        self.groups = [(kind, weight, [i for i in images if _usable(i)]) for kind, weight, images in groups]
        self.groups = [group for group in self.groups if group[2]]
        if not self.groups:
            raise ConfigError("no labelled hands to train on: the images have none with keypoints")
        self.draws = [Draw(len(images), mining) for _, _, images in self.groups]
        weights = np.array([weight for _, weight, _ in self.groups], float)
        self.shares = weights / weights.sum()
        self.backgrounds, self.size, self.jitter = backgrounds, size, jitter
        self.absent, self.degraded = absent, degraded  # shares of the samples: without a hand, taken by a bad camera
        self.right, self.mistaken, self.mining, self.self_told = right, mistaken, mining, self_told
        self.mistakes = Mistakes(MISTAKES if mistaken else 0, round(MARGIN * size))
        self._recent: deque[np.ndarray] = deque(maxlen=32)  # keypoints of the last samples
        self.negatives = list(negatives)  # whole frames with all hands labelled: what lies beside the hands is none

    def sample(self, rng: np.random.Generator) -> CropSample:
        """One augmented sample."""
        group = rng.choice(len(self.groups), p=self.shares)
        kind, _, images = self.groups[group]
        image = images[self.draws[group](rng)]
        sample = self._without_hand(image, rng) if rng.random() < self.absent else self._with_hand(kind, image, rng)
        crop = occlude(sample.crop, self.backgrounds, rng) if rng.random() < 0.25 else sample.crop
        crop = degrade(crop, rng) if rng.random() < self.degraded else crop
        return replace(sample, crop=crop, self_told=bool(self.self_told) and rng.random() < self.self_told)

    def _with_hand(self, kind: str, image: LabelledImage, rng: np.random.Generator) -> CropSample:
        hands = [hand for hand in image.hands if hand.has_keypoints]
        hand = hands[rng.integers(len(hands))]
        matrix = crop_from_image(jittered(hand, self.jitter, rng), (self.size, self.size))
        mirror = rng.random() < 0.5 if hand.right == 0.5 else (rng.random() < self.right) != (hand.right == 1.0)
        matrix = mirrored(matrix, self.size) if mirror else matrix
        keypoints = apply(matrix, hand.keypoints_px)
        crop = self._render(kind, image, matrix, keypoints, rng)
        # A joint outside the crop is sought at its edge: a box that has shrunk grows back, frame by frame.
        keypoints = np.clip(keypoints, 0.5, self.size - 0.5)
        prior = simulated_prior(keypoints, self.size, rng, self._recent)
        self._recent.append(keypoints)
        # The teacher's relative depths span a quarter of the true range: only rendered hands teach depth.
        depth = hand.depth if kind == "synthetic" else np.full(NUM_JOINTS, np.nan)
        return CropSample(crop, keypoints, depth, 1.0, 1.0 - hand.right if mirror else hand.right, *prior)

    def _render(self, kind, image, matrix, keypoints, rng) -> np.ndarray:
        wh = (self.size, self.size)
        if kind in ("frame", "synthetic"):
            return warp(image.mono, matrix, wh, border_value=None if rng.random() < 0.5 else 0)
        front = warp(image.mono, matrix, wh, border_value=None)
        choice = rng.random()
        if image.alpha is not None:
            mask = warp(image.alpha, matrix, wh, border_value=0).astype(np.float32) / 255.0
        elif choice < 0.35:
            return front  # edge pixels smeared outwards
        elif choice < 0.6:  # the tight rectangle on another background
            inside = np.full(image.mono.shape, 255, np.uint8)
            mask = warp(inside, matrix, wh, border_value=0).astype(np.float32) / 255.0
        else:
            mask = hand_mask(keypoints, wh, rng)
            inside = np.full(image.mono.shape, 255, np.uint8)
            mask = mask * (warp(inside, matrix, wh, border_value=0).astype(np.float32) / 255.0)
        return blend(front, random_patch(self.backgrounds, wh, rng), mask)

    def look_for_mistakes(self, look, rng: np.random.Generator, tries: int) -> None:
        """Note where a network sees hands in pictures without one.

        ``look(crops (N, S, S) uint8, expected (N, 21, 2) px or None)`` returns keypoints (N, 21, 2) and presence (N,).
        As a tracker does, it looks into a box, and again into the one around what it has seen there, which it is then
        told to expect.
        """
        pictures = [self._picture_without_hand(rng) for _ in range(tries)]
        expected = None
        for _ in range(2):
            if not pictures:
                return
            matrices = [crop_from_image(box, (self.size, self.size)) for _, _, box in pictures]
            matrices = [mirrored(m, self.size) if rng.random() < 0.5 else m for m in matrices]
            crops = np.stack([
                warp(image, matrix, (self.size, self.size), border_value=None)
                for (image, _, _), matrix in zip(pictures, matrices)
            ])  # fmt: skip
            told = None if expected is None else np.stack([apply(m, points) for m, points in zip(matrices, expected)])
            seen, presence = look(crops, told)
            points = [apply(invert(matrix), points.astype(np.float64)) for matrix, points in zip(matrices, seen)]
            boxes = [box_around(each).scaled(self.jitter.scale) for each in points]
            still = [
                i for i, (_, hands, _) in enumerate(pictures)
                if presence[i] > LEAST_MISTAKEN and not any(iou(boxes[i], hand.box) > 0.05 for hand in hands)
            ]  # fmt: skip
            pictures = [(*pictures[i][:2], boxes[i]) for i in still]
            expected = [points[i] for i in still]
        side = round(MARGIN * self.size)
        for (image, _, box), points in zip(pictures, expected):
            wider = crop_from_image(box.scaled(MARGIN), (side, side))
            self.mistakes.add(warp(image, wider, (side, side), border_value=None), apply(wider, points))

    def _picture_without_hand(self, rng: np.random.Generator):
        """An image (H, W), its hands, and a box beside them."""
        if self.negatives and rng.random() < 0.6:
            frame = self.negatives[rng.integers(len(self.negatives))]
            box = _box_off_hands(frame, rng)
            if box is not None:
                return frame.mono, frame.hands, box
        side = 2 * self.size
        image = random_patch(self.backgrounds, (side, side), rng)
        box_side = float(np.exp(rng.uniform(np.log(0.2 * side), np.log(side))))
        x, y = rng.uniform(0.2, 0.8, 2) * side
        return image, (), Box((float(x), float(y)), (box_side, box_side), float(rng.uniform(-np.pi, np.pi)))

    def _mistaken(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """A crop, and the keypoints (21, 2) px that the network saw in it."""
        picture, keypoints = self.mistakes(rng)
        middle, side = len(picture) / 2, self.size * np.exp(rng.normal(0, self.jitter.scale_sigma))
        x, y = middle + rng.uniform(-0.5, 0.5, 2) * self.jitter.shift * self.size
        box = Box((float(x), float(y)), (side, side), float(rng.normal(0, self.jitter.angle_sigma)))
        matrix = crop_from_image(box, (self.size, self.size))
        matrix = mirrored(matrix, self.size) if rng.random() < 0.5 else matrix
        return warp(picture, matrix, (self.size, self.size), border_value=None), apply(matrix, keypoints)

    def _without_hand(self, image: LabelledImage, rng: np.random.Generator) -> CropSample:
        wh, choice, crop = (self.size, self.size), rng.random(), None
        # A track that has slipped off its hand expects one all the same, and one on a false hand what it saw there.
        expected = self._recent[-1] if self._recent else None
        if len(self.mistakes) and rng.random() < self.mistaken:
            crop, expected = self._mistaken(rng)
        elif choice < 0.55 and self.negatives:
            frame = self.negatives[rng.integers(len(self.negatives))]
            box = _box_off_hands(frame, rng)
            crop = None if box is None else warp(frame.mono, crop_from_image(box, wh), wh, border_value=None)
        elif choice < 0.65 and image.alpha is None:
            matrix = crop_from_image(_misframed(image.hands[0].box, rng), wh)
            crop = warp(image.mono, matrix, wh, border_value=None)
        if crop is None:
            crop = random_patch(self.backgrounds, wh, rng)
            if rng.random() < 0.4:  # a cut-out is not a hand yet
                crop = blend(random_patch(self.backgrounds, wh, rng), crop, blob_mask(wh, rng))
        nothing = np.zeros((NUM_JOINTS, 2))
        prior = no_prior() if expected is None else simulated_prior(expected, self.size, rng)
        return CropSample(crop, nothing, np.full(NUM_JOINTS, np.nan), 0.0, 0.5, *prior)


def _usable(image: LabelledImage) -> bool:
    return any(hand.has_keypoints for hand in image.hands)


def _box_off_hands(image: LabelledImage, rng: np.random.Generator) -> Box | None:
    """A random box that frames no hand, or None when ten tries all did: beside them all, or far too wide for one."""
    height, width = image.mono.shape
    if not image.hands and rng.random() < 0.7:  # what stands in the middle is meant
        side = min(height, width) * rng.uniform(0.4, 1.0)
        x, y = (0.5 + rng.uniform(-0.12, 0.12, 2)) * (width, height)
        return Box((float(x), float(y)), (side, side), float(rng.uniform(-np.pi, np.pi)))
    for _ in range(10):
        if too_wide := bool(image.hands) and rng.random() < 0.3:
            hand = image.hands[rng.integers(len(image.hands))].box
            side = max(hand.size_px) * float(np.exp(rng.uniform(*np.log(TOO_WIDE))))
            centre = np.array(hand.center_px) + rng.uniform(-0.4, 0.4, 2) * side
        else:
            side = float(np.exp(rng.uniform(np.log(30), np.log(min(height, width)))))
            centre = rng.uniform(0, 1, 2) * (width, height)
        box = Box((float(centre[0]), float(centre[1])), (side, side), float(rng.uniform(-np.pi, np.pi)))
        if all(iou(box, hand.box) < 0.05 and (too_wide or not _contains(box, hand.box)) for hand in image.hands):
            return box
    return None


def _misframed(box: Box, rng: np.random.Generator) -> Box:
    """A crop that shows only a small part of the hand: too little to say where it is."""
    scale = float(np.exp(rng.uniform(np.log(0.12), np.log(0.3))))
    x, y = np.array(box.center_px) + rng.uniform(-0.4, 0.4, 2) * box.size_px[0]
    size = (box.size_px[0] * scale, box.size_px[1] * scale)
    return Box((float(x), float(y)), size, float(rng.uniform(-np.pi, np.pi)))


def _contains(outer: Box, inner: Box) -> bool:
    x0, y0, x1, y1 = outer.bounds()
    return x0 <= inner.center_px[0] <= x1 and y0 <= inner.center_px[1] <= y1


def load_synthetic_crops(path: Path) -> list[LabelledImage]:
    """A pool written by ``python -m hand_tracking_ros.training.synthetic --kind crops``. Raises ConfigError."""
    images, keypoints, depths, sides = read_pool(path, "crops", ("images", "keypoints", "depth_rel", "side"))
    loaded = []
    for index, (image, points, depth, side) in enumerate(zip(images, keypoints, depths, sides)):
        points = points.astype(np.float64)
        hand = LabelledHand(points, depth.astype(np.float64), float(side == 2), box_around(points))
        loaded.append(LabelledImage(f"{path.stem}/{index}", image, (hand,)))
    return loaded
