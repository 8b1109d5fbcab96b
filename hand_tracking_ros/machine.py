"""What a measurement was taken on, and how much memory it took."""

from __future__ import annotations

import os
import platform
import re
import sys
from pathlib import Path
from typing import Any

BOARD = Path("/proc/device-tree/model")  # names the board on a Jetson or a Raspberry Pi, where cpuinfo names nothing


def cpu_name() -> str:
    """The board or the processor, as the system names it."""
    if BOARD.is_file():
        return BOARD.read_text(errors="replace").strip("\0\n ")
    found = re.search(r"^model name\s*:\s*(.+)$", _read("/proc/cpuinfo"), re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()


def this_machine() -> dict[str, Any]:
    """What makes latencies comparable: the processor, how many of its cores, the architecture."""
    return {"cpu": cpu_name(), "cores": os.cpu_count(), "architecture": platform.machine()}


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def peak_memory_mb(process: int | str = "self") -> float:
    """Most memory that this process has held, MB; on Linux also another one that runs, by its number.

    Linux' ``ru_maxrss`` would also count the process that started this one.
    """
    found = re.search(r"^VmHWM:\s*(\d+) kB", _read(f"/proc/{process}/status"), re.MULTILINE)
    if found:
        return int(found[1]) * 1024 / 1e6
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
