"""Hands as others take them: frames, OpenXR joints, strengths and gestures, the URDF."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from itertools import groupby

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hand_tracking_ros.cli import main
from hand_tracking_ros.config import GestureConfig, PoseConfig
from hand_tracking_ros.hand_size import HandSize, save_hand_size
from hand_tracking_ros.kinematics import ANGLE_NAMES, LIMITS, HandPose, KinematicHand, exp_rotation
from hand_tracking_ros.outputs import frames, gestures, openxr, urdf
from hand_tracking_ros.outputs.gestures import Gesture, SignReader
from hand_tracking_ros.outputs.openxr import XrJoint, xr_joints
from hand_tracking_ros.paths import config_directory
from hand_tracking_ros.skeleton import FINGERS, JOINT_NAMES, Joint, Side

SIDES = (Side.LEFT, Side.RIGHT)
STRAIGHT, BENT = (0, 0, 0, 0), (80, 0, 95, 55)  # degrees
THUMB_IN, THUMB_UP = (20, 30, 30, 40), (-20, -10, 0, -10)
THUMB_PINCH, INDEX_PINCH = (23, 29, -13, 6), (1, -14, 83, 50)
SHAPES = {
    Gesture.OPEN: (STRAIGHT,) * 5,
    Gesture.FIST: (THUMB_IN, *(BENT,) * 4),
    Gesture.POINT: (THUMB_IN, STRAIGHT, *(BENT,) * 3),
    Gesture.PINCH: (THUMB_PINCH, INDEX_PINCH, *(STRAIGHT,) * 3),
    Gesture.THUMBS_UP: (THUMB_UP, *(BENT,) * 4),
    Gesture.VICTORY: (THUMB_IN, STRAIGHT, STRAIGHT, BENT, BENT),
}


def pose_of(fingers, side: Side = Side.RIGHT, turn=(0.3, -0.8, 0.4)) -> HandPose:
    angles = np.radians(np.concatenate(fingers).astype(float))
    return HandPose(side, exp_rotation(np.array(turn)), np.array([0.1, -0.05, 0.5]), angles, 0.09, 1.1)


def any_pose(rng: np.random.Generator, side: Side) -> HandPose:
    angles = rng.uniform(LIMITS[:, 0], LIMITS[:, 1])
    shape = KinematicHand(rng.uniform(0.8, 1.2, 20))
    return HandPose(side, exp_rotation(rng.normal(size=3)), rng.normal(size=3), angles, 0.08, 1.1, shape)


# Frames


def test_quaternions_are_those_of_the_rotations():
    rng = np.random.default_rng(0)
    turns = [exp_rotation(rng.normal(size=3) * 2) for _ in range(50)]
    turns += [exp_rotation(np.pi * axis) for axis in np.eye(3)] + [np.eye(3)]  # half turns, where w is 0
    values = frames.quaternions(np.array(turns))
    np.testing.assert_allclose(np.linalg.norm(values, axis=1), 1, atol=1e-12)
    assert (values[:, 3] >= -1e-12).all()
    for turn, value in zip(turns, values):
        np.testing.assert_allclose(frames.rotation_of(value), turn, atol=1e-9)
    np.testing.assert_allclose(
        frames.quaternions(exp_rotation(np.array([0, 0, np.pi / 2]))), [0, 0, 0.5**0.5, 0.5**0.5]
    )


def test_a_quaternion_that_is_no_rotation_is_refused():
    for value in ([0, 0, 0, 0], [np.nan, 0, 0, 1]):
        with pytest.raises(ValueError, match="not a rotation"):
            frames.rotation_of(np.array(value, float))


@pytest.mark.parametrize("side", SIDES)
def test_wrist_axes_are_forward_left_up(side):
    pose = pose_of(SHAPES[Gesture.OPEN], side)
    points, axes = pose.points(), frames.wrist_rotation(pose)
    assert np.linalg.det(axes) == pytest.approx(1)
    forward, left, up = axes.T
    to_middle = points[Joint.MIDDLE_MCP] - points[Joint.WRIST]
    assert forward @ to_middle / np.linalg.norm(to_middle) > 0.999
    thumb = points[Joint.THUMB_TIP] - points[Joint.LITTLE_MCP]
    assert (left @ thumb > 0) == (side == Side.RIGHT)
    bent = replace(pose, angles=pose_of(SHAPES[Gesture.FIST]).angles).points()
    assert up @ (bent[Joint.MIDDLE_TIP] - points[Joint.MIDDLE_MCP]) < 0, "fingers bend away from the back"
    np.testing.assert_allclose(frames.palm_position_m(pose), (points[0] + points[9]) / 2)
    np.testing.assert_allclose(frames.hand_rotation(axes), pose.rotation, atol=1e-12)


# OpenXR


def test_xr_joints_are_the_keypoints_in_their_places():
    assert len(openxr.XR_JOINT_NAMES) == 26 and openxr.XR_JOINT_NAMES[25] == "little_tip"
    named = {JOINT_NAMES[k]: openxr.XR_JOINT_NAMES[xr] for k, xr in enumerate(openxr.KEYPOINT_JOINTS)}
    assert named["wrist"] == "wrist"
    assert [named[f"thumb_{joint}"] for joint in ("cmc", "mcp", "ip", "tip")] == [
        "thumb_metacarpal", "thumb_proximal", "thumb_distal", "thumb_tip",
    ]  # fmt: skip
    for finger in ("index", "middle", "ring", "little"):
        expected = [f"{finger}_{joint}" for joint in ("proximal", "intermediate", "distal", "tip")]
        assert [named[f"{finger}_{joint}"] for joint in ("mcp", "pip", "dip", "tip")] == expected
    assert [openxr.XR_JOINT_NAMES[i] for i in openxr.METACARPALS] == [
        f"{finger}_metacarpal" for finger in ("index", "middle", "ring", "little")
    ]


@pytest.mark.parametrize("side", SIDES)
def test_xr_orientations_point_along_the_bones_and_out_of_the_back(side):
    rng = np.random.default_rng(int(side))
    for _ in range(20):
        pose = any_pose(rng, side)
        joints = xr_joints(pose)
        points = pose.points()
        np.testing.assert_allclose(joints.positions_m[openxr.KEYPOINT_JOINTS], points)
        axes = np.array([frames.rotation_of(q) for q in joints.orientations])
        np.testing.assert_allclose(axes @ axes.transpose(0, 2, 1), np.tile(np.eye(3), (26, 1, 1)), atol=1e-9)
        np.testing.assert_allclose(np.linalg.det(axes), 1)
        chains = [[2, 3, 4, 5], *([first, *range(first + 1, first + 5)] for first in (6, 11, 16, 21))]
        for chain in chains:
            bones = np.diff(joints.positions_m[chain], axis=0)
            bones /= np.linalg.norm(bones, axis=1, keepdims=True)
            forward = -axes[chain][:, :, 2]
            np.testing.assert_allclose(forward, np.vstack([bones, bones[-1:]]), atol=1e-6)
        back = pose.rotation[:, 2]
        assert (axes[[XrJoint.PALM, XrJoint.WRIST]][:, :, 1] @ back > 0.999).all()
        assert (axes[openxr.METACARPALS][:, :, 1] @ back > 0.9).all()


@pytest.mark.parametrize("side", SIDES)
def test_xr_axes_of_a_flat_hand(side):
    """-z to the fingertips, +y out of the back, +x to the right with the palm down: to the little finger of a right
    hand, to the thumb of a left one."""
    pose = pose_of(SHAPES[Gesture.OPEN], side)
    joints = xr_joints(pose)
    across = joints.positions_m[XrJoint.INDEX_PROXIMAL] - joints.positions_m[XrJoint.LITTLE_PROXIMAL]
    for joint in (XrJoint.PALM, XrJoint.WRIST, XrJoint.INDEX_PROXIMAL, XrJoint.MIDDLE_DISTAL, XrJoint.RING_TIP):
        axes = frames.rotation_of(joints.orientations[joint])
        assert axes[:, 1] @ pose.rotation[:, 2] > 0.95
        assert (axes[:, 0] @ across > 0) == (side == Side.LEFT)
    # The nail of a bent finger looks forward, out of the back of its last bone.
    fist = pose_of(SHAPES[Gesture.FIST], side)
    first_bend = frames.rotation_of(xr_joints(fist).orientations[XrJoint.MIDDLE_PROXIMAL])[:, 1]
    assert first_bend @ frames.wrist_rotation(fist)[:, 0] > 0.9


def test_xr_palm_metacarpals_and_radii():
    pose = pose_of(SHAPES[Gesture.OPEN])
    joints = xr_joints(pose)
    wrist, middle = joints.positions_m[XrJoint.WRIST], joints.positions_m[XrJoint.MIDDLE_PROXIMAL]
    np.testing.assert_allclose(joints.positions_m[XrJoint.MIDDLE_METACARPAL], wrist + 0.25 * (middle - wrist))
    np.testing.assert_allclose(joints.positions_m[XrJoint.PALM], wrist + 0.625 * (middle - wrist))
    larger = xr_joints(replace(pose, palm_m=0.18))
    np.testing.assert_allclose(larger.radii_m, 2 * joints.radii_m)
    axes = openxr.wrist_axes(frames.rotation_of(joints.orientations[XrJoint.WRIST]))
    np.testing.assert_allclose(axes, frames.wrist_rotation(pose), atol=1e-9)
    assert joints.radii_m.min() > 0.005 and joints.radii_m.max() < 0.025


# Strengths and gestures


@pytest.mark.parametrize("side", SIDES)
def test_strengths(side):
    def signs(fingers):
        return SignReader().read(1, pose_of(fingers, side), 0.0)

    opened, fist, pinch = (signs(SHAPES[g]) for g in (Gesture.OPEN, Gesture.FIST, Gesture.PINCH))
    assert opened.grasp == 0 and fist.grasp == 1 and 0 < pinch.grasp < 0.3
    assert (opened.pinch == 0).all()
    assert pinch.pinch[0] == 1 and pinch.pinch[1:].max() == 0
    points = np.zeros((21, 3))
    points[[8, 12, 16, 20], 0] = [0.25, 0.575, 0.9, 2]
    np.testing.assert_allclose(gestures.pinch_strengths(points, 1.0), [1, 0.5, 0, 0])
    np.testing.assert_allclose(gestures.pinch_strengths(points * 80, 80.0), [1, 0.5, 0, 0])


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("gesture", SHAPES)
def test_gestures_are_named_after_they_held(side, gesture):
    reader = SignReader(GestureConfig(hold_s=0.1))
    pose = pose_of(SHAPES[gesture], side)
    named = [reader.read(3, pose, k * 0.02).gesture for k in range(10)]
    assert named == [Gesture.NONE] * 5 + [gesture] * 5


def test_an_open_hand_is_open_wherever_its_thumb_is():
    reader = SignReader(GestureConfig(hold_s=0.0))
    for k, thumb in enumerate((STRAIGHT, THUMB_UP, THUMB_IN)):
        assert reader.read(1, pose_of((thumb, *(STRAIGHT,) * 4)), k / 60).gesture == Gesture.OPEN


def test_a_half_closed_hand_is_no_gesture():
    reader = SignReader(GestureConfig(hold_s=0.0))
    assert reader.read(1, pose_of((THUMB_IN, STRAIGHT, BENT, STRAIGHT, BENT)), 0.0).gesture == Gesture.NONE


def between(a, b, share: float) -> HandPose:
    return pose_of([np.array(x) * (1 - share) + np.array(y) * share for x, y in zip(a, b)])


@settings(max_examples=12, deadline=None)
@given(
    share=st.floats(0.0, 1.0),
    ends=st.sampled_from(
        [(Gesture.OPEN, Gesture.FIST), (Gesture.FIST, Gesture.THUMBS_UP), (Gesture.OPEN, Gesture.PINCH)]
    ),
    seed=st.integers(0, 1000),
)
@example(share=0.96875, ends=(Gesture.OPEN, Gesture.PINCH), seed=2)
@example(share=0.671875, ends=(Gesture.OPEN, Gesture.PINCH), seed=266)
def test_no_gesture_flickers_wherever_a_noisy_hand_stops(share, ends, seed):
    """Noise of 2 degrees on every joint, at any point between two gestures: a gesture that ended stays away."""
    rng = np.random.default_rng(seed)
    reader = SignReader()
    still = between(SHAPES[ends[0]], SHAPES[ends[1]], share)
    named = []
    for k in range(100):
        noise = np.clip(rng.normal(size=20), -2.5, 2.5)
        named.append(reader.read(1, replace(still, angles=still.angles + np.radians(2) * noise), k / 60).gesture)
    runs = [gesture for gesture, _ in groupby(named[12:])]
    assert len(runs) == len(set(runs))


@pytest.mark.parametrize("curl", [0.5, 0.58, 0.62, 0.7])
def test_a_touch_is_a_pinch_however_bent_the_finger_is_while_the_others_are_straight(curl):
    hand = pose_of(SHAPES[Gesture.PINCH])
    angles = hand.angles.copy()
    angles[[4, 6, 7]] *= curl / gestures.finger_curls(hand.angles)[0]  # the three flexions of the index finger
    signs = SignReader(GestureConfig(hold_s=0.0)).read(1, replace(hand, angles=angles), 0.0)
    assert gestures.finger_curls(angles)[0] == pytest.approx(curl) and signs.pinch[0] > 0.85
    assert signs.gesture == Gesture.PINCH


@pytest.mark.parametrize("touched", [1, 2])
def test_who_points_may_touch_bent_fingers_with_the_thumb(touched):
    held = gestures._Held(0.0, np.zeros(9), np.array([False, True, True, True]), np.arange(4) == touched)
    assert gestures._gesture(held) == Gesture.POINT


def test_hysteresis_needs_more_to_begin_than_to_end():
    reader = SignReader(GestureConfig(hold_s=0.0))
    seen = []
    for k, share in enumerate([*np.linspace(0, 1, 101), *np.linspace(1, 0, 101)]):
        seen.append(reader.read(1, between(SHAPES[Gesture.OPEN], SHAPES[Gesture.FIST], share), k / 60).gesture)
    closes, opens = seen.index(Gesture.FIST), len(seen) - 1 - seen[::-1].index(Gesture.FIST)
    assert closes / 100 == pytest.approx(0.6, abs=0.02) and (201 - opens) / 100 == pytest.approx(0.4, abs=0.02)


def test_hands_are_apart_and_start_afresh_after_a_gap_or_a_jump_back():
    reader = SignReader(GestureConfig(hold_s=0.05))
    fist, opened = pose_of(SHAPES[Gesture.FIST]), pose_of(SHAPES[Gesture.OPEN])
    for k in range(10):
        first, second = reader.read(1, fist, k / 60).gesture, reader.read(2, opened, k / 60).gesture
    assert (first, second) == (Gesture.FIST, Gesture.OPEN)
    assert reader.read(1, fist, 9 / 60 + 0.6).gesture == Gesture.NONE
    assert reader.read(2, opened, 0.0).gesture == Gesture.NONE
    reader.forget({2})
    assert reader.read(1, fist, 0.8).gesture == Gesture.NONE


# URDF


def rotation_about(axis: np.ndarray, angle: float) -> np.ndarray:
    return exp_rotation(axis / np.linalg.norm(axis) * angle)


def rpy(values: np.ndarray) -> np.ndarray:
    x, y, z = (rotation_about(axis, angle) for axis, angle in zip(np.eye(3), values))
    return z @ y @ x


def vector(text: str) -> np.ndarray:
    return np.array([float(value) for value in text.split()])


def forward_kinematics(text: str, angles: dict[str, float]) -> dict[str, np.ndarray]:
    """{link: (4, 4) pose in the root}, by what a URDF means: independent of how it was written."""
    robot = ElementTree.fromstring(text.encode())
    poses = {}
    joints = robot.findall("joint")
    children = {joint.find("child").get("link") for joint in joints}
    (root,) = [link.get("name") for link in robot.findall("link") if link.get("name") not in children]
    poses[root] = np.eye(4)
    waiting = list(joints)
    while waiting:
        joint = next(j for j in waiting if j.find("parent").get("link") in poses)
        waiting.remove(joint)
        step = np.eye(4)
        origin = joint.find("origin")
        step[:3, :3], step[:3, 3] = rpy(vector(origin.get("rpy"))), vector(origin.get("xyz"))
        if joint.get("type") == "revolute":
            step[:3, :3] = step[:3, :3] @ rotation_about(
                vector(joint.find("axis").get("xyz")), angles[joint.get("name")]
            )
        poses[joint.find("child").get("link")] = poses[joint.find("parent").get("link")] @ step
    return poses


@pytest.mark.parametrize("side", SIDES)
def test_forward_kinematics_of_the_urdf_are_those_of_the_hand(side):
    rng = np.random.default_rng(7)
    shape = KinematicHand(rng.uniform(0.8, 1.2, 20))
    text = urdf.hand_urdf(side, 0.093, 1.07, shape)
    for _ in range(5):
        angles = rng.uniform(LIMITS[:, 0], LIMITS[:, 1])
        pose = HandPose(side, np.eye(3), np.zeros(3), angles, 0.093, 1.07, shape)
        links = forward_kinematics(text, dict(zip(urdf.joint_names(side), angles)))
        axes = frames.wrist_rotation(pose)
        for link, point in zip(urdf.keypoint_links(side), pose.points(), strict=True):
            np.testing.assert_allclose(links[link][:3, 3], axes.T @ point, atol=1e-6)
        palm = links[f"{side.name.lower()}_palm"]
        np.testing.assert_allclose(palm[:3, 3], axes.T @ frames.palm_position_m(pose), atol=1e-6)


@pytest.mark.parametrize("side", SIDES)
def test_urdf_is_a_tree_of_named_joints_with_the_limits_of_the_hand(side):
    robot = ElementTree.fromstring(urdf.hand_urdf(side, 0.088).encode())
    assert robot.tag == "robot" and robot.get("name") == f"{side.name.lower()}_hand"
    revolute = {joint.get("name"): joint for joint in robot.findall("joint") if joint.get("type") == "revolute"}
    assert sorted(revolute) == sorted(f"{side.name.lower()}_{name}" for name in ANGLE_NAMES)
    for name, (low, high) in zip(urdf.joint_names(side), LIMITS):
        limit = revolute[name].find("limit")
        assert float(limit.get("lower")) == pytest.approx(low, abs=1e-6)
        assert float(limit.get("upper")) == pytest.approx(high, abs=1e-6)
        assert np.linalg.norm(vector(revolute[name].find("axis").get("xyz"))) == pytest.approx(1, abs=1e-6)
    links = [link.get("name") for link in robot.findall("link")]
    assert len(links) == len(set(links)) == len(robot.findall("joint")) + 1
    assert {*urdf.keypoint_links(side)} <= {*links}


def test_cylinders_lie_on_their_bones():
    text = urdf.hand_urdf(Side.LEFT, 0.088)
    pose = HandPose(Side.LEFT, frames.WRIST_AXES.T, np.zeros(3), np.zeros(20), 0.088)
    points = pose.points()
    for name, start, end in (
        ("left_index_proximal", 5, 6),
        ("left_thumb_distal", 3, 4),
        ("left_little_distal", 19, 20),
    ):
        link = next(x for x in ElementTree.fromstring(text.encode()).findall("link") if x.get("name") == name)
        visual = next(v for v in link.findall("visual") if v.find("geometry/cylinder") is not None)
        origin, bone = visual.find("origin"), points[end] - points[start]
        np.testing.assert_allclose(vector(origin.get("xyz")), bone / 2, atol=1e-6)
        along = rpy(vector(origin.get("rpy")))[:, 2]
        np.testing.assert_allclose(along, bone / np.linalg.norm(bone), atol=1e-6)
        assert float(visual.find("geometry/cylinder").get("length")) == pytest.approx(np.linalg.norm(bone), abs=1e-6)


@pytest.mark.parametrize("side", SIDES)
def test_the_shipped_files_are_what_the_command_writes(side, tmp_path, capsys):
    name = f"{side.name.lower()}_hand.urdf"
    assert main(["urdf", "--side", side.name.lower(), "--output", str(tmp_path / name)]) == 0
    assert "wrote" in capsys.readouterr().out
    assert (config_directory() / name).read_text() == (tmp_path / name).read_text(), "write it anew: hand-tracking urdf"
    assert (tmp_path / name).read_text() == urdf.hand_urdf(side, PoseConfig().palm_m)


def test_urdf_command_prints_and_refuses_an_unknown_side(capsys):
    assert main(["urdf", "--side", "right", "--palm-m", "0.1"]) == 0
    assert "palm_m 0.1," in capsys.readouterr().out
    with pytest.raises(ValueError, match="left or right"):
        urdf.hand_urdf(Side.UNKNOWN, 0.088)


def test_urdf_of_a_calibrated_hand(tmp_path, capsys):
    """A palm of 80 mm, and an index finger of 40, 22 and 20 mm."""
    sized, written = tmp_path / "me.yaml", tmp_path / "hand.urdf"
    assert main(["size", "--palm-mm", "80", "--finger-mm", "index=40,22,20", "--output", str(sized)]) == 0
    command = ["urdf", "--side", "left", "--output", str(written), "--size-file", str(sized)]
    assert main(command) == 0
    links = forward_kinematics(written.read_text(), dict.fromkeys(urdf.joint_names(Side.LEFT), 0.0))
    chain = np.array([links[name][:3, 3] for name in urdf.keypoint_links(Side.LEFT)[5:9]])
    np.testing.assert_allclose(np.linalg.norm(np.diff(chain, axis=0), axis=1), [0.04, 0.022, 0.02], atol=1e-5)
    assert np.linalg.norm(links["left_middle_proximal"][:3, 3]) == pytest.approx(0.08, abs=1e-6)
    save_hand_size(sized, HandSize(0.08, 0.01, finger_ratio=1.1, finger_sigma=0.01))
    assert main(command) == 0
    assert "palm_m 0.08, finger_ratio 1.1" in written.read_text()
    assert main([*command, "--palm-m", "0.09"]) == 2
    assert "leave out --palm-m and --finger-ratio" in capsys.readouterr().err


def test_finger_links_are_named_as_openxr_names_them():
    links = {link.removeprefix("left_") for link in urdf.keypoint_links(Side.LEFT)[1:]}
    assert links <= {*openxr.XR_JOINT_NAMES} and len(links) == 4 * len(FINGERS)


def test_a_pose_that_is_not_finite_does_not_spoil_what_follows():
    reader, fist, opened = SignReader(), pose_of(SHAPES[Gesture.FIST]), pose_of(SHAPES[Gesture.OPEN])
    broken = replace(fist, angles=np.full(20, np.nan))
    poses = [fist] * 30 + [broken] + [opened] * 30
    named = [reader.read(1, pose, k / 30).gesture for k, pose in enumerate(poses)]
    assert named[29] == Gesture.FIST and named[-1] == Gesture.OPEN
