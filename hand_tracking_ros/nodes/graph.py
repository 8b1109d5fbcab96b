"""The graphs of nodes, and what a user may say about them: shared by the launch files and ``hand-tracking up``.

No ROS in here. An option that is not given leaves the parameter to the parameter file and the defaults.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from hand_tracking_ros.config import BACKENDS
from hand_tracking_ros.errors import ConfigError
from hand_tracking_ros.paths import config_directory
from hand_tracking_ros.rig import load_rig

DDS_PROFILE_VARIABLE = "FASTRTPS_DEFAULT_PROFILES_FILE"
DDS_PROFILE = "fastdds_shared_memory.xml"  # large images overflow Fast DDS' own shared-memory segment


class Option(NamedTuple):
    """A parameter that has a launch argument and a command-line option of its own."""

    parameter: str
    doc: str
    choices: tuple[str, ...] | None = None


OPTIONS = {
    "source": Option("camera.source", "camera index or device, video file, image folder, URL, or 'gst:<pipeline>'"),
    "calibration": Option("camera.calibration", "calibration YAML of the camera"),
    "backend": Option("inference.backend", "inference backend", BACKENDS),
}

TRACKER_GRAPH = ("camera_node", "hand_tracker_node")
STAGES_GRAPH = ("camera_node", "detector_node", "flow_node", "keypoint_node", "filter_node")
TF = "tf:"  # what a rig begins with that is no file
IMAGE_SUBSCRIBERS = {"hand_tracker_node": 1, "detector_node": 1, "flow_node": 1, "keypoint_node": 1}


def overrides(nodes: tuple[str, ...], options: dict[str, Any]) -> dict[str, Any]:
    """Parameters for all nodes of a graph: what ``options`` (keys of OPTIONS) say, and that nodes start by themselves.

    The camera waits for the others, so that the first frames of a video are not lost.
    """
    parameters = {OPTIONS[name].parameter: value for name, value in options.items() if value}
    subscribers = sum(IMAGE_SUBSCRIBERS.get(node, 0) for node in nodes)
    return {**parameters, "autostart": True, "camera.wait_for_subscribers": subscribers}


class Start(NamedTuple):
    """A node to start, below ``namespace``."""

    node: str
    namespace: str
    parameters: dict[str, Any]


def rig_starts(rig: str, sources: Sequence[str], backend: str = "") -> list[Start]:
    """rig_tracker_node, and a camera_node per source below the name of its camera, in the order of the rig file.

    ``rig``: a rig file, or 'tf:left,right', the names of cameras whose places tf says. Without sources the images come
    from drivers, on <camera's name>/image_raw. Raises HandTrackingError when the rig cannot be read or has another
    number of cameras, or where there are sources and no file.
    """
    tracker = overrides(("rig_tracker_node",), {"backend": backend})
    if rig.startswith(TF):
        if sources:
            raise ConfigError(
                f"sources go with a rig file, not with '{rig}': there drivers publish images, camera_info and tf"
            )
        return [Start("rig_tracker_node", "", tracker | {"rig.extrinsics": "tf", "rig.cameras": rig[len(TF) :]})]
    cameras = load_rig(rig).cameras
    if sources and len(sources) != len(cameras):
        names = ", ".join(camera.name for camera in cameras)
        raise ConfigError(f"{len(sources)} sources for the {len(cameras)} cameras of {rig} ({names})")
    starts = [Start("rig_tracker_node", "", tracker | {"rig.extrinsics": "file", "rig.file": rig})]
    for camera, source in zip(cameras, sources):
        own = {"camera.frame_id": f"{camera.name}_optical_frame", "camera.wait_for_subscribers": 1}
        parameters = overrides(("camera_node",), {"source": source}) | own
        starts.append(Start("camera_node", camera.name, parameters))
    return starts


def default_params_file() -> str:
    """The parameter file of the package."""
    return str(config_directory() / "hand_tracking.yaml")


def dds_profile() -> str:
    """The Fast DDS profile with a shared-memory segment that holds images."""
    return str(config_directory() / DDS_PROFILE)
