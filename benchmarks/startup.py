"""How long it takes from starting Python to the first hands, and how much memory that takes, per backend.

    python benchmarks/startup.py --output startup.md --json startup.json

Every run is a process of its own, which looks at the first images of the demo clip until it sees a hand; the medians of
``--runs`` per backend, in turns. The first of all is left out: it reads the files from disk. TensorRT builds its
engines on the first start on a machine, which takes minutes and is not in here.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from stages import machine, markdown  # the neighbouring script

from hand_tracking_ros.backends import available_backends
from hand_tracking_ros.cli.demo import CLIP, demo_directory
from hand_tracking_ros.cli.options import text_table
from hand_tracking_ros.commands import at_least, command

PARTS = ("imports_s", "networks_s", "first_hands_s", "all_s")
COLUMNS = ("backend", "Python and imports s", "networks s", "first hands s", "all s", "peak memory MB")


def start(backend: str) -> dict[str, float]:
    """In a process of its own: seconds of each part, and the memory."""
    began = time.monotonic()
    import cv2

    from hand_tracking_ros.config import InferenceConfig, TrackerConfig
    from hand_tracking_ros.images import as_mono
    from hand_tracking_ros.machine import peak_memory_mb
    from hand_tracking_ros.sources import open_source
    from hand_tracking_ros.tracker import HandTracker
    from hand_tracking_ros.types import Frame

    cv2.setNumThreads(1)
    imported = time.monotonic()
    tracker = HandTracker(TrackerConfig(inference=InferenceConfig(backend=backend)))
    loaded = time.monotonic()
    with open_source(demo_directory() / CLIP, pace="fast") as source:
        for k, item in enumerate(source):
            if tracker.step(Frame(as_mono(item.image), k / 60)):
                break
    seen = time.monotonic()
    parts = {"imports_s": imported - began, "networks_s": loaded - imported, "first_hands_s": seen - loaded}
    return parts | {"memory_mb": peak_memory_mb()}


def run(backend: str) -> dict[str, float]:
    """One start, seen from outside."""
    began = time.monotonic()
    done = subprocess.run([sys.executable, __file__, "--start", backend], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{backend} does not start:\n{done.stderr}")
    result = json.loads(done.stdout.splitlines()[-1])
    result["all_s"] = time.monotonic() - began
    result["imports_s"] = result["all_s"] - result["networks_s"] - result["first_hands_s"]
    return result


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--output", type=Path, help="also write the table here, as markdown")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--start", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.start:
        print(json.dumps(start(args.start)))
        return
    at_least(args, 1, "runs")
    backends = [status.name for status in available_backends() if status.usable]
    run(backends[0])
    results: dict[str, list[dict[str, float]]] = {name: [] for name in backends}
    for _ in range(args.runs):
        for name in backends:
            results[name].append(run(name))
    medians = {
        name: {key: float(np.median([one[key] for one in runs])) for key in runs[0]} for name, runs in results.items()
    }
    rows = [(name, *(f"{m[key]:.2f}" for key in PARTS), f"{m['memory_mb']:.0f}") for name, m in medians.items()]
    print(text_table(rows, COLUMNS))
    if args.output:
        args.output.write_text(markdown(COLUMNS, rows))
    if args.json:
        args.json.write_text(json.dumps({"machine": machine(), "medians": medians}, indent=1) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
