"""`hand-tracking track`: hands in a camera, video or folder, as a file, as an overlay video, as a summary."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from hand_tracking_ros.cli.options import add_tracker_options, text_table, tracker_config
from hand_tracking_ros.errors import CalibrationError, HandTrackingError, SourceError
from hand_tracking_ros.geometry import box_around
from hand_tracking_ros.hand_size import save_hand_size
from hand_tracking_ros.records import TrackedFrame
from hand_tracking_ros.types import Hand

if TYPE_CHECKING:
    from hand_tracking_ros.rig import RigCamera

CODECS = {".mp4": "mp4v", ".avi": "MJPG", ".mkv": "mp4v", ".webm": "VP90"}
SKIPPED_MS = 0.05  # a detector stage faster than this did not run: it only asked whether it should


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
        "--save-hand-size",
        type=Path,
        metavar="YAML",
        help="write the size of the hands when several cameras measured it",
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

    from hand_tracking_ros.records import write_tracks

    if args.max_frames is not None and args.max_frames < 1:
        raise SourceError(f"--max-frames must be at least 1, got {args.max_frames}")
    failure: SourceError | None = None
    with ExitStack() as stack:
        source, tracker, frames = _rig_frames(args, stack) if args.rig else _frames(args, stack)
        output = stack.enter_context(_create(args.output)) if args.output else None
        overlay = stack.enter_context(OverlayWriter(args.overlay, source.fps)) if args.overlay else None
        total = None if args.loop or not len(source) else len(source)
        total = args.max_frames if total is None else min(total, args.max_frames or total)
        bar = stack.enter_context(tqdm(total=total, unit=" frames", disable=not sys.stderr.isatty()))
        summary = Summary()
        try:
            for images, drawn, tracked in frames:
                summary.add(tracked)
                if output is not None:
                    write_tracks(output, [tracked])
                if overlay is not None:
                    overlay.write(images, drawn, mono=args.mono)
                bar.update()
        except KeyboardInterrupt:
            pass  # the way to end a camera; what was tracked is complete
        except SourceError as error:
            failure = error
    print(summary)
    saved = args.save_hand_size
    if saved is not None:
        if not tracker.filter.size.is_measured:
            raise HandTrackingError(
                f"{saved} is not written: nothing measured the hands; that takes two cameras (--rig)"
            )
        save_hand_size(saved, tracker.filter.size)
    for path in filter(None, (args.output, args.overlay, saved)):
        print(f"wrote {path}")
    if failure is not None:
        raise failure
    return 0


def _frames(args: argparse.Namespace, stack: ExitStack):
    """The source, the tracker, and per frame the images, the hands to draw on each, and what was tracked."""
    from hand_tracking_ros.evaluation.run import track_source
    from hand_tracking_ros.tracker import HandTracker

    if args.also:
        raise SourceError("--also needs --rig, the calibration of the cameras")
    config, calibrated = tracker_config(args), _calibrated(args.camera_info)
    source = _open(args, args.source, stack)
    tracker = HandTracker(config)

    def frames():
        for item, tracked in track_source(tracker, source, calibrated and calibrated.camera, args.max_frames):
            _check_size(calibrated, item.image, args.camera_info)
            yield [item.image], [tracked.hands], tracked

    return source, tracker, frames()


def _rig_frames(args: argparse.Namespace, stack: ExitStack):
    """As ``_frames``, for the cameras of a rig."""
    from hand_tracking_ros.evaluation.run import track_rig
    from hand_tracking_ros.rig import load_rig
    from hand_tracking_ros.rig_tracker import RigTracker

    rig, names = load_rig(args.rig), [args.source, *args.also]
    if len(names) != len(rig.cameras):
        raise SourceError(
            f"{args.rig} has {len(rig.cameras)} cameras, but {len(names)} sources are given: name the first as SOURCE, "
            "the others with --also"
        )
    config = tracker_config(args)
    sources = [_open(args, name, stack) for name in names]
    tracker = RigTracker(rig, config)

    def frames():
        for items, tracked in track_rig(tracker, sources, args.max_frames):
            for camera, item in zip(rig.cameras, items):
                _check_size(camera, item.image, f"{args.rig}:{camera.name}")
            yield [item.image for item in items], [in_camera(tracked.hands, camera) for camera in rig.cameras], tracked

    return sources[0], tracker, frames()


def in_camera(hands: Sequence[Hand], camera: RigCamera) -> list[Hand]:
    """Hands of a rig as one of its cameras sees them: keypoints projected. Those it cannot see are left out."""
    seen = []
    for hand in hands:
        points = camera.project(hand.points_3d)
        if np.isfinite(points).all():
            seen.append(replace(hand, keypoints_px=points, box=box_around(points)))
    return seen


def _open(args: argparse.Namespace, name: str, stack: ExitStack):
    from hand_tracking_ros.sources import open_source

    width, height = _size(args.size)
    pace = "realtime" if args.realtime else "fast"
    return stack.enter_context(open_source(name, loop=args.loop, pace=pace, width=width, height=height, fps=args.fps))


class Summary:
    """What was tracked, and how long each stage took."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._frames = self._seen = self._hands = self._detections = 0
        self._ids: set[int] = set()
        self._latency_ms: dict[str, list[float]] = {}

    def add(self, tracked: TrackedFrame) -> None:
        self._frames += 1
        self._seen += bool(tracked.hands)
        self._hands += len(tracked.hands)
        self._ids.update(hand.id for hand in tracked.hands)
        self._detections += tracked.latency_ms.get("detect", 0.0) > SKIPPED_MS
        for stage, ms in tracked.latency_ms.items():
            self._latency_ms.setdefault(stage, []).append(ms)

    def __str__(self) -> str:
        count = self._frames
        if not count:
            return "no frames"
        seconds = time.perf_counter() - self._start
        facts = [
            ("frames", count, f"{count / seconds:.1f} per second, with reading and writing"),
            ("frames with a hand", self._seen, f"{100 * self._seen / count:.1f} %"),
            ("hands", self._hands, f"{self._hands / count:.2f} per frame"),
            ("tracks (ids)", len(self._ids), ""),
        ]
        if "detect" in self._latency_ms:
            facts.append(("detector runs", self._detections, f"{100 * self._detections / count:.1f} % of frames"))
        latency = [
            (stage, *(f"{np.percentile(values, q):.2f}" for q in (50, 99)))
            for stage, values in self._latency_ms.items()
        ]
        left = "\n".join(f"{name:<20}{value:>8}  {note}".rstrip() for name, value, note in facts)
        return f"{left}\n\n{text_table(latency, ('latency, ms', 'p50', 'p99'))}"


