"""Parameters of the nodes: the core's config classes plus what only a node needs. No ROS in here.

Every node takes its names from one class below; together they are the names that config/hand_tracking.yaml may use.
That file is written from here: ``python -m hand_tracking_ros.nodes.settings > config/hand_tracking.yaml``.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field

from hand_tracking_ros.budget import BudgetConfig
from hand_tracking_ros.config import (
    Config,
    DetectorConfig,
    FilterConfig,
    FlowConfig,
    GestureConfig,
    InferenceConfig,
    KeypointConfig,
    PoseConfig,
    TrackConfig,
    TrackerConfig,
    flat_fields,
    param,
)
from hand_tracking_ros.profiles import TUNED
from hand_tracking_ros.teleop.arm import ArmConfig
from hand_tracking_ros.teleop.retargeting import RetargetConfig


@dataclass(frozen=True)
class CameraConfig(Config):
    """camera_node: where images come from, and how they are published."""

    source: str = param(
        "0", "Camera index or device, video file, image folder, URL, or 'gst:<pipeline>'", read_only=True
    )
    calibration: str = param(
        "", "Camera calibration YAML; empty: camera_info with K = 0 (uncalibrated)", read_only=True
    )
    frame_id: str = param(
        "camera_optical_frame", "frame_id of the images (an optical frame: x right, y down, z forward)"
    )
    encoding: str = param("mono8", "Encoding of image_raw", choices=("mono8", "bgr8"))
    reliable: bool = param(
        False, "Publish images reliably; best effort drops what a slow reader cannot take", read_only=True
    )
    loop: bool = param(False, "Start a video or folder again at its end", read_only=True)
    pace: str = param(
        "realtime",
        "Video or folder: at its own rate, or as fast as it decodes",
        choices=("realtime", "fast"),
        read_only=True,
    )
    width: int = param(
        0,
        "Width asked of a live camera, or that files are scaled to, px; 0: their own",
        low=0,
        high=16384,
        read_only=True,
    )
    height: int = param(
        0,
        "Height asked of a live camera, or that files are scaled to, px; 0: their own",
        low=0,
        high=16384,
        read_only=True,
    )
    fps: float = param(
        0.0,
        "Rate asked of a live camera, or given to a folder or video, Hz; 0: its own",
        low=0.0,
        high=1000.0,
        read_only=True,
    )
    wait_for_subscribers: int = param(
        0, "Take the first frame once image_raw has this many subscribers", low=0, high=100
    )
    reconnect_s: float = param(
        0.5, "First wait before a lost source is opened again; doubles up to 10 s", low=0.05, high=60.0
    )


@dataclass(frozen=True)
class ImageConfig(Config):
    """How a node receives images."""

    transport: str = param(
        "raw", "image_raw (sensor_msgs/Image) or image_raw/compressed", choices=("raw", "compressed"), read_only=True
    )
    bits: int = param(16, "Significant bits of 16-bit images", low=8, high=16)


@dataclass(frozen=True)
class MarkerConfig(Config):
    """Skeletons for rviz."""

    lifetime_s: float = param(0.5, "A marker that is not renewed disappears after this", low=0.0, high=60.0)
    joint_size_m: float = param(0.012, "Diameter of a joint", low=0.001, high=0.1)


@dataclass(frozen=True)
class TfConfig(Config):
    """Frames of the hands in tf."""

    enabled: bool = param(
        False, "Publish wrists and palms as frames in /tf; needs the package tf2_msgs", read_only=True
    )


@dataclass(frozen=True)
class RigConfig(Config):
    """rig_tracker_node: its cameras, and when their images belong together."""

    extrinsics: str = param(
        "file",
        "Where the cameras stand: as rig.file says, which has their lenses too, or as tf says of the frames that "
        "<name>/camera_info states, which then has the lenses",
        choices=("file", "tf"),
        read_only=True,
    )
    file: str = param(
        "", "Rig of the cameras (YAML, docs/cameras.md); images come on <camera's name>/image_raw", read_only=True
    )
    cameras: str = param(
        "", "Names of the cameras with rig.extrinsics tf, with commas between them; a file has its own", read_only=True
    )
    frame_id: str = param(
        "",
        "frame_id of hands. With a file the name of its frame (empty: rig); with tf any frame that stands still to the "
        "cameras (empty: that of the first camera)",
    )
    depth: str = param(
        "", "Names of the cameras that have depth images, with depth.enabled; with commas, empty: all", read_only=True
    )
    sync_s: float = param(
        0.017,
        "Images whose stamps differ by less, and by less than 0.6 of a frame's time, belong together",
        low=0.0,
        high=1.0,
    )
    wait_s: float = param(0.02, "An image waits this long for those of the other cameras", low=0.0, high=1.0)
    silent_s: float = param(
        0.5, "A camera without an image for this long is reported, and nobody waits for it", low=0.05, high=60.0
    )


@dataclass(frozen=True)
class DepthConfig(Config):
    """A depth image that is aligned with image_raw."""

    enabled: bool = param(
        False,
        "Take depth images from depth/image_rect_raw, aligned with image_raw (32FC1 or 16UC1); in a rig from "
        "<camera's name>/depth/image_rect_raw of the cameras in rig.depth",
        read_only=True,
    )
    sync_s: float = param(0.017, "Most that the stamps of an image and its depth image differ", low=0.0, high=1.0)
    wait_s: float = param(
        0.02, "An image waits this long for its depth image, unless that stream is silent", low=0.0, high=1.0
    )
    silent_s: float = param(
        0.5, "Depth images that have not come for this long are reported, and nobody waits", low=0.05, high=60.0
    )


@dataclass(frozen=True)
class HandSizeConfig(Config):
    """Keeping the measured size of the user's hands."""

    file: str = param("", "Where ~/save_hand_size writes the measured size; empty: to pose.size_file")


