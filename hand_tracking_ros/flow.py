"""Carrying a hand's box from one frame to the next with pyramidal Lucas-Kanade optical flow.

Points on the hand (keypoints, and the middle of the palm's edges) are tracked forward and back; those that do not
return to their start are dropped (Kalal et al., "Forward-backward error", ICPR 2010). The rest vote for one similarity
motion, which moves the box. Pixels are corner-origin (geometry.py); OpenCV's flow counts pixel centres, ``_track``
converts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import cv2
import numpy as np

from hand_tracking_ros.config import FlowConfig
from hand_tracking_ros.errors import ImageError
from hand_tracking_ros.geometry import Box, wrap_angle
from hand_tracking_ros.skeleton import NUM_JOINTS

SCALE_LIMITS = (0.7, 1.4)  # per frame; what exceeds them is a wrong track, not a hand
MAX_SLOPE = 1.0  # tangent of the largest turn per frame: 45 degrees
INLIER_SHARE, MIN_INLIER_PX = 0.05, 1.0  # a point agrees with a motion within this share of the box side
MIN_SIMILARITY_POINTS = 6  # with fewer, only the translation is estimated

LEAST_GAIN = 0.03  # light that changes by less disturbs nothing
LEAST_CHANGE = 0.02  # of the mean brightness, before the light is looked into
GAIN_STEP_PX, DARK, LEAST_LIT = 8, 16, 100  # pixels it is read from: every 8th, grey level, how many are enough
SAME_SURFACE = 0.25  # a pixel whose ratio differs by more from that of the others shows something else
LEAST_SAME = 0.45  # of the pixels; where more of them show something else, nothing is known of the light

BACK_LEVELS = 2  # pyramid levels above full resolution, on the way back
CRITERIA = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 10, 0.06)  # per level: steps, and px that end it

# The edges of the palm, where keypoints are sparse: their midpoints are tracked too.
_MIDPOINTS = np.array([(0, 5), (0, 17)])


@dataclass(frozen=True)
class FlowImage:
    """A mono image made ready for flow, to be used as ``current`` and, one frame later, as ``previous``.

    ``mono`` (h, w) uint8, at most ``max_width_px`` wide; ``scale`` (2,) x and y: its pixels per full image pixel.
    """

    mono: np.ndarray
    scale: np.ndarray

    @cached_property
    def brightness(self) -> float:
        """Mean grey level, of the pixels of every 8th row and column."""
        return float(self.mono[::GAIN_STEP_PX, ::GAIN_STEP_PX].mean())

    def outside(self, points_px: np.ndarray) -> np.ndarray:
        """(N,) bool: which points (N, 2), in pixels of the full image, are not in it."""
        small = points_px * self.scale
        return ((small < 0) | (small >= self.mono.shape[::-1])).any(axis=1)

    def same_size(self, other: FlowImage) -> bool:
        """Whether both come from full images of one size: two sizes may be equal after halving."""
        return self.mono.shape == other.mono.shape and np.array_equal(self.scale, other.scale)


@dataclass(frozen=True)
class BoxMotion:
    """How a hand moved between two frames, in pixels of the full image.

    ``followed`` (21,) bool: the keypoints that flow itself found again; the others moved along with the hand.
    ``enough``: at least ``FlowConfig.min_points`` of ``points`` tracked points survived the check. When False, ``box``
    and ``keypoints_px`` (21, 2) are where they were in the previous frame: the caller extrapolates.
    """

    box: Box
    keypoints_px: np.ndarray
    followed: np.ndarray
    points: int
    enough: bool


class FlowPropagator:
    """Moves boxes by optical flow. Keeps no state between frames."""

    def __init__(self, config: FlowConfig) -> None:
        self.config = config

    def prepare(self, mono: np.ndarray) -> FlowImage:
        """Halve ``mono`` (H, W) uint8 until it is at most ``max_width_px`` wide. Raises ImageError on another kind."""
        if mono.ndim != 2 or mono.dtype != np.uint8 or mono.size == 0:
            raise ImageError(f"optical flow needs a mono image (H, W) of uint8, got shape {mono.shape} of {mono.dtype}")
        height, width = mono.shape
        while mono.shape[1] > self.config.max_width_px:
            half = (mono.shape[1] // 2, max(mono.shape[0] // 2, 1))
            mono = cv2.resize(mono, half, interpolation=cv2.INTER_AREA)
        return FlowImage(mono, np.array([mono.shape[1] / width, mono.shape[0] / height]))

    def propagate(self, previous: FlowImage, current: FlowImage, keypoints_px: np.ndarray, box: Box) -> BoxMotion:
        """``propagate_many`` for one hand."""
        return self.propagate_many(previous, current, [(keypoints_px, box)])[0]

    def propagate_many(
        self, previous: FlowImage, current: FlowImage, hands: Sequence[tuple[np.ndarray, Box]]
    ) -> list[BoxMotion]:
        """Motion of every hand, given as (keypoints_px (21, 2), box) in ``previous``; one flow call for all.

        Keypoints that are NaN or outside the image are not tracked. Raises ImageError when the two images differ in
        size: the stream has changed, and tracks should be reset.
        """
        if not previous.same_size(current):
            raise ImageError(
                f"optical flow needs two images of the same size, got {_size(previous)} and then {_size(current)}; "
                "reset the tracker when the stream changes"
            )
        if not hands:
            return []
        starts = np.stack([_points_on_hand(np.asarray(keypoints_px, np.float64)) for keypoints_px, _ in hands])
        ends, good = self._track(*_equally_bright(previous, current), previous.scale, starts)
        return [
            self._motion(keypoints_px, box, start, end, keep)
            for (keypoints_px, box), start, end, keep in zip(hands, starts, ends, good, strict=True)
        ]

    def _track(
        self, before: np.ndarray, after: np.ndarray, scale: np.ndarray, points_px: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Where the points (hands, N, 2) went, and which of them (hands, N) passed the forward-backward check.

        The way back is looked for from where the median motion of the hand leads: that takes fewer levels, however fast
        the hand is, and no point that has slipped is helped to its start.
        """
        config = self.config
        lk = {"winSize": (config.window_px,) * 2, "criteria": CRITERIA}
        size = np.array(before.shape[::-1])
        small = points_px * scale
        usable = np.all((small >= 0) & (small < size), axis=-1)  # False for NaN
        start = np.where(usable[..., None], small, 0).astype(np.float32) - np.float32(0.5)
        end, found, _ = cv2.calcOpticalFlowPyrLK(
            before, after, start.reshape(-1, 2), None, maxLevel=config.levels, **lk
        )
        end = end.reshape(start.shape)
        motion = np.sort(end - start, axis=1)[:, start.shape[1] // 2, None]
        back, returned, _ = cv2.calcOpticalFlowPyrLK(
            after, before, end.reshape(-1, 2), (end - motion).reshape(-1, 2),
            maxLevel=min(config.levels, BACK_LEVELS), flags=cv2.OPTFLOW_USE_INITIAL_FLOW, **lk,
        )  # fmt: skip
        inside = np.all((end >= -0.5) & (end < size - 0.5), axis=-1)
        error_px = np.linalg.norm((back.reshape(start.shape) - start) / scale, axis=-1)
        good = usable & inside & (error_px <= config.max_backward_error_px)
        good &= ((found == 1) & (returned == 1)).reshape(good.shape)
        return (end + 0.5) / scale, good

    def _motion(self, keypoints_px, box: Box, start: np.ndarray, end: np.ndarray, good: np.ndarray) -> BoxMotion:
        count = int(good.sum())
        if count < self.config.min_points:
            return BoxMotion(box, np.array(keypoints_px, np.float64), np.zeros(NUM_JOINTS, bool), count, False)
        z_start, z_end = _complex(start), _complex(end)
        tolerance_px = max(INLIER_SHARE * max(box.size_px), MIN_INLIER_PX)
        turn, shift = _similarity(z_start[good], z_end[good], tolerance_px)
        moved = turn * z_start[:NUM_JOINTS] + shift
        # A joint's own flow knows how the finger bends, unless it has slipped onto something else.
        own = z_end[:NUM_JOINTS]
        trusted = good[:NUM_JOINTS] & (np.abs(own - moved) <= 3 * tolerance_px)
        moved = np.where(trusted, own, moved)
        center = turn * complex(*box.center_px) + shift
        size = (box.size_px[0] * abs(turn), box.size_px[1] * abs(turn))
        angle = float(wrap_angle(box.angle_rad + np.angle(turn)))
        moved_box = Box((center.real, center.imag), size, angle)
        return BoxMotion(moved_box, _points(moved), trusted, count, True)


def _equally_bright(previous: FlowImage, current: FlowImage) -> tuple[np.ndarray, np.ndarray]:
    """Both images (h, w), the brighter one darkened: flow goes by brightness, and lamps flicker.

    By the median ratio of pixels, of which most must show what they showed before.
    """
    before, after = previous.mono, current.mono
    if abs(current.brightness - previous.brightness) < LEAST_CHANGE * previous.brightness:
        return before, after
    old, new = (image[::GAIN_STEP_PX, ::GAIN_STEP_PX].ravel() for image in (before, after))
    lit = np.minimum(old, new) >= DARK
    if np.count_nonzero(lit) < LEAST_LIT:
        return before, after
    ratios = new[lit] / old[lit]
    about = np.median(ratios)
    same = ratios[np.abs(ratios - about) <= SAME_SURFACE * about]
    gain = float(np.median(same))
    if abs(gain - 1) < LEAST_GAIN or len(same) < LEAST_SAME * len(ratios):
        return before, after
    if gain > 1:
        return before, cv2.convertScaleAbs(after, alpha=1 / gain)
    return cv2.convertScaleAbs(before, alpha=gain), after


def moved_onto(points_px: np.ndarray, motion_px: np.ndarray, followed: np.ndarray) -> np.ndarray:
    """Keypoints (21, 2) of another opinion, turned, scaled and shifted onto those that flow found, by least squares.

    ``motion_px`` (21, 2), ``followed`` (21,): as in BoxMotion. With few followed joints all count. NaN stays NaN.
    """
    known = np.isfinite(points_px + motion_px).all(axis=1)
    use = known & followed if (known & followed).sum() >= MIN_SIMILARITY_POINTS else known
    z_points, z_motion = _complex(points_px), _complex(motion_px)
    motion = _least_squares(z_points[use], z_motion[use]) if use.any() else None
    return points_px if motion is None else _points(motion[0] * z_points + motion[1])


def _complex(points: np.ndarray) -> np.ndarray:
    """Points (N, 2) as (N,) complex numbers x + iy."""
    return np.ascontiguousarray(points, np.float64).view(np.complex128)[:, 0]


def _points(numbers: np.ndarray) -> np.ndarray:
    """(N, 2) of complex numbers (N,)."""
    return numbers.view(np.float64).reshape(-1, 2)


def _points_on_hand(keypoints_px: np.ndarray) -> np.ndarray:
    """(23, 2): the keypoints, then the midpoints."""
    if keypoints_px.shape != (NUM_JOINTS, 2):
        raise ValueError(f"keypoints_px must have shape ({NUM_JOINTS}, 2), got {keypoints_px.shape}")
    return np.concatenate([keypoints_px, (keypoints_px[_MIDPOINTS[:, 0]] + keypoints_px[_MIDPOINTS[:, 1]]) / 2])


def _similarity(start: np.ndarray, end: np.ndarray, tolerance: float) -> tuple[complex, complex]:
    """(turn, shift) of the similarity ``end = turn * start + shift`` that most points agree with.

    Points are complex numbers x + iy, so ``abs(turn)`` is the scale and its angle the rotation. Pairs of points propose
    motions, the one with the least truncated squared error wins (MSAC, with fixed pairs, so it is deterministic) and is
    refined on the points that agree. Few points, or only motions beyond the limits: translation alone.
    """
    turns = np.ones(1, complex)
    shifts = end - start
    offsets = np.array([complex(_median(shifts.real), _median(shifts.imag))])
    count = len(start)
    if count >= MIN_SIMILARITY_POINTS:
        first, second = _pairs(count)
        arm = start[second] - start[first]
        long_arm = np.abs(arm) > tolerance
        first, second = first[long_arm], second[long_arm]
        proposed = (end[second] - end[first]) / arm[long_arm]
        turns = np.append(turns, proposed)
        offsets = np.append(offsets, (end[first] + end[second] - proposed * (start[first] + start[second])) / 2)
        plausible = _plausible(turns)
        turns, offsets = turns[plausible], offsets[plausible]
    errors = turns[:, None] * start + offsets[:, None] - end
    squares = errors.real**2 + errors.imag**2
    best = np.minimum(squares, tolerance**2).sum(axis=1).argmin()
    agree = squares[best] <= tolerance**2
    refined = _least_squares(start[agree], end[agree]) if agree.sum() >= MIN_SIMILARITY_POINTS else None
    if refined is not None and _plausible(refined[0]):
        return refined
    return complex(turns[best]), complex(offsets[best])


@lru_cache(maxsize=64)
def _pairs(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Two pairs per point with points further on in the order, which mostly lie on other parts of the hand."""
    first = np.arange(count)
    steps = (count // 3, count // 2)
    return np.tile(first, 2), np.concatenate([(first + step) % count for step in steps])


def _median(values: np.ndarray) -> float:
    """As numpy.median, which takes several times longer on so few values."""
    middle = len(values) // 2
    ordered = np.sort(values)
    return float(ordered[middle] if len(values) % 2 else (ordered[middle - 1] + ordered[middle]) / 2)


def _plausible(turn):
    """Whether motions stay within the limits of scale and rotation per frame."""
    x, y = turn.real, turn.imag
    square = x * x + y * y
    return (square >= SCALE_LIMITS[0] ** 2) & (square <= SCALE_LIMITS[1] ** 2) & (abs(y) <= MAX_SLOPE * x)


def _least_squares(start: np.ndarray, end: np.ndarray) -> tuple[complex, complex] | None:
    """The similarity that maps ``start`` onto ``end`` best; None when all points coincide."""
    arm = start - start.mean()
    power = np.vdot(arm, arm).real
    if power < 1e-9:
        return None
    turn = np.vdot(arm, end) / power
    return complex(turn), complex(end.mean() - turn * start.mean())


def _size(image: FlowImage) -> str:
    height, width = image.mono.shape
    return f"{width / image.scale[0]:.0f}x{height / image.scale[1]:.0f}"
