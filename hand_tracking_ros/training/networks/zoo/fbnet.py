"""FBNet's searchable layer: candidates mixed by weights that training learns (Wu et al., CVPR 2019)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hand_tracking_ros.errors import ConfigError
from hand_tracking_ros.training.networks.blocks import InvertedResidual

START_TEMPERATURE, DECAY = 5.0, 4.05  # of the paper: 5 exp(-0.045 epoch) over 90 epochs


def candidate(inputs: int, outputs: int, stride: int = 1, *, kernel: int, expansion: int, groups: int = 1) -> nn.Module:
    """An inverted residual with this kernel, expansion and groups in its 1x1 convolutions."""
    return InvertedResidual(inputs, expansion * inputs, outputs, stride, kernel, groups=groups)


def skip(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    """Nothing. Raises ConfigError where the shape changes."""
    if stride != 1 or inputs != outputs:
        raise ConfigError(f"fbnet_skip cannot change the shape: {inputs} to {outputs} channels, stride {stride}")
    return nn.Identity()


CANDIDATES = {
    "fbnet_k3_e1": partial(candidate, kernel=3, expansion=1),
    "fbnet_k3_e1_g2": partial(candidate, kernel=3, expansion=1, groups=2),
    "fbnet_k3_e3": partial(candidate, kernel=3, expansion=3),
    "fbnet_k3_e6": partial(candidate, kernel=3, expansion=6),
    "fbnet_k5_e1": partial(candidate, kernel=5, expansion=1),
    "fbnet_k5_e1_g2": partial(candidate, kernel=5, expansion=1, groups=2),
    "fbnet_k5_e3": partial(candidate, kernel=5, expansion=3),
    "fbnet_k5_e6": partial(candidate, kernel=5, expansion=6),
    "fbnet_skip": skip,
}


class Mixed(nn.Module):
    """In training the sum of all candidates, weighted by a Gumbel softmax; otherwise the best candidate alone.

    ``latency_ms`` is the look-up table, candidate to measured milliseconds; whoever searches fills it.
    """

    def __init__(self, candidates: Mapping[str, nn.Module]):
        super().__init__()
        self.candidates = nn.ModuleDict(candidates)
        self.preference = nn.Parameter(torch.zeros(len(candidates)))
        self.temperature = START_TEMPERATURE
        self.latency_ms: dict[str, float] = {}

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return self.best()(x)
        weights = F.gumbel_softmax(self.preference, tau=self.temperature)
        return sum(weight * layer(x) for weight, layer in zip(weights, self.candidates.values()))

    def expected_latency_ms(self) -> Tensor:
        """The table's mean over what would be drawn: differentiable in the preferences. KeyError: not in the table.

        The softmax of the preferences is the probability of each candidate to win the Gumbel draw, so this is the
        exact mean of what the paper draws.
        """
        table = self.preference.new_tensor([self.latency_ms[name] for name in self.candidates])
        return (torch.softmax(self.preference, dim=0) * table).sum()

    def best_name(self) -> str:
        """The candidate with the largest weight."""
        return list(self.candidates)[int(self.preference.argmax())]

    def best(self) -> nn.Module:
        """Its layer."""
        return self.candidates[self.best_name()]

    final = best

    def set_progress(self, share: float) -> None:
        """Cool down from nearly even weights to nearly one choice."""
        self.temperature = START_TEMPERATURE * math.exp(-DECAY * share)


def searchable(inputs: int, outputs: int, stride: int = 1) -> Mixed:
    """FBNet's nine candidates, without the skip where the shape changes."""
    keeps = stride == 1 and inputs == outputs
    return Mixed(
        {name: make(inputs, outputs, stride) for name, make in CANDIDATES.items() if keeps or make is not skip}
    )


def mixed_layers(network: nn.Module) -> list[Mixed]:
    """The searchable layers of a network, in its order: body, then neck."""
    return [layer for layer in network.modules() if isinstance(layer, Mixed)]


def expected_latency_ms(network: nn.Module) -> Tensor:
    """Sum over the searchable layers: the term that a search adds to its loss."""
    return torch.stack([layer.expected_latency_ms() for layer in mixed_layers(network)]).sum()
