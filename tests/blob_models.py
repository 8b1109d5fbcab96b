"""Two real ONNX networks that take a bright disc on a dark image for a hand: exact, untrained, for tests of the loop.

DetNet peaks at the disc and boxes it with ``SIDE_PX`` (px of a 640x480 image); KeyNet puts a fixed hand around the
centroid of the bright pixels. So every disc is a right hand (``hand_at`` says where its joints are), and an image
without one is empty.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from tiny_models import DETNET_TENSORS, FACTS, KEYNET_F_TENSORS, KEYNET_TENSORS, save_model

from hand_tracking_ros.config import KeypointConfig
from hand_tracking_ros.manifest import write_manifest

SIDE_PX = 96.0  # side of a hand's box
DISC_PX = 20  # radius of its disc
SKIN_PX = 136  # side of the texture that moves with a disc

DETNET_TEXT = """
<ir_version: 8, opset_import: ["": 17]>
detnet (uint8[1, 1, 240, 320] image) => (float[1, 30, 40] scores, float[1, 6, 30, 40] boxes) {
  raw = Cast<to = 1>(image)
  low = Constant<value_float = 128.0>()
  above = Sub(raw, low)
  bright = Relu(above)
  high = Constant<value_float = 100.0>()
  scaled = Div(bright, high)
  mass = AveragePool<kernel_shape = [24, 24], strides = [8, 8], pads = [8, 8, 8, 8], count_include_pad = 1>(scaled)
  tied = Add(mass, ramp)
  best = MaxPool<kernel_shape = [9, 9], strides = [1, 1], pads = [4, 4, 4, 4]>(tied)
  peak = Equal(tied, best)
  mask = Cast<to = 1>(peak)
  least = Constant<value_float = 0.05>()
  enough = Greater(mass, least)
  there = Cast<to = 1>(enough)
  found = Mul(mask, there)
  most = Constant<value_float = 0.9>()
  sure = Mul(found, most)
  axis = Constant<value_ints = [1]>()
  scores = Squeeze(sure, axis)
  boxes = Identity(grid)
}
"""

KEYNET_TEXT = """
<ir_version: 8, opset_import: ["": 17]>
keynet (uint8[N, 1, 96, 96] crop) => (
  float[N, 21, 2] keypoints, float[N, 21] scores, float[N, 21] depth, float[N] presence, float[N] right
) {
  raw = Cast<to = 1>(crop)
  low = Constant<value_float = 128.0>()
  above = Sub(raw, low)
  bright = Relu(above)
  flat_shape = Constant<value_ints = [0, 1, -1]>()
  flat = Reshape(bright, flat_shape)
  last = Constant<value_ints = [2]>()
  mass = ReduceSum<keepdims = 1>(flat, last)
  one = Constant<value_float = 1.0>()
  weight = Add(mass, one)
  moment = MatMul(flat, grid)
  centre = Div(moment, weight)
  keypoints = Add(centre, template)
  full = Constant<value_float = 20000.0>()
  share = Div(mass, full)
  zero = Constant<value_float = 0.0>()
  likely = Clip(share, zero, one)
  axes = Constant<value_ints = [1, 2]>()
  presence = Squeeze(likely, axes)
  ones = Constant<value_float = 0.95>()
  none = Mul(presence, zero)
  right = Add(none, ones)
  column = Constant<value_ints = [1]>()
  lots = Unsqueeze(right, column)
  scores = Mul(lots, joints)
  depth = Mul(scores, zero)
}
"""


def template() -> np.ndarray:
    """(21, 2) joints of an upright hand around (0, 0), in sides of its tight square box."""
    joints = [(0.0, 0.5)]
    for x, tip in ((-0.5, -0.05), (-0.25, -0.4), (0.0, -0.5), (0.2, -0.42), (0.4, -0.3)):
        base = 0.25 if x == -0.5 else 0.0
        joints += [(x * (0.7 + 0.1 * i), base + (tip - base) * i / 3) for i in range(4)]
    points = np.array(joints)
    points[:, 0] /= points[:, 0].max() - points[:, 0].min()
    points[0, 0] = points[[5, 9, 13], 0].mean()  # so that the hand's own direction is up
    return points - (points.max(axis=0) + points.min(axis=0)) / 2


def hand_at(x: float, y: float) -> np.ndarray:
    """(21, 2) px: the joints that belong to a disc at (x, y) in a 640x480 image."""
    return np.array([x, y]) + SIDE_PX * template()


def draw(*centers: tuple[float, float], size: tuple[int, int] = (640, 480)) -> np.ndarray:
    """(H, W) mono image with a disc at each centre (corner-origin px), on a faint texture that optical flow likes.

    What lies around a disc, where the joints of its hand are, moves with it.
    """
    image = faint_texture(size, seed=0)
    skin, side = faint_texture((SKIN_PX, SKIN_PX), seed=1), SKIN_PX / 2
    for x, y in centers:
        place = np.array([[1.0, 0.0, x - side], [0.0, 1.0, y - side]])
        cv2.warpAffine(skin, place, size, image, cv2.INTER_LINEAR, cv2.BORDER_TRANSPARENT)
    for x, y in centers:
        point = (round((x - 0.5) * 16), round((y - 0.5) * 16))
        cv2.circle(image, point, DISC_PX * 16, 230, -1, cv2.LINE_AA, 4)
    return image


def faint_texture(size: tuple[int, int], seed: int) -> np.ndarray:
    """(H, W) uint8, darker than 60."""
    width, height = size
    image = np.random.default_rng(seed).integers(0, 60, (height // 8, width // 8), dtype=np.uint8)
    return cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)


def write_models(folder: Path, prior: bool = False) -> dict[str, str]:
    """Write both models; return the parameters that choose them: {'detector.model': path, 'keypoints.model': path}.

    ``prior``: KeyNet is a KeyNet-F, which takes what it is told to expect and answers the same.
    """
    rows, columns = np.mgrid[0:30, 0:40].astype(np.float32)
    side = np.full_like(rows, SIDE_PX / 2)  # of the 320x240 network input
    grid = np.stack([8 * columns + 4, 8 * rows + 4, side, np.ones_like(rows), 0 * rows, 0 * rows + 0.9])[None]
    ramp = 1e-6 * (40 * rows + columns)[None, None]  # no two cells tie
    save_model(DETNET_TEXT, {"grid": grid, "ramp": ramp}, folder / "blob_detnet.onnx")
    names = {"name": "blob_detnet", "task": "detect", "file": "blob_detnet.onnx", "max_batch": 1}
    write_manifest(folder / "blob_detnet.yaml", **names, **DETNET_TENSORS, **FACTS)

    pixels = np.stack(np.meshgrid(np.arange(96) + 0.5, np.arange(96) + 0.5), axis=-1).reshape(1, 96 * 96, 2)
    weights = {
        "grid": pixels,
        "template": (96 / KeypointConfig().crop_scale * template())[None],
        "joints": np.ones((1, 21)),
    }
    name, tensors = ("blob_keynet_f", KEYNET_F_TENSORS) if prior else ("blob_keynet", KEYNET_TENSORS)
    told = ", float[N, 21, 2] prior, float[N, 21] prior_scores" if prior else ""
    save_model(KEYNET_TEXT.replace("] crop)", f"] crop{told})"), weights, folder / f"{name}.onnx")
    names = {"name": name, "task": "keypoints", "file": f"{name}.onnx", "max_batch": 4}
    write_manifest(folder / f"{name}.yaml", **names, **tensors, **FACTS)
    return {
        "detector.model": str(folder / "blob_detnet.yaml"),
        "keypoints.model": str(folder / f"{name}.yaml"),
    }
