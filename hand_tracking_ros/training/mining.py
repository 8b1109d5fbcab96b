"""Hard-example mining: images on which the network is worse are drawn more often, and what it takes for a hand.

All lies in shared memory: the training process measures and writes, the loading workers draw.
"""

from __future__ import annotations

import numpy as np
import torch

from hand_tracking_ros.skeleton import NUM_JOINTS

LIMITS = (0.25, 4.0)  # an image is drawn at most this much more rarely or more often than the mean one
MEMORY = 0.5  # of the former measurement


class Draw:
    """Draws indices 0..count-1, all alike until errors are known."""

    def __init__(self, count: int, strength: float):
        self.count, self.strength = count, strength
        self._errors = np.full(count, np.nan)
        self._cumulative = torch.arange(1, count + 1, dtype=torch.float64).div_(count).share_memory_()

    def __call__(self, rng: np.random.Generator) -> int:
        """One index."""
        if self.strength == 0:
            return int(rng.integers(self.count))
        return min(int(np.searchsorted(self._cumulative.numpy(), rng.random(), side="right")), self.count - 1)

    def learn(self, indices: np.ndarray, errors: np.ndarray) -> None:
        """Errors of some images, any unit: weights follow (error / mean error) ** strength, within LIMITS."""
        known = np.isfinite(self._errors[indices])
        self._errors[indices] = np.where(known, MEMORY * self._errors[indices] + (1 - MEMORY) * errors, errors)
        relative = self._errors / max(np.nanmean(self._errors), 1e-12)
        weights = np.clip(np.nan_to_num(relative, nan=1.0) ** self.strength, *LIMITS)
        self._cumulative.copy_(torch.from_numpy(np.cumsum(weights) / weights.sum()))


class Mistakes:
    """The newest pictures (side, side) uint8 without a hand in which the network saw one, and the keypoints (21, 2) px
    that it saw."""

    def __init__(self, most: int, side: int):
        self._pictures = torch.zeros(most, side, side, dtype=torch.uint8).share_memory_()
        self._keypoints = torch.zeros(most, NUM_JOINTS, 2, dtype=torch.float64).share_memory_()
        self._count = torch.zeros(1, dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return min(int(self._count), len(self._pictures))

    def add(self, picture: np.ndarray, keypoints: np.ndarray) -> None:
        """Keep a picture and its keypoints, instead of the oldest one where there are enough."""
        place = int(self._count) % len(self._pictures)
        self._pictures[place] = torch.from_numpy(picture)
        self._keypoints[place] = torch.from_numpy(keypoints)
        self._count += 1

    def __call__(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """One of the pictures, and its keypoints."""
        place = int(rng.integers(len(self)))
        return self._pictures[place].numpy(), self._keypoints[place].numpy()
