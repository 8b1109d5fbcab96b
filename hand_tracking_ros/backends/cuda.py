"""The few calls of the CUDA driver API that TensorRT needs around it, through ctypes: no package but the driver."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from hand_tracking_ros.errors import BackendError

_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR = 75, 76  # CUdevice_attribute
_STREAM_NON_BLOCKING = 1
_CAPTURE_THREAD_LOCAL = 1  # CUstreamCaptureMode: what other threads do meanwhile does not matter


class Gpu(NamedTuple):
    """The first CUDA device (CUDA_VISIBLE_DEVICES chooses which that is)."""

    name: str
    architecture: str  # 'SM86' for compute capability 8.6


@lru_cache(maxsize=1)
def _driver() -> ctypes.CDLL:
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise BackendError(f"no NVIDIA driver ({error})") from error
    _check(driver, driver.cuInit(0), "cuInit")
    return driver


def _check(driver: ctypes.CDLL, code: int, function: str) -> None:
    if code:
        text = ctypes.c_char_p()
        driver.cuGetErrorString(code, ctypes.byref(text))
        raise BackendError(f"CUDA driver: {function} failed: {(text.value or b'unknown').decode()} (error {code})")


def _call(function: str, *arguments) -> None:
    driver = _driver()
    _check(driver, getattr(driver, function)(*arguments), function)


def first_gpu() -> Gpu:
    """Name and architecture of the first GPU. BackendError says why there is none."""
    device = _first_device()
    name = ctypes.create_string_buffer(256)
    _call("cuDeviceGetName", name, 256, device)
    version = []
    for attribute in (_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR):
        value = ctypes.c_int()
        _call("cuDeviceGetAttribute", ctypes.byref(value), attribute, device)
        version.append(value.value)
    return Gpu(name.value.decode(), f"SM{version[0]}{version[1]}")


def _first_device() -> ctypes.c_int:
    device = ctypes.c_int()
    _call("cuDeviceGet", ctypes.byref(device), 0)
    return device


class Stream:
    """A CUDA stream in the primary context of the first GPU, which is the context that TensorRT uses."""

    def __init__(self) -> None:
        self._context = ctypes.c_void_p()
        _call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), _first_device())
        self.make_current()
        self._stream = ctypes.c_void_p()
        _call("cuStreamCreate", ctypes.byref(self._stream), _STREAM_NON_BLOCKING)

    @property
    def handle(self) -> int:
        return self._stream.value

    def make_current(self) -> None:
        """Bind the context to the calling thread; CUDA keeps it per thread."""
        _call("cuCtxSetCurrent", self._context)

    def synchronize(self) -> None:
        """Wait until everything queued so far is done."""
        _call("cuStreamSynchronize", self._stream)

    def close(self) -> None:
        _call("cuStreamDestroy_v2", self._stream)
        _call("cuDevicePrimaryCtxRelease_v2", _first_device())


class Graph:
    """What ``queue`` puts on the stream, recorded once, and from then on launched as a whole by one call.

    BackendError when something in it cannot be recorded; nothing of it has run then.
    """

    def __init__(self, stream: Stream, queue: Callable[[], None]) -> None:
        self._stream = ctypes.c_void_p(stream.handle)
        recorded, self._graph = ctypes.c_void_p(), ctypes.c_void_p()
        _call("cuStreamBeginCapture_v2", self._stream, _CAPTURE_THREAD_LOCAL)
        try:
            queue()
        finally:
            _call("cuStreamEndCapture", self._stream, ctypes.byref(recorded))
        try:
            _call("cuGraphInstantiateWithFlags", ctypes.byref(self._graph), recorded, ctypes.c_uint64(0))
        finally:
            _call("cuGraphDestroy", recorded)

    def launch(self) -> None:
        """Queue all of it."""
        _call("cuGraphLaunch", self._graph, self._stream)

    def close(self) -> None:
        _call("cuGraphExecDestroy", self._graph)


class Buffer:
    """Page-locked host memory, seen as the flat array ``host``, and as much device memory at ``address``."""

    def __init__(self, size: int, dtype: str) -> None:
        bytes_ = size * np.dtype(dtype).itemsize
        self._host, self._device = ctypes.c_void_p(), ctypes.c_uint64()
        _call("cuMemAllocHost_v2", ctypes.byref(self._host), ctypes.c_size_t(bytes_))
        _call("cuMemAlloc_v2", ctypes.byref(self._device), ctypes.c_size_t(bytes_))
        view = (ctypes.c_uint8 * bytes_).from_address(self._host.value)
        self.host = np.frombuffer(view, dtype=dtype)
        self.host[:] = 0

    @property
    def address(self) -> int:
        return self._device.value

    def upload(self, size: int, stream: Stream) -> None:
        """Queue the copy of the first ``size`` elements of ``host`` to the device."""
        bytes_ = ctypes.c_size_t(size * self.host.itemsize)
        _call("cuMemcpyHtoDAsync_v2", self._device, self._host, bytes_, ctypes.c_void_p(stream.handle))

    def download(self, size: int, stream: Stream) -> None:
        """Queue the copy of the first ``size`` elements on the device to ``host``."""
        bytes_ = ctypes.c_size_t(size * self.host.itemsize)
        _call("cuMemcpyDtoHAsync_v2", self._host, self._device, bytes_, ctypes.c_void_p(stream.handle))

    def close(self) -> None:
        """Free both; ``host`` must not be used afterwards."""
        _call("cuMemFree_v2", self._device)
        _call("cuMemFreeHost", self._host)
