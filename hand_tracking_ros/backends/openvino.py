"""OpenVINO on the CPU, in the precision of the model file on every machine (its own default is bf16 on some CPUs)."""

from __future__ import annotations

import importlib.metadata
import re
import threading
from collections.abc import Mapping

import numpy as np

from hand_tracking_ros.backends import BackendStatus
from hand_tracking_ros.backends.checks import check_feeds, check_specs
from hand_tracking_ros.config import InferenceConfig
from hand_tracking_ros.errors import BackendError, ModelError
from hand_tracking_ros.manifest import REPAIR, ModelManifest, TensorSpec

NAME = "openvino"
HOW_TO_GET = "install it with 'pip install openvino' (2023.1 or newer)"
READY_BATCHES = 2  # compiled at load; larger batches are compiled when they first occur

_DTYPES = {"u8": "uint8", "i32": "int32", "i64": "int64", "f16": "float16", "f32": "float32"}


def status() -> BackendStatus:
    """Whether OpenVINO is installed; not imported, which would cost trackers on other backends 25 MB."""
    try:
        version = importlib.metadata.version("openvino")
    except importlib.metadata.PackageNotFoundError:
        return BackendStatus(NAME, None, False, "not installed", HOW_TO_GET)
    if [int(number) for number in re.findall(r"\d+", version)[:2]] < [2023, 1]:
        return BackendStatus(NAME, version, False, f"version {version} is too old", HOW_TO_GET)
    return BackendStatus(NAME, version, True, "CPU")


def create(manifest: ModelManifest, inference: InferenceConfig, max_batch: int) -> OpenVinoBackend:
    """Load the model; see ``create_backend``."""
    return OpenVinoBackend(manifest, inference.threads, max_batch)


class OpenVinoBackend:
    """A model compiled for the CPU plugin, once per batch size: fixed shapes ran about 10 % faster than a free one."""

    name = NAME

    def __init__(self, manifest: ModelManifest, threads: int = 1, max_batch: int = 1) -> None:
        import openvino

        self.manifest, self.precision = manifest, manifest.precision
        self._core = openvino.Core()
        self._settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,  # several processes would all be pinned to the first core
        }
        model = self._read()
        check_specs(manifest, _specs(model.inputs), _specs(model.outputs))
        self.inputs, self.outputs = manifest.inputs, manifest.outputs
        self._free = any(isinstance(size, str) for spec in self.inputs.values() for size in spec.shape)
        self._max_batch = max_batch
        self._lock = threading.Lock()  # a request serves one thread at a time
        self._requests = {n: self._compile(n) for n in range(1, min(max_batch, READY_BATCHES) + 1)}

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name; see ``Backend.run``."""
        if self._core is None:
            raise BackendError("this backend is closed; create a new one")
        check_feeds(self.inputs, feeds, self._max_batch)
        batch = len(next(iter(feeds.values()))) if self._free else 1
        with self._lock:
            if batch not in self._requests:
                self._requests[batch] = self._compile(batch)
            request = self._requests[batch]
            request.infer(dict(feeds), share_inputs=True)
            return {name: request.get_tensor(name).data.copy() for name in self.outputs}

    def close(self) -> None:
        """Release the compiled models."""
        self._requests.clear()
        self._core = None

    def _read(self):
        try:
            return self._core.read_model(str(self.manifest.file))
        except RuntimeError as error:
            name, file = self.manifest.name, self.manifest.file
            raise ModelError(f"model '{name}': OpenVINO cannot load {file}: {error}; {REPAIR}") from error

    def _compile(self, batch: int):
        """An inference request of the model with every free dimension set to ``batch``."""
        model = self._read()
        model.reshape(
            {
                name: [batch if isinstance(size, str) else size for size in spec.shape]
                for name, spec in self.inputs.items()
            }
        )
        try:
            return self._core.compile_model(model, "CPU", self._settings).create_infer_request()
        except RuntimeError as error:
            raise BackendError(f"OpenVINO cannot compile model '{self.manifest.name}' for this CPU: {error}") from error


def _specs(ports) -> dict[str, TensorSpec]:
    specs = {}
    for port in ports:
        kind = port.get_element_type().get_type_name()
        shape = tuple(size.get_length() if size.is_static else "?" for size in port.get_partial_shape())
        specs[port.get_any_name()] = TensorSpec(_DTYPES.get(kind, kind), shape)
    return specs
