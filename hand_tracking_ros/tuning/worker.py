"""One candidate in a process of its own: ``python -m hand_tracking_ros.tuning.worker REQUEST RESULT``, both JSON files.

The request names the parameters, the clip and how many frames are timed (``measure.Clip``); the result holds the times
of every frame, the memory, and what the networks said about the sampled frames.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from hand_tracking_ros.config import TrackerConfig, from_flat
from hand_tracking_ros.errors import HandTrackingError
from hand_tracking_ros.geometry import box_around
from hand_tracking_ros.machine import peak_memory_mb
from hand_tracking_ros.tracker import HandTracker
from hand_tracking_ros.types import Frame, HandBox, Source

WARM_UP = 20  # frames before the timed ones
HANDS = (1, 2)


class FrameFile:
    """The mono images of a clip, read one by one: a clip in memory would count as memory of the tracker."""

    def __init__(self, clip: Mapping[str, Any]) -> None:
        self._file, self._count = clip["file"], clip["count"]
        self._shape = (clip["height"], clip["width"])

    def __getitem__(self, index: int) -> np.ndarray:
        """(H, W) uint8; beyond the end the clip is played back, then forth again, so that nothing jumps."""
        period = max(2 * self._count - 2, 1)
        index = min(index % period, period - index % period)
        size = self._shape[0] * self._shape[1]
        return np.fromfile(self._file, np.uint8, size, offset=index * size).reshape(self._shape)


def measure(request: Mapping[str, Any]) -> dict[str, Any]:
    """Times (ms) per number of hands, peak memory (MB), outputs on the sampled frames. Raises HandTrackingError."""
    cv2.setNumThreads(1)  # as the nodes do
    config = from_flat(TrackerConfig, {**request["parameters"], "track.max_hands": max(HANDS)})
    tracker, frames = HandTracker(config), FrameFile(request["clip"])
    said = outputs(tracker, frames, request["clip"]["samples"])
    cases = {}
    for hands in HANDS if request["frames"] else ():
        tracker.reset()
        tracker.reconfigure(replace(config, track=replace(config.track, max_hands=hands)))
        cases[str(hands)] = timed(tracker, frames, request["frames"], request["clip"]["fps"])
    return {"cases": cases, "memory_mb": peak_memory_mb(), **said}


def timed(tracker: HandTracker, frames: FrameFile, count: int, fps: float) -> dict[str, Any]:
    """Milliseconds of every frame, and CPU time per frame: of all threads, those that wait by spinning included."""
    wall_ms, cpu_s = [], 0.0
    for index in range(WARM_UP + count):
        if index == WARM_UP:
            cpu_s = time.process_time()
        mono = frames[index]
        start_s = time.perf_counter()
        tracker.step(Frame(mono, index / fps))
        if index >= WARM_UP:
            wall_ms.append(1e3 * (time.perf_counter() - start_s))
    return {"wall_ms": wall_ms, "cpu_ms": 1e3 * (time.process_time() - cpu_s) / count}


def outputs(tracker: HandTracker, frames: FrameFile, samples: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Keypoints (21, 2) px in the labelled boxes, hand after hand; the detector's (x, y, side) px per frame."""
    keypoints, detections = [], []
    for sample in samples:
        mono = frames[sample["frame"]]
        labelled = [box_around(np.array(points)) for points in sample["hands"]]
        boxes = [HandBox(box, 1.0, id=i + 1, source=Source.PROPAGATED) for i, box in enumerate(labelled)]
        keypoints += [found.keypoints_px.tolist() for found in tracker.estimator.estimate(mono, boxes)]
        found = tracker.detector.detect(mono)
        detections.append([[*hand.box.center_px, hand.box.size_px[0]] for hand in found])
    return {"keypoints": keypoints, "detections": detections}


def main() -> int:
    request, result = map(Path, sys.argv[1:])
    try:
        measured = measure(json.loads(request.read_text()))
    except HandTrackingError as error:
        print(error, file=sys.stderr)
        return 2
    result.write_text(json.dumps(measured))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
