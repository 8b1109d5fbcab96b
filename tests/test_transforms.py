"""Chains of transforms between frames: values, and what is said while they cannot be had."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from hand_tracking_ros.errors import TransformError
from hand_tracking_ros.outputs.frames import quaternions
from hand_tracking_ros.transforms import FrameTree, transform

HALF = np.sqrt(0.5)
OPTICAL = (-0.5, 0.5, -0.5, 0.5)  # the turn of an optical frame (z forward) in its camera's frame (x forward), REP 103


def tree(*links) -> FrameTree:
    made = FrameTree()
    for parent, child, translation, quaternion in links:
        made.state(parent, child, transform(translation, quaternion))
    return made


def at(T: np.ndarray, *point: float) -> list[float]:
    return (T @ [*point, 1.0])[:3].tolist()


def test_a_transform_turns_then_shifts():
    T = transform((1.0, 2.0, 3.0), (0.0, 0.0, 2.0, 2.0))  # a quarter turn about z, not normalised
    assert at(T, 1.0, 0.0, 0.0) == pytest.approx([1.0, 3.0, 3.0])


def test_a_chain_leads_up_and_down_and_back():
    """Two cameras on a head on a robot: what the left one has 1 m ahead, the right one has too, 0.2 m to its left."""
    frames = tree(
        ("base_link", "head", (0.0, 0.0, 1.5), (0.0, 0.0, HALF, HALF)),  # it looks to the robot's left
        ("head", "left", (0.1, 0.1, 0.0), (0.0, 0.0, 0.0, 1.0)),
        ("head", "right", (0.1, -0.1, 0.0), (0.0, 0.0, 0.0, 1.0)),
        ("left", "left_optical", (0.0, 0.0, 0.0), OPTICAL),
        ("right", "right_optical", (0.0, 0.0, 0.0), OPTICAL),
    )
    assert at(frames.T_dst_from_src("right_optical", "left_optical"), 0.0, 0.0, 1.0) == pytest.approx([-0.2, 0.0, 1.0])
    assert at(frames.T_dst_from_src("base_link", "left_optical"), 0.0, 0.0, 1.0) == pytest.approx([-0.1, 1.1, 1.5])
    there, back = (frames.T_dst_from_src(*pair) for pair in (("head", "right_optical"), ("right_optical", "head")))
    np.testing.assert_allclose(there @ back, np.eye(4), atol=1e-12)
    np.testing.assert_array_equal(frames.T_dst_from_src("head", "head"), np.eye(4))
    assert frames.frames == ["base_link", "head", "left", "left_optical", "right", "right_optical"]


def test_random_chains_agree_with_products_of_matrices():
    rng, T_root_from_frame, frames = np.random.default_rng(0), [np.eye(4)], FrameTree()
    for child in range(1, 12):
        parent = int(rng.integers(child))
        rotation, translation = cv2.Rodrigues(rng.normal(size=3))[0], rng.normal(size=3)
        T = np.block([[rotation, translation[:, None]], [np.zeros((1, 3)), 1.0]])
        frames.state(f"f{parent}", f"f{child}", transform(translation, quaternions(rotation)))
        T_root_from_frame.append(T_root_from_frame[parent] @ T)
    for dst in range(12):
        for src in range(12):
            wanted = np.linalg.inv(T_root_from_frame[dst]) @ T_root_from_frame[src]
            np.testing.assert_allclose(frames.T_dst_from_src(f"f{dst}", f"f{src}"), wanted, atol=1e-12)


def test_a_frame_that_is_not_known_is_named_with_those_that_are():
    frames = tree(("base", "eye", (0, 0, 0), (0, 0, 0, 1)))
    for pair in (("eye", "cam1"), ("cam1", "eye")):
        with pytest.raises(TransformError, match="frame 'cam1' is not in tf; known: base, eye"):
            frames.T_dst_from_src(*pair)
    with pytest.raises(TransformError, match="frame 'cam1' is not in tf; known: none so far"):
        FrameTree().T_dst_from_src("cam1", "eye")
    np.testing.assert_array_equal(FrameTree().T_dst_from_src("eye", "eye"), np.eye(4))  # that much is known without tf


def test_a_missing_link_is_told_by_the_roots_that_it_would_join():
    still = ((0, 0, 0), (0, 0, 0, 1))
    frames = tree(("base", "arm", *still), ("arm", "eye", *still), ("stand", "cam1", *still))
    message = "no chain of transforms joins 'eye' and 'cam1': one hangs below 'base', the other below 'stand'"
    with pytest.raises(TransformError, match=message + ".* known: arm, base, cam1, eye, stand"):
        frames.T_dst_from_src("eye", "cam1")
    frames.state("base", "stand", transform((0, 0, 1), (0, 0, 0, 1)))
    assert at(frames.T_dst_from_src("eye", "cam1"), 0, 0, 0) == [0, 0, 1]


def test_frames_in_a_circle_are_named():
    still = ((0, 0, 0), (0, 0, 0, 1))
    frames = tree(("a", "b", *still), ("b", "c", *still), ("c", "a", *still), ("a", "eye", *still))
    with pytest.raises(TransformError, match="in a circle: eye below a below c below b below a"):
        frames.T_dst_from_src("eye", "b")


def test_what_is_stated_last_counts_and_moving_links_are_known():
    frames = FrameTree()
    for parent, child, x, moves in (
        ("base", "neck", 1, True),
        ("neck", "eye", 1, False),
        ("base", "arm", 1, True),
        ("base", "neck", 2, True),
    ):
        frames.state(parent, child, transform((x, 0, 0), (0, 0, 0, 1)), moves)
    assert at(frames.T_dst_from_src("base", "eye"), 0, 0, 0) == [3, 0, 0]
    assert frames.links_between("base", "eye") == {"neck": True, "eye": False}
    frames.state("base", "eye", transform((5, 0, 0), (0, 0, 0, 1)))  # it hangs elsewhere now
    assert at(frames.T_dst_from_src("base", "eye"), 0, 0, 0) == [5, 0, 0]
    assert frames.links_between("base", "eye") == {"eye": False}


@pytest.mark.parametrize(
    ("translation", "quaternion", "message"),
    [
        ((0.0, np.nan, 0.0), (0, 0, 0, 1), "not a translation"),
        ((0.0, 0.0, 0.0), (0, 0, 0, 0), "not a rotation: quaternion"),
        ((0.0, 0.0, 0.0), (0, 0, np.inf, 1), "not a rotation: quaternion"),
    ],
)
def test_numbers_that_are_no_transform_are_refused(translation, quaternion, message):
    with pytest.raises(TransformError, match=message):
        transform(translation, quaternion)


@pytest.mark.parametrize(("parent", "child"), [("", "eye"), ("base", ""), ("eye", "eye")])
def test_transforms_without_two_frames_are_refused(parent, child):
    with pytest.raises(TransformError, match=f"got '{parent}' and '{child}'"):
        FrameTree().state(parent, child, np.eye(4))
