"""Hands for users and for rviz: HandArray, markers, overlay. Each only while somebody subscribes, and HandArray and
markers then for every processed image, also without hands."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from geometry_msgs.msg import Point
from rclpy.duration import Duration
from sensor_msgs.msg import Image
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from hand_tracking_ros import msg, overlay
from hand_tracking_ros.config import PoseConfig
from hand_tracking_ros.nodes.base import HandNode, image_qos, result_qos
from hand_tracking_ros.nodes.conversions import image_to_message
from hand_tracking_ros.nodes.hand_messages import hands_to_message
from hand_tracking_ros.nodes.outputs import PosePublisher
from hand_tracking_ros.nodes.settings import MarkerConfig
from hand_tracking_ros.skeleton import EDGES, Side
from hand_tracking_ros.types import Hand, Scale

COLORS = {Side.LEFT: (0.2, 0.6, 1.0), Side.RIGHT: (1.0, 0.5, 0.1), Side.UNKNOWN: (0.7, 0.7, 0.7)}  # RGB
JOINTS_ID, BONES_ID = 0, 1  # within the namespace of a hand


class HandPublisher:
    """Publishes ``hands``, ``markers`` and ``overlay`` of one node, and the poses of outputs.py."""

    def __init__(self, node: HandNode) -> None:
        self._node = node
        self._hands = node.publish_to(msg.HandArray, "hands", result_qos())
        self._markers = node.publish_to(MarkerArray, "markers", result_qos())
        self._overlay = node.publish_to(Image, "overlay", image_qos())
        self._poses = PosePublisher(node)
        self._published: Sequence[msg.Hand] = ()
        self._shown: set[str] = set()  # namespaces that have markers

    @property
    def wants_overlay(self) -> bool:
        """Whether somebody looks at the overlay."""
        return self._overlay.get_subscription_count() > 0

    def publish(self, hands: Sequence[Hand], header: Header, width: int, height: int) -> None:
        """The hands of one image of ``width`` x ``height`` px."""
        if self._hands.get_subscription_count():
            message = hands_to_message(hands, header, width, height, self._published)
            self._published = message.hands  # publishing has serialised it
            self._hands.publish(message)
        self._node.statistics.facts["hands"] = len(hands)
        self._poses.publish(hands, header, width, height)
        if self._markers.get_subscription_count():
            config = self._node.config
            message = skeleton_markers(hands, self._shown, header, config.markers, config.pose)
            self._shown = {marker.ns for marker in message.markers if marker.action == Marker.ADD}
            self._markers.publish(message)

    def publish_overlay(self, hands: Sequence[Hand], header: Header, image: Callable[[], np.ndarray]) -> None:
        """The hands drawn into the BGR image that ``image`` returns, if anybody looks."""
        if self.wants_overlay:
            self._overlay.publish(image_to_message(overlay.draw_hands(image(), hands), header))


def skeleton_markers(
    hands: Sequence[Hand], shown: set[str], header: Header, config: MarkerConfig, pose_config: PoseConfig
) -> MarkerArray:
    """Joints and bones of every hand with 3D points, and DELETE for the namespaces in ``shown`` that are gone.

    Points relative to the wrist are drawn in metres with the assumed palm length, at the origin of the frame.
    """
    markers = []
    for hand in hands:
        if hand.scale == Scale.NONE:
            continue
        metres = pose_config.palm_m if hand.scale == Scale.RELATIVE else 1.0
        points = [Point(x=x, y=y, z=z) for x, y, z in (hand.points_3d * metres).tolist()]
        bones = [points[joint] for edge in EDGES for joint in edge]
        joints = _marker(hand, header, config, JOINTS_ID, Marker.SPHERE_LIST, points, config.joint_size_m)
        lines = _marker(hand, header, config, BONES_ID, Marker.LINE_LIST, bones, config.joint_size_m / 3)
        markers += [joints, lines]
    gone = sorted(shown - {marker.ns for marker in markers})
    markers += [
        Marker(header=header, ns=ns, id=part, action=Marker.DELETE) for ns in gone for part in (JOINTS_ID, BONES_ID)
    ]
    return MarkerArray(markers=markers)


def _marker(
    hand: Hand, header: Header, config: MarkerConfig, part: int, shape: int, points: list, size_m: float
) -> Marker:
    red, green, blue = COLORS[hand.side]
    marker = Marker(header=header, ns=f"hand_{hand.id}", id=part, type=shape, action=Marker.ADD, points=points)
    marker.scale.x = marker.scale.y = marker.scale.z = size_m
    marker.pose.orientation.w = 1.0
    marker.color = ColorRGBA(r=red, g=green, b=blue, a=1.0)
    marker.lifetime = Duration(seconds=config.lifetime_s).to_msg()
    return marker
