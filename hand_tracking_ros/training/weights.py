"""Weights to start from: a checkpoint, or a shipped ONNX model."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hand_tracking_ros.errors import ModelError
from hand_tracking_ros.manifest import find_manifest, load_manifest
from hand_tracking_ros.skeleton import NUM_JOINTS
from hand_tracking_ros.training.networks import CONFIGS, from_checkpoint, input_hw
from hand_tracking_ros.training.networks.blocks import Residual
from hand_tracking_ros.training.networks.keynet import MAP_CHANNELS

CHECKPOINT_WANTED = "give the checkpoint.pt of a 'hand-tracking train'"


def start_from(network: nn.Module, source: str) -> str:
    """Load the weights that ``source`` names: a checkpoint or state dict (.pt), or a model (name or manifest .yaml).

    Returns what was taken, in words. Raises ModelError when they cannot be read or do not fit the network.
    """
    if source.endswith(".pt"):
        taken = initialise(network, read_checkpoint(source))
        return f"{taken} tensors of {source}"
    manifest = load_manifest(find_manifest(source))
    manifest.verify()
    return f"{load_onnx(network, manifest.file)} convolutions of {manifest.file}"


def options_of_model(task: str, source: str) -> dict[str, object]:
    """Fields of KeyNetConfig or DetNetConfig in which the network of a model (name or manifest) is not the default."""
    architecture = load_manifest(find_manifest(source)).architecture
    return {field.name: architecture[field.name] for field in fields(CONFIGS[task]) if field.name in architecture}


def read_checkpoint(path: str | Path, *parts: str, device: str = "cpu") -> dict[str, Any]:
    """What lies in a checkpoint or state dict (.pt), these ``parts`` at least. Raises ModelError."""
    try:
        checkpoint = torch.load(path, map_location=device)
    except Exception as error:  # a file that is no pickle raises whatever its bytes happen to mean
        what = error.strerror if isinstance(error, OSError) else "no weights of PyTorch"
        raise ModelError(f"cannot read {path}: {what}; {CHECKPOINT_WANTED}") from error
    if not isinstance(checkpoint, dict) or not checkpoint.keys() >= set(parts):
        raise ModelError(f"{path} is no checkpoint of a training; {CHECKPOINT_WANTED}")
    return checkpoint


def load_checkpoint(task: str, path: str | Path) -> nn.Module:
    """The network of a training's checkpoint, with its averaged weights. Raises ModelError when it is none."""
    checkpoint = read_checkpoint(path, "average")
    try:
        return from_checkpoint(task, checkpoint)
    except (AttributeError, RuntimeError, TypeError) as error:
        raise ModelError(f"{path} is no checkpoint of a {task} training; {CHECKPOINT_WANTED}") from error


def initialise(network: nn.Module, weights: dict[str, Tensor]) -> int:
    """Copy the tensors of ``weights``, paired in the order of the layers; returns how many were taken.

    Accepts a checkpoint of train.py (its averaged weights) or a plain state dict of a network with the same layout,
    whatever its layers are called; a network that has more layers starts as good as the one without. Layers that see
    the whole map at once are resampled for another resolution. Raises ModelError when the layout differs.
    """
    weights = weights.get("average", weights)
    own = network.state_dict()
    if set(weights) < set(own):  # a KeyNet for a KeyNet-F, or for a deeper one
        network.load_state_dict(weights, strict=False)
        for name, module in network.named_modules():
            if isinstance(module, Residual) and not any(key.startswith(f"{name}.") for key in weights):
                nn.init.zeros_(module.body[1][1].weight)  # passes on what it gets, until it has learned
        return len(weights)
    if len(own) != len(weights):
        raise ModelError(f"the weights to start from have {len(weights)} tensors, the network has {len(own)}")
    values = [_resampled(value, mine) for mine, value in zip(own.values(), weights.values())]
    for (key, mine), value in zip(own.items(), values):
        if mine.shape != value.shape:
            raise ModelError(
                f"the weights to start from do not fit: {key} has shape {tuple(mine.shape)} in the network and "
                f"{tuple(value.shape)} there; the recipe's 'network' (width, depth, ...) must be that of their training"
            )
    network.load_state_dict(dict(zip(own, values)))
    return len(own)


def _resampled(value: Tensor, like: Tensor) -> Tensor:
    """The weights of a layer that sees a whole square map of MAP_CHANNELS channels, for a map of another size."""
    if value.ndim != 2 or like.ndim != 2 or value.shape == like.shape or len(value) != len(like):
        return value
    cells, wanted = value.shape[1] // MAP_CHANNELS, like.shape[1] // MAP_CHANNELS
    side, size = math.isqrt(cells), math.isqrt(wanted)
    if side * side * MAP_CHANNELS != value.shape[1] or size * size * MAP_CHANNELS != like.shape[1]:
        return value
    maps = value.reshape(len(value), MAP_CHANNELS, side, side)
    maps = torch.nn.functional.interpolate(maps, size=(size, size), mode="bilinear", align_corners=False)
    return maps.flatten(1) * (cells / wanted)  # the sum over the map stays


