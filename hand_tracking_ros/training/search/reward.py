"""What a search maximises: accuracy, and nearness to a latency (MnasNet, Tan et al., CVPR 2019, equations 2 and 3)."""

from __future__ import annotations

from dataclasses import dataclass

from hand_tracking_ros.errors import ConfigError

CONSTRAINTS = {"soft": (-0.07, -0.07), "hard": (0.0, -1.0)}  # exponents below and above the target, section 3.1


@dataclass(frozen=True)
class Reward:
    """accuracy x (latency / target) ** w. ``constraint`` 'soft': 5 % of accuracy for twice the speed, on both sides
    of the target; 'hard': nothing below it, and above it as much less as it is over. Raises ConfigError."""

    target_ms: float
    constraint: str = "soft"

    def __post_init__(self) -> None:
        if not self.target_ms > 0:
            raise ConfigError(f"the target must be more than 0 ms, got {self.target_ms}")
        if self.constraint not in CONSTRAINTS:
            raise ConfigError(f"constraint must be one of {', '.join(CONSTRAINTS)}; got '{self.constraint}'")

    def __call__(self, accuracy: float, latency_ms: float) -> float:
        """``accuracy`` 0..1."""
        below, above = CONSTRAINTS[self.constraint]
        share = latency_ms / self.target_ms
        return accuracy * share ** (below if share <= 1 else above)
