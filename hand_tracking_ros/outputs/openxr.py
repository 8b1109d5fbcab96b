"""A hand as OpenXR's 26 joints (XR_EXT_hand_tracking): positions, orientations, radii.

Orientation of a joint, OpenXR's convention on both hands: -z points forward, along the bone that starts at the joint
(a tip has that of the last bone; wrist and palm point to the base of the middle finger); +y out of the back of the
hand; +x completes them to a right-handed frame. Positions stay in the frame of the hand pose (a camera's optical
frame), they are not turned into a reference space of OpenXR.

21 of the joints are keypoints. The metacarpals of the four fingers begin inside the palm, where no keypoint is: they
are placed on the straight line from the wrist to the finger's base, at ``METACARPAL_SHARE`` of it. The palm lies
halfway along the metacarpal of the middle finger.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from hand_tracking_ros.kinematics import HandPose
from hand_tracking_ros.outputs.frames import WRIST_AXES, quaternions
from hand_tracking_ros.skeleton import FINGERS, Joint

XR_JOINT_NAMES = (
    "palm", "wrist",
    "thumb_metacarpal", "thumb_proximal", "thumb_distal", "thumb_tip",
    *(
        f"{finger}_{joint}"
        for finger in ("index", "middle", "ring", "little")
        for joint in ("metacarpal", "proximal", "intermediate", "distal", "tip")
    ),
)  # fmt: skip
NUM_XR_JOINTS = len(XR_JOINT_NAMES)
XrJoint = IntEnum("XrJoint", [(name.upper(), index) for index, name in enumerate(XR_JOINT_NAMES)])

KEYPOINT_JOINTS = np.array([1, 2, 3, 4, 5, 7, 8, 9, 10, 12, 13, 14, 15, 17, 18, 19, 20, 22, 23, 24, 25])
"""(21,) the OpenXR joint of each keypoint."""
METACARPALS = np.array([XrJoint.INDEX_METACARPAL, 11, 16, 21])  # of the four fingers
_BASES = np.array([chain[0] for finger, chain in FINGERS.items() if finger != "thumb"])  # keypoints 5, 9, 13, 17
METACARPAL_SHARE = 0.25

# Distance to the skin in palm lengths, from usual breadths of adults' joints. Rough: a camera does not measure it.
_FINGER_RADII = (0.15, 0.14, 0.11, 0.09, 0.075)
RADII = np.array([0.15, 0.24, 0.19, 0.15, 0.12, 0.10, *_FINGER_RADII * 3, 0.15, 0.12, 0.095, 0.08, 0.07])
# Columns of a bone's frame (x sideways, y back, z out of the back of the hand) as OpenXR's axes.
_XR_AXES = np.array([(-1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, 1.0, 0.0)])


@dataclass(frozen=True)
class XrJoints:
    """``positions_m`` (26, 3), ``orientations`` (26, 4) unit quaternions x, y, z, w, ``radii_m`` (26,)."""

    positions_m: np.ndarray
    orientations: np.ndarray
    radii_m: np.ndarray


def xr_joints(pose: HandPose) -> XrJoints:
    """The joints of a hand, in the order of ``XR_JOINT_NAMES``, in the frame of ``pose``."""
    points = pose.points()
    positions = np.empty((NUM_XR_JOINTS, 3))
    frames = np.empty((NUM_XR_JOINTS, 3, 3))
    positions[KEYPOINT_JOINTS], frames[KEYPOINT_JOINTS] = points, pose.frames()
    wrist = points[Joint.WRIST]
    bones = points[_BASES] - wrist
    positions[METACARPALS] = wrist + METACARPAL_SHARE * bones
    frames[METACARPALS] = _frames_along(bones, pose.rotation[:, 2])
    positions[XrJoint.PALM] = 0.5 * (positions[XrJoint.MIDDLE_METACARPAL] + positions[XrJoint.MIDDLE_PROXIMAL])
    frames[XrJoint.PALM] = frames[XrJoint.WRIST] = pose.rotation
    return XrJoints(positions, quaternions(frames @ _XR_AXES), RADII * pose.palm_m)


def wrist_axes(rotation: np.ndarray) -> np.ndarray:
    """(3, 3) axes of the wrist as in outputs/frames.py (x forward, y left, z up), from those of OpenXR's wrist."""
    return rotation @ _XR_AXES.T @ WRIST_AXES


def _frames_along(bones: np.ndarray, up: np.ndarray) -> np.ndarray:
    """(N, 3, 3) frames with y back along ``bones`` (N, 3), and z as near to ``up`` (3,) as can be."""
    back = -bones / np.linalg.norm(bones, axis=1, keepdims=True)
    sideways = np.cross(back, up)
    sideways /= np.linalg.norm(sideways, axis=1, keepdims=True)
    return np.stack([sideways, back, np.cross(sideways, back)], axis=-1)
