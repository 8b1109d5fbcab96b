"""Make the int8 version of an exported model: static quantisation, ranges of activations from training images.

    python -m hand_tracking_ros.training.quantise keynet --data DATA --labels LABELS --synthetic A.npz --models models

Reads ``models/keynet.onnx`` and its manifest, writes ``keynet_int8.onnx`` with explicit Quantize/Dequantize nodes,
which ONNX Runtime and OpenVINO both run in int8, and a manifest with the held-out figures of the int8 model. Weights
take 7 bits: with 8 the multiply-add of x86 CPUs without VNNI saturates. The first and the last convolution stay in
fp32, as do normalisation and decoding.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import tempfile
from pathlib import Path

import cv2
import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from hand_tracking_ros.backends.onnxruntime import OnnxRuntimeBackend
from hand_tracking_ros.commands import command
from hand_tracking_ros.manifest import REQUIRED, ModelManifest, load_manifest, write_manifest
from hand_tracking_ros.training import tasks
from hand_tracking_ros.training.recipe import Data, load_recipe
from hand_tracking_ros.training.weights import options_of_model

# With "Relu" left out a convolution goes through fp32 to its ReLU: a tenth slower, and rounded once more.
QUANTISED = ("Conv", "Add", "Relu", "Resize")


class _Images(CalibrationDataReader):
    def __init__(self, batches: list[dict[str, np.ndarray]]):
        self._batches = iter(batches)

    def get_next(self):
        return next(self._batches, None)


def quantise(manifest: ModelManifest, batches: list[dict[str, np.ndarray]]) -> ModelManifest:
    """Write the int8 version of a model beside it; ``batches``: inputs by name, as in use.

    The accuracy in the new manifest is that of the original: measure it and write the manifest again.
    """
    target = manifest.file.with_name(f"{manifest.file.stem}_int8.onnx")
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(manifest.file), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared), str(target), _Images(batches), quant_format=QuantFormat.QDQ, op_types_to_quantize=QUANTISED,
            nodes_to_exclude=_kept_in_fp32(onnx.load(prepared)), per_channel=True, reduce_range=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        )  # fmt: skip
    values = {key: getattr(manifest, key) for key in REQUIRED if key != "sha256"}
    values |= {"name": target.stem, "file": target.name, "precision": "int8"}
    return write_manifest(target.with_suffix(".yaml"), **values)


def _kept_in_fp32(model: onnx.ModelProto) -> list[str]:
    """What lies before the first convolution of an input and behind the last of each output, and these convolutions
    themselves, but for what an input beside the image is convolved with first."""
    nodes = list(model.graph.node)
    producer = {name: node for node in nodes for name in node.output}
    convolutions = [node for node in nodes if node.op_type == "Conv"]
    behind = {conv.name: _names_behind(conv.output, nodes) for conv in convolutions}
    first = [conv for conv in convolutions if not any(conv.name in names for names in behind.values())]
    last = [conv for conv in convolutions if not any(other.name in behind[conv.name] for other in convolutions)]
    of_image = _names_behind([model.graph.input[0].name], nodes)
    quantised = {name for conv in first for name in behind[conv.name]} | {conv.name for conv in first} - of_image
    inside = quantised & {name for conv in last for name in _names_before(conv, producer)}
    return [node.name for node in nodes if node.name not in inside]


def _names_behind(tensors, nodes) -> set[str]:
    """Names of the nodes that need one of ``tensors``; nodes are in the order of execution."""
    reached, names = set(tensors), set()
    for node in nodes:
        if reached & set(node.input):
            reached |= set(node.output)
            names.add(node.name)
    return names


def _names_before(end, producer) -> set[str]:
    """Names of the nodes that ``end`` needs."""
    names: set[str] = set()
    waiting = list(end.input)
    while waiting:
        node = producer.get(waiting.pop())
        if node is not None and node.name not in names:
            names.add(node.name)
            waiting += node.input
    return names


@command
def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=sorted(tasks.TASKS))
    parser.add_argument("--config", help="recipe: a file, or the name of a shipped one (default: that of the task)")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--synthetic", type=Path, nargs="*", default=[], help="pools of training/synthetic")
    parser.add_argument("--negatives", type=Path, nargs="*", default=[], help="keynet: pools of synthetic frames")
    parser.add_argument("--models", type=Path, required=True, help="folder with the exported model and its manifest")
    parser.add_argument("--name", help="name of the model, default the task")
    parser.add_argument("--count", type=int, default=512, help="calibration images")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    logging.getLogger().setLevel(logging.ERROR)
    data = Data(args.data, args.labels, tuple(args.synthetic), tuple(args.negatives))
    manifest = args.models / f"{args.name or args.task}.yaml"
    recipe, options = load_recipe(args.config or args.task), options_of_model(args.task, str(manifest))
    task = tasks.TASKS[args.task](dataclasses.replace(recipe, network=options), data)
    rng, source = np.random.default_rng(args.seed), load_manifest(manifest)
    int8 = quantise(source, [task.images(task.batch(rng, 1)) for _ in range(args.count)])
    for manifest in (source, int8):
        measured = task.validate(OnnxRuntimeBackend(manifest, max_batch=manifest.max_batch).run)
        print(manifest.name, measured, flush=True)
    values = {f.name: getattr(int8, f.name) for f in dataclasses.fields(int8) if f.name not in ("sha256", "path")}
    how = int8.accuracy.get("measured_on", {})
    write_manifest(int8.path, **{**values, "file": int8.file.name, "accuracy": {**measured, "measured_on": how}})


if __name__ == "__main__":
    raise SystemExit(main())
