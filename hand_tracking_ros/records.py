"""The two file formats of docs/evaluation.md, one JSON object per line: data set labels, and tracking output.

Both are strict JSON: what is not finite is written as null and read back as NaN. A malformed file raises RecordError,
which names file and line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from hand_tracking_ros.geometry import Box
from hand_tracking_ros.jsonl import JsonObject, dumps, objects
from hand_tracking_ros.kinematics import NUM_ANGLES
from hand_tracking_ros.outputs.gestures import SignReader
from hand_tracking_ros.pose_records import outputs_to_record, pose_from_record, pose_to_record
from hand_tracking_ros.skeleton import NUM_JOINTS, Side
from hand_tracking_ros.types import Hand, Scale, Source

_SIDES = {"left": Side.LEFT, "right": Side.RIGHT, None: Side.UNKNOWN}
_SIDE_NAMES = {side: name for name, side in _SIDES.items()}


@dataclass(frozen=True)
class LabelledHand:
    """Ground truth of one hand; at least ``box_px`` or ``keypoints_px`` is known. ``id`` names it through a video."""

    side: Side = Side.UNKNOWN
    box_px: tuple[float, float, float, float] | None = None  # x0, y0, x1, y1
    keypoints_px: np.ndarray | None = None  # (21, 2)
    visible: np.ndarray | None = None  # (21,) bool
    keypoints_m: np.ndarray | None = None  # (21, 3), camera optical frame
    id: int | None = None

    def bounds(self) -> tuple[float, float, float, float]:
        """Tight axis-aligned (x0, y0, x1, y1) px: the label's box, or what its keypoints span."""
        if self.box_px is not None:
            return self.box_px
        assert self.keypoints_px is not None  # read_labels refuses a hand with neither
        return (*self.keypoints_px.min(axis=0).tolist(), *self.keypoints_px.max(axis=0).tolist())


@dataclass(frozen=True)
class LabelledImage:
    """One line of labels.jsonl: an image ``file``, or ``frame`` of a ``video``; paths relative to the file's folder."""

    width: int
    height: int
    hands: tuple[LabelledHand, ...]
    file: str | None = None
    video: str | None = None
    frame: int | None = None
    stamp_s: float | None = None
    person: str | None = None
    ignore: tuple[tuple[float, float, float, float], ...] = ()
    camera: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class TrackedFrame:
    """One line of tracking output: the hands of one processed frame, and how long its stages took."""

    frame: int
    stamp_s: float
    width: int
    height: int
    hands: tuple[Hand, ...]
    latency_ms: Mapping[str, float] = field(default_factory=dict)


# Writing


def hand_to_record(hand: Hand) -> dict[str, Any]:
    """The JSON object of a tracked hand; velocities and pose only where they are known."""
    record = {
        "id": hand.id,
        "side": _SIDE_NAMES[hand.side],
        "side_score": round(hand.side_score, 4),
        "score": round(hand.score, 4),
        "source": hand.source.name.lower(),
        "box": {
            "center_px": np.round(hand.box.center_px, 3).tolist(),
            "size_px": np.round(hand.box.size_px, 3).tolist(),
            "angle_rad": round(hand.box.angle_rad, 5),
        },
        "keypoints_px": np.round(hand.keypoints_px, 3).tolist(),
        "keypoint_scores": np.round(hand.keypoint_scores, 4).tolist(),
        "keypoints_m": None if hand.scale == Scale.NONE else np.round(hand.points_3d, 5).tolist(),
        "scale": hand.scale.name.lower(),
    }
    if not np.isnan(hand.velocities_3d).all():
        record["velocities_3d"] = np.round(hand.velocities_3d, 4).tolist()
    return record if hand.pose is None else {**record, "pose": pose_to_record(hand.pose)}


