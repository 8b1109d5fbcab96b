"""`hand-tracking label`: let MediaPipe label a folder of images, to train on or to measure against.

MediaPipe needs numpy < 2, so it lives in a virtual environment of its own, which this command finds or makes.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import venv
from pathlib import Path

from hand_tracking_ros.cli.files import check_outputs
from hand_tracking_ros.errors import HandTrackingError, RecordError
from hand_tracking_ros.jsonl import objects
from hand_tracking_ros.paths import cache_directory

REQUIREMENT = "mediapipe==0.10.21"
TEACHER = Path(__file__).resolve().parents[1] / "training" / "teacher.py"


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "label",
        help="label a folder of images with MediaPipe",
        description="Label the images below FOLDER with MediaPipe Hands and write labels.jsonl (docs/evaluation.md). "
        "A hand is kept when MediaPipe finds it again in a mirrored, turned and padded view. Goes on with an output "
        "file that is already there.",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--output", type=Path, help="labels.jsonl to write or go on with (default: in FOLDER)")
    parser.add_argument("--kind", choices=("crops", "frames"), default="frames", help="tight crops, or whole frames")
    parser.add_argument("--max-hands", type=int, default=2, help="per image")
    parser.add_argument("--tolerance", type=float, default=0.12, help="largest disagreement, share of the palm")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--python", type=Path, metavar="PATH", help="Python interpreter that has mediapipe")
    parser.add_argument("--install", action="store_true", help=f"first make that environment, with {REQUIREMENT}")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0; HandTrackingError when there is nothing to label or no MediaPipe to label with."""
    if not args.folder.is_dir():
        raise HandTrackingError(f"{args.folder} is not a folder; give the folder of the images to label")
    output = args.output or args.folder / "labels.jsonl"
    check_outputs({"--output": output}, [("FOLDER", args.folder)])
    _check_labels(output)
    if args.install:
        install()
    command = [str(interpreter(args.python)), str(TEACHER), str(args.folder), "--output", str(output)]
    for name in ("kind", "max_hands", "tolerance", "workers"):
        command += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    environment = {**os.environ, "GLOG_minloglevel": "2", "TF_CPP_MIN_LOG_LEVEL": "2"}  # its warnings are per image
    if subprocess.run(command, env=environment).returncode:
        raise HandTrackingError("labelling failed; the teacher's message stands above")
    print(f"wrote {output}")
    return 0


def _check_labels(output: Path) -> None:
    """What is there must be labels to go on with: the last line of anything else would be cut off, and more added."""
    try:
        first = next(objects(output), None) if output.is_file() else None
        if first is not None:
            first.get("file", str)
    except RecordError as error:
        raise HandTrackingError(f"{error}. --output goes on with labels that are there: name another file") from error


def environment_directory() -> Path:
    """Where ``--install`` puts the environment."""
    return cache_directory() / "teacher"


def install() -> None:
    """Make the environment. HandTrackingError when pip fails."""
    folder = environment_directory()
    print(f"installing {REQUIREMENT} into {folder}", flush=True)
    venv.create(folder, with_pip=True)
    if subprocess.run([folder / "bin" / "python", "-m", "pip", "install", "-q", REQUIREMENT]).returncode:
        raise HandTrackingError(
            f"cannot install {REQUIREMENT}: pip's message stands above; it needs Python 3.9 to 3.12 on x86-64"
        )


def interpreter(asked: Path | None) -> Path:
    """The Python that has MediaPipe: the one asked for, else the installed environment's, else this one."""
    if asked is not None:
        try:
            works = subprocess.run([asked, "-c", "import mediapipe"], capture_output=True).returncode == 0
        except OSError as error:
            raise HandTrackingError(f"--python: cannot run {asked}: {error.strerror}; name a Python") from error
        if not works:
            raise HandTrackingError(f"{asked} cannot import mediapipe: '{asked} -m pip install {REQUIREMENT}'")
        return asked
    own = environment_directory() / "bin" / "python"
    if own.exists():
        return own
    if importlib.util.find_spec("mediapipe") is not None:
        return Path(sys.executable)
    raise HandTrackingError(
        f"labelling needs MediaPipe: run the command once with --install (it makes {environment_directory()} with "
        f"{REQUIREMENT}), or name a Python that has it with --python"
    )
