"""Network slimming (Liu et al., ICCV 2017): train with small norm weights, drop the channels with the smallest.

Only the channels between the two convolutions of a residual block are dropped: no identity holds on to them. What is
left is an ordinary network, whose ``block`` names how wide each block is inside: 'residual:40'.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hand_tracking_ros.errors import ConfigError
from hand_tracking_ros.training.networks.blocks import Residual
from hand_tracking_ros.training.networks.scaling import CHANNEL_MULTIPLE
from hand_tracking_ros.training.search.places import names, with_names


def inner_norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    """The norms between the convolutions of the residual blocks, in the order of the places."""
    return [layer.body[0][1] for layer in network.places() if isinstance(layer, Residual)]


def penalty(network: nn.Module) -> Tensor:
    """Sum of the absolute norm weights that may fall away (equation 1). Raises ConfigError where there are none."""
    norms = inner_norms(network)
    if not norms:
        raise ConfigError("loss: slim needs residual blocks, this network has none")
    return sum(norm.weight.abs().sum() for norm in norms)


def kept_channels(network: nn.Module, share: float) -> list[Tensor]:
    """Indices of the channels that stay in each residual block when the ``share`` with the least weights goes.

    One threshold for the whole network (section 3); of each block the nearest multiple of 8, at least 8. Raises
    ConfigError when the share is not in 0..1, or where there are no residual blocks.
    """
    if not 0 <= share < 1:
        raise ConfigError(f"the share of channels to drop must be 0 or more and less than 1, got {share}")
    weights = [norm.weight.detach().abs() for norm in inner_norms(network)]
    if not weights:
        raise ConfigError("only residual blocks can be pruned, this network has none")
    together = torch.cat(weights).sort().values
    threshold = together[int(share * len(together))]
    kept = []
    for weight in weights:
        count = round(int((weight >= threshold).sum()) / CHANNEL_MULTIPLE) * CHANNEL_MULTIPLE
        count = min(len(weight), max(CHANNEL_MULTIPLE, count))
        kept.append(weight.topk(count).indices.sort().values)
    return kept


@torch.no_grad()
def pruned(network: nn.Module, share: float) -> nn.Module:
    """An ordinary network without those channels, to be fine-tuned; the given one stays as it is."""
    kept = iter(kept_channels(network, share))
    chosen = names(network.config)
    state = dict(network.state_dict())
    paths = {layer: path for path, layer in network.named_modules()}
    for place, layer in enumerate(network.places()):
        if isinstance(layer, Residual):
            channels, path = next(kept), paths[layer]
            for key in [key for key in state if key.startswith(f"{path}.body.0.") and state[key].ndim]:
                state[key] = state[key][channels]
            state[f"{path}.body.1.0.weight"] = state[f"{path}.body.1.0.weight"][:, channels]
            full = len(channels) == layer.body[1][0].out_channels
            chosen[place] = "residual" if full else f"residual:{len(channels)}"
    slim = type(network)(with_names(network.config, chosen))
    slim.load_state_dict(state)
    return slim.train(network.training)
