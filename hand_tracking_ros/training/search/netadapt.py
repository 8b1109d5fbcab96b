"""A trained network is made faster step by step, as measured on the device (NetAdapt, Yang et al., ECCV 2018).

Each step proposes networks that are all at least so much faster: one that sees smaller images, one with narrower blocks
and one with fewer. Each has its parent's weights and is trained a little; the most accurate one goes on (algorithm 1,
with the blocks of the whole network instead of one layer at a time).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import nn

from hand_tracking_ros.errors import ConfigError
from hand_tracking_ros.training.networks import input_hw
from hand_tracking_ros.training.networks.blocks import Residual
from hand_tracking_ros.training.networks.scaling import PIXEL_MULTIPLE, Scaling, not_default
from hand_tracking_ros.training.search.judge import Candidate, Judge
from hand_tracking_ros.training.search.measure import median_ms, network_run
from hand_tracking_ros.training.search.places import names, with_names
from hand_tracking_ros.training.slimming import pruned
from hand_tracking_ros.training.weights import initialise, load_checkpoint

SHARES = tuple(k / 20 for k in range(1, 20))  # of the channels inside of blocks that may go in one step
LEAST_STEP = 0.97  # of its parent's time is the most that a network may take
SKIP = "fbnet_skip"  # what is left of a block that goes


@dataclass(frozen=True)
class NetAdapt:
    """Starts from the network of ``init`` (a checkpoint, or a model's name) and ends with the first one that meets the
    target. A step is as large as that to an image whose shorter side has ``step_px`` less, unless the target is nearer.
    """

    init: str
    step_px: int = PIXEL_MULTIPLE

    def __post_init__(self):
        """Raises ConfigError for steps that images cannot make."""
        if self.step_px < PIXEL_MULTIPLE or self.step_px % PIXEL_MULTIPLE:
            raise ConfigError(f"a step must be a multiple of {PIXEL_MULTIPLE} px, got {self.step_px}")

    def search(self, judge: Judge) -> Candidate:
        """The network that meets the target. Raises ConfigError when nothing is left to take away."""
        history = judge.history()
        best = history[0] if history else judge.start(self.init)
        clock = _Clock(judge, best)
        while best.latency_ms > judge.reward.target_ms:
            best = self._step(judge, best, clock)
        return best

    def _step(self, judge: Judge, parent: Candidate, clock: _Clock) -> Candidate:
        network = load_checkpoint(judge.recipe.task, judge.checkpoint(judge.config(parent)))
        small = coarser(network, self.step_px)
        least_ms = 0.0 if small is None else clock(small.config)
        most_ms = max(judge.reward.target_ms, min(least_ms, LEAST_STEP * parent.latency_ms))
        steps = [_least(many, most_ms, clock) for many in (_narrower(network), _shallower(network))]
        proposals = [new for new in (*steps, small) if new is not None and clock(new.config) <= most_ms]
        if not proposals:
            raise ConfigError(
                f"nothing is left to take away at {parent.latency_ms} ms, the target is {judge.reward.target_ms} ms: "
                "start from a faster network"
            )
        tried = [judge.train_on(proposal, clock(proposal.config)) for proposal in proposals]
        return max(tried, key=lambda candidate: candidate.accuracy)


class _Clock:
    """Milliseconds of networks, measured in turns with the first one, so that a busy moment slows both alike.

    What was measured once is kept in the run, ``latencies.jsonl``: an interrupted search goes on as it would have.
    """

    def __init__(self, judge: Judge, first: Candidate):
        self._judge, self._first_ms = judge, first.measured_ms
        self._log = judge.run / "latencies.jsonl"
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        self._known = {
            judge.config(seen): seen.measured_ms for seen in (Candidate(**json.loads(line)) for line in lines)
        }
        self._run = network_run(judge.recipe.task, judge.config(first), judge.inference)

    def __call__(self, config: Scaling) -> float:
        if config not in self._known:
            runs = {"first": self._run, "own": network_run(self._judge.recipe.task, config, self._judge.inference)}
            found = median_ms(runs, self._judge.rounds, self._judge.inference.backend)
            self._known[config] = round(self._first_ms * found["own"] / found["first"], 4)
            with self._log.open("a") as lines:
                seen = Candidate(not_default(config), None, self._known[config])
                lines.write(json.dumps(dataclasses.asdict(seen)) + "\n")
        return self._known[config]


def _least(networks: list[Callable[[], nn.Module]], most_ms: float, clock: _Clock) -> nn.Module | None:
    """Of networks that lose more and more, the first that takes at most ``most_ms``, by bisection; None: none does."""
    low, high = -1, len(networks)
    found: dict[int, nn.Module] = {}
    while high - low > 1:
        middle = (low + high) // 2
        found[middle] = networks[middle]()
        low, high = (low, middle) if clock(found[middle].config) <= most_ms else (middle, high)
    return found.get(high)


def coarser(network: nn.Module, less_px: int = PIXEL_MULTIPLE) -> nn.Module | None:
    """The network for images whose shorter side has so much less, with its weights; None when that were no image."""
    config, side = network.config, min(input_hw(network)) - less_px
    if side < PIXEL_MULTIPLE:
        return None
    full = config.full_size if isinstance(config.full_size, int) else min(config.full_size)
    smaller = type(network)(dataclasses.replace(config, resolution=round(side / full, 4)))
    initialise(smaller, network.state_dict())
    return smaller


def _narrower(network: nn.Module) -> list[Callable[[], nn.Module]]:
    if not any(isinstance(layer, Residual) for layer in network.places()):
        return []
    return [lambda share=share: pruned(network, share) for share in SHARES]


def _shallower(network: nn.Module) -> list[Callable[[], nn.Module]]:
    order = _by_weight(network)
    return [lambda count=count: without(network, order[:count]) for count in range(1, len(order) + 1)]


def _by_weight(network: nn.Module) -> list[int]:
    """Places of the residual blocks, which pass on what they get; those that add least to it first."""
    sizes = {
        place: float(layer.body[1][1].weight.detach().abs().mean())
        for place, layer in enumerate(network.places()[: sum(network.config.stages)])
        if isinstance(layer, Residual)
    }
    return sorted(sizes, key=sizes.get)


@torch.no_grad()
def without(network: nn.Module, gone: Iterable[int]) -> nn.Module:
    """The network without the blocks at these places, with its weights for the rest."""
    chosen = names(network.config)
    for place in gone:
        chosen[place] = SKIP
    smaller = type(network)(with_names(network.config, chosen))
    left = set(smaller.state_dict())
    smaller.load_state_dict({key: value for key, value in network.state_dict().items() if key in left})
    return smaller
