"""`hand-tracking size`: the size of a person's hands, from a ruler, for positions in metres."""

from __future__ import annotations

import argparse
from pathlib import Path

from hand_tracking_ros.errors import ConfigError
from hand_tracking_ros.hand_size import GIVEN_SIGMA, HandSize, from_hand_length, load_hand_size, save_hand_size


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
    parser.add_argument("--output", type=Path, metavar="YAML", help="file to write")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if args.show is not None:
        size = load_hand_size(args.show)
    elif args.hand_mm is not None:
        size = from_hand_length(args.hand_mm / 1000)
    else:
        size = HandSize(args.palm_mm / 1000, GIVEN_SIGMA)
    print(f"palm length {1000 * size.palm_m:.1f} mm, to {100 * size.sigma:.1f} %")
    if args.output is not None:
        save_hand_size(args.output, size)
        print(f"wrote {args.output}")
    elif args.show is None:
        raise ConfigError("name the file to write with --output")
    return 0
