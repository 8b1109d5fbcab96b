"""Several calibrated cameras that stand still to each other: a rig, its YAML file, and points seen by all of them.

The file, for two cameras as for ten::

    cameras:
    - name: cam0
      width: 640            # px
      height: 480
      model: fisheye        # pinhole, plumb_bob, rational_polynomial or fisheye (equidistant): cameras.py
      K: [fx, fy, cx, cy]   # px; cx, cy corner-origin: the middle of a 640x480 image is (320, 240)
      D: [k1, k2, k3, k4]
      rotation: [1, 0, 0, 0, 1, 0, 0, 0, 1]   # 3x3, row by row: camera from rig
      translation_m: [0, 0, 0]                # x_camera = rotation x_rig + translation_m

This is the package's own format: unlike in ROS' calibration files, cx and cy have the half pixel already (geometry.py).
The rig's frame may be any; mostly it is that of the first camera.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from hand_tracking_ros.calibration import HALF_PIXEL, Calibration
from hand_tracking_ros.cameras import Camera
from hand_tracking_ros.errors import CalibrationError

ROTATION_TOLERANCE = 1e-3  # of R^T R to the identity, so that files with few digits are taken; made exact then


@dataclass(frozen=True)
class RigCamera:
    """A camera and its place: x_camera = ``rotation`` (3, 3) x_rig + ``translation_m`` (3,).

    Raises CalibrationError when that is no rotation or no translation.
    """

    name: str
    width: int
    height: int
    camera: Camera
    rotation: np.ndarray = field(default_factory=lambda: np.eye(3))
    translation_m: np.ndarray = field(default_factory=lambda: np.zeros(3))

    def __post_init__(self) -> None:
        rotation, translation = np.array(self.rotation, np.float64), np.array(self.translation_m, np.float64)
        if rotation.shape != (3, 3) or not np.isfinite(rotation).all():
            raise CalibrationError(f"camera '{self.name}': rotation must be 3x3 finite numbers")
        off = np.abs(rotation.T @ rotation - np.eye(3)).max()
        if off > ROTATION_TOLERANCE:
            raise CalibrationError(f"camera '{self.name}': rotation is not orthonormal: {rotation.tolist()}")
        if np.linalg.det(rotation) < 0:
            raise CalibrationError(f"camera '{self.name}': rotation mirrors (its determinant is -1); swap no axes")
        if translation.shape != (3,) or not np.isfinite(translation).all():
            raise CalibrationError(f"camera '{self.name}': translation_m must be 3 finite numbers")
        if off > 1e-12:
            u, _, vt = np.linalg.svd(rotation)
            rotation = u @ vt
        for name, array in (("rotation", rotation), ("translation_m", translation)):
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    @property
    def position_m(self) -> np.ndarray:
        """(3,) where the camera is, in the rig's frame."""
        return -(self.rotation.T @ self.translation_m) + 0.0  # no -0

    def from_rig(self, points_m: np.ndarray) -> np.ndarray:
        """Points (..., 3) of the rig's frame in the camera's."""
        return np.asarray(points_m) @ self.rotation.T + self.translation_m

    def to_rig(self, points_m: np.ndarray) -> np.ndarray:
        """Points (..., 3) of the camera's frame in the rig's."""
        return (np.asarray(points_m) - self.translation_m) @ self.rotation

    def project(self, points_m: np.ndarray) -> np.ndarray:
        """Pixels (..., 2) of points (..., 3) in the rig's frame; NaN where the camera does not see them."""
        return self.camera.project(self.from_rig(points_m))


@dataclass(frozen=True)
class Rig:
    """Cameras by order, with names of their own. Raises CalibrationError when there is none or a name comes twice."""

    cameras: tuple[RigCamera, ...]

    def __post_init__(self) -> None:
        names = [camera.name for camera in self.cameras]
        if not names or len(set(names)) != len(names):
            raise CalibrationError(f"a rig needs cameras with names of their own, got {names}")

    def __getitem__(self, name: str) -> RigCamera:
        for camera in self.cameras:
            if camera.name == name:
                return camera
        raise CalibrationError(f"no camera '{name}' in the rig; it has {', '.join(c.name for c in self.cameras)}")

    def seen_from_first(self) -> Rig:
        """The same cameras in the frame of the first one."""
        first, *others = self.cameras
        moved = [replace(first, rotation=np.eye(3), translation_m=np.zeros(3))]
        for camera in others:
            rotation = camera.rotation @ first.rotation.T
            translation = camera.translation_m - rotation @ first.translation_m
            moved.append(replace(camera, rotation=rotation, translation_m=translation))
        return Rig(tuple(moved))


