"""Hours of tracking, as fast as the machine can: is the memory flat, and does the time per frame stay what it is?

    python benchmarks/endurance.py                                  # four hours at 30 images/s
    python benchmarks/endurance.py --hours 24 --json endurance.json --plot memory.png

The demo clip forth and back, with its camera, so that every hand is fitted in metres; every minute ten seconds without
hands, now and then a gap in the stream, which starts everything afresh. A line per tenth of the time. Growth is
the slope of a line through the memory after the first tenth.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import cv2
import numpy as np
from scaling import read_clip
from stages import machine  # the neighbouring scripts

from hand_tracking_ros.cli.demo import CLIP, demo_directory
from hand_tracking_ros.cli.options import add_tracker_options, tracker_config
from hand_tracking_ros.commands import command
from hand_tracking_ros.tracker import HandTracker
from hand_tracking_ros.types import Camera, Frame

FPS = 30.0
MINUTE = round(60 * FPS)  # frames
EMPTY = round(10 * FPS)  # frames without hands in every minute
GAP_EVERY = 7 * MINUTE  # frames between gaps of GAP_S
GAP_S = 5.0


def memory_mb() -> float:
    """What this process holds now (Linux), MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=4.0, help="of simulated time")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    add_tracker_options(parser)
    args = parser.parse_args()
    frames = round(args.hours * 60) * MINUTE
    if not frames:
        parser.error(f"--hours {args.hours:g} is less than a minute")
    cv2.setNumThreads(1)
    tracker, clip = HandTracker(tracker_config(args)), read_clip(demo_directory() / CLIP)
    height, width = clip[0].shape
    camera, empty = Camera(580.0, 580.0, width / 2, height / 2), np.full_like(clip[0], 90)
    rows, ids, stamp_s = [], set(), 0.0
    cpu, with_hands = time.process_time(), 0
    for k in range(frames):
        stamp_s += GAP_S if k and k % GAP_EVERY == 0 else 1 / FPS
        image = empty if k % MINUTE < EMPTY else clip[k % len(clip)]
        hands = tracker.step(Frame(image, stamp_s, camera))
        ids.update(hand.id for hand in hands)
        with_hands += bool(hands)
        if (k + 1) % MINUTE == 0:
            now = time.process_time()
            rows.append(((k + 1) / MINUTE, memory_mb(), 1e3 * (now - cpu) / MINUTE, with_hands / MINUTE))
            cpu, with_hands = now, 0
            if len(rows) % max(1, frames // MINUTE // 10) == 0:
                line = "minute {:5.0f}: {:6.1f} MB, {:5.2f} ms CPU per frame, hands in {:3.0%} of the frames"
                print(line.format(*rows[-1]), f"{len(ids)} ids", flush=True)
    minutes, memory, ms, _ = np.array(rows).T
    steady = slice(len(rows) // 10, None)
    growth = float(np.polyfit(minutes[steady] / 60, memory[steady], 1)[0]) if len(rows) > 3 else float("nan")
    print(f"memory after a tenth {memory[steady][0]:.1f} MB, at the end {memory[-1]:.1f} MB: {growth:+.2f} MB/h")
    print(f"CPU per frame {np.median(ms[steady]):.2f} ms, slowest minute {ms[steady].max():.2f} ms")
    if args.json:
        table = [dict(zip(("minute", "memory_mb", "cpu_ms", "with_hands"), r)) for r in rows]
        args.json.write_text(json.dumps({"machine": machine(), "growth_mb_per_h": growth, "minutes": table}) + "\n")
    if args.plot:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot as plt

        figure, axes = plt.subplots(figsize=(6, 3))
        axes.plot(minutes / 60, memory)
        axes.set_ylim(0, 1.2 * memory.max())
        axes.set_xlabel("hours, simulated")
        axes.set_ylabel("memory of the process, MB")
        axes.grid(alpha=0.3)
        figure.tight_layout()
        figure.savefig(args.plot, dpi=120)


if __name__ == "__main__":
    raise SystemExit(main())
