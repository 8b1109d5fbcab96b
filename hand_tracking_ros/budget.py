"""Keeping up with the camera: what a tracker gives up first when its steps take longer than they may, and when it
takes that back.

Times come from the caller: stamps of images and durations of steps, in seconds. Nothing here reads a clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import IntEnum

from hand_tracking_ros.config import Config, param

LEAST_STEPS = 5  # in a window, before it says anything
GAPS = 64  # between stamps, over which the period of the input is found
BURST_SHARE = 0.4  # of the mean gap: a shorter one lies within a burst, as networks deliver them
SATURATED = 0.97  # share of the time between images that are taken: with more, others may come that nobody sees
LONGEST_PATIENCE_S = 60.0
CUT_RATE = 2  # at the reduced rate every second image is processed


class Level(IntEnum):
    """What is given up, in this order; a level includes those before it."""

    FULL = 0  # nothing
    FEWER_DETECTIONS = 1  # new hands are found later
    SMALL_NETWORKS = 2  # keypoints are less accurate
    HALF_RATE = 3  # every second image is left out


@dataclass(frozen=True)
class BudgetConfig(Config):
    """When a tracker that cannot keep up gives something up, and what."""

    enabled: bool = param(True, "Give up detections, network size and rate, in this order, to keep up with the images")
    step_s: float = param(0.0, "Most time that an image may take; 0: the time between images", low=0.0, high=10.0)
    window_s: float = param(1.0, "Steps are averaged over this long before anything changes", low=0.1, high=60.0)
    recover_share: float = param(
        0.7, "Steps must take less than this share of the budget to get something back", low=0.1, high=1.0
    )
    recover_s: float = param(
        5.0, "For at least this long; doubles, up to 60 s, whenever that was too early", low=0.1, high=60.0
    )
    detect_interval_s: float = param(0.6, "Least time between detections once some are given up", low=0.0, high=10.0)
    detector_model: str = param(
        "auto",
        "Smaller DetNet to change to: a name in models/ or a manifest .yaml; auto: the next size of "
        "detector.model (its _small, of that its _nano), if any; empty: none",
        read_only=True,
    )
    keypoints_model: str = param(
        "auto",
        "Smaller KeyNet to change to: a name in models/ or a manifest .yaml; auto: the next size of "
        "keypoints.model (its _small, of that its _nano), if any; empty: none",
        read_only=True,
    )


class Budget:
    """Decides on the level. Per image: ``takes``, and where that is True, ``step`` when the image is done.

    One level is given up when the mean step of a window exceeds the budget, or steps follow each other without a pause:
    who looks so seldom misses images, and sees no more than that all come as seldom. One is taken back when steps have
    been well below the budget for some time (also at half rate: below that of the full rate); where that proves too
    early, it must be for twice as long the next time. A single slow step changes nothing. Stamps that go back, or pause
    for long, start the window afresh and keep the level.

    ``levels``: those that exist, in their order, beginning with FULL. ``since_s``: the stamp of the last change, and
    ``reason`` why; ``dropped``: images that were left out.
    """

    def __init__(self, config: BudgetConfig, levels: Sequence[Level] = tuple(Level)) -> None:
        self.config, self._levels = config, tuple(levels)
        self.dropped = 0
        self.reset()

    def reset(self) -> None:
        """Give nothing up, and know nothing, as at the start; the count of dropped images stays."""
        self.level, self.since_s, self.reason = Level.FULL, None, ""
        self._patience_s, self._recovered_s = self.config.recover_s, None
        self._gaps: deque[float] = deque(maxlen=GAPS)
        self._stamp_s: float | None = None
        self._skip = False
        self._start_window(None)

    @property
    def budget_s(self) -> float | None:
        """Most time that an image may take at full rate; None while the period of the input is not known."""
        if self.config.step_s > 0:
            return self.config.step_s
        if len(self._gaps) < LEAST_STEPS:
            return None
        # Images that never arrive make some gaps a multiple of the period, stamps jitter, and some come in bursts.
        longer_s = without_bursts(self._gaps)
        short_s = longer_s[len(longer_s) // 10]
        single_s = [gap_s for gap_s in longer_s if gap_s < 1.5 * short_s]
        about_s = sum(single_s) / len(single_s)
        return sum(self._gaps) / sum(max(round(gap_s / about_s), 1) for gap_s in self._gaps)

    def takes(self, stamp_s: float) -> bool:
        """Whether the image of this stamp is to be processed. Call it once for every image that arrives."""
        elapsed_s = None if self._stamp_s is None else stamp_s - self._stamp_s
        self._stamp_s = stamp_s
        if elapsed_s is not None and not 0 <= elapsed_s <= LEAST_STEPS * self.config.window_s:
            self._gaps.clear()
            self._start_window(None)
        elif elapsed_s:
            self._gaps.append(elapsed_s)
        self._skip = self.level == Level.HALF_RATE and not self._skip
        self.dropped += self._skip
        return not self._skip

    def step(self, seconds: float) -> bool:
        """The image that was taken last took ``seconds``, all that goes with an image included.

        Whether the level has changed.
        """
        stamp_s = self._stamp_s
        if stamp_s is None:
            return False  # taken before a reset
        if self._start_s is None:
            self._start_window(stamp_s)
            return False
        self._sum_s += seconds
        self._count += 1
        if stamp_s - self._start_s < self.config.window_s or self._count < LEAST_STEPS:
            return False
        budget_s = self.budget_s
        if budget_s is None:
            return False
        mean_s, start_s = self._sum_s / self._count, self._start_s
        saturated = self.config.step_s == 0 and self._sum_s > SATURATED * (stamp_s - start_s)
        self._start_window(stamp_s)
        if saturated or mean_s > budget_s * (CUT_RATE if self.level == Level.HALF_RATE else 1):
            self._calm_s = None
            return self._degrade(mean_s, budget_s)
        if self.level == Level.FULL or mean_s >= self.config.recover_share * budget_s:
            self._calm_s = None
            return False
        self._calm_s = start_s if self._calm_s is None else self._calm_s
        return stamp_s - self._calm_s >= self._patience_s and self._recover(mean_s, budget_s)

    def _start_window(self, start_s: float | None) -> None:
        self._start_s, self._sum_s, self._count = start_s, 0.0, 0
        if start_s is None:
            self._calm_s: float | None = None

    def _degrade(self, mean_s: float, budget_s: float) -> bool:
        worse = [level for level in self._levels if level > self.level]
        if not worse:
            return False
        too_early = self._recovered_s is not None and 0 <= self._stamp_s - self._recovered_s < self._patience_s
        self._patience_s = min(2 * self._patience_s, LONGEST_PATIENCE_S) if too_early else self.config.recover_s
        self._recovered_s = None
        too_long = f"may take {_ms(budget_s)}" if mean_s > budget_s else "followed each other without a pause"
        self._change(worse[0], f"images took {_ms(mean_s)} each, and {too_long}")
        return True

    def _recover(self, mean_s: float, budget_s: float) -> bool:
        self._calm_s, self._recovered_s = None, self._stamp_s
        better = max(level for level in self._levels if level < self.level)
        calm = f"images took only {_ms(mean_s)} each for {self._patience_s:g} s"
        self._change(better, f"{calm}, and may take {_ms(budget_s)}")
        return True

    def _change(self, level: Level, reason: str) -> None:
        self.level, self.since_s, self.reason = level, self._stamp_s, reason
        self._skip = False


def without_bursts(gaps: Collection[float]) -> list[float]:
    """The gaps between stamps, sorted, but for those within a burst."""
    least = BURST_SHARE * sum(gaps) / len(gaps)
    return sorted(gap for gap in gaps if gap >= least)


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.1f} ms"
