"""Export a trained network to ONNX with its manifest.

    python -m hand_tracking_ros.training.export keynet --run runs/keynet --output models --card card.yaml

``card``: a YAML with training, accuracy and licence, copied into the manifest; fine-tuning on own images writes one
into its run. The exported graph takes uint8 and holds normalisation and decoding; its outputs are compared with torch
before anything is written.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from hand_tracking_ros.commands import command
from hand_tracking_ros.manifest import write_manifest
from hand_tracking_ros.skeleton import NUM_JOINTS
from hand_tracking_ros.training.card import CARD, read_card
from hand_tracking_ros.training.networks import input_hw, runtime_of
from hand_tracking_ros.training.networks.blocks import count_macs, count_parameters
from hand_tracking_ros.training.networks.scaling import not_default
from hand_tracking_ros.training.networks.zoo import finalise
from hand_tracking_ros.training.weights import load_checkpoint

OPSET = 17
TASK_NAMES = {"keynet": "keypoints", "detnet": "detect"}  # in manifests
MAX_BATCH = 16
TOLERANCE = 2e-3  # largest difference between torch and ONNX Runtime, in the units of the outputs
BACKGROUND = 0.05  # scores below it are no hands


def example_of(task: str, network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """An example of every input: a batch of two where the batch is free."""
    if task == "detnet":
        width, height = network.config.size
        return {"image": torch.randint(0, 256, (1, 1, height, width), dtype=torch.uint8)}
    size = network.config.size
    example = {"crop": torch.randint(0, 256, (2, 1, size, size), dtype=torch.uint8)}
    if network.config.temporal:
        example |= {"prior": size * torch.rand(2, NUM_JOINTS, 2), "prior_scores": torch.rand(2, NUM_JOINTS)}
    return example


def export(
    task: str, network: torch.nn.Module, output: Path, name: str, card: dict, tolerance: float = TOLERANCE
) -> Path:
    """Write ``name``.onnx and ``name``.yaml into ``output``; raises RuntimeError when ONNX and torch disagree.

    ``tolerance``: of their outputs; infinite for random weights, which blow rounding errors up in deep networks.
    """
    runtime, example = runtime_of(network), example_of(task, network)
    dynamic = task == "keynet"
    path = output / f"{name}.onnx"
    axes = {key: {0: "N"} for key in [*runtime.inputs, *runtime.outputs]} if dynamic else None
    torch.onnx.export(
        runtime, tuple(example.values()), str(path), input_names=list(runtime.inputs),
        output_names=list(runtime.outputs), dynamic_axes=axes, opset_version=OPSET, dynamo=False,
        do_constant_folding=True,
    )  # fmt: skip
    outputs = dict(zip(runtime.outputs, _compare(runtime, path, example, tolerance), strict=True))
    batch = "N" if dynamic else 1

    def specs(tensors) -> dict[str, dict]:
        return {
            key: {"dtype": str(np.asarray(value).dtype), "shape": [batch, *value.shape[1:]]}
            for key, value in tensors.items()
        }

    write_manifest(
        output / f"{name}.yaml",
        name=name,
        file=path.name,
        task=TASK_NAMES[task],
        inputs=specs(example),
        outputs=specs(outputs),
        opset=OPSET,
        max_batch=MAX_BATCH if dynamic else 1,
        **{**card, "architecture": architecture_of(network)},
    )
    return path


def architecture_of(network: torch.nn.Module) -> dict[str, object]:
    """What a manifest says of a network: where it comes from, how it differs from the default, and what it costs."""
    config, (height, width) = network.config, input_hw(network)
    images = [torch.zeros(1, 1, height, width)]
    if getattr(config, "temporal", False):
        images.append(torch.zeros(1, NUM_JOINTS, height // 4, width // 4))
    return {
        "network": type(network).__name__,
        "module": "/".join(type(network).__module__.split(".")[1:]) + ".py",
        **not_default(config),
        "parameters": count_parameters(network),
        "macs": count_macs(network, *images),
    }


def _compare(
    runtime: torch.nn.Module, path: Path, example: dict[str, torch.Tensor], tolerance: float
) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    outputs = session.run(None, {key: value.numpy() for key, value in example.items()})
    with torch.no_grad():
        expected = [value.numpy() for value in runtime(*example.values())]
    for name, got, wanted in zip(runtime.outputs, outputs, expected):
        gap = np.abs(got - wanted)
        if name == "scores":  # of several alike cells without a hand, the last bit decides which is a peak
            gap[(np.minimum(got, wanted) == 0) & (np.maximum(got, wanted) < BACKGROUND)] = 0
        worst = float(gap.max())
        if worst > tolerance * max(1.0, float(np.abs(wanted).max())):
            raise RuntimeError(f"output '{name}' of {path} differs from torch by {worst}: the export is wrong")
    return outputs


@command
def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=("keynet", "detnet"))
    parser.add_argument(
        "--run", type=Path, required=True, help="folder with checkpoint.pt; its averaged weights are used"
    )
    parser.add_argument("--output", type=Path, required=True, help="the models folder, made where it is missing")
    parser.add_argument("--name", help="name of the model, default the task")
    parser.add_argument("--card", type=Path, help=f"YAML with the remaining manifest keys (default: the run's {CARD})")
    args = parser.parse_args(arguments)
    card = read_card(args.card or args.run / CARD)
    network = finalise(load_checkpoint(args.task, args.run / "checkpoint.pt"))
    args.output.mkdir(parents=True, exist_ok=True)
    print(export(args.task, network, args.output, args.name or args.task, card))


if __name__ == "__main__":
    raise SystemExit(main())
