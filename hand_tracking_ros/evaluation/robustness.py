"""The robustness suite: how a tracker holds up on the degraded images of degrade.py, one row per condition.

Runs our single-image path, detector and KeyNet; ``robustness_metrics`` takes any tracker's hands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from hand_tracking_ros.config import TrackerConfig
from hand_tracking_ros.detection import HandDetector
from hand_tracking_ros.errors import RecordError
from hand_tracking_ros.evaluation.datasets import FOUND_PALM, facts, labelled_images
from hand_tracking_ros.evaluation.degrade import CONDITIONS, degrade
from hand_tracking_ros.evaluation.keypoints import joint_errors, keypoint_metrics
from hand_tracking_ros.evaluation.matching import keypoint_costs, match
from hand_tracking_ros.evaluation.tracking import in_ignored_region
from hand_tracking_ros.keypoints import KeypointEstimator
from hand_tracking_ros.records import LabelledHand, LabelledImage, dumps, label_to_record
from hand_tracking_ros.skeleton import Side
from hand_tracking_ros.types import Hand

CLOSE_PERCENT = 20.0  # a hand counts as close when its keypoints are on average no further off, in % of the palm


def sample(labels: Sequence[LabelledImage], limit: int | None) -> list[LabelledImage]:
    """The labels in which a hand has keypoints, or ``limit`` of them at even distances. Raises RecordError."""
    usable = [label for label in labels if any(hand.keypoints_px is not None for hand in label.hands)]
    if not usable:
        raise RecordError(f"none of the {len(labels)} labelled images has a hand with keypoints_px")
    if limit is None or limit >= len(usable):
        return usable
    return [usable[i] for i in np.linspace(0, len(usable) - 1, limit).round().astype(int)]


def evaluate_robustness(
    root: Path,
    labels: Sequence[LabelledImage],
    config: TrackerConfig,
    *,
    conditions: Sequence[str] = tuple(CONDITIONS),
    backgrounds: Sequence[np.ndarray] = (),
    write: Path | None = None,
) -> dict[str, Any]:
    """Our detector and KeyNet on every image, mono, under every condition; the images also go to ``write``."""
    detector = HandDetector(config.detector, config.inference)
    estimator = KeypointEstimator(config.keypoints, config.inference, config.track.max_hands)
    seen: dict[str, list[tuple[LabelledImage, list[Hand]]]] = {name: [] for name in conditions}
    writer = None if write is None else DegradedWriter(write)
    for label, mono in labelled_images(root, labels):
        for name in conditions:
            canvas, moved = degrade(mono, label, name, backgrounds)
            seen[name].append((moved, find_hands(detector, estimator, canvas, config)))
            if writer is not None:
                writer.add(name, canvas, moved)
    by_condition = {name: robustness_metrics(*zip(*pairs)) for name, pairs in seen.items()}
    return {**facts(labels), "written": None if write is None else str(write), "by_condition": by_condition}


def find_hands(
    detector: HandDetector, estimator: KeypointEstimator, mono: np.ndarray, config: TrackerConfig
) -> list[Hand]:
    """What the tracker reports of a first image: its best detections, as far as KeyNet confirms them."""
    boxes = [replace(box, id=i) for i, box in enumerate(detector.detect(mono)[: config.track.max_hands], 1)]
    answers = estimator.estimate(mono, boxes) if boxes else []
    return [
        Hand(
            id=answer.id,
            side=Side.RIGHT if answer.right_score > 0.5 else Side.LEFT,
            side_score=max(answer.right_score, 1 - answer.right_score),
            score=answer.presence,
            source=answer.source,
            box=answer.box,
            keypoints_px=answer.keypoints_px,
            keypoint_scores=answer.keypoint_scores,
        )
        for answer in answers
        if answer.presence >= config.track.start_presence
    ]


def robustness_metrics(labels: Sequence[LabelledImage], found: Sequence[Sequence[Hand]]) -> dict[str, Any]:
    """Metrics over images; ``found[i]`` are a tracker's hands in ``labels[i]``.

    A labelled hand is found by the nearest hand within one palm, one to one. Shares are of all labelled hands, errors
    and sides those of the found ones. Hands in ignored regions count neither way.
    """
    truth: list[LabelledHand] = []
    answers: list[Hand | None] = []
    extra = 0
    for label, hands in zip(labels, found, strict=True):
        costs = keypoint_costs([hand.keypoints_px for hand in label.hands], [hand.keypoints_px for hand in hands])
        pairs = dict(match(costs, FOUND_PALM))
        taken = set(pairs.values())
        extra += sum(j not in taken and not in_ignored_region(hand, label) for j, hand in enumerate(hands))
        truth += label.hands
        answers += [hands[pairs[i]] if i in pairs else None for i in range(len(label.hands))]
    points = [hand.keypoints_px for hand in truth]
    rights = [None if a is None or a.side == Side.UNKNOWN else float(a.side == Side.RIGHT) for a in answers]
    metrics = keypoint_metrics(
        points, [None if a is None else a.keypoints_px for a in answers], [hand.side for hand in truth], rights
    )
    close = sum(
        joint_errors(t, a.keypoints_px).mean() <= CLOSE_PERCENT for t, a in zip(points, answers) if a is not None
    )
    count = len(truth) or float("nan")
    return {
        "hands": len(truth),
        "found": (len(truth) - metrics["missed"]) / count,
        "within_20_percent": close / count,
        "mean_percent": metrics["mean_percent"],
        "pck20": metrics["pck20"],
        "side_accuracy": metrics["side_accuracy"],
        "extra_per_image": extra / max(len(labels), 1),
    }


class DegradedWriter:
    """Writes degraded images as data sets, a folder per condition, for any tracker: images/*.png and labels.jsonl.

    Raises RecordError when the folder holds something already, or cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
            raise RecordError(f"{folder} is there already and not empty; name a new folder for the degraded images")
        self._folder = folder
        self._counts: dict[str, int] = {}

    def add(self, condition: str, canvas: np.ndarray, label: LabelledImage) -> None:
        """Write one image; its label names the file."""
        index = self._counts.get(condition, 0)
        self._counts[condition] = index + 1
        stem = Path(label.file).stem if label.file else f"{Path(label.video or '').stem}_{label.frame}"
        record = label_to_record(replace(label, file=f"images/{index:05d}_{stem}.png", video=None, frame=None))
        path = self._folder / condition / record["file"]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(cv2.imencode(".png", canvas)[1].tobytes())
            with (self._folder / condition / "labels.jsonl").open("a") as stream:
                stream.write(dumps(record) + "\n")
        except OSError as error:
            raise RecordError(f"cannot write {path}: {error.strerror}") from error
