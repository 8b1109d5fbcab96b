"""ROS 2 nodes: thin wrappers of the core, and the only place that knows ROS."""

from hand_tracking_ros.paths import set_ament_prefix

set_ament_prefix()
