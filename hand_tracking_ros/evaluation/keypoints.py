"""Keypoint metrics, in % of the palm length of the labelled hand. A hand that was not found counts as wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hand_tracking_ros.evaluation.matching import mean, percentile
from hand_tracking_ros.skeleton import JOINT_NAMES, NUM_JOINTS, Side, palm_length

PCK_PERCENT = 20.0
AUC_PERCENT = 50.0


def joint_errors(truth_px: np.ndarray, found_px: np.ndarray) -> np.ndarray:
    """Distance of each joint (..., 21) in % of the palm of ``truth_px`` (..., 21, 2)."""
    palm = np.maximum(palm_length(truth_px), 1e-6)[..., None]
    return 100 * np.linalg.norm(found_px - truth_px, axis=-1) / palm


def keypoint_metrics(
    truth_px: Sequence[np.ndarray],
    found_px: Sequence[np.ndarray | None],
    truth_sides: Sequence[Side] = (),
    right_scores: Sequence[float | None] = (),
) -> dict[str, Any]:
    """Metrics over hands: ``found_px[i]`` (21, 2) answers ``truth_px[i]`` (21, 2); None is a miss.

    Mean and median are over the joints of the hands that were found; PCK and AUC over those of all labelled hands, with
    every joint of a missed hand counted as wrong.
    """
    if len(truth_px) != len(found_px):
        raise ValueError(f"{len(truth_px)} labelled hands, but answers for {len(found_px)}")
    hits = [joint_errors(t, f) for t, f in zip(truth_px, found_px, strict=True) if f is not None]
    errors = np.array(hits).reshape(-1, NUM_JOINTS)
    joints = NUM_JOINTS * len(truth_px)
    per_joint = errors.mean(axis=0) if len(errors) else np.full(NUM_JOINTS, np.nan)
    known = [
        float((right > 0.5) == (side == Side.RIGHT))
        for side, right in zip(truth_sides, right_scores, strict=True)
        if side != Side.UNKNOWN and right is not None
    ]
    return {
        "hands": len(truth_px),
        "missed": len(truth_px) - len(hits),
        "mean_percent": mean(errors.ravel()),
        "median_percent": percentile(errors.ravel(), 50),
        "p90_percent": percentile(errors.ravel(), 90),
        "pck20": float((errors <= PCK_PERCENT).sum() / joints) if joints else float("nan"),
        "auc50": float(np.clip(1 - errors / AUC_PERCENT, 0, 1).sum() / joints) if joints else float("nan"),
        "side_accuracy": mean(known),
        "joint_mean_percent": dict(zip(JOINT_NAMES, per_joint.tolist(), strict=True)),
    }
