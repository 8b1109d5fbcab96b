"""Latency of every stage of the core, measured side by side in one process.

    python benchmarks/stages.py                        # the models in models/, a synthetic scene at 640x480
    python benchmarks/stages.py --width 1280 --height 720 --backend onnxruntime --json stages.json

Each round runs every stage once, so a busy moment of the machine hits all of them alike and their ratios hold even
where the milliseconds do not. ``wall`` is what a user waits; ``cpu`` is the time that this thread really ran, which
load from other processes hardly changes (work in other threads, with --threads above 1, is not in it). ``x yardstick``
is the median CPU time over that of a fixed Gaussian blur: a unit to compare machines by.

Networks cost the same whatever they see, so the scene is texture with two hand-sized boxes that move with it; flow
follows its motion.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from hand_tracking_ros.backends import available_backends
from hand_tracking_ros.commands import command
from hand_tracking_ros.config import FilterConfig, InferenceConfig, TrackerConfig
from hand_tracking_ros.detection import HandDetector
from hand_tracking_ros.errors import HandTrackingError
from hand_tracking_ros.filters import make_filter
from hand_tracking_ros.flow import FlowPropagator
from hand_tracking_ros.geometry import box_around, crop_from_image, warp
from hand_tracking_ros.keypoints import KeypointEstimator
from hand_tracking_ros.kinematics import HandPose, exp_rotation
from hand_tracking_ros.machine import cpu_name
from hand_tracking_ros.skeleton import Side
from hand_tracking_ros.smoothing import HandFilter
from hand_tracking_ros.types import Camera, HandBox, HandKeypoints, Source

FRAME_S = 1 / 60
STEP_PX = (9.0, 5.0)  # motion of the scene per frame
YARDSTICK = "yardstick (Gaussian blur, 640x480)"
Stage = Callable[[int], object]  # takes the number of the round


def texture(width: int, height: int) -> np.ndarray:
    """Grey noise with structure at several sizes, (height, width) uint8."""
    rng = np.random.default_rng(0)
    image = np.zeros((height, width), np.float32)
    for sigma in (1.5, 4, 12, 40):
        layer = cv2.GaussianBlur(rng.normal(size=(height, width)).astype(np.float32), (0, 0), sigma)
        image += layer / layer.std()
    return np.clip(128 + 30 * image, 0, 255).astype(np.uint8)


def open_hand(center: tuple[float, float], palm: float) -> np.ndarray:
    """(21, 2) px: an open upright hand."""
    points = [(0.0, 0.9)]
    for angle in np.radians([-60, -25, -5, 15, 38]):
        points += [(np.sin(angle) * reach, 0.6 - np.cos(angle) * reach) for reach in (0.7, 1.1, 1.4, 1.7)]
    return np.array(points) * palm + center


def core_stages(images: list[np.ndarray], hands: list[np.ndarray], config: TrackerConfig) -> dict[str, Stage]:
    """Stages that need no network."""
    flow = FlowPropagator(config.flow)
    ready = [flow.prepare(image) for image in images]
    boxed = [(points, box_around(points)) for points in hands]
    crop = crop_from_image(boxed[0][1].scaled(config.keypoints.crop_scale), (96, 96))
    filters = {kind: make_filter(FilterConfig(kind=kind)) for kind in ("one_euro", "kalman")}
    hand_filter = HandFilter(config.filter, config.track, config.pose)
    joints = np.random.default_rng(0).normal(size=(64, 22, 3)) + 100
    seen = [_keypoints(i + 1, points) for i, points in enumerate(hands)]
    height, width = images[0].shape
    camera = Camera(width, width, width / 2, height / 2)
    turning = [turning_hands(camera, k) for k in range(64)]
    posed = {count: HandFilter(config.filter, config.track, config.pose) for count in (1, 2)}
    return {
        "flow: image made ready": lambda k: flow.prepare(images[k % 2]),
        "flow: 1 hand": lambda k: flow.propagate_many(ready[k % 2], ready[(k + 1) % 2], boxed[:1]),
        "flow: 2 hands": lambda k: flow.propagate_many(ready[k % 2], ready[(k + 1) % 2], boxed),
        "crop: 96x96, 1 hand": lambda k: warp(images[k % 2], crop, (96, 96), border_value=None),
        "filter: one-euro, 22x3": lambda k: filters["one_euro"].update(joints[k % 64], k * FRAME_S, 80.0),
        "filter: Kalman, 22x3": lambda k: filters["kalman"].update(joints[k % 64], k * FRAME_S, 80.0),
        "filter: whole stage, 2 hands": lambda k: hand_filter.apply(seen, k * FRAME_S),
        "poses: filter and fit, 1 hand": lambda k: posed[1].apply(turning[k % 64][:1], k * FRAME_S, camera),
        "poses: filter and fit, 2 hands": lambda k: posed[2].apply(turning[k % 64], k * FRAME_S, camera),
    }


def network_stages(images: list[np.ndarray], hands: list[np.ndarray], config: TrackerConfig) -> dict[str, Stage]:
    """Stages with a network in them; one whose model cannot be loaded is named and left out."""
    boxes = [HandBox(box_around(points), 0.9, id=i + 1, source=Source.PROPAGATED) for i, points in enumerate(hands)]
    stages: dict[str, Stage] = {}
    try:
        detector = HandDetector(config.detector, config.inference)
        stages[f"detect: whole stage ({detector.backend.name})"] = lambda k: detector.detect(images[k % 2])
    except HandTrackingError as error:
        print(f"left out: the detection stage: {error}")
    try:
        estimator = KeypointEstimator(config.keypoints, config.inference, max_hands=2)
    except HandTrackingError as error:
        print(f"left out: the keypoint stage: {error}")
        return stages
    for count in (1, 2):
        name = f"keypoints: whole stage, {count} hand{'s' * (count > 1)} ({estimator.backend.name})"
        stages[name] = lambda k, count=count: estimator.estimate(images[k % 2], boxes[:count])
    return stages


def turning_hands(camera: Camera, k: int) -> list[HandKeypoints]:
    """Two bent hands that sway once in 64 frames, as a network sees them: with noise of 1 px and of depths."""
    rng, turn = np.random.default_rng(k), 0.3 * np.sin(k * np.pi / 32)
    hands = []
    for hand_id, (side, x) in enumerate(((Side.RIGHT, -0.12), (Side.LEFT, 0.12)), start=1):
        place = np.array([x + 0.1 * turn, 0.05, 0.5])
        pose = HandPose(side, exp_rotation(np.array([0.2, turn, turn])), place, np.full(20, 0.3), 0.088)
        points = pose.points()
        depth = (points[:, 2] - points[9, 2]) / pose.palm_m + rng.normal(0, 0.1, len(points))
        px = camera.project(points) + rng.normal(size=(len(points), 2))
        score, right = np.full(len(points), 0.8), 0.9 if side == Side.RIGHT else 0.1
        hands.append(HandKeypoints(hand_id, box_around(px), Source.PROPAGATED, px, score, depth, 0.9, right))
    return hands


def _keypoints(hand_id: int, points: np.ndarray) -> HandKeypoints:
    box, score = box_around(points), np.ones(len(points))
    return HandKeypoints(hand_id, box, Source.PROPAGATED, points.copy(), score, 0 * score, 0.9, 0.9)


def measure(stages: dict[str, Stage], rounds: int, warm_up: int = 20) -> dict[str, np.ndarray]:
    """(2, rounds) per stage: wall and CPU seconds of every round."""
    times = {name: np.empty((2, rounds)) for name in stages}
    for k in range(-warm_up, rounds):
        for name, stage in stages.items():
            wall, cpu = time.perf_counter(), time.thread_time()
            stage(k + warm_up)
            if k >= 0:
                times[name][:, k] = time.perf_counter() - wall, time.thread_time() - cpu
    return times


def summary(times: dict[str, np.ndarray]) -> list[dict[str, float | str]]:
    """One row per stage, in ms."""
    unit = np.median(times[YARDSTICK][1])
    rows = []
    for name, (wall, cpu) in times.items():
        p50, p99 = np.percentile(wall * 1e3, [50, 99])
        cpu_p50 = float(np.median(cpu))
        row = {"stage": name, "wall_p50_ms": p50, "wall_p99_ms": p99}
        rows.append(row | {"cpu_p50_ms": cpu_p50 * 1e3, "yardsticks": cpu_p50 / unit})
    return rows


def machine() -> dict[str, object]:
    """What the numbers were measured on, and how busy it was."""
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "backends": {status.name: status.version for status in available_backends() if status.version},
    }


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table for a markdown file."""
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, ("---",) * len(header), *rows)) + "\n"


