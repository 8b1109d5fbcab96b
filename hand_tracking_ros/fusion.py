"""Keypoints averaged over frames without lag: a Kalman filter per joint whose motion model is optical flow.

KeyNet's answers jump from frame to frame, but do not drift; what optical flow carries along drifts, but does not jump.
Flow leads the last estimate to the new image, with the noise that it adds, and KeyNet corrects it. A hand at rest is
averaged over several frames; a fast one, and joints that flow has lost, are what KeyNet says. Joints outside the image,
which no flow can see, go along with the hand and count as found.

Variances are in units of that of a sure keypoint of KeyNet (score 1); infinity: nothing is known.
"""

from __future__ import annotations

import numpy as np

from hand_tracking_ros.skeleton import palm_length

REST_NOISE = 0.25  # that flow adds per frame to a joint at rest, as a standard deviation
MOTION_NOISE = 5.0  # and per palm length that the joint moves; both by a search on sequences with exact truth
HAND_SLIP, JOINT_SLIP = 0.05, 0.1  # palm lengths by which KeyNet and flow may differ, as standard deviations
LEAST_SCORE = 0.1  # a keypoint with less is as uncertain as one with this


def after_flow(variance: np.ndarray, before_px: np.ndarray, after_px: np.ndarray, followed: np.ndarray) -> np.ndarray:
    """Variance (21,) once flow has led keypoints (21, 2) to the next image; ``followed`` (21,): the others are lost."""
    steps = after_px - before_px
    moved = np.sqrt((steps * steps).sum(axis=1)) / max(palm_length(before_px), 1e-6)
    return np.where(followed, variance + (REST_NOISE + MOTION_NOISE * moved) ** 2, np.inf)


def after_seeing(variance: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Variance (21,) once KeyNet has seen the keypoints, with ``scores`` (21,)."""
    return 1 / (1 / variance + 1 / noise(scores))


def doubted(variance: np.ndarray, expected_px: np.ndarray, seen_px: np.ndarray) -> np.ndarray:
    """Variance (21,) of keypoints (21, 2), where KeyNet sees the hand, or single joints, elsewhere.

    Flow has then slipped off, onto what does not move. The median shift of the joints says so surest: about a single
    finger KeyNet may be wrong as well.
    """
    gaps = (seen_px - expected_px) / max(palm_length(seen_px), 1e-6)
    gaps[np.isnan(gaps)] = 0.0
    shift = np.sort(gaps, axis=0)[len(gaps) // 2]  # the median of 21; numpy's own takes several times longer
    return variance + (shift @ shift) / HAND_SLIP**2 + (gaps * gaps).sum(axis=1) / JOINT_SLIP**2


def averaged(expected_px: np.ndarray, variance: np.ndarray, seen_px: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Keypoints (21, 2) that flow ``expected``, with their ``variance`` (21,), corrected by those that KeyNet has seen.

    Where nothing was expected (NaN, or an infinite variance), KeyNet's alone.
    """
    gain = (after_seeing(doubted(variance, expected_px, seen_px), scores) / noise(scores))[:, None]
    return np.where((gain < 1) & np.isfinite(expected_px), expected_px + gain * (seen_px - expected_px), seen_px)


def noise(scores: np.ndarray) -> np.ndarray:
    """Variance of keypoints, in units of a sure one's, by the scores that KeyNet gives them."""
    return 1 / np.maximum(scores, LEAST_SCORE) ** 2
