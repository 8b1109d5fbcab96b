"""A node's process: the cores it runs on, its garbage collection. No ROS in here.

What robots feel of a tracker is its slowest frames. Those come from other processes on the same cores, from threads
that wait for each other, and from Python's collector of garbage; docs/benchmarks.md has the numbers.
"""

from __future__ import annotations

import gc
import os
import re
import time
from contextlib import suppress
from pathlib import Path

from hand_tracking_ros.errors import ConfigError

RANGES = re.compile(r"\s*\d+\s*(-\s*\d+\s*)?(,\s*\d+\s*(-\s*\d+\s*)?)*")


def parse_cpus(text: str) -> set[int]:
    """{0, 2, 3} from '0,2-3', as taskset writes lists of cores. Raises ConfigError."""
    if not RANGES.fullmatch(text):
        raise ConfigError(f"parameter 'process.cpus' must be a list of cores like '2,3' or '0-3', got '{text}'")
    cpus: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        low, high = int(first), int(last or first)
        if low > high:
            raise ConfigError(f"parameter 'process.cpus': {part.strip()} is no range, write {high}-{low}")
        cpus.update(range(low, high + 1))
    return cpus


def pin(text: str) -> None:
    """Keep all threads of this process, and those that they start later, on the cores ``text`` names (parse_cpus).

    Raises ConfigError when these cores do not exist or may not be used, or where the system has no such thing.
    """
    cpus = parse_cpus(text)
    if not hasattr(os, "sched_setaffinity"):
        raise ConfigError("parameter 'process.cpus' works on Linux only: leave it empty")
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, cpus)
        usable = os.sched_getaffinity(0)  # the system leaves out cores that this process may not use
    except OSError:
        usable = set()
    if usable != cpus:
        os.sched_setaffinity(0, before)
        allowed = ",".join(map(str, sorted(before)))
        raise ConfigError(f"parameter 'process.cpus' is '{text}', but this process may use the cores {allowed} only")
    for thread in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):  # it has just ended
            os.sched_setaffinity(int(thread.name), cpus)


class GarbageWatch:
    """Keeps the pauses of Python's collector short, and measures them, in a process that is a node's own."""

    def __init__(self) -> None:
        self._started_s, self._pauses_s = 0.0, []
        gc.callbacks.append(self._note)

    def settle(self) -> None:
        """What is loaded stays: a full collection over it would hold up a frame for tens of milliseconds."""
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        self._pauses_s.clear()

    def facts(self) -> dict[str, object]:
        """The pauses since the last call, for the diagnostics."""
        pauses_s, self._pauses_s = self._pauses_s, []
        return {"gc_pauses": len(pauses_s), "gc_pause_ms_max": 1e3 * max(pauses_s, default=0.0)}

    def close(self) -> None:
        """Watch no longer."""
        gc.callbacks.remove(self._note)

    def _note(self, phase: str, info: dict) -> None:
        if phase == "start":
            self._started_s = time.perf_counter()
        else:
            self._pauses_s.append(time.perf_counter() - self._started_s)
