"""Hand poses in the forms that others take: joint states, wrist and palm poses, OpenXR joints, tf frames.

All topics but /tf are published only while somebody subscribes, and then for every processed image; those of one side
(PoseStamped cannot be empty) only while that hand is there. Messages of ROS carry the time for which their poses hold,
``filter.predict_s`` after the image's; XrHandArray, as HandArray, has the header of the image.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from geometry_msgs.msg import Pose, PoseArray, PoseStamped, TransformStamped
from sensor_msgs.msg import JointState
from std_msgs.msg import Header

from hand_tracking_ros import msg
from hand_tracking_ros.nodes.base import HandNode, result_qos
from hand_tracking_ros.nodes.conversions import stamp_ns, stamp_s, time_from_ns
from hand_tracking_ros.nodes.hand_messages import fill_pose, fill_xr_hand
from hand_tracking_ros.nodes.tf_messages import tf_message_type, tf_qos
from hand_tracking_ros.outputs.frames import palm_position_m, quaternions, wrist_rotation
from hand_tracking_ros.outputs.gestures import SignReader
from hand_tracking_ros.outputs.openxr import xr_joints
from hand_tracking_ros.outputs.urdf import joint_names
from hand_tracking_ros.skeleton import Side
from hand_tracking_ros.types import Hand

SIDES = (Side.LEFT, Side.RIGHT)


class PosePublisher:
    """Publishes the hands that have a pose, as topics below the node's own name."""

    def __init__(self, node: HandNode) -> None:
        self._node = node
        self._signs = SignReader(node.config.gestures)
        self._joint_states = node.publish_to(JointState, "~/joint_states", result_qos())
        self._wrists = node.publish_to(PoseArray, "~/wrist_poses", result_qos())
        self._palms = node.publish_to(PoseArray, "~/palm_poses", result_qos())
        self._sides = {
            side: tuple(
                node.publish_to(PoseStamped, f"~/{side.name.lower()}/{part}_pose", result_qos())
                for part in ("wrist", "palm")
            )
            for side in SIDES
        }
        self._xr = node.publish_to(msg.XrHandArray, "~/xr_hands", result_qos())
        self._xr_published: Sequence[msg.XrHand] = ()
        self._tf = _TfPublisher(node) if node.config.tf.enabled else None

    def publish(self, hands: Sequence[Hand], header: Header, width: int, height: int) -> None:
        """The hands of one image of ``width`` x ``height`` px."""
        posed = [hand for hand in hands if hand.pose is not None and np.isfinite(hand.points_3d).all()]
        if len(posed) < len(hands) and self._is_wanted:
            self._node.warn(
                "hands have no pose in metres, so that pose topics lack them: camera_info is missing or not "
                "calibrated, or pose.enabled is false"
            )
        if self._xr.get_subscription_count():
            self._publish_xr(posed, header, width, height)
        header = later(header, self._node.config.filter.predict_s)
        if self._joint_states.get_subscription_count():
            self._joint_states.publish(joint_state(posed, header))
        for publisher, part in ((self._wrists, _wrist_message), (self._palms, _palm_message)):
            if publisher.get_subscription_count():
                publisher.publish(PoseArray(header=header, poses=[part(hand) for hand in posed]))
        for hand in one_per_side(posed):
            self._publish_side(hand, header)
        if self._tf is not None:
            self._tf.publish(posed, header)

    @property
    def _is_wanted(self) -> bool:
        sides = [publisher for pair in self._sides.values() for publisher in pair]
        publishers = [self._joint_states, self._wrists, self._palms, self._xr, *sides]
        return self._tf is not None or any(publisher.get_subscription_count() for publisher in publishers)

    def _publish_side(self, hand: Hand, header: Header) -> None:
        wrist, palm = self._sides[hand.side]
        if wrist.get_subscription_count():
            wrist.publish(PoseStamped(header=header, pose=_wrist_message(hand)))
        if palm.get_subscription_count():
            palm.publish(PoseStamped(header=header, pose=_palm_message(hand)))

    def _publish_xr(self, hands: Sequence[Hand], header: Header, width: int, height: int) -> None:
        self._signs.config = self._node.config.gestures
        self._signs.forget({hand.id for hand in hands})
        message = msg.XrHandArray(header=header, image_width=width, image_height=height)
        old = self._xr_published  # publishing has serialised it
        parts = [*old[: len(hands)], *(msg.XrHand() for _ in range(len(hands) - len(old)))]
        time_s = stamp_s(header.stamp)
        message.hands = [
            fill_xr_hand(part, hand, xr_joints(hand.pose), self._signs.read(hand.id, hand.pose, time_s))
            for part, hand in zip(parts, hands)
        ]
        self._xr_published = message.hands
        self._xr.publish(message)


