"""Depth of the joints from a depth image that is aligned with the camera's image."""

from __future__ import annotations

import numpy as np

PATCH = 2  # px to each side of a keypoint that are looked at
SKIN_M = 0.009  # a joint lies about this far behind the skin that the camera sees
HAND_M = 0.12  # no joint is further than this, along z, from the middle of the hand


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
        patch = patch[np.isfinite(patch) & (patch > 0)]
        if len(patch) >= PATCH:
            z[joint] = np.quantile(patch, 0.25) + SKIN_M
    if np.isfinite(z).sum() < 3:
        return np.full(len(z), np.nan)
    return np.where(np.abs(z - np.nanmedian(z)) <= HAND_M, z, np.nan)
