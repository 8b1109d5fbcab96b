"""Encodings: every supported one is built from known values by hand and must come back with them."""

from __future__ import annotations

import array

import cv2
import numpy as np
import pytest

from hand_tracking_ros import images
from hand_tracking_ros.errors import ImageError

H, W = 6, 8
BGR = (40, 120, 200)  # one colour, B G R
GRAY = round(0.114 * BGR[0] + 0.587 * BGR[1] + 0.299 * BGR[2])


def padded(rows: np.ndarray, padding: int = 0) -> tuple[bytes, int]:
    """Buffer and step of rows (N, ...) of bytes, each followed by ``padding`` bytes of rubbish."""
    rows = rows.reshape(len(rows), -1)
    rubbish = np.full((len(rows), padding), 255, np.uint8)
    return np.hstack([rows, rubbish]).tobytes(), rows.shape[1] + padding


def call(function, rows, encoding, padding=0, **kwargs):
    data, step = padded(rows, padding)
    return function(data, height=H, width=W, step=step, encoding=encoding, **kwargs)


def flat(*channels) -> np.ndarray:
    return np.tile(np.array(channels, np.uint8), (H, W, 1))


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("encoding", ["mono8", "8UC1"])
def test_mono8_is_a_view(encoding, padding):
    rows = np.arange(H * W, dtype=np.uint8).reshape(H, W)
    data, step = padded(rows, padding)
    buffer = bytearray(data)
    mono = images.to_mono(buffer, height=H, width=W, step=step, encoding=encoding)
    assert np.array_equal(mono, rows)
    buffer[step + 1] = 99  # a write to the message shows: nothing was copied
    assert mono[1, 1] == 99
    assert np.array_equal(call(images.to_bgr, rows, encoding, padding), np.repeat(rows[..., None], 3, axis=2))


@pytest.mark.parametrize(
    "make", [bytes, bytearray, memoryview, lambda d: array.array("B", d), lambda d: np.frombuffer(d, np.uint8)]
)
def test_any_buffer_is_accepted(make):
    rows = np.arange(H * W, dtype=np.uint8).reshape(H, W)
    assert np.array_equal(images.to_mono(make(rows.tobytes()), height=H, width=W, step=W, encoding="mono8"), rows)


@pytest.mark.parametrize("padding", [0, 7])
@pytest.mark.parametrize(
    ("encoding", "pixel"),
    [
        ("bgr8", BGR),
        ("8UC3", BGR),
        ("rgb8", BGR[::-1]),
        ("bgra8", (*BGR, 7)),
        ("8UC4", (*BGR, 7)),
        ("rgba8", (*BGR[::-1], 7)),
    ],
)
def test_colour(encoding, pixel, padding):
    rows = flat(*pixel)
    bgr = call(images.to_bgr, rows, encoding, padding)
    mono = call(images.to_mono, rows, encoding, padding)
    assert bgr.shape == (H, W, 3) and mono.shape == (H, W)
    assert np.array_equal(bgr, flat(*BGR))
    assert np.all(np.abs(mono.astype(int) - GRAY) <= 1)


def test_bgr8_is_a_view():
    data, step = padded(flat(*BGR), 3)
    buffer = bytearray(data)
    bgr = images.to_bgr(buffer, height=H, width=W, step=step, encoding="bgr8")
    buffer[step + 3] = 1
    assert bgr[1, 1].tolist() == [1, 120, 200]


