"""`hand-tracking demo`: the shipped clip of two synthetic hands through the tracker, judged by its exact truth."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hand_tracking_ros.cli.files import check_outputs, create
from hand_tracking_ros.cli.options import add_tracker_options, parameter_files, tracker_config
from hand_tracking_ros.errors import HandTrackingError

OVERLAY = Path("hand_tracking_demo.mp4")
CLIP, LABELS = "demo_hands.mp4", "labels.jsonl"  # as training/synthetic/demo.py writes them


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "demo",
        help="track a short synthetic clip with known truth, and show how well it goes",
        description="Track the shipped clip: 6 s of two rendered hands with exact ground truth. Shows error, jitter "
        "and latency, and writes a video with the tracked hands drawn in.",
    )
    parser.add_argument(
        "--overlay", type=Path, default=OVERLAY, metavar="VIDEO", help=f"video to write (default: {OVERLAY})"
    )
    parser.add_argument("--no-overlay", action="store_true", help="write no video")
    parser.add_argument("--output", type=Path, metavar="JSONL", help="write the hands of every frame, as 'track' does")
    add_tracker_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from hand_tracking_ros.cli.track_output import OverlayWriter
    from hand_tracking_ros.evaluation.datasets import label_camera
    from hand_tracking_ros.evaluation.run import track_source
    from hand_tracking_ros.evaluation.tracking import track_metrics
    from hand_tracking_ros.records import read_labels, write_tracks
    from hand_tracking_ros.sources import open_source
    from hand_tracking_ros.tracker import HandTracker

    overlay_file = None if args.no_overlay else args.overlay
    config = tracker_config(args)
    check_outputs({"--overlay": overlay_file, "--output": args.output}, parameter_files(args, config))
    folder = demo_directory()
    labels = read_labels(folder)
    camera = label_camera(labels[0])
    tracker = HandTracker(config)
    tracks = []
    with ExitStack() as stack:
        source = stack.enter_context(open_source(str(folder / CLIP), pace="fast"))
        overlay = stack.enter_context(OverlayWriter(overlay_file, source.fps)) if overlay_file else None
        bar = stack.enter_context(tqdm(total=len(labels), unit=" frames", disable=not sys.stderr.isatty()))
        for item, tracked in track_source(tracker, source, camera):
            tracks.append(tracked)
            if overlay is not None:
                overlay.write([item.image], [tracked.hands])
            bar.update()
    if len(tracks) != len(labels):
        raise HandTrackingError(
            f"{folder / CLIP} has {len(labels)} frames, but OpenCV decoded {len(tracks)}: reinstall the package, or "
            "install opencv-python-headless, which brings its own decoder"
        )
    if args.output is not None:
        with create(args.output) as stream:
            write_tracks(stream, tracks)
    print(summary(track_metrics([(labels, tracks)])))
    for path in filter(None, (overlay_file, args.output)):
        print(f"wrote {path}")
    return 0


def demo_directory() -> Path:
    """The folder with the clip and its labels: a data set in the format of docs/evaluation.md."""
    folder = Path(__file__).resolve().parents[1] / "assets" / "demo"
    if not (folder / CLIP).is_file() or not (folder / LABELS).is_file():
        raise HandTrackingError(
            f"the demo clip is missing in {folder}: the install is incomplete, reinstall the package"
        )
    return folder


def summary(metrics: Mapping[str, Any]) -> str:
    """The metrics that say most, one per line, with what they mean."""
    rows = [
        ("frames", f"{metrics['frames']}", "640x480 at 30 Hz, read as mono"),
        ("hands found", f"{100 * metrics['recall']:.1f} %", f"of {metrics['hands']}, counted frame by frame"),
        ("within 20 % palm", f"{100 * metrics['recall_within_20_percent']:.1f} %", "found, and close"),
        ("false hands", f"{metrics['false_hands_per_frame']:.3f}", "per frame"),
        ("error, mean", f"{metrics['mean_percent']:.1f} %", "of the palm, in the image, over all joints"),
        ("error, median", f"{metrics['median_percent']:.1f} %", ""),
        ("error, 3D", f"{metrics['mpjpe_mm']:.0f} mm", "with an assumed hand size"),
        ("error, 3D shape", f"{metrics['pa_mpjpe_mm']:.1f} mm", "after the best rotation, scale and shift"),
        ("jitter at rest", f"{metrics['jitter_px']:.2f} px", ""),
        ("lag", f"{metrics['lag_ms']:.0f} ms", "of the filtered hands behind the image"),
        ("side correct", f"{100 * metrics['side_accuracy']:.1f} %", ""),
        ("id switches", f"{metrics['id_switches']}", "one is right: a hand leaves and comes back"),
        ("latency p50", f"{metrics['latency_ms_p50']:.1f} ms", "image in to hands out, on this machine"),
        ("latency p99", f"{metrics['latency_ms_p99']:.1f} ms", ""),
    ]
    width = max(len(value) for _, value, _ in rows)
    return "\n".join(f"{name:<18}{value.replace('nan', '-'):>{width}}  {note}".rstrip() for name, value, note in rows)
