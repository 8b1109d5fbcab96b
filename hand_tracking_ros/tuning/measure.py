"""Candidates measured on the demo clip, each in a process of its own, in several passes over all of them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from hand_tracking_ros.cli.demo import demo_directory
from hand_tracking_ros.errors import HandTrackingError
from hand_tracking_ros.evaluation.datasets import labelled_images
from hand_tracking_ros.records import read_labels
from hand_tracking_ros.tuning.candidates import Candidate

FPS = 30.0  # of the demo clip
SAMPLE_EVERY = 9  # frames: on those, outputs are compared with the reference
TIMEOUT_S = 900.0  # TensorRT builds its engines in minutes


class Clip(NamedTuple):
    """Mono images, raw in one ``file``; ``samples``: [{'frame': index, 'hands': [(21, 2) px, ...]}, ...]."""

    file: str
    count: int
    height: int
    width: int
    fps: float
    samples: list[dict[str, Any]]


@dataclass
class Measurement:
    """What the processes of a candidate said, all passes together; ``failure``: why one of them did not answer."""

    candidate: Candidate
    wall_ms: dict[str, list[float]] = field(default_factory=dict)  # by number of hands
    cpu_ms: dict[str, list[float]] = field(default_factory=dict)  # per frame, one of each pass
    memory_mb: float = 0.0
    keypoints: list = field(default_factory=list)
    detections: list = field(default_factory=list)
    failure: str = ""

    def add(self, answer: Mapping[str, Any]) -> None:
        """One more pass."""
        for hands, case in answer["cases"].items():
            self.wall_ms.setdefault(hands, []).extend(case["wall_ms"])
            self.cpu_ms.setdefault(hands, []).append(case["cpu_ms"])
        self.memory_mb = max(self.memory_mb, answer["memory_mb"])
        self.keypoints, self.detections = answer["keypoints"], answer["detections"]


class WorkerFailed(HandTrackingError):
    """The process of a candidate crashed, failed or did not end."""


def write_clip(folder: Path) -> Clip:
    """The demo clip, decoded to ``folder``. HandTrackingError when it is missing or cannot be decoded."""
    file, count, samples = folder / "frames.raw", 0, []
    source = demo_directory()
    with file.open("wb") as out:
        for label, mono in labelled_images(source, read_labels(source)):
            mono.tofile(out)
            if count % SAMPLE_EVERY == 0:
                samples.append({"frame": count, "hands": [hand.keypoints_px.tolist() for hand in label.hands]})
            count += 1
    height, width = mono.shape
    return Clip(str(file), count, height, width, FPS, samples)


def measure_all(
    candidates: Sequence[Candidate], clip: Clip, frames: int, passes: int, done: Callable[[], object]
) -> tuple[list[Measurement], dict[Candidate, Measurement]]:
    """Every candidate over ``frames`` timed frames in each of ``passes``, and the references of their networks.

    A pass runs all candidates, the next one in reverse: a busy minute of the machine does not hit one alone.
    ``done`` is called after every process.
    """
    references = {}
    for candidate in dict.fromkeys(candidate.reference() for candidate in candidates):
        references[candidate] = _measured(Measurement(candidate), clip, 0)
        done()
    measurements = [Measurement(candidate) for candidate in candidates]
    for number in range(passes):
        for measurement in measurements[:: -1 if number % 2 else 1]:
            if not measurement.failure:
                _measured(measurement, clip, frames)
            done()
    return measurements, references


def _measured(measurement: Measurement, clip: Clip, frames: int) -> Measurement:
    request = {"parameters": measurement.candidate.parameters(), "clip": clip._asdict(), "frames": frames}
    try:
        measurement.add(run_worker(request, Path(clip.file).parent))
    except WorkerFailed as error:
        measurement.failure = str(error)
    return measurement


def run_worker(request: Mapping[str, Any], folder: Path, timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
    """The answer of tuning/worker.py. WorkerFailed says how it ended instead; its last words are in there."""
    question, answer = folder / "request.json", folder / "result.json"
    question.write_text(json.dumps(request))
    answer.unlink(missing_ok=True)
    command = [sys.executable, "-m", "hand_tracking_ros.tuning.worker", str(question), str(answer)]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        raise WorkerFailed(f"did not end within {timeout_s:.0f} s") from error
    if ended.returncode < 0:
        raise WorkerFailed(f"crashed: {signal.Signals(-ended.returncode).name}")
    if ended.returncode or not answer.is_file():
        words = ended.stderr.strip().splitlines() or [f"exit status {ended.returncode}"]
        raise WorkerFailed(words[-1])
    return json.loads(answer.read_text())
