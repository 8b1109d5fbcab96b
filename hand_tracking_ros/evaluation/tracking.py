"""Track metrics: against ground truth over time, and, where there is none, what a tracker's own output tells."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hand_tracking_ros.errors import RecordError
from hand_tracking_ros.evaluation import motion
from hand_tracking_ros.evaluation.keypoints import joint_errors
from hand_tracking_ros.evaluation.matching import keypoint_costs, match, mean, percentile
from hand_tracking_ros.records import LabelledHand, LabelledImage, TrackedFrame
from hand_tracking_ros.skeleton import Side, palm_length
from hand_tracking_ros.types import Hand, Scale

MATCH_PALM = 0.5  # a hand is found when its mean keypoint distance is at most this share of the palm
CLOSE_PALM = 0.2
TAKE_OVER_S = 0.5  # a track that starts where another was seen this recently is the same hand under a new id

Video = tuple[Sequence[LabelledImage], Sequence[TrackedFrame]]


@dataclass(frozen=True)
class _Path:
    """One labelled hand through a video, where it was found: arrays with time first."""

    stamps_s: np.ndarray
    truth: list[LabelledHand]
    found: list[Hand]

    @property
    def truth_px(self) -> np.ndarray:
        return np.stack([hand.keypoints_px for hand in self.truth])

    @property
    def truth_m(self) -> np.ndarray:
        return np.stack([hand.keypoints_m for hand in self.truth])

    @property
    def found_px(self) -> np.ndarray:
        return np.stack([hand.keypoints_px for hand in self.found])

    def metric(self) -> _Path | None:
        """The part where truth and answer both are in metres."""
        keep = [
            t.keypoints_m is not None and f.scale in (Scale.ASSUMED, Scale.MEASURED)
            for t, f in zip(self.truth, self.found, strict=True)
        ]
        return self.part(np.flatnonzero(keep)) if any(keep) else None

    def part(self, indices: Iterable[int]) -> _Path:
        indices = list(indices)
        return _Path(self.stamps_s[indices], [self.truth[i] for i in indices], [self.found[i] for i in indices])


def track_metrics(sequences: Sequence[Video]) -> dict[str, Any]:
    """Metrics over videos: (labels, tracking output) of each. Labels need ``frame`` and ``stamp_s`` and keypoints.

    Frames that the tracker did not write are ``frames_missing``, and count as frames without hands.
    """
    anonymous = any(_anonymous(tracked) for _, tracked in sequences)
    sequences = [(labels, linked(tracked)) for labels, tracked in sequences]
    paths: list[_Path] = []
    wanted = false = frames = missing = 0
    for labels, tracked in sequences:
        of_tracker = {frame.frame: frame for frame in tracked}
        missing += sum(image.frame not in of_tracker for image in labels)
        found, labelled, unmatched = _paths(labels, of_tracker)
        paths += found
        wanted, false, frames = wanted + labelled, false + unmatched, frames + len(labels)
    errors = np.concatenate([joint_errors(p.truth_px, p.found_px) for p in paths]) if paths else np.empty((0, 21))
    per_hand = errors.mean(axis=1)
    sides = [
        float(t.side == f.side)
        for p in paths
        for t, f in zip(p.truth, p.found, strict=True)
        if Side.UNKNOWN not in (t.side, f.side)
    ]
    latencies = [
        frame.latency_ms["total"] for _, tracked in sequences for frame in tracked if "total" in frame.latency_ms
    ]
    return {
        "videos": len(sequences),
        "frames": frames,
        "frames_missing": missing,
        "hands": wanted,
        "recall": len(errors) / wanted if wanted else float("nan"),
        "recall_within_20_percent": float((per_hand <= 100 * CLOSE_PALM).sum() / wanted) if wanted else float("nan"),
        "false_hands_per_frame": false / frames if frames else float("nan"),
        "mean_percent": mean(errors.ravel()),
        "median_percent": percentile(errors.ravel(), 50),
        "side_accuracy": mean(sides),
        "id_switches": None if anonymous else sum(_changes([f.id for f in p.found]) for p in paths),
        "side_flips": sum(_side_flips(tracked) for _, tracked in sequences),
        "lag_ms": _lag_ms(paths),
        "lag_3d_ms": _lag_ms([path for path in map(_Path.metric, paths) if path is not None], metric=True),
        **_metric_3d(paths),
        **_jitter(paths),
        "latency_ms_p50": percentile(latencies, 50),
        "latency_ms_p99": percentile(latencies, 99),
    }


def check_same_video(
    one: Sequence[LabelledImage] | Sequence[TrackedFrame], tracked: Sequence[TrackedFrame], names: tuple[str, str]
) -> None:
    """Raises RecordError, with the ``names`` of the two, where they share no frame or not the size of one."""
    frames = {frame.frame: frame for frame in tracked}
    common = [(frame, frames[frame.frame]) for frame in one if frame.frame in frames]
    if not common:
        raise RecordError(f"{names[0]} and {names[1]} have no frame in common: they are not of one video")
    for frame, other in common:
        if (frame.width, frame.height) != (other.width, other.height):
            raise RecordError(
                f"frame {frame.frame} is {frame.width}x{frame.height} in {names[0]}, but {other.width}x{other.height} "
                f"in {names[1]}: they are not of one video, or one was resized"
            )


def _paths(labels: Sequence[LabelledImage], frames: dict[int, TrackedFrame]) -> tuple[list[_Path], int, int]:
    """Matched hands by labelled identity, the number of labelled hands, and of hands that match none."""
    matched: dict[Any, list[tuple[float, LabelledHand, Hand]]] = {}
    wanted = false = 0
    for image in labels:
        if any(hand.keypoints_px is None for hand in image.hands):
            name = image.file or f"{image.video}, frame {image.frame}"
            raise RecordError(f"{name}: a hand has no keypoints_px; tracks can only be judged by keypoints")
        found = frames[image.frame].hands if image.frame in frames else ()
        costs = keypoint_costs([hand.keypoints_px for hand in image.hands], [hand.keypoints_px for hand in found])
        pairs = match(costs, MATCH_PALM)
        wanted += len(image.hands)
        taken = {j for _, j in pairs}
        false += sum(j not in taken and not in_ignored_region(hand, image) for j, hand in enumerate(found))
        for i, j in pairs:
            matched.setdefault(_identity(image, i), []).append((image.stamp_s, image.hands[i], found[j]))
    paths = [
        _Path(np.array([m[0] for m in path]), [m[1] for m in path], [m[2] for m in path]) for path in matched.values()
    ]
    return paths, wanted, false


def _identity(image: LabelledImage, index: int) -> Any:
    """What names a labelled hand through the video: its id, else its side, else its place in the list."""
    hand = image.hands[index]
    if hand.id is not None:
        return hand.id
    same_side = sum(other.side == hand.side for other in image.hands)
    return hand.side if hand.side != Side.UNKNOWN and same_side == 1 else f"place {index}"


def in_ignored_region(hand: Hand, image: LabelledImage) -> bool:
    """Whether the hand's centre lies where the labels say that hands count neither way."""
    x, y = hand.box.center_px
    return any(x0 <= x <= x1 and y0 <= y <= y1 for x0, y0, x1, y1 in image.ignore)