@dataclass(frozen=True)
class StageConfig(Config):
    """flow_node: waiting for the other stages."""

    timeout_s: float = param(
        0.5, "A stage that has not answered after this is reported and its answer skipped", low=0.01, high=60.0
    )


@dataclass(frozen=True)
class TargetConfig(Config):
    """arm_teleop_node: how the target is published."""

    frame_id: str = param("base_link", "frame_id of the arm's poses: its base, x forward, y left, z up")
    rate_hz: float = param(50.0, "Rate of target_pose and engaged", low=1.0, high=1000.0, read_only=True)


@dataclass(frozen=True)
class ProcessConfig(Config):
    """The process that a node runs in."""

    cpus: str = param(
        "", "Cores that the whole process keeps to, like '2,3' or '0-3' (Linux); empty: leave it alone", read_only=True
    )


@dataclass(frozen=True)
class NodeConfig(Config):
    """What every node has."""

    autostart: bool = param(
        False, "Configure and activate without a lifecycle manager; exit when that fails", read_only=True
    )
    process: ProcessConfig = field(default_factory=ProcessConfig)


@dataclass(frozen=True)
class CameraNodeConfig(NodeConfig):
    camera: CameraConfig = field(default_factory=CameraConfig)


@dataclass(frozen=True)
class HandTrackerNodeConfig(NodeConfig, TrackerConfig):
    image: ImageConfig = field(default_factory=ImageConfig)
    markers: MarkerConfig = field(default_factory=MarkerConfig)
    gestures: GestureConfig = field(default_factory=GestureConfig)
    tf: TfConfig = field(default_factory=TfConfig)
    depth: DepthConfig = field(default_factory=DepthConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    hand_size: HandSizeConfig = field(default_factory=HandSizeConfig)


@dataclass(frozen=True)
class RigTrackerNodeConfig(NodeConfig, TrackerConfig):
    rig: RigConfig = field(default_factory=RigConfig)
    image: ImageConfig = field(default_factory=ImageConfig)
    markers: MarkerConfig = field(default_factory=MarkerConfig)
    gestures: GestureConfig = field(default_factory=GestureConfig)
    tf: TfConfig = field(default_factory=TfConfig)
    depth: DepthConfig = field(default_factory=DepthConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    hand_size: HandSizeConfig = field(default_factory=HandSizeConfig)


@dataclass(frozen=True)
class DetectorNodeConfig(NodeConfig):
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    image: ImageConfig = field(default_factory=ImageConfig)


@dataclass(frozen=True)
class FlowNodeConfig(NodeConfig):
    flow: FlowConfig = field(default_factory=FlowConfig)
    track: TrackConfig = field(default_factory=TrackConfig)
    stage: StageConfig = field(default_factory=StageConfig)
    image: ImageConfig = field(default_factory=ImageConfig)


@dataclass(frozen=True)
class KeypointNodeConfig(NodeConfig):
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    keypoints: KeypointConfig = field(default_factory=KeypointConfig)
    track: TrackConfig = field(default_factory=TrackConfig)
    image: ImageConfig = field(default_factory=ImageConfig)


@dataclass(frozen=True)
class FilterNodeConfig(NodeConfig):
    filter: FilterConfig = field(default_factory=FilterConfig)
    pose: PoseConfig = field(default_factory=PoseConfig)
    track: TrackConfig = field(default_factory=TrackConfig)
    image: ImageConfig = field(default_factory=ImageConfig)
    markers: MarkerConfig = field(default_factory=MarkerConfig)
    gestures: GestureConfig = field(default_factory=GestureConfig)
    tf: TfConfig = field(default_factory=TfConfig)
    depth: DepthConfig = field(default_factory=DepthConfig)
    hand_size: HandSizeConfig = field(default_factory=HandSizeConfig)


@dataclass(frozen=True)
class ArmTeleopNodeConfig(NodeConfig):
    arm: ArmConfig = field(default_factory=ArmConfig)
    target: TargetConfig = field(default_factory=TargetConfig)


@dataclass(frozen=True)
class RetargetNodeConfig(NodeConfig):
    retarget: RetargetConfig = field(default_factory=RetargetConfig)


NODE_CONFIGS = {
    "camera_node": CameraNodeConfig,
    "hand_tracker_node": HandTrackerNodeConfig,
    "rig_tracker_node": RigTrackerNodeConfig,
    "detector_node": DetectorNodeConfig,
    "flow_node": FlowNodeConfig,
    "keypoint_node": KeypointNodeConfig,
    "filter_node": FilterNodeConfig,
    "arm_teleop_node": ArmTeleopNodeConfig,
    "retarget_node": RetargetNodeConfig,
}


def known_names() -> set[str]:
    """The names of all parameters of all nodes."""
    return set(_all_fields())


def default_yaml() -> str:
    """The parameter file with every parameter of every node at its default, described."""
    lines = [
        "# Parameters of all nodes, at their defaults. Change a copy, and name it as params_file (launch) or",
        "# --params-file (hand-tracking up). A node takes the names that it knows. What is commented out is left to",
        "# the profile of 'hand-tracking tune', where there is one. This file is written by:",
        "# python -m hand_tracking_ros.nodes.settings > config/hand_tracking.yaml",
        "/**:",
        "  ros__parameters:",
    ]
    group = ""
    for name, f in sorted(_all_fields().items(), key=lambda item: item[0].partition(".")[0] if "." in item[0] else ""):
        parent, _, leaf = name.rpartition(".")
        if parent != group:
            lines.append(f"    {parent}:")
            group = parent
        indent = "      " if parent else "    "
        value = f"{leaf}: {json.dumps(f.default)}"  # one that a profile may choose is left open
        lines += [f"{indent}# {_describe(f)}", f"{indent}{'# ' * (name in TUNED)}{value}"]
    return "\n".join(lines) + "\n"


def _all_fields() -> dict[str, dataclasses.Field]:
    return {name: f for config in NODE_CONFIGS.values() for name, f in flat_fields(config)}


def _describe(f: dataclasses.Field) -> str:
    facts = f.metadata
    limits = ""
    if facts["choices"] is not None:
        limits = f" ({', '.join(facts['choices'])})"
    elif facts["low"] is not None:
        limits = f" ({facts['low']} to {facts['high']})"
    return facts["doc"] + limits + (" [at start only]" if facts["read_only"] else "")


if __name__ == "__main__":
    print(default_yaml(), end="")
