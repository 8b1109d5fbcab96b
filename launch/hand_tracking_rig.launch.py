"""Several cameras: `ros2 launch hand_tracking_ros hand_tracking_rig.launch.py rig:=rig.yaml sources:="0;2"`."""

from hand_tracking_ros.nodes.launching import describe_rig
from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    """A camera_node per camera of the rig, and rig_tracker_node, which publishes their hands."""
    return describe_rig()
