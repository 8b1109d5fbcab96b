"""Poses in metres on synthetic sequences with exact truth: accuracy, and the trade-off between jitter and lag.

    python -m hand_tracking_ros.training.synthetic --kind sequence --count 12 --seed 900 --output SEQUENCES
    python benchmarks/poses.py SEQUENCES [--plot curve.png]

Of one camera per sequence. The networks run once; then come, with the size of the hand known and assumed:
points lifted one by one, the fit of every frame on its own filter-free, and the fit behind each preset and a grid of
settings of the one-euro filter. Errors in mm over all joints of the hands that were found; MPJPA: mean error of the
acceleration, m/s^2; jitter where the hand rests; lag by the shift that aligns the trajectories best.

Sequences of several cameras (``--cameras 2``) are tracked by the first one, by the first two and so on: in metres of
the rig, with the size of the hand known, and measured on the way where there are two.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from hand_tracking_ros.cli.options import add_tracker_options, text_table, tracker_config
from hand_tracking_ros.commands import command
from hand_tracking_ros.config import TrackerConfig
from hand_tracking_ros.detection import HandDetector
from hand_tracking_ros.evaluation.datasets import label_camera
from hand_tracking_ros.evaluation.run import track_rig
from hand_tracking_ros.evaluation.tracking import track_metrics
from hand_tracking_ros.hand_size import HandSize
from hand_tracking_ros.keypoints import KeypointEstimator
from hand_tracking_ros.posing import PRESETS, PoseFilter
from hand_tracking_ros.records import LabelledImage, TrackedFrame, read_labels
from hand_tracking_ros.rig import Rig, load_rig
from hand_tracking_ros.rig_tracker import RigTracker
from hand_tracking_ros.smoothing import HandFilter
from hand_tracking_ros.sources import open_source
from hand_tracking_ros.tracks import HandTracks

GRID = [(cutoff, beta) for cutoff in (0.5, 1.0, 1.5, 2.5, 4.0) for beta in (0.5, 1.0, 2.0, 4.0, 8.0)]
COLUMNS = ("found", "MPJPE mm", "PA mm", "MPJPA", "jitter mm", "lag ms")


def videos(folder: Path) -> dict[str, list[LabelledImage]]:
    """Labels by video."""
    by_name: dict[str, list[LabelledImage]] = {}
    for image in read_labels(folder):
        by_name.setdefault(image.video, []).append(image)
    return by_name


def keypoints_of(folder: Path, config: TrackerConfig) -> dict[str, list]:
    """What KeyNet sees: per video a list of HandKeypoints per frame."""
    detector = HandDetector(config.detector, config.inference)
    estimator = KeypointEstimator(config.keypoints, config.inference, config.track.max_hands)
    found = {}
    for name, labels in videos(folder).items():
        tracks, camera = HandTracks(config.track, config.flow), label_camera(labels[0])
        capture, found[name] = cv2.VideoCapture(str(folder / name)), []
        for label in labels:
            mono = cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2GRAY)
            boxes = tracks.predict(mono, label.stamp_s)
            if tracks.wants_detection(label.stamp_s):
                boxes = tracks.associate(detector.detect(mono), label.stamp_s)
            keypoints = estimator.estimate(mono, boxes, camera, config.track.least_presence) if boxes else []
            tracks.update(keypoints, label.stamp_s)
            if boxes:
                tracks.add(
                    estimator.read_afresh(mono, boxes, keypoints, camera, config.track.least_presence), label.stamp_s
                )
            found[name].append(keypoints)
    return found


def palm_m(labels: list[LabelledImage]) -> float:
    """The true palm length of a sequence."""
    hands = [hand.keypoints_m for image in labels for hand in image.hands]
    return float(np.median([np.linalg.norm(points[9] - points[0]) for points in hands]))


def tracked(folder: Path, found, config: TrackerConfig, known_size: bool):
    """Labels and tracking output per video."""
    sequences = []
    for name, labels in videos(folder).items():
        hand_filter, camera = HandFilter(config.filter, config.track, config.pose), label_camera(labels[0])
        if known_size:
            hand_filter.size = HandSize(palm_m(labels), 0.001)
            hand_filter.reset()
        frames = [
            (label, tuple(hand_filter.apply(keypoints, label.stamp_s, camera)))
            for label, keypoints in zip(labels, found[name])
        ]
        sequences.append((labels, [_frame(label, hands) for label, hands in frames]))
    return sequences


def filtered(sequences, config: TrackerConfig, cutoff_hz: float, beta: float):
    """Unfiltered output behind the pose filter with other settings: much faster than fitting again."""
    settings = replace(config.filter, kind="one_euro", min_cutoff_hz=cutoff_hz, beta=beta)
    out = []
    for labels, frames in sequences:
        filters: dict[int, PoseFilter] = {}
        new = []
        for label, frame in zip(labels, frames):
            hands = []
            for hand in frame.hands:
                if hand.pose is not None:
                    own = filters.setdefault(hand.id, PoseFilter(settings, config.track.max_gap_s))
                    own.update(hand.pose, frame.stamp_s)
                    hand = replace(hand, points_3d=own.predict(frame.stamp_s).points())
                hands.append(hand)
            new.append(_frame(label, tuple(hands)))
        out.append((labels, new))
    return out


def fused(folder: Path, config: TrackerConfig, cameras: int, known_size: bool):
    """Labels of the first camera and tracking output per sequence, tracked by the first ``cameras``."""
    sequences, labels = [], videos(folder)
    for file in sorted(folder.glob("*/cameras.yaml")):
        rig = Rig(load_rig(file).cameras[:cameras])
        names = [next((file.parent / camera.name).glob("video.*")) for camera in rig.cameras]
        own = labels[str(names[0].relative_to(folder))]
        tracker = RigTracker(rig, config)
        if known_size:
            tracker.filter.size = HandSize(palm_m(own), 0.001)
            tracker.reset()
        sources = [open_source(str(name), pace="fast") for name in names]
        sequences.append((own, [frame for _, frame in track_rig(tracker, sources)]))
    return sequences


def rig_table(folder: Path, config: TrackerConfig, most: int) -> list[tuple]:
    """A row for every number of cameras, with the default filter."""
    rows = []
    for cameras in range(1, most + 1):
        words = "1 camera" if cameras == 1 else f"{cameras} cameras"
        rows.append(row(f"{words}, size known", fused(folder, config, cameras, True))[0])
        if cameras > 1:
            rows.append(row(f"{words}, size measured", fused(folder, config, cameras, False))[0])
    return rows


def _frame(label: LabelledImage, hands) -> TrackedFrame:
    return TrackedFrame(label.frame, label.stamp_s, label.width, label.height, hands)


def row(name: str, sequences) -> tuple[tuple, dict]:
    m = track_metrics(sequences)
    values = (m["recall"], m["mpjpe_mm"], m["pa_mpjpe_mm"], m["mpjpa_m_s2"], m["jitter_mm"], m["lag_3d_ms"])
    formats = ("{:.2f}", "{:.0f}", "{:.1f}", "{:.1f}", "{:.2f}", "{:.0f}")
    return (name, *(f.format(v) for f, v in zip(formats, values))), m


def plot(path: Path, points: dict[str, dict]) -> None:
    """Jitter over lag, with the presets named."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4))
    for name, m in points.items():
        preset = name in PRESETS
        axes.plot(m["lag_3d_ms"], m["jitter_mm"], "o" if preset else ".", color="C1" if preset else "C0")
        if preset:
            axes.annotate(name, (m["lag_3d_ms"], m["jitter_mm"]), xytext=(5, 5), textcoords="offset points")
    axes.set_xlabel("lag, ms")
    axes.set_ylabel("jitter of a resting hand, mm")
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sequences", type=Path)
    parser.add_argument("--plot", type=Path)
    add_tracker_options(parser)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    config = tracker_config(args)
    rigs = [len(load_rig(file).cameras) for file in args.sequences.glob("*/cameras.yaml")]
    if rigs and min(rigs) > 1:
        print(text_table(rig_table(args.sequences, config, min(rigs)), ("", *COLUMNS)))
        return
    bare = replace(config, filter=replace(config.filter, kind="none"))
    lifted = replace(bare, pose=replace(config.pose, enabled=False))
    found = keypoints_of(args.sequences, config)
    rows, curve = [], {}
    for known, words in ((True, "size known"), (False, "size assumed")):
        rows.append(row(f"lifted, no filter, {words}", tracked(args.sequences, found, lifted, known))[0])
        fits = tracked(args.sequences, found, bare, known)
        rows.append(row(f"fit, no filter, {words}", fits)[0])
        for name, settings in PRESETS.items():
            line, m = row(name, filtered(fits, config, *settings))
            rows.append((f"fit, {name}, {words}", *line[1:]))
            curve.setdefault(name, m)
        if known:
            for settings in GRID:
                line, curve["{:g} Hz, beta {:g}".format(*settings)] = row("", filtered(fits, config, *settings))
                print("{:g} Hz, beta {:g}:".format(*settings), *line[1:], flush=True)
    print(text_table(rows, ("", *COLUMNS)))
    if args.plot:
        plot(args.plot, curve)


if __name__ == "__main__":
    raise SystemExit(main())