def frame_to_record(tracked: TrackedFrame, signs: SignReader | None = None) -> dict[str, Any]:
    """The JSON object of one frame of tracking output; with ``signs``, which has seen the frames before, also what
    follows from the poses, and velocities in the image and of the joint angles."""
    hands = [hand_to_record(hand) for hand in tracked.hands]
    if signs is not None:
        signs.forget({hand.id for hand in tracked.hands})
        for hand, record in zip(tracked.hands, hands):
            record["velocities_px"] = np.round(hand.velocities_px, 2).tolist()
            if hand.pose is not None:
                if not np.isnan(hand.angle_velocities).any():
                    record["angle_velocities"] = np.round(hand.angle_velocities, 4).tolist()
                record |= outputs_to_record(hand.pose, signs.read(hand.id, hand.pose, tracked.stamp_s))
    return {
        "frame": tracked.frame,
        "stamp_s": round(tracked.stamp_s, 6),
        "width": tracked.width,
        "height": tracked.height,
        "latency_ms": {stage: round(ms, 3) for stage, ms in tracked.latency_ms.items()},
        "hands": hands,
    }


def write_tracks(stream: TextIO, frames: Iterable[TrackedFrame], signs: SignReader | None = None) -> None:
    """Append tracking output to an open text file; ``signs`` as in ``frame_to_record``."""
    stream.writelines(dumps(frame_to_record(tracked, signs)) + "\n" for tracked in frames)


def label_to_record(image: LabelledImage) -> dict[str, Any]:
    """The JSON object of one labelled image; optional keys only where known."""
    record: dict[str, Any] = {"file": image.file} if image.file is not None else {}
    if image.video is not None:
        record |= {"video": image.video, "frame": image.frame}
    record |= {"width": image.width, "height": image.height, "hands": [_label(hand) for hand in image.hands]}
    optional = {"stamp_s": image.stamp_s, "person": image.person, "camera": image.camera}
    record |= {name: value for name, value in optional.items() if value is not None}
    return record | ({"ignore": [list(region) for region in image.ignore]} if image.ignore else {})


def write_labels(path: str | Path, images: Iterable[LabelledImage]) -> None:
    """Write a labels.jsonl file."""
    with Path(path).open("w") as stream:
        stream.writelines(dumps(label_to_record(image)) + "\n" for image in images)


def _label(hand: LabelledHand) -> dict[str, Any]:
    def listed(array: np.ndarray | None, digits: int) -> list | None:
        return None if array is None else np.round(array, digits).tolist()

    record = {
        "side": _SIDE_NAMES[hand.side],
        "box": listed(None if hand.box_px is None else np.array(hand.box_px), 3),
        "keypoints_px": listed(hand.keypoints_px, 3),
        "visible": None if hand.visible is None else [bool(v) for v in hand.visible],
        "keypoints_m": listed(hand.keypoints_m, 6),
    }
    return record if hand.id is None else {"id": hand.id, **record}


# Reading


def read_labels(path: str | Path) -> list[LabelledImage]:
    """Read labels.jsonl; ``path`` is the file or the data set's folder. Raises RecordError."""
    path = Path(path)
    return [_labelled_image(obj) for obj in objects(path / "labels.jsonl" if path.is_dir() else path)]


def read_tracks(path: str | Path) -> list[TrackedFrame]:
    """Read tracking output (hands.jsonl). Raises RecordError."""
    frames: dict[int, TrackedFrame] = {}
    for obj in objects(Path(path)):
        tracked = _tracked_frame(obj)
        if tracked.frame in frames:
            obj.fail(f"frame {tracked.frame} is in the file a second time: a file is the output of one run")
        frames[tracked.frame] = tracked
    return list(frames.values())


def _labelled_image(obj: JsonObject) -> LabelledImage:
    file, video = obj.get("file", str, optional=True), obj.get("video", str, optional=True)
    frame = obj.get("frame", int, optional=video is None)
    if (file is None) == (video is None):
        obj.fail("needs either 'file' or 'video' and 'frame'")
    regions = [] if obj.values.get("ignore") is None else obj.get("ignore", list)
    wrapped = [JsonObject({"ignore": region}, f"{obj.where}: ignore[{i}]") for i, region in enumerate(regions)]
    return LabelledImage(
        width=_positive(obj, "width"),
        height=_positive(obj, "height"),
        hands=tuple(_labelled_hand(child) for child in obj.children("hands")),
        file=file,
        video=video,
        frame=frame,
        stamp_s=obj.get("stamp_s", (int, float), optional=True),
        person=obj.get("person", str, optional=True),
        ignore=tuple(_box(region, "ignore") for region in wrapped),
        camera=obj.get("camera", dict, optional=True),
    )


