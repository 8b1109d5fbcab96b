"""One node per stage: `ros2 launch hand_tracking_ros hand_tracking_stages.launch.py source:=video.mp4`."""

from hand_tracking_ros.nodes.launching import describe_graph
from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    """The graph of docs/architecture.md; it publishes the same hands as hand_tracking.launch.py."""
    return describe_graph(("camera_node", "detector_node", "flow_node", "keypoint_node", "filter_node"))
