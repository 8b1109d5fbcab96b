"""What ROS says of a parameter file, before any node starts with it."""

from __future__ import annotations

from pathlib import Path

from rclpy.context import Context

from hand_tracking_ros.errors import ConfigError
from hand_tracking_ros.nodes.graph import default_params_file


def check_params_file(path: Path) -> None:
    """Raises ConfigError where ROS cannot read it: it is stricter than YAML."""
    context = Context()
    try:
        context.init(["--ros-args", "--params-file", str(path)], initialize_logging=False)
    except RuntimeError as error:
        reason = str(error).partition("Error: ")[2].partition(", at /")[0].strip() or str(error)
        raise ConfigError(
            f"ROS cannot read --params-file {path}: {reason}; {default_params_file()} shows its form"
        ) from error
    context.try_shutdown()
