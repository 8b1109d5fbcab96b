"""The kinematic hand: geometry that stays a hand, derivatives that are right, left and right as mirror images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hand_tracking_ros.kinematics import (
    ANGLE_NAMES,
    BONES,
    FLAT_HAND,
    LIMITS,
    MEAN_HAND,
    NUM_ANGLES,
    HandPose,
    KinematicHand,
    exp_rotation,
    log_rotation,
)
from hand_tracking_ros.lifting import PALM_RATIOS
from hand_tracking_ros.skeleton import PALM_PAIRS, Side

PARENTS, CHILDREN = np.array(BONES).T
vectors = st.lists(st.floats(-3, 3), min_size=3, max_size=3).map(np.array)


def some_angles(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(LIMITS[:, 0], LIMITS[:, 1])


def angle(name: str, degrees: float) -> np.ndarray:
    angles = np.zeros(NUM_ANGLES)
    angles[ANGLE_NAMES.index(name)] = np.radians(degrees)
    return angles


def test_the_flat_hand_is_the_template_and_has_the_palm_of_the_rest_of_the_package():
    np.testing.assert_allclose(MEAN_HAND.forward(np.zeros(NUM_ANGLES)), FLAT_HAND, atol=1e-12)
    for (a, b), ratio in zip(PALM_PAIRS[:4], PALM_RATIOS):  # the flat palm is wider than one in use, which is hollow
        assert np.linalg.norm(FLAT_HAND[a] - FLAT_HAND[b]) == pytest.approx(ratio, abs=0.02)


@pytest.mark.parametrize("seed", range(5))
def test_bones_keep_their_length_whatever_the_pose(seed):
    points = MEAN_HAND.forward(some_angles(seed))
    flat = np.linalg.norm(FLAT_HAND[CHILDREN] - FLAT_HAND[PARENTS], axis=1)
    np.testing.assert_allclose(np.linalg.norm(points[CHILDREN] - points[PARENTS], axis=1), flat, atol=1e-12)


def test_bone_ratios_and_finger_ratio_change_what_they_name():
    ratios = np.ones(20)
    ratios[BONES.index((5, 6))] = 1.2
    angles = some_angles(7)
    plain, longer = MEAN_HAND.forward(angles), KinematicHand(ratios).forward(angles)
    assert np.linalg.norm(longer[6] - longer[5]) == pytest.approx(1.2 * np.linalg.norm(plain[6] - plain[5]))
    np.testing.assert_allclose(longer[[0, 5, 9, 12, 20]], plain[[0, 5, 9, 12, 20]], atol=1e-12)
    short = MEAN_HAND.forward(angles, finger_ratio=0.8)
    np.testing.assert_allclose(short[[1, 5, 9, 13, 17]], plain[[1, 5, 9, 13, 17]], atol=1e-12)
    assert np.linalg.norm(short[8] - short[7]) == pytest.approx(0.8 * np.linalg.norm(plain[8] - plain[7]))


@pytest.mark.parametrize("wrong", [np.ones(19), np.full(20, np.nan), np.full(20, 3.0)])
def test_bones_that_are_no_hand_are_refused(wrong):
    with pytest.raises(ValueError, match="20 numbers between 0.5 and 2"):
        KinematicHand(wrong)


def test_flexion_bends_towards_the_palm_and_abduction_leads_towards_the_thumb():
    for finger, tip in (("index", 8), ("middle", 12), ("ring", 16), ("little", 20)):
        for joint in ("flexion", "middle_flexion", "tip_flexion"):
            bent = MEAN_HAND.forward(angle(f"{finger}_{joint}", 30)) - FLAT_HAND
            assert bent[tip, 2] < -0.05, joint  # out of the back is +z
        assert (MEAN_HAND.forward(angle(f"{finger}_abduction", 15)) - FLAT_HAND)[tip, 0] > 0.05
    assert (MEAN_HAND.forward(angle("thumb_flexion", 30)) - FLAT_HAND)[4, 0] < -0.1  # across the palm


@pytest.mark.parametrize("seed", range(6))
def test_the_jacobian_is_the_derivative(seed):
    angles, ratio, step = some_angles(seed), 0.9, 1e-6
    points, jacobian = MEAN_HAND.jacobian(angles, ratio)
    np.testing.assert_allclose(points, MEAN_HAND.forward(angles, ratio))
    for k in range(NUM_ANGLES):
        change = step * np.eye(NUM_ANGLES)[k]
        slope = (MEAN_HAND.forward(angles + change, ratio) - MEAN_HAND.forward(angles - change, ratio)) / (2 * step)
        np.testing.assert_allclose(jacobian[..., k], slope, atol=1e-7)
    slope = MEAN_HAND.forward(angles, ratio * np.exp(step)) - MEAN_HAND.forward(angles, ratio * np.exp(-step))
    np.testing.assert_allclose(jacobian[..., NUM_ANGLES], slope / (2 * step), atol=1e-7)


@pytest.mark.parametrize("side", [Side.LEFT, Side.RIGHT])
def test_orientations_are_proper_and_follow_the_bones(side):
    rotation = exp_rotation(np.array([0.4, -1.1, 0.7]))
    pose = HandPose(side, rotation, np.array([0.1, 0.0, 0.5]), some_angles(3), 0.09)
    points, frames = pose.points(), pose.frames()
    np.testing.assert_allclose(frames @ frames.transpose(0, 2, 1), np.tile(np.eye(3), (21, 1, 1)), atol=1e-9)
    np.testing.assert_allclose(np.linalg.det(frames), 1.0)
    np.testing.assert_allclose(frames[0], rotation, atol=1e-12)
    for parent, child in BONES:
        if parent not in (0, 1) or child == 2:
            along = (points[child] - points[parent]) / np.linalg.norm(points[child] - points[parent])
            np.testing.assert_allclose(-frames[parent][:, 1], along, atol=1e-9)


def test_a_left_hand_is_the_mirror_image_of_a_right_one():
    right = HandPose(Side.RIGHT, np.eye(3), np.zeros(3), some_angles(1), 0.088)
    left = HandPose(Side.LEFT, np.eye(3), np.zeros(3), some_angles(1), 0.088)
    np.testing.assert_allclose(left.points(), right.points() * (-1, 1, 1), atol=1e-12)
    assert np.linalg.norm(right.points()[9]) == pytest.approx(0.088, rel=1e-3)


def test_a_pose_in_another_frame_has_its_points_there():
    pose = HandPose(Side.LEFT, exp_rotation(np.array([0.1, 0.2, 0.3])), np.array([0.1, 0.2, 0.6]), some_angles(2), 0.08)
    rotation, shift = exp_rotation(np.array([-0.5, 0.1, 0.9])), np.array([0.3, -0.1, 0.2])
    np.testing.assert_allclose(pose.moved(rotation, shift).points(), pose.points() @ rotation.T + shift, atol=1e-12)


@settings(max_examples=200)
@given(vectors)
def test_rotation_vectors_come_back(vector):
    length = np.linalg.norm(vector)
    rotation = exp_rotation(vector)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1.0)
    if length < np.pi - 1e-3:
        np.testing.assert_allclose(log_rotation(rotation), vector, atol=1e-7)
    np.testing.assert_allclose(exp_rotation(log_rotation(rotation)), rotation, atol=1e-6)


def test_half_a_turn_has_a_rotation_vector():
    for axis in (np.array([1.0, 0, 0]), np.array([0, 0.6, -0.8])):
        rotation = exp_rotation(np.pi * axis)
        np.testing.assert_allclose(exp_rotation(log_rotation(rotation)), rotation, atol=1e-6)
