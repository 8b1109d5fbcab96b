"""Depth of the joints from a depth image that is aligned with the camera's image."""

from __future__ import annotations

import numpy as np

from hand_tracking_ros.hand_size import HandSize
from hand_tracking_ros.lifting import JOINT_9, palm_length_seen
from hand_tracking_ros.types import Camera, HandKeypoints

PATCH = 2  # px to each side of a keypoint that are looked at
SKIN_M = 0.009  # a joint lies about this far behind the skin that the camera sees
HAND_M = 0.12  # no joint is further than this, along z, from the middle of the hand
FARTHEST_M = 10.0  # no hand is; what is, is what some cameras write for "nothing measured"
MISFIT = {True: 1.65, False: 2.0}  # depth over that by the size of the hand, where it is measured, and where assumed


def joint_depths(depth_m: np.ndarray, keypoints_px: np.ndarray) -> np.ndarray:
    """Metric z (21,) of the joints at ``keypoints_px`` (21, 2), NaN where the image does not tell.

    ``depth_m`` (H, W) metres along the camera's z; 0, NaN or infinity where nothing was measured. The nearest quarter
    of a keypoint's surroundings counts: fingers stand before what is behind them. What is too far from the rest of
    the hand is something else, and left out.
    """
    height, width = depth_m.shape
    z = np.full(len(keypoints_px), np.nan)
    for joint, (x, y) in enumerate(keypoints_px):
        if not (0 <= x < width and 0 <= y < height):
            continue
        column, row = int(x), int(y)
        patch = depth_m[max(0, row - PATCH) : row + PATCH + 1, max(0, column - PATCH) : column + PATCH + 1]
        patch = patch[(patch > 0) & (patch < FARTHEST_M)]  # neither is true of NaN
        if len(patch) >= PATCH:
            z[joint] = np.quantile(patch, 0.25) + SKIN_M
    if np.isfinite(z).sum() < 3:
        return np.full(len(z), np.nan)
    return np.where(np.abs(z - np.nanmedian(z)) <= HAND_M, z, np.nan)


def fits_size(depth_m: np.ndarray, seen: HandKeypoints, camera: Camera, size: HandSize) -> bool:
    """Whether joints may be at the metric z ``depth_m`` (21,), NaN for unknown, as large as the hand is in the image.

    What lies behind the hand, or is filled in where the camera measured nothing, is not.
    """
    away_m = camera.focal_px * size.palm_m / palm_length_seen(seen.keypoints_px, seen.depth_rel, camera)
    if camera.model != "pinhole":
        away_m *= camera.rays(seen.keypoints_px[JOINT_9])[2]
    ratio = np.nanmedian(depth_m) / away_m
    most = MISFIT[size.is_measured]
    return not (ratio > most or ratio < 1 / most)  # where the lens says nothing, neither does this
