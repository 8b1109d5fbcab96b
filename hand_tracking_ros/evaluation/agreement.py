"""Agreement of two trackers on the same video: a peer's output file as reference where there is no ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hand_tracking_ros.evaluation.matching import keypoint_costs, match, mean, percentile
from hand_tracking_ros.records import TrackedFrame
from hand_tracking_ros.skeleton import Side
from hand_tracking_ros.types import Hand

LIMIT_PALM = 0.2


def agreement(
    reference: Sequence[TrackedFrame], tracked: Sequence[TrackedFrame], limit_palm: float = LIMIT_PALM
) -> dict[str, Any]:
    """How much of what ``reference`` sees ``tracked`` sees too, frame by frame.

    A reference hand counts as matched by a hand of the same frame whose mean keypoint distance is at most
    ``limit_palm`` palm lengths (of the reference), one to one. Frames that only one of the two has count as empty in
    the other, so nothing drops out silently. Errors are in % of the palm, over matched hands.
    """
    frames = {frame.frame: frame for frame in tracked}
    missing_frames = sum(frame.frame not in frames for frame in reference)
    total, extra, same_side, errors = 0, 0, [], []
    for expected in reference:
        hands = frames[expected.frame].hands if expected.frame in frames else ()
        costs, pairs = _matched(expected.hands, hands, limit_palm)
        total += len(expected.hands)
        extra += len(hands) - len(pairs)
        for i, j in pairs:
            errors.append(100 * costs[i, j])
            if Side.UNKNOWN not in (expected.hands[i].side, hands[j].side):
                same_side.append(expected.hands[i].side == hands[j].side)
    return {
        "frames": len(reference),
        "frames_missing": missing_frames,
        "reference_hands": total,
        "matched": len(errors),
        "share": len(errors) / total if total else float("nan"),
        "median_error_percent": percentile(errors, 50),
        "p90_error_percent": percentile(errors, 90),
        "extra_hands": extra,
        "same_side": mean(np.array(same_side, dtype=float)),
        "frames_with_hand": sum(bool(frame.hands) for frame in tracked),
    }


def repeated(
    reference: Sequence[TrackedFrame], again: Sequence[TrackedFrame], limit_palm: float = LIMIT_PALM
) -> list[TrackedFrame]:
    """``reference`` with only those hands that ``again`` has, too, as ``agreement`` matches them.

    With what the same tracker says of the same images shown otherwise (mirrored), this leaves what it is sure of: a
    hand that it does not repeat itself is no measure for others.
    """
    frames = {frame.frame: frame.hands for frame in again}
    kept = []
    for expected in reference:
        hands = frames.get(expected.frame, ())
        _, pairs = _matched(expected.hands, hands, limit_palm)
        kept.append(replace(expected, hands=tuple(expected.hands[i] for i in sorted(i for i, _ in pairs))))
    return kept


def _matched(reference: Sequence[Hand], hands: Sequence[Hand], limit_palm: float):
    """Mean keypoint distances in palms, reference by hand, and the pairs (i, j) within the limit, one to one."""
    costs = keypoint_costs([hand.keypoints_px for hand in reference], [hand.keypoints_px for hand in hands])
    return costs, match(costs, limit_palm)
