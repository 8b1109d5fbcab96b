"""Measured latency of networks and of parts of them, as exported graphs in a backend.

A latency is the median over rounds. Each round runs everything once, after one run that is not timed, so that a busy
moment of the machine hits all alike. It is CPU time for backends on the CPU, elapsed time for those on a GPU.
"""

from __future__ import annotations

import math
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from hand_tracking_ros.backends import ON_GPU, backend_status, create_backend
from hand_tracking_ros.config import InferenceConfig
from hand_tracking_ros.machine import this_machine
from hand_tracking_ros.manifest import ModelManifest, load_manifest, write_manifest
from hand_tracking_ros.training.export import OPSET, example_of, export
from hand_tracking_ros.training.networks import NETWORKS, input_hw, runtime_of
from hand_tracking_ros.training.networks.scaling import Scaling
from hand_tracking_ros.training.networks.zoo import block, finalise, set_progress
from hand_tracking_ros.training.quantise import quantise
from hand_tracking_ros.training.search.places import Place

CALIBRATED = 4  # random images that give an int8 network its ranges, which cost no time
Run = Callable[[], object]
KEY = TypeVar("KEY")
UNTRAINED = {
    "preprocessing": "none", "keypoint_order": "none", "architecture": {}, "precision": "fp32", "licence": "none",
    "training": {"data": [], "command": "", "seed": 0, "hours": 0.0, "notes": ""}, "accuracy": {},
}  # fmt: skip


