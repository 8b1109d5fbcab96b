"""What KeyNet looks at: an upright square crop around a box, and the way back from its pixels into the image.

KeyNet knows right hands best: the crop of a hand that is believed to be left is mirrored, and the way back undoes it.

A camera without distortion, or an unknown one: the box is cut out, turned and scaled (``CutOut``). A lens that bends
straight lines: the crop is what a virtual pinhole camera sees that stands in the same place, looks at the centre of the
box and is turned so that the box is upright (``VirtualCamera``): KeyNet never sees distortion.
"""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np

from hand_tracking_ros.cameras import Camera
from hand_tracking_ros.geometry import Box, apply, crop_from_image, invert, mirrored, rotation, shrunk_region, warp
from hand_tracking_ros.lifting import JOINT_9, facing, palm_length_px

MEASURED = (1 / 3, 1 / 12, 1 / 96)  # shares of the box across which the lens is measured: the first that has rays
LEAST_COS = 0.1  # the virtual camera sees up to 84 degrees off its axis
NODES = 9  # per side, where the lens is computed exactly; in between it is interpolated, to less than 0.01 px


def look_at(box: Box, size_px: int, camera: Camera | None, mirror: bool = False) -> CutOut | VirtualCamera:
    """The view of ``size_px`` x ``size_px`` px that ``box`` fills, mirrored left to right on request."""
    if camera is None or camera.model == "pinhole":
        return CutOut(box, size_px, mirror)
    aim = _aim(box, camera)
    return CutOut(box, size_px, mirror) if aim is None else VirtualCamera(box, size_px, camera, *aim, mirror)


