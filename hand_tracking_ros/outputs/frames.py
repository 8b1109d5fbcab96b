"""Wrist and palm as poses with the axes of REP 103, and quaternions.

Wrist and palm have the same axes on both hands: x forward, from the wrist to the base of the middle finger; z up, out
of the back of the hand; y left, which is towards the thumb on a right hand and away from it on a left one. The wrist's
origin is keypoint 0; the palm's lies halfway from there to the base of the middle finger.
"""

from __future__ import annotations

import numpy as np

from hand_tracking_ros.kinematics import HandPose
from hand_tracking_ros.skeleton import Joint

# Columns: x, y, z of the wrist in the kinematic hand frame (x sideways, y back to the arm, z out of the back).
WRIST_AXES = np.array([(0.0, 1.0, 0.0), (-1.0, 0.0, 0.0), (0.0, 0.0, 1.0)])
PALM_SHARE = 0.5


def wrist_rotation(pose: HandPose) -> np.ndarray:
    """(3, 3) axes of wrist and palm in the frame of ``pose``."""
    return pose.rotation @ WRIST_AXES


def hand_rotation(wrist: np.ndarray) -> np.ndarray:
    """(3, 3) rotation of a HandPose, from the axes of its wrist: the inverse of ``wrist_rotation``."""
    return wrist @ WRIST_AXES.T


def palm_position_m(pose: HandPose, points_m: np.ndarray | None = None) -> np.ndarray:
    """(3,) the palm's origin in the frame of ``pose``; ``points_m``: pose.points(), where they are at hand."""
    points = pose.points() if points_m is None else points_m
    return points[Joint.WRIST] + PALM_SHARE * (points[Joint.MIDDLE_MCP] - points[Joint.WRIST])


def quaternions(rotations: np.ndarray) -> np.ndarray:
    """(..., 4) unit quaternions x, y, z, w with w >= 0 of rotations (..., 3, 3)."""
    m = np.asarray(rotations, np.float64)
    (a, b, c), (d, e, f), (g, h, i) = np.moveaxis(m, (-2, -1), (0, 1))
    outer = np.empty((*m.shape[:-2], 4, 4))  # 4 q q^T: its longest row is q, well conditioned everywhere
    outer[..., 0, 0], outer[..., 1, 1], outer[..., 2, 2] = 1 + a - e - i, 1 - a + e - i, 1 - a - e + i
    outer[..., 3, 3] = 1 + a + e + i
    outer[..., 0, 1] = outer[..., 1, 0] = b + d
    outer[..., 0, 2] = outer[..., 2, 0] = c + g
    outer[..., 1, 2] = outer[..., 2, 1] = f + h
    outer[..., 0, 3] = outer[..., 3, 0] = h - f
    outer[..., 1, 3] = outer[..., 3, 1] = c - g
    outer[..., 2, 3] = outer[..., 3, 2] = d - b
    longest = np.argmax(np.einsum("...ii->...i", outer), axis=-1)
    row = np.take_along_axis(outer, longest[..., None, None], axis=-2)[..., 0, :]
    row = row * np.where(row[..., 3:] < 0, -1.0, 1.0)
    return row / np.linalg.norm(row, axis=-1, keepdims=True)


def rotation_of(quaternion: np.ndarray) -> np.ndarray:
    """(3, 3) rotation of a quaternion x, y, z, w, which is normalised first. Raises ValueError when it is not finite
    or 0."""
    values = np.asarray(quaternion, np.float64)
    length = float(np.linalg.norm(values))
    if not (np.isfinite(length) and length > 1e-6):
        raise ValueError(f"not a rotation: quaternion {values.tolist()}")
    x, y, z, w = (values / length).tolist()
    return np.array([
        (1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
        (2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
        (2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)),
    ])  # fmt: skip
