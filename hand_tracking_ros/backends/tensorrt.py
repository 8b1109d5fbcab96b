"""TensorRT 10 on the GPU, through its named-tensor API; ``tensorrt_rtx`` is accepted as the same API.

The engine is built from the ONNX file at the first start (seconds to minutes) and cached, see engine_cache.py. Parsing
and building with tensorrt_rtx need no GPU when the compute capability is given; running needs one.
"""

from __future__ import annotations

import importlib
import logging
import math
import threading
from collections.abc import Mapping, Sequence

import numpy as np

from hand_tracking_ros.backends import BackendStatus, cuda
from hand_tracking_ros.backends.checks import check_feeds, check_specs
from hand_tracking_ros.backends.engine_cache import engine_cache_path, load_engine, store_engine
from hand_tracking_ros.backends.half import half_precision
from hand_tracking_ros.backends.symmetric import symmetric_int8
from hand_tracking_ros.config import InferenceConfig
from hand_tracking_ros.errors import BackendError, ModelError
from hand_tracking_ros.manifest import ModelManifest, TensorSpec

logger = logging.getLogger("hand_tracking_ros")

NAME = "tensorrt"
LIBRARIES = ("tensorrt", "tensorrt_rtx")
REWRITES = {"fp16": half_precision, "int8": symmetric_int8}  # networks are strongly typed: the graph has the precision
HOW_TO_GET = (
    "on a Jetson it comes with JetPack 6.1 or newer (apt: python3-libnvinfer); "
    "on a PC 'pip install tensorrt', or 'pip install tensorrt-rtx' for RTX cards"
)
GPU_REMEDY = (
    "install the NVIDIA driver; containers need GPU access (docker run --gpus all, on a Jetson --runtime nvidia)"
)


def import_tensorrt():
    """The module tensorrt (10 or newer), or tensorrt_rtx in its place. BackendError when neither is installed."""
    try:
        return _find_tensorrt()
    except BackendError as error:
        raise BackendError(f"TensorRT is not usable: {error}; {HOW_TO_GET}") from error


def _find_tensorrt():
    problems = []
    for library in LIBRARIES:
        try:
            trt = importlib.import_module(library)
        except (ImportError, OSError) as error:
            problems.append(str(error))
            continue
        if library == "tensorrt_rtx" or int(trt.__version__.split(".")[0]) >= 10:
            return trt
        problems.append(f"tensorrt {trt.__version__} is older than 10")
    raise BackendError("; ".join(problems))


def status() -> BackendStatus:
    """Whether TensorRT can be imported and a GPU that it supports is present."""
    try:
        trt = _find_tensorrt()
    except BackendError as error:
        return BackendStatus(NAME, None, False, str(error), HOW_TO_GET)
    version = trt.__version__
    try:
        gpu = cuda.first_gpu()
    except BackendError as error:
        return BackendStatus(NAME, version, False, f"no usable GPU: {error}", GPU_REMEDY)
    if _is_rtx(trt) and not hasattr(trt.ComputeCapability, gpu.architecture):
        unfit = f"{_runtime_name(trt)} does not support {gpu.name} ({gpu.architecture})"
        return BackendStatus(NAME, version, False, unfit, HOW_TO_GET)
    return BackendStatus(NAME, version, True, f"{trt.__name__} on {gpu.name} ({gpu.architecture})")


def _runtime_name(trt) -> str:
    return f"{trt.__name__} {trt.__version__}"


def _is_rtx(trt) -> bool:
    return trt.__name__ == "tensorrt_rtx"


def create(manifest: ModelManifest, inference: InferenceConfig, max_batch: int) -> TensorRtBackend:
    """Load the cached engine of the model, or build and cache it; see ``create_backend``."""
    trt = import_tensorrt()
    gpu = cuda.first_gpu()
    precision = manifest.precision if inference.precision == "auto" else inference.precision
    path = engine_cache_path(manifest, _runtime_name(trt), f"{gpu.name} {gpu.architecture}", precision, max_batch)
    stored = load_engine(path)
    if stored is not None:
        try:
            return TensorRtBackend(manifest, stored, precision, max_batch)
        except (BackendError, ModelError) as error:
            logger.warning("the cached engine %s does not load: %s; building it again", path, error)
    logger.info("building the TensorRT engine of %s for %s; this happens once", manifest.name, gpu.name)
    architecture = gpu.architecture if _is_rtx(trt) else None
    engine = build_engine(manifest, precision, max_batch, architecture)
    store_engine(path, engine)
    return TensorRtBackend(manifest, engine, precision, max_batch)


