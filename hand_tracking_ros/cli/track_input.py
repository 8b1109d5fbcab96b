"""What `hand-tracking track` reads: one camera, with depth images or without, or the cameras of a rig."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hand_tracking_ros.calibration import size_problem
from hand_tracking_ros.cli.options import image_size
from hand_tracking_ros.cli.track_output import RigReport
from hand_tracking_ros.config import TrackerConfig
from hand_tracking_ros.errors import CalibrationError, SourceError
from hand_tracking_ros.geometry import box_around
from hand_tracking_ros.records import TrackedFrame
from hand_tracking_ros.sources import Source
from hand_tracking_ros.types import Hand

if TYPE_CHECKING:
    from hand_tracking_ros.rig import Rig, RigCamera
    from hand_tracking_ros.rig_tracker import RigTracker
    from hand_tracking_ros.tracker import HandTracker


@dataclass(frozen=True)
class Tracked:
    """What is tracked. ``source``: the one with the steps' rate; ``frames``: per step the images, the hands to draw on
    each, and what was tracked; ``report``: on the cameras of a rig."""

    source: Source
    tracker: HandTracker | RigTracker
    frames: Iterator[tuple[list[np.ndarray], list[Sequence[Hand]], TrackedFrame]]
    report: RigReport | None = None


def input_files(args: argparse.Namespace) -> list[tuple[str, str | Path | None]]:
    """What the arguments name to be read, by option; some are no files."""
    also = [("--also", source) for source in args.also]
    stereo = [("--stereo", path) for path in args.stereo or ()]
    camera_info = args.camera_info and _rig_and_camera(args.camera_info)[0]
    return [
        ("SOURCE", args.source),
        ("--camera-info", camera_info),
        ("--rig", args.rig),
        ("--depth", args.depth),
        *also,
        *stereo,
    ]


def open_tracked(args: argparse.Namespace, config: TrackerConfig, stack: ExitStack) -> Tracked:
    """What the arguments name, opened until ``stack`` ends. Raises SourceError and CalibrationError."""
    if args.also and not args.rig:
        raise SourceError("--also needs --rig, the calibration of the cameras")
    if args.stereo and args.rig:
        raise SourceError("--stereo and --rig both say where cameras are: give one of the two")
    if not (args.rig or args.stereo):
        return _one_camera(args, config, stack)
    if args.rig and args.camera_info:
        raise SourceError("--camera-info is the lens of one camera, but --rig has the lenses of all: leave it out")
    if args.depth:
        raise SourceError("--depth is for one camera with --camera-info, not for --rig or --stereo")
    return _rig(args, config, stack)


def _one_camera(args: argparse.Namespace, config: TrackerConfig, stack: ExitStack) -> Tracked:
    from hand_tracking_ros.evaluation.run import track_source
    from hand_tracking_ros.tracker import HandTracker

    calibrated = _calibrated(args.camera_info)
    camera = calibrated and calibrated.camera
    source = _open(args, args.source, stack)
    depth = _depth(args, source, stack) if args.depth else None
    if depth is not None and camera is None:
        raise SourceError("--depth is of no use without --camera-info, the calibration of the camera")
    tracker = HandTracker(config)

    def frames():
        for item, tracked in track_source(tracker, source, camera, args.max_frames, depth):
            _check_size(calibrated, item.image, args.camera_info, source.live)
            yield [item.image], [tracked.hands], tracked

    return Tracked(source, tracker, frames())


def _depth(args: argparse.Namespace, source: Source, stack: ExitStack) -> Source:
    from hand_tracking_ros.depth_source import open_depth

    if source.live:
        raise SourceError(f"--depth names recorded depth images, but {args.source} is live: record both, or use a node")
    return stack.enter_context(open_depth(args.depth, source.fps, args.fps, args.loop))


def _rig(args: argparse.Namespace, config: TrackerConfig, stack: ExitStack) -> Tracked:
    from hand_tracking_ros.evaluation.run import track_rig
    from hand_tracking_ros.rig import load_rig
    from hand_tracking_ros.rig_tracker import RigTracker

    if args.stereo:
        rig, names, files = _stereo(args), [args.source, args.stereo[0]], [args.camera_info, args.stereo[1]]
    else:
        rig, names = load_rig(args.rig), [args.source, *args.also]
        files = [f"{args.rig}:{camera.name}" for camera in rig.cameras]
    if len(names) != len(rig.cameras):
        raise SourceError(
            f"{args.rig} has {len(rig.cameras)} cameras, but {len(names)} sources are given: name the first as SOURCE, "
            "the others with --also"
        )
    sources = [_open(args, name, stack) for name in names]
    tracker = RigTracker(rig, config)
    report = RigReport([camera.name for camera in rig.cameras], str(args.rig or " with ".join(files)))

    def frames():
        for items, tracked in track_rig(tracker, sources, args.max_frames):
            for camera, item, file, source in zip(rig.cameras, items, files, sources):
                _check_size(camera, item.image, file, source.live)
            report.step(tracker.disagreement, tracker.apart, tracker.lags_s, tracked.stamp_s, tracker.filter.size)
            yield [item.image for item in items], [in_camera(tracked.hands, camera) for camera in rig.cameras], tracked

    return Tracked(min(sources, key=lambda source: source.fps), tracker, frames(), report)


def _stereo(args: argparse.Namespace) -> Rig:
    """The rig of --camera-info and --stereo: the files that ROS writes of a stereo pair. Raises CalibrationError."""
    from hand_tracking_ros.calibration import load_camera_yaml
    from hand_tracking_ros.rig import rig_from_stereo

    if args.camera_info is None:
        raise CalibrationError(
            "--stereo RIGHT YAML is the right camera: give the left one's calibration as --camera-info"
        )
    try:
        return rig_from_stereo(load_camera_yaml(args.camera_info), load_camera_yaml(args.stereo[1]))
    except CalibrationError as error:
        raise CalibrationError(f"{args.camera_info} and {args.stereo[1]}: {error}") from error


def in_camera(hands: Sequence[Hand], camera: RigCamera) -> list[Hand]:
    """Hands of a rig as one of its cameras sees them: keypoints projected. Those it cannot see are left out."""
    seen = []
    for hand in hands:
        points = camera.project(hand.points_3d)
        if np.isfinite(points).all():
            seen.append(replace(hand, keypoints_px=points, box=box_around(points)))
    return seen


def _open(args: argparse.Namespace, name: str, stack: ExitStack) -> Source:
    from hand_tracking_ros.sources import open_source

    width, height = image_size(args.size) if args.size is not None else (None, None)
    pace = "realtime" if args.realtime else "fast"
    return stack.enter_context(open_source(name, loop=args.loop, pace=pace, width=width, height=height, fps=args.fps))


def _calibrated(path: str | None) -> RigCamera | None:
    """The camera of a calibration file, or 'rig.yaml:name' of a rig; None when it is not calibrated."""
    if path is None:
        return None
    from hand_tracking_ros.calibration import load_camera_yaml
    from hand_tracking_ros.rig import RigCamera, load_rig

    file, name = _rig_and_camera(path)
    if name:
        return load_rig(file)[name]
    calibration = load_camera_yaml(path)
    camera = calibration.camera()
    return camera and RigCamera(calibration.camera_name, calibration.width, calibration.height, camera)


def _rig_and_camera(path: str) -> tuple[str, str]:
    """A rig file and the name of its camera from 'rig.yaml:name', or the path as it is and ''."""
    file, _, name = path.rpartition(":")
    return (file, name) if name and Path(file).expanduser().is_file() else (path, "")


def _check_size(calibrated: RigCamera | None, image: np.ndarray, path: str | None, live: bool) -> None:
    """A calibration holds for its own image size only."""
    height, width = image.shape[:2]
    if calibrated is not None and (calibrated.width, calibrated.height) != (width, height):
        wanted = calibrated.width, calibrated.height
        setting = f"give --size {calibrated.width}x{calibrated.height}"
        raise CalibrationError(f"{path} {size_problem(wanted, (width, height), setting, live=live)}")
