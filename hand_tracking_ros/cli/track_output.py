"""What `hand-tracking track` shows and writes: the summary, what is wrong with a rig, the overlay video."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from hand_tracking_ros.cli.options import text_table
from hand_tracking_ros.errors import HandTrackingError
from hand_tracking_ros.frame_groups import FrameGroups
from hand_tracking_ros.hand_size import HandSize
from hand_tracking_ros.records import TrackedFrame
from hand_tracking_ros.rig_watch import RigWatch
from hand_tracking_ros.types import Hand

CODECS = {".mp4": "mp4v", ".avi": "MJPG", ".mkv": "mp4v", ".webm": "VP90"}
SKIPPED_MS = 0.05  # a detector stage faster than this did not run: it only asked whether it should


class Summary:
    """What was tracked, and how long each stage took."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._frames = self._seen = self._hands = self._detections = 0
        self._ids: set[int] = set()
        self._latency_ms: dict[str, list[float]] = {}

    def add(self, tracked: TrackedFrame) -> None:
        self._frames += 1
        self._seen += bool(tracked.hands)
        self._hands += len(tracked.hands)
        self._ids.update(hand.id for hand in tracked.hands)
        self._detections += tracked.latency_ms.get("detect", 0.0) > SKIPPED_MS
        for stage, ms in tracked.latency_ms.items():
            self._latency_ms.setdefault(stage, []).append(ms)

    def __str__(self) -> str:
        count = self._frames
        if not count:
            return "no frames"
        seconds = time.perf_counter() - self._start
        facts = [
            ("frames", count, f"{count / seconds:.1f} per second, with reading and writing"),
            ("frames with a hand", self._seen, f"{100 * self._seen / count:.1f} %"),
            ("hands", self._hands, f"{self._hands / count:.2f} per frame"),
            ("tracks (ids)", len(self._ids), ""),
        ]
        if "detect" in self._latency_ms:
            facts.append(("detector runs", self._detections, f"{100 * self._detections / count:.1f} % of frames"))
        latency = [
            (stage, *(f"{np.percentile(values, q):.2f}" for q in (50, 99)))
            for stage, values in self._latency_ms.items()
        ]
        left = "\n".join(f"{name:<20}{value:>8}  {note}".rstrip() for name, value, note in facts)
        return f"{left}\n\n{text_table(latency, ('latency, ms', 'p50', 'p99'))}"


class RigReport:
    """What is wrong with the cameras ``names`` of a rig: said on stderr when it is found, and again at the end.

    ``stated_by``: the file that says where they are.
    """

    def __init__(self, names: Sequence[str], stated_by: str) -> None:
        groups: FrameGroups = FrameGroups(len(names), 0.0, silent_s=math.inf)  # files are never silent
        self._names, self._watch = names, RigWatch(names, groups, stated_by)
        self._problems: dict[str, tuple[float, float, str]] = {}  # from when, until when, and what was said last
        self._sum, self._count = np.zeros(len(names)), np.zeros(len(names), int)

    def step(
        self, disagreement: np.ndarray, apart: np.ndarray, lags_s: np.ndarray, stamp_s: float, size: HandSize
    ) -> None:
        """Take what RigTracker says under these names after a step, and the size of the hands that it knows."""
        self._sum += np.nan_to_num(disagreement)
        self._count += ~np.isnan(disagreement)
        self._watch.step(disagreement, apart, lags_s, stamp_s)
        for name, problem in self._watch.problems(stamp_s, size).items():
            if name not in self._problems:
                print(f"hand-tracking: {name}: {problem}", file=sys.stderr)
            first_s, *_ = self._problems.get(name, (stamp_s,))
            self._problems[name] = first_s, stamp_s, problem

    def __str__(self) -> str:
        gaps = {name: s / n for name, s, n in zip(self._names, self._sum, self._count) if n}
        each = ", ".join(f"{name} {gap:.2f}" for name, gap in gaps.items())
        value, note = "-", "no hand was seen by two cameras: where they look at one place, that is a wrong calibration"
        if gaps:
            value = f"{max(gaps.values()):.2f}"
            note = f"palm lengths between cameras and common hands ({each}); usual: 0.02 to 0.1"
        warnings = [
            f"WARNING, from {first_s:.1f} to {last_s:.1f} s: {name}: {problem}"
            for name, (first_s, last_s, problem) in self._problems.items()
        ]
        return "\n".join([f"{'disagreement':<20}{value:>8}  {note}", *warnings])


class OverlayWriter:
    """Video file with the hands drawn on every frame; frames of another size than the first are fitted into it."""

    def __init__(self, path: Path, fps: float) -> None:
        if path.suffix.lower() not in CODECS:
            raise HandTrackingError(f"cannot write overlay {path}: the name must end in one of {', '.join(CODECS)}")
        self._path, self._fps = path, fps
        self._size: tuple[int, int] | None = None
        self._writer: cv2.VideoWriter | None = None

    def write(self, images: Sequence[np.ndarray], hands: Sequence[Sequence[Hand]], *, mono: bool = False) -> None:
        """Draw each camera's hands on its image (BGR or mono), in grey when ``mono``, and append them side by side."""
        from hand_tracking_ros.images import as_mono
        from hand_tracking_ros.overlay import draw_hands

        parts = [draw_hands(as_mono(image) if mono else image, own) for image, own in zip(images, hands, strict=True)]
        tallest = max(part.shape[0] for part in parts)
        drawn = np.hstack([cv2.copyMakeBorder(p, 0, tallest - p.shape[0], 0, 0, cv2.BORDER_CONSTANT) for p in parts])
        if self._writer is None:
            self._size = (drawn.shape[1], drawn.shape[0])
            codec = cv2.VideoWriter_fourcc(*CODECS[self._path.suffix.lower()])
            self._writer = cv2.VideoWriter(str(self._path), codec, self._fps, self._size)
            if not self._writer.isOpened():
                raise HandTrackingError(
                    f"cannot write overlay {self._path}: this OpenCV has no encoder for it (try a name that "
                    "ends in .avi), or the disk is full"
                )
        self._writer.write(drawn if drawn.shape[1::-1] == self._size else self._fitted(drawn))

    def _fitted(self, image: np.ndarray) -> np.ndarray:
        width, height = self._size
        scale = min(width / image.shape[1], height / image.shape[0])
        small = cv2.resize(image, (max(1, int(image.shape[1] * scale)), max(1, int(image.shape[0] * scale))))
        canvas = np.zeros((height, width, 3), np.uint8)
        canvas[: small.shape[0], : small.shape[1]] = small
        return canvas

    def __enter__(self) -> OverlayWriter:
        return self

    def __exit__(self, *_) -> None:
        if self._writer is not None:
            self._writer.release()
