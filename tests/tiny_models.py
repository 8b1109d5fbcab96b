"""Small but real networks with the runtime interface of docs/architecture.md, written in ONNX text: no torch needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hand_tracking_ros.manifest import ModelManifest, TensorSpec, write_manifest

KEYNET_TEXT = """
<ir_version: 8, opset_import: ["": 17]>
keynet (uint8[N, 1, 96, 96] crop) => (
  float[N, 21, 2] keypoints, float[N, 21] scores, float[N, 21] depth, float[N] presence, float[N] right
) {
  image = Cast<to = 1>(crop)
  mean = ReduceMean<axes = [2, 3]>(image)
  centred = Sub(image, mean)
  squared = Mul(centred, centred)
  variance = ReduceMean<axes = [2, 3]>(squared)
  floor = Constant<value_float = 1.0>()
  floored = Add(variance, floor)
  deviation = Sqrt(floored)
  normal = Div(centred, deviation)
  c1 = Conv<kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]>(normal, w1, b1)
  r1 = Relu(c1)
  c2 = Conv<kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1], group = 8>(r1, w2)
  r2 = HardSwish(c2)
  heat = Conv<kernel_shape = [1, 1]>(r2, w3)
  flat_shape = Constant<value_ints = [0, 21, -1]>()
  flat = Reshape(heat, flat_shape)
  soft = Softmax<axis = 2>(flat)
  keypoints = MatMul(soft, grid)
  scores = ReduceMax<axes = [2], keepdims = 0>(soft)
  pooled = ReduceMean<axes = [2, 3], keepdims = 0>(r2)
  depth = MatMul(pooled, w4)
  logits = MatMul(pooled, w5)
  likely = Sigmoid(logits)
  zero = Constant<value_int = 0>()
  one = Constant<value_int = 1>()
  presence = Gather<axis = 1>(likely, zero)
  right = Gather<axis = 1>(likely, one)
}
"""

DETNET_TEXT = """
<ir_version: 8, opset_import: ["": 17]>
detnet (uint8[1, 1, 240, 320] image) => (float[1, 30, 40] scores, float[1, 6, 30, 40] boxes) {
  raw = Cast<to = 1>(image)
  factor = Constant<value_float = 0.0078125>()
  normal = Mul(raw, factor)
  c1 = Conv<kernel_shape = [3, 3], strides = [4, 4], pads = [1, 1, 1, 1]>(normal, w1, b1)
  r1 = Relu(c1)
  boxes = Conv<kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]>(r1, w2)
  head = Conv<kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]>(r1, w3)
  all = Sigmoid(head)
  best = MaxPool<kernel_shape = [3, 3], strides = [1, 1], pads = [1, 1, 1, 1]>(all)
  peak = Equal(all, best)
  mask = Cast<to = 1>(peak)
  peaks = Mul(all, mask)
  axis = Constant<value_ints = [1]>()
  scores = Squeeze(peaks, axis)
}
"""

KEYNET_F_TEXT = """
<ir_version: 8, opset_import: ["": 17]>
keynet_f (uint8[N, 1, 96, 96] crop, float[N, 21, 2] prior, float[N, 21] prior_scores) => (
  float[N, 21, 2] keypoints, float[N, 21] scores, float[N, 21] depth, float[N] presence, float[N] right
) {
  keypoints = Identity(prior)
  scores = Identity(prior_scores)
  depth = Sub(prior_scores, prior_scores)
  image = Cast<to = 1>(crop)
  mean = ReduceMean<axes = [1, 2, 3], keepdims = 0>(image)
  one = Constant<value_float = 1.0>()
  least = Constant<value_float = 0.0>()
  presence = Clip(mean, least, one)
  right = Sub(mean, mean)
}
"""

FACTS = {
    "preprocessing": "grey image, uint8; normalised inside the graph",
    "keypoint_order": "hand_tracking_ros.skeleton.JOINT_NAMES",
    "architecture": {"network": "tiny", "macs": 1234567},
    "opset": 17,
    "precision": "fp32",
    "licence": "Apache-2.0",
    "training": {
        "data": [{"name": "none", "licence": "Apache-2.0", "images": 0, "people": 0}],
        "command": "untrained",
        "seed": 0,
        "hours": 0.0,
        "notes": "random weights",
    },
    "accuracy": {},
}

KEYNET_TENSORS = {
    "inputs": {"crop": TensorSpec("uint8", ("N", 1, 96, 96))},
    "outputs": {
        "keypoints": TensorSpec("float32", ("N", 21, 2)),
        "scores": TensorSpec("float32", ("N", 21)),
        "depth": TensorSpec("float32", ("N", 21)),
        "presence": TensorSpec("float32", ("N",)),
        "right": TensorSpec("float32", ("N",)),
    },
}
KEYNET_F_TENSORS = {
    "inputs": {
        **KEYNET_TENSORS["inputs"],
        "prior": TensorSpec("float32", ("N", 21, 2)),
        "prior_scores": TensorSpec("float32", ("N", 21)),
    },
    "outputs": KEYNET_TENSORS["outputs"],
}
DETNET_TENSORS = {
    "inputs": {"image": TensorSpec("uint8", (1, 1, 240, 320))},
    "outputs": {
        "scores": TensorSpec("float32", (1, 30, 40)),
        "boxes": TensorSpec("float32", (1, 6, 30, 40)),
    },
}


def keynet_f_manifest(folder: Path) -> ModelManifest:
    """A KeyNet-F that answers exactly what it is told to expect."""
    save_model(KEYNET_F_TEXT, {}, folder / "keynet_f.onnx")
    names = {"name": "keynet_f", "task": "keypoints", "file": "keynet_f.onnx", "max_batch": 4}
    return write_manifest(folder / "keynet_f.yaml", **names, **KEYNET_F_TENSORS, **FACTS)


def keynet_manifest(folder: Path, **changes) -> ModelManifest:
    """Write keynet.onnx and keynet.yaml to ``folder``; ``changes`` replace manifest values."""
    cells = (np.arange(24) + 0.5) * 4  # heatmap cells of 4 px, corner-origin pixels
    grid = np.stack(np.meshgrid(cells, cells), axis=-1).reshape(576, 2)
    random = np.random.default_rng(1)
    weights = {
        "w1": random.normal(0, 0.3, (8, 1, 3, 3)),
        "b1": random.normal(0, 0.3, 8),
        "w2": random.normal(0, 0.3, (8, 1, 3, 3)),
        "w3": random.normal(0, 2.0, (21, 8, 1, 1)),
        "w4": random.normal(0, 1.0, (8, 21)),
        "w5": random.normal(0, 1.0, (8, 2)),
        "grid": grid,
    }
    save_model(KEYNET_TEXT, weights, folder / "keynet.onnx")
    values = {"name": "keynet", "task": "keypoints", "file": "keynet.onnx", "max_batch": 4, **KEYNET_TENSORS, **FACTS}
    return write_manifest(folder / "keynet.yaml", **{**values, **changes})


def detnet_manifest(folder: Path, **changes) -> ModelManifest:
    """Write detnet.onnx and detnet.yaml to ``folder``; ``changes`` replace manifest values."""
    random = np.random.default_rng(2)
    weights = {
        "w1": random.normal(0, 0.3, (8, 1, 3, 3)),
        "b1": random.normal(0, 0.3, 8),
        "w2": random.normal(0, 0.3, (6, 8, 3, 3)),
        "w3": random.normal(0, 0.3, (1, 8, 3, 3)),
    }
    save_model(DETNET_TEXT, weights, folder / "detnet.onnx")
    values = {"name": "detnet", "task": "detect", "file": "detnet.onnx", "max_batch": 1, **DETNET_TENSORS, **FACTS}
    return write_manifest(folder / "detnet.yaml", **{**values, **changes})


def save_model(text: str, weights: dict[str, np.ndarray], path: Path) -> None:
    """Save the ONNX text with its float32 ``weights`` as initialisers."""
    import onnx

    model = onnx.parser.parse_model(text)
    for name, values in weights.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(values.astype(np.float32), name))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def crops(count: int, seed: int = 3) -> np.ndarray:
    """(count, 1, 96, 96) uint8 random crops with a bright patch each."""
    random = np.random.default_rng(seed)
    images = random.integers(0, 90, (count, 1, 96, 96), dtype=np.uint8)
    for image in images:
        x, y = random.integers(0, 70, 2)
        image[0, y : y + 25, x : x + 25] += 150
    return images