def _changes(values: Sequence[Any]) -> int:
    return sum(a != b for a, b in itertools.pairwise(values))


def _side_flips(tracked: Sequence[TrackedFrame]) -> int:
    """How often a track changed its side."""
    sides: dict[int, list[Side]] = {}
    for frame in tracked:
        for hand in frame.hands:
            if hand.side != Side.UNKNOWN:
                sides.setdefault(hand.id, []).append(hand.side)
    return sum(_changes(history) for history in sides.values())


def _lag_ms(paths: Sequence[_Path], metric: bool = False) -> float:
    """The shift of the truth that fits the answers best, over all stretches in which the hand moves.

    ``metric``: of the 3D points, each trajectory about its own mean, so that a wrong distance is no lag.
    """
    costs, samples = np.zeros(len(motion.LAGS_S)), 0
    for path in paths:
        for stretch in motion.runs(path.stamps_s):
            part = path.part(range(len(path.stamps_s))[stretch])
            palm = float(np.median(palm_length(part.truth_px)))
            if len(part.stamps_s) < 5 or motion.at_rest(part.stamps_s, part.truth_px, palm).mean() > 0.5:
                continue
            truth, found = part.truth_px / palm, part.found_px / palm
            if metric:
                truth, found = part.truth_m, np.stack([hand.points_3d for hand in part.found])
                truth, found = truth - truth.mean(axis=0), found - found.mean(axis=0)
            cost, used = motion.lag_curve(part.stamps_s, truth, found)
            costs, samples = costs + cost, samples + used
    return float(1000 * motion.LAGS_S[np.argmin(costs)]) if samples else float("nan")


def _metric_3d(paths: Sequence[_Path]) -> dict[str, Any]:
    """MPJPE and PA-MPJPE in mm, MPJPA in m/s^2. PA also where the answer is relative: scale is aligned away."""
    direct, aligned, accelerations = [], [], []
    for path in paths:
        for truth, found in zip(path.truth, path.found, strict=True):
            if truth.keypoints_m is not None and np.isfinite(found.points_3d).all():
                aligned.append(1000 * motion.procrustes_error(truth.keypoints_m, found.points_3d).mean())
        metric = path.metric()
        if metric is None:
            continue
        truth_m = metric.truth_m
        found_m = np.stack([hand.points_3d for hand in metric.found])
        direct += (1000 * np.linalg.norm(found_m - truth_m, axis=-1).mean(axis=-1)).tolist()
        for stretch in motion.runs(metric.stamps_s):
            value = motion.acceleration_error(metric.stamps_s[stretch], truth_m[stretch], found_m[stretch])
            accelerations += [value] * max(0, len(metric.stamps_s[stretch]) - 2)
    return {"mpjpe_mm": mean(direct), "pa_mpjpe_mm": mean(aligned), "mpjpa_m_s2": mean(accelerations)}


