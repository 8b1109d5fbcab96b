"""`hand-tracking urdf`: a hand as a URDF, to match the joint states that the nodes publish."""

from __future__ import annotations

import argparse
from pathlib import Path

from hand_tracking_ros.config import PoseConfig
from hand_tracking_ros.errors import HandTrackingError
from hand_tracking_ros.outputs.urdf import hand_urdf
from hand_tracking_ros.skeleton import Side


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "urdf",
        help="write the URDF of a hand",
        description="Writes the URDF of a hand whose joints are those of ~/joint_states, for robot_state_publisher and "
        "rviz. config/left_hand.urdf and config/right_hand.urdf are what it writes by default.",
    )
    parser.add_argument("--side", choices=("left", "right"), required=True)
    parser.add_argument(
        "--palm-m",
        type=float,
        default=PoseConfig().palm_m,
        metavar="M",
        help="length from wrist to base of the middle finger, m (default: %(default)s)",
    )
    parser.add_argument(
        "--finger-ratio", type=float, default=1.0, metavar="R", help="length of the fingers over a mean hand's"
    )
    parser.add_argument("--output", type=Path, metavar="URDF", help="file to write; without it the text is printed")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    try:
        text = hand_urdf(Side[args.side.upper()], args.palm_m, args.finger_ratio)
    except ValueError as error:
        raise HandTrackingError(f"{error}; give metres, e.g. --palm-m 0.088") from error
    if args.output is None:
        print(text, end="")
        return 0
    try:
        args.output.write_text(text)
    except OSError as error:
        raise HandTrackingError(f"cannot write {args.output}: {error.strerror}") from error
    print(f"wrote {args.output}")
    return 0
