"""A robot hand's joints from a hand's keypoints, by the package dex-retargeting (Qin et al., AnyTeleop).

dex-retargeting is optional (``pip install ".[retarget]"`` in the checkout) and needs PyTorch and NumPy 2. Its own
configurations for Allegro, LEAP, Shadow and other hands name URDF files, which dexsuite/dex-urdf has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hand_tracking_ros.config import Config, param
from hand_tracking_ros.errors import ConfigError, HandTrackingError
from hand_tracking_ros.skeleton import NUM_JOINTS

FRAMES = ("dex", "wrist")
# Columns: the axes that a robot's base has, in wrist axes (x forward, y left, z up).
ROBOT_AXES = {
    "dex": np.array([(0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (-1.0, 0.0, 0.0)]),  # x out of the palm, y left, z forward
    "wrist": np.eye(3),
}


@dataclass(frozen=True)
class RetargetConfig(Config):
    """Which robot hand follows which human hand, and how fast."""

    side: str = param("right", "The hand that the robot hand follows", choices=("left", "right"))
    config: str = param("", "YAML of dex-retargeting that describes the robot hand", read_only=True)
    urdf_folder: str = param("", "Folder that its urdf_path is relative to; empty: that of the YAML", read_only=True)
    frame: str = param(
        "dex",
        "Axes of the robot hand's base: dex, as in dex-urdf (x out of the palm, y left, z to the fingers), or wrist, "
        "as this package's URDFs (x to the fingers, y left, z out of the back)",
        choices=FRAMES,
        read_only=True,
    )
    least_score: float = param(0.5, "Hands of a lower score are not believed", low=0.0, high=1.0)
    speed: float = param(6.0, "Greatest speed of a joint's target, rad/s or m/s", low=0.01, high=100.0)
    ramp_s: float = param(
        1.0, "The speed rises from 0 to that over this time, after a gap or with another hand", low=0.01, high=60.0
    )
    timeout_s: float = param(0.25, "A hand that was not seen for longer is a gap", low=0.02, high=5.0)


class HandRetargeter:
    """Joint positions of a robot hand, one hand pose after the other (the last solution starts the next one).

    Raises ConfigError when the configuration or its URDF cannot be used, HandTrackingError without dex-retargeting.
    """

    def __init__(self, config: RetargetConfig):
        library = _library()
        path = Path(config.config)
        if not path.is_file():
            raise ConfigError(f"parameter 'config': no such file '{config.config}'; name a YAML of dex-retargeting")
        library.set_default_urdf_dir(str(Path(config.urdf_folder) if config.urdf_folder else path.resolve().parent))
        try:
            self._retargeting = library.load_from_file(path).build()
        except Exception as error:  # the library raises what comes: ValueError, KeyError, TypeError, of XML, pinocchio
            raise ConfigError(f"dex-retargeting cannot use {path}: {error!r}") from error
        self._axes = ROBOT_AXES[config.frame]

    @property
    def joint_names(self) -> Sequence[str]:
        """The robot's joints, in the order of what ``retarget`` returns."""
        return list(self._retargeting.joint_names)

    def retarget(self, points_m: np.ndarray, wrist: np.ndarray) -> np.ndarray:
        """Joint positions (radians or metres) for keypoints (21, 3) in metres and the axes of the wrist (3, 3), as in
        outputs/frames.py, both in one frame."""
        if points_m.shape != (NUM_JOINTS, 3) or not (np.isfinite(points_m).all() and np.isfinite(wrist).all()):
            raise ValueError("retargeting needs 21 finite keypoints and a finite wrist")
        points = (points_m - points_m[0]) @ wrist @ self._axes
        optimizer = self._retargeting.optimizer
        indices = np.asarray(optimizer.target_link_human_indices)
        if optimizer.retargeting_type == "POSITION":
            return self._retargeting.retarget(points[indices])
        origins, tasks = indices
        return self._retargeting.retarget(points[tasks] - points[origins])


def _library():
    """dex-retargeting's configuration class. Raises HandTrackingError when it is not installed."""
    try:
        import dex_retargeting.optimizer  # noqa: F401 (imports torch and six, which it does not require)
        from dex_retargeting.retargeting_config import RetargetingConfig
    except ImportError as error:
        raise HandTrackingError(
            f"retargeting needs the packages dex-retargeting, torch and six ({error}): pip install "
            "'.[retarget]' in the checkout of hand_tracking_ros, with NumPy 2 and Python up to 3.12"
        ) from error
    return RetargetingConfig