@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize("order", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_colours_are_right(order, padding):
    """A flat colour seen through the mosaic: row 0 holds the first two letters, row 1 the last two."""
    value = {"b": BGR[0], "g": BGR[1], "r": BGR[2]}
    tile = np.array([[value[order[0]], value[order[1]]], [value[order[2]], value[order[3]]]], np.uint8)
    mosaic = np.tile(tile, (H // 2, W // 2))
    bgr = call(images.to_bgr, mosaic, f"bayer_{order}8", padding)
    mono = call(images.to_mono, mosaic, f"bayer_{order}8", padding)
    assert np.array_equal(bgr[2:-2, 2:-2], flat(*BGR)[2:-2, 2:-2])
    assert np.all(np.abs(mono[2:-2, 2:-2].astype(int) - GRAY) <= 1)


# BT.601, video range: what the Y, U, V of the colour must be.
Y = round(16 + (65.738 * BGR[2] + 129.057 * BGR[1] + 25.064 * BGR[0]) / 256)
U = round(128 + (-37.945 * BGR[2] - 74.494 * BGR[1] + 112.439 * BGR[0]) / 256)
V = round(128 + (112.439 * BGR[2] - 94.154 * BGR[1] - 18.285 * BGR[0]) / 256)


@pytest.mark.parametrize("padding", [0, 4])
@pytest.mark.parametrize(
    ("encoding", "pair"),
    [("yuv422", (U, Y, V, Y)), ("uyvy", (U, Y, V, Y)), ("yuv422_yuy2", (Y, U, Y, V)), ("yuyv", (Y, U, Y, V))],
)
def test_yuv422(encoding, pair, padding):
    rows = np.tile(np.array(pair, np.uint8), (H, W // 2))
    assert np.all(call(images.to_mono, rows, encoding, padding) == Y)
    assert np.all(np.abs(call(images.to_bgr, rows, encoding, padding).astype(int) - flat(*BGR)) <= 3)


@pytest.mark.parametrize("padding", [0, 4])
@pytest.mark.parametrize(("encoding", "chroma"), [("nv12", (U, V)), ("nv21", (V, U))])
def test_nv12_and_nv21(encoding, chroma, padding):
    rows = np.vstack([np.full((H, W), Y, np.uint8), np.tile(np.array(chroma, np.uint8), (H // 2, W // 2))])
    mono = call(images.to_mono, rows, encoding, padding)
    bgr = call(images.to_bgr, rows, encoding, padding)
    assert mono.shape == (H, W) and np.all(mono == Y)
    assert bgr.shape == (H, W, 3) and np.all(np.abs(bgr.astype(int) - flat(*BGR)) <= 3)


@pytest.mark.parametrize("bigendian", [False, True])
@pytest.mark.parametrize("encoding", ["mono16", "16UC1"])
def test_16_bit_keeps_the_high_byte_and_does_not_flicker(encoding, bigendian):
    wide = np.linspace(0, 65535, H * W).astype(np.uint16).reshape(H, W)
    rows = wide.astype(">u2" if bigendian else "<u2").view(np.uint8).reshape(H, W * 2)
    mono = call(images.to_mono, rows, encoding, 2, is_bigendian=bigendian)
    assert np.array_equal(mono, wide // 256)
    assert np.array_equal(call(images.to_bgr, rows, encoding, is_bigendian=bigendian)[..., 1], mono)
    ten_bits = call(images.to_mono, rows, encoding, is_bigendian=bigendian, bits=10)
    assert np.array_equal(ten_bits, np.minimum(wide // 4, 255))
    # The same scene value maps to the same grey whatever else is in the frame.
    rows_with_glint = rows.copy()
    rows_with_glint[0, :2] = 255
    again = call(images.to_mono, rows_with_glint, encoding, is_bigendian=bigendian)
    assert np.array_equal(again[1:], mono[1:])


def test_unknown_encoding_lists_the_known():
    with pytest.raises(ImageError, match=r"'32FC1'.*mono8.*nv12"):
        call(images.to_mono, flat(1), "32FC1")


@pytest.mark.parametrize("function", [images.to_mono, images.to_bgr])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": bytes(W * H - 3)}, "truncated: expected 48 bytes.*got 45"),
        ({"data": bytes(W * H + 1)}, "too long: expected 48 bytes.*got 49"),
        ({"data": b""}, "truncated: expected 48 bytes.*got 0"),
        ({"step": W - 1}, "step is 7 bytes, but one row needs 8"),
        ({"width": 0, "step": 0, "data": b""}, "zero size"),
        ({"height": 0, "data": b""}, "zero size"),
        ({"encoding": "bgr8"}, "step is 8 bytes, but one row needs 24"),
        ({"encoding": "nv12"}, "truncated: expected 72 bytes"),
        ({"encoding": "uyvy", "width": 3, "data": bytes(8 * H)}, "even width"),
        ({"encoding": "mono16", "width": 4, "bits": 7}, "8 to 16 significant bits"),
    ],
)
def test_bad_images_are_refused_with_the_reason(function, change, message):
    arguments = {"data": bytes(W * H), "height": H, "width": W, "step": W, "encoding": "mono8", **change}
    with pytest.raises(ImageError, match=message):
        function(arguments.pop("data"), **arguments)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_compressed(suffix):
    for source in (flat(*BGR), np.full((H, W), 77, np.uint8)):
        data = cv2.imencode(suffix, source)[1].tobytes()
        image = images.decode_compressed(data, f"bgr8; {suffix[1:]} compressed bgr8")
        assert image.shape == source.shape and image.dtype == np.uint8
        assert np.all(np.abs(image.astype(int) - source) <= 3)


def test_compressed_channel_order_alpha_and_16_bit():
    png = cv2.imencode(".png", flat(*BGR[::-1]))[1]
    assert np.array_equal(images.decode_compressed(png, "rgb8; png compressed rgb8"), flat(*BGR))
    with_alpha = cv2.imencode(".png", flat(*BGR, 9))[1]
    assert np.array_equal(images.decode_compressed(with_alpha, "png"), flat(*BGR))
    wide = cv2.imencode(".png", np.full((H, W), 0x4D12, np.uint16))[1]
    assert np.all(images.decode_compressed(wide) == 0x4D)


def test_compressed_bad_data():
    with pytest.raises(ImageError, match="empty"):
        images.decode_compressed(b"", "jpeg")
    with pytest.raises(ImageError, match=r"cannot decode.*11 bytes"):
        images.decode_compressed(b"not an jpeg", "jpeg")


def test_as_mono():
    mono = np.full((H, W), 5, np.uint8)
    assert images.as_mono(mono) is mono
    assert np.array_equal(images.as_mono(mono[..., None]), mono)
    assert np.all(np.abs(images.as_mono(flat(*BGR)).astype(int) - GRAY) <= 1)
    for bad in (np.zeros((H, W), np.float32), np.zeros((0, W), np.uint8), np.zeros((H, W, 2), np.uint8)):
        with pytest.raises(ImageError):
            images.as_mono(bad)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize(("encoding", "kind"), [("32FC1", "f4"), ("16UC1", "u2"), ("mono16", "u2")])
def test_depth_images_become_metres(encoding, kind, big):
    unit, least = (1.0, np.nan) if kind == "f4" else (1e-3, 0)
    values = np.array([[0, 250, least], [65, 4321, 65535]])
    pixels = values.astype((">" if big else "<") + kind)
    padded = np.zeros((2, pixels.itemsize * 3 + 4), np.uint8)
    padded[:, : pixels.itemsize * 3] = pixels.view(np.uint8).reshape(2, -1)
    depth = images.to_depth_m(
        padded.tobytes(), height=2, width=3, step=padded.shape[1], encoding=encoding, is_bigendian=big
    )
    assert depth.dtype == np.float32 and np.allclose(depth, values * unit, equal_nan=True)


@pytest.mark.parametrize(
    ("encoding", "size", "says"),
    [("rgb8", 24, "encoding 'rgb8'; known: 32FC1 in metres"), ("32FC1", 12, "truncated: expected 24 bytes")],
)
def test_bad_depth_images_are_explained(encoding, size, says):
    with pytest.raises(ImageError, match=says):
        images.to_depth_m(bytes(size), height=2, width=3, step=12, encoding=encoding)
