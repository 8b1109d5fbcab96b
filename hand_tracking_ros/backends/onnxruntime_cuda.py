"""ONNX Runtime on an NVIDIA GPU, where it was installed with CUDA (onnxruntime-gpu). In fp32.

Not run on a GPU so far, so ``auto`` takes it last: name it, or let ``hand-tracking tune`` measure it.
"""

from __future__ import annotations

import importlib.util

from hand_tracking_ros.backends import BackendStatus, cuda
from hand_tracking_ros.backends.onnxruntime import OnnxRuntimeBackend
from hand_tracking_ros.config import InferenceConfig
from hand_tracking_ros.errors import BackendError
from hand_tracking_ros.manifest import ModelManifest

NAME = "onnxruntime_cuda"
PROVIDER = "CUDAExecutionProvider"
HOW_TO_GET = (
    "install it with 'pip install onnxruntime-gpu' (1.18 or newer) in place of onnxruntime, and the NVIDIA driver, "
    "CUDA and cuDNN"
)


def status() -> BackendStatus:
    """Whether ONNX Runtime comes with CUDA, and a GPU answers."""
    if importlib.util.find_spec("onnxruntime") is None:
        return BackendStatus(NAME, None, False, "ONNX Runtime is not installed", HOW_TO_GET)
    import onnxruntime

    version = onnxruntime.__version__
    if PROVIDER not in onnxruntime.get_available_providers():
        return BackendStatus(NAME, version, False, "the ONNX Runtime that is installed has no CUDA", HOW_TO_GET)
    try:
        gpu = cuda.first_gpu()
    except BackendError as error:
        return BackendStatus(NAME, version, False, f"no usable GPU: {error}", HOW_TO_GET)
    return BackendStatus(NAME, version, True, f"{gpu.name} ({gpu.architecture})")


def create(manifest: ModelManifest, inference: InferenceConfig, max_batch: int) -> OnnxRuntimeBackend:
    """Load the model; see ``create_backend``. BackendError when CUDA or cuDNN cannot be loaded."""
    return OnnxRuntimeCudaBackend(manifest, inference.threads, max_batch)


class OnnxRuntimeCudaBackend(OnnxRuntimeBackend):
    """As on the CPU, with inputs and outputs copied to the GPU and back."""

    name = NAME
    provider = PROVIDER
    options = (("use_tf32", "0"),)  # fp32 is what it is called; ONNX Runtime 1.18 and newer know the option