def _jitter(paths: Sequence[_Path]) -> dict[str, Any]:
    """Noise of the answers where the labelled hand rests (docs/evaluation.md)."""
    pixels, metres = [], []
    for path in paths:
        for stretch in motion.runs(path.stamps_s):
            part = path.part(range(len(path.stamps_s))[stretch])
            rest = motion.at_rest(part.stamps_s, part.truth_px, float(np.median(palm_length(part.truth_px))))
            pixels += motion.jitter(part.stamps_s, part.found_px - part.truth_px, rest).ravel().tolist()
            if part.metric() is not None and len(part.metric().truth) == len(part.truth):
                error = np.stack([f.points_3d - t.keypoints_m for t, f in zip(part.truth, part.found, strict=True)])
                metres += motion.jitter(part.stamps_s, error, rest).ravel().tolist()
    return {
        "jitter_px": float(np.sqrt(mean(pixels))),
        "jitter_mm": float(1000 * np.sqrt(mean(metres))),
        "rest_samples": len(pixels) // 21,
    }


def self_metrics(tracked: Sequence[TrackedFrame]) -> dict[str, Any]:
    """What tracking output tells without ground truth: jitter where hands rest, ids, sides, latency."""
    anonymous = _anonymous(tracked)
    tracked = linked(tracked)
    tracks: dict[int, list[tuple[float, Hand]]] = {}
    for frame in tracked:
        for hand in frame.hands:
            tracks.setdefault(hand.id, []).append((frame.stamp_s, hand))
    pixels, metres = [], []
    for track in tracks.values():
        stamps = np.array([stamp for stamp, _ in track])
        for stretch in motion.runs(stamps):
            hands = [hand for _, hand in track[stretch]]
            points = np.stack([hand.keypoints_px for hand in hands])
            rest = motion.at_rest(stamps[stretch], points, float(np.median(palm_length(points))))
            pixels += motion.jitter(stamps[stretch], points, rest).ravel().tolist()
            if all(hand.scale in (Scale.ASSUMED, Scale.MEASURED) for hand in hands):
                points_m = np.stack([hand.points_3d for hand in hands])
                metres += motion.jitter(stamps[stretch], points_m, rest).ravel().tolist()
    pairs = [{hand.side for hand in frame.hands} for frame in tracked if len(frame.hands) == 2]
    latencies = [frame.latency_ms["total"] for frame in tracked if "total" in frame.latency_ms]
    return {
        "frames": len(tracked),
        "frames_with_hand": sum(bool(frame.hands) for frame in tracked),
        "hands": sum(len(frame.hands) for frame in tracked),
        "ids": None if anonymous else len(tracks),
        "id_switches": None if anonymous else _take_overs(tracked),
        "side_flips": _side_flips(tracked),
        "left_right_consistency": mean([float(sides == {Side.LEFT, Side.RIGHT}) for sides in pairs]),
        "jitter_px": float(np.sqrt(mean(pixels))),
        "jitter_mm": float(1000 * np.sqrt(mean(metres))),
        "rest_samples": len(pixels) // 21,
        "latency_ms_p50": percentile(latencies, 50),
        "latency_ms_p99": percentile(latencies, 99),
    }


def _take_overs(tracked: Sequence[TrackedFrame]) -> int:
    """Tracks that start where another, which is gone, was last seen: the same hand under another id."""
    last: dict[int, tuple[float, np.ndarray]] = {}
    switches = 0
    for frame in tracked:
        present = {hand.id for hand in frame.hands}
        gone = {
            i: points
            for i, (stamp, points) in last.items()
            if i not in present and frame.stamp_s - stamp <= TAKE_OVER_S
        }
        new = [hand for hand in frame.hands if hand.id not in last]
        costs = keypoint_costs(list(gone.values()), [hand.keypoints_px for hand in new])
        switches += len(match(costs, MATCH_PALM))
        last.update({hand.id: (frame.stamp_s, hand.keypoints_px) for hand in frame.hands})
    return switches


def _anonymous(tracked: Sequence[TrackedFrame]) -> bool:
    """Whether the tracker gives no ids: 0 stands for none."""
    return any(hand.id == 0 for frame in tracked for hand in frame.hands)


def linked(tracked: Sequence[TrackedFrame]) -> list[TrackedFrame]:
    """The same frames, where hands without an id get a negative one, kept while they overlap from frame to frame."""
    frames, last, fresh = [], [], itertools.count(-1, -1)
    for frame in tracked:
        hands = list(frame.hands)
        costs = keypoint_costs([hand.keypoints_px for hand in last], [hand.keypoints_px for hand in hands])
        before = {j: last[i].id for i, j in match(costs, MATCH_PALM)}
        hands = [
            hand if hand.id != 0 else replace(hand, id=before.get(j, 0) or next(fresh)) for j, hand in enumerate(hands)
        ]
        frames.append(replace(frame, hands=tuple(hands)))
        last = hands
    return frames
