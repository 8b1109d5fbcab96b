"""int8 for TensorRT: the shipped int8 networks with ranges that are symmetric about zero.

On CPUs activations are uint8 with a zero point, and where it is 0 the quantisation also cuts off what is negative, as a
ReLU does (training/quantise.py). TensorRT takes int8 with zero point 0 only, and no int32 biases ("explicit
quantisation" in its documentation). So each range becomes the smallest symmetric one that holds it, with a ReLU before
it where it began at 0, and biases become fp32. Half of such a range is never used: activations have 7 bits, not 8.
"""

from __future__ import annotations

import numpy as np

from hand_tracking_ros.errors import BackendError, ModelError

STEPS = 127  # of int8, from zero


def symmetric_int8(model_bytes: bytes) -> bytes:
    """The same ONNX model in int8 with zero points of 0; inputs and outputs keep their types. Needs the package onnx.

    Raises ModelError for a model whose activations are not quantised to uint8 by one scale each.
    """
    try:
        import onnx
    except ImportError as error:
        raise BackendError(
            "TensorRT needs the package onnx for precision int8: 'pip install onnx', or use fp16"
        ) from error
    model = onnx.load_model_from_string(model_bytes)
    rewriter = _Rewriter(onnx, model.graph)
    nodes = [new for node in list(model.graph.node) for new in rewriter.rewritten(node)]
    del model.graph.node[:]
    del model.graph.value_info[:]  # types inferred for the old graph
    model.graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    values = [tensor for tensor in (*model.graph.initializer, *rewriter.made.values()) if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(values)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


class _Rewriter:
    """One pass over the nodes. ``made``: new constants by name."""

    def __init__(self, onnx, graph) -> None:
        self._onnx = onnx
        self._constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
        self.made: dict[str, object] = {}

    def rewritten(self, node) -> list:
        """The nodes that take the place of one."""
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            return [node]
        values = self._constants.get(node.input[0])
        if values is None:
            return self._activation(node)
        if values.dtype == np.int32:  # a bias
            self._make(node.output[0], values.astype(np.float32) * self._constants[node.input[1]])
            return []
        return [node]  # weights are symmetric already

    def _activation(self, node) -> list:
        scale, zero = (self._constants.get(name) for name in node.input[1:3])
        if scale is None or zero is None or scale.size != 1 or zero.dtype != np.uint8:
            raise ModelError(f"node {node.name}: only activations in uint8 with one scale can be made symmetric")
        zero = int(zero)
        before = []
        if node.op_type == "QuantizeLinear" and zero == 0:
            positive = f"{node.output[0]}_positive"
            before = [self._onnx.helper.make_node("Relu", [node.input[0]], [positive], f"{node.name}_relu")]
            node.input[0] = positive
        node.input[1] = self._make(f"{node.input[1]}_symmetric", np.float32(max(zero, 255 - zero) * scale / STEPS))
        node.input[2] = self._make(f"{node.input[2]}_symmetric", np.int8(0))
        return [*before, node]

    def _make(self, name: str, value: np.ndarray) -> str:
        self.made[name] = self._onnx.numpy_helper.from_array(np.asarray(value), name)
        return name
