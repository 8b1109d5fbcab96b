"""Compound scaling: wider, deeper and finer together (EfficientNet, Tan and Le, ICML 2019, section 3.3)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from hand_tracking_ros.errors import ConfigError
from hand_tracking_ros.training.networks import scaling
from hand_tracking_ros.training.networks.scaling import Scaling
from hand_tracking_ros.training.search.judge import Candidate, Judge

STEPS_PER_PHI = 4
MOST_PHI = 6  # a cost of 1/64 to 64 times


@dataclass(frozen=True)
class Compound:
    """Finds the largest phi that meets the target by bisection, measuring whole networks: sizes go up in steps of 8
    channels, whole blocks and 16 px, which no table of one width holds. Then trains that network."""

    def search(self, judge: Judge) -> Candidate:
        """The scaled network. Raises ConfigError where it cannot be measured, or where none is fast enough."""
        if not judge.table.is_of_this_machine():
            raise ConfigError("compound scaling measures whole networks: run it on the machine of the latency table")
        if "," in judge.base.block:
            raise ConfigError("compound scaling changes the number of blocks: give a recipe with one block for all")
        done = [candidate for candidate in judge.history() if candidate.reward is not None]
        if done:
            return done[-1]
        known = {judge.config(c): c.measured_ms for c in judge.history()}
        target_ms = judge.reward.target_ms

        def fits(step: int) -> bool:
            config = scaled(judge.base, step)
            if config not in known:
                known[config] = judge.note(config).measured_ms
            return known[config] <= target_ms

        low, high = -MOST_PHI * STEPS_PER_PHI, MOST_PHI * STEPS_PER_PHI + 1
        if not fits(low):
            raise ConfigError(
                f"even at 1/{2**MOST_PHI} of its cost the network takes {known[scaled(judge.base, low)]} ms, "
                f"the target is {target_ms} ms: start from a faster --block"
            )
        while high - low > 1:  # low fits; high does not, or is beyond the range
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle) else (low, middle)
        config = scaled(judge.base, low)
        return judge.note(config, judge.train(config), known[config])


def scaled(base: Scaling, step: int) -> Scaling:
    """``base`` at phi = step / STEPS_PER_PHI, multipliers to three digits."""
    config = scaling.compound(base, step / STEPS_PER_PHI)
    return dataclasses.replace(
        config, **{name: round(getattr(config, name), 3) for name in ("width", "depth", "resolution")}
    )
