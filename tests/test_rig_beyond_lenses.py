"""Rigs whose first camera has no place for a hand, or whose lenses see only a part of it."""

from __future__ import annotations

import numpy as np
import pytest

from hand_tracking_ros.cameras import Camera
from hand_tracking_ros.config import TrackConfig, TrackerConfig
from hand_tracking_ros.geometry import NOWHERE, box_around
from hand_tracking_ros.kinematics import HandPose, exp_rotation
from hand_tracking_ros.rig import Rig, RigCamera
from hand_tracking_ros.rig_tracker import RigTracker
from hand_tracking_ros.skeleton import Side
from hand_tracking_ros.types import Frame, HandKeypoints, Source

LENS = Camera(500, 500, 320, 240)
BENT = np.tile([0.4, 0.0, 0.5, 0.3], 5)
TURN = exp_rotation(np.array([0, 2.4, 0])) @ exp_rotation(np.array([0.3, -0.3, 0.1]))
HAND = HandPose(Side.RIGHT, TURN, np.array([0.35, 0.02, -0.35]), BENT, 0.088)


def camera(name: str, yaw: float, place_m, lens: Camera = LENS) -> RigCamera:
    turn = exp_rotation(np.array([0, yaw, 0])).T
    return RigCamera(name, 640, 480, lens, turn, -turn @ np.array(place_m))


def seen(place: RigCamera, rng) -> list[HandKeypoints]:
    """The hand as a perfect KeyNet would give it, with a pixel of noise; nothing where it is not in the image."""
    points = place.from_rig(HAND.points())
    pixels = place.camera.project(points)
    if not np.isfinite(pixels).all() or (pixels < 0).any() or (pixels > 640).any():
        return []
    depth = (points[:, 2] - points[9, 2]) / HAND.palm_m
    pixels = pixels + rng.normal(0, 1, pixels.shape)
    return [HandKeypoints(1, box_around(pixels), Source.PROPAGATED, pixels, np.full(21, 0.9), depth, 1.0, 0.99)]


def tracker_of(rig: Rig, look) -> RigTracker:
    """A tracker whose cameras see what ``look(index)`` says, instead of what the networks find in an image."""
    tracker = RigTracker(rig, TrackerConfig(track=TrackConfig(max_hands=1)))
    tracker._pool, tracker._look = None, lambda index, frame: look(index)
    return tracker


def frames(count: int, k: int) -> list[Frame]:
    return [Frame(np.zeros((480, 640), np.uint8), k / 30)] * count


def test_a_hand_behind_the_first_camera_is_measured_and_lives_through_a_missed_frame():
    rig = Rig((camera("front", 0, [0, 0, 0]), camera("a", 2.2, [0, 0, 0]), camera("b", 2.6, [0.1, 0, 0.1])))
    rng, missed = np.random.default_rng(0), False
    tracker = tracker_of(rig, lambda index: [] if missed else seen(rig.cameras[index], rng))
    for k in range(40):
        missed = k == 30
        (hand,) = tracker.step(frames(3, k))
        assert hand.id == 1 and np.linalg.norm(hand.points_3d - HAND.points(), axis=1).mean() < 0.02
        assert np.isnan(hand.keypoints_px).all() and hand.box == NOWHERE
        assert (hand.source == Source.PREDICTED) == missed


def test_a_new_hand_partly_beyond_the_reach_of_the_only_lens_that_sees_it_waits():
    """Its palm has pixels, but the lens has no rays for them: no pose yet, and no error."""
    lens = Camera(400, 400, 320, 240, "plumb_bob", (-0.27, 0.08, 0.0, 0.0, -0.01))
    rig = Rig((camera("front", 0, [0, 0, 0]), camera("a", 2.4, [0, 0, 0], lens)))
    beyond = np.column_stack([np.linspace(1390, 1420, 21), np.linspace(200, 300, 21)])
    assert np.isnan(lens.rays(beyond)).all(axis=1).any()
    ghost = HandKeypoints(
        1, box_around(beyond), Source.PROPAGATED, beyond, np.full(21, 0.9), np.zeros(21), 1.0, 0.99
    )  # fmt: skip
    tracker = tracker_of(rig, lambda index: [ghost] if index == 1 else [])
    for k in range(5):
        for hand in tracker.step(frames(2, k)):
            assert hand.pose is None and np.isnan(hand.keypoints_px).all()
        assert tracker._hands  # it is known, and waited for


def test_the_camera_that_disagrees_is_blamed_also_where_cameras_share_a_lens():
    """Three cameras with one lens, the second of which sees nothing."""
    places = (camera("a", 2.2, [0, 0, 0]), camera("b", 2.4, [0, 0, 0]), camera("c", 2.6, [0.1, 0, 0.1]))
    rig, rng = Rig(places), np.random.default_rng(0)
    tracker = tracker_of(rig, lambda index: [] if index == 1 else seen(rig.cameras[index], rng))
    for k in range(10):
        tracker.step(frames(3, k))
    assert np.isfinite(tracker.disagreement[[0, 2]]).all() and np.isnan(tracker.disagreement[1])
    assert tracker.disagreement[[0, 2]].max() == pytest.approx(0.02, abs=0.03)
