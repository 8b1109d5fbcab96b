"""From 2D keypoints and relative depths to 3D points, by weak perspective and the proportions of the palm.

One camera cannot tell a small near hand from a large far one: without a camera the points are in palm lengths, with
one they are in metres for an assumed palm (``Scale.ASSUMED``). The kinematic fit that measures the scale comes on top.
"""

from __future__ import annotations

import math

import numpy as np

from hand_tracking_ros.skeleton import PALM_PAIRS
from hand_tracking_ros.types import Camera, Scale

# Length of each of PALM_PAIRS over 0-9: means over 256 adult hand shapes (MakeHuman, CC0); spread at most 3 %.
PALM_RATIOS = (1.042, 1.0, 0.961, 0.928, 0.644)


def palm_length_px(keypoints_px: np.ndarray, depth_rel: np.ndarray) -> float:
    """Length of the bone line 0-9 in px, as if it lay parallel to the image.

    Least squares over the palm pairs: each one's length in the image, its share of depth, and its known proportion.
    """
    flat, wide = 0.0, 0.0  # plain numbers: numpy takes several times longer on so few
    longest = 0.0
    points, depths = keypoints_px.tolist(), depth_rel.tolist()
    for (a, b), ratio in zip(PALM_PAIRS, PALM_RATIOS):
        (xa, ya), (xb, yb) = points[a], points[b]
        square = (xa - xb) ** 2 + (ya - yb) ** 2
        flat += square
        longest = max(longest, square)
        wide += ratio**2 - min((depths[a] - depths[b]) ** 2, 0.9 * ratio**2)
    return max(math.sqrt(flat / wide), math.sqrt(longest) / max(PALM_RATIOS), 1e-3)


def lift(values: np.ndarray, velocity: np.ndarray, camera: Camera | None, palm_m: float):
    """(scale, points (21, 3), velocities (21, 3)) from filtered channels (22, 3): x, y, depth in px; last row the palm.

    Relative: palm lengths, origin at the wrist. With a camera: metres in its optical frame.
    """
    palm_px = max(float(values[-1, 0]), 1e-3)
    joints, rates = values[:-1], velocity[:-1]
    if camera is None:
        return Scale.RELATIVE, (joints - joints[0]) / palm_px, (rates - rates[0]) / palm_px
    metres_per_px = palm_m / palm_px
    focal = np.sqrt(camera.fx * camera.fy)
    depth = focal * metres_per_px + joints[:, 2] * metres_per_px  # joint 9 has relative depth 0
    depth = np.maximum(depth, 1e-3)
    x = (joints[:, 0] - camera.cx) / camera.fx
    y = (joints[:, 1] - camera.cy) / camera.fy
    points = np.column_stack([x * depth, y * depth, depth])
    depth_rate = rates[:, 2] * metres_per_px - focal * metres_per_px * velocity[-1, 0] / palm_px
    x_rate = rates[:, 0] / camera.fx * depth + x * depth_rate
    y_rate = rates[:, 1] / camera.fy * depth + y * depth_rate
    return Scale.ASSUMED, points, np.column_stack([x_rate, y_rate, depth_rate])