@command
def main() -> None:
    parser = argparse.ArgumentParser(description="Latency of every stage of the core.")
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of OpenCV and of each network (default 1)")
    parser.add_argument("--json", type=Path, help="also write machine and rows to this file")
    arguments = parser.parse_args()

    cv2.setNumThreads(arguments.threads)
    config = TrackerConfig(inference=InferenceConfig(backend=arguments.backend, threads=arguments.threads))
    scene = texture(arguments.width, arguments.height)
    images = [scene, warp(scene, np.array([[1, 0, STEP_PX[0]], [0, 1, STEP_PX[1]]]), scene.shape[::-1], None)]
    palm = arguments.height / 7
    hands = [open_hand((share * arguments.width, 0.5 * arguments.height), palm) for share in (0.3, 0.7)]
    fixed = texture(640, 480)

    stages: dict[str, Stage] = {YARDSTICK: lambda k: cv2.GaussianBlur(fixed, (0, 0), 3)}
    stages |= core_stages(images, hands, config) | network_stages(images, hands, config)
    rows = summary(measure(stages, arguments.rounds))
    facts = machine() | {"image": f"{arguments.width}x{arguments.height}", "rounds": arguments.rounds}
    facts["threads"] = arguments.threads
    print("\n".join(f"{name}: {value}" for name, value in facts.items()))
    print(f"\n{'stage':44s} {'wall p50':>9s} {'p99':>9s} {'cpu p50':>9s}   (ms) {'x yardstick':>12s}")
    for row in rows:
        times = f"{row['wall_p50_ms']:9.3f} {row['wall_p99_ms']:9.3f} {row['cpu_p50_ms']:9.3f}"
        print(f"{row['stage']:44s} {times}        {row['yardsticks']:12.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": facts, "stages": rows}, indent=1) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
