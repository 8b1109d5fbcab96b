"""`hand-tracking evaluate`: the metrics of docs/evaluation.md for our models, or for any tracker's output file."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hand_tracking_ros.cli.options import add_tracker_options, text_table, tracker_config
from hand_tracking_ros.errors import ConfigError, RecordError

TASKS = ("detect", "keypoints", "track", "robustness")


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "evaluate",
        help="measure accuracy on a labelled data set or on tracking output",
        description="Metrics as docs/evaluation.md defines them. With a data set: our detector, keypoints or tracker "
        "against its labels, or how well they hold up on the same images made dark, noisy, blurred, small or turned "
        "(robustness). With --tracks: tracking output, ours or another's, against the labels, or, without a data set, "
        "on its own and against a --reference.",
    )
    parser.add_argument("dataset", nargs="?", type=Path, help="folder with labels.jsonl, or the file itself")
    parser.add_argument("--images", type=Path, metavar="DIR", help="where the labels' files lie; default: beside them")
    parser.add_argument("--task", choices=TASKS, help="what to measure (default with --tracks: track)")
    parser.add_argument("--boxes", choices=("labels", "detector"), default="labels", help="keypoints: boxes from where")
    parser.add_argument("--tracks", type=Path, metavar="JSONL", help="track: judge this output instead of tracking")
    parser.add_argument(
        "--reference", type=Path, metavar="JSONL", help="track: another tracker's output to compare with"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="robustness: so many images, at even distances")
    parser.add_argument("--conditions", nargs="+", metavar="NAME", help="robustness: only these; default: all")
    parser.add_argument(
        "--backgrounds",
        nargs="+",
        type=Path,
        default=[],
        metavar="PATH",
        help="robustness: pictures, or folders of them, to put behind the images; default: their own edges, blurred",
    )
    parser.add_argument(
        "--write",
        type=Path,
        metavar="DIR",
        help="robustness: write the degraded images and their labels to a new folder",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_tracker_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    task = args.task or ("track" if args.tracks else None)
    if task is None:
        raise ConfigError(f"say what to measure: --task {' | '.join(TASKS)}, or --tracks FILE")
    if (args.tracks or args.reference) and task != "track":
        raise ConfigError(f"--tracks and --reference belong to --task track, not to {task}")
    if args.dataset is None and args.tracks is None:
        raise ConfigError("give a data set (a folder with labels.jsonl) or --tracks FILE")
    if args.reference and not args.tracks:
        raise ConfigError("--reference compares with --tracks FILE; make one with 'hand-tracking track --output FILE'")
    _check_robustness(args, task)
    result = {"task": task, **measure(args, task)}
    print(dumps(result) if args.json else readable(result))
    return 0


def _check_robustness(args: argparse.Namespace, task: str) -> None:
    from hand_tracking_ros.evaluation.degrade import CONDITIONS

    for name in ("limit", "conditions", "backgrounds", "write"):
        if getattr(args, name) and task != "robustness":
            raise ConfigError(f"--{name} belongs to --task robustness, not to {task}")
    if args.limit is not None and args.limit < 1:
        raise ConfigError(f"--limit must be at least 1, got {args.limit}")
    for name in args.conditions or ():
        if name not in CONDITIONS:
            raise ConfigError(f"unknown condition '{name}'; known are {', '.join(CONDITIONS)}")


def measure(args: argparse.Namespace, task: str) -> dict[str, Any]:
    """The metrics that the arguments ask for."""
    from hand_tracking_ros.evaluation import datasets, robustness
    from hand_tracking_ros.evaluation.agreement import agreement
    from hand_tracking_ros.evaluation.degrade import CONDITIONS, load_backgrounds
    from hand_tracking_ros.evaluation.tracking import check_same_video, self_metrics
    from hand_tracking_ros.records import read_labels, read_tracks

    tracks = _filled(read_tracks, args.tracks) if args.tracks else None
    result: dict[str, Any] = {}
    if args.dataset is not None:
        labels = _filled(read_labels, args.dataset)
        root = args.images or (args.dataset if args.dataset.is_dir() else args.dataset.parent)
        config = tracker_config(args)
        if task == "detect":
            result = datasets.evaluate_detection(root, labels, config)
        elif task == "keypoints":
            result = datasets.evaluate_keypoints(root, labels, config, args.boxes)
        elif task == "robustness":
            result = robustness.evaluate_robustness(
                root,
                robustness.sample(labels, args.limit),
                config,
                conditions=args.conditions or tuple(CONDITIONS),
                backgrounds=load_backgrounds(args.backgrounds),
                write=args.write,
            )
        else:
            result = datasets.evaluate_tracking(root, labels, config, tracks)
    elif tracks is not None:
        result = self_metrics(tracks)
    if args.reference:
        reference = _filled(read_tracks, args.reference)
        check_same_video(reference, tracks, (str(args.reference), str(args.tracks)))
        result["agreement"] = agreement(reference, tracks)
    return result


def _filled(read: Callable[[Path], list], path: Path) -> list:
    """What is in a file. Raises RecordError when that is nothing."""
    records = read(path)
    if not records:
        raise RecordError(f"{path} has no line: there is nothing to measure")
    return records


def dumps(result: Mapping[str, Any]) -> str:
    """Strict JSON: what is not known is null."""
    from hand_tracking_ros import records

    return json.dumps(json.loads(records.dumps(result)), indent=2)


def readable(result: Mapping[str, Any]) -> str:
    """Aligned text, with a table for what is measured per size and an indented block for what is nested."""
    blocks = []
    plain = [(name, _number(value)) for name, value in result.items() if not isinstance(value, Mapping)]
    blocks.append(text_table(plain))
    for name, value in result.items():
        if not isinstance(value, Mapping):
            continue
        if all(isinstance(row, Mapping) for row in value.values()):
            columns = list(next(iter(value.values())))
            rows = [(key, *(_number(row[column]) for column in columns)) for key, row in value.items()]
            blocks.append(text_table(rows, (name, *columns)))
        else:
            blocks.append(text_table([(key, _number(entry)) for key, entry in value.items()], (name, "")))
    return "\n\n".join(blocks)


def _number(value: Any) -> str:
    if value is None or (isinstance(value, float) and value != value):
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
