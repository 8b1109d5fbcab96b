"""How much older a camera's images are than their stamps say, from the moving hands that two cameras see.

Where both look at the same moment, the rays to a joint meet. Where one is behind, its ray misses the plane through both
cameras and the other one's ray (the epipolar plane; Hartley and Zisserman, Multiple View Geometry, 9.1) by as much as
the joint has moved across it since: angle = -lag x rate. The slope of the one over the other is the lag; what is
constant, as from a calibration that is a little off, has no part in it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

import numpy as np

from hand_tracking_ros.rig import RigCamera

MEMORY_S = 6.0
RATE_OVER_S = 1 / 30  # the motion is that of the pose over this time
INDEPENDENT_S = 0.25  # errors of keypoints last about this long
LEAST_S = 2.0  # of moving hands
SURE_S, SURE_SHARE = 0.008, 0.125  # standard deviation of a lag that is known, or as a share of the lag
HUBER = 1.5
TAKEN_EVERY_S, LEARNED_EVERY_S = 0.08, 0.5


class CameraLags:
    """The lags of all cameras of a rig behind the first, compared a dozen times a second."""

    def __init__(self, cameras: int) -> None:
        self._lags = [CameraLag() for _ in range(cameras)]
        self._taken_s = self._learned_s = -np.inf
        self._known = np.full(cameras, np.nan)

    def are_due(self, stamp_s: float) -> bool:
        """Whether it is time to ``take`` what is seen."""
        return not 0 <= stamp_s - self._taken_s < TAKEN_EVERY_S

    def take(
        self, stamp_s: float, cameras: Sequence[RigCamera], seen_px: Mapping[int, np.ndarray], now_m: np.ndarray,
        then_m: np.ndarray,
    ) -> None:  # fmt: skip
        """Keypoints (21, 2) of a hand as the first camera and others see it, by the numbers of the ``cameras``; and as
        ``crossing`` has them, the hand's points."""
        self._taken_s = stamp_s
        for index in seen_px.keys() - {0}:
            angle, rate = crossing(cameras[0], cameras[index], seen_px[0], seen_px[index], now_m, then_m)
            if np.isfinite([angle, rate]).all():
                self._lags[index].take(stamp_s, angle, rate)

    def seconds(self, stamp_s: float) -> np.ndarray:
        """(cameras,) as of the last half second; NaN where nothing has been known lately, as of the first."""
        if not 0 <= stamp_s - self._learned_s < LEARNED_EVERY_S:
            self._known = np.array([lag.seconds(stamp_s) for lag in self._lags])
            self._learned_s = stamp_s
        return self._known


class CameraLag:
    """The lag of one camera behind another, learned from what is taken of the last seconds."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float, float]] = deque()

    def take(self, stamp_s: float, angle: float, rate: float) -> None:
        """``angle`` rad by which rays miss the plane, ``rate`` rad/s at which the hand crosses it (``crossing``)."""
        if self._samples and stamp_s < self._samples[-1][0]:  # a recording that starts again
            self._samples.clear()
        self._samples.append((stamp_s, angle, rate))
        while self._samples[0][0] < stamp_s - MEMORY_S:
            self._samples.popleft()

    def seconds(self, stamp_s: float) -> float:
        """The lag in s, above 0 where images are older than stated; NaN as long as motion does not tell it.

        A line through the samples of the last seconds, those far off counted less (Huber, by iterated weighting).
        """
        samples = [sample for sample in self._samples if 0 <= stamp_s - sample[0] <= MEMORY_S]
        if len(samples) < 10:
            return np.nan
        stamps_s, angles, rates = np.array(samples).T
        times_s = np.unique(stamps_s)  # two hands are seen at one time
        if len(times_s) < 2:
            return np.nan
        seen_s = min(len(times_s) * float(np.median(np.diff(times_s))), times_s[-1] - times_s[0])
        if seen_s < LEAST_S:
            return np.nan
        weights = np.ones(len(angles))
        for _ in range(8):
            rate, angle = np.average(rates, weights=weights), np.average(angles, weights=weights)
            spread = float((weights * (rates - rate) ** 2).sum())
            if spread < 1e-9:
                return np.nan
            lag_s = -float((weights * (rates - rate) * (angles - angle)).sum()) / spread
            residuals = np.abs(angles - angle + lag_s * (rates - rate))
            scale = max(1.48 * float(np.median(residuals)), 1e-6)
            weights = np.minimum(1.0, HUBER * scale / np.maximum(residuals, 1e-12))
        together = len(angles) * min(1.0, INDEPENDENT_S / seen_s)  # samples that have one error
        sigma_s = np.sqrt(float((weights * residuals**2).sum()) / weights.sum() * together / spread)
        return lag_s if sigma_s < max(SURE_S, SURE_SHARE * abs(lag_s)) else np.nan


def crossing(
    first: RigCamera,
    second: RigCamera,
    first_px: np.ndarray,
    second_px: np.ndarray,
    now_m: np.ndarray,
    then_m: np.ndarray,
) -> tuple[float, float]:
    """By how much the rays of the ``second`` camera miss those of the ``first``, rad, and at what rate the hand crosses
    their planes, rad/s, in the mean over its joints; NaN where lenses do not see them.

    Keypoints (21, 2) of both, and the hand's points (21, 3) in the rig's frame, now and ``RATE_OVER_S`` ago.
    """
    apart = second.position_m - first.position_m
    normal = np.cross(apart, first.camera.rays(first_px) @ first.rotation)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    angle = (second.camera.rays(second_px) @ second.rotation * normal).sum(axis=1)
    now, then = now_m - second.position_m, then_m - second.position_m
    moved = now / np.linalg.norm(now, axis=1, keepdims=True) - then / np.linalg.norm(then, axis=1, keepdims=True)
    return float(angle.mean()), float((moved * normal).sum(axis=1).mean() / RATE_OVER_S)
