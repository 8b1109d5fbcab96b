"""Image encodings: from the bytes of a ROS image, raw or compressed, to mono or BGR arrays without needless copies.

Every function returns uint8 arrays, (H, W) mono or (H, W, 3) BGR. ``mono8``, ``bgr8`` and the Y plane of ``nv12`` and
``nv21`` come back as views of the caller's buffer, also when rows are padded (step > row bytes): treat them as
read-only and keep the buffer alive. The mono image of a YUV encoding is its Y channel as it is.

16-bit images are shifted to 8 bits by a fixed amount, never stretched per frame, so that brightness does not flicker:
``bits`` is how many bits the camera really uses (10 or 12 for many sensors, 16 when it fills the range); brighter
values saturate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from hand_tracking_ros.errors import ImageError


@dataclass(frozen=True)
class _Layout:
    """How an encoding lies in memory, and the OpenCV codes that read it."""

    bytes_per_pixel: int  # in the first plane
    to_gray: int | None = None  # None: handled by hand
    to_bgr: int | None = None
    row_share: tuple[int, int] = (1, 1)  # rows in the buffer / image rows
    even: tuple[int, int] = (1, 1)  # width and height must be multiples of these


_MONO8 = _Layout(1)
_MONO16 = _Layout(2)
_BGR8 = _Layout(3, cv2.COLOR_BGR2GRAY)
_BGRA8 = _Layout(4, cv2.COLOR_BGRA2GRAY, cv2.COLOR_BGRA2BGR)
_UYVY = _Layout(2, cv2.COLOR_YUV2GRAY_UYVY, cv2.COLOR_YUV2BGR_UYVY, even=(2, 1))
_YUYV = _Layout(2, cv2.COLOR_YUV2GRAY_YUY2, cv2.COLOR_YUV2BGR_YUY2, even=(2, 1))

# ROS names a Bayer pattern by its first two rows; OpenCV by the rows that follow, so R and B look swapped.
_LAYOUTS = {
    "mono8": _MONO8,
    "8UC1": _MONO8,
    "bgr8": _BGR8,
    "8UC3": _BGR8,
    "rgb8": _Layout(3, cv2.COLOR_RGB2GRAY, cv2.COLOR_RGB2BGR),
    "bgra8": _BGRA8,
    "8UC4": _BGRA8,
    "rgba8": _Layout(4, cv2.COLOR_RGBA2GRAY, cv2.COLOR_RGBA2BGR),
    "mono16": _MONO16,
    "16UC1": _MONO16,
    "bayer_rggb8": _Layout(1, cv2.COLOR_BayerBG2GRAY, cv2.COLOR_BayerBG2BGR, even=(2, 2)),
    "bayer_bggr8": _Layout(1, cv2.COLOR_BayerRG2GRAY, cv2.COLOR_BayerRG2BGR, even=(2, 2)),
    "bayer_gbrg8": _Layout(1, cv2.COLOR_BayerGR2GRAY, cv2.COLOR_BayerGR2BGR, even=(2, 2)),
    "bayer_grbg8": _Layout(1, cv2.COLOR_BayerGB2GRAY, cv2.COLOR_BayerGB2BGR, even=(2, 2)),
    "yuv422": _UYVY,
    "uyvy": _UYVY,
    "yuv422_yuy2": _YUYV,
    "yuyv": _YUYV,
    "nv12": _Layout(1, None, cv2.COLOR_YUV2BGR_NV12, row_share=(3, 2), even=(2, 2)),
    "nv21": _Layout(1, None, cv2.COLOR_YUV2BGR_NV21, row_share=(3, 2), even=(2, 2)),
}
SUPPORTED_ENCODINGS = tuple(_LAYOUTS)
DEPTH_ENCODINGS = {"32FC1": ("f4", 1.0), "16UC1": ("u2", 1e-3), "mono16": ("u2", 1e-3)}  # metres per unit (REP-118)


def to_mono(data, *, height: int, width: int, step: int, encoding: str, is_bigendian: bool = False, bits: int = 16):
    """(H, W) uint8 mono image of a raw ROS image.

    ``data``: any contiguous buffer (bytes, array, ndarray) of step * height bytes (times 3/2 for nv12 and nv21).
    ``bits``: significant bits of 16-bit encodings (module docstring). Raises ImageError.
    """
    layout = _checked(data, height, width, step, encoding)
    if layout is _MONO16:
        return _high_byte(data, height, width, step, is_bigendian, bits)
    pixels = _pixels(data, layout, height, width, step)
    if layout.to_gray is None:
        return pixels[:height]
    return cv2.cvtColor(pixels, layout.to_gray)


def to_bgr(data, *, height: int, width: int, step: int, encoding: str, is_bigendian: bool = False, bits: int = 16):
    """(H, W, 3) uint8 BGR image of a raw ROS image; arguments and errors as ``to_mono``."""
    layout = _checked(data, height, width, step, encoding)
    if layout is _MONO16:
        return cv2.cvtColor(_high_byte(data, height, width, step, is_bigendian, bits), cv2.COLOR_GRAY2BGR)
    pixels = _pixels(data, layout, height, width, step)
    if layout is _BGR8:
        return pixels
    return cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR if layout is _MONO8 else layout.to_bgr)


def to_depth_m(data, *, height: int, width: int, step: int, encoding: str, is_bigendian: bool = False) -> np.ndarray:
    """(H, W) float32 metres of a raw depth image: 32FC1 in metres, or 16UC1 (also called mono16) in millimetres.

    What was not measured stays as it came: 0, NaN or infinity. Raises ImageError.
    """
    if encoding not in DEPTH_ENCODINGS:
        raise ImageError(
            f"a depth image in encoding '{encoding}'; known: 32FC1 in metres, 16UC1 in millimetres. An image of "
            "disparities or colours is no depth image, and compressedDepth must be decoded first"
        )
    kind, metres = DEPTH_ENCODINGS[encoding]
    layout = _Layout(int(kind[1]))
    _check_buffer(data, layout, height, width, step, encoding)
    pixels = np.ascontiguousarray(_pixels(data, layout, height, width, step))
    values = pixels.view((">" if is_bigendian else "<") + kind)[..., 0]
    return values.astype(np.float32) if metres == 1.0 else values * np.float32(metres)


def decode_compressed(data, format: str = "") -> np.ndarray:
    """(H, W) mono or (H, W, 3) BGR uint8 image of a ROS CompressedImage (jpeg, png, whatever OpenCV decodes).

    ``format`` as ROS writes it: 'jpeg', 'png', 'rgb8; jpeg compressed bgr8'. Only its channel order matters: the
    content says what it is. Alpha is dropped; 16-bit png keeps its high byte. Raises ImageError.
    """
    raw = _bytes_of(data)
    if raw.size == 0:
        raise ImageError(f"compressed image (format '{format}') is empty: 0 bytes; check the camera or the transport")
    try:
        image = cv2.imdecode(raw, cv2.IMREAD_UNCHANGED)
    except cv2.error:
        image = None
    if image is None:
        raise ImageError(
            f"cannot decode compressed image of {raw.size} bytes (format '{format}'): truncated, damaged, or neither "
            "jpeg nor png; compressedDepth is not an intensity image, subscribe to the camera's image instead"
        )
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    if image.dtype != np.uint8 or image.ndim not in (2, 3):
        raise ImageError(f"compressed image (format '{format}') decodes to {image.dtype}; only 8 and 16 bit are known")
    if image.ndim == 3 and image.shape[2] == 4:
        image = cv2.cvtColor(image, cv2.COLOR_BGRA2BGR)
    if image.ndim == 3 and "compressed rgb" in format:  # compressed_image_transport: stored without the swap to BGR
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return image


def as_mono(image: np.ndarray) -> np.ndarray:
    """(H, W) of a mono, BGR or BGRA uint8 array; mono comes back as it is."""
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.size == 0:
        raise ImageError(f"expected a non-empty uint8 mono or BGR image, got {image.dtype} of shape {image.shape}")
    if image.ndim == 2:
        return image
    conversions: dict[int, Callable] = {
        1: lambda im: im[..., 0],
        3: lambda im: cv2.cvtColor(im, cv2.COLOR_BGR2GRAY),
        4: lambda im: cv2.cvtColor(im, cv2.COLOR_BGRA2GRAY),
    }
    if image.shape[2] not in conversions:
        raise ImageError(f"image has {image.shape[2]} channels; mono, BGR and BGRA are known")
    return conversions[image.shape[2]](image)


def _bytes_of(data) -> np.ndarray:
    """(N,) uint8 view of any contiguous buffer."""
    try:
        return np.frombuffer(data, np.uint8) if len(data) else np.empty(0, np.uint8)
    except (TypeError, ValueError, BufferError) as error:
        kind = type(data).__name__
        raise ImageError(f"image data of type {kind} is not a contiguous byte buffer: {error}") from error


def _checked(data, height: int, width: int, step: int, encoding: str) -> _Layout:
    """The layout of ``encoding``, once the sizes are known to fit it."""
    layout = _LAYOUTS.get(encoding)
    if layout is None:
        raise ImageError(f"unknown image encoding '{encoding}'; supported: {', '.join(SUPPORTED_ENCODINGS)}")
    _check_buffer(data, layout, height, width, step, encoding)
    return layout


def _check_buffer(data, layout: _Layout, height: int, width: int, step: int, encoding: str) -> None:
    """Raise ImageError when the sizes do not fit each other."""
    where = f"{encoding} image of {width}x{height}"
    if width < 1 or height < 1:
        raise ImageError(f"{where} has zero size: the camera driver sent an empty image")
    row_bytes = width * layout.bytes_per_pixel
    if step < row_bytes:
        raise ImageError(f"{where}: step is {step} bytes, but one row needs {row_bytes}; the driver's fault")
    if width % layout.even[0] or height % layout.even[1]:
        raise ImageError(f"{where}: this encoding needs {'an even width' if layout.even[1] == 1 else 'even sizes'}")
    expected = step * height * layout.row_share[0] // layout.row_share[1]
    got = memoryview(data).nbytes
    if got != expected:
        what = "truncated" if got < expected else "too long"
        raise ImageError(f"{where} is {what}: expected {expected} bytes (step {step} x {height} rows), got {got}")


def _pixels(data, layout: _Layout, height: int, width: int, step: int) -> np.ndarray:
    """View of the buffer as (rows, W) or (rows, W, channels), without the padding of the rows."""
    rows = height * layout.row_share[0] // layout.row_share[1]
    channels = layout.bytes_per_pixel
    padded = _bytes_of(data).reshape(rows, step)
    if channels == 1:
        return padded[:, :width]
    strides = (step, channels, 1)
    return np.lib.stride_tricks.as_strided(padded, (rows, width, channels), strides, writeable=padded.flags.writeable)


def _high_byte(data, height: int, width: int, step: int, is_bigendian: bool, bits: int) -> np.ndarray:
    """8 most significant of ``bits`` bits of 16-bit pixels, saturated."""
    if not 8 <= bits <= 16:
        raise ImageError(f"16-bit images have 8 to 16 significant bits, not {bits}")
    pixels = _pixels(data, _MONO16, height, width, step)
    if bits == 16:
        return cv2.extractChannel(pixels, 0 if is_bigendian else 1)
    wide = np.ascontiguousarray(pixels).view(">u2" if is_bigendian else "<u2")[..., 0]
    return np.minimum(wide >> (bits - 8), 255).astype(np.uint8)
