"""What may be wrong with the cameras of a rig, in words, and their numbers for the diagnostics. No ROS in here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hand_tracking_ros.frame_groups import OLDEST_S, FrameGroups

FAR = 0.4  # palm lengths: a camera that disagrees by more than this
FAR_S = 2.0  # for as long as this shows other hands, or shows them from somewhere else
LONGEST_STEP_S = 0.5  # a pause is not disagreement


class RigWatch:
    """Watches the cameras ``names`` through the groups that their images make, and through what the tracker says."""

    def __init__(self, names: Sequence[str], groups: FrameGroups) -> None:
        self._names, self._groups = names, groups
        self._far_s = np.zeros(len(names))  # for how long each camera has disagreed
        self._disagreement = np.full(len(names), np.nan)
        self._stamp_s = -np.inf
        self._arrived = [0] * len(names)

    def step(self, disagreement: np.ndarray, stamp_s: float) -> None:
        """Take RigTracker's ``disagreement`` after the step of ``stamp_s``."""
        elapsed_s = stamp_s - self._stamp_s
        compared = ~np.isnan(disagreement) & (disagreement != self._disagreement)  # else it says nothing about now
        if 0 < elapsed_s < LONGEST_STEP_S:
            self._far_s += np.where(compared, elapsed_s, 0.0)
        self._far_s[~(disagreement > FAR)] = 0.0
        self._disagreement, self._stamp_s = disagreement.copy(), stamp_s

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
            }
        return values

    def problems(self, now_s: float) -> dict[str, str]:
        """What is wrong at the moment, by camera."""
        found = {}
        for i, (name, stream) in enumerate(zip(self._names, self._groups.streams, strict=True)):
            if self._groups.is_silent(i, now_s):
                found[name] = f"no image for {now_s - stream.last_at_s:.1f} s; the other cameras go on without it"
            elif stream.lag_s > OLDEST_S:
                found[name] = (
                    f"its images are {stream.lag_s:.2f} s older than those of other cameras when they arrive, and are "
                    "not used: synchronise the clocks of the cameras, or find out what delays this one"
                )
        far = self._far_s >= FAR_S
        if far.any():
            worst = int(np.argmax(np.where(far, self._disagreement, -1.0)))
            found["rig"] = (
                f"{self._names[worst]} disagrees with the other cameras by {self._disagreement[worst]:.2f} palm "
                "lengths: rig.file does not fit the cameras (calibration wrong, cameras swapped or moved)"
            )
        return found
