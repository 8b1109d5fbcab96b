"""From 2D keypoints and relative depths to 3D points, by weak perspective and the proportions of the palm.

One camera cannot tell a small near hand from a large far one: without a camera the points are in palm lengths, with
one they are in metres for an assumed palm (``Scale.ASSUMED``). The kinematic fit that measures the scale comes on top.

Depth counts along the camera's z axis; behind a lens with distortion, which may see the hand far off that axis or even
behind it, along the ray to joint 9. ``depth_along_z`` converts.
"""

from __future__ import annotations

import math

import numpy as np

from hand_tracking_ros.cameras import Camera
from hand_tracking_ros.fusion import noise
from hand_tracking_ros.skeleton import PALM_PAIRS
from hand_tracking_ros.types import Scale

# Length of each of PALM_PAIRS over 0-9: means over 256 adult hand shapes (MakeHuman, CC0), spread at most 3 %; the
# last, across the palm: the median over 1,200 open palms as MediaPipe sees them (HaGRID's palm and stop, digits 4, 5).
PALM_RATIOS = (1.042, 1.0, 0.961, 0.928, 0.688)
JOINT_9 = 9  # the middle finger's base: the origin of depths
LEAST_COS = 0.1  # joints this far (84 degrees) from joint 9, seen from the camera, are a mistake of the network
STEP_S = 1e-4  # for velocities by differences
# Deviation, along an axis, of the heatmap that KeyNet learns for a keypoint, over the side of the hand's box: 2.6 px of
# a crop of 96, which shows 1.4 boxes. What a heatmap is wider than that, is doubt: its score is 1 over how much.
HEATMAP_SIGMA = 2.6 / 96 * 1.4
MOST_GROWTH = 1.5  # more says nothing


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


def unshrunk(keypoints_px: np.ndarray, scores: np.ndarray, side_px: float) -> np.ndarray:
    """Keypoints (21, 2), as far apart as those of a hand of which KeyNet said so with ``scores`` (21,).

    A keypoint is the mean of where it may be, so a doubtful hand shrinks about its middle, and seems further away. The
    law of total variance says by how much: the spread of keypoints is that of their means plus what is left in each
    heatmap, in squares. ``side_px``: of the box that KeyNet has looked at. Keypoints may be NaN: not seen.
    """
    doubt = noise(scores)
    seen = np.isfinite(keypoints_px).all(axis=1) & (scores > 0)
    weights = np.where(seen, 1 / doubt, 0.0)
    points = np.where(seen[:, None], keypoints_px, 0.0)
    total = max(float(weights.sum()), 1e-9)
    middle = weights @ points / total
    away = points - middle
    spread = max(float(weights @ (away * away).sum(axis=1)), 1e-9)
    left = 2 * (HEATMAP_SIGMA * side_px) ** 2 * float(weights @ (doubt - 1))
    return middle + min(math.sqrt(1 + left / spread), MOST_GROWTH) * (keypoints_px - middle)


def facing(axis: np.ndarray, down: np.ndarray) -> np.ndarray:
    """(3, 3) rotation whose rows are the axes of a view: z along ``axis``, y as near to ``down`` as that allows."""
    z = axis / np.linalg.norm(axis)
    y = down - (down @ z) * z
    y /= np.linalg.norm(y)
    return np.stack([np.cross(y, z), y, z])


def palm_length_seen(keypoints_px: np.ndarray, depth_rel: np.ndarray, camera: Camera | None) -> float:
    """Palm length in px as ``palm_length_px`` gives it, of the hand as a camera without distortion would see it.

    That is a pinhole camera of the same focal length; behind a lens with distortion it looks straight at joint 9.
    """
    if camera is None or camera.model == "pinhole":
        return palm_length_px(keypoints_px, depth_rel)
    rays = camera.rays(keypoints_px)
    if not np.isfinite(rays).all():
        return palm_length_px(keypoints_px, depth_rel)
    axis = rays[JOINT_9]
    seen = rays @ facing(axis, np.eye(3)[np.abs(axis).argmin()]).T
    return palm_length_px(camera.focal_px * seen[:, :2] / np.maximum(seen[:, 2:], LEAST_COS), depth_rel)


def depth_along_z(keypoints_px: np.ndarray, depth_rel: np.ndarray, camera: Camera | None) -> np.ndarray:
    """(21,) distance along the camera's z axis relative to joint 9, in palm lengths, of raw HandKeypoints."""
    if camera is None or camera.model == "pinhole":
        return depth_rel
    palms = camera.focal_px / palm_length_seen(keypoints_px, depth_rel, camera)
    rays = camera.rays(keypoints_px)
    return _along_rays(rays, palms + depth_rel)[:, 2] - palms * rays[JOINT_9, 2]


def lift(values: np.ndarray, velocity: np.ndarray, camera: Camera | None, palm_m: float):
    """(scale, points (21, 3), velocities (21, 3)) from filtered channels (22, 3): x, y, depth in px; last row the palm.

    Relative: palm lengths, origin at the wrist. With a camera: metres in its optical frame; NaN where it has no ray.
    """
    palm_px = max(float(values[-1, 0]), 1e-3)
    joints, rates = values[:-1], velocity[:-1]
    if camera is None:
        return Scale.RELATIVE, (joints - joints[0]) / palm_px, (rates - rates[0]) / palm_px
    if camera.model != "pinhole":
        points = _lift_along_rays(values, camera, palm_m)
        later = _lift_along_rays(values + STEP_S * velocity, camera, palm_m)
        return Scale.ASSUMED, points, (later - points) / STEP_S
    metres_per_px = palm_m / palm_px
    focal = camera.focal_px
    depth = focal * metres_per_px + joints[:, 2] * metres_per_px  # joint 9 has relative depth 0
    depth = np.maximum(depth, 1e-3)
    x = (joints[:, 0] - camera.cx) / camera.fx
    y = (joints[:, 1] - camera.cy) / camera.fy
    points = np.column_stack([x * depth, y * depth, depth])
    depth_rate = rates[:, 2] * metres_per_px - focal * metres_per_px * velocity[-1, 0] / palm_px
    x_rate = rates[:, 0] / camera.fx * depth + x * depth_rate
    y_rate = rates[:, 1] / camera.fy * depth + y * depth_rate
    return Scale.ASSUMED, points, np.column_stack([x_rate, y_rate, depth_rate])


def _lift_along_rays(values: np.ndarray, camera: Camera, palm_m: float) -> np.ndarray:
    """Points (21, 3) in metres: depth counts along the ray of joint 9."""
    metres_per_px = palm_m / max(float(values[-1, 0]), 1e-3)
    depth = np.maximum((camera.focal_px + values[:-1, 2]) * metres_per_px, 1e-3)
    return _along_rays(camera.rays(values[:-1, :2]), depth)


def _along_rays(rays: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Points (21, 3) on ``rays`` that are ``depth`` (21,) away, measured along the ray of joint 9."""
    return rays * (depth / np.maximum(rays @ rays[JOINT_9], LEAST_COS))[:, None]
