"""Poses over time: steady at rest, quick in motion, through gaps; the size of the hand is learned and kept."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hand_tracking_ros.config import FilterConfig, PoseConfig
from hand_tracking_ros.fitting import HandView
from hand_tracking_ros.hand_size import HandSize
from hand_tracking_ros.kinematics import HandPose, exp_rotation, log_rotation
from hand_tracking_ros.posing import HandPoser, PoseFilter
from hand_tracking_ros.skeleton import Side
from hand_tracking_ros.types import Camera

CAMERA = Camera(500, 500, 320, 240)
BENT = np.tile([0.4, 0.0, 0.5, 0.3], 5)
FPS = 30


def pose_at(t: float, speed=0.0, spin=0.0) -> HandPose:
    turn = exp_rotation(np.array([0.0, 0.0, spin * t])) @ exp_rotation(np.array([0.3, -0.3, 0.1]))
    return HandPose(Side.RIGHT, turn, np.array([speed * t, 0.02, 0.45]), BENT, 0.088)


def seen(pose: HandPose, rng, noise_px=1.5, rotation=None, shift=None) -> HandView:
    rotation, shift = np.eye(3) if rotation is None else rotation, np.zeros(3) if shift is None else shift
    points = pose.points() @ rotation.T + shift
    px = CAMERA.project(points) + rng.normal(0, noise_px, (21, 2))
    depth = (points[:, 2] - points[9, 2]) / pose.palm_m + rng.normal(0, 0.1, 21)
    return HandView(CAMERA, px, np.full(21, 0.8), depth, None, rotation, shift)


def poser(kind="one_euro", **pose) -> HandPoser:
    return HandPoser(PoseConfig(**pose), FilterConfig(kind=kind), max_gap_s=0.5)


def spread_mm(poses: list[HandPose]) -> float:
    points = np.stack([pose.points() for pose in poses])
    return 1000 * float(np.linalg.norm(points - points.mean(axis=0), axis=-1).mean())


def test_a_resting_hand_rests():
    rng = np.random.default_rng(0)
    steady, raw = poser(), []
    filtered = []
    for frame in range(60):
        assert steady.fit(1, Side.RIGHT, [seen(pose_at(0), rng)], frame / FPS)
        raw.append(steady.raw(1).pose)
        filtered.append(steady.pose(1, frame / FPS))
    assert spread_mm(filtered[20:]) < 0.6 * spread_mm(raw[20:])
    assert np.linalg.norm(filtered[-1].points() - pose_at(0).points(), axis=1).mean() < 0.012


@pytest.mark.parametrize(("speed", "spin"), [(0.8, 0.0), (0.0, 3.0)])
def test_a_moving_hand_is_followed(speed, spin):
    rng = np.random.default_rng(1)
    follow = poser()
    for frame in range(20):
        follow.fit(1, Side.RIGHT, [seen(pose_at(frame / FPS, speed, spin), rng)], frame / FPS)
    truth, found = pose_at(19 / FPS, speed, spin), follow.pose(1, 19 / FPS)
    assert abs(found.position_m[0] - truth.position_m[0]) < 0.012
    assert np.linalg.norm(log_rotation(found.rotation @ truth.rotation.T)) < 0.25
    ahead = follow.pose(1, 20 / FPS)  # prediction leads on
    assert (ahead.position_m[0] - found.position_m[0]) * FPS == pytest.approx(speed, abs=0.2)
    velocity = follow.velocities(1, 19 / FPS, found.points())
    if speed:
        assert velocity[:, 0].mean() == pytest.approx(speed, rel=0.25)


def test_a_fit_is_led_on_once_the_hand_has_been_followed_for_a_while():
    rng = np.random.default_rng(1)
    follow = poser(lead=1.0)
    for frame in range(20):
        assert follow.expected(1, frame / FPS) is None if frame <= 3 else follow.expected(1, frame / FPS) is not None
        follow.fit(1, Side.RIGHT, [seen(pose_at(frame / FPS, speed=1.2), rng)], frame / FPS)
    gap_m, lag_m = (
        np.linalg.norm(pose.points() - pose_at(20 / FPS, speed=1.2).points(), axis=1).mean()
        for pose in (follow.expected(1, 20 / FPS), follow.raw(1).pose)
    )
    assert gap_m < 0.015 and lag_m > 0.03  # 40 mm further on
    assert follow.expected(2, 20 / FPS) is None


def test_turns_are_filtered_through_more_than_a_full_turn():
    """Rotation vectors jump at half a turn; the filter must not."""
    turning = PoseFilter(FilterConfig(), 0.5)
    worst = 0.0
    for frame in range(90):
        truth = pose_at(frame / FPS, spin=4.0)
        turning.update(truth, frame / FPS)
        worst = max(
            worst, float(np.linalg.norm(log_rotation(turning.predict(frame / FPS).rotation @ truth.rotation.T)))
        )
    assert worst < 0.3


def test_without_a_filter_the_fit_comes_out():
    through = poser("none")
    rng = np.random.default_rng(2)
    for frame in range(5):
        through.fit(1, Side.RIGHT, [seen(pose_at(0), rng)], frame / FPS)
    np.testing.assert_allclose(through.pose(1, 4 / FPS).points(), through.raw(1).pose.points(), atol=1e-9)


def test_a_size_is_learned_from_two_cameras_and_then_serves_one():
    rng = np.random.default_rng(3)
    truth = replace(pose_at(0), palm_m=0.078)
    rotation = exp_rotation(np.array([0.0, 0.5, 0.0]))
    shift = np.array([0, 0, 0.45]) - rotation @ np.array([0, 0, 0.45])
    learning = poser()
    assert not learning.size.is_measured
    for frame in range(40):
        views = [seen(truth, rng), seen(truth, rng, rotation=rotation, shift=shift)]
        learning.fit(1, Side.RIGHT, views, frame / FPS)
    assert learning.size.is_measured and learning.size.palm_m == pytest.approx(0.078, rel=0.04)
    for frame in range(40, 70):
        learning.fit(1, Side.RIGHT, [seen(truth, rng)], frame / FPS)
    distance = learning.pose(1, 69 / FPS).position_m[2]
    assert distance == pytest.approx(0.45, rel=0.06)


def test_a_hand_that_was_away_starts_afresh_and_forgotten_hands_are_gone():
    rng = np.random.default_rng(4)
    hands = HandPoser(PoseConfig(), FilterConfig(), 0.5, HandSize(0.088, 0.001))
    hands.fit(1, Side.RIGHT, [seen(pose_at(0), rng)], 0.0)
    far = replace(pose_at(0), position_m=np.array([-0.15, 0.0, 0.9]))
    hands.fit(1, Side.RIGHT, [seen(far, rng)], 2.0)
    assert hands.pose(1, 2.0).position_m[2] == pytest.approx(0.9, rel=0.15)
    hands.forget(set())
    assert hands.pose(1, 2.0) is None and hands.raw(1) is None


def test_a_hand_that_jumps_is_fitted_afresh():
    """A track may go on with another hand, elsewhere: the old pose must not hold the new one back."""
    rng = np.random.default_rng(5)
    hands = HandPoser(PoseConfig(), FilterConfig(), 0.5, HandSize(0.088, 0.001))
    for frame in range(10):
        hands.fit(1, Side.RIGHT, [seen(pose_at(0), rng)], frame / FPS)
    elsewhere = replace(pose_at(0, spin=1), position_m=np.array([-0.25, 0.1, 0.7]))
    elsewhere = replace(elsewhere, rotation=exp_rotation(np.array([0.0, 0.0, 2.5])) @ elsewhere.rotation)
    for frame in range(10, 13):
        hands.fit(1, Side.RIGHT, [seen(elsewhere, rng)], frame / FPS)
    found = hands.pose(1, 12 / FPS)
    assert np.linalg.norm(found.points() - elsewhere.points(), axis=1).mean() < 0.06


def test_a_view_that_shows_nothing_changes_nothing():
    hands = poser()
    nothing = HandView(CAMERA, np.full((21, 2), np.nan), np.zeros(21), np.full(21, np.nan))
    assert not hands.fit(1, Side.RIGHT, [nothing], 0.0)
    assert hands.pose(1, 0.0) is None
