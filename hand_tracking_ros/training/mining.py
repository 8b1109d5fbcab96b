"""Hard-example mining: images on which the network is worse are drawn more often.

The weights lie in shared memory: the training process measures and writes them, the loading workers draw by them.
"""

from __future__ import annotations

import numpy as np
import torch

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
