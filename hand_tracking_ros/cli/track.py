"""`hand-tracking track`: hands in a camera, video or folder, as a file, as an overlay video, as a summary."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from hand_tracking_ros.cli.files import check_outputs, create
from hand_tracking_ros.cli.options import SIZE_FILE, add_tracker_options, parameter_files, tracker_config
from hand_tracking_ros.config import GestureConfig, TrackerConfig
from hand_tracking_ros.errors import HandTrackingError, SourceError
from hand_tracking_ros.hand_size import save_hand_size


@dataclass(frozen=True)
class TrackCommandConfig(TrackerConfig):
    """The parameters of the command."""

    gestures: GestureConfig = field(default_factory=GestureConfig)


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "track",
        help="track hands in a camera, video or folder of images",
        description="Track hands in a camera (0, /dev/video0), video file, folder of images, URL or 'gst:<pipeline>'. "
        "Files are read as fast as they can be tracked; Ctrl-C ends a camera.",
    )
    parser.add_argument("source", help="what to track")
    parser.add_argument(
        "--output", type=Path, metavar="JSONL", help="write the hands of every frame (docs/evaluation.md)"
    )
    parser.add_argument(
        "--everything",
        action="store_true",
        help="with --output: also what follows from a pose, as the nodes publish it: OpenXR's joints, palm pose, pinch "
        "and grasp strength, gesture; twice the size",
    )
    parser.add_argument("--overlay", type=Path, metavar="VIDEO", help="write a video with the hands drawn (.mp4, .avi)")
    parser.add_argument("--mono", action="store_true", help="draw the overlay on the grey image that the tracker sees")
    parser.add_argument(
        "--camera-info",
        metavar="YAML",
        help="camera calibration as ROS writes it, or rig.yaml:NAME of a rig file: gives 3D points in metres",
    )
    parser.add_argument("--rig", type=Path, metavar="YAML", help="several calibrated cameras ('hand-tracking rig')")
    parser.add_argument(
        "--also", nargs="+", default=[], metavar="SOURCE", help="with --rig: the sources of its other cameras, in order"
    )
    parser.add_argument(
        "--stereo",
        nargs=2,
        metavar=("RIGHT", "YAML"),
        help="the right camera of a stereo pair and its calibration as ROS writes it; the left one's is --camera-info",
    )
    parser.add_argument(
        "--depth",
        type=Path,
        metavar="PATH",
        help="depth images aligned with those of SOURCE, in millimetres: folder of 16-bit PNG, or video of 16 bits",
    )
    parser.add_argument(
        "--save-hand-size",
        type=Path,
        metavar="YAML",
        help="write the size of the hands when several cameras, or depth images, measured it",
    )
    parser.add_argument("--max-frames", type=int, metavar="N", help="stop after N frames")
    parser.add_argument("--loop", action="store_true", help="start files again at their end")
    parser.add_argument("--realtime", action="store_true", help="play files at their own speed")
    parser.add_argument("--fps", type=float, help="frame rate asked of a camera, or given to files")
    parser.add_argument("--size", metavar="WxH", help="size asked of a camera; files are resized to it")
    add_tracker_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from hand_tracking_ros.cli.track_input import input_files, open_tracked
    from hand_tracking_ros.cli.track_output import OverlayWriter, Summary
    from hand_tracking_ros.outputs.gestures import SignReader
    from hand_tracking_ros.records import write_tracks

    if args.max_frames is not None and args.max_frames < 1:
        raise SourceError(f"--max-frames must be at least 1, got {args.max_frames}")
    if args.everything and not args.output:
        raise HandTrackingError("--everything belongs to --output, the file that is written")
    saved = args.save_hand_size
    if saved is not None and not (args.rig or args.stereo or args.depth):
        raise HandTrackingError(
            "--save-hand-size needs what measures hands: two cameras that see one (--rig, --stereo), or depth images "
            "(--depth)"
        )
    config = tracker_config(args, TrackCommandConfig)
    outputs = {"--output": args.output, "--overlay": args.overlay}
    parameters = parameter_files(args, config)
    check_outputs(outputs, parameters)
    others = [(name, path) for name, path in parameters if name != SIZE_FILE]  # a size may be measured anew
    check_outputs(outputs | {"--save-hand-size": saved}, [*input_files(args), *others])
    signs = SignReader(config.gestures) if args.everything else None
    failure: SourceError | None = None
    with ExitStack() as stack:
        opened = open_tracked(args, config, stack)
        source = opened.source
        output = stack.enter_context(create(args.output)) if args.output else None
        overlay = stack.enter_context(OverlayWriter(args.overlay, source.fps)) if args.overlay else None
        total = None if args.loop or not len(source) else len(source)
        total = args.max_frames if total is None else min(total, args.max_frames or total)
        bar = stack.enter_context(tqdm(total=total, unit=" frames", disable=not sys.stderr.isatty()))
        summary = Summary()
        try:
            for images, drawn, tracked in opened.frames:
                summary.add(tracked)
                if output is not None:
                    write_tracks(output, [tracked], signs)
                if overlay is not None:
                    overlay.write(images, drawn, mono=args.mono)
                bar.update()
        except KeyboardInterrupt:
            pass  # the way to end a camera; what was tracked is complete
        except SourceError as error:
            failure = error
    print(summary)
    if opened.report is not None:
        print(f"\n{opened.report}")
    if saved is not None:
        if not opened.tracker.filter.size.is_measured:
            raise HandTrackingError(
                f"{saved} is not written: nothing measured the hands; that takes two cameras that see one, or depth "
                "images, for longer"
            )
        save_hand_size(saved, opened.tracker.filter.size)
    for path in filter(None, (args.output, args.overlay, saved)):
        print(f"wrote {path}")
    if failure is not None:
        raise failure
    return 0
