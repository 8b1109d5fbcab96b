"""How still is a hand at rest, and how late a moving one? Ours beside MediaPipe, bare and behind a one-euro filter.

    python -m hand_tracking_ros.training.synthetic --kind sequence --count 6 --seed 901 --rgb --output SEQUENCES
    python benchmarks/rest_and_lag.py SEQUENCES --photos hand.png --mediapipe-python mediapipe/bin/python \\
        --output rest_and_lag.md --json rest_and_lag.json

At rest: frames from a quarter, the middle and three quarters of each sequence, and each photo, repeated for some
seconds with new camera noise every time (Gaussian, ``--noise`` grey levels). What moves then is the tracker's own:
``jitter`` from frame to frame (motion.jitter) and ``wander`` about the mean, RMS over joints and hands. That is decided
by the few hands that jump between two readings, so the jitter of the median hand is there as well, and how many jump.
Moving: the sequences, whose truth is exact; the lag is the shift of the truth that fits best. Both trackers see the
same files, losslessly compressed, MediaPipe in colour. MediaPipe has no position in metres: its mm, and ours to
compare, are px at the true distance. ``--mediapipe-python`` is the interpreter of an environment with
mediapipe==0.10.21.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from hand_tracking_ros.cli.evaluate import dumps
from hand_tracking_ros.cli.options import add_tracker_options, tracker_config
from hand_tracking_ros.commands import command
from hand_tracking_ros.config import FilterConfig, TrackerConfig
from hand_tracking_ros.errors import HandTrackingError
from hand_tracking_ros.evaluation import motion
from hand_tracking_ros.evaluation.datasets import label_camera
from hand_tracking_ros.evaluation.matching import keypoint_costs, match, mean, percentile
from hand_tracking_ros.evaluation.run import track_source
from hand_tracking_ros.evaluation.tracking import MATCH_PALM, linked, track_metrics
from hand_tracking_ros.filters import make_filter
from hand_tracking_ros.posing import PRESETS
from hand_tracking_ros.records import LabelledImage, TrackedFrame, read_labels, read_tracks
from hand_tracking_ros.skeleton import palm_length
from hand_tracking_ros.sources import open_source, read_image
from hand_tracking_ros.tracker import HandTracker
from hand_tracking_ros.training.synthetic.film import VideoFile
from hand_tracking_ros.types import Hand, Scale

FPS = 30.0
SETTLE_S = 1.0  # a filter may take this long to come to rest
LEAST_FRAMES = 10  # of a hand at rest
MOMENTS = (0.25, 0.5, 0.75)  # of a sequence, that are shown at rest
JUMP_PX = 1.0  # jitter of a hand that does not rest
MAX_GAP_S = 0.5  # the one-euro filter behind MediaPipe starts afresh after such a gap
AT_REST = {
    "found": "found",
    "median_jitter_px": "jitter px, median hand",
    "median_jitter_side_mm": "jitter mm, sideways, median hand",
    "jumping": "hands that jump",
    "jitter_px": "jitter px",
    "wander_px": "wander px",
    "jitter_side_mm": "jitter mm, sideways",
    "wander_side_mm": "wander mm, sideways",
    "jitter_mm": "jitter mm, 3D",
    "wander_mm": "wander mm, 3D",
}
MOVING = {
    "recall": "found",
    "mean_percent": "error, % of palm",
    "lag_ms": "lag ms",
    "lag_3d_ms": "lag ms, 3D",
    "jitter_px": "jitter px, in pauses",
    "jitter_mm": "jitter mm, 3D, in pauses",
}


class Clip(NamedTuple):
    """A video, and a label of each of its frames; the labels have no hands where the truth is not known."""

    video: Path
    labels: Sequence[LabelledImage]


def moving_clips(folder: Path) -> list[Clip]:
    """The sequences in ``folder``, by video. Raises RecordError."""
    by_video: dict[str, list[LabelledImage]] = {}
    for image in read_labels(folder):
        by_video.setdefault(image.video, []).append(image)
    return [Clip(folder / name, labels) for name, labels in by_video.items()]


def still_clip(image: np.ndarray, label: LabelledImage, video: Path, seconds: float, noise: float) -> Clip:
    """Write ``video``: the ``image`` (H, W) or (H, W, 3) again and again, each time with other camera noise."""
    rng, labels = np.random.default_rng(0), []
    with VideoFile(video, "FFV1", FPS, image.shape[1::-1], color=image.ndim == 3) as out:
        for index in range(round(seconds * FPS)):
            out.write(np.clip(image + rng.normal(0, noise, image.shape) + 0.5, 0, 255).astype(np.uint8))
            labels.append(replace(label, file=None, video=video.name, frame=index, stamp_s=index / FPS))
    return Clip(video, labels)


def still_clips(moving: Sequence[Clip], photos: Sequence[Path], args: argparse.Namespace, work: Path):
    """(of frames of the sequences, of the photos)."""
    drawn, real = [], []
    for clip, moment in itertools.product(moving, MOMENTS):
        count = len(clip.labels)
        index = min(range(count), key=lambda i: (not clip.labels[i].hands, abs(i - moment * count)))
        capture = cv2.VideoCapture(str(clip.video))
        capture.set(cv2.CAP_PROP_POS_FRAMES, index)
        ok, image = capture.read()
        if not ok:
            raise HandTrackingError(f"cannot read frame {index} of {clip.video}; make the sequences again")
        drawn.append(still_clip(image, clip.labels[index], work / f"rest{len(drawn)}.avi", args.seconds, args.noise))
    for path in photos:
        image = read_image(path)
        label = LabelledImage(image.shape[1], image.shape[0], ())
        real.append(still_clip(image, label, work / f"photo{len(real)}.avi", args.seconds, args.noise))
    return drawn, real


def ours(clips: Sequence[Clip], config: TrackerConfig) -> list[list[TrackedFrame]]:
    """Our tracking output of every clip."""
    out = []
    for clip in clips:
        with open_source(clip.video, pace="fast") as source:
            frames = track_source(HandTracker(config), source, label_camera(clip.labels[0]))
            out.append([frame for _, frame in frames])
    return out


def mediapipes(clips: Sequence[Clip], python: Path, max_hands: int, work: Path) -> list[list[TrackedFrame]]:
    """The same of MediaPipe, by benchmarks/mediapipe_reference.py in its own environment. Raises SystemExit."""
    script, out = Path(__file__).with_name("mediapipe_reference.py"), []
    for index, clip in enumerate(clips):
        folder = work / str(index)
        command = [python, script, clip.video, "--output-dir", folder, "--max-hands", max_hands]
        try:
            done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        except OSError as error:
            raise SystemExit(f"error: cannot run {python}: {error.strerror}") from error
        if done.returncode:
            raise SystemExit(f"error: MediaPipe failed in {python}:\n{done.stderr[-2000:]}")
        out.append(linked(read_tracks(folder / f"{clip.video.stem}.rgb.jsonl")))
    return out


def one_euro(frames: Sequence[TrackedFrame], cutoff_hz: float, beta: float) -> list[TrackedFrame]:
    """The keypoints of every hand behind a filter of its own, in palm lengths as in our tracker."""
    config = FilterConfig(kind="one_euro", min_cutoff_hz=cutoff_hz, beta=beta)
    filters, out = {}, []
    for frame in frames:
        hands = []
        for hand in frame.hands:
            own = filters.setdefault(hand.id, make_filter(config, MAX_GAP_S))
            smooth = own.update(hand.keypoints_px, frame.stamp_s, float(palm_length(hand.keypoints_px)))
            hands.append(replace(hand, keypoints_px=smooth))
        out.append(replace(frame, hands=tuple(hands)))
    return out


def rest_metrics(clips: Sequence[Clip], tracked: Sequence[Sequence[TrackedFrame]]) -> dict[str, Any]:
    """What moves although nothing does, of hands that are there; NaN for what is not known. Lengths in px and mm."""
    squares: dict[str, list[float]] = {}
    own: dict[str, list[float]] = {"jitter_px": [], "jitter_side_mm": []}  # of each hand
    found = wanted = 0
    for clip, frames in zip(clips, tracked, strict=True):
        truth = clip.labels[0].hands
        wanted += len(clip.labels) * (len(truth) or 1)
        for hands in _tracks(frames):
            px = np.stack([hand.keypoints_px for _, hand in hands])
            pairs = match(keypoint_costs([hand.keypoints_px for hand in truth], [px.mean(axis=0)]), MATCH_PALM)
            if truth and not pairs:
                continue  # something else that was taken for a hand
            found += len(hands)
            settled = [(stamp, hand) for stamp, hand in hands if stamp >= SETTLE_S]
            if len(settled) < LEAST_FRAMES:
                continue
            distance_m = truth[pairs[0][0]].keypoints_m[:, 2].mean() if truth else np.nan
            camera = label_camera(clip.labels[0])
            for name, values in _deviations(settled, 1e3 * distance_m / camera.fx if camera else np.nan).items():
                squares.setdefault(name, []).extend(values.ravel().tolist())
                if name in own:
                    own[name].append(float(np.sqrt(values.mean())))
    rms = {name: float(np.sqrt(mean(values))) for name, values in squares.items()}
    medians = {f"median_{name}": percentile(values, 50) for name, values in own.items()}
    jumping = mean(np.array(own["jitter_px"]) > JUMP_PX)
    facts = {"clips": len(clips), "found": found / wanted if wanted else float("nan"), "jumping": jumping}
    return dict.fromkeys(AT_REST, float("nan")) | facts | rms | medians


def _tracks(frames: Sequence[TrackedFrame]) -> list[list[tuple[float, Hand]]]:
    tracks: dict[int, list[tuple[float, Hand]]] = {}
    for frame in frames:
        for hand in frame.hands:
            tracks.setdefault(hand.id, []).append((frame.stamp_s, hand))
    return list(tracks.values())


def _deviations(hands: Sequence[tuple[float, Hand]], mm_per_px: float) -> dict[str, np.ndarray]:
    """Squared deviations of each joint, from frame to frame and from its mean."""
    stamps = np.array([stamp for stamp, _ in hands])
    points = {"px": np.stack([hand.keypoints_px for _, hand in hands])}
    if np.isfinite(mm_per_px):
        points["side_mm"] = points["px"] * mm_per_px
    if all(hand.scale in (Scale.ASSUMED, Scale.MEASURED) for _, hand in hands):
        points["mm"] = 1e3 * np.stack([hand.points_3d for _, hand in hands])
    all_rest = np.ones(len(stamps), bool)
    values = {}
    for unit, array in points.items():
        values[f"jitter_{unit}"] = motion.jitter(stamps, array, all_rest)
        values[f"wander_{unit}"] = ((array - array.mean(axis=0)) ** 2).sum(axis=-1)
    return values


def moving_metrics(clips: Sequence[Clip], tracked: Sequence[Sequence[TrackedFrame]]) -> dict[str, Any]:
    """As evaluation.tracking has them."""
    return track_metrics([(clip.labels, frames) for clip, frames in zip(clips, tracked, strict=True)])


def measure(clips: Sequence[Clip], judge: Callable, config: TrackerConfig, args: argparse.Namespace) -> dict[str, Any]:
    """{tracker: metrics by ``judge``}."""
    results = {}
    for preset in PRESETS:
        own = replace(config, pose=replace(config.pose, preset=preset))
        results[f"ours, {preset}"] = judge(clips, ours(clips, own))
    with tempfile.TemporaryDirectory() as folder:
        peer = mediapipes(clips, args.mediapipe_python, config.track.max_hands, Path(folder))
    results["MediaPipe"] = judge(clips, peer)
    for preset, settings in PRESETS.items():
        smooth = [one_euro(frames, *settings) for frames in peer]
        results[f"MediaPipe, one-euro {settings[0]:g} Hz, beta {settings[1]:g} ({preset})"] = judge(clips, smooth)
    return results


def table(title: str, columns: dict[str, str], results: dict[str, dict[str, Any]]) -> str:
    """Markdown: one row per tracker."""
    lines = [f"| {title} | " + " | ".join(columns.values()) + " |", "|---" * (1 + len(columns)) + "|"]
    for tracker, metrics in results.items():
        values = [metrics[key] for key in columns]
        cells = ["-" if np.isnan(value) else f"{value:.3g}" for value in values]
        lines.append(f"| {tracker} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def parsed_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sequences", type=Path, help="folder of synthetic sequences")
    parser.add_argument("--mediapipe-python", type=Path, required=True, help="Python with mediapipe==0.10.21")
    parser.add_argument("--photos", nargs="*", type=Path, default=[], help="images with hands, to be repeated")
    parser.add_argument("--seconds", type=float, default=4.0, help="how long a still frame is repeated")
    parser.add_argument("--noise", type=float, default=4.0, help="camera noise of still frames, grey levels")
    parser.add_argument("--output", type=Path, help="write the markdown there too")
    parser.add_argument("--json", type=Path, help="write all figures there")
    add_tracker_options(parser)
    return parser.parse_args()


@command
def main() -> int:
    args = parsed_arguments()
    cv2.setNumThreads(1)
    config, moving = tracker_config(args), moving_clips(args.sequences)
    with tempfile.TemporaryDirectory() as folder:
        drawn, real = still_clips(moving, args.photos, args, Path(folder))
        results = {"at rest, synthetic": measure(drawn, rest_metrics, config, args)}
        if real:
            results["at rest, photos"] = measure(real, rest_metrics, config, args)
    results["moving, synthetic"] = measure(moving, moving_metrics, config, args)
    tables = [table(name, MOVING if name.startswith("moving") else AT_REST, rows) for name, rows in results.items()]
    print("\n\n".join(tables))
    if args.output:
        args.output.write_text("\n\n".join(tables) + "\n")
    if args.json:
        args.json.write_text(dumps(results) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
