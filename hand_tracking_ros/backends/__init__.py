"""Inference backends: ONNX Runtime, OpenVINO and TensorRT behind one small protocol.

Each backend is one module with ``NAME``, ``status()`` and ``create()``, imported only when it is asked for, so nothing
but ONNX Runtime has to be installed.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

import numpy as np

from hand_tracking_ros.config import InferenceConfig
from hand_tracking_ros.errors import BackendError
from hand_tracking_ros.machine import usable_cores
from hand_tracking_ros.manifest import ModelManifest, TensorSpec

logger = logging.getLogger("hand_tracking_ros")

# Best first. TensorRT means a GPU. OpenVINO runs the networks alone a tenth faster than ONNX Runtime, but the whole
# tracker was measured slower with it, and takes twice the memory (docs/benchmarks.md).
PREFERENCE = ("tensorrt", "onnxruntime", "openvino", "onnxruntime_cuda")
PRECISIONS = {
    "tensorrt": ("int8", "fp16", "fp32"),
    "onnxruntime": ("int8", "fp32"),
    "openvino": ("int8", "fp32"),
    "onnxruntime_cuda": ("fp32",),
}
ON_GPU = ("tensorrt", "onnxruntime_cuda")


class Backend(Protocol):
    """A loaded model. Tensors are named; ``inputs`` and ``outputs`` are the specs of ``manifest``."""

    name: str
    manifest: ModelManifest
    precision: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name, for one C-contiguous array per input. BackendError when names, dtypes or shapes differ.

        Several threads may call it at once; they may have to wait for each other.
        """

    def close(self) -> None:
        """Release the model; ``run`` must not be called afterwards."""


class BackendStatus(NamedTuple):
    """Whether a backend can run here: ``detail`` says on what, or why not; ``remedy`` how to get it."""

    name: str
    version: str | None  # None: not installed
    usable: bool
    detail: str
    remedy: str = ""


class Choice(NamedTuple):
    """Backends to try, best first, and why."""

    names: tuple[str, ...]
    reason: str


def available_backends() -> list[BackendStatus]:
    """The status of every backend, best first."""
    return [backend_status(name) for name in PREFERENCE]


def backend_status(name: str) -> BackendStatus:
    """The status of one backend of ``PREFERENCE``. Never raises: a broken installation is a status, too."""
    try:
        return _module(name).status()
    except Exception as error:  # whatever a foreign library raises while it is imported or asked
        return BackendStatus(name, None, False, f"broken: {type(error).__name__}: {error}", f"reinstall {name}")


def choose_backend(inference: InferenceConfig) -> Choice:
    """Which backends to try for this configuration. BackendError when the one asked for cannot run here."""
    if inference.backend != "auto":
        status = backend_status(inference.backend)
        if not status.usable:
            raise BackendError(
                f"backend '{status.name}' was asked for but cannot run: {status.detail}; {status.remedy}"
            )
        if inference.precision not in ("auto", *PRECISIONS[status.name]):
            known = " and ".join(PRECISIONS[status.name])
            raise BackendError(
                f"precision {inference.precision} was asked for; {status.name} runs {known}: "
                "set inference.precision to auto"
            )
        return Choice((status.name,), "asked for")
    usable, passed_over = [], []
    for status in available_backends():
        if status.usable:
            usable.append(status.name)
        else:
            passed_over.append(f"{status.name}: {status.detail}")
    if not usable:
        raise BackendError(f"no inference backend can run: {'; '.join(passed_over)}")
    return Choice(tuple(usable), f"auto: best of {', '.join(usable)}" + "".join(f"; {why}" for why in passed_over))


def create_backend(manifest: ModelManifest, inference: InferenceConfig, max_batch: int | None = None) -> Backend:
    """Load a model: pick the backend and the precision, verify the sha256, check the tensors against the manifest.

    Of ``inference.threads`` no more than this process may use cores: a profile knows the cores of the machine only.
    ``max_batch``: largest free dimension that ``run`` will get, default and upper limit ``manifest.max_batch``.
    With backend 'auto' a backend that fails to load is passed over with a warning. Raises ModelError when the file does
    not fit its manifest, BackendError when the backend cannot run.
    """
    max_batch = manifest.max_batch if max_batch is None else max_batch
    if not 1 <= max_batch <= manifest.max_batch:
        raise BackendError(f"model '{manifest.name}' takes batches of 1 to {manifest.max_batch}, asked for {max_batch}")
    choice = choose_backend(inference)
    cores = usable_cores()
    if inference.threads > cores:
        logger.info("inference.threads is %d, but this process may use %d cores only", inference.threads, cores)
        inference = replace(inference, threads=cores)
    names = backends_for(choice.names, manifest, inference.precision)
    versions = [version_for(name, manifest, inference.precision) for name in names]
    for version in versions:
        version.verify()
    for name, version in zip(names[:-1], versions):
        try:
            return _create(name, version, inference, max_batch, choice.reason)
        except Exception as error:  # auto must survive whatever an optional runtime raises
            logger.warning("backend %s cannot run %s, trying the next: %s", name, version.name, error)
    return _create(names[-1], versions[-1], inference, max_batch, choice.reason)


def backends_for(names: Sequence[str], manifest: ModelManifest, precision: str) -> list[str]:
    """Of backends those that run int8, where the model is in it or is to be."""
    if "int8" not in (manifest.precision, precision):
        return list(names)
    found = [name for name in names if "int8" in PRECISIONS[name]]
    if not found:
        raise BackendError(
            f"model '{manifest.name}' was asked for in int8, which {' and '.join(names)} cannot run: take the model in "
            "fp32 and set inference.precision to auto, or another inference.backend"
        )
    return found


def check_precision(manifest: ModelManifest, inference: InferenceConfig) -> None:
    """Raise BackendError when another precision is asked for than that of a model that is quantised itself."""
    if manifest.precision == "int8" and inference.precision not in ("auto", "int8"):
        raise BackendError(
            f"precision {inference.precision} was asked for, but model '{manifest.name}' is in int8: choose the model "
            f"that it was made of ('{manifest.name.removesuffix('_int8')}'), or set inference.precision to auto or int8"
        )


def version_for(backend: str, manifest: ModelManifest, precision: str) -> ModelManifest:
    """The model itself, or its int8 version where that is wanted. BackendError when it is wanted and missing."""
    wanted = "int8" in PRECISIONS[backend] and (precision == "int8" or (precision == "auto" and backend not in ON_GPU))
    if manifest.precision == "int8" or not wanted:
        return manifest
    quantised = manifest.quantised()
    if quantised is None and precision == "int8":
        raise BackendError(f"model '{manifest.name}' has no int8 version: set inference.precision to fp32 or auto")
    return quantised or manifest


def _create(name: str, manifest: ModelManifest, inference: InferenceConfig, max_batch: int, reason: str) -> Backend:
    backend = _module(name).create(manifest, inference, max_batch)
    if inference.precision == "fp16" != backend.precision:
        logger.warning("precision fp16 needs TensorRT; %s runs %s", name, backend.precision)
    version = backend_status(name).version
    logger.info("model %s runs on %s %s, %s (%s)", manifest.name, name, version, backend.precision, reason)
    return backend


def _module(name: str):
    return importlib.import_module(f"{__name__}.{name}")