def load_onnx(network: nn.Module, path: Path) -> int:
    """Copy the weights of an exported network back; returns the number of convolutions.

    The export has folded each batch norm into its convolution, so the norms become plain offsets: go on training with
    frozen norms, or after ``measure_norms``. Raises ModelError when the layers differ.
    """
    import onnx
    from onnx import numpy_helper

    model = onnx.load(path)
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm")]
    layers = _layers(network, any(tensor.name == "prior" for tensor in model.graph.input))
    own_verdict = sum(isinstance(m, (nn.Conv2d, nn.Linear)) for m in getattr(network, "verdict", nn.Module()).modules())
    if len(nodes) == len(layers) - own_verdict:
        layers = layers[: len(nodes)]  # the verdict of a KeyNet runs last, and says nothing until it has learned
    if len(nodes) != len(layers):
        raise ModelError(
            f"{path} has {len(nodes)} layers with weights, the network has {len(layers)}: the recipe's "
            "'network' must state what the model's manifest says under 'architecture' (verdict, width, resolution, ...)"
        )
    with torch.no_grad():
        for node, (layer, norm) in zip(nodes, layers):
            offset = layer.bias if norm is None else norm.bias
            if any(name not in values for name in node.input[1:]) or (offset is None and len(node.input) > 2):
                raise ModelError(f"{path}: the weights of '{node.name}' cannot be taken back; start from a checkpoint")
            weight = values[node.input[1]]
            bias = values[node.input[2]] if len(node.input) > 2 else np.zeros(len(weight), np.float32)
            if weight.shape != tuple(layer.weight.shape):
                raise ModelError(f"{path}: weights of shape {weight.shape} do not fit {tuple(layer.weight.shape)}")
            layer.weight.copy_(torch.from_numpy(weight.copy()))
            if offset is not None:
                offset.copy_(torch.from_numpy(bias.copy()))
            if norm is not None:
                norm.weight.fill_(1.0)
                norm.running_mean.zero_()
                norm.running_var.fill_(1.0 - norm.eps)
    return len(nodes)


@torch.no_grad()
def measure_norms(network: nn.Module, run: Callable[[], object], batches: int = 8) -> int:
    """Give the batch norms the statistics of what they really see; returns how many there are.

    ``run()`` sends one batch through the network. The network's function stays: weights and offsets make up for it. For
    weights from an ONNX file, whose norms are plain offsets, so that training can go on with norms that learn.
    """
    sums: dict[nn.BatchNorm2d, list[Tensor]] = {}
    counts: dict[nn.BatchNorm2d, int] = {}

    def note(norm: nn.BatchNorm2d, inputs: tuple[Tensor]) -> None:
        x = inputs[0].double()
        seen = [x.mean(dim=(0, 2, 3)), (x * x).mean(dim=(0, 2, 3))]
        sums[norm] = [a + b for a, b in zip(sums[norm], seen)] if norm in sums else seen
        counts[norm] = counts.get(norm, 0) + 1  # a KeyNet-F that is told its own answers runs twice

    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(note) for norm in norms]
    was_training = network.training
    try:
        network.eval()
        for _ in range(batches):
            run()
    finally:
        network.train(was_training)
        for hook in hooks:
            hook.remove()
    for norm, (total, squares) in sums.items():
        mean = total / counts[norm]
        variance = (squares / counts[norm] - mean**2).clamp(min=1e-6)
        slope = norm.weight / (norm.running_var + norm.eps).sqrt()
        offset = norm.bias - norm.running_mean * slope
        norm.bias.copy_(offset + mean * slope)
        norm.weight.copy_(slope * (variance + norm.eps).sqrt())
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
    return len(sums)


def _layers(network: nn.Module, with_prior: bool = False) -> list[tuple[nn.Module, nn.BatchNorm2d | None]]:
    """Convolutions and linear layers in the order in which they run, each with the batch norm that follows.

    ``with_prior``: with what a KeyNet-F adds to a KeyNet.
    """
    order: list[list] = []

    def note(layer: nn.Module, *_) -> None:
        if isinstance(layer, nn.BatchNorm2d):
            order[-1][1] = layer
        else:
            order.append([layer, None])

    kinds = (nn.Conv2d, nn.Linear, nn.BatchNorm2d)
    hooks = [module.register_forward_hook(note) for module in network.modules() if isinstance(module, kinds)]
    was_training = network.training
    try:
        with torch.no_grad():
            height, width = input_hw(network)
            images = [torch.zeros(1, 1, height, width)]
            if with_prior:
                images.append(torch.zeros(1, NUM_JOINTS, height // 4, width // 4))
            device = next(network.parameters()).device
            network.eval()(*(image.to(device) for image in images))
    finally:
        network.train(was_training)
        for hook in hooks:
            hook.remove()
    return [tuple(pair) for pair in order]
