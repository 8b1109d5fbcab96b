"""How old the images of a camera really are, from computed hands that move before two cameras. No ROS needed."""

from __future__ import annotations

import numpy as np
import pytest

from hand_tracking_ros.camera_lag import RATE_OVER_S, CameraLag, CameraLags, crossing
from hand_tracking_ros.cameras import Camera
from hand_tracking_ros.kinematics import FLAT_HAND
from hand_tracking_ros.rig import RigCamera

TURN = np.array([[np.cos(0.3), 0, -np.sin(0.3)], [0, 1, 0], [np.sin(0.3), 0, np.cos(0.3)]])  # looks at the first's view
PINHOLE, FISHEYE = Camera(580, 580, 320, 240), Camera(300, 300, 320, 240, "fisheye", (0.01, 0.0, 0.0, 0.0))


def hand_m(time_s: float, speed: float = 1.0) -> np.ndarray:
    """Points (21, 3) of a hand that circles half a metre away."""
    angle = 5.0 * speed * time_s
    return 0.09 * FLAT_HAND + [0.1 + 0.08 * np.cos(angle), 0.06 * np.sin(angle), 0.5 + 0.03 * np.sin(0.7 * angle)]


def learned(lag_s: float, camera=PINHOLE, noise_px=0.0, turn=TURN, speed=1.0, seconds=5.0) -> float:
    """The lag that is found when the second camera shows what was ``lag_s`` ago."""
    first = RigCamera("left", 640, 480, camera)
    second = RigCamera("right", 640, 480, camera, turn, turn @ [-0.2, -0.02, 0.0])
    rng, lag = np.random.default_rng(0), CameraLag()
    for time_s in np.arange(0.0, seconds, 1 / 30):
        seen = [c.project(hand_m(t, speed)) for c, t in ((first, time_s), (second, time_s - lag_s))]
        seen = [points + rng.normal(0, noise_px, 2) + rng.normal(0, noise_px, points.shape) for points in seen]
        now, then = hand_m(time_s, speed), hand_m(time_s - RATE_OVER_S, speed)
        lag.take(time_s, *crossing(first, second, *seen, now, then))
    return lag.seconds(seconds)


@pytest.mark.parametrize("camera", [PINHOLE, FISHEYE], ids=["pinhole", "fisheye"])
@pytest.mark.parametrize("lag_s", [-0.033, 0.0, 0.01, 0.1])
def test_the_lag_of_a_camera_is_found_from_a_hand_that_moves(lag_s, camera):
    assert learned(lag_s, camera) == pytest.approx(lag_s, abs=0.001 + 0.02 * abs(lag_s))
    assert learned(lag_s, camera, noise_px=0.005 * camera.fx) == pytest.approx(lag_s, abs=0.004 + 0.02 * abs(lag_s))


def test_a_camera_that_is_turned_off_a_little_has_no_lag():
    """What is constant says nothing of time."""
    off = 0.02
    tilt = np.array([[1, 0, 0], [0, np.cos(off), -np.sin(off)], [0, np.sin(off), np.cos(off)]])
    first, true = RigCamera("left", 640, 480, PINHOLE), RigCamera("right", 640, 480, PINHOLE, TURN, TURN @ [-0.2, 0, 0])
    stated = RigCamera("right", 640, 480, PINHOLE, tilt @ TURN, tilt @ TURN @ [-0.2, 0, 0])
    lag = CameraLag()
    for time_s in np.arange(0.0, 5.0, 1 / 30):
        now, then = hand_m(time_s), hand_m(time_s - RATE_OVER_S)
        angle, rate = crossing(first, stated, first.project(now), true.project(now), now, then)
        assert abs(angle) > 0.01
        lag.take(time_s, angle, rate)
    assert abs(lag.seconds(5.0)) < 0.004


@pytest.mark.parametrize("case", [
    pytest.param({"speed": 0.0, "noise_px": 3.0}, id="a hand at rest"),
    pytest.param({"seconds": 1.5}, id="for too short a time"),
    pytest.param({"speed": 0.1, "noise_px": 8.0}, id="slow motion in much noise"),
])  # fmt: skip
def test_what_motion_does_not_tell_is_not_known(case):
    assert np.isnan(learned(0.033, **case))


def test_some_misread_hands_do_not_matter_and_a_recording_may_start_again():
    lag = CameraLag()
    rates = np.sin(np.arange(150) / 5)
    for k, rate in enumerate(rates):
        lag.take(k / 30, 0.3 if k % 10 == 0 else -0.033 * rate, rate)
    assert lag.seconds(5.0) == pytest.approx(0.033, abs=0.004)
    lag.take(0.0, 0.0, 0.0)
    assert np.isnan(lag.seconds(0.0))


def test_what_is_long_ago_is_forgotten():
    lag = CameraLag()
    for k in range(600):
        rate = np.sin(k / 5)
        lag.take(k / 30, -(0.05 if k < 300 else 0.01) * rate, rate)
    assert lag.seconds(20.0) == pytest.approx(0.01, abs=0.001)


def test_two_hands_tell_as_much_as_one():
    """They are seen at the same stamps."""
    first = RigCamera("left", 640, 480, PINHOLE)
    cameras, lags = [first, RigCamera("right", 640, 480, PINHOLE, TURN, TURN @ [-0.2, -0.02, 0.0])], CameraLags(2)
    for time_s in np.arange(0.0, 5.0, 1 / 30):
        if lags.are_due(time_s):
            for ahead_s in (0.0, 0.7):  # the second hand is elsewhere on the circle
                seen = dict(
                    enumerate(c.project(hand_m(time_s + ahead_s - lag_s)) for c, lag_s in zip(cameras, (0, 0.05)))
                )
                now, then = hand_m(time_s + ahead_s), hand_m(time_s + ahead_s - RATE_OVER_S)
                lags.take(time_s, cameras, seen, now, then)
    assert lags.seconds(5.0)[1] == pytest.approx(0.05, abs=0.002)


def test_a_camera_that_sees_no_hands_any_more_is_forgotten_though_others_go_on():
    lags, waves = [CameraLag(), CameraLag()], np.sin(np.arange(900) / 5)
    for k, rate in enumerate(waves):
        for lag in lags if k < 150 else lags[:1]:
            lag.take(k / 30, -0.05 * rate, rate)
    assert lags[0].seconds(30.0) == pytest.approx(0.05, abs=0.001) and np.isnan(lags[1].seconds(30.0))
    assert lags[1].seconds(6.0) == pytest.approx(0.05, abs=0.001)
    assert np.isnan(lags[0].seconds(0.5))  # a recording that starts again


def test_all_cameras_are_compared_with_the_first_and_forgotten_when_no_hand_comes():
    first = RigCamera("a", 640, 480, PINHOLE)
    cameras = [first, *(RigCamera(name, 640, 480, PINHOLE, TURN, TURN @ [-0.2, -0.02, 0.0]) for name in "bc")]
    lags, delays_s = CameraLags(3), (0.0, 0.05, -0.02)
    for time_s in np.arange(0.0, 5.0, 1 / 30):
        if lags.are_due(time_s):
            seen = {i: camera.project(hand_m(time_s - delays_s[i])) for i, camera in enumerate(cameras)}
            lags.take(time_s, cameras, seen, hand_m(time_s), hand_m(time_s - RATE_OVER_S))
        known = lags.seconds(time_s)
    assert np.isnan(known[0]) and known[1:] == pytest.approx([0.05, -0.02], abs=0.002)
    assert np.isfinite(lags.seconds(8.0)[1:]).all() and np.isnan(lags.seconds(12.0)).all()
