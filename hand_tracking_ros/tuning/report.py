"""What was measured, as a table for people and as records for JSON and the profile."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from typing import Any

from hand_tracking_ros.cli.options import text_table
from hand_tracking_ros.tuning.choice import Limits, Result, accuracy_floor

HEADER = ("candidate", "1 hand", "p99", "2 hands", "p99", "CPU", "MB", "accuracy", "deviation", "")
NOTES = """\
1 hand, 2 hands: median ms per frame of the shipped clip, image in to hands out, without camera_info. CPU: of one core,
for {hands} at {rate_hz:g} Hz. MB: most memory of the process. accuracy: joints of held-out hands that are found and
right, as the manifests state it; the floor is {floor}. deviation: of keypoints from those of fp32 on ONNX Runtime,
mean, in % of the palm.
"""


def table(results: Sequence[Result], remarks: Sequence[str], limits: Limits) -> str:
    """One row per candidate, with the remark at its end."""
    rows = []
    for result, remark in zip(results, remarks):
        figures = ["-"] * 5
        if result.cases:
            figures = [f"{result.cases[hands][key]:.2f}" for hands in ("1", "2") for key in ("p50_ms", "p99_ms")]
            figures.append(f"{result.cpu_percent(limits):.0f} %")
        shares = [_percent(result.accuracy_percent), _percent(result.deviation_percent)]
        rows.append((result.candidate, *figures, f"{result.memory_mb:.0f}", *shares, remark))
    hands, floor = f"{limits.hands} hand{'s' * (limits.hands > 1)}", _percent(accuracy_floor(results, limits))
    notes = NOTES.format(hands=hands, rate_hz=limits.rate_hz, floor=floor)
    return f"{text_table(rows, HEADER)}\n\n{notes}"


def figures(result: Result) -> dict[str, Any]:
    """What was measured of one candidate; None for what is not known."""
    cases = {hands: {key: round(ms, 3) for key, ms in case.items()} for hands, case in result.cases.items()}
    names = ("accuracy_percent", "deviation_percent", "same_percent", "error_percent")
    shares = {name: getattr(result, name) for name in names}
    known = {name: None if isnan(value) else round(value, 3) for name, value in shares.items()}
    return {"hands": cases, "memory_mb": round(result.memory_mb, 1), **known}


def _percent(value: float) -> str:
    return "-" if isnan(value) else f"{value:.1f} %"