class OverlayWriter:
    """Video file with the hands drawn on every frame; frames of another size than the first are fitted into it."""

    def __init__(self, path: Path, fps: float) -> None:
        if path.suffix.lower() not in CODECS:
            raise HandTrackingError(f"cannot write overlay {path}: the name must end in one of {', '.join(CODECS)}")
        self._path, self._fps = path, fps
        self._size: tuple[int, int] | None = None
        self._writer: cv2.VideoWriter | None = None

    def write(self, images: Sequence[np.ndarray], hands: Sequence[Sequence[Hand]], *, mono: bool = False) -> None:
        """Draw each camera's hands on its image (BGR or mono), in grey when ``mono``, and append them side by side."""
        from hand_tracking_ros.images import as_mono
        from hand_tracking_ros.overlay import draw_hands

        parts = [draw_hands(as_mono(image) if mono else image, own) for image, own in zip(images, hands, strict=True)]
        tallest = max(part.shape[0] for part in parts)
        drawn = np.hstack([cv2.copyMakeBorder(p, 0, tallest - p.shape[0], 0, 0, cv2.BORDER_CONSTANT) for p in parts])
        if self._writer is None:
            self._size = (drawn.shape[1], drawn.shape[0])
            codec = cv2.VideoWriter_fourcc(*CODECS[self._path.suffix.lower()])
            self._writer = cv2.VideoWriter(str(self._path), codec, self._fps, self._size)
            if not self._writer.isOpened():
                raise HandTrackingError(
                    f"cannot write overlay {self._path}: the folder is missing or not writable, or this OpenCV has no "
                    "encoder for it (try a name that ends in .avi)"
                )
        self._writer.write(drawn if drawn.shape[1::-1] == self._size else self._fitted(drawn))

    def _fitted(self, image: np.ndarray) -> np.ndarray:
        width, height = self._size
        scale = min(width / image.shape[1], height / image.shape[0])
        small = cv2.resize(image, (max(1, int(image.shape[1] * scale)), max(1, int(image.shape[0] * scale))))
        canvas = np.zeros((height, width, 3), np.uint8)
        canvas[: small.shape[0], : small.shape[1]] = small
        return canvas

    def __enter__(self) -> OverlayWriter:
        return self

    def __exit__(self, *_) -> None:
        if self._writer is not None:
            self._writer.release()


def _create(path: Path):
    try:
        return path.open("w")
    except OSError as error:
        raise HandTrackingError(f"cannot write {path}: {error.strerror}") from error


def _size(text: str | None) -> tuple[int | None, int | None]:
    if text is None:
        return None, None
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise SourceError(f"--size must be WIDTHxHEIGHT, e.g. 640x480; got '{text}'")
    return int(width), int(height)


def _calibrated(path: str | None) -> RigCamera | None:
    """The camera of a calibration file, or 'rig.yaml:name' of a rig; None when it is not calibrated."""
    if path is None:
        return None
    from hand_tracking_ros.calibration import load_camera_yaml
    from hand_tracking_ros.rig import RigCamera, load_rig

    file, _, name = path.rpartition(":")
    if name and Path(file).expanduser().is_file():
        return load_rig(file)[name]
    calibration = load_camera_yaml(path)
    camera = calibration.camera()
    return camera and RigCamera(calibration.camera_name, calibration.width, calibration.height, camera)


def _check_size(calibrated: RigCamera | None, image: np.ndarray, path: str | None) -> None:
    """A calibration holds for its own image size only."""
    height, width = image.shape[:2]
    if calibrated is not None and (calibrated.width, calibrated.height) != (width, height):
        raise CalibrationError(
            f"{path} is for {calibrated.width}x{calibrated.height} images, but these are {width}x{height}: "
            f"give --size {calibrated.width}x{calibrated.height} if that is how they were taken, or calibrate anew"
        )
