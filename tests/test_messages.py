"""The messages agree with the one skeleton and the enums in Python: as written in msg/, and as built where they are."""

from __future__ import annotations

import re
from dataclasses import fields
from enum import IntEnum
from pathlib import Path

import pytest

from hand_tracking_ros import types
from hand_tracking_ros.geometry import Box
from hand_tracking_ros.kinematics import ANGLE_NAMES, NUM_ANGLES
from hand_tracking_ros.outputs.gestures import Gesture
from hand_tracking_ros.outputs.openxr import NUM_XR_JOINTS, XrJoint
from hand_tracking_ros.skeleton import JOINT_NAMES, NUM_JOINTS, Joint, Side
from hand_tracking_ros.types import Scale, Source

MSG = Path(__file__).resolve().parents[1] / "msg"
NAMES = sorted(path.stem for path in MSG.glob("*.msg"))
PACKAGE_TYPES = {"Point2D", "RotatedBox", "Hand", "HandBox", "HandKeypoints", "HandModel", "XrHand"}
Angle = IntEnum("Angle", [(name.upper(), index) for index, name in enumerate(ANGLE_NAMES)])

# Enum, prefix of its constants, messages that carry it.
ENUMS = [
    (Joint, "", ["Hand"]),
    (Angle, "ANGLE_", ["Hand"]),
    (XrJoint, "", ["XrHand"]),
    (Side, "SIDE_", ["Hand", "XrHand"]),
    (Source, "SOURCE_", ["Hand", "HandBox", "HandKeypoints", "XrHand"]),
    (Scale, "SCALE_", ["Hand", "XrHand"]),
    (Gesture, "GESTURE_", ["XrHand"]),
]
POSE_FIELDS = {"wrist_pose", "joint_angles", "palm_m", "finger_ratio", "bone_ratios"}  # Hand.pose, spread out


def lines(name: str) -> list[str]:
    """Definition lines of a message, without comments."""
    stripped = (line.split("#")[0].strip() for line in (MSG / f"{name}.msg").read_text().splitlines())
    return [line for line in stripped if line]


def constants(name: str) -> dict[str, int]:
    """{'WRIST': 0, ...}"""
    found = (re.fullmatch(r"uint8 +([A-Z0-9_]+) *= *(\d+)", line) for line in lines(name))
    return {match[1]: int(match[2]) for match in found if match}


def message_fields(name: str) -> dict[str, str]:
    """{'keypoints_px': 'Point2D[21]', ...} in the order of the message."""
    return {line.split()[1]: line.split()[0] for line in lines(name) if "=" not in line}


def expected_constants(name: str) -> dict[str, int]:
    return {prefix + member.name: int(member) for enum, prefix, users in ENUMS if name in users for member in enum}


@pytest.mark.parametrize("name", NAMES)
def test_constants_are_those_of_the_python_enums(name):
    assert constants(name) == expected_constants(name)


def test_every_joint_has_a_constant():
    assert {name.upper() for name in JOINT_NAMES} <= constants("Hand").keys()


FIXED = {
    "Hand": [NUM_JOINTS] * 5 + [NUM_ANGLES] * 3,
    "HandKeypoints": [NUM_JOINTS] * 3,
    "XrHand": [NUM_XR_JOINTS] * 2 + [4],  # poses, radii, and pinches of the four fingers
}


@pytest.mark.parametrize("name", NAMES)
def test_fixed_arrays_have_one_entry_per_joint(name):
    sizes = [int(size) for kind in message_fields(name).values() for size in re.findall(r"\[(\d+)\]", kind)]
    assert sizes == FIXED.get(name, [])


@pytest.mark.parametrize("name", ["Hand", "HandBox", "HandKeypoints"])
def test_fields_are_those_of_the_dataclass(name):
    expected = {field.name for field in fields(getattr(types, name))}
    assert set(message_fields(name)) == (expected - {"pose"} | POSE_FIELDS if name == "Hand" else expected)


def test_rotated_box_carries_every_value_of_box():
    assert {field.name for field in fields(Box)} == {"center_px", "size_px", "angle_rad"}
    assert message_fields("RotatedBox") == {
        "center_px": "Point2D",
        "width_px": "float64",
        "height_px": "float64",
        "angle_rad": "float64",
    }


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith("Array")])
def test_arrays_start_with_the_header_and_size_of_their_image(name):
    head = list(message_fields(name).items())[:3]
    assert head == [("header", "std_msgs/Header"), ("image_width", "uint32"), ("image_height", "uint32")]


def test_every_type_exists():
    kinds = {kind.split("[")[0] for name in NAMES for kind in message_fields(name).values()}
    own = {kind for kind in kinds if kind[0].isupper()}
    assert own == PACKAGE_TYPES
    assert own <= set(NAMES)
    assert {kind.split("/")[0] for kind in kinds if "/" in kind} == {"std_msgs", "geometry_msgs"}


@pytest.mark.parametrize("name", NAMES)
def test_every_message_starts_with_what_it_is(name):
    assert (MSG / f"{name}.msg").read_text().startswith("# ")


@pytest.fixture(scope="module")
def built():
    return pytest.importorskip("hand_tracking_ros.msg", reason="the package was installed without its ROS messages")


@pytest.mark.parametrize("name", NAMES)
def test_built_messages_are_those_of_the_definitions(built, name):
    cls = getattr(built, name, None)
    assert cls is not None, f"{name} is not built: reinstall the package"
    assert list(cls.get_fields_and_field_types()) == list(message_fields(name))
    for constant, value in expected_constants(name).items():
        assert getattr(cls, constant) == value


def test_built_hand_has_one_value_per_joint(built):
    hand = built.Hand()
    for field in ("keypoints_px", "velocities_px", "points_3d", "velocities_3d", "keypoint_scores"):
        assert len(getattr(hand, field)) == NUM_JOINTS