def machine() -> dict[str, object]:
    """What latencies are measured on."""
    return {
        **this_machine(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def settled(module: nn.Module, *shape: int) -> nn.Module:
    """A module with random weights in its final form, whose norms pass a signal on as trained ones do.

    ``shape``: channels, rows and columns of its input.
    """
    set_progress(module.train(), 1.0)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0
    with torch.no_grad():
        module(torch.randn(2, *shape))
    return finalise(module.eval())


def settled_network(task: str, config: Scaling) -> nn.Module:
    """A network with random weights; they cost what trained ones cost."""
    network = NETWORKS[task](config)
    return settled(network, 1, *input_hw(network))


def export_network(task: str, network: nn.Module, folder: Path, name: str) -> ModelManifest:
    """A whole network as it is shipped, decoding included; its weights may be random."""
    return load_manifest(export(task, network, folder, name, UNTRAINED, tolerance=math.inf).with_suffix(".yaml"))


def export_block(name: str, place: Place, folder: Path) -> ModelManifest:
    """One block at one place, alone; '' for a graph that does nothing: what a call costs."""
    shape = (place.inputs, place.rows, place.columns)
    layer = block(name, place.inputs, place.outputs, place.stride) if name else nn.Identity()
    return _export(settled(nn.Sequential(layer), *shape), {"x": torch.randn(1, *shape)}, folder, name or "empty")


def export_rest(task: str, config: Scaling, folder: Path) -> ModelManifest:
    """All of a network but its blocks: their outputs are inputs here, and what would go into them comes out."""
    network = settled_network(task, config)
    rest = _Rest(network)
    feeds = example_of(task, network)
    feeds = {name: value[:1] for name, value in feeds.items()}
    return _export(rest, feeds | rest.outputs_of_blocks(feeds), folder, "rest")


class _Given(nn.Module):
    """Stands for a block: notes what goes in, answers what it was given."""

    def __init__(self):
        super().__init__()
        self.input = self.output = None

    def forward(self, x: Tensor) -> Tensor:
        self.input = x
        return self.output


class _Rest(nn.Module):
    def __init__(self, network: nn.Module):
        super().__init__()
        self.runtime = runtime_of(network)
        self.blocks = network.places()
        self.given = [_Given() for _ in self.blocks]

    def outputs_of_blocks(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the blocks answer, by names for inputs; from here on they are given."""
        outputs: list[Tensor] = []
        hooks = [layer.register_forward_hook(lambda *seen: outputs.append(seen[2])) for layer in self.blocks]
        with torch.no_grad():
            self.runtime(*feeds.values())
        for hook in hooks:
            hook.remove()
        stand_ins = dict(zip(self.blocks, self.given))
        for parent in list(self.runtime.modules()):
            for name, layer in list(parent.named_children()):
                setattr(parent, name, stand_ins.get(layer, layer))
        return {f"block_{index}": output for index, output in enumerate(outputs)}

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        own, values = tensors[: -len(self.given)], tensors[-len(self.given) :]
        for given, value in zip(self.given, values):
            given.output = value
        outputs = self.runtime(*own)
        between = [given.input for given in self.given]
        return (*outputs, *(x for x in between if not any(x is value for value in values)))


def _export(module: nn.Module, feeds: Mapping[str, Tensor], folder: Path, name: str) -> ModelManifest:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name.replace(':', '_')}.onnx"
    with torch.no_grad():
        results = module(*feeds.values())
    results = results if isinstance(results, tuple) else (results,)
    outputs = {f"y{index}": value for index, value in enumerate(results)}
    torch.onnx.export(
        module, tuple(feeds.values()), str(path), input_names=list(feeds), output_names=list(outputs),
        opset_version=OPSET, dynamo=False, do_constant_folding=True,
    )  # fmt: skip
    used = {tensor.name for tensor in onnx.load(path).graph.input}  # what nothing reads is left out
    inputs = {key: value for key, value in feeds.items() if key in used}

    def specs(tensors: Mapping[str, Tensor]) -> dict[str, dict]:
        return {key: {"dtype": str(t.numpy().dtype), "shape": list(t.shape)} for key, t in tensors.items()}

    return write_manifest(
        path.with_suffix(".yaml"), name=name, file=path.name, task="keypoints", inputs=specs(inputs),
        outputs=specs(outputs), opset=OPSET, max_batch=1, **UNTRAINED,
    )  # fmt: skip


def loaded(manifest: ModelManifest, inference: InferenceConfig) -> Run:
    """One image through a model. Raises BackendError where the backend cannot run."""
    feeds = _random_image(manifest, np.random.default_rng(0))
    backend = create_backend(manifest, inference, 1)
    return lambda: backend.run(feeds)


def _random_image(manifest: ModelManifest, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """What a model takes, a batch of one."""
    feeds = {}
    for name, spec in manifest.inputs.items():
        shape = [1 if isinstance(size, str) else size for size in spec.shape]
        values = rng.integers(0, 256, shape) if spec.dtype == "uint8" else rng.standard_normal(shape)
        feeds[name] = values.astype(spec.dtype)
    return feeds


def median_ms(runs: Mapping[KEY, Run], rounds: int, backend: str) -> dict[KEY, float]:
    """Median milliseconds of each of ``runs``."""
    clock = clock_of(backend)[1]
    times = {key: np.empty(rounds) for key in runs}
    for k in range(rounds):
        for key, run in runs.items():
            run()  # brings its weights back into the caches
            start = clock()
            run()
            times[key][k] = clock() - start
    return {key: 1e3 * float(np.median(values)) for key, values in times.items()}


def clock_of(backend: str) -> tuple[str, Callable[[], float]]:
    """Name and function of the clock: a GPU's work is not CPU time."""
    return ("elapsed", time.perf_counter) if backend in ON_GPU else ("cpu", time.process_time)


def network_run(task: str, config: Scaling, inference: InferenceConfig) -> Run:
    """One image through a whole network with random weights, which cost what trained ones cost; in int8, too."""
    with tempfile.TemporaryDirectory() as folder:
        manifest = export_network(task, settled_network(task, config), Path(folder), "network")
        if inference.precision == "int8":
            rng = np.random.default_rng(0)
            manifest = quantise(manifest, [_random_image(manifest, rng) for _ in range(CALIBRATED)])
        return loaded(manifest, inference)


def network_ms(task: str, configs: Iterable[Scaling], inference: InferenceConfig, rounds: int) -> list[float]:
    """Median milliseconds of whole networks, measured together."""
    runs = {index: network_run(task, config, inference) for index, config in enumerate(configs)}
    return list(median_ms(runs, rounds, inference.backend).values())


def device(inference: InferenceConfig) -> dict[str, object]:
    """Machine, backend, version, precision, threads and clock, as tables state them."""
    status = backend_status(inference.backend)
    return {
        "machine": machine(),
        "backend": inference.backend,
        "version": status.version,
        "precision": inference.precision,
        "threads": inference.threads,
        "clock": clock_of(inference.backend)[0],
    }
