"""Tracked hands between the core and messages: HandArray with the kinematic hand, XrHand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from geometry_msgs.msg import Pose
from std_msgs.msg import Header

from hand_tracking_ros import msg
from hand_tracking_ros.kinematics import NUM_ANGLES, HandPose, shape_of
from hand_tracking_ros.nodes.conversions import box_from_message, box_to_message
from hand_tracking_ros.outputs.frames import hand_rotation, quaternions, rotation_of, wrist_rotation
from hand_tracking_ros.outputs.gestures import HandSigns
from hand_tracking_ros.outputs.openxr import XrJoints
from hand_tracking_ros.skeleton import Side
from hand_tracking_ros.types import Hand, Scale, Source

NO_POSITION, NO_ROTATION = np.full(3, np.nan), np.full(4, np.nan)
UNKNOWN_ANGLES = np.full(NUM_ANGLES, np.nan, np.float32)


def hands_to_message(
    hands: Sequence[Hand], header: Header, width: int, height: int, old: Sequence[msg.Hand] = ()
) -> msg.HandArray:
    """HandArray of one image of ``width`` x ``height`` px.

    ``old``: hands of an earlier message that nobody needs any more; they are filled anew, which is several times faster
    than making a hundred points per hand.
    """
    message = msg.HandArray(header=header, image_width=width, image_height=height)
    message.hands = [*old[: len(hands)], *(msg.Hand() for _ in range(len(hands) - len(old)))]
    for filled, hand in zip(message.hands, hands, strict=True):
        _fill_hand(filled, hand)
    return message


def _fill_hand(message: msg.Hand, hand: Hand) -> None:
    message.id = hand.id
    message.side, message.side_score = int(hand.side), float(hand.side_score)
    message.score = float(hand.score)
    message.source, message.scale = int(hand.source), int(hand.scale)
    message.box = box_to_message(hand.box)
    message.keypoint_scores = np.asarray(hand.keypoint_scores, np.float32)
    for points, values in (
        (message.keypoints_px, hand.keypoints_px),
        (message.velocities_px, hand.velocities_px),
    ):
        for point, (x, y) in zip(points, values.tolist(), strict=True):
            point.x, point.y = x, y
    for points, values in (
        (message.points_3d, hand.points_3d),
        (message.velocities_3d, hand.velocities_3d),
    ):
        for point, (x, y, z) in zip(points, values.tolist(), strict=True):
            point.x, point.y, point.z = x, y, z
    message.angle_velocities = np.asarray(hand.angle_velocities, np.float32)
    _fill_pose_of(message, hand.pose)


def _fill_pose_of(message: msg.Hand, pose: HandPose | None) -> None:
    if pose is None:
        fill_pose(message.wrist_pose, NO_POSITION, NO_ROTATION)
        message.joint_angles = message.bone_ratios = UNKNOWN_ANGLES
        message.palm_m = message.finger_ratio = float("nan")
        return
    fill_pose(message.wrist_pose, pose.position_m, quaternions(wrist_rotation(pose)))
    message.joint_angles = np.asarray(pose.angles, np.float32)
    message.bone_ratios = np.asarray(pose.shape.bone_ratios, np.float32)
    message.palm_m, message.finger_ratio = float(pose.palm_m), float(pose.finger_ratio)


def fill_pose(message: Pose, position: np.ndarray, quaternion: np.ndarray) -> Pose:
    """``message`` with the position (3,) in metres and the quaternion (4,) x, y, z, w."""
    at, turn = message.position, message.orientation
    at.x, at.y, at.z = position.tolist()
    turn.x, turn.y, turn.z, turn.w = quaternion.tolist()
    return message


def hands_from_message(message: msg.HandArray) -> list[Hand]:
    """The hands of a HandArray."""
    return [
        Hand(
            id=h.id,
            side=Side(h.side),
            side_score=h.side_score,
            score=h.score,
            source=Source(h.source),
            box=box_from_message(h.box),
            keypoints_px=np.array([(p.x, p.y) for p in h.keypoints_px]),
            keypoint_scores=np.array(h.keypoint_scores, float),
            velocities_px=np.array([(p.x, p.y) for p in h.velocities_px]),
            scale=Scale(h.scale),
            points_3d=np.array([(p.x, p.y, p.z) for p in h.points_3d]),
            velocities_3d=np.array([(p.x, p.y, p.z) for p in h.velocities_3d]),
            pose=_pose_of(h),
            angle_velocities=np.array(h.angle_velocities, np.float64),
        )
        for h in message.hands
    ]


def _pose_of(message: msg.Hand) -> HandPose | None:
    if not message.palm_m > 0:  # NaN, or a message that nobody filled
        return None
    at, turn = message.wrist_pose.position, message.wrist_pose.orientation
    return HandPose(
        side=Side(message.side),
        rotation=hand_rotation(rotation_of(np.array([turn.x, turn.y, turn.z, turn.w]))),
        position_m=np.array([at.x, at.y, at.z]),
        angles=np.array(message.joint_angles, float),
        palm_m=message.palm_m,
        finger_ratio=message.finger_ratio,
        shape=shape_of(tuple(message.bone_ratios)),
    )


def fill_xr_hand(message: msg.XrHand, hand: Hand, joints: XrJoints, signs: HandSigns) -> msg.XrHand:
    """``message`` (a new one, or an old one that nobody needs any more) with the hand, which has a pose."""
    message.id, message.side, message.score = hand.id, int(hand.side), float(hand.score)
    message.source, message.scale = int(hand.source), int(hand.scale)
    for pose, position, quaternion in zip(message.poses, joints.positions_m, joints.orientations, strict=True):
        fill_pose(pose, position, quaternion)
    message.radii_m = joints.radii_m.astype(np.float32)
    message.palm_m = float(hand.pose.palm_m)
    message.pinch_strengths = signs.pinch.astype(np.float32)
    message.grasp_strength, message.gesture = float(signs.grasp), int(signs.gesture)
    return message
