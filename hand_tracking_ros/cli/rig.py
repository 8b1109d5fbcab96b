"""`hand-tracking rig`: several calibrated cameras: read, convert, show."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from hand_tracking_ros.calibration import load_camera_yaml
from hand_tracking_ros.cli.files import check_outputs
from hand_tracking_ros.cli.options import image_size, text_table
from hand_tracking_ros.errors import CalibrationError
from hand_tracking_ros.rig import Rig, load_rig, rig_from_stereo, rig_from_text, save_rig


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "rig",
        help="show or convert the calibration of several cameras",
        description="Reads a rig file; or the two calibration files of a stereo pair, left and right, as ROS writes "
        "them; or a folder with c0.dat, c1.dat, ... and rot_trans_c0.dat, rot_trans_c1.dat, ... (text files with "
        "intrinsics and extrinsics in OpenCV's convention). Shows the cameras; --output writes a rig file.",
    )
    parser.add_argument("source", nargs="+", type=Path, help="rig.yaml, or left.yaml right.yaml, or a folder")
    parser.add_argument("--size", metavar="WxH", help="of a folder: size of the cameras' images, e.g. 720x720")
    parser.add_argument(
        "--unit-m", type=float, metavar="M", help="of a folder: its unit of length in metres, mostly the board's square"
    )
    parser.add_argument("--output", type=Path, metavar="YAML", help="write the rig file")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    check_outputs({"--output": args.output}, [("SOURCE", path) for path in args.source])
    rig = _read(args)
    print(summary(rig))
    if args.output is not None:
        save_rig(args.output, rig)
        print(f"wrote {args.output}")
    return 0


def summary(rig: Rig) -> str:
    """A table of the cameras: how they see, and where they stand."""
    first = rig.cameras[0]
    rows = []
    for camera in rig.cameras:
        turned = np.degrees(np.arccos(np.clip((np.trace(camera.rotation @ first.rotation.T) - 1) / 2, -1, 1)))
        size = f"{camera.width}x{camera.height}"
        focal, position = f"{camera.camera.focal_px:.1f}", " ".join(f"{v:.4f}" for v in camera.position_m)
        apart = np.linalg.norm(camera.position_m - first.position_m)
        rows.append((camera.name, size, camera.camera.model, focal, position, f"{apart:.4f}", f"{turned:.1f}"))
    header = ("camera", "size", "model", "focal px", "position m", f"from {first.name} m", "turned deg")
    return text_table(rows, header)


def _read(args: argparse.Namespace) -> Rig:
    if (args.size is not None or args.unit_m is not None) and not args.source[0].is_dir():
        raise CalibrationError(f"--size and --unit-m are for a folder of text files, which {args.source[0]} is not")
    if len(args.source) == 2:
        left, right = (load_camera_yaml(path) for path in args.source)
        return rig_from_stereo(left, right)
    if len(args.source) != 1:
        raise CalibrationError(f"rig takes one file, one folder, or left and right; got {len(args.source)} paths")
    path = args.source[0]
    if not path.is_dir():
        return load_rig(path)
    if args.size is None or args.unit_m is None:
        raise CalibrationError(f"{path} is a folder: name --size WxH of its images and --unit-m, its unit of length")
    size = image_size(args.size)
    outer = sorted(path.glob("rot_trans_c*.dat"))
    if not outer:
        raise CalibrationError(f"no rot_trans_c*.dat in {path}")
    inner = [path / file.name.removeprefix("rot_trans_") for file in outer]
    return rig_from_text(inner, outer, size, args.unit_m)
