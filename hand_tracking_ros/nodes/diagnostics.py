"""What a node reports on /diagnostics once per second: rates, latencies, losses and their reasons."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from hand_tracking_ros.budget import without_bursts

WINDOW = 600  # latencies kept, about 10 s at 60 Hz
MAX_REASONS = 8  # different reasons listed one by one
MEMORY = 128  # stamps
LATE_NS = 1_000_000_000  # a camera_info that is older than this belongs to another run of the stream
SAME_NS = 1_000_000  # drivers that stamp an image and its camera_info one after the other are off by less
TRANSITIONS = ("configure", "activate")  # problems of these outlast a stream


class FrameLoss:
    """Counts input frames that never reached the node.

    Every camera_info announces an image with the same stamp, to a millisecond, and may come before or after it: an
    announced stamp between two images that arrived is a lost one. Without camera_info, the gaps between stamps are
    compared with the usual one. Stamps are in nanoseconds; a backward jump starts afresh.
    """

    def __init__(self) -> None:
        self.lost = 0
        self.reset()

    def reset(self) -> None:
        """Forget the stream, keep the count."""
        self._first: int | None = None
        self._last: int | None = None
        self._announced = False
        self._expected: deque[int] = deque(maxlen=MEMORY)  # announced, later than the last image
        self._arrived: deque[int] = deque(maxlen=MEMORY)
        self._gaps: deque[int] = deque(maxlen=MEMORY)

    def announce(self, stamp: int) -> None:
        """A camera_info with this stamp has arrived."""
        self._announced = True
        if self._last is None or stamp > self._last + SAME_NS:
            self._expected.append(stamp)
        elif stamp > max(self._first, self._last - LATE_NS) and not self._has_arrived(stamp):
            self.lost += 1

    def _has_arrived(self, stamp: int) -> bool:
        return any(abs(arrived - stamp) <= SAME_NS for arrived in reversed(self._arrived))

    def arrive(self, stamp: int) -> bool:
        """An image with this stamp has arrived. False where it is the stamp of the image before."""
        if stamp == self._last:
            return False
        if self._last is not None and stamp < self._last:
            self.reset()
        if self._last is None:
            self._first = stamp
        elif self._announced:
            self.lost += sum(expected < stamp - SAME_NS for expected in self._expected)
        else:
            self._count_gap(stamp - self._last)
        self._expected = deque((e for e in self._expected if e > stamp + SAME_NS), maxlen=MEMORY)
        self._arrived.append(stamp)
        self._last = stamp
        return True

    def _count_gap(self, gap: int) -> None:
        self._gaps.append(gap)
        longer = without_bursts(self._gaps)
        usual = longer[len(longer) // 10]
        if len(self._gaps) >= 8 and gap > 1.5 * usual:
            self.lost += round(gap / usual) - 1


class Statistics:
    """Counters and latencies of one node."""

    def __init__(self) -> None:
        self.frames = 0
        self.skipped: Counter[str] = Counter()  # reason -> frames
        self.facts: dict[str, object] = {}  # settings and states to show as they are
        self.problems: dict[str, str] = {}  # what is wrong at the moment, by where
        self._last_reason = ""
        self._latencies: dict[str, deque[float]] = {}
        self._reported: tuple[int, int, int] = (0, 0, 0)
        self.loss = FrameLoss()

    def frame(self, **seconds: float) -> None:
        """One frame was processed; ``seconds`` per stage."""
        self.frames += 1
        self.latencies(seconds)

    def latencies(self, seconds: Mapping[str, float]) -> None:
        """Add one latency in seconds per stage."""
        for stage, value in seconds.items():
            self._latencies.setdefault(stage, deque(maxlen=WINDOW)).append(value)

    def skip(self, reason: str) -> None:
        """One frame was not processed, because of ``reason``."""
        self._last_reason = reason
        known = reason in self.skipped or len(self.skipped) < MAX_REASONS
        self.skipped[reason if known else "other reasons"] += 1

    def end_stream(self) -> None:
        """Nothing is processed any more: what was wrong with the stream says nothing about the next one."""
        self.problems = {where: what for where, what in self.problems.items() if where in TRANSITIONS}

    def message(self, name: str, state: str, period_s: float, stamp) -> DiagnosticArray:
        """The status of the node ``name`` in lifecycle ``state``, ``period_s`` after the last one."""
        status = DiagnosticStatus(name=name, hardware_id="hand_tracking_ros")
        status.level, status.message = self._judge(state, period_s)
        values = {"state": state, **self._counts(period_s), **dict(self.facts), **self._percentiles()}
        values |= {f"skipped: {reason}": count for reason, count in self.skipped.items()}
        status.values = [KeyValue(key=key, value=_text(value)) for key, value in values.items()]
        self._reported = self._totals()
        message = DiagnosticArray(status=[status])
        message.header.stamp = stamp
        return message

    def _totals(self) -> tuple[int, int, int]:
        return self.frames, self.loss.lost, sum(self.skipped.values())

    def _since_report(self) -> tuple[int, int, int]:
        return tuple(now - then for now, then in zip(self._totals(), self._reported, strict=True))

    def _judge(self, state: str, period_s: float) -> tuple[bytes, str]:
        frames, lost, skipped = self._since_report()
        if self.problems:
            text = "; ".join(f"{where}: {what}" for where, what in dict(self.problems).items())
            return DiagnosticStatus.WARN if frames else DiagnosticStatus.ERROR, text
        if state != "active":
            return DiagnosticStatus.OK, state
        if skipped:
            level = DiagnosticStatus.WARN if frames else DiagnosticStatus.ERROR
            return level, f"skipped {skipped} frames: {self._last_reason}"
        if not frames:
            return DiagnosticStatus.WARN, f"active, but no frames for {period_s:.1f} s"
        if lost:
            cause = "the machine or the network is too slow, or the DDS profile is missing"
            return DiagnosticStatus.WARN, f"lost {lost} frames in {period_s:.1f} s: {cause}"
        return DiagnosticStatus.OK, "active"

    def _counts(self, period_s: float) -> dict[str, object]:
        return {
            "rate_hz": self._since_report()[0] / period_s,
            "frames": self.frames,
            "lost": self.loss.lost,
            "skipped": sum(self.skipped.values()),
        }

    def _percentiles(self) -> dict[str, float]:
        values = {}
        for stage, seconds in tuple(self._latencies.items()):
            p50, p99 = np.percentile(tuple(seconds), (50, 99)) * 1e3
            values |= {f"{stage}_ms_p50": float(p50), f"{stage}_ms_p99": float(p99)}
        return values


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
