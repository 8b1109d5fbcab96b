"""The networks by the name of their task, and the way from a checkpoint back to its network."""

from __future__ import annotations

from torch import nn

from hand_tracking_ros.training.networks.detnet import DetNet, DetNetConfig, DetNetRuntime
from hand_tracking_ros.training.networks.keynet import KeyNet, KeyNetConfig, KeyNetFRuntime, KeyNetRuntime

NETWORKS = {"keynet": KeyNet, "detnet": DetNet}
CONFIGS = {"keynet": KeyNetConfig, "detnet": DetNetConfig}


def config_of(task: str, checkpoint: dict) -> KeyNetConfig | DetNetConfig:
    """The configuration of the network in a checkpoint of train.py; one that states none is of the default."""
    return CONFIGS[task](**checkpoint.get("config", {}))


def from_checkpoint(task: str, checkpoint: dict) -> nn.Module:
    """The network of a checkpoint, with its averaged weights. Raises RuntimeError where these do not fit."""
    network = NETWORKS[task](config_of(task, checkpoint))
    network.load_state_dict(checkpoint["average"])
    return network


def input_hw(network: KeyNet | DetNet) -> tuple[int, int]:
    """Rows and columns of the image that a network takes."""
    size = network.config.size
    return (size, size) if isinstance(size, int) else (size[1], size[0])


def runtime_of(network: KeyNet | DetNet) -> nn.Module:
    """The module that is exported, in eval mode: decoding around the network, names in ``inputs`` and ``outputs``."""
    if isinstance(network, DetNet):
        return DetNetRuntime(network).eval()
    return (KeyNetFRuntime if network.config.temporal else KeyNetRuntime)(network).eval()
