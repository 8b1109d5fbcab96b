"""Which hand is which: one-to-one matching, and the errors of what was matched."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hand_tracking_ros.skeleton import palm_length


def match(costs: np.ndarray, limit: float) -> list[tuple[int, int]]:
    """Greedy one-to-one pairs (row, column) of a cost matrix (N, M), cheapest first, none costlier than ``limit``."""
    costs = np.where(np.isnan(costs), np.inf, costs).astype(np.float64)
    pairs = []
    while costs.size and costs.min() <= limit:
        row, column = np.unravel_index(np.argmin(costs), costs.shape)
        pairs.append((int(row), int(column)))
        costs[row, :] = np.inf
        costs[:, column] = np.inf
    return pairs


def keypoint_costs(truth_px: Sequence[np.ndarray], found_px: Sequence[np.ndarray]) -> np.ndarray:
    """(N, M) mean keypoint distance of every pair, in palm lengths of the truth."""
    if not len(truth_px) or not len(found_px):
        return np.empty((len(truth_px), len(found_px)))
    truth, found = np.stack(truth_px), np.stack(found_px)
    gaps = np.linalg.norm(truth[:, None] - found[None], axis=-1).mean(axis=-1)
    return gaps / np.maximum(palm_length(truth), 1e-6)[:, None]


def percentile(values: Sequence[float] | np.ndarray, q: float) -> float:
    """np.percentile, NaN when there is nothing."""
    return float(np.percentile(values, q)) if len(values) else float("nan")


def mean(values: Sequence[float] | np.ndarray) -> float:
    """np.mean, NaN when there is nothing."""
    return float(np.mean(values)) if len(values) else float("nan")
