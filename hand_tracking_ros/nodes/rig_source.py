"""Where rig_tracker_node has its cameras from: a rig file, or camera_info and tf."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial

from hand_tracking_ros.errors import ConfigError, TransformError
from hand_tracking_ros.nodes.base import HandNode
from hand_tracking_ros.nodes.diagnostics import FrameLoss
from hand_tracking_ros.nodes.image_input import CameraInput
from hand_tracking_ros.nodes.tf_messages import tf_message_type, tf_qos
from hand_tracking_ros.rig import Rig, RigCamera, load_rig
from hand_tracking_ros.transforms import FrameTree, transform

TOPIC_NAME = re.compile(r"[A-Za-z_]\w*(/[A-Za-z_]\w*)*", re.ASCII)


class FileRig:
    """The rig of ``rig.file``. Raises ConfigError or CalibrationError."""

    stated_by = "rig.file"

    def __init__(self, node: HandNode) -> None:
        self._node, file = node, node.config.rig.file
        if not file:
            raise ConfigError(
                "the parameter rig.file is not set; 'hand-tracking rig' makes and checks rig files, and with "
                "rig.extrinsics: tf none is needed"
            )
        self._rig = load_rig(file)
        self.names = [camera.name for camera in self._rig.cameras]
        _check_names(self.names, file)
        node.statistics.facts["extrinsics"] = "file"

    @property
    def frame_id(self) -> str:
        """The frame of the hands."""
        return self._node.config.rig.frame_id or "rig"

    def subscribe(self, losses: Sequence[FrameLoss]) -> None:
        """Nothing to wait for."""

    def size_wh(self, index: int) -> tuple[int, int] | None:
        """Width and height in px of a camera's images; None while they are not known."""
        camera = self._rig.cameras[index]
        return camera.width, camera.height

    def rig(self) -> Rig:
        """The cameras where they stand now, in ``frame_id``; the same object while nothing has changed."""
        return self._rig


class TfRig:
    """The cameras ``rig.cameras``: lenses from <name>/camera_info, places from tf by the frames stated there.

    Places are the newest ones that tf states: they are not led to the stamps of images. Raises ConfigError.
    """

    stated_by = "camera_info or tf"

    def __init__(self, node: HandNode) -> None:
        self._node, self._type = node, tf_message_type("rig.extrinsics: tf")
        self.names = names_in(node.config.rig.cameras)
        if not self.names:
            raise ConfigError(
                "rig.extrinsics is tf, but the parameter rig.cameras names no camera: name them with commas between, "
                "as in 'left,right'; images and lenses come on <name>/image_raw and <name>/camera_info"
            )
        _check_names(self.names, "rig.cameras")

    @property
    def frame_id(self) -> str:
        """The frame of the hands; empty while not even that is known."""
        return self._node.config.rig.frame_id or self._infos[0].frame_id

    def subscribe(self, losses: Sequence[FrameLoss]) -> None:
        """Listen until the node is deactivated; ``losses`` take what each camera_info announces."""
        node, self._tree = self._node, FrameTree()
        self._rig: Rig | None = None
        self._made_of: tuple = ()
        self._between: dict[str, bool] = {}  # the frames that the places hang on, once they are known
        self._statements = 0
        node.statistics.facts |= {"extrinsics": "tf, not known yet", "tf_errors": 0}
        self._infos = [CameraInput(node, name, loss, "all wait") for name, loss in zip(self.names, losses)]
        for info in self._infos:
            info.subscribe()
        node.subscribe(self._type, "/tf_static", partial(self._on_tf, False), tf_qos(static=True))
        node.subscribe(self._type, "/tf", partial(self._on_tf, True), tf_qos())

    def size_wh(self, index: int) -> tuple[int, int] | None:
        """As FileRig's."""
        return self._infos[index].size_wh

    def rig(self) -> Rig:
        """As FileRig's. Raises TransformError while something is missing, and says what."""
        made_of = (self._statements, self.frame_id, *((info.camera, info.frame_id) for info in self._infos))
        if self._rig is None or made_of != self._made_of:
            self._rig = None
            self._rig, self._made_of = self._make(), made_of
        return self._rig

    def _on_tf(self, moves: bool, message) -> None:
        for stated in message.transforms:
            parent, child = stated.header.frame_id, stated.child_frame_id
            if moves and self._rig is not None and child not in self._between:
                continue  # the arms of the robot, and our own hands
            at, turn = stated.transform.translation, stated.transform.rotation
            try:
                T_parent_from_child = transform((at.x, at.y, at.z), (turn.x, turn.y, turn.z, turn.w))
                self._tree.state(parent, child, T_parent_from_child, moves)
            except TransformError as error:
                self._node.statistics.facts["tf_errors"] += 1
                self._node.warn(f"tf, '{child}' in '{parent}': {error}")
            else:
                self._statements += 1

    def _make(self) -> Rig:
        cameras, missing, self._between = [], [], {}
        for name, info in zip(self.names, self._infos):
            try:
                cameras.append(self._camera(name, info))
            except TransformError as error:
                missing.append(f"camera '{name}': {error}")
        if missing:
            self._node.statistics.facts["extrinsics"] = "tf, not known yet"
            raise TransformError(f"waiting for where the cameras are: {'; '.join(missing)}")
        for info in self._infos:
            self._between |= self._tree.links_between(info.frame_id, self.frame_id)
        moving = ", ".join(frame for frame, moves in self._between.items() if moves)
        self._node.statistics.facts["extrinsics"] = f"tf, in {self.frame_id}" + (
            f", moving: {moving}" if moving else ""
        )
        return Rig(tuple(cameras))

    def _camera(self, name: str, info: CameraInput) -> RigCamera:
        if info.size_wh is None:
            raise TransformError(f"no camera_info on {info.topic}")
        if info.camera is None or not info.frame_id:
            what = "is not calibrated" if info.camera is None else "names no frame_id"
            raise TransformError(f"{info.topic} {what}")
        T_camera_from_rig = self._tree.T_dst_from_src(info.frame_id, self.frame_id or info.frame_id)
        return RigCamera(name, *info.size_wh, info.camera, T_camera_from_rig[:3, :3], T_camera_from_rig[:3, 3])


def rig_source(node: HandNode) -> FileRig | TfRig:
    """What ``rig.extrinsics`` asks for. Raises ConfigError or CalibrationError."""
    return {"file": FileRig, "tf": TfRig}[node.config.rig.extrinsics](node)


def names_in(text: str) -> list[str]:
    """What stands in ``text`` with commas between."""
    return [name.strip() for name in text.split(",") if name.strip()]


def _check_names(names: Sequence[str], where: str) -> None:
    for name in names:
        if not TOPIC_NAME.fullmatch(name):
            raise ConfigError(
                f"camera '{name}' of {where} makes no topic name: use letters, digits and _, not beginning with a digit"
            )
    if len(set(names)) < len(names):
        raise ConfigError(f"{where} names a camera twice: {', '.join(names)}")
