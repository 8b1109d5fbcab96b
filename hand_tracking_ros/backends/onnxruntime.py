"""ONNX Runtime on the CPU: the backend that is always installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping

import numpy as np

from hand_tracking_ros.backends import BackendStatus
from hand_tracking_ros.backends.checks import check_feeds, check_specs
from hand_tracking_ros.config import InferenceConfig
from hand_tracking_ros.errors import BackendError, ModelError
from hand_tracking_ros.manifest import REPAIR, ModelManifest, TensorSpec

NAME = "onnxruntime"
HOW_TO_GET = "install it with 'pip install onnxruntime'"

_DTYPES = {
    "tensor(uint8)": "uint8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
}


def status() -> BackendStatus:
    """Whether ONNX Runtime can be imported."""
    if importlib.util.find_spec("onnxruntime") is None:
        return BackendStatus(NAME, None, False, "not installed", HOW_TO_GET)
    import onnxruntime

    return BackendStatus(NAME, onnxruntime.__version__, True, "CPU")


def create(manifest: ModelManifest, inference: InferenceConfig, max_batch: int) -> OnnxRuntimeBackend:
    """Load the model; see ``create_backend``."""
    return OnnxRuntimeBackend(manifest, inference.threads, max_batch)


class OnnxRuntimeBackend:
    """An ONNX Runtime session on one execution provider, in the precision of the model file."""

    name = NAME
    provider = "CPUExecutionProvider"
    options: tuple[tuple[str, str], ...] = ()  # of the provider

    def __init__(self, manifest: ModelManifest, threads: int = 1, max_batch: int = 1) -> None:
        import onnxruntime

        try:
            self._session = onnxruntime.InferenceSession(
                str(manifest.file), _session_options(threads), providers=[(self.provider, dict(self.options))]
            )
        except Exception as error:  # onnxruntime's own exception classes share no public base
            raise ModelError(
                f"model '{manifest.name}': ONNX Runtime cannot load {manifest.file}: {error}; {REPAIR}"
            ) from error
        if self.provider not in self._session.get_providers():  # it runs on the CPU then, and only says so in its log
            raise BackendError(f"ONNX Runtime cannot run '{manifest.name}' with {self.provider}: see its log")
        check_specs(manifest, _specs(self._session.get_inputs()), _specs(self._session.get_outputs()))
        self.manifest, self.precision = manifest, manifest.precision
        self.inputs, self.outputs = manifest.inputs, manifest.outputs
        self._max_batch = max_batch
        self._names = list(manifest.outputs)

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name; see ``Backend.run``."""
        if self._session is None:
            raise BackendError("this backend is closed; create a new one")
        check_feeds(self.inputs, feeds, self._max_batch)
        return dict(zip(self._names, self._session.run(self._names, dict(feeds)), strict=True))

    def close(self) -> None:
        """Release the session."""
        self._session = None


def _session_options(threads: int):
    """Sequential execution; idle threads sleep instead of spinning: the CPU is shared with ROS and the camera."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors only: warnings about unused initialisers are not the user's business
    return options


def _specs(nodes) -> dict[str, TensorSpec]:
    return {
        node.name: TensorSpec(
            _DTYPES.get(node.type, node.type),
            tuple(size if isinstance(size, int) else str(size) for size in node.shape),
        )
        for node in nodes
    }
