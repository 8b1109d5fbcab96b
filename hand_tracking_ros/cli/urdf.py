"""`hand-tracking urdf`: a hand as a URDF, to match the joint states that the nodes publish."""

from __future__ import annotations

import argparse
from pathlib import Path

from hand_tracking_ros.cli.files import check_outputs, create
from hand_tracking_ros.config import PoseConfig
from hand_tracking_ros.errors import ConfigError, HandTrackingError
from hand_tracking_ros.hand_size import load_hand_size
from hand_tracking_ros.kinematics import MEAN_HAND, KinematicHand
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
        "--size-file",
        type=Path,
        metavar="YAML",
        help="the hand of this file ('hand-tracking size', 'track --save-hand-size'): palm, fingers and single bones",
    )
    parser.add_argument(
        "--palm-m",
        type=float,
        metavar="M",
        help=f"length from wrist to base of the middle finger, m (default: {PoseConfig().palm_m})",
    )
    parser.add_argument(
        "--finger-ratio", type=float, metavar="R", help="length of the fingers over a mean hand's (default: 1)"
    )
    parser.add_argument("--output", type=Path, metavar="URDF", help="file to write; without it the text is printed")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    check_outputs({"--output": args.output}, [("--size-file", args.size_file)])
    palm_m, finger_ratio, shape = _size(args)
    try:
        text = hand_urdf(Side[args.side.upper()], palm_m, finger_ratio, shape)
    except ValueError as error:
        raise HandTrackingError(str(error)) from error
    if args.output is None:
        print(text, end="")
        return 0
    with create(args.output) as stream:
        stream.write(text)
    print(f"wrote {args.output}")
    return 0


def _size(args: argparse.Namespace) -> tuple[float, float, KinematicHand]:
    """Palm length in metres, finger ratio and bones that the arguments ask for. Raises ConfigError."""
    if args.size_file is None:
        palm_m = PoseConfig().palm_m if args.palm_m is None else args.palm_m
        return palm_m, 1.0 if args.finger_ratio is None else args.finger_ratio, MEAN_HAND
    if args.palm_m is not None or args.finger_ratio is not None:
        raise ConfigError(f"--size-file {args.size_file} has the size: leave out --palm-m and --finger-ratio")
    size = load_hand_size(args.size_file)
    return size.palm_m, size.finger_ratio, size.shape
