"""Our whole tracker against MediaPipe Hands 0.10.21: the same clips, the same core, in turns.

    python benchmarks/pipeline.py --mediapipe-python mediapipe/bin/python --no-hand cars_no_hands.mp4 \\
        --one-hand hand_640x360.mp4 --two-hands two_hands_cups_1280x720.mp4 --output pipeline.md --json pipeline.json

Every tracker (ours, MediaPipe with model complexity 0 and 1) runs in a process of its own, all pinned to one core, and
they take turns of ``--block`` frames, so a busy moment of the machine hits all of them alike. Times are from the BGR
image to the hands. Trackers that lose a hand do other work than those that follow it, so the main figures are those of
the frames on which all of them reported the hands that the case is about; ``hands`` says what each reported on average.
``--mediapipe-python`` is the interpreter of an environment with mediapipe==0.10.21. Profiles of 'hand-tracking tune'
are left out; --set and --params say what runs. Linux only: processes are pinned.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from stages import machine

from hand_tracking_ros.cli.options import add_tracker_options, tracker_config
from hand_tracking_ros.commands import command
from hand_tracking_ros.config import to_flat
from hand_tracking_ros.sources import open_source

WORKER = Path(__file__).with_name("pipeline_worker.py")
OURS, PEERS = "ours", {"MediaPipe, complexity 0": 0, "MediaPipe, complexity 1": 1}
CASES = {"no hand": 0, "one hand": 1, "two hands": 2}
MAX_HANDS = (1, 2)
WARM_UP = 30  # frames that are not counted
LEAST_FRAMES = 20  # of fewer, percentiles say nothing


class Tracker:
    """A tracker in its process. Raises SystemExit, with the process' last words, when that fails."""

    def __init__(self, name: str, python: str, settings: dict[str, Any], folder: Path) -> None:
        self.name = name
        file, self._log = folder / f"{name}.json", folder / f"{name}.log"
        file.write_text(json.dumps(settings | {"complexity": PEERS.get(name)}))
        command = [python, str(WORKER), OURS if name == OURS else "mediapipe", str(file)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        try:
            with self._log.open("w") as log:
                self._process = subprocess.Popen(command, stderr=log, **pipes)
        except OSError as error:
            raise SystemExit(f"error: cannot run {python}: {error.strerror}") from error
        self.runs = self._answer()
        self.times: list[list[float]] = []  # [milliseconds, hands] per frame

    def step(self, frames: int) -> None:
        """The next frames of the clip."""
        self.times += self._ask(str(frames))

    def close(self) -> float:
        """End the process; the most memory that it has held, MB."""
        memory_mb = self._ask("memory")
        self._process.communicate()
        return memory_mb

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def _ask(self, question: str) -> Any:
        print(question, file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> Any:
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"error: {self.name} failed:\n{self._log.read_text()[-2000:]}")
        return json.loads(line)


def write_frames(clip: str, file: Path, most: int, width: int) -> dict[str, Any]:
    """The first ``most`` frames of a clip, BGR, at most ``width`` px wide, raw in ``file``. Raises SourceError."""
    count, shape = 0, (0, 0, 3)
    with open_source(clip, pace="fast") as source, file.open("wb") as out:
        for item in source:
            image = item.image if item.image.ndim == 3 else cv2.cvtColor(item.image, cv2.COLOR_GRAY2BGR)
            scale = min(1.0, width / image.shape[1])
            image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else image
            np.ascontiguousarray(image).tofile(out)
            count, shape = count + 1, image.shape
            if count == most:
                break
        return {"frames": str(file), "count": count, "height": shape[0], "width": shape[1], "fps": source.fps}


def measure(settings: dict[str, Any], args: argparse.Namespace, folder: Path) -> dict[str, dict[str, Any]]:
    """{tracker: {'runs', 'times' (frames, 2), 'memory_mb'}} of all trackers on one clip, in turns."""
    trackers: list[Tracker] = []
    try:
        trackers.append(Tracker(OURS, sys.executable, settings, folder))
        trackers += [Tracker(name, str(args.mediapipe_python), settings, folder) for name in PEERS]
        for turn, done in enumerate(range(0, WARM_UP + args.frames, args.block)):
            frames = min(args.block, WARM_UP + args.frames - done)
            first = turn % len(trackers)
            for tracker in trackers[first:] + trackers[:first]:
                tracker.step(frames)
        return {
            t.name: {"runs": t.runs, "times": np.array(t.times)[WARM_UP:], "memory_mb": t.close()} for t in trackers
        }
    finally:
        for tracker in trackers:
            tracker.kill()


def summarise(measured: dict[str, dict[str, Any]], expected: int) -> list[dict[str, Any]]:
    """One row per tracker; percentiles are None where fewer than LEAST_FRAMES frames have the ``expected`` hands."""
    agreed = np.all([m["times"][:, 1] == expected for m in measured.values()], axis=0)
    rows = []
    for name, m in measured.items():
        ms, hands = m["times"].T
        enough = agreed.sum() >= LEAST_FRAMES
        p50, p95, p99 = np.percentile(ms[agreed], [50, 95, 99]).round(3).tolist() if enough else [None] * 3
        row = {"tracker": name, "runs": m["runs"], "frames": int(agreed.sum()), "of": len(ms), "hands": hands.mean()}
        row |= {"p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "all_p50_ms": float(np.median(ms).round(3))}
        rows.append(row | {"memory_mb": round(m["memory_mb"], 1)})
    for row in rows:
        for key in ("p50_ms", "all_p50_ms"):
            row[f"ours_over_{key.removesuffix('_ms')}"] = rows[0][key] / row[key] if row[key] else None
    return rows


def markdown(rows: Sequence[dict[str, Any]], facts: dict[str, Any]) -> str:
    """The table, and what it was measured on."""
    lines = [
        "| case | max hands | tracker | frames | p50 ms | p95 ms | p99 ms | ours / this | all frames: p50 ms "
        "| ours / this | hands | memory MB |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        cells = [row["case"], row["max_hands"], row["tracker"], f"{row['frames']} of {row['of']}"]
        cells += [_number(row[key]) for key in ("p50_ms", "p95_ms", "p99_ms", "ours_over_p50", "all_p50_ms")]
        cells += [_number(row["ours_over_all_p50"]), _number(row["hands"]), f"{row['memory_mb']:.0f}"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    notes = "\n".join(f"- {name}: {value}" for name, value in facts.items())
    return "\n".join(lines) + f"\n\n{notes}\n"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def commit() -> str:
    """The commit that is checked out, '+' where files differ from it; 'unknown' outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--abbrev=12", "--dirty=+"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def parsed_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for case in CASES:
        parser.add_argument(f"--{case.replace(' ', '-')}", metavar="CLIP", help=f"a clip with {case} in view")
    parser.add_argument("--mediapipe-python", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=300, help="timed frames; a shorter clip is played to and fro")
    parser.add_argument("--width", type=int, default=640, help="wider clips are scaled down to it (default 640)")
    parser.add_argument("--block", type=int, default=10, help="frames per turn (default 10)")
    parser.add_argument("--core", type=int, help="the core that all trackers run on (default: the last)")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--output", type=Path, help="markdown")
    add_tracker_options(parser)
    parser.set_defaults(no_profile=True)
    args = parser.parse_args()
    if not any(clip_of(args, case) for case in CASES):
        parser.error("give at least one clip: --no-hand, --one-hand or --two-hands")
    if min(args.frames, args.width, args.block) < 1:
        parser.error("--frames, --width and --block must be at least 1")
    return args


def clip_of(args: argparse.Namespace, case: str) -> str | None:
    """The clip that was given for a case."""
    return getattr(args, case.replace(" ", "_"))


@command
def main() -> int:
    args = parsed_arguments()
    cores = sorted(os.sched_getaffinity(0))
    core = cores[-1] if args.core is None else args.core
    if core not in cores:
        raise SystemExit(f"error: --core {core} is none of the cores that may be used here: {cores}")
    rows: list[dict[str, Any]] = []
    facts = machine() | {"commit": commit(), "core": core, "frames": args.frames, "frames per turn": args.block}
    parameters = to_flat(tracker_config(args))
    for case, hands in CASES.items():
        if not (clip := clip_of(args, case)):
            continue
        with tempfile.TemporaryDirectory() as folder:
            frames = write_frames(clip, Path(folder) / "frames.raw", args.frames, args.width)
            facts[f"clip, {case}"] = f"{Path(clip).name}, {frames['width']}x{frames['height']}"
            for most in MAX_HANDS:
                settings = frames | {"parameters": parameters, "max_hands": most, "core": core}
                found = summarise(measure(settings, args, Path(folder)), min(hands, most))
                rows += [{"case": case, "max_hands": most} | row for row in found]
                print(f"{case}, at most {most}: done", file=sys.stderr, flush=True)
    facts |= {row["tracker"]: row["runs"] for row in rows}
    print(markdown(rows, facts))
    if args.output:
        args.output.write_text(markdown(rows, facts))
    if args.json:
        args.json.write_text(json.dumps({"machine": facts, "rows": rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
