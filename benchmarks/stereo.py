"""A hand in two calibrated videos: agreement of the cameras, of the bones over time, and of one camera with two.

    hand-tracking rig ../shared/data/videos/stereo_desk --size 720x720 --unit-m 0.042 --output desk.yaml
    python benchmarks/stereo.py desk.yaml ../shared/data/videos/stereo_desk/cam0.mp4 .../cam1.mp4 --plot desk.png

The size of the hand is measured by both cameras in the first run; with it, the first camera alone tracks again, and its
distance is compared with that of both, frame by frame.
"""

from __future__ import annotations

import argparse
import itertools
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from hand_tracking_ros.cli.options import add_tracker_options, text_table, tracker_config
from hand_tracking_ros.commands import command
from hand_tracking_ros.config import TrackConfig
from hand_tracking_ros.evaluation.run import track_rig, track_source
from hand_tracking_ros.kinematics import BONES
from hand_tracking_ros.rig import Rig, load_rig
from hand_tracking_ros.rig_tracker import RigTracker
from hand_tracking_ros.sources import open_source
from hand_tracking_ros.tracker import HandTracker

PARENTS, CHILDREN = np.array(BONES).T


def both(rig: Rig, videos, config):
    """Per frame with a hand: (frame, hand, reprojection errors by camera); and the tracker."""
    tracker, rows, frames = RigTracker(rig, config), [], 0
    sources = [open_source(str(video), pace="fast") for video in videos]
    for items, tracked in track_rig(tracker, sources):
        frames += 1
        for hand in tracked.hands:
            fit = tracker.filter.fit(hand.id)
            errors = [float(np.nanmean(e)) for e in fit.errors_px] if fit is not None else []
            rows.append((items[0].index, hand, errors))
    return frames, rows, tracker


def alone(rig: Rig, video: Path, config, size):
    """{frame: hand} of the first camera on its own, with the size of the hand known."""
    tracker = HandTracker(config)
    tracker.filter.size = size
    tracker.reset()
    hands = {}
    with open_source(str(video), pace="fast") as source:
        for item, tracked in track_source(tracker, source, rig.cameras[0].camera):
            for hand in tracked.hands:
                hands[item.index] = hand
    return hands


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rig", type=Path)
    parser.add_argument("videos", type=Path, nargs=2)
    parser.add_argument("--plot", type=Path, help="distance over time, by both cameras and by the first alone (png)")
    add_tracker_options(parser)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    config = replace(tracker_config(args), track=TrackConfig(max_hands=1))
    rig = load_rig(args.rig)
    frames, rows, tracker = both(rig, args.videos, config)
    hands = [hand for _, hand, _ in rows]
    stereo = np.array([errors for _, _, errors in rows if len(errors) == 2])
    points = np.stack([hand.points_3d for hand in hands])
    bones = np.linalg.norm(points[:, CHILDREN] - points[:, PARENTS], axis=-1)
    settled = bones[len(bones) // 4 :]
    single = alone(rig, args.videos[0], config, tracker.filter.size)
    pairs = [(i, hand.points_3d[9, 2], single[i].points_3d[9, 2]) for i, hand, _ in rows if i in single]
    away = np.array([abs(b / a - 1) for _, a, b in pairs])
    ids, sides = [h.id for h in hands], [h.side for h in hands]
    table = [
        ("frames", frames),
        ("frames with a hand", len({i for i, _, _ in rows})),
        ("seen by both cameras", len(stereo)),
        ("reprojection error, px, mean", " / ".join(f"{e:.1f}" for e in stereo.mean(axis=0))),
        ("reprojection error, px, median", " / ".join(f"{e:.1f}" for e in np.median(stereo, axis=0))),
        ("bone length, deviation over time", f"{100 * (bones.std(axis=0) / bones.mean(axis=0)).max():.1f} %"),
        ("the same after the first quarter", f"{100 * (settled.std(axis=0) / settled.mean(axis=0)).max():.1f} %"),
        ("id switches", sum(a != b for a, b in itertools.pairwise(ids))),
        ("side flips", sum(a != b for a, b in itertools.pairwise(sides))),
        ("palm, mm", f"{1000 * tracker.filter.size.palm_m:.1f} to {100 * tracker.filter.size.sigma:.1f} %"),
        ("first camera alone: distance away, median", f"{100 * np.median(away):.1f} % in {len(away)} frames"),
        ("first camera alone: within 8 %", f"{100 * (away <= 0.08).mean():.0f} %"),
        ("disagreement, palms", " / ".join(f"{d:.2f}" for d in tracker.disagreement)),
    ]
    print(text_table(table))
    if args.plot:
        plot(args.plot, rows, pairs)


def plot(path: Path, rows, pairs) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 1, figsize=(8, 5), sharex=True)
    axes[0].plot([i for i, _, _ in rows], [h.points_3d[9, 2] for _, h, _ in rows], ".", ms=3, label="both cameras")
    axes[0].plot([i for i, _, _ in pairs], [b for _, _, b in pairs], ".", ms=3, label="first camera alone, size known")
    axes[0].set_ylabel("distance, m")
    axes[0].legend()
    known = [(i, e) for i, _, e in rows if len(e) == 2]
    for camera in range(2):
        axes[1].plot([i for i, _ in known], [e[camera] for _, e in known], ".", ms=3, label=f"camera {camera}")
    axes[1].set_ylabel("reprojection error, px")
    axes[1].set_xlabel("frame")
    axes[1].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    raise SystemExit(main())