def build_engine(
    manifest: ModelManifest, precision: str = "fp32", max_batch: int = 1, compute_capability: str | None = None
) -> bytes:
    """Parse the model's ONNX and build an engine for it.

    ``precision``: 'fp32', 'fp16' for the convolutions, or 'int8' of a model that is. ``max_batch``: the largest free
    dimension.
    ``compute_capability``: what to build for, such as 'SM86' (tensorrt_rtx only); None: the GPU of this machine.
    Raises ModelError when the file does not parse or does not fit its manifest, BackendError when nothing can be built.
    """
    trt = import_tensorrt()
    log = _make_log(trt)
    try:
        builder = trt.Builder(log)
    except (RuntimeError, TypeError) as error:
        raise BackendError(f"{_runtime_name(trt)} cannot start here: {error} {log.summary()}".rstrip()) from error
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = _parse(trt, log, network, manifest, precision)
    check_specs(manifest, *_network_specs(trt, network))
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # fp32 means fp32: TF32 keeps 10 bits of mantissa only
    if compute_capability is not None:
        _set_compute_capability(trt, config, compute_capability)
    if profile := _profile(builder, manifest, max_batch):
        config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    del parser  # it owns the weights until the engine is built
    if engine is None:
        raise BackendError(f"{_runtime_name(trt)} cannot build an engine of model '{manifest.name}': {log.summary()}")
    return bytes(engine)


def _parse(trt, log, network, manifest: ModelManifest, precision: str):
    model = manifest.file.read_bytes()
    parser = trt.OnnxParser(network, log)
    if not parser.parse(REWRITES.get(precision, bytes)(model)):
        errors = "; ".join(str(parser.get_error(index)) for index in range(parser.num_errors))
        raise ModelError(f"model '{manifest.name}': {_runtime_name(trt)} cannot parse {manifest.file}: {errors}")
    return parser


def _set_compute_capability(trt, config, name: str) -> None:
    known = getattr(trt, "ComputeCapability", None)
    if known is None or not hasattr(known, name):
        choices = ", ".join(item for item in dir(known) if item.startswith("SM")) or "only the GPU present"
        raise BackendError(f"{_runtime_name(trt)} cannot build for {name}; it builds for {choices}")
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(known, name), 0)


def _profile(builder, manifest: ModelManifest, max_batch: int):
    """Free dimensions run from 1 to ``max_batch``, tuned for 2 hands; None when every dimension is fixed."""
    free = {
        name: spec.shape for name, spec in manifest.inputs.items() if any(isinstance(size, str) for size in spec.shape)
    }
    if not free:
        return None
    profile = builder.create_optimization_profile()
    for name, shape in free.items():
        sizes = (
            tuple(n if isinstance(size, str) else size for size in shape) for n in (1, min(2, max_batch), max_batch)
        )
        profile.set_shape(name, *sizes)
    return profile


def _network_specs(trt, network) -> tuple[dict[str, TensorSpec], dict[str, TensorSpec]]:
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    outputs = [network.get_output(index) for index in range(network.num_outputs)]
    return tuple({t.name: _spec(trt, t.dtype, t.shape) for t in tensors} for tensors in (inputs, outputs))


def _engine_specs(trt, engine) -> tuple[dict[str, TensorSpec], dict[str, TensorSpec]]:
    inputs, outputs = {}, {}
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        kind = inputs if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT else outputs
        kind[name] = _spec(trt, engine.get_tensor_dtype(name), engine.get_tensor_shape(name))
    return inputs, outputs


def _spec(trt, dtype, shape) -> TensorSpec:
    names = {"FLOAT": "float32", "HALF": "float16", "UINT8": "uint8", "INT32": "int32", "INT64": "int64"}
    return TensorSpec(names.get(dtype.name, dtype.name), tuple(size if size >= 0 else "?" for size in shape))


