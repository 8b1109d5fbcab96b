"""Camera and tracker: `ros2 launch hand_tracking_ros hand_tracking.launch.py source:=0 rviz:=true`."""

from hand_tracking_ros.nodes.launching import describe_graph
from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    """camera_node publishes images, hand_tracker_node the hands in them."""
    return describe_graph(("camera_node", "hand_tracker_node"))
