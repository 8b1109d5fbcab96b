"""`hand-tracking size`: the size of a person's hands and fingers, from a ruler, for positions in metres."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from hand_tracking_ros.cli.files import check_outputs
from hand_tracking_ros.errors import ConfigError
from hand_tracking_ros.hand_size import (
    GIVEN_SIGMA,
    PALMS_PER_HAND,
    RANGE_M,
    HandSize,
    from_hand_length,
    load_hand_size,
    save_hand_size,
    with_fingers,
)
from hand_tracking_ros.skeleton import FINGERS


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "size",
        help="write or show the size of a person's hands",
        description="One camera sees a hand's distance only as well as it knows its size. Give one length in "
        "millimetres, and the file as parameter pose.size_file to the tracker. Several cameras measure the size on "
        "their own: 'track --rig ... --save-hand-size'.",
    )
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument(
        "--hand-mm", type=float, metavar="MM", help="crease of the wrist to the tip of the middle finger"
    )
    given.add_argument("--palm-mm", type=float, metavar="MM", help="crease of the wrist to the middle finger's knuckle")
    given.add_argument("--show", type=Path, metavar="YAML", help="show a file")
    parser.add_argument(
        "--finger-mm",
        action="append",
        default=[],
        metavar="NAME=A,B,C",
        help=f"lengths of a finger's three bones, from its knuckle to its tip, for those that differ from the mean "
        f"hand's (finger_ratio already follows all together); may be repeated; NAME: {', '.join(FINGERS)}",
    )
    parser.add_argument("--output", type=Path, metavar="YAML", help="file to write")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    check_outputs({"--output": args.output}, [("--show", args.show)])
    if args.show is not None:
        size = load_hand_size(args.show)
    elif args.hand_mm is not None:
        size = from_hand_length(_metres("--hand-mm", args.hand_mm, PALMS_PER_HAND))
    else:
        size = HandSize(_metres("--palm-mm", args.palm_mm), GIVEN_SIGMA)
    if args.show is not None and args.finger_mm:
        raise ConfigError("--finger-mm needs --hand-mm or --palm-mm: --show only shows a file")
    if args.finger_mm:
        fingers = dict(map(_finger, args.finger_mm))
        if len(fingers) < len(args.finger_mm):
            raise ConfigError(f"--finger-mm must name every finger once, got {', '.join(args.finger_mm)}")
        size = with_fingers(size, fingers)
    print(f"palm length {1000 * size.palm_m:.1f} mm, to {100 * size.sigma:.1f} %")
    if size.bone_ratios or size.finger_ratio != 1:
        unit_mm = 1000 * size.palm_m * size.finger_ratio
        for finger, row in zip(FINGERS, unit_mm * size.shape.bone_lengths.reshape(len(FINGERS), -1)):
            print(f"{finger:6s} {', '.join(f'{length:.1f}' for length in row[1:])} mm")
    if args.output is not None:
        save_hand_size(args.output, size)
        print(f"wrote {args.output}")
    elif args.show is None:
        raise ConfigError("name the file to write with --output")
    return 0


def _metres(option: str, length_mm: float, palms: float = 1.0) -> float:
    """A length of so many palms, in metres. Raises ConfigError where no hand has it."""
    low, high = (1000 * palms * limit for limit in RANGE_M)
    if low <= length_mm <= high:
        return length_mm / 1000
    message = f"{option} must be between {math.ceil(low)} and {math.floor(high)} mm, got {length_mm:g}"
    for unit, factor in (("m", 1000), ("cm", 10)):
        if low <= factor * length_mm <= high:
            message += f"; {length_mm:g} {unit} are {factor * length_mm:g} mm"
    raise ConfigError(message)


def _finger(text: str) -> tuple[str, list[float]]:
    """'index=44,26,20' as a name and lengths in metres. Raises ConfigError."""
    name, _, lengths = text.partition("=")
    try:
        return name.strip(), [float(length) / 1000 for length in lengths.split(",")]
    except ValueError as error:
        raise ConfigError(
            f"--finger-mm must be NAME=A,B,C in millimetres, such as index=44,26,20; got '{text}'"
        ) from error
