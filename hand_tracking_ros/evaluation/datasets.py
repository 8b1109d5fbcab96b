"""Labelled data sets (docs/evaluation.md) through our core: images read, stages run, metrics computed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hand_tracking_ros.config import TrackerConfig
from hand_tracking_ros.detection import HandDetector
from hand_tracking_ros.errors import RecordError
from hand_tracking_ros.evaluation.detection import detection_metrics
from hand_tracking_ros.evaluation.keypoints import keypoint_metrics
from hand_tracking_ros.evaluation.matching import keypoint_costs, match
from hand_tracking_ros.evaluation.run import track_source
from hand_tracking_ros.evaluation.tracking import Video, check_same_video, track_metrics
from hand_tracking_ros.geometry import box_around
from hand_tracking_ros.images import as_mono
from hand_tracking_ros.keypoints import KeypointEstimator
from hand_tracking_ros.records import LabelledHand, LabelledImage, TrackedFrame
from hand_tracking_ros.sources import FOLDER_FPS, open_source, read_image
from hand_tracking_ros.tracker import HandTracker
from hand_tracking_ros.types import Camera, Frame, HandBox, HandKeypoints, Source

DETECTION_FLOOR = 0.01  # lowest score that goes into precision-recall curves
FOUND_PALM = 1.0  # an answer belongs to a labelled hand when it is no further off than this


def facts(labels: Sequence[LabelledImage]) -> dict[str, Any]:
    """How much was measured; people where the labels name them."""
    people = {image.person for image in labels if image.person is not None}
    return {
        "images": len(labels),
        "hands": sum(len(image.hands) for image in labels),
        "people": len(people) or None,
    }


def labelled_images(
    root: Path, labels: Sequence[LabelledImage], convert: Callable[[np.ndarray], np.ndarray] = as_mono
) -> Iterator[tuple[LabelledImage, np.ndarray]]:
    """Every label with its image, mono (H, W) or as ``convert`` makes it; labels of one video in frame order."""
    for image in labels:
        if image.file is not None:
            yield image, _checked(convert(read_image(root / image.file)), image)
    for video, group in _by_video(labels):
        wanted = {image.frame: image for image in group}
        with open_source(root / video, pace="fast") as source:
            for item in itertools.islice(source, max(wanted) + 1):
                if item.index in wanted:
                    yield wanted[item.index], _checked(convert(item.image), wanted[item.index])
                    del wanted[item.index]
        if wanted:
            raise RecordError(f"video {root / video} has no frame {min(wanted)}, which the labels name")


def evaluate_detection(root: Path, labels: Sequence[LabelledImage], config: TrackerConfig) -> dict[str, Any]:
    """Run the detector on every image and compare with the labels' boxes."""
    detector = HandDetector(replace(config.detector, score_threshold=DETECTION_FLOOR), config.inference)
    seen = [(image, detector.detect(mono)) for image, mono in labelled_images(root, labels)]
    return {**facts(labels), **detection_metrics([image for image, _ in seen], [found for _, found in seen])}


def evaluate_keypoints(
    root: Path, labels: Sequence[LabelledImage], config: TrackerConfig, boxes: str = "labels"
) -> dict[str, Any]:
    """Run KeyNet on every labelled hand, in boxes from the 'labels' or from the 'detector'.

    A hand is missed when no answer reaches the presence that the tracker asks for: ``track.keep_presence`` in the
    label's own box, ``track.start_presence`` in a detected one, which must also lie within a palm of the label.
    """
    estimator = KeypointEstimator(config.keypoints, config.inference)
    detector = HandDetector(config.detector, config.inference) if boxes == "detector" else None
    truth: list[LabelledHand] = []
    answers: list[HandKeypoints | None] = []
    false = unlabelled = 0
    for image, mono in labelled_images(root, labels):
        hands = [hand for hand in image.hands if hand.keypoints_px is not None]
        unlabelled += len(image.hands) - len(hands)
        if detector is None:
            found = [_in_own_box(estimator, mono, hand, config.track.keep_presence) for hand in hands]
        else:
            found, extra = _in_detected_boxes(estimator, detector, mono, hands, config.track.start_presence)
            false += extra
        truth += hands
        answers += found
    metrics = keypoint_metrics(
        [hand.keypoints_px for hand in truth],
        [None if answer is None else answer.keypoints_px for answer in answers],
        [hand.side for hand in truth],
        [None if answer is None else answer.right_score for answer in answers],
    )
    counts = {"boxes": boxes, "hands_without_keypoints": unlabelled}
    if detector is not None:
        counts["false_hands_per_image"] = false / max(len(labels), 1)
    return {**facts(labels), **counts, **metrics}


