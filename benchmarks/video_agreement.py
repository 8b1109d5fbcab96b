"""How many of the hands that MediaPipe sees in colour does our tracker see in the grey image of the same frame?

    python benchmarks/video_agreement.py --videos ../shared/data/videos --reference reference

``reference`` is a folder of MediaPipe's hands, ``<video stem>.rgb.jsonl`` and, if wanted, ``.mono.jsonl`` and
``.mirrored.jsonl``, made by benchmarks/mediapipe_reference.py in MediaPipe's own environment. A hand counts as matched
when a hand of ours in the same frame has a mean keypoint distance of at most 20 % of the palm, one to one; as repeated
when MediaPipe finds it like this in the mirrored frame, too. Prints a markdown table.

One run is much by chance: a track that is lost or turned around by a hair stays so for seconds. ``--noisy-runs 8`` adds
eight runs with noise of one grey level on the images, and a table of the means over all nine with their deviation.
Compare networks and settings by these.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from hand_tracking_ros.cli.options import add_tracker_options, tracker_config
from hand_tracking_ros.commands import command
from hand_tracking_ros.evaluation.agreement import agreement, repeated
from hand_tracking_ros.evaluation.matching import percentile
from hand_tracking_ros.evaluation.run import track_source
from hand_tracking_ros.images import as_mono
from hand_tracking_ros.records import TrackedFrame, read_tracks, write_tracks
from hand_tracking_ros.sources import SourceImage, VideoSource, open_source
from hand_tracking_ros.tracker import HandTracker


class Noisy:
    """A video in grey with noise of at most one grey level on it, none for seed 0."""

    def __init__(self, source: VideoSource, seed: int):
        self._source, self.fps = source, source.fps
        self._rng = np.random.default_rng(seed) if seed else None

    def read(self) -> SourceImage | None:
        """The next image."""
        item = self._source.read()
        if item is None or self._rng is None:
            return item
        mono = as_mono(item.image)
        noisy = mono + self._rng.integers(-1, 2, mono.shape, np.int16)
        return replace(item, image=np.clip(noisy, 0, 255).astype(np.uint8))


def track_video(path: Path, config, output: Path | None, seed: int = 0) -> list[TrackedFrame]:
    """Our hands in every frame of the video, each frame at its media time."""
    with open_source(path, pace="fast") as source:
        assert isinstance(source, VideoSource)
        tracked = track_source(HandTracker(config), Noisy(source, seed))
        bar = tqdm(tracked, path.stem, len(source), disable=not sys.stderr.isatty())
        frames = [frame for _, frame in bar]
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        with (output / f"{path.stem}.ours.jsonl").open("w") as stream:
            write_tracks(stream, frames)
    return frames


def compare(path: Path, reference: Path, ours: list[TrackedFrame]) -> dict[str, Any]:
    """Agreement of ours, and of MediaPipe on grey images, with MediaPipe on colour images."""
    colour = read_tracks(reference / f"{path.stem}.rgb.jsonl")
    result = {"video": path.stem, "ours": agreement(colour, ours)}
    grey = reference / f"{path.stem}.mono.jsonl"
    if grey.is_file():
        result["mediapipe_mono"] = agreement(colour, read_tracks(grey))
    mirrored = reference / f"{path.stem}.mirrored.jsonl"
    if mirrored.is_file():
        sure = repeated(colour, read_tracks(mirrored))
        result["mediapipe_mirrored"] = agreement(colour, read_tracks(mirrored))
        result["ours_of_repeated"] = agreement(sure, ours)
    result["latency_ms_p50"] = percentile([frame.latency_ms["total"] for frame in ours], 50)
    result["ids"] = len({hand.id for frame in ours for hand in frame.hands})
    return result


def table(results: list[dict[str, Any]]) -> str:
    """Markdown: one row per video."""
    lines = [
        "| video | frames | MediaPipe RGB hands | ours mono: matched | MediaPipe mono: matched | "
        "MediaPipe RGB mirrored: matched (repeated) | ours mono, of the repeated: matched | ours: median error | "
        "MediaPipe mono: median error | ours: same side | ours: frames with a hand | ours: extra hands | ours: ids |",
        "|---" * 13 + "|",
    ]

    def percent(value: float | None, digits: int = 0) -> str:
        return "-" if value is None or value != value else f"{value:.{digits}f} %"

    def share(r: dict, key: str) -> str:
        return percent(100 * r[key]["share"], 1) if key in r else "-"

    for r in results:
        ours, grey = r["ours"], r.get("mediapipe_mono", {})
        cells = [r["video"], ours["frames"], ours["reference_hands"], share(r, "ours"), share(r, "mediapipe_mono")]
        cells += [share(r, "mediapipe_mirrored"), share(r, "ours_of_repeated")]
        cells += [percent(ours["median_error_percent"], 1), percent(grey.get("median_error_percent"), 1)]
        cells += [percent(100 * ours["same_side"]), ours["frames_with_hand"], ours["extra_hands"], r["ids"]]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def table_of_means(runs: list[list[dict[str, Any]]]) -> str:
    """Markdown: one row per video, over the runs."""
    lines = ["| video | runs | ours mono: matched | deviation | ours: extra hands | deviation |", "|---" * 6 + "|"]
    for video in zip(*runs):
        shares = 100 * np.array([run["ours"]["share"] for run in video])
        extra = np.array([run["ours"]["extra_hands"] for run in video])
        matched = "- | -" if np.isnan(shares).any() else f"{shares.mean():.1f} % | {shares.std():.1f}"
        extras = f"{extra.mean():.0f} | {extra.std():.0f}"
        lines.append(f"| {video[0]['video']} | {len(video)} | {matched} | {extras} |")
    return "\n".join(lines)


@command
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=Path, required=True, help="folder with videos (sub-folders too)")
    parser.add_argument("--reference", type=Path, required=True, help="folder with MediaPipe's hands")
    parser.add_argument("--only", nargs="*", help="stems of the videos to run; default: all that have a reference")
    parser.add_argument("--json", type=Path, help="write all figures there")
    parser.add_argument("--keep", type=Path, help="folder for our tracking output")
    parser.add_argument("--noisy-runs", type=int, default=0, help="runs with a little noise, to see what is chance")
    add_tracker_options(parser)
    args = parser.parse_args()

    cv2.setNumThreads(1)
    videos = sorted(p for p in args.videos.rglob("*.mp4") if (args.reference / f"{p.stem}.rgb.jsonl").is_file())
    videos = [p for p in videos if not args.only or p.stem in args.only]
    if not videos:
        parser.error(
            f"no video below {args.videos} has a <stem>.rgb.jsonl in {args.reference}; run mediapipe_reference.py"
        )
    config = tracker_config(args)
    runs = [
        [compare(path, args.reference, track_video(path, config, None if seed else args.keep, seed)) for path in videos]
        for seed in range(1 + args.noisy_runs)
    ]
    print(table(runs[0]))
    if args.noisy_runs:
        print(f"\n{table_of_means(runs)}")
    if args.json:
        args.json.write_text(json.dumps(runs if args.noisy_runs else runs[0], indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
