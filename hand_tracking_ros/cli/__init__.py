"""The command `hand-tracking`: one module per sub-command, imported only when it is called."""

from __future__ import annotations

import argparse
import functools
import importlib
import re
import sys
from collections.abc import Sequence

from hand_tracking_ros.commands import command
from hand_tracking_ros.errors import HandTrackingError
from hand_tracking_ros.paths import share_directory

COMMANDS = {
    "track": "track hands in a camera, video or folder of images",
    "demo": "track a short synthetic clip with known truth, and show how well it goes",
    "up": "start camera and tracker as ROS 2 nodes",
    "rig": "show or convert the calibration of several cameras",
    "size": "write or show the size of a person's hands",
    "urdf": "write the URDF of a hand",
    "tune": "measure what is fastest on this machine, and use it from now on",
    "models": "list and verify the models",
    "doctor": "show what is installed, what runs, and what is missing",
    "label": "label a folder of images with MediaPipe, to train on or to measure against",
    "train": "train the networks, or fine-tune them on own images",
    "search": "find networks that are as fast as a device allows",
    "evaluate": "measure accuracy on a labelled data set or on tracking output",
}


@functools.partial(command, prefix="hand-tracking: ")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status: 0, or 2 after an error that is printed on stderr."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    chosen = next((argument for argument in arguments if not argument.startswith("-")), None)
    args = _parser(chosen).parse_args(arguments)
    return args.run(args)


def _parser(chosen: str | None) -> argparse.ArgumentParser:
    """The parser with the arguments of ``chosen`` alone, so that no other command's imports can fail or take time."""
    parser = argparse.ArgumentParser(prog="hand-tracking", description="Steady hand poses from camera images.")
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    for name, summary in COMMANDS.items():
        if name == chosen:
            _add(name, subparsers)
        else:
            subparsers.add_parser(name, help=summary)
    return parser


def _add(name: str, subparsers) -> None:
    try:
        importlib.import_module(f"{__name__}.{name}").add_parser(subparsers)
    except ModuleNotFoundError as error:
        raise HandTrackingError(
            f"'hand-tracking {name}' needs the Python package '{error.name}', which is not installed; 'hand-tracking "
            "doctor' says how to get what is missing"
        ) from error


class _Version(argparse.Action):
    def __call__(self, parser, *_) -> None:
        found = re.search(r"<version>(.*?)</version>", (share_directory() / "package.xml").read_text())
        print(f"hand-tracking {found.group(1) if found else 'of unknown version'}")
        parser.exit()
