"""Camera calibration: the YAML file of ROS' camera_calibration, and the camera that a camera_info message states.

Both count pixel centres as integers, as OpenCV does. ``camera_from_info`` and ``Calibration.camera`` add the half pixel
that makes them the corner-origin pixels of this package (geometry.py); nothing else has to.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hand_tracking_ros.cameras import MODELS, Camera
from hand_tracking_ros.errors import CalibrationError
from hand_tracking_ros.paths import PACKAGE, share_directory

# How many coefficients each distortion model of ROS may have.
DISTORTION_LENGTHS = {
    "plumb_bob": (4, 5),
    "rational_polynomial": (8, 12, 14),
    "thin_prism_fisheye": (8,),
    "equidistant": (4,),
    "fisheye": (4,),
}
# Those that we can compute with, by the name of our model.
CAMERA_MODELS = {
    "plumb_bob": "plumb_bob",
    "rational_polynomial": "rational_polynomial",
    "equidistant": "fisheye",
    "fisheye": "fisheye",
}
HALF_PIXEL = 0.5
SAME_SHAPE = 0.01  # relative difference of width / height that rounding makes
_MATRICES = {"camera_matrix": (3, 3), "rectification_matrix": (3, 3), "projection_matrix": (3, 4)}


@dataclass(frozen=True)
class Calibration:
    """What a camera_info message needs. Matrices are row-major, in pixels of a ``width`` x ``height`` image."""

    camera_name: str
    width: int
    height: int
    distortion_model: str
    D: tuple[float, ...]
    K: tuple[float, ...]  # 3x3
    R: tuple[float, ...]  # 3x3
    P: tuple[float, ...]  # 3x4

    def camera(self) -> Camera | None:
        """The camera that takes these images; None when K is all zero. Raises CalibrationError."""
        return camera_from_info(self.K, self.D, self.distortion_model)


def load_camera_yaml(path: str | Path) -> Calibration:
    """Read a camera_calibration YAML file; ``path`` may be a file:// or package:// URL. Raises CalibrationError."""
    file = _resolve(path)
    try:
        content = yaml.safe_load(file.read_text())
    except OSError as error:
        raise CalibrationError(f"cannot read camera calibration {file}: {error.strerror}; check the path") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CalibrationError(f"camera calibration {file} is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise CalibrationError(f"camera calibration {file} holds no keys; expected image_width, camera_matrix, ...")
    if isinstance(content.get("cameras"), list):
        names = [str(camera.get("name")) for camera in content["cameras"] if isinstance(camera, dict)] or ["NAME"]
        raise CalibrationError(
            f"{file} is a rig file, not the calibration of one camera: give it as --rig, or name one of its cameras "
            f"({', '.join(names)}) as in 'track --camera-info {file}:{names[0]}'"
        )
    model = str(content.get("distortion_model", "plumb_bob"))
    if model not in DISTORTION_LENGTHS:
        raise CalibrationError(f"{file}: unknown distortion_model '{model}'; known: {', '.join(DISTORTION_LENGTHS)}")
    matrices = {name: _numbers(content, name, file, rows * cols) for name, (rows, cols) in _MATRICES.items()}
    if matrices["camera_matrix"][0] <= 0 or matrices["camera_matrix"][4] <= 0:
        raise CalibrationError(f"{file}: camera_matrix has focal lengths that are not positive; calibrate the camera")
    return Calibration(
        camera_name=str(content.get("camera_name", "camera")),
        width=_size(content, "image_width", file),
        height=_size(content, "image_height", file),
        distortion_model=model,
        D=_numbers(content, "distortion_coefficients", file, *DISTORTION_LENGTHS[model]),
        K=matrices["camera_matrix"],
        R=matrices["rectification_matrix"],
        P=matrices["projection_matrix"],
    )


def save_camera_yaml(path: str | Path, calibration: Calibration) -> None:
    """Write the YAML file that ``load_camera_yaml`` and ROS' camera drivers read."""

    def matrix(data: Sequence[float], rows: int, cols: int) -> dict[str, Any]:
        return {"rows": rows, "cols": cols, "data": list(data)}

    content = {
        "image_width": calibration.width,
        "image_height": calibration.height,
        "camera_name": calibration.camera_name,
        "camera_matrix": matrix(calibration.K, 3, 3),
        "distortion_model": calibration.distortion_model,
        "distortion_coefficients": matrix(calibration.D, 1, len(calibration.D)),
        "rectification_matrix": matrix(calibration.R, 3, 3),
        "projection_matrix": matrix(calibration.P, 3, 4),
    }
    Path(path).write_text(yaml.safe_dump(content, sort_keys=False, default_flow_style=None))


def camera_from_info(K: Sequence[float], D: Sequence[float] = (), distortion_model: str = "plumb_bob") -> Camera | None:
    """The camera of a camera_info message: its row-major 3x3 ``k``, its ``d`` and ``distortion_model``.

    None when K is all zero (not calibrated). No D, or no name for its model while all of D is 0: no distortion. Raises
    CalibrationError on values that are not finite, on focal lengths that are not positive, on a model that this package
    cannot compute with, and on a D that does not fit the model.
    """
    values, distortion = [float(value) for value in K], tuple(float(value) for value in D)
    if len(values) != 9:
        raise CalibrationError(f"camera_info: K must have 9 values, got {len(values)}")
    if not all(map(math.isfinite, values)):
        raise CalibrationError(f"camera_info: K has values that are not finite ({values}); calibrate the camera again")
    if not any(values):
        return None
    if values[0] <= 0 or values[4] <= 0:
        raise CalibrationError(f"camera_info: K has focal lengths that are not positive ({values}); calibrate it")
    if not all(map(math.isfinite, distortion)):
        raise CalibrationError(f"camera_info: D has values that are not finite ({distortion}); calibrate it again")
    model = _camera_model(distortion_model, distortion)
    cx, cy = values[2] + HALF_PIXEL, values[5] + HALF_PIXEL
    return Camera(values[0], values[4], cx, cy, model, () if model == "pinhole" else distortion)


def size_problem(calibrated: tuple[int, int], size: tuple[int, int], setting: str, *, live: bool) -> str:
    """What to say of images of another ``size`` (width, height) than that of the calibration.

    ``setting``: what to set so that a ``live`` camera is asked for the calibration's size, or files are scaled to it.
    """
    (width, height), (own_width, own_height) = calibrated, size
    problem = f"is for {width}x{height} images, but these are {own_width}x{own_height}: "
    if live:
        return f"{problem}{setting}, which asks the camera for that, or calibrate at this size"
    if abs(width * own_height - own_width * height) > SAME_SHAPE * width * own_height:
        return f"{problem}another shape, so scaling would squeeze them; calibrate at this size"
    return f"{problem}{setting} if they are the same but scaled, or calibrate at this size"


def _camera_model(distortion_model: str, D: tuple[float, ...]) -> str:
    """Our name of a distortion model of ROS, once ``D`` is known to fit."""
    if not distortion_model and not any(D):
        return "pinhole"
    model = CAMERA_MODELS.get(distortion_model)
    if model is None:
        raise CalibrationError(
            f"camera_info: distortion_model '{distortion_model}' is not supported; supported: "
            f"{', '.join(CAMERA_MODELS)}. Rectify the images, or calibrate with one of these"
        )
    if not D and model != "fisheye":
        return "pinhole"
    if len(D) not in MODELS[model]:
        wanted = " or ".join(map(str, MODELS[model]))
        raise CalibrationError(
            f"camera_info: distortion_model '{distortion_model}' needs {wanted} values in D, got {len(D)}"
        )
    return model


def _resolve(path: str | Path) -> Path:
    """A path, file:// URL or package://<package>/<path> URL as a path."""
    text = str(path)
    if text.startswith("file://"):
        return Path(text[len("file://") :])
    if not text.startswith("package://"):
        return Path(text).expanduser()
    package, _, rest = text[len("package://") :].partition("/")
    if package == PACKAGE:
        return share_directory() / rest
    prefixes = [prefix for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if prefix]
    for prefix in prefixes:
        share = Path(prefix) / "share" / package
        if share.is_dir():
            return share / rest
    raise CalibrationError(f"cannot resolve {text}: no package '{package}' in AMENT_PREFIX_PATH; source its setup file")


def _get(content: dict, name: str, file: Path) -> Any:
    if name not in content:
        raise CalibrationError(f"{file}: '{name}' is missing; camera_calibration writes it, save the file anew")
    return content[name]


def _size(content: dict, name: str, file: Path) -> int:
    value = _get(content, name, file)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise CalibrationError(f"{file}: '{name}' must be a positive whole number of pixels, got {value!r}")
    return value


def _numbers(content: dict, name: str, file: Path, *lengths: int) -> tuple[float, ...]:
    """The 'data' of a matrix entry as floats, of one of ``lengths``."""
    entry = _get(content, name, file)
    data = entry.get("data") if isinstance(entry, dict) else None
    if not isinstance(data, list):
        raise CalibrationError(f"{file}: '{name}' must have rows, cols and a list 'data', got {entry!r}")
    if len(data) not in lengths:
        wanted = " or ".join(map(str, lengths))
        raise CalibrationError(f"{file}: '{name}' must have {wanted} values in 'data', got {len(data)}")
    try:
        values = tuple(float(value) for value in data)
    except (TypeError, ValueError) as error:
        raise CalibrationError(f"{file}: '{name}' has a value that is not a number: {error}") from error
    if not all(map(math.isfinite, values)):
        raise CalibrationError(f"{file}: '{name}' has values that are not finite: {data}; calibrate the camera again")
    return values
