"""Regularised evolution: the oldest die, not the worst (Real et al., AAAI 2019, algorithm 1)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from hand_tracking_ros.errors import ConfigError
from hand_tracking_ros.training.networks.scaling import Scaling
from hand_tracking_ros.training.search.judge import Candidate, Judge
from hand_tracking_ros.training.search.places import names, places, with_names
from hand_tracking_ros.training.search.table import Table, bases, random_config, rest_key

TRIES = 1000  # for a network that the table covers


@dataclass(frozen=True)
class Evolution:
    """``candidates`` networks in all. The first is the recipe's, then random ones until there is a ``population``;
    then each is a mutation of the best of a ``sample`` of the youngest ``population``.

    Places, blocks and widths are those of the table; ``depths`` adds multipliers of the depth. What comes next depends
    on seed and log alone, so an interrupted search goes on as if it had not been.
    """

    population: int = 16
    sample: int = 4
    candidates: int = 64
    depths: tuple[float, ...] = ()

    def search(self, judge: Judge) -> Candidate:
        """The candidate with the highest reward. Raises ConfigError when the table lacks the recipe's network."""
        judge.table.predict_ms(judge.base)
        history = judge.history()
        while len(history) < self.candidates:
            config = self.proposal(judge, history)
            history.append(judge.note(config, judge.train(config)))
        return max(history, key=lambda candidate: candidate.reward)

    def proposal(self, judge: Judge, history: Sequence[Candidate]) -> Scaling:
        """The network to look at after those of ``history``."""
        if not history:
            return judge.base
        rng = np.random.default_rng((judge.recipe.seed, len(history)))
        if len(history) < self.population:
            return random_config(judge.table, judge.base, rng)
        alive = history[-self.population :]
        drawn = rng.choice(len(alive), min(self.sample, len(alive)), replace=False)
        parent = max((alive[i] for i in drawn), key=lambda candidate: candidate.reward)
        return mutated(judge.config(parent), judge.table, self.depths, rng)


def mutated(config: Scaling, table: Table, depths: Sequence[float], rng: np.random.Generator) -> Scaling:
    """The network with another block at one place, another width, or another depth; which of them is drawn evenly.

    Raises ConfigError when the table has no network beside it.
    """
    widths = [c.width for c in bases(table) if rest_key(dataclasses.replace(config, width=c.width)) == rest_key(c)]
    for _ in range(TRIES):
        kind = rng.choice(["place", *["width"] * (len(widths) > 1), *["depth"] * bool(depths)])
        if kind == "width":
            child = dataclasses.replace(config, width=float(rng.choice(widths)))
        elif kind == "depth":
            child = with_depth(config, float(rng.choice(depths)))
        else:
            chosen, spots = names(config), places(table.task, config)
            at = rng.integers(len(chosen))
            chosen[at] = str(rng.choice(table.candidates(spots[at])))
            child = with_names(config, chosen)
        if (names(child), child.width) != (names(config), config.width) and table.covers(child):
            return child
    raise ConfigError("the latency table knows no other network: measure more --blocks or --widths")


def with_depth(config: Scaling, depth: float) -> Scaling:
    """The network at another depth: stages lose their last blocks, or repeat the last one."""
    scaled = dataclasses.replace(config, depth=depth)
    old = names(config)
    body, neck = iter(old[:-2]), old[-2:]
    new = []
    for before, after in zip(config.stages, scaled.stages):
        stage = list(islice(body, before))
        new += [stage[min(index, before - 1)] for index in range(after)]
    return with_names(scaled, new + neck)