def _labelled_hand(obj: JsonObject) -> LabelledHand:
    visible = obj.get("visible", list, optional=True)
    if visible is not None and (len(visible) != NUM_JOINTS or not all(isinstance(v, bool) for v in visible)):
        obj.fail(f"'visible' must be {NUM_JOINTS} times true or false")
    hand = LabelledHand(
        side=obj.choice("side", _SIDES),
        box_px=_box(obj, "box") if obj.values.get("box") is not None else None,
        keypoints_px=obj.array("keypoints_px", NUM_JOINTS, 2, optional=True, finite=True),
        visible=None if visible is None else np.array(visible),
        keypoints_m=obj.array("keypoints_m", NUM_JOINTS, 3, optional=True, finite=True),
        id=obj.get("id", int, optional=True),
    )
    if hand.box_px is None and hand.keypoints_px is None:
        obj.fail("needs a 'box' or 'keypoints_px'; an area that counts neither way belongs into 'ignore'")
    return hand


def _tracked_frame(obj: JsonObject) -> TrackedFrame:
    latency = obj.get("latency_ms", dict, optional=True) or {}
    if not all(isinstance(ms, int | float) for ms in latency.values()):
        obj.fail("'latency_ms' must map stages to numbers")
    return TrackedFrame(
        frame=obj.get("frame", int),
        stamp_s=float(obj.get("stamp_s", (int, float))),
        width=_positive(obj, "width"),
        height=_positive(obj, "height"),
        hands=tuple(_hand(child) for child in obj.children("hands")),
        latency_ms=latency,
    )


def _hand(obj: JsonObject) -> Hand:
    box = JsonObject(obj.get("box", dict), f"{obj.where}: box")
    center, size = box.array("center_px", 2, finite=True), box.array("size_px", 2, finite=True)
    if min(size) <= 0:
        box.fail("'size_px' must be positive")
    pose = obj.get("pose", dict, optional=True)
    return Hand(
        id=obj.get("id", int),
        side=obj.choice("side", _SIDES),
        side_score=float(obj.get("side_score", (int, float))),
        score=float(obj.get("score", (int, float))),
        source=obj.choice("source", {source.name.lower(): source for source in Source}),
        box=Box(tuple(center.tolist()), tuple(size.tolist()), float(box.get("angle_rad", (int, float)))),
        keypoints_px=obj.array("keypoints_px", NUM_JOINTS, 2),
        keypoint_scores=obj.array("keypoint_scores", NUM_JOINTS),
        scale=obj.choice("scale", {scale.name.lower(): scale for scale in Scale}),
        points_3d=_or_nan(obj.array("keypoints_m", NUM_JOINTS, 3, optional=True), NUM_JOINTS, 3),
        velocities_px=_or_nan(obj.array("velocities_px", NUM_JOINTS, 2, optional=True), NUM_JOINTS, 2),
        velocities_3d=_or_nan(obj.array("velocities_3d", NUM_JOINTS, 3, optional=True), NUM_JOINTS, 3),
        angle_velocities=_or_nan(obj.array("angle_velocities", NUM_ANGLES, optional=True), NUM_ANGLES),
        pose=None if pose is None else pose_from_record(JsonObject(pose, f"{obj.where}: pose")),
    )


def _or_nan(values: np.ndarray | None, *shape: int) -> np.ndarray:
    return np.full(shape, np.nan) if values is None else values


def _box(obj: JsonObject, key: str) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = obj.array(key, 4, finite=True).tolist()
    if x1 <= x0 or y1 <= y0:
        obj.fail(f"'{key}' must be [x0, y0, x1, y1] with x0 < x1 and y0 < y1, got {[x0, y0, x1, y1]}")
    return x0, y0, x1, y1


def _positive(obj: JsonObject, key: str) -> int:
    value = obj.get(key, int)
    return value if value > 0 else obj.fail(f"'{key}' must be positive, got {value}")
