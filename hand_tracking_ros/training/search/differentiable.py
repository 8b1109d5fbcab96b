"""FBNet: all candidates trained as one network that learns which of them it prefers (Wu et al., CVPR 2019)."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hand_tracking_ros.errors import ConfigError
from hand_tracking_ros.training.networks.zoo import fbnet
from hand_tracking_ros.training.search.judge import Candidate, Judge
from hand_tracking_ros.training.search.places import places, with_names
from hand_tracking_ros.training.search.table import Table
from hand_tracking_ros.training.train import Trainer

FORMS = ("product", "sum")
WARM_UP = 10 / 90  # of the run: weights alone, section 4.1
EVERY = 5  # a fifth of the batches teaches the preferences, section 4.1: 20 % of the images
PREFERENCE_RATE, PREFERENCE_DECAY = 0.01, 5e-4  # of their Adam, section 4.1


@dataclass(frozen=True)
class LatencyLoss:
    """How expected latency enters the loss; its term is 1 at the target.

    (log us / log target us) ** beta, which 'product' multiplies the loss with (equation 2, whose alpha the target sets)
    and 'sum' adds, ``weight`` times. ``beta`` 0.6 is the paper's. Raises ConfigError.
    """

    target_ms: float
    form: str = "product"
    weight: float = 0.2
    beta: float = 0.6

    def __post_init__(self) -> None:
        if self.form not in FORMS or self.target_ms <= 1e-3:
            raise ConfigError(
                f"latency in the loss needs a form of {', '.join(FORMS)} and a target of more than 0.001 ms; "
                f"got '{self.form}', {self.target_ms} ms"
            )

    def __call__(self, loss: Tensor, expected_ms: Tensor) -> Tensor:
        us = (1e3 * expected_ms).clamp(min=1.0 + 1e-6)
        term = (torch.log(us) / math.log(1e3 * self.target_ms)) ** self.beta
        return loss * term if self.form == "product" else loss + self.weight * term


class SearchTrainer(Trainer):
    """A training whose preferences have an optimiser and batches of their own; all else is train.py's."""

    def __init__(self, judge: Judge, latency: LatencyLoss):
        config = dataclasses.replace(judge.base, block="fbnet", neck="fbnet")
        super().__init__(judge.recipe, judge.task(config), judge.run)
        self.latency = latency
        self.fixed_ms = fill(self.network, judge.table)
        layers = fbnet.mixed_layers(self.network)
        self.preferences = [layer.preference.requires_grad_(False) for layer in layers]
        self.chooser = torch.optim.Adam(self.preferences, lr=PREFERENCE_RATE, weight_decay=PREFERENCE_DECAY)
        self.turn = 0

    def expected_ms(self) -> Tensor:
        """Of what the preferences would draw."""
        return self.fixed_ms + fbnet.expected_latency_ms(self.network)

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Train.py's, with the latency where preferences learn."""
        loss, parts = super().loss(batch)
        return self.latency(loss, self.expected_ms()), parts | {"expected_ms": self.expected_ms()}

    def step(self, batch: dict[str, Tensor]) -> dict[str, float]:
        """One update of the weights, or of the preferences; returns the parts of the loss."""
        self.turn += 1
        if self.progress < WARM_UP or self.turn % EVERY:
            return super().step(batch)
        for preference in self.preferences:
            preference.requires_grad_(True)
        loss, parts = self.loss({key: value.to(self.device) for key, value in batch.items()})
        gradients = torch.autograd.grad(loss, self.preferences)
        for preference, gradient in zip(self.preferences, gradients):
            preference.requires_grad_(False).grad = gradient
        self.chooser.step()
        self.average.update(self.network)
        return {name: float(value.detach()) for name, value in parts.items()}

    def state(self) -> dict[str, object]:
        """Train.py's, and the preferences' optimiser."""
        return super().state() | {"chooser": self.chooser.state_dict()}

    def restore(self, state: dict) -> None:
        """Take such a state."""
        super().restore(state)
        self.chooser.load_state_dict(state["chooser"])


def fill(network: torch.nn.Module, table: Table) -> float:
    """Give the searchable layers their tables; returns the rest's milliseconds. Raises ConfigError: not measured."""
    spots = places(table.task, network.config)
    for place, layer in zip(spots, fbnet.mixed_layers(network)):
        layer.latency_ms = {name: table.block_ms(place, name) for name in layer.candidates}
    return table.rest_ms(network.config)


@dataclass(frozen=True)
class Differentiable:
    """One training, as long as the recipe says; then the preferred candidate of each place is the network."""

    form: str = "product"
    weight: float = 0.2

    def search(self, judge: Judge) -> Candidate:
        """What the averaged preferences prefer; its accuracy is with the weights of the search."""
        if judge.history():
            return judge.history()[-1]
        trainer = SearchTrainer(judge, LatencyLoss(judge.reward.target_ms, self.form, self.weight))
        accuracy = judge.run_training(trainer)
        found = [layer.best_name() for layer in fbnet.mixed_layers(trainer.average.network)]
        return judge.note(with_names(judge.base, found), accuracy)
