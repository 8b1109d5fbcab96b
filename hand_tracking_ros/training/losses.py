"""From the parts of a loss to the one number that is minimised."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from hand_tracking_ros.errors import ConfigError


class LossWeights(nn.Module):
    """Weighs the parts of a multi-task loss: with fixed weights, or with learned ones.

    Learned: each part has a log variance s, and the loss is the sum of exp(-s) * part + s (homoscedastic uncertainty,
    Kendall, Gal and Cipolla, CVPR 2018); it starts at the given weights. A fixed weight may be 0. Raises ConfigError.
    """

    def __init__(self, weights: Mapping[str, float], learned: bool = False):
        super().__init__()
        self.names = list(weights)
        for name, weight in weights.items():
            if not (0 <= weight < math.inf) or (learned and weight == 0):
                least = "above 0, where weights are learned" if learned else "0 or more"
                raise ConfigError(f"loss: the weight of '{name}' must be {least}; got {weight}")
        log_variances = torch.tensor([-math.log(weight) if weight else math.inf for weight in weights.values()])
        self.log_variances = nn.Parameter(log_variances, requires_grad=learned)
        self.learned = learned

    def forward(self, parts: Mapping[str, Tensor]) -> Tensor:
        """The loss, from a value per part. Raises KeyError when a part is missing."""
        values = torch.stack([parts[name] for name in self.names])
        total = (torch.exp(-self.log_variances) * values).sum()
        return total + self.log_variances.sum() if self.learned else total

    def weights(self) -> dict[str, float]:
        """The weight of each part at present."""
        return dict(zip(self.names, torch.exp(-self.log_variances).tolist()))
