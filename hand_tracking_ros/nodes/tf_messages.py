"""The messages of tf: tf2_msgs comes with a ROS, but has no wheel."""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, QoSProfile

from hand_tracking_ros.errors import ConfigError

DEPTH = 100  # as tf2's own


def tf_message_type(parameter: str) -> type:
    """tf2_msgs/TFMessage, which ``parameter`` asks for. Raises ConfigError where it is not installed."""
    try:
        from tf2_msgs.msg import TFMessage
    except ImportError as error:
        raise ConfigError(
            f"parameter '{parameter}' needs the ROS package tf2_msgs, which is not installed: 'apt install "
            "ros-<distro>-tf2-msgs' (there is no wheel of it), or do without"
        ) from error
    return TFMessage


def tf_qos(static: bool = False) -> QoSProfile:
    """Of /tf, or of /tf_static, whose publishers keep for late comers what they stated."""
    qos = QoSProfile(depth=DEPTH)
    if static:
        qos.durability = DurabilityPolicy.TRANSIENT_LOCAL
    return qos
