"""Poses over time: steady at rest, quick in motion, through gaps; the size of the hand is learned and kept."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hand_tracking_ros.config import FilterConfig, PoseConfig
from hand_tracking_ros.fitting import HandView
from hand_tracking_ros.hand_size import HandSize
from hand_tracking_ros.kinematics import LIMITS, HandPose, exp_rotation, log_rotation
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
    velocity, _ = follow.velocities(1, 19 / FPS, found, found.points())
    if speed:
        assert velocity[:, 0].mean() == pytest.approx(speed, rel=0.25)


def test_a_finger_that_bends_has_a_velocity():
    own, bending = PoseFilter(FilterConfig(), max_gap_s=0.5), np.zeros(20)
    bending[6] = 2.0  # the middle joint of the index finger, rad/s
    for frame in range(15):
        pose = pose_at(0)
        own.update(replace(pose, angles=pose.angles + bending * frame / FPS), frame / FPS)
    now = own.predict(14 / FPS)
    points, angles = own.velocities(14 / FPS, now, now.points())
    np.testing.assert_allclose(angles, bending, atol=0.3)
    moving = np.linalg.norm(points, axis=1) > 0.01
    assert moving.nonzero()[0].tolist() == [7, 8]  # what lies beyond that joint


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


@pytest.mark.parametrize("degrees", [0, 50, 80, 95, 120, 180])
@pytest.mark.parametrize("kind", ["none", "one_euro", "kalman"])
def test_a_hand_beside_or_behind_the_camera_is_where_it_was_measured(degrees, kind):
    """A rig, and a fisheye, see hands that the first camera's image plane has no place for."""
    turn = exp_rotation(np.radians([0.0, degrees, 0.0]))
    own = PoseFilter(FilterConfig(kind=kind), max_gap_s=0.5)
    for frame in range(20):
        stamp_s = frame / FPS
        own.update(pose_at(stamp_s, speed=0.3).moved(turn, np.zeros(3)), stamp_s)
    found, truth = own.predict(19 / FPS), pose_at(19 / FPS, speed=0.3).moved(turn, np.zeros(3))
    assert np.linalg.norm(found.position_m - truth.position_m) < 0.008
    speed, _ = own.velocities(19 / FPS, found, found.points())
    np.testing.assert_allclose(speed.mean(axis=0), turn @ [0.3, 0, 0], atol=0.03)


def test_a_hand_that_goes_around_the_camera_is_followed_without_a_jump():
    own, last = PoseFilter(FilterConfig(), max_gap_s=0.5), None
    for frame in range(180):
        turn = exp_rotation(np.radians([0.0, 2.0 * frame, 0.0]))
        own.update(pose_at(0).moved(turn, np.zeros(3)), frame / FPS)
        found = own.predict(frame / FPS).position_m
        assert np.linalg.norm(found - turn @ pose_at(0).position_m) < 0.025
        if frame > 10:  # 2 degrees of a circle of 0.45 m are 16 mm
            assert 0.010 < np.linalg.norm(found - last) < 0.022
        last = found


def test_joints_are_published_within_their_limits_also_when_led_on():
    fast = PoseFilter(FilterConfig(kind="none"), max_gap_s=0.5)
    for frame in range(10):
        bend = BENT + 0.12 * frame * (np.arange(20) % 4 == 2)
        fast.update(replace(pose_at(0), angles=bend), frame / FPS)
    for ahead_s in (0.0, 0.1, 0.2):
        angles = fast.predict(9 / FPS + ahead_s).angles
        assert (angles >= LIMITS[:, 0]).all() and (angles <= LIMITS[:, 1]).all()


def test_a_keypoint_to_which_the_lens_has_no_ray_does_not_harm_the_hand():
    """Crops at the border of a lens that distorts have pixels without a ray."""
    lens = Camera(400, 400, 320, 240, "plumb_bob", (-0.27, 0.08, 0.0, 0.0, -0.01))
    assert np.isnan(lens.rays(np.array([[1400.0, 240.0]]))).any()
    own, rng = poser(kind="none"), np.random.default_rng(0)
    for frame in range(60):
        truth = pose_at(frame / FPS, speed=0.1)
        pixels = lens.project(truth.points()) + rng.normal(0, 0.5, (21, 2))
        if frame in (0, 30):
            pixels[8] = (1400.0, 240.0)
        depth = (truth.points()[:, 2] - truth.points()[9, 2]) / truth.palm_m
        assert own.fit(1, Side.RIGHT, [HandView(lens, pixels, np.full(21, 0.9), depth)], frame / FPS)
        gap = np.linalg.norm(own.pose(1, frame / FPS).points() - truth.points(), axis=1)
        assert gap.mean() < 0.012


def test_a_depth_image_without_depth_measures_nothing():
    wide = replace(pose_at(0), palm_m=0.1)
    own, rng = poser(), np.random.default_rng(0)
    for frame in range(200):
        view = seen(wide, rng, noise_px=0.5)
        assert own.fit(1, Side.RIGHT, [replace(view, depth_m=np.full(21, np.nan))], frame / FPS)
    assert own.size.palm_m == 0.088 and not own.size.is_measured


def test_a_repeated_stamp_changes_nothing():
    own, rng = poser(), np.random.default_rng(0)
    for frame in range(15):
        assert own.fit(1, Side.RIGHT, [seen(pose_at(frame / FPS, speed=0.6), rng)], frame / FPS)
    pose = own.pose(1, 14 / FPS)
    before = own.velocities(1, 14 / FPS, pose, pose.points())
    assert own.fit(1, Side.RIGHT, [seen(pose_at(0), rng)], 14 / FPS)
    pose = own.pose(1, 14 / FPS)
    after = own.velocities(1, 14 / FPS, pose, pose.points())
    for own_before, own_after in zip(before, after, strict=True):
        np.testing.assert_array_equal(own_after, own_before)
    assert own.expected(1, 15 / FPS) is not None


def test_the_length_of_a_persons_fingers_is_kept_for_the_next_hand():
    long, rng = replace(pose_at(0), finger_ratio=1.15), np.random.default_rng(0)
    first = poser()
    for frame in range(60):
        first.fit(1, Side.RIGHT, [seen(long, rng, noise_px=0.5)], frame / FPS)
    assert first.size.finger_ratio == pytest.approx(1.15, abs=0.02)
    again = HandPoser(PoseConfig(), FilterConfig(), max_gap_s=0.5, size=first.size)
    again.fit(7, Side.RIGHT, [seen(long, rng, noise_px=0.5)], 100.0)
    assert again.raw(7).pose.finger_ratio == first.size.finger_ratio


def test_fingers_that_somebody_has_measured_keep_their_length():
    rng = np.random.default_rng(0)
    given = HandPoser(PoseConfig(), FilterConfig(), 0.5, HandSize(0.088, 0.015, finger_ratio=1.1, finger_sigma=0.015))
    for frame in range(60):
        given.fit(1, Side.RIGHT, [seen(replace(pose_at(0), finger_ratio=0.95), rng)], frame / FPS)
    assert given.raw(1).pose.finger_ratio == pytest.approx(1.1, abs=0.04) and given.size.finger_ratio == 1.1
