"""What both networks' configurations share: the block they are built from, and how wide, deep and fine they are."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, TypeVar

from hand_tracking_ros.errors import ConfigError

CHANNEL_MULTIPLE = 8  # every width is one: whole vectors for the CPU, and every block's groups and branches divide it
PIXEL_MULTIPLE = 16  # the networks halve their input four times
ANY = TypeVar("ANY", bound="Scaling")


@dataclass(frozen=True)
class Scaling:
    """A block of the zoo and EfficientNet's three multipliers (Tan and Le, ICML 2019).

    ``block``: a name in ``zoo.BLOCKS``, or one per block, comma-separated, first to last: how a searched network is
    written down. ``neck``: the same for the two merges of the pyramid; empty takes ``block``, and one 3x3 convolution
    each for the default residual network.
    """

    block: str = "residual"
    neck: str = ""
    width: float = 1.0
    depth: float = 1.0
    resolution: float = 1.0

    def __post_init__(self):
        """Raises ConfigError for a network of no size."""
        for name in ("width", "depth", "resolution"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name} of a network must be above 0, got {getattr(self, name)}")

    def channels(self, base: int) -> int:
        """``base`` channels times ``width``: the nearest multiple of 8, but never over 10 % fewer than asked for."""
        wanted = base * self.width
        rounded = max(CHANNEL_MULTIPLE, int(wanted / CHANNEL_MULTIPLE + 0.5) * CHANNEL_MULTIPLE)
        return rounded if rounded >= 0.9 * wanted else rounded + CHANNEL_MULTIPLE

    def repeats(self, base: int) -> int:
        """Blocks in a stage that has ``base`` at depth 1; at least the one that strides."""
        return max(1, math.ceil(base * self.depth - 1e-9))

    def pixels(self, base: int) -> int:
        """``base`` input pixels times ``resolution``, the nearest multiple of 16."""
        return max(PIXEL_MULTIPLE, round(base * self.resolution / PIXEL_MULTIPLE) * PIXEL_MULTIPLE)

    def block_names(self, count: int) -> list[str]:
        """The block at each of ``count`` places of the body."""
        return _one_each(self.block, count, "block")

    def neck_names(self, count: int) -> list[str]:
        """The block at each of ``count`` merges; a body of mixed blocks needs ``neck`` said, or gets convolutions."""
        same = "conv" if self.block == "residual" or "," in self.block else self.block
        return _one_each(self.neck or same, count, "neck")


def compound(config: ANY, phi: float, depth: float = 1.2, width: float = 1.1, resolution: float = 1.15) -> ANY:
    """The configuration with 2**phi times the cost, split as EfficientNet found best (its alpha, beta, gamma)."""
    return dataclasses.replace(
        config,
        depth=config.depth * depth**phi,
        width=config.width * width**phi,
        resolution=config.resolution * resolution**phi,
    )


def not_default(config: Scaling) -> dict[str, Any]:
    """The fields of a configuration that a recipe has to state, and a manifest does."""
    fields = dataclasses.fields(config)
    return {f.name: getattr(config, f.name) for f in fields if getattr(config, f.name) != f.default}


def _one_each(names: str, count: int, field: str) -> list[str]:
    chosen = names.split(",")
    if len(chosen) == 1:
        return chosen * count
    if len(chosen) != count:
        raise ConfigError(f"{field} names {len(chosen)} blocks, the network has {count} places: give one, or {count}")
    return chosen
