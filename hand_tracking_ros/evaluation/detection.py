"""Detection metrics: average precision, recall at a false-positive rate, centre, size and side of what was found.

Labels have axis-aligned boxes, the detector turned squares. Both are compared as upright squares: for a label the
square around its box's centre with the box's long side (or, where keypoints are labelled, the tight turned square
around them, turned upright), so IoU judges place and size; angles are reported on their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hand_tracking_ros.evaluation.matching import mean, percentile
from hand_tracking_ros.geometry import Box, box_around, iou, wrap_angle
from hand_tracking_ros.records import LabelledHand, LabelledImage
from hand_tracking_ros.skeleton import Side
from hand_tracking_ros.types import HandBox

IOU = 0.5
FALSE_PER_IMAGE = 0.1
REFERENCE_WIDTH = 640
# Long side of the label's box in px, in an image scaled to 640 px width.
SIZES = {
    "all": (0.0, np.inf),
    "<48": (0.0, 48.0),
    "48-80": (48.0, 80.0),
    "80-128": (80.0, 128.0),
    ">128": (128.0, np.inf),
}


@dataclass(frozen=True)
class _Outcome:
    """What became of one detection; ``truth`` is (image, hand) indices or None, ``size`` at 640 px width."""

    score: float
    truth: tuple[int, int] | None
    size: float


def detection_metrics(labels: Sequence[LabelledImage], found: Sequence[Sequence[HandBox]]) -> dict[str, Any]:
    """Metrics over images; ``found[i]`` are the detections in ``labels[i]``, down to a low score."""
    if len(labels) != len(found):
        raise ValueError(f"{len(labels)} labelled images, but detections for {len(found)}")
    outcomes = [_outcomes(i, image, boxes) for i, (image, boxes) in enumerate(zip(labels, found, strict=True))]
    flat = sorted((outcome for image in outcomes for outcome, _ in image), key=lambda o: -o.score)
    sizes = {(i, j): _size(hand, image) for i, image in enumerate(labels) for j, hand in enumerate(image.hands)}
    by_size = {name: _curve(flat, sizes, limits, len(labels)) for name, limits in SIZES.items()}
    pairs = [(labels[o.truth[0]].hands[o.truth[1]], box) for im in outcomes for o, box in im if o.truth]
    return {"images": len(labels), "hands": len(sizes), "by_size": by_size, **_quality(pairs)}


def _outcomes(index: int, image: LabelledImage, boxes: Sequence[HandBox]) -> list[tuple[_Outcome, HandBox]]:
    """Match the detections of one image, best first, each to the free label that it overlaps most."""
    free = {j: label_square(hand) for j, hand in enumerate(image.hands)}
    scale = REFERENCE_WIDTH / image.width
    outcomes = []
    for found in sorted(boxes, key=lambda b: -b.score):
        square = replace(found.box, angle_rad=0.0)
        overlaps = {j: iou(square, truth) for j, truth in free.items()}
        best = max(overlaps, key=overlaps.__getitem__, default=None)
        if best is not None and overlaps[best] >= IOU:
            del free[best]
            truth = (index, best)
        elif any(_share_inside(square, region) > 0.5 for region in image.ignore):
            continue
        else:
            truth = None
        outcomes.append((_Outcome(found.score, truth, max(found.box.size_px) * scale), found))
    return outcomes


def label_square(hand: LabelledHand) -> Box:
    """The label's box as an upright square (module docstring)."""
    if hand.keypoints_px is not None:
        return replace(box_around(hand.keypoints_px), angle_rad=0.0)
    x0, y0, x1, y1 = hand.bounds()
    side = max(x1 - x0, y1 - y0)
    return Box(((x0 + x1) / 2, (y0 + y1) / 2), (side, side))


def _size(hand: LabelledHand, image: LabelledImage) -> float:
    x0, y0, x1, y1 = hand.bounds()
    return max(x1 - x0, y1 - y0) * REFERENCE_WIDTH / image.width


def _share_inside(box: Box, region: tuple[float, float, float, float]) -> float:
    """Share of the area of an upright box that lies in a region."""
    x0, y0, x1, y1 = box.bounds()
    width, height = min(x1, region[2]) - max(x0, region[0]), min(y1, region[3]) - max(y0, region[1])
    return max(0.0, width) * max(0.0, height) / ((x1 - x0) * (y1 - y0))


def _curve(outcomes: list[_Outcome], sizes: dict, limits: tuple[float, float], images: int) -> dict[str, Any]:
    """AP and recall for labels within size ``limits``. Hands of other sizes count neither way, and so do unmatched
    detections of other sizes."""
    low, high = limits
    wanted = sum(low <= size < high for size in sizes.values())
    relevant = [o for o in outcomes if low <= (o.size if o.truth is None else sizes[o.truth]) < high]
    hits = np.array([o.truth is not None for o in relevant], dtype=float)
    true, false = np.cumsum(hits), np.cumsum(1 - hits)
    if not wanted:
        return {"hands": 0, "ap50": float("nan"), "recall_at_0.1_fppi": float("nan")}
    recall, precision = true / wanted, true / np.maximum(true + false, 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    allowed = recall[false <= FALSE_PER_IMAGE * images]
    return {
        "hands": wanted,
        "ap50": float(np.sum(np.diff(recall, prepend=0.0) * envelope)),
        "recall_at_0.1_fppi": float(allowed.max()) if len(allowed) else 0.0,
    }


def _quality(pairs: list[tuple[LabelledHand, HandBox]]) -> dict[str, Any]:
    """Centre, size, angle and side of the detections that hit."""
    centers, ratios, angles, sides = [], [], [], []
    for hand, found in pairs:
        square = label_square(hand)
        radius = square.size_px[0] / 2
        centers.append(np.hypot(*np.subtract(found.box.center_px, square.center_px)) / radius)
        ratios.append(max(found.box.size_px) / (2 * radius))
        if hand.keypoints_px is not None:
            difference = found.box.angle_rad - box_around(hand.keypoints_px).angle_rad
            angles.append(abs(np.degrees(wrap_angle(difference))))
        if hand.side != Side.UNKNOWN:
            sides.append(float((found.right_score > 0.5) == (hand.side == Side.RIGHT)))
    return {
        "center_error_radius": mean(centers),
        "center_error_radius_p90": percentile(centers, 90),
        "size_ratio_median": percentile(ratios, 50),
        "angle_error_deg_median": percentile(angles, 50),
        "side_accuracy": mean(sides),
        "side_known": len(sides),
    }
