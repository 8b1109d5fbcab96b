"""How the cost of a frame grows: with the hands that are tracked, with the size of the images, with cameras.

    python benchmarks/scaling.py --output scaling.md --json scaling.json --plot scaling.png
    python -m hand_tracking_ros.training.synthetic --kind sequence --count 1 --seed 910 --cameras 4 --output RIG
    python benchmarks/scaling.py --rig RIG/0000

Hands: the demo clip four times in one image (1280x960) shows eight hands, ``track.max_hands`` says how many of them are
wanted; only frames with all of them count. Sizes: the demo clip, enlarged, two hands. Cameras: the first 1 to 4 of a
recorded rig, every hand fitted in metres, on all cores. All cases of a kind take turns, frame by frame, so that a busy
moment of the machine hits all of them. ``cpu`` is the time that all threads really ran.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from stages import machine, markdown  # the neighbouring script

from hand_tracking_ros.cli.demo import CLIP, demo_directory
from hand_tracking_ros.cli.options import add_tracker_options, text_table, tracker_config
from hand_tracking_ros.commands import at_least, command
from hand_tracking_ros.config import TrackerConfig
from hand_tracking_ros.images import as_mono
from hand_tracking_ros.rig import Rig, load_rig
from hand_tracking_ros.rig_tracker import RigTracker
from hand_tracking_ros.sources import open_source
from hand_tracking_ros.tracker import HandTracker
from hand_tracking_ros.types import Frame

HANDS = (1, 2, 3, 4, 6, 8)
SIZES = ((640, 480), (960, 720), (1280, 720), (1280, 960), (1920, 1080))
FPS = 60.0
WARM_UP = 40  # frames
FAINT = 0.1  # score of a detection that is still looked at
COLUMNS = ("case", "frames", "p50 ms", "p99 ms", "cpu p50 ms", "hands")
Step = Callable[[int], int]  # the number of the frame -> hands found


def read_clip(path: Path | str, limit: int | None = None) -> list[np.ndarray]:
    """The first ``limit`` images, mono, in the order of playing forth and back."""
    with open_source(path, pace="fast") as source:
        frames = [as_mono(item.image) for item in itertools.islice(source, limit)]
    return frames + frames[-2:0:-1]


def stamp_s(k: int) -> float:
    return k / FPS


def hands_cases(clip: list[np.ndarray], config: TrackerConfig) -> dict[str, tuple[Step, int]]:
    """Per case what makes a step, and how many hands a frame must show to count. All are found: they are small."""
    config = replace(config, detector=replace(config.detector, score_threshold=FAINT))
    four = [np.tile(image, (2, 2)) for image in clip]
    cases = {}
    for count in HANDS:
        tracker = HandTracker(replace(config, track=replace(config.track, max_hands=count)))
        name = f"{count} hand{'s' * (count > 1)}"
        cases[name] = (lambda k, t=tracker: len(t.step(Frame(four[k % len(four)], stamp_s(k)))), count)
    return cases


def size_cases(clip: list[np.ndarray], config: TrackerConfig) -> dict[str, tuple[Step, int]]:
    """As ``hands_cases``, two hands. Enlarged to the height, the rest of the width is black."""
    cases = {}
    for width, height in SIZES:
        large = [np.zeros((height, width), np.uint8) for _ in clip]
        for image, original in zip(large, clip):
            w = min(round(original.shape[1] * height / original.shape[0]), width)
            image[:, :w] = cv2.resize(original, (w, height))
        tracker = HandTracker(config)
        cases[f"{width}x{height}"] = (lambda k, t=tracker, s=large: len(t.step(Frame(s[k % len(s)], stamp_s(k)))), 2)
    return cases


def rig_cases(folder: Path, rig: Rig, config: TrackerConfig) -> dict[str, tuple[Step, int]]:
    """As ``hands_cases``, with the first cameras of a rig, recorded in ``folder``; frames with a hand count."""
    clips = [read_clip(next((folder / camera.name).glob("video.*"))) for camera in rig.cameras]
    cases = {}
    for count in range(1, len(rig.cameras) + 1):
        tracker = RigTracker(Rig(rig.cameras[:count]), config)

        def step(k: int, tracker=tracker, count=count) -> int:
            frames = [
                Frame(clip[k % len(clip)], stamp_s(k), camera.camera)
                for clip, camera in zip(clips[:count], rig.cameras)
            ]
            return len(tracker.step(frames))

        cases[f"{count} camera{'s' * (count > 1)}"] = (step, 1)
    return cases


def measure(cases: dict[str, tuple[Step, int]], frames: int) -> list[dict[str, object]]:
    """One row per case, in ms."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    hands: dict[str, list[int]] = {name: [] for name in cases}
    for k in range(WARM_UP + frames):
        for name, (step, least) in cases.items():
            wall, cpu = time.perf_counter(), time.process_time()
            found = step(k)
            times = 1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - cpu)
            if k >= WARM_UP:
                hands[name].append(found)
                if found >= least:
                    taken[name].append(times)
    return [row(name, np.array(taken[name]).reshape(-1, 2), hands[name]) for name in cases]