def later(header: Header, seconds: float) -> Header:
    """``header`` with a stamp that is ``seconds`` later."""
    stamp = time_from_ns(stamp_ns(header.stamp) + round(seconds * 1e9))
    return Header(stamp=stamp, frame_id=header.frame_id)


def one_per_side(hands: Sequence[Hand]) -> list[Hand]:
    """The left and the right hand that topics of one side follow: the longest tracked one of each side."""
    oldest = {hand.side: hand for hand in sorted(hands, key=lambda hand: -hand.id)}
    return [oldest[side] for side in SIDES if side in oldest]


def joint_state(hands: Sequence[Hand], header: Header) -> JointState:
    """Angles and their velocities, of at most one left and one right hand, named as in their URDF (outputs/urdf.py)."""
    message = JointState(header=header)
    for hand in one_per_side(hands):
        message.name += joint_names(hand.side)
        message.position.extend(hand.pose.angles.tolist())
        message.velocity.extend(hand.angle_velocities.tolist())
    return message


def _wrist_message(hand: Hand) -> Pose:
    return fill_pose(Pose(), hand.pose.position_m, quaternions(wrist_rotation(hand.pose)))


def _palm_message(hand: Hand) -> Pose:
    palm_m = palm_position_m(hand.pose, hand.points_3d)
    return fill_pose(Pose(), palm_m, quaternions(wrist_rotation(hand.pose)))


class _TfPublisher:
    """``left_hand_<id>`` (wrist axes) and ``left_palm_<id>`` of every hand, and ``left_hand``, the root of the URDF, of
    the hand that the topics of that side follow; all below the camera's frame."""

    def __init__(self, node: HandNode) -> None:
        self._node, self._type = node, tf_message_type("tf.enabled")
        self._publisher = node.publish_to(self._type, "/tf", tf_qos())

    def publish(self, hands: Sequence[Hand], header: Header) -> None:
        if hands and not header.frame_id:  # tf has no frame without a name, and everybody would hear of it
            self._node.warn("the frames of hands are not in /tf: images have no frame_id, set it in the camera driver")
        elif hands:
            self._publisher.publish(self._type(transforms=hand_transforms(hands, header)))


def hand_transforms(hands: Sequence[Hand], header: Header) -> list[TransformStamped]:
    """The frames of _TfPublisher, as seen from the camera's frame."""
    transforms = []
    for hand in hands:
        side, turn = hand.side.name.lower(), quaternions(wrist_rotation(hand.pose))
        transforms.append(_transform(header, f"{side}_hand_{hand.id}", hand.pose.position_m, turn))
        palm_m = palm_position_m(hand.pose, hand.points_3d)
        transforms.append(_transform(header, f"{side}_palm_{hand.id}", palm_m, turn))
    for hand in one_per_side(hands):
        turn = quaternions(wrist_rotation(hand.pose))
        transforms.append(_transform(header, f"{hand.side.name.lower()}_hand", hand.pose.position_m, turn))
    return transforms


def _transform(header: Header, name: str, position: np.ndarray, quaternion: np.ndarray) -> TransformStamped:
    message = TransformStamped(header=header, child_frame_id=name)
    at, turn = message.transform.translation, message.transform.rotation
    at.x, at.y, at.z = position.tolist()
    turn.x, turn.y, turn.z, turn.w = quaternion.tolist()
    return message
