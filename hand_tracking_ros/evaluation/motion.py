"""Measures of trajectories: alignment, acceleration error, jitter, lag. Plain arrays, time first, seconds."""

from __future__ import annotations

import itertools

import numpy as np

from hand_tracking_ros.evaluation.matching import mean

REST_SPEED = 0.3  # palm lengths per second: slower is rest
REST_WINDOW_S = 0.2  # over which speed is judged, so that jitter does not pass for motion
LAGS_S = np.arange(-0.05, 0.2001, 0.001)


def procrustes_error(truth: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Joint errors (J,) left after the best rotation, scale and translation of ``found`` (J, 3) onto ``truth``."""
    t, f = truth - truth.mean(axis=0), found - found.mean(axis=0)
    u, s, vt = np.linalg.svd(f.T @ t)
    mirror = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    turned = f @ (u * mirror) @ vt
    scale = (s * mirror).sum() / max((f**2).sum(), 1e-12)
    return np.linalg.norm(scale * turned - t, axis=-1)


def acceleration(stamps_s: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Second derivative at the inner samples: (T,), (T, ...) -> (T - 2, ...); steps may differ."""
    shape = (-1,) + (1,) * (points.ndim - 1)
    before, after = np.diff(stamps_s)[:-1].reshape(shape), np.diff(stamps_s)[1:].reshape(shape)
    rates = np.diff(points, axis=0)
    return 2 * (rates[1:] / after - rates[:-1] / before) / (before + after)


def acceleration_error(stamps_s: np.ndarray, truth: np.ndarray, found: np.ndarray) -> float:
    """Mean norm of the difference of accelerations; (T, J, D) in metres gives MPJPA in m/s^2."""
    if len(stamps_s) < 3:
        return float("nan")
    difference = acceleration(stamps_s, found) - acceleration(stamps_s, truth)
    return mean(np.linalg.norm(difference, axis=-1).ravel())


def runs(stamps_s: np.ndarray, max_gap_s: float = 0.25) -> list[slice]:
    """Stretches without a gap longer than ``max_gap_s`` or three times the usual step, whichever is less."""
    if len(stamps_s) == 0:
        return []
    steps = np.diff(stamps_s)
    limit = min(max_gap_s, 3 * float(np.median(steps))) if len(steps) else max_gap_s
    breaks = np.flatnonzero(steps > limit) + 1
    edges = [0, *breaks.tolist(), len(stamps_s)]
    return [slice(a, b) for a, b in itertools.pairwise(edges)]


def at_rest(stamps_s: np.ndarray, points_px: np.ndarray, palm_px: float) -> np.ndarray:
    """(T,) bool: the hand as a whole, and every joint of it, moves slower than ``REST_SPEED``; points (T, J, 2).

    Speed is that of the line fitted over ``REST_WINDOW_S`` around each sample.
    """
    rest = np.zeros(len(stamps_s), dtype=bool)
    for i, stamp in enumerate(stamps_s):
        near = np.abs(stamps_s - stamp) <= REST_WINDOW_S / 2 + 1e-9
        if near.sum() < 3:
            continue
        t = stamps_s[near] - stamps_s[near].mean()
        slope = np.tensordot(t, points_px[near], axes=1) / (t**2).sum()
        rest[i] = np.linalg.norm(slope, axis=-1).max() <= REST_SPEED * palm_px
    return rest


def jitter(stamps_s: np.ndarray, points: np.ndarray, use: np.ndarray) -> np.ndarray:
    """Squared deviations of each sample from its neighbours' line, as those of white noise: (N, J).

    Only inner samples whose neighbours are in ``use`` too. The mean over all, rooted, is the noise RMS per joint (2D or
    3D distance). The line removes slow motion; for white noise of variance v, x1 - (x0 + x2) / 2 has 1.5 v.
    """
    if len(stamps_s) < 3:
        return np.empty((0, points.shape[1]))
    inner = use[:-2] & use[1:-1] & use[2:]
    share = (np.diff(stamps_s)[:-1] / (stamps_s[2:] - stamps_s[:-2]))[:, None, None]
    line = points[:-2] + share * (points[2:] - points[:-2])
    return (((points[1:-1] - line) ** 2).sum(axis=-1) / 1.5)[inner]


def lag_curve(stamps_s: np.ndarray, truth: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, int]:
    """Summed squared distance of ``found``(t) to ``truth``(t - lag) for every lag in ``LAGS_S``, and samples used.

    Points (T, J, D). Only samples whose shifted time lies inside the track for every lag count, so that all lags are
    judged on the same ones.
    """
    low, high = stamps_s[0] + LAGS_S[-1], stamps_s[-1] + LAGS_S[0]
    use = (stamps_s >= low - 1e-9) & (stamps_s <= high + 1e-9)
    if use.sum() < 3:
        return np.zeros(len(LAGS_S)), 0
    flat_truth, flat_found = truth.reshape(len(truth), -1), found[use].reshape(use.sum(), -1)
    costs = np.zeros(len(LAGS_S))
    for i, lag in enumerate(LAGS_S):
        at = np.clip(stamps_s[use] - lag, stamps_s[0], stamps_s[-1])
        after = np.clip(np.searchsorted(stamps_s, at), 1, len(stamps_s) - 1)
        share = ((at - stamps_s[after - 1]) / (stamps_s[after] - stamps_s[after - 1]))[:, None]
        shifted = flat_truth[after - 1] * (1 - share) + flat_truth[after] * share
        costs[i] = ((flat_found - shifted) ** 2).sum()
    return costs, int(use.sum())