class CutOut:
    """An affine map between image and crop. Depth passes unchanged: along z."""

    def __init__(self, box: Box, size_px: int, mirror: bool = False) -> None:
        self._wh = (size_px, size_px)
        self.crop_from_image = _affine(box, size_px, mirror)

    def crop(self, mono: np.ndarray) -> np.ndarray:
        """(size, size) uint8; outside the image its nearest edge."""
        return warp(mono, self.crop_from_image, self._wh, border_value=None, fast=True)

    def to_crop(self, points_px: np.ndarray) -> np.ndarray:
        """Crop px of image px (N, 2)."""
        return apply(self.crop_from_image, points_px)

    def to_image(self, points_px: np.ndarray, depth_rel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Image px (21, 2) of keypoints (21, 2) in crop px, and their depth (21,) as HandKeypoints counts it."""
        return apply(invert(self.crop_from_image), points_px), depth_rel


class VirtualCamera:
    """A pinhole camera in the place of ``camera``: rows of ``turn`` (3, 3) are its axes in the camera's frame.

    Same methods as CutOut. Where the lens has no image, the affine map of the box stands in, so that every keypoint
    has finite pixels.
    """

    def __init__(
        self, box: Box, size_px: int, camera: Camera, turn: np.ndarray, length: float, mirror: bool = False
    ) -> None:
        """``length``: of the box at distance 1. ``mirror``: the x axis points to the left."""
        self.turn, self.focal_px = turn * [[-1.0], [1.0], [1.0]] if mirror else turn, size_px / length
        self._box, self._size, self._camera = box, size_px, camera
        self._image_from_crop = invert(_affine(box, size_px, mirror))

    def crop(self, mono: np.ndarray) -> np.ndarray:
        """(size, size) uint8; outside the image its nearest edge."""
        samples, weights = self._samples()
        shrink = int(math.sqrt(self._box.size_px[0] * self._box.size_px[1]) / self._size)
        if shrink >= 2:
            bounds = samples.reshape(-1, 2).min(axis=0), samples.reshape(-1, 2).max(axis=0)
            mono, low, scale = shrunk_region(mono, *bounds, shrink, fast=True)
            samples = (samples - low) / scale
        samples = np.clip(samples - 0.5, -1e4, 3e4)  # remap counts pixel centres as integers
        x, y = (_spread(samples[..., axis], weights).astype(np.float32) for axis in (0, 1))
        return cv2.remap(mono, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    def maps(self) -> np.ndarray:
        """(size, size, 2) image px of the centre of every pixel of the crop."""
        samples, weights = self._samples()
        return np.stack([_spread(samples[..., axis], weights) for axis in (0, 1)], axis=-1)

    def _samples(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Image px at the nodes, and the weights that interpolate them; of every pixel where the lens sees not all."""
        nodes, weights = _interpolation(self._size)
        at_nodes = self._camera.project(self._directions(_grid(nodes)))
        if np.isfinite(at_nodes).all():
            return at_nodes, weights
        return self._pixels(_grid(np.arange(self._size) + 0.5)), None

    def to_crop(self, points_px: np.ndarray) -> np.ndarray:
        """Crop px of image px (N, 2); NaN where the lens or the virtual camera does not see."""
        seen = self._camera.rays(points_px) @ self.turn.T
        return self.focal_px * seen[:, :2] / np.where(seen[:, 2:] > 0, seen[:, 2:], np.nan) + self._size / 2

    def to_image(self, points_px: np.ndarray, depth_rel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Image px (21, 2) of keypoints (21, 2) in crop px, and their depth (21,) as HandKeypoints counts it.

        The network sees depth along the axis of the virtual camera; it is turned to the ray of joint 9.
        """
        directions = self._directions(points_px)
        distance = self.focal_px / palm_length_px(points_px, depth_rel)  # palm lengths
        nearest = directions[JOINT_9]
        ray = nearest / np.linalg.norm(nearest)
        turned = ((distance + depth_rel)[:, None] * directions - distance * nearest) @ ray
        return self._pixels(points_px), turned

    def _directions(self, points_px: np.ndarray) -> np.ndarray:
        """(..., 3) in the camera's frame, with 1 along the axis of the view."""
        flat = (points_px - self._size / 2) / self.focal_px
        return np.concatenate([flat, np.ones_like(flat[..., :1])], axis=-1) @ self.turn

    def _pixels(self, points_px: np.ndarray) -> np.ndarray:
        pixels = self._camera.project(self._directions(points_px))
        unseen = ~np.isfinite(pixels).all(axis=-1)
        if unseen.any():
            pixels[unseen] = apply(self._image_from_crop, points_px[unseen])
        return pixels


def _affine(box: Box, size_px: int, mirror: bool) -> np.ndarray:
    """2x3 from image to crop."""
    crop = crop_from_image(box, (size_px, size_px))
    return mirrored(crop, size_px) if mirror else crop


def _aim(box: Box, camera: Camera) -> tuple[np.ndarray, float] | None:
    """Axes (3, 3) of the virtual camera, and how long the box is at distance 1; None when the lens does not see it.

    A square box in the image is, bent back, not quite a square. Its length counts, for hands are longer than wide.
    """
    down = rotation(box.angle_rad)[:, 1] * box.size_px[1] / 2  # from the centre to the lower edge
    for share in MEASURED:
        points = box.center_px + share * np.array([(0, 0), down, -down])
        centre, *edges = camera.rays(points)
        if np.isfinite(centre).all() and np.isfinite(edges).all():
            turn = facing(centre, edges[0] - edges[1])
            lower, upper = edges @ turn.T
            if min(lower[2], upper[2]) > LEAST_COS:
                return turn, np.hypot(*(lower[:2] / lower[2] - upper[:2] / upper[2])) / share
    return None


def _grid(values: np.ndarray) -> np.ndarray:
    """(n, n, 2) x and y."""
    return np.stack(np.meshgrid(values, values), axis=-1)


def _spread(samples: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """(size, size) from values at the nodes; unchanged without weights."""
    return samples if weights is None else weights @ samples @ weights.T


@lru_cache(maxsize=4)
def _interpolation(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Chebyshev nodes (NODES,) on 0..size, and (size, NODES) weights of their polynomial at pixel centres."""
    nodes = size / 2 * (1 - np.cos(np.pi * (np.arange(NODES) + 0.5) / NODES))
    basis = np.polynomial.chebyshev.chebvander
    centres = (np.arange(size) + 0.5) * 2 / size - 1
    return nodes, basis(centres, NODES - 1) @ np.linalg.inv(basis(nodes * 2 / size - 1, NODES - 1))
