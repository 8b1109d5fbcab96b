"""The values that flow through the tracker: frames, boxes, keypoints, hands. Frozen; arrays inside are read-only.

Units and frames: ``_px`` image pixels (corner origin, see geometry.py), ``_m`` metres and ``_rel`` palm lengths, both
in the camera's optical frame (x right, y down, z forward); stamps in seconds. A fixed index is a joint (skeleton.py);
what is unknown is NaN, never dropped.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

from hand_tracking_ros.cameras import Camera
from hand_tracking_ros.geometry import Box
from hand_tracking_ros.kinematics import NUM_ANGLES, HandPose
from hand_tracking_ros.skeleton import NUM_JOINTS, Side


class Source(IntEnum):
    """What placed the box of a hand in this frame."""

    DETECTED = 1  # DetNet found it in this frame
    PROPAGATED = 2  # optical flow carried it from the last frame
    PREDICTED = 3  # no evidence in this frame: extrapolated


class Scale(IntEnum):
    """What the 3D points of a hand are worth."""

    NONE = 0  # no 3D points (all NaN)
    RELATIVE = 1  # palm lengths, origin at the wrist
    ASSUMED = 2  # metres, from an assumed hand size
    MEASURED = 3  # metres, from stereo, depth or a calibrated hand


@dataclass(frozen=True)
class Frame:
    """One camera image. ``image`` (H, W) mono or (H, W, 3) BGR, uint8; ``stamp_s`` its acquisition time.

    ``depth_m`` (H, W): a depth image aligned with it, metres along z, 0 or not finite where nothing was measured.
    """

    image: np.ndarray
    stamp_s: float
    camera: Camera | None = None
    depth_m: np.ndarray | None = None

    def __post_init__(self) -> None:
        image = self.image
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
            raise ValueError(f"frame image must be a uint8 array, got {getattr(image, 'dtype', type(image).__name__)}")
        if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3) or 0 in image.shape:
            raise ValueError(f"frame image must be (H, W) mono or (H, W, 3) BGR and not empty, got shape {image.shape}")
        if not np.isfinite(self.stamp_s):
            raise ValueError(f"frame stamp must be finite, got {self.stamp_s}")
        depth = self.depth_m
        if depth is not None and (depth.shape != image.shape[:2] or not np.issubdtype(depth.dtype, np.floating)):
            raise ValueError(
                f"depth must be a float image in metres of the size of its image, {image.shape[:2]}; got {depth.dtype} "
                f"{depth.shape}: align it with the image"
            )


@dataclass(frozen=True)
class HandBox:
    """A box that may hold a hand, from DetNet (``id`` 0) or carried along for the track ``id``.

    ``right_score``: probability 0..1 that it is a right hand (0.5 unknown). ``expected_px`` (21, 2): where the
    keypoints should be; None for a hand that was not seen before. ``expected_variance`` (21,): of that, as fusion.py
    counts it; None where it is not to be averaged with what is seen.
    """

    box: Box
    score: float
    right_score: float = 0.5
    id: int = 0
    source: Source = Source.DETECTED
    expected_px: np.ndarray | None = field(default=None, compare=False)
    expected_variance: np.ndarray | None = field(default=None, compare=False)


NO_HAND = 0.1  # less presence than this means that KeyNet is sure to see none


@dataclass(frozen=True)
class HandKeypoints:
    """What KeyNet sees in one box. The keypoints are averaged with those that flow carried here (fusion.py), where the
    box says how sure those are; no temporal filter has touched the rest.

    keypoints_px (21, 2); keypoint_scores (21,) 0..1; depth_rel (21,) distance relative to joint 9 in palm lengths (0-9
    in 3D), along z, or with a lens that distorts along the ray to joint 9 (``lifting.depth_along_z`` converts);
    presence 0..1: is there a hand; right_score 0..1.
    """

    id: int
    box: Box
    source: Source
    keypoints_px: np.ndarray
    keypoint_scores: np.ndarray
    depth_rel: np.ndarray
    presence: float
    right_score: float

    def __post_init__(self) -> None:
        _check_shape("keypoints_px", self.keypoints_px, (NUM_JOINTS, 2))
        _check_shape("keypoint_scores", self.keypoint_scores, (NUM_JOINTS,))
        _check_shape("depth_rel", self.depth_rel, (NUM_JOINTS,))


def _nan(*shape: int):
    return field(default_factory=lambda: np.full(shape, np.nan))


@dataclass(frozen=True)
class Hand:
    """A tracked hand, filtered: what users get.

    ``id`` is never reused. ``points_3d`` (21, 3) in the unit that ``scale`` names; ``velocities_px`` (21, 2) px/s,
    ``velocities_3d`` (21, 3) per second in the unit of ``points_3d``. ``score``: presence 0..1. ``pose``: the kinematic
    hand whose keypoints ``points_3d`` are, where the camera is known; ``angle_velocities`` (20,) rad/s of its joints.
    """

    id: int
    side: Side
    side_score: float
    score: float
    source: Source
    box: Box
    keypoints_px: np.ndarray
    keypoint_scores: np.ndarray
    velocities_px: np.ndarray = _nan(NUM_JOINTS, 2)
    scale: Scale = Scale.NONE
    points_3d: np.ndarray = _nan(NUM_JOINTS, 3)
    velocities_3d: np.ndarray = _nan(NUM_JOINTS, 3)
    pose: HandPose | None = None
    angle_velocities: np.ndarray = _nan(NUM_ANGLES)

    def __post_init__(self) -> None:
        for name, dims in (("keypoints_px", 2), ("velocities_px", 2), ("points_3d", 3), ("velocities_3d", 3)):
            _check_shape(name, getattr(self, name), (NUM_JOINTS, dims))
        _check_shape("keypoint_scores", self.keypoint_scores, (NUM_JOINTS,))
        _check_shape("angle_velocities", self.angle_velocities, (NUM_ANGLES,))


def _check_shape(name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    if np.shape(array) != shape:
        raise ValueError(f"{name} must have shape {shape}, got {np.shape(array)}")
    array.setflags(write=False)
