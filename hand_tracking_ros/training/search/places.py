"""Where a network has blocks, and what shape each of them must have."""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import torch

from hand_tracking_ros.errors import ConfigError
from hand_tracking_ros.training.networks import NETWORKS, input_hw
from hand_tracking_ros.training.networks.scaling import Scaling
from hand_tracking_ros.training.networks.zoo import block


class Place(NamedTuple):
    """A block's channels in and out, its stride, and rows and columns of its input."""

    inputs: int
    outputs: int
    stride: int
    rows: int
    columns: int

    def __str__(self) -> str:
        return f"{self.inputs} to {self.outputs}, stride {self.stride}, {self.rows}x{self.columns}"

    def takes(self, name: str) -> bool:
        """Whether the block can be here: a skip, or a narrowed residual, cannot where the shape changes."""
        try:
            with torch.device("meta"):
                block(name, self.inputs, self.outputs, self.stride)
        except ConfigError:
            return False
        return True


def places(task: str, config: Scaling) -> list[Place]:
    """The places of a network in the order of ``block`` and then ``neck``; no matter which blocks are there now."""
    return list(_places(task, dataclasses.replace(config, block="conv", neck="conv")))


@functools.lru_cache(maxsize=256)
@torch.no_grad()
def _places(task: str, config: Scaling) -> tuple[Place, ...]:
    network = NETWORKS[task](config).eval()
    found: list[Place] = []

    def note(_, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        (_, channels, rows, columns), stride = inputs[0].shape, -(-inputs[0].shape[2] // output.shape[2])
        found.append(Place(channels, output.shape[1], stride, rows, columns))

    for layer in network.places():
        layer.register_forward_hook(note)
    network(torch.zeros(1, 1, *input_hw(network)))
    return tuple(found)


def names(config: Scaling) -> list[str]:
    """The block at each place: body, then neck."""
    return [*config.block_names(sum(config.stages)), *config.neck_names(2)]


def with_names(config: Scaling, chosen: list[str]) -> Scaling:
    """The configuration with these blocks at its places, as ``names`` gives them."""
    return dataclasses.replace(config, block=",".join(chosen[:-2]), neck=",".join(chosen[-2:]))
