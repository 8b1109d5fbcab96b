"""Pose reconstruction: exact keypoints give the pose back, noisy ones a hand nearby, wrong ones are outvoted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hand_tracking_ros.fitting import (
    DOF,
    FINGERS,
    SIZE,
    STEP,
    FitConfig,
    HandView,
    PosePrior,
    difference,
    first_pose,
    fit_hand,
    stepped,
)
from hand_tracking_ros.kinematics import LIMITS, NUM_ANGLES, HandPose, exp_rotation
from hand_tracking_ros.skeleton import Side
from hand_tracking_ros.types import Camera

PINHOLE = Camera(500, 500, 320, 240)
FISHEYE = Camera(260, 260, 320, 240, "fisheye", (0.02, -0.005, 0.0, 0.0))
BENT = np.tile([0.5, 0.0, 0.6, 0.36], 5)
BENT[:4] = (0.15, 0.05, 0.2, 0.2)


def pose_at(side=Side.RIGHT, turn=(0.3, -0.4, 0.2), place=(0.05, 0.02, 0.45), angles=BENT, palm_m=0.088) -> HandPose:
    return HandPose(side, exp_rotation(np.array(turn)), np.array(place), np.array(angles), palm_m)


def view_of(pose: HandPose, camera=PINHOLE, rotation=None, shift=None, noise_px=0.0, seed=0) -> HandView:
    rotation = np.eye(3) if rotation is None else rotation
    shift = np.zeros(3) if shift is None else shift
    points = pose.points() @ rotation.T + shift
    noise = np.random.default_rng(seed).normal(0, noise_px, (21, 2)) if noise_px else 0.0
    depth = (points[:, 2] - points[9, 2]) / pose.palm_m
    return HandView(camera, camera.project(points) + noise, np.full(21, 0.9), depth, None, rotation, shift)


def second_camera(distance_m=0.45, angle=0.5):
    rotation = exp_rotation(np.array([0.0, angle, 0.0]))
    return rotation, np.array([0, 0, distance_m]) - rotation @ np.array([0, 0, distance_m])


def error_mm(found: HandPose, truth: HandPose) -> float:
    return 1000 * float(np.linalg.norm(found.points() - truth.points(), axis=1).mean())


@pytest.mark.parametrize("side", [Side.LEFT, Side.RIGHT])
@pytest.mark.parametrize("camera", [PINHOLE, FISHEYE], ids=["pinhole", "fisheye"])
@pytest.mark.parametrize("turn", [(0.3, -0.4, 0.2), (0.2, 2.8, 0.4), (1.2, 0.1, -0.5), (-0.9, 0.3, 2.5)])
def test_exact_keypoints_of_one_camera_and_a_known_size_give_the_pose(side, camera, turn):
    truth = pose_at(side, turn)
    fit = first_pose([view_of(truth, camera)], side, truth.palm_m)
    assert error_mm(fit.pose, truth) < 12
    assert np.nanmean(fit.errors_px[0]) < 1.5


def test_two_cameras_find_the_place_and_the_size():
    truth = pose_at(palm_m=0.075)
    views = [view_of(truth), view_of(truth, PINHOLE, *second_camera())]
    start = first_pose(views, Side.RIGHT, 0.088)
    fit = fit_hand(views, start.pose, free_size=True)
    assert fit.pose.palm_m == pytest.approx(0.075, rel=0.02)
    assert error_mm(fit.pose, truth) < 3
    kept = fit_hand(views, start.pose)
    assert kept.pose.palm_m == 0.088  # the size stays where it is not asked for


def test_two_cameras_are_believed_about_an_unusual_fingertip():
    """One camera must leave room for fingers of other lengths; two say where the tip is."""
    unusual = BENT.copy()
    unusual[4:8] = (0.3, 0.2, 1.2, -0.1)  # a last joint that does not follow the middle one
    truth = pose_at(angles=unusual)
    one, other = view_of(truth), view_of(truth, PINHOLE, *second_camera())
    both = first_pose([one, other], Side.RIGHT, truth.palm_m)
    assert both.errors_px[0][8] < 2 and both.errors_px[1][8] < 4
    doubting = FitConfig(together=FitConfig().alone)
    assert first_pose([one, other], Side.RIGHT, truth.palm_m, config=doubting).errors_px[1][8] > 4


def test_a_depth_image_finds_the_size_too():
    truth = pose_at(palm_m=0.1)
    view = replace(view_of(truth), depth_m=truth.points()[:, 2].copy())
    fit = fit_hand([view], first_pose([view], Side.RIGHT, 0.088).pose, free_size=True)
    assert fit.pose.palm_m == pytest.approx(0.1, rel=0.02) and error_mm(fit.pose, truth) < 4


def test_noise_in_keypoints_stays_small_in_the_pose():
    truth = pose_at()
    errors = []
    for seed in range(5):
        views = [view_of(truth, noise_px=2, seed=seed), view_of(truth, PINHOLE, *second_camera(), 2, seed + 50)]
        errors.append(error_mm(first_pose(views, Side.RIGHT, truth.palm_m).pose, truth))
    assert np.mean(errors) < 5


def test_a_keypoint_far_off_is_outvoted():
    truth = pose_at()
    views = [view_of(truth), view_of(truth, PINHOLE, *second_camera())]
    wrong = views[0].keypoints_px.copy()
    wrong[8] += (60, -40)
    views[0] = replace(views[0], keypoints_px=wrong)
    fit = first_pose(views, Side.RIGHT, truth.palm_m)
    assert error_mm(fit.pose, truth) < 6
    assert fit.errors_px[0][8] > 40  # and it can be told


def test_missing_keypoints_are_filled_in_by_the_hand():
    truth = pose_at()
    view = view_of(truth)
    missing = view.keypoints_px.copy()
    missing[[7, 8, 20]] = np.nan
    fit = fit_hand([replace(view, keypoints_px=missing)], first_pose([view], Side.RIGHT, truth.palm_m).pose)
    assert error_mm(fit.pose, truth) < 15 and np.isnan(fit.errors_px[0][[7, 8, 20]]).all()


def test_joints_stay_within_their_limits():
    impossible = BENT.copy()
    impossible[4:8] = (-1.2, 0.9, -0.8, -0.9)  # an index finger bent backwards and sideways
    fit = first_pose([view_of(pose_at(angles=impossible))], Side.RIGHT, 0.088)
    assert (fit.pose.angles > LIMITS[:, 0] - 0.11).all() and (fit.pose.angles < LIMITS[:, 1] + 0.11).all()


def test_a_prior_holds_what_is_not_seen():
    truth = pose_at()
    expected = replace(truth, angles=truth.angles + np.where(np.arange(NUM_ANGLES) // 4 == 4, 0.4, 0.0))
    hidden = view_of(truth)
    hidden = replace(hidden, scores=np.where(np.arange(21) >= 17, 0.0, 0.9))  # the little finger, unseen
    information = np.eye(STEP) * 1000.0
    fit = fit_hand([hidden], truth, PosePrior(expected, information))
    np.testing.assert_allclose(fit.pose.angles[16:20], expected.angles[16:20], atol=0.12)
    np.testing.assert_allclose(fit.pose.angles[4:16], truth.angles[4:16], atol=0.12)


def test_information_is_the_curvature_of_the_cost():
    truth = pose_at()
    view = view_of(truth, noise_px=1.0)
    fit = fit_hand([view], truth)
    known = fit.information[:SIZE, :SIZE]  # one camera says nothing about the size
    assert fit.information.shape == (STEP, STEP) and np.linalg.eigvalsh(known)[0] > 0.1
    worse = stepped(fit.pose, np.concatenate([[0.05], np.zeros(STEP - 1)]))
    moved = fit_hand([view], worse)
    assert moved.cost == pytest.approx(fit.cost, rel=0.05)  # and it is a minimum that is found again


def test_steps_and_differences_are_inverse():
    base = pose_at()
    step = np.random.default_rng(0).normal(0, 0.05, STEP)
    step[FINGERS], step[SIZE] = 0.05, -0.04
    np.testing.assert_allclose(difference(stepped(base, step), base), step, atol=1e-9)
    assert DOF == 26


def test_nothing_seen_is_an_error():
    view = replace(view_of(pose_at()), keypoints_px=np.full((21, 2), np.nan))
    with pytest.raises(ValueError, match="no view has a finite keypoint"):
        fit_hand([view], pose_at())
    with pytest.raises(ValueError, match="no view has all keypoints of the palm"):
        first_pose([view], Side.RIGHT, 0.088)