def row(name: str, taken: np.ndarray, hands: Sequence[int]) -> dict[str, object]:
    """Figures of one case; NaN where no frame counted."""
    wall, cpu = taken.T if len(taken) else (np.array([np.nan]), np.array([np.nan]))
    p50, p99 = np.percentile(wall, [50, 99])
    return {
        "case": name, "frames": len(taken), "p50_ms": round(float(p50), 2), "p99_ms": round(float(p99), 2),
        "cpu_p50_ms": round(float(np.median(cpu)), 2), "hands": round(float(np.mean(hands)), 2),
    }  # fmt: skip


def amount(case: str) -> float:
    """Hands, cameras or million pixels of a case."""
    first = case.split(" ")[0]
    width, _, height = first.partition("x")
    return int(width) * int(height) / 1e6 if height else float(first)


def plot(path: Path, results: dict[str, list[dict[str, object]]]) -> None:
    """One panel per kind, with the median and, lighter, the 99th percentile."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(results), figsize=(4.2 * len(results), 3.4), squeeze=False, sharey=True)
    for axes, (title, rows) in zip(panels[0], results.items()):
        amounts = [amount(str(r["case"])) for r in rows]
        axes.plot(amounts, [r["p99_ms"] for r in rows], "o-", color="C0", alpha=0.3, label="p99")
        axes.plot(amounts, [r["p50_ms"] for r in rows], "o-", color="C0", label="p50")
        axes.set_xlabel("million pixels" if title == "image size" else title)
        axes.set_xlim(left=0)
        axes.grid(alpha=0.3)
    panels[0][0].set_ylim(bottom=0)  # of all panels, and only now: it ends the scaling to what is drawn
    panels[0][0].set_ylabel("ms per frame")
    panels[0][0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=300, help="timed frames per case")
    parser.add_argument("--rig", type=Path, help="a synthetic sequence recorded by several cameras")
    parser.add_argument("--output", type=Path, help="also write the tables here, as markdown")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    add_tracker_options(parser)
    args = parser.parse_args()
    at_least(args, 1, "frames")
    cv2.setNumThreads(1)
    config, clip = tracker_config(args), read_clip(demo_directory() / CLIP)
    kinds = {"hands": lambda: hands_cases(clip, config), "image size": lambda: size_cases(clip, config)}
    if args.rig:
        rig = load_rig(args.rig / "cameras.yaml")
        kinds["cameras"] = lambda: rig_cases(args.rig, rig, config)
    results, text = {}, []
    for kind, make in kinds.items():
        results[kind] = measure(make(), args.frames)
        rows = [tuple(str(value) for value in r.values()) for r in results[kind]]
        print(text_table(rows, COLUMNS) + "\n", flush=True)
        text.append(markdown(COLUMNS, rows))
    if args.output:
        args.output.write_text("\n".join(text))
    if args.json:
        args.json.write_text(json.dumps({"machine": machine(), **results}, indent=1) + "\n")
    if args.plot:
        plot(args.plot, results)


if __name__ == "__main__":
    raise SystemExit(main())
