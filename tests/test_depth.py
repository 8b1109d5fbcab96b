"""Depth images: joints get the depth of the hand, not that of what is behind it, and the hand's size follows."""

from __future__ import annotations

import numpy as np
import pytest

from hand_tracking_ros.config import FilterConfig, PoseConfig, TrackConfig
from hand_tracking_ros.depth import HAND_M, SKIN_M, joint_depths
from hand_tracking_ros.geometry import box_around
from hand_tracking_ros.kinematics import HandPose, exp_rotation
from hand_tracking_ros.skeleton import Side
from hand_tracking_ros.smoothing import HandFilter
from hand_tracking_ros.types import Camera, Frame, HandKeypoints, Scale, Source

CAMERA = Camera(500, 500, 320, 240)
BENT = np.tile([0.4, 0.0, 0.5, 0.3], 5)


def hand_and_depth(palm_m=0.1, wall_m=1.2):
    """A posed hand, its pixels, and a depth image: discs of the skin's depth at the joints before a wall."""
    pose = HandPose(Side.RIGHT, exp_rotation(np.array([0.2, -0.3, 0.1])), np.array([0.0, 0.05, 0.5]), BENT, palm_m)
    points, depth = pose.points(), np.full((480, 640), wall_m, np.float32)
    pixels = CAMERA.project(points)
    rows, columns = np.mgrid[:480, :640] + 0.5
    for (x, y), z in sorted(zip(pixels, points[:, 2]), key=lambda pair: -pair[1]):
        depth[(columns - x) ** 2 + (rows - y) ** 2 < 36] = z - SKIN_M
    return pose, pixels, depth


def test_joints_get_the_depth_of_the_hand():
    pose, pixels, depth = hand_and_depth()
    found = joint_depths(depth, pixels)
    assert np.isfinite(found).all()
    assert np.median(np.abs(found - pose.points()[:, 2])) < 0.002


def test_holes_walls_and_joints_outside_are_unknown():
    pose, pixels, depth = hand_and_depth()
    depth[:, :200], pixels[3] = np.nan, (100.0, 100.0)  # a hole in the depth image
    pixels[4], pixels[8] = (-5.0, 10.0), (600.0, 30.0)  # outside; on the wall, far behind the hand
    found = joint_depths(depth, pixels)
    assert np.isnan(found[[3, 4, 8]]).all() and np.isfinite(found[[0, 5, 9, 17]]).all()
    assert np.abs(found - pose.points()[:, 2])[[0, 5, 9, 17]].max() < HAND_M
    assert np.isnan(joint_depths(np.zeros((480, 640), np.float32), pixels)).all()


def test_a_depth_image_measures_the_hand():
    pose, pixels, depth = hand_and_depth(palm_m=0.1)
    hand_filter = HandFilter(FilterConfig(), TrackConfig(), PoseConfig())
    relative = (pose.points()[:, 2] - pose.points()[9, 2]) / pose.palm_m
    for frame in range(20):
        seen = HandKeypoints(
            1, box_around(pixels), Source.DETECTED, pixels.copy(), np.full(21, 0.9), relative, 1.0, 0.99
        )
        views = hand_filter.depth_views([seen], CAMERA, depth)
        (hand,) = hand_filter.apply([seen], frame / 30, CAMERA, views)
    assert hand.scale == Scale.MEASURED
    assert hand_filter.size.palm_m == pytest.approx(0.1, rel=0.04)
    assert np.linalg.norm(hand.points_3d - pose.points(), axis=1).mean() < 0.008
    (alone,) = HandFilter(FilterConfig(), TrackConfig(), PoseConfig()).apply([seen], 0.0, CAMERA)
    assert alone.scale == Scale.ASSUMED and alone.points_3d[9, 2] < 0.92 * pose.points()[9, 2]  # thinks it is smaller


def test_a_depth_image_that_does_not_fit_is_refused():
    image = np.zeros((48, 64), np.uint8)
    with pytest.raises(ValueError, match="align it with the image"):
        Frame(image, 0.0, None, np.zeros((24, 32), np.float32))
    with pytest.raises(ValueError, match="float image in metres"):
        Frame(image, 0.0, None, np.zeros((48, 64), np.uint16))


@pytest.mark.parametrize("wrong", ["wall behind", "nothing, as 65.535 m", "a tenth"])
def test_depth_that_contradicts_the_size_of_the_hand_is_left_out(wrong):
    pose, pixels, depth = hand_and_depth(palm_m=0.088)
    relative = (pose.points()[:, 2] - pose.points()[9, 2]) / pose.palm_m
    seen = HandKeypoints(1, box_around(pixels), Source.DETECTED, pixels, np.full(21, 0.9), relative, 1.0, 0.99)
    hand_filter, away_m = HandFilter(), pose.points()[9, 2]
    bad = {
        "wall behind": np.full_like(depth, 4 * away_m),
        "nothing, as 65.535 m": np.full_like(depth, 65.535),
        "a tenth": depth / 10,
    }[wrong]
    for frame in range(30):
        image = depth if frame < 15 else bad
        (hand,) = hand_filter.apply([seen], frame / 30, CAMERA, hand_filter.depth_views([seen], CAMERA, image))
        assert hand.points_3d[9, 2] == pytest.approx(away_m, rel=0.05)
    assert hand_filter.size.is_measured and hand_filter.size.palm_m == pytest.approx(0.088, rel=0.05)
    assert hand_filter.depths_refused == (0 if wrong.startswith("nothing") else 15)


@pytest.mark.parametrize("palm_m", [0.06, 0.11])
def test_depth_measures_small_and_large_hands_all_the_same(palm_m):
    pose, pixels, depth = hand_and_depth(palm_m=palm_m)
    relative = (pose.points()[:, 2] - pose.points()[9, 2]) / pose.palm_m
    seen = HandKeypoints(1, box_around(pixels), Source.DETECTED, pixels, np.full(21, 0.9), relative, 1.0, 0.99)
    hand_filter = HandFilter()
    for frame in range(25):
        hand_filter.apply([seen], frame / 30, CAMERA, hand_filter.depth_views([seen], CAMERA, depth))
    assert hand_filter.depths_refused == 0
    assert hand_filter.size.palm_m == pytest.approx(palm_m, rel=0.06)
