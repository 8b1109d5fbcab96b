"""fp16 for TensorRT: convolutions in half precision, everything that measures or decodes in single precision.

TensorRT builds strongly typed networks, so the ONNX graph itself says what is fp16. Normalisation (sums of squares),
softmax and soft-argmax stay in fp32: at 96 px the steps of fp16 are 1/16 px.
"""

from __future__ import annotations

from hand_tracking_ros.errors import BackendError

# Between convolutions these stay in fp16 when their data inputs are; no other operator is ever run in fp16.
FOLLOWERS = {"Relu": 1, "HardSwish": 1, "LeakyRelu": 1, "MaxPool": 1, "Add": 2, "Mul": 2, "Resize": 1}


def half_precision(model_bytes: bytes) -> bytes:
    """The same ONNX model with convolutions in fp16; inputs and outputs keep their types. Needs the package onnx."""
    try:
        import onnx
    except ImportError as error:
        raise BackendError(
            "precision fp16 needs the package onnx: 'pip install onnx', or use precision fp32"
        ) from error
    model = onnx.load_model_from_string(model_bytes)
    rewriter = _Rewriter(onnx, model.graph)
    nodes = list(model.graph.node)
    del model.graph.node[:]
    del model.graph.value_info[:]  # types inferred for the old graph
    model.graph.node.extend(rewriter.rewrite(nodes))
    used = {name for node in model.graph.node for name in node.input}
    weights = [tensor for tensor in [*model.graph.initializer, *rewriter.half_weights] if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(weights)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


class _Rewriter:
    """One pass over the nodes in order. A tensor may exist in fp32 (its name), in fp16 (name + '_half') or as both."""

    def __init__(self, onnx, graph) -> None:
        self._onnx = onnx
        self._weights = {tensor.name: tensor for tensor in graph.initializer}
        self._outputs = [output.name for output in graph.output]
        self._single = {tensor.name for tensor in graph.input} | set(self._weights)
        self._half: set[str] = set()
        self._nodes: list = []
        self.half_weights: list = []

    def rewrite(self, nodes: list) -> list:
        for node in nodes:
            if node.op_type == "Conv":
                self._as_half(node, len(node.input))
            elif node.op_type in FOLLOWERS and all(n in self._half for n in node.input[: FOLLOWERS[node.op_type]]):
                self._as_half(node, FOLLOWERS[node.op_type])
            else:
                self._as_single(node)
        for name in self._outputs:
            self._single_name(name)
        return self._nodes

    def _as_half(self, node, data_inputs: int) -> None:
        for index in range(data_inputs):
            if node.input[index]:
                node.input[index] = self._half_name(node.input[index])
        for index, name in enumerate(node.output):
            self._half.add(name)
            node.output[index] = name + "_half"
        self._nodes.append(node)

    def _as_single(self, node) -> None:
        for index, name in enumerate(node.input):
            node.input[index] = self._single_name(name)
        self._single.update(node.output)
        self._nodes.append(node)

    def _half_name(self, name: str) -> str:
        if name not in self._half:
            self._half.add(name)
            if name in self._weights:
                values = self._onnx.numpy_helper.to_array(self._weights[name]).astype("float16")
                self.half_weights.append(self._onnx.numpy_helper.from_array(values, name + "_half"))
            else:
                self._cast(name, name + "_half", self._onnx.TensorProto.FLOAT16)
        return name + "_half"

    def _single_name(self, name: str) -> str:
        if name in self._half and name not in self._single:
            self._single.add(name)
            self._cast(name + "_half", name, self._onnx.TensorProto.FLOAT)
        return name

    def _cast(self, source: str, target: str, to: int) -> None:
        self._nodes.append(self._onnx.helper.make_node("Cast", [source], [target], to=to))
