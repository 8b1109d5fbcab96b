"""What may be wrong with the cameras of a rig, in words, and their numbers for the diagnostics."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hand_tracking_ros.frame_groups import OLDEST_S, FrameGroups
from hand_tracking_ros.hand_size import HandSize

FAR = 0.4  # palm lengths: a camera that disagrees by more than this shows other hands, or from somewhere else
LASTING_S = 2.0  # what has been so for this much longer than it has not is no accident
UNUSUAL, LONG_S = 0.11, 4.0  # the same, of less: cameras that fit together differ by 0.02 to 0.1 most of the time
UNSYNCHRONISED_S = 0.025  # lags of cameras that look at the same moment are found to be up to 0.018
PALMS_M = (0.07, 0.108)  # of nearly all adults
LONGEST_STEP_S = 0.5  # a pause is not disagreement


class RigWatch:
    """Watches the cameras ``names`` through the groups that their images make, and through what the tracker says.

    ``stated_by``: what says where the cameras are, and is to blame."""

    def __init__(self, names: Sequence[str], groups: FrameGroups, stated_by: str = "rig.file") -> None:
        self._names, self._groups, self._stated_by = names, groups, stated_by
        self._wrong_s = 0.0  # how much longer the cameras have not fitted together than they have
        self._unusual_s = 0.0  # how much longer they have differed unusually than as usual
        self._late_s = np.zeros(len(names))  # how much longer each has lagged than it has not
        self._apart = np.zeros(len(names), bool)
        self._lags_s = np.full(len(names), np.nan)
        self._disagreement = np.full(len(names), np.nan)
        self._stamp_s = -np.inf
        self._arrived = [0] * len(names)

    def step(self, disagreement: np.ndarray, apart: np.ndarray, lags_s: np.ndarray, stamp_s: float) -> None:
        """Take what RigTracker says under these names after the step of ``stamp_s``."""
        elapsed_s = stamp_s - self._stamp_s
        compared = ~np.isnan(disagreement) & (disagreement != self._disagreement)  # else it says nothing about now
        gap = np.nanmax(disagreement) if compared.any() else np.nan
        if 0 < elapsed_s < LONGEST_STEP_S:
            good_s = -elapsed_s if compared.any() else 0.0
            wrong_s = elapsed_s if gap > FAR or apart.any() else good_s
            unusual_s = elapsed_s if gap > UNUSUAL else good_s
            self._wrong_s = min(max(self._wrong_s + wrong_s, 0.0), 2 * LASTING_S)
            self._unusual_s = min(max(self._unusual_s + unusual_s, 0.0), 2 * LONG_S)
            late_s = np.where(np.abs(np.nan_to_num(lags_s)) > UNSYNCHRONISED_S, elapsed_s, -elapsed_s)
            self._late_s = np.clip(self._late_s + late_s, 0.0, 2 * LASTING_S)
        if apart.any():
            self._apart = apart.copy()
        self._disagreement, self._lags_s, self._stamp_s = disagreement.copy(), lags_s.copy(), stamp_s

    def facts(self, now_s: float, period_s: float) -> dict[str, object]:
        """Numbers of every camera, since the last call ``period_s`` ago."""
        values: dict[str, object] = {}
        for i, (name, stream) in enumerate(zip(self._names, self._groups.streams, strict=True)):
            rate_hz = (stream.arrived - self._arrived[i]) / period_s
            self._arrived[i] = stream.arrived
            silent = self._groups.is_silent(i, now_s)
            values |= {
                f"{name} rate_hz": rate_hz,
                f"{name} age_s": now_s - stream.last_at_s,
                f"{name} images": stream.arrived,
                f"{name} unused": stream.dropped,
                f"{name} dropouts": stream.dropouts + (silent and stream.arrived > 0),
                f"{name} disagreement": float(self._disagreement[i]),
                f"{name} lag_ms": 1e3 * float(self._lags_s[i]),
            }
        return values

    def problems(self, now_s: float, size: HandSize) -> dict[str, str]:
        """What is wrong at the moment, by camera; ``size`` is the one that the cameras find."""
        found, (late, beside) = {}, self._late_ms()
        for i, (name, stream) in enumerate(zip(self._names, self._groups.streams, strict=True)):
            if self._groups.is_silent(i, now_s):
                found[name] = f"no image for {now_s - stream.last_at_s:.1f} s; the other cameras go on without it"
            elif stream.lag_s > OLDEST_S:
                found[name] = (
                    f"its images are {stream.lag_s:.2f} s older than those of other cameras when they arrive, and are "
                    "not used: synchronise the clocks of the cameras, or find out what delays this one"
                )
            elif late[i]:
                how = f"{abs(late[i]):.0f} ms {'older' if late[i] > 0 else 'newer'}"
                found[name] = (
                    f"its images are {how} than their stamps say, beside those of {beside}: let its driver stamp the "
                    "exposure, or trigger all cameras together"
                )
        rig = self._rig_problem(size)
        return {**found, "rig": rig} if rig else found

    def _late_ms(self) -> tuple[list[float], str]:
        """By how much the images of each camera have for some time been older than their stamps say, 0: they have not;
        and beside whose. Where all others differ from the first one alike, it is the first."""
        known = np.where((self._late_s > LASTING_S) & np.isfinite(self._lags_s), 1e3 * self._lags_s, 0.0)
        others = known[1:]
        if len(others) > 1 and (others != 0).all() and np.ptp(others) < 1e3 * UNSYNCHRONISED_S:
            return [-float(others.mean()), *[0.0] * len(others)], "the others"
        return known.tolist(), self._names[0]

    def _rig_problem(self, size: HandSize) -> str:
        """What is wrong between the cameras; empty when nothing is."""
        advice = f"{self._stated_by} does not fit the cameras (calibration wrong, cameras swapped or moved)"
        gaps = np.nan_to_num(self._disagreement)
        name, gap = self._names[int(gaps.argmax())], gaps.max()
        if self._wrong_s < LASTING_S:
            strange = strange_palm(size)
            if strange:
                return f"{strange}, {advice}"
            if self._unusual_s < LONG_S:
                return ""
            return (
                f"{name} has differed from the other cameras by {gap:.2f} palm lengths lately, and by more than the "
                f"usual {UNUSUAL:g} for seconds: {advice}, or a camera takes something else for a hand"
            )
        if gap > FAR:
            return f"{name} disagrees with the other cameras by {gap:.2f} palm lengths: {advice}"
        if not self._apart.any():
            return (
                f"{name} has disagreed with the other cameras by more than {FAR:g} palm lengths for seconds: {advice}"
            )
        names = " and ".join(name for name, apart in zip(self._names, self._apart) if apart)
        return f"{names}: sees hands, but never those of the other cameras, which should be in its image: {advice}"


def strange_palm(size: HandSize) -> str:
    """In words, where a measured palm is none of an adult's: what measures it may be wrong; else empty."""
    if not size.is_measured or PALMS_M[0] <= size.palm_m <= PALMS_M[1]:
        return ""
    adults = f"{PALMS_M[0] * 1e3:.0f} to {PALMS_M[1] * 1e3:.0f} mm"
    return f"palms measure {size.palm_m * 1e3:.0f} mm, those of adults {adults}: unless the hands are a child's"
