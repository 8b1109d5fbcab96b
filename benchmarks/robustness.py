"""Our tracker and MediaPipe side by side on the same degraded images, one row per condition.

    python benchmarks/robustness.py --data ../shared/data --labels LABELS --mediapipe-python mediapipe/bin/python \\
        --limit 200 --output robustness.md --json robustness.json

``LABELS/<set>/labels.jsonl`` are the teacher's labels of the images in ``--data/<set>``. Only images that the shipped
networks were not trained on are used: all of sign_digits_218, and the held-out photos of hagrid_hand_crops. The
degraded images (hand_tracking_ros/evaluation/degrade.py) go to a temporary folder, or to ``--keep``, as PNG, and both
trackers look at each one by one. ``--mediapipe-python`` is the interpreter of an environment with mediapipe==0.10.21.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from hand_tracking_ros.cli.evaluate import dumps
from hand_tracking_ros.cli.options import add_tracker_options, tracker_config
from hand_tracking_ros.commands import command
from hand_tracking_ros.config import TrackerConfig
from hand_tracking_ros.evaluation.datasets import labelled_images
from hand_tracking_ros.evaluation.degrade import CONDITIONS, HAND_PX, degrade, load_backgrounds
from hand_tracking_ros.evaluation.robustness import DegradedWriter, evaluate_robustness, robustness_metrics, sample
from hand_tracking_ros.records import LabelledImage, read_labels, read_tracks
from hand_tracking_ros.training.labelled import held_out

HAGRID_PERCENT = 6.0
HELD_OUT = {
    "sign_digits_218": lambda name: True,
    "hagrid_hand_crops": lambda name: held_out(name, HAGRID_PERCENT),
}
COLOUR = ", in colour"
NOTE = (
    f"640x480 images, the largest hand {HAND_PX:.0f} px long where the condition does not say otherwise, seen one by "
    "one; grey but for the rows in colour, where MediaPipe alone gets the colour image. Labels are MediaPipe's, agreed "
    "upon in several enlarged views of the clear colour image: on clear images MediaPipe is its own reference, hands "
    "that it does not see there are not counted, and its error is how well it repeats itself. Found: a hand within one "
    "palm of the labelled one. Found and within 20 % (mean keypoint distance) are shares of all labelled hands; error "
    "(in % of the palm) and side are those of the found ones, so a tracker that finds only the easy hands has less of "
    "it; extra: hands per image that belong to no label."
)


def measure_set(
    images: Path, labels: Sequence[LabelledImage], config: TrackerConfig, args: argparse.Namespace, work: Path
) -> dict[str, Any]:
    """{'images', 'hands', 'rows': {condition: {tracker: metrics}}}; the degraded images stay in ``work``."""
    backgrounds = load_backgrounds(args.backgrounds)
    ours = evaluate_robustness(images, labels, config, backgrounds=backgrounds, write=work / "mono")
    colour = DegradedWriter(work / "colour")
    for label, image in labelled_images(images, labels, convert=lambda image: image):
        for name in args.colour:
            colour.add(name, *degrade(image, label, name, backgrounds))
    folders = {name + COLOUR: work / "colour" / name for name in args.colour}
    folders |= {name: work / "mono" / name for name in CONDITIONS}
    run_mediapipe(args.mediapipe_python, list(folders.values()), config.track.max_hands)
    rows = {name: {"mediapipe": judge(folder)} for name, folder in folders.items()}
    for name, metrics in ours["by_condition"].items():
        rows[name]["ours"] = metrics
    return {"images": ours["images"], "hands": ours["hands"], "rows": rows}


def run_mediapipe(python: Path, folders: Sequence[Path], max_hands: int) -> None:
    """benchmarks/mediapipe_images.py in MediaPipe's own environment. Raises SystemExit when that fails."""
    script = Path(__file__).with_name("mediapipe_images.py")
    command = [str(python), str(script), *map(str, folders), "--max-hands", str(max_hands)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise SystemExit(f"error: cannot run {python}: {error.strerror}") from error
    if done.returncode:
        raise SystemExit(f"error: MediaPipe failed in {python}:\n{done.stderr[-2000:]}")


def judge(folder: Path) -> dict[str, Any]:
    """Metrics of mediapipe.jsonl against labels.jsonl."""
    labels, tracked = read_labels(folder), read_tracks(folder / "mediapipe.jsonl")
    if [frame.frame for frame in tracked] != list(range(len(labels))):
        raise SystemExit(f"error: {folder / 'mediapipe.jsonl'} does not answer every image of labels.jsonl")
    return robustness_metrics(labels, [frame.hands for frame in tracked])


def table(result: dict[str, Any]) -> str:
    """Markdown: one row per condition."""
    columns = {
        "found": ("found", 100, 0),
        "within 20 %": ("within_20_percent", 100, 0),
        "error": ("mean_percent", 1, 1),
        "side": ("side_accuracy", 100, 0),
        "extra": ("extra_per_image", None, 2),
    }
    lines = [
        "| condition | hands | " + " | ".join(f"{name}: ours | MediaPipe" for name in columns) + " |",
        "|---" * (2 + 2 * len(columns)) + "|",
    ]
    for condition, trackers in result["rows"].items():
        cells = [condition.replace("_", " "), str(trackers["mediapipe"]["hands"])]
        for key, factor, digits in columns.values():
            for tracker in ("ours", "mediapipe"):
                value = trackers[tracker][key] if tracker in trackers else np.nan
                text = f"{value * (factor or 1):.{digits}f}" + (" %" if factor else "")
                cells.append("-" if np.isnan(value) else text)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def report(results: dict[str, dict[str, Any]]) -> str:
    """The note and one table per data set, markdown."""
    parts = [NOTE]
    for name, result in results.items():
        parts += [f"**{name}**, {result['images']} held-out images, {result['hands']} hands", table(result)]
    return "\n\n".join(parts)


def parsed_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the data sets' images")
    parser.add_argument("--labels", type=Path, required=True, help="folder with <set>/labels.jsonl")
    parser.add_argument("--mediapipe-python", type=Path, required=True, help="Python with mediapipe==0.10.21")
    parser.add_argument("--sets", nargs="+", choices=tuple(HELD_OUT), default=list(HELD_OUT), metavar="NAME")
    parser.add_argument("--limit", type=int, default=200, help="images per data set, at even distances")
    parser.add_argument("--backgrounds", nargs="+", type=Path, default=[], help="pictures or folders to put behind")
    parser.add_argument(
        "--colour", nargs="*", choices=tuple(CONDITIONS), default=["clear"], help="MediaPipe also gets these in colour"
    )
    parser.add_argument("--output", type=Path, help="write the markdown there too")
    parser.add_argument("--json", type=Path, help="write all figures there")
    parser.add_argument("--keep", type=Path, help="new folder for the degraded images and MediaPipe's hands")
    add_tracker_options(parser)
    return parser.parse_args()


@command
def main() -> int:
    args = parsed_arguments()
    cv2.setNumThreads(1)
    results = {}
    config = tracker_config(args)
    for name in args.sets:
        labels = [label for label in read_labels(args.labels / name) if HELD_OUT[name](label.file)]
        with tempfile.TemporaryDirectory() as temporary:
            work = (args.keep or Path(temporary)) / name
            results[name] = measure_set(args.data / name, sample(labels, args.limit), config, args, work)
        print(f"{name}: done", file=sys.stderr, flush=True)
    print(report(results))
    if args.output:
        args.output.write_text(report(results) + "\n")
    if args.json:
        args.json.write_text(dumps(results) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
