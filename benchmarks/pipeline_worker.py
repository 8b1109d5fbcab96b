"""One tracker of benchmarks/pipeline.py in a process of its own: it steps when told to, and says how long that took.

    python pipeline_worker.py ours|mediapipe SETTINGS.json

Stands alone on purpose, as mediapipe_reference.py does: MediaPipe has its own virtual environment. Every line on stdin
is a number of frames; the answer is one JSON line with [milliseconds, hands] of each. ``memory`` is answered with the
most memory (MB) that the process has held. Timed is from a BGR image to the hands, with the conversion to the image
that the tracker takes (grey for ours, RGB for MediaPipe), without reading the frame.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np


def our_tracker(settings: dict) -> tuple[Callable[[np.ndarray, float], int], str]:
    """The step of our tracker, and what runs."""
    import cv2

    from hand_tracking_ros.config import TrackerConfig, from_flat
    from hand_tracking_ros.images import as_mono
    from hand_tracking_ros.tracker import HandTracker
    from hand_tracking_ros.types import Frame

    cv2.setNumThreads(1)
    tracker = HandTracker(from_flat(TrackerConfig, settings["parameters"] | {"track.max_hands": settings["max_hands"]}))
    backends = {f"{stage.backend.name} {stage.backend.precision}" for stage in (tracker.detector, tracker.estimator)}
    return lambda image, stamp_s: len(tracker.step(Frame(as_mono(image), stamp_s))), ", ".join(sorted(backends))


def mediapipe_tracker(settings: dict) -> tuple[Callable[[np.ndarray, float], int], str]:
    """The step of MediaPipe Hands, and its version."""
    import cv2
    import mediapipe

    cv2.setNumThreads(1)
    tracker = mediapipe.solutions.hands.Hands(
        static_image_mode=False, max_num_hands=settings["max_hands"], model_complexity=settings["complexity"]
    )

    def step(image: np.ndarray, stamp_s: float) -> int:
        return len(tracker.process(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)).multi_hand_landmarks or ())

    return step, mediapipe.__version__


def peak_memory_mb() -> float:
    """Most memory that this process has held; Linux' ru_maxrss would count the process that started it as well."""
    return int(re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())[1]) * 1024 / 1e6


def forth_and_back(index: int, count: int) -> int:
    """Which of ``count`` frames is shown when: at its end the clip is played back, so that nothing jumps."""
    period = max(2 * count - 2, 1)
    return min(index % period, period - index % period)


def read_frame(file: str, shape: tuple[int, int, int], index: int) -> np.ndarray:
    """One BGR image of a raw file: a clip in memory would count as memory of the tracker."""
    size = shape[0] * shape[1] * shape[2]
    return np.fromfile(file, np.uint8, size, offset=index * size).reshape(shape)


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    settings = json.loads(Path(sys.argv[2]).read_text())
    os.sched_setaffinity(0, [settings["core"]])  # before any library counts the cores
    step, runs = {"ours": our_tracker, "mediapipe": mediapipe_tracker}[sys.argv[1]](settings)
    print(json.dumps(runs), file=answers, flush=True)
    shape, index, count = (settings["height"], settings["width"], 3), 0, settings["count"]
    for line in sys.stdin:
        if line.strip() == "memory":
            print(json.dumps(peak_memory_mb()), file=answers, flush=True)
            continue
        done = []
        for _ in range(int(line)):
            image = read_frame(settings["frames"], shape, forth_and_back(index, count))
            start_s = time.perf_counter()
            hands = step(image, index / settings["fps"])
            done.append([1e3 * (time.perf_counter() - start_s), hands])
            index += 1
        print(json.dumps(done), file=answers, flush=True)


if __name__ == "__main__":
    main()
