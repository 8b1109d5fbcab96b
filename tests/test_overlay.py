"""Overlay: drawn where the hand is, nowhere else, in the colours promised."""

from __future__ import annotations

import numpy as np
import pytest
from blob_models import hand_at

from hand_tracking_ros.geometry import box_around
from hand_tracking_ros.overlay import FINGER_COLORS, SIDE_COLORS, draw_hands
from hand_tracking_ros.skeleton import Side
from hand_tracking_ros.types import Hand, Source

GREY = 60


def hand(points: np.ndarray, side=Side.RIGHT, scores=0.9, source=Source.DETECTED) -> Hand:
    return Hand(
        id=3,
        side=side,
        side_score=0.9,
        score=0.97,
        source=source,
        box=box_around(points),
        keypoints_px=points,
        keypoint_scores=np.full(21, scores),
    )


def pixel(image: np.ndarray, point: np.ndarray) -> list[int]:
    """The pixel that holds a corner-origin point."""
    x, y = np.floor(point).astype(int)
    return image[y, x].tolist()


@pytest.mark.parametrize("scale", [1, 2])
def test_joints_are_drawn_in_finger_colours_at_their_place(scale):
    image = np.full((480 * scale, 640 * scale, 3), GREY, np.uint8)
    points = hand_at(320, 240) * scale
    drawn = draw_hands(image, [hand(points)])
    assert np.all(image == GREY)  # a copy was drawn on
    assert pixel(drawn, points[8]) == list(FINGER_COLORS["index"])
    assert pixel(drawn, points[20]) == list(FINGER_COLORS["little"])
    changed = np.argwhere(np.any(drawn != GREY, axis=2))[:, ::-1]
    x0, _, _, y1 = box_around(points).bounds()
    margin = 30 * scale
    assert changed.min(axis=0)[0] > x0 - margin and changed.max(axis=0)[1] < y1 + margin


def test_low_scores_are_hollow():
    image = np.full((480, 640, 3), GREY, np.uint8)
    points = hand_at(320, 240)
    drawn = draw_hands(image, [hand(points, scores=0.1)])
    assert max(pixel(drawn, points[8])) < 40  # dark inside


def test_label_has_the_colour_of_the_side():
    image = np.zeros((480, 640, 3), np.uint8)
    plates = {}
    for side in (Side.LEFT, Side.RIGHT):
        drawn = draw_hands(image, [hand(hand_at(320, 240), side)])
        x0, y0, _, _ = box_around(hand_at(320, 240)).bounds()
        plates[side] = drawn[int(y0) - 3, int(x0) + 1].astype(int)
        assert np.all(np.abs(plates[side] - 0.75 * np.array(SIDE_COLORS[side])) <= 2)


def test_mono_image_unknown_joints_and_hands_outside():
    mono = np.full((480, 640), GREY, np.uint8)
    points = hand_at(100, 100)
    points[8] = np.nan
    drawn = draw_hands(mono, [hand_with_nan(points), hand(hand_at(-500, 9000))])
    assert drawn.shape == (480, 640, 3)
    assert pixel(drawn, hand_at(100, 100)[12]) == list(FINGER_COLORS["middle"])
    assert np.array_equal(draw_hands(mono, []), np.repeat(mono[..., None], 3, axis=2))


def hand_with_nan(points: np.ndarray) -> Hand:
    known = hand(hand_at(100, 100), Side.UNKNOWN, source=Source.PREDICTED)
    return Hand(**{**{f: getattr(known, f) for f in known.__dataclass_fields__}, "keypoints_px": points})