def triangulate(cameras: Sequence[RigCamera], points_px: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points (n, 3) in the rig's frame nearest to all rays, and their distance (cameras, n) in px from ``points_px``.

    ``points_px`` (cameras, n, 2), NaN where a camera does not see a point. NaN for points with fewer than two rays, or
    with parallel ones.
    """
    count = points_px.shape[1]
    normal, side, seen = np.zeros((count, 3, 3)), np.zeros((count, 3)), np.zeros(count, int)
    for camera, pixels in zip(cameras, points_px, strict=True):
        rays = camera.camera.rays(pixels) @ camera.rotation
        known = np.isfinite(rays).all(axis=1)
        across = np.where(known[:, None, None], np.eye(3) - rays[:, :, None] * rays[:, None, :], 0.0)
        normal += across
        side += across @ camera.position_m
        seen += known
    solvable = (seen >= 2) & (np.abs(np.linalg.det(normal)) > 1e-9)
    points = np.full((count, 3), np.nan)
    points[solvable] = np.linalg.solve(normal[solvable], side[solvable][..., None])[..., 0]
    errors = [np.linalg.norm(camera.project(points) - pixels, axis=1) for camera, pixels in zip(cameras, points_px)]
    return points, np.array(errors)


def load_rig(path: str | Path) -> Rig:
    """Read the YAML file of the module's docstring. Raises CalibrationError."""
    try:
        content = yaml.safe_load(Path(path).expanduser().read_text())
    except OSError as error:
        raise CalibrationError(f"cannot read rig {path}: {error.strerror}; check the path") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CalibrationError(f"rig {path} is not valid YAML: {error}") from error
    cameras = content.get("cameras") if isinstance(content, Mapping) else None
    if not isinstance(cameras, list) or not cameras:
        raise CalibrationError(f"rig {path} must have a list 'cameras' (hand_tracking_ros/rig.py shows the format)")
    try:
        return Rig(tuple(_camera(entry, f"cameras[{i}]") for i, entry in enumerate(cameras)))
    except CalibrationError as error:
        raise CalibrationError(f"rig {path}: {error}") from error


def save_rig(path: str | Path, rig: Rig) -> None:
    """Write the file that ``load_rig`` reads; the folder is made where it is missing. Raises CalibrationError."""
    entries = [
        {
            "name": c.name,
            "width": c.width,
            "height": c.height,
            "model": c.camera.model,
            "K": [float(value) for value in (c.camera.fx, c.camera.fy, c.camera.cx, c.camera.cy)],
            "D": list(c.camera.distortion),
            "rotation": c.rotation.ravel().tolist(),
            "translation_m": c.translation_m.tolist(),
        }
        for c in rig.cameras
    ]
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(yaml.safe_dump({"cameras": entries}, sort_keys=False, default_flow_style=None))
    except OSError as error:
        raise CalibrationError(f"cannot write rig {path}: {error.strerror}") from error


def rig_from_stereo(left: Calibration, right: Calibration) -> Rig:
    """The rig of a stereo pair as ROS' camera_calibration writes it, one file per camera; its frame is the left one's.

    Raises CalibrationError when a camera is not calibrated or the right one has no baseline.
    """
    cameras = []
    for name, calibration in (("left", left), ("right", right)):
        camera = calibration.camera()
        if camera is None:
            raise CalibrationError(f"the {name} camera is not calibrated (K is 0)")
        cameras.append(camera)
    if right.P[3] == 0 or right.P[0] <= 0:
        swapped = "; the left camera's has one: are the two swapped?" if left.P[3] else ""
        raise CalibrationError(
            f"the right camera's projection_matrix has no baseline: calibrate both as a stereo pair{swapped}"
        )
    from_left, from_right = np.reshape(left.R, (3, 3)), np.reshape(right.R, (3, 3))  # rectified from camera
    translation = from_right.T @ [right.P[3] / right.P[0], 0.0, 0.0]
    return Rig(
        (
            RigCamera("left", left.width, left.height, cameras[0]),
            RigCamera("right", right.width, right.height, cameras[1], from_right.T @ from_left, translation),
        )
    )


def rig_from_text(
    intrinsics: Sequence[str | Path], extrinsics: Sequence[str | Path], size_wh: tuple[int, int], unit_m: float
) -> Rig:
    """The rig of calibration files in plain text, one of each kind per camera, in OpenCV's convention.

    Intrinsics: ``intrinsic:``, three rows of the matrix, ``distortion:``, a row of plumb_bob coefficients. Extrinsics:
    ``R:``, three rows, ``T:``, three rows; camera from a common frame, in units of ``unit_m`` metres (the square of the
    calibration board); what follows is passed over. The rig's frame is that of the first camera.

    Raises CalibrationError when a file is missing, is not like that, or makes no camera.
    """
    if not intrinsics or len(intrinsics) != len(extrinsics) or not unit_m > 0:
        raise CalibrationError("needs one file of intrinsics and one of extrinsics per camera, and a positive unit")
    cameras: list[RigCamera] = []
    for number, (inner, outer) in enumerate(zip(intrinsics, extrinsics)):
        K, D = _text_blocks(inner, {"intrinsic": 9, "distortion": None})
        R, T = _text_blocks(outer, {"R": 9, "T": 3})
        try:
            lens = Camera(K[0], K[4], K[2] + HALF_PIXEL, K[5] + HALF_PIXEL, "plumb_bob", tuple(D))
            cameras.append(RigCamera(f"cam{number}", *size_wh, lens, np.reshape(R, (3, 3)), np.array(T) * unit_m))
        except CalibrationError as error:
            raise CalibrationError(f"{inner}, {outer}: {error}") from error
    return Rig(tuple(cameras)).seen_from_first()


def _text_blocks(path: str | Path, wanted: Mapping[str, int | None]) -> list[list[float]]:
    """The numbers that follow each line '<name>:', the first time it comes; as many as ``wanted`` says, or all."""
    try:
        lines = Path(path).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CalibrationError(f"cannot read calibration {path}: {error}") from error
    blocks: dict[str, list[float]] = {}
    current: list[float] = []
    for line in lines:
        text = line.partition("#")[0].strip()
        try:
            if text.endswith(":"):
                current = []
                blocks.setdefault(text[:-1].strip(), current)
            else:
                current.extend(float(value) for value in text.split())
        except ValueError as error:
            raise CalibrationError(f"{path}: '{text}' is no row of numbers") from error
    for name, count in wanted.items():
        if name not in blocks or count not in (None, len(blocks[name])):
            raise CalibrationError(f"{path}: needs '{name}:' and {count or 'some'} numbers after it")
    return [blocks[name] for name in wanted]


def _camera(entry: Any, where: str) -> RigCamera:
    if not isinstance(entry, Mapping):
        raise CalibrationError(f"{where} must map keys to values, got {entry!r:.60}")
    missing = [key for key in ("name", "width", "height", "K", "rotation", "translation_m") if key not in entry]
    if missing:
        raise CalibrationError(f"{where}: '{missing[0]}' is missing")
    where = f"{where} ('{entry['name']}')"
    size = entry["width"], entry["height"]
    if not all(isinstance(value, int) and not isinstance(value, bool) and value > 0 for value in size):
        raise CalibrationError(f"{where}: width and height must be positive whole numbers of pixels, got {size}")
    K, D = _numbers(entry, "K", where, 4), _numbers({"D": entry.get("D") or []}, "D", where)
    rotation = np.reshape(_numbers(entry, "rotation", where, 9), (3, 3))
    translation = _numbers(entry, "translation_m", where, 3)
    try:
        camera = Camera(*K, model=str(entry.get("model", "pinhole")), distortion=tuple(D))
        return RigCamera(str(entry["name"]), *size, camera, rotation, np.array(translation))
    except CalibrationError as error:
        raise CalibrationError(f"{where}: {error}") from error


def _numbers(entry: Mapping[str, Any], key: str, where: str, count: int | None = None) -> list[float]:
    """Numbers of ``entry[key]``, nested or not, row by row."""
    try:
        values = np.array(entry[key], dtype=np.float64).ravel()
    except (TypeError, ValueError) as error:
        raise CalibrationError(f"{where}: '{key}' must be numbers: {error}") from error
    if count is not None and len(values) != count:
        raise CalibrationError(f"{where}: '{key}' must have {count} numbers, got {len(values)}")
    if not np.isfinite(values).all():
        raise CalibrationError(f"{where}: '{key}' has values that are not finite: {values.tolist()}")
    return values.tolist()
