"""Which of the measured candidates is chosen: accurate enough, within the budget, and then the fastest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from statistics import fmean

import numpy as np

from hand_tracking_ros.backends import version_for
from hand_tracking_ros.config import DetectorConfig, KeypointConfig
from hand_tracking_ros.evaluation.keypoints import joint_errors
from hand_tracking_ros.evaluation.matching import match
from hand_tracking_ros.manifest import load_manifest
from hand_tracking_ros.tuning.candidates import Candidate
from hand_tracking_ros.tuning.measure import Clip, Measurement

FLOOR_BELOW_BEST = 2.0  # percentage points: the default accuracy floor; some hundred held-out hands tell no less apart
MOST_DEVIATION_PERCENT = 3.0  # of the palm: int8 measured 1, a backend that computes something else far more
LEAST_SAME_PERCENT = 80.0  # of the detections
SAME_SHARE = 0.5  # detections whose centres are closer than this share of their side are the same
AS_FAST = 1.1  # candidates within 10 % of the fastest count as equally fast: noise is no less
DEFAULT_NETWORKS = DetectorConfig().model, KeypointConfig().model


@dataclass(frozen=True)
class Limits:
    """What a candidate must meet, and for how many hands it is to be fast. None: no such limit."""

    hands: int = 2
    accuracy_floor: float | None = None  # %; None: FLOOR_BELOW_BEST under the most accurate candidate
    latency_ms: float | None = None  # p99
    cpu_percent: float | None = None  # of one core
    rate_hz: float = 30.0


@dataclass(frozen=True)
class Result:
    """A candidate with what was measured; NaN for what is not known. Percentages are 0..100.

    ``accuracy_percent`` comes from the manifests, ``deviation_percent`` (of the palm, mean over joints) and
    ``same_percent`` (detections) compare with the reference, ``error_percent`` (of the palm) with the clip's labels.
    """

    candidate: Candidate
    cases: Mapping[str, Mapping[str, float]]  # by number of hands: p50_ms, p99_ms, cpu_ms
    memory_mb: float
    accuracy_percent: float
    deviation_percent: float
    same_percent: float
    error_percent: float
    failure: str

    def cpu_percent(self, limits: Limits) -> float:
        """CPU time at the rate of the limits, % of one core."""
        return self.cases[str(limits.hands)]["cpu_ms"] * limits.rate_hz / 10

    def p50_ms(self, limits: Limits) -> float:
        return self.cases[str(limits.hands)]["p50_ms"]


def summarise(measurement: Measurement, reference: Measurement, clip: Clip) -> Result:
    """The figures of a measurement. One whose reference failed has none to compare with, and so has failed too."""
    candidate, nan = measurement.candidate, float("nan")
    failure = measurement.failure or (f"the reference failed: {reference.failure}" if reference.failure else "")
    if failure:
        return Result(candidate, {}, measurement.memory_mb, stated_accuracy(candidate), nan, nan, nan, failure)
    cases = {
        hands: {
            "p50_ms": float(np.percentile(wall_ms, 50)),
            "p99_ms": float(np.percentile(wall_ms, 99)),
            "cpu_ms": fmean(measurement.cpu_ms[hands]),
        }
        for hands, wall_ms in sorted(measurement.wall_ms.items())
    }
    truth = np.array([points for sample in clip.samples for points in sample["hands"]])
    found, wanted = np.array(measurement.keypoints), np.array(reference.keypoints)
    return Result(
        candidate,
        cases,
        measurement.memory_mb,
        stated_accuracy(candidate),
        float(joint_errors(wanted, found).mean()),
        same_detections(reference.detections, measurement.detections),
        float(joint_errors(truth, found).mean()),
        "",
    )


def stated_accuracy(candidate: Candidate) -> float:
    """% of the joints of held-out hands that are found and right: DetNet's recall times KeyNet's PCK at 20 % palm.

    Both as the manifests of the files that run state them, PCK as the mean over its sets. NaN where they state none.
    """
    detector, keypoints = (
        version_for(candidate.backend, load_manifest(model), candidate.precision).accuracy
        for model in (candidate.detector, candidate.keypoints)
    )
    shares = [value for key, value in keypoints.items() if key.endswith("_pck20_percent")]
    return detector.get("recall_percent", float("nan")) * fmean(shares) / 100 if shares else float("nan")


def same_detections(wanted: Sequence[Sequence], found: Sequence[Sequence]) -> float:
    """% of the detections (centre x, y, side) per frame that both have: 200 * shared / (wanted + found)."""
    shared = total = 0
    for ours, theirs in zip(wanted, found, strict=True):
        total += len(ours) + len(theirs)
        if ours and theirs:
            a, b = np.array(ours), np.array(theirs)
            gaps = np.linalg.norm(a[:, None, :2] - b[None, :, :2], axis=-1) / a[:, None, 2]
            shared += len(match(gaps, SAME_SHARE))
    return 200 * shared / total if total else 100.0


def verdicts(results: Sequence[Result], limits: Limits) -> list[str]:
    """Per candidate: empty when it meets the limits, else the first that it does not meet."""
    floor = accuracy_floor(results, limits)
    return [_verdict(result, limits, floor) for result in results]


def accuracy_floor(results: Sequence[Result], limits: Limits) -> float:
    """The floor of the limits, or two points below the most accurate candidate that ran; NaN when none states any."""
    if limits.accuracy_floor is not None:
        return limits.accuracy_floor
    stated = [r.accuracy_percent for r in results if not r.failure and not isnan(r.accuracy_percent)]
    return max(stated) - FLOOR_BELOW_BEST if stated else float("nan")


def _verdict(result: Result, limits: Limits, floor: float) -> str:
    if result.failure:
        return f"failed: {result.failure}"
    if isnan(result.accuracy_percent):
        return "its manifests state no accuracy"
    if result.accuracy_percent < floor:
        return "not accurate enough"
    if not result.deviation_percent <= MOST_DEVIATION_PERCENT:
        return "other keypoints than the reference"
    if not result.same_percent >= LEAST_SAME_PERCENT:
        return "other detections than the reference"
    if limits.latency_ms is not None and result.cases[str(limits.hands)]["p99_ms"] > limits.latency_ms:
        return "too slow"
    if limits.cpu_percent is not None and result.cpu_percent(limits) > limits.cpu_percent:
        return "too much CPU"
    return ""


def choose(results: Sequence[Result], limits: Limits) -> Result | None:
    """The fastest (median) that meets the limits; of those that are as fast, the one with the least CPU time.

    Of these, the default networks come first: more is known of them than the accuracy in the manifests.
    """
    good = [result for result, verdict in zip(results, verdicts(results, limits)) if not verdict]
    if not good:
        return None
    fastest_ms = min(result.p50_ms(limits) for result in good)
    as_fast = [result for result in good if result.p50_ms(limits) <= AS_FAST * fastest_ms]
    return min(as_fast, key=lambda result: (not _has_default_networks(result), result.cpu_percent(limits)))


def _has_default_networks(result: Result) -> bool:
    return (Path(result.candidate.detector).stem, Path(result.candidate.keypoints).stem) == DEFAULT_NETWORKS


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points (latency, accuracy) that no other beats in both, by latency; of equal ones the first."""
    front: list[int] = []
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1], i)):
        if not front or points[index][1] > points[front[-1]][1]:
            front.append(index)
    return front
