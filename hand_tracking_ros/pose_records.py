"""Poses in tracking output (docs/evaluation.md): what is written of them, what follows from them, and reading them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hand_tracking_ros.jsonl import JsonObject
from hand_tracking_ros.kinematics import NUM_BONES, HandPose, shape_of
from hand_tracking_ros.outputs.frames import hand_rotation, palm_position_m, quaternions, rotation_of, wrist_rotation
from hand_tracking_ros.outputs.gestures import HandSigns
from hand_tracking_ros.outputs.openxr import xr_joints
from hand_tracking_ros.outputs.urdf import joint_names
from hand_tracking_ros.skeleton import Side


def pose_to_record(pose: HandPose) -> dict[str, Any]:
    """The JSON object of a pose: what ``pose_from_record`` needs. The orientation is that of the wrist's axes."""
    record = {
        "position_m": np.round(pose.position_m, 5).tolist(),
        "orientation": np.round(quaternions(wrist_rotation(pose)), 6).tolist(),
        "joint_angles": dict(zip(joint_names(pose.side), np.round(pose.angles, 5).tolist())),
        "palm_m": round(float(pose.palm_m), 6),
        "finger_ratio": round(float(pose.finger_ratio), 5),
    }
    ratios = pose.shape.bone_ratios
    return record if (ratios == 1).all() else {**record, "bone_ratios": np.round(ratios, 5).tolist()}


def outputs_to_record(pose: HandPose, signs: HandSigns) -> dict[str, Any]:
    """What follows from a pose, as the nodes publish it: palm pose, OpenXR's joints, strengths, gesture."""
    joints = xr_joints(pose)
    return {
        "palm_pose": {
            "position_m": np.round(palm_position_m(pose), 5).tolist(),
            "orientation": np.round(quaternions(wrist_rotation(pose)), 6).tolist(),
        },
        "xr": {
            "positions_m": np.round(joints.positions_m, 5).tolist(),
            "orientations": np.round(joints.orientations, 4).tolist(),
            "radii_m": np.round(joints.radii_m, 5).tolist(),
        },
        "pinch_strengths": np.round(signs.pinch, 4).tolist(),
        "grasp_strength": round(signs.grasp, 4),
        "gesture": signs.gesture.name.lower(),
    }


def pose_from_record(obj: JsonObject) -> HandPose:
    """The pose that ``pose_to_record`` wrote. Raises RecordError."""
    side, angles = _angles(obj)
    palm_m, finger_ratio = (float(obj.get(key, (int, float))) for key in ("palm_m", "finger_ratio"))
    if min(palm_m, finger_ratio) <= 0:
        obj.fail("'palm_m' and 'finger_ratio' must be positive")
    ratios = obj.array("bone_ratios", NUM_BONES, optional=True, finite=True)
    try:
        return HandPose(
            side=side,
            rotation=hand_rotation(rotation_of(obj.array("orientation", 4, finite=True))),
            position_m=obj.array("position_m", 3, finite=True),
            angles=angles,
            palm_m=palm_m,
            finger_ratio=finger_ratio,
            shape=shape_of(() if ratios is None else tuple(ratios.tolist())),
        )
    except ValueError as error:
        return obj.fail(str(error))


def _angles(obj: JsonObject) -> tuple[Side, np.ndarray]:
    """The hand whose joints are named, and their angles (20,)."""
    given: Mapping[str, Any] = obj.get("joint_angles", dict)
    for side in (Side.LEFT, Side.RIGHT):
        names = joint_names(side)
        if set(names) == set(given):
            angles = JsonObject({"joint_angles": [given[name] for name in names]}, obj.where)
            return side, angles.array("joint_angles", len(names), finite=True)
    return obj.fail("'joint_angles' must name all joints of one hand, left_thumb_flexion and so on, and no others")