def _make_log(trt):
    """A TensorRT logger that feeds Python's logging and keeps the errors for our own messages."""

    class Log(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(message)
            logger.debug("%s: %s", trt.__name__, message)

        def summary(self) -> str:
            return "; ".join(self.errors[-3:])

    return Log()


class TensorRtBackend:
    """An engine with its buffers and its stream on the first GPU, and one execution context for each batch size."""

    name = NAME

    def __init__(self, manifest: ModelManifest, engine: bytes, precision: str = "fp32", max_batch: int = 1) -> None:
        trt = import_tensorrt()
        self.manifest, self.precision = manifest, precision
        self.inputs, self.outputs = manifest.inputs, manifest.outputs
        self._max_batch = max_batch
        self._lock = threading.Lock()  # contexts and buffers serve one thread at a time
        self._log = _make_log(trt)
        self._runtime = trt.Runtime(self._log)
        self._engine = self._runtime.deserialize_cuda_engine(engine)
        if self._engine is None:
            raise BackendError(
                f"{_runtime_name(trt)} cannot load the engine of '{manifest.name}': {self._log.summary()}"
            )
        check_specs(manifest, *_engine_specs(trt, self._engine))
        self._stream = cuda.Stream()
        self._buffers = {}
        for name, spec in {**self.inputs, **self.outputs}.items():
            size = math.prod(max_batch if isinstance(size, str) else size for size in spec.shape)
            self._buffers[name] = cuda.Buffer(size, spec.dtype)
        self._passes: dict[tuple[tuple[int, ...], ...], _Pass] = {}
        for batch in range(1, min(2, max_batch) + 1):  # larger ones when they first occur
            self._pass([tuple(batch if isinstance(n, str) else n for n in spec.shape) for spec in self.inputs.values()])

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name; see ``Backend.run``."""
        if self._engine is None:
            raise BackendError("this backend is closed; create a new one")
        check_feeds(self.inputs, feeds, self._max_batch)
        with self._lock:
            self._stream.make_current()
            for name in self.inputs:
                self._buffers[name].host[: feeds[name].size] = feeds[name].reshape(-1)
            return self._pass([feeds[name].shape for name in self.inputs]).run()

    def _pass(self, shapes: Sequence[tuple[int, ...]]) -> _Pass:
        key = tuple(shapes)
        if key not in self._passes:
            self._passes[key] = _Pass(self, dict(zip(self.inputs, shapes, strict=True)))
        return self._passes[key]

    def close(self) -> None:
        """Release the GPU memory and the engine."""
        if self._engine is None:
            return
        self._stream.make_current()
        for one in self._passes.values():
            one.close()
        self._passes.clear()
        self._engine = self._runtime = None
        for buffer in self._buffers.values():
            buffer.close()
        self._stream.close()


class _Pass:
    """Copy in, run, copy out for inputs of one shape: a CUDA graph where that works, else calls one by one.

    TensorRT wants an execution context of its own for each graph, run once before it is recorded. A graph is taken only
    when it gives what the calls one by one gave.
    """

    def __init__(self, backend: TensorRtBackend, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._name, self._log = backend.manifest.name, backend._log
        self._stream, self._buffers = backend._stream, backend._buffers
        self._context = backend._engine.create_execution_context()
        if self._context is None:
            raise BackendError(f"TensorRT cannot run '{self._name}': {self._log.summary()}")
        for name, buffer in self._buffers.items():
            self._context.set_tensor_address(name, buffer.address)
        for name, shape in shapes.items():
            self._context.set_input_shape(name, shape)
        self._inputs = {name: math.prod(shape) for name, shape in shapes.items()}
        self._outputs = {name: tuple(self._context.get_tensor_shape(name)) for name in backend.outputs}
        self._graph: cuda.Graph | None = None
        self._record()

    def run(self) -> dict[str, np.ndarray]:
        """The outputs for what lies in the input buffers, as copies."""
        self._queue() if self._graph is None else self._graph.launch()
        self._stream.synchronize()
        return {
            name: self._buffers[name].host[: math.prod(shape)].reshape(shape).copy()
            for name, shape in self._outputs.items()
        }

    def close(self) -> None:
        if self._graph is not None:
            self._graph.close()
        self._context = self._graph = None

    def _queue(self) -> None:
        for name, size in self._inputs.items():
            self._buffers[name].upload(size, self._stream)
        if not self._context.execute_async_v3(self._stream.handle):
            raise BackendError(f"TensorRT failed to run '{self._name}': {self._log.summary()}")
        for name, shape in self._outputs.items():
            self._buffers[name].download(math.prod(shape), self._stream)

    def _record(self) -> None:
        expected = self.run()
        try:
            self._graph = cuda.Graph(self._stream, self._queue)
            for name in expected:
                self._buffers[name].host[:] = 0  # so that a graph which does nothing is found out
            outputs = self.run()
        except BackendError as error:
            logger.info("'%s' runs without a CUDA graph: %s", self._name, error)
        else:
            if all(np.allclose(outputs[name], expected[name], rtol=1e-3, atol=1e-3) for name in expected):
                return
            logger.warning("'%s' runs without a CUDA graph: it answers otherwise than the calls one by one", self._name)
        if self._graph is not None:
            self._graph.close()
            self._graph = None