def evaluate_tracking(
    root: Path, labels: Sequence[LabelledImage], config: TrackerConfig, tracks: Sequence[TrackedFrame] | None = None
) -> dict[str, Any]:
    """Track every video (or folder of images as a sequence) and compare; or judge ``tracks`` of the one video."""
    tracker = HandTracker(config) if tracks is None else None
    videos: list[Video] = []
    for video, group in _by_video(labels):
        with open_source(root / video, pace="fast") as source:
            timed = [replace(image, stamp_s=image.frame / source.fps) for image in group]
            if tracker is not None:
                tracker.reset()
                tracked = [tracked for _, tracked in track_source(tracker, source, label_camera(group[0]))]
                videos.append((timed, tracked))
            else:
                videos.append((timed, tracks))
    for sequence in _image_sequences(labels):
        videos.append((sequence, _track_images(tracker, root, sequence) if tracker is not None else tracks))
    if tracks is not None and len(videos) != 1:
        raise RecordError(f"a tracking file belongs to one video, but the labels have {len(videos)}")
    if tracks is not None:
        check_same_video(videos[0][0], tracks, ("the labels", "the tracks"))
    return {**facts(labels), **track_metrics(videos)}


def _in_own_box(estimator: KeypointEstimator, mono: np.ndarray, hand: LabelledHand, presence: float):
    """KeyNet's answer in the exact box of the label, None where it sees no hand."""
    box = HandBox(box_around(hand.keypoints_px), 1.0, id=1, source=Source.PROPAGATED)  # not new: one look is enough
    answer = estimator.estimate(mono, [box])[0]
    return answer if answer.presence >= presence else None


def _in_detected_boxes(
    estimator: KeypointEstimator, detector: HandDetector, mono: np.ndarray, hands: list[LabelledHand], presence: float
) -> tuple[list[HandKeypoints | None], int]:
    """For each labelled hand the answer that lies closest, and how many answers belong to none."""
    boxes = [replace(box, id=number) for number, box in enumerate(detector.detect(mono), 1)]
    found = [a for a in (estimator.estimate(mono, boxes) if boxes else []) if a.presence >= presence]
    pairs = dict(match(keypoint_costs([h.keypoints_px for h in hands], [a.keypoints_px for a in found]), FOUND_PALM))
    return [found[pairs[i]] if i in pairs else None for i in range(len(hands))], len(found) - len(pairs)


def _track_images(tracker: HandTracker, root: Path, sequence: Sequence[LabelledImage]) -> list[TrackedFrame]:
    tracker.reset()
    tracked = []
    for image in sequence:
        mono = _checked(as_mono(read_image(root / image.file)), image)
        hands = tracker.step(Frame(mono, image.stamp_s, label_camera(image)))
        latency_ms = {stage: 1000 * seconds for stage, seconds in tracker.timings_s.items()}
        tracked.append(TrackedFrame(image.frame, image.stamp_s, image.width, image.height, tuple(hands), latency_ms))
    return tracked


def _by_video(labels: Sequence[LabelledImage]) -> Iterator[tuple[str, list[LabelledImage]]]:
    group: dict[str, list[LabelledImage]] = {}
    for image in labels:
        if image.video is not None:
            group.setdefault(image.video, []).append(image)
    for video, images in group.items():
        yield video, sorted(images, key=lambda image: image.frame)


def _image_sequences(labels: Sequence[LabelledImage]) -> Iterator[list[LabelledImage]]:
    """Images of one folder, in the order of the labels, are one sequence, at their stamps or at 30 Hz."""
    folders: dict[str, list[LabelledImage]] = {}
    for image in labels:
        if image.file is not None:
            folders.setdefault(str(Path(image.file).parent), []).append(image)
    for images in folders.values():
        yield [
            replace(image, frame=i, stamp_s=i / FOLDER_FPS if image.stamp_s is None else image.stamp_s)
            for i, image in enumerate(images)
        ]


def label_camera(image: LabelledImage) -> Camera | None:
    """The camera of a label, whose cx and cy are corner-origin as all pixels of labels are. Raises RecordError."""
    if image.camera is None:
        return None
    try:
        K, D = [float(value) for value in image.camera["K"]], image.camera.get("D") or ()
        model = image.camera.get("model", "pinhole")
        return Camera(*K, model=model, distortion=tuple(D))
    except (KeyError, TypeError, ValueError) as error:
        raise RecordError(
            f"{image.file or image.video}: camera needs 'K': [fx, fy, cx, cy] and the 'D' of its 'model': {error}"
        ) from error


def _checked(pixels: np.ndarray, image: LabelledImage) -> np.ndarray:
    height, width = pixels.shape[:2]
    if (width, height) != (image.width, image.height):
        name = image.file or f"{image.video}, frame {image.frame}"
        raise RecordError(f"{name} is {width}x{height}, but its label says {image.width}x{image.height}")
    return pixels
