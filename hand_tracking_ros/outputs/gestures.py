"""How hard a hand pinches and grasps, and a few gestures that do not flicker.

A gesture follows from which fingers are bent, whether the thumb stands off, and which fingertip the thumb touches.
Each of these is averaged over half of ``hold_s``, switches on at one value and off at another, and a new gesture must
last for ``hold_s`` before it is named.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

from hand_tracking_ros.config import GestureConfig
from hand_tracking_ros.kinematics import NUM_ANGLES, HandPose
from hand_tracking_ros.skeleton import TIPS, Joint

MAX_GAP_S = 0.5  # after a longer one, a hand's gesture starts afresh
FULL_CURL = np.radians(230.0)  # sum of a finger's three flexions in a tight fist
_FLEXIONS = np.arange(NUM_ANGLES).reshape(5, 4)[1:, [0, 2, 3]]


class Gesture(IntEnum):
    """A static gesture. Thumbs up is the thumb off a fist, whichever way it points: no camera knows where up is."""

    NONE = 0
    OPEN = 1
    FIST = 2
    POINT = 3
    PINCH = 4
    THUMBS_UP = 5
    VICTORY = 6


@dataclass(frozen=True)
class HandSigns:
    """``pinch`` (4,) 0..1: thumb with index, middle, ring, little finger; ``grasp`` 0..1; ``gesture``."""

    pinch: np.ndarray
    grasp: float
    gesture: Gesture = Gesture.NONE


def pinch_strengths(points: np.ndarray, palm: float, config: GestureConfig = GestureConfig()) -> np.ndarray:
    """(4,) 0..1 of index to little finger: 1 where its tip touches the thumb's. ``points`` (21, 3) in any unit;
    ``palm``: palm length in it."""
    gaps = np.linalg.norm(points[list(TIPS[1:])] - points[Joint.THUMB_TIP], axis=1) / palm
    return np.clip((config.pinch_far - gaps) / (config.pinch_far - config.pinch_near), 0.0, 1.0)


def finger_curls(angles: np.ndarray) -> np.ndarray:
    """(4,) of index to little finger, from joint angles (20,): 0 straight, 1 as in a tight fist."""
    return np.clip(angles[_FLEXIONS].sum(axis=1) / FULL_CURL, 0.0, 1.0)


def grasp_strength(angles: np.ndarray) -> float:
    """0..1: 0 with straight fingers, 1 for a fist; the mean curl of the four fingers."""
    return float(finger_curls(angles).mean())


def thumb_gap(points: np.ndarray, palm: float) -> float:
    """Distance of the thumb's tip to the base of the little finger, in palm lengths."""
    return float(np.linalg.norm(points[Joint.THUMB_TIP] - points[Joint.LITTLE_MCP]) / palm)


@dataclass
class _Held:
    """What is on at one hand, and the gesture that waits to be named."""

    stamp_s: float
    measured: np.ndarray  # (9,) averaged: pinch strengths, curls, thumb gap
    bent: np.ndarray = field(default_factory=lambda: np.zeros(4, bool))
    pinched: np.ndarray = field(default_factory=lambda: np.zeros(4, bool))
    thumb_off: bool = False
    gesture: Gesture = Gesture.NONE
    waiting: Gesture = Gesture.NONE
    since_s: float = 0.0


class SignReader:
    """Strengths and gestures of all hands over time, by id."""

    def __init__(self, config: GestureConfig = GestureConfig()):
        self.config = config
        self._hands: dict[int, _Held] = {}

    def read(self, hand_id: int, pose: HandPose, stamp_s: float) -> HandSigns:
        """The signs of hand ``hand_id``, posed as ``pose`` at ``stamp_s``. After a gap or a jump back in time its
        gesture starts afresh."""
        points = pose.points()
        pinch, curls = pinch_strengths(points, pose.palm_m, self.config), finger_curls(pose.angles)
        measured = np.concatenate([pinch, curls, [thumb_gap(points, pose.palm_m)]])
        held = self._hands.get(hand_id)
        if held is None or not 0 <= stamp_s - held.stamp_s <= MAX_GAP_S or not np.isfinite(held.measured).all():
            held = self._hands[hand_id] = _Held(stamp_s, measured, since_s=stamp_s)
        config, elapsed_s = self.config, stamp_s - held.stamp_s
        if elapsed_s > 0:
            held.measured += (measured - held.measured) * elapsed_s / (elapsed_s + config.hold_s / 2)
        held.stamp_s = stamp_s
        held.pinched = _switched(held.pinched, held.measured[:4], config.pinch_off, config.pinch_on)
        held.bent = _switched(held.bent, held.measured[4:8], config.straight, config.bent)
        held.thumb_off = bool(_switched(held.thumb_off, held.measured[8], config.thumb_near, config.thumb_off))
        seen = _gesture(held)
        if seen != held.waiting:
            held.waiting, held.since_s = seen, stamp_s
        if stamp_s - held.since_s >= config.hold_s:
            held.gesture = held.waiting
        return HandSigns(pinch, float(curls.mean()), held.gesture)

    def forget(self, kept: set[int]) -> None:
        """Drop all hands but those with the ids ``kept``."""
        self._hands = {i: held for i, held in self._hands.items() if i in kept}


def _switched(on: np.ndarray | bool, value: np.ndarray | float, low: float, high: float) -> np.ndarray:
    """On above ``high``, off below ``low``, unchanged between."""
    return np.where(on, value >= low, value > high)


def _gesture(held: _Held) -> Gesture:
    if (held.pinched & ~held.bent).any():
        return Gesture.PINCH
    named = {
        (False, False, False, False): Gesture.OPEN,
        (True, True, True, True): Gesture.THUMBS_UP if held.thumb_off else Gesture.FIST,
        (False, True, True, True): Gesture.POINT,
        (False, False, True, True): Gesture.VICTORY,
    }.get(tuple(held.bent.tolist()))
    if named is None:  # in these the thumb may touch a bent finger; elsewhere that is a pinch
        return Gesture.PINCH if held.pinched.any() else Gesture.NONE
    return named
