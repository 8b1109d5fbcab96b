"""What all searchers share: short trainings, latencies, rewards, and the log of all candidates."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from hand_tracking_ros.config import InferenceConfig
from hand_tracking_ros.errors import ConfigError
from hand_tracking_ros.training import tasks
from hand_tracking_ros.training.networks import CONFIGS
from hand_tracking_ros.training.networks.scaling import Scaling, not_default
from hand_tracking_ros.training.recipe import Data, Recipe
from hand_tracking_ros.training.search.measure import network_ms
from hand_tracking_ros.training.search.reward import Reward
from hand_tracking_ros.training.search.table import Table
from hand_tracking_ros.training.train import Trainer


@dataclass(frozen=True)
class Candidate:
    """A network that a search has looked at; a line of ``candidates.jsonl``. None: not known.

    ``network``: the fields of its configuration that are not the default. ``accuracy`` 0..1, as the task defines it.
    """

    network: Mapping[str, Any]
    predicted_ms: float | None
    measured_ms: float | None
    accuracy: float | None = None
    reward: float | None = None

    @property
    def latency_ms(self) -> float | None:
        """Measured where that was possible, else predicted."""
        return self.predicted_ms if self.measured_ms is None else self.measured_ms


class Searcher(Protocol):
    """A way to search. Logs what it looks at with the judge, and goes on where the judge's log ends."""

    def search(self, judge: Judge) -> Candidate:
        """The best network found. Raises ConfigError when table, recipe and target allow none."""


class Judge:
    """Trains, measures, rewards and logs. The training of one candidate is as long as the recipe says.

    Everything lies in ``run``; what is there already is not done again. ``device``: the latency table of a device, or
    how to run networks on this one, for searchers that need no table.
    """

    def __init__(
        self, recipe: Recipe, data: Data, device: Table | InferenceConfig, reward: Reward, run: Path,
        workers: int = 1, rounds: int = 30,
    ):  # fmt: skip
        table = device if isinstance(device, Table) else None
        if table is not None and table.task != recipe.task:
            raise ConfigError(f"the latency table is of {table.task}, the recipe of {recipe.task}")
        if not recipe.checks:
            raise ConfigError("the recipe has no checks: without them nothing says which network is better")
        self.recipe, self.data, self.table, self.reward = recipe, data, table, reward
        self.inference = device if table is None else table.inference()
        self.run, self.workers, self.rounds = run, workers, rounds
        self.base: Scaling = CONFIGS[recipe.task](**recipe.network)
        self._task = None
        run.mkdir(parents=True, exist_ok=True)

    def begin(self, method: str, **options: object) -> None:
        """Claim the run for a method with its options. Raises ConfigError when it holds a search of other settings."""
        settings = {
            "method": method,
            **dataclasses.asdict(self.reward),
            **{name: getattr(self.recipe, name) for name in ("task", "minutes", "samples", "batch", "seed")},
            **options,
        }
        path = self.run / "search.json"
        if path.exists() and (old := json.loads(path.read_text())) != settings:
            raise ConfigError(f"{self.run} holds a search with {old}, not {settings}: take another --run")
        path.write_text(json.dumps(settings) + "\n")

    @property
    def log(self) -> Path:
        """One candidate per line."""
        return self.run / "candidates.jsonl"

    def history(self) -> list[Candidate]:
        """All candidates so far."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [Candidate(**json.loads(line)) for line in lines]

    def config(self, candidate: Candidate) -> Scaling:
        """The configuration of a candidate."""
        return CONFIGS[self.recipe.task](**candidate.network)

    def measured_ms(self, config: Scaling) -> float | None:
        """Milliseconds of the whole network in the table's backend; None on another machine than the table's."""
        if self.table is not None and not self.table.is_of_this_machine():
            return None
        (ms,) = network_ms(self.recipe.task, [config], self.inference, self.rounds)
        return round(ms, 4)

    def note(self, config: Scaling, accuracy: float | None = None, measured_ms: float | None = None) -> Candidate:
        """Log a network, with its reward where its accuracy is known; measured now unless that is given."""
        covered = self.table is not None and self.table.covers(config)
        predicted = round(self.table.predict_ms(config), 4) if covered else None
        measured = self.measured_ms(config) if measured_ms is None else measured_ms
        found = Candidate(not_default(config), predicted, measured)
        if accuracy is not None:
            reward = round(self.reward(accuracy, found.latency_ms), 5)
            found = dataclasses.replace(found, accuracy=round(accuracy, 5), reward=reward)
        with self.log.open("a") as lines:
            lines.write(json.dumps(dataclasses.asdict(found)) + "\n")
        return found

    def train(self, config: Scaling) -> float:
        """Accuracy after a short training from random weights; that of a network in the log is known already."""
        known = [c.accuracy for c in self.history() if c.accuracy is not None and self.config(c) == config]
        if known:
            return known[0]
        return self.run_training(self._trainer(config))

    def run_training(self, trainer: Trainer, init: str = "") -> float:
        """Accuracy at the end of a training, which goes on from its checkpoint; ``init``: as Trainer.resume."""
        print(trainer.resume(init), flush=True)
        report = trainer.train(self.workers) or trainer.validate()
        return trainer.task.accuracy(report)

    def start(self, init: str) -> Candidate:
        """The recipe's network with the weights of ``init``, as they are, measured and logged."""
        trainer = self._trainer(self.base)
        print(trainer.resume(init), flush=True)
        trainer.save()
        return self.note(self.base, trainer.task.accuracy(trainer.validate()))

    def train_on(self, network: nn.Module, measured_ms: float) -> Candidate:
        """A network that has weights, trained a little more and logged; one in the log is known already."""
        for known in self.history():
            if self.config(known) == network.config:
                return known
        folder = self.checkpoint(network.config).parent
        folder.mkdir(exist_ok=True)
        torch.save({"average": network.state_dict()}, folder / "start.pt")
        accuracy = self.run_training(self._trainer(network.config), str(folder / "start.pt"))
        return self.note(network.config, accuracy, measured_ms)

    def checkpoint(self, config: Scaling) -> Path:
        """Where the training of a network keeps its weights."""
        name = hashlib.sha256(json.dumps(not_default(config), sort_keys=True).encode()).hexdigest()[:12]
        return self.run / name / "checkpoint.pt"

    def _trainer(self, config: Scaling) -> Trainer:
        torch.manual_seed(self.recipe.seed)
        return Trainer(self.recipe, self.task(config), self.checkpoint(config).parent)

    def task(self, config: Scaling) -> tasks.KeyNetTask | tasks.DetNetTask:
        """Data and losses for a network; images are loaded once for all that take the same size."""
        if self._task is None or self._task.config.size != config.size:
            recipe = dataclasses.replace(self.recipe, network=not_default(config))
            self._task = tasks.TASKS[recipe.task](recipe, self.data)
        task = copy.copy(self._task)
        task.config = config
        return task
