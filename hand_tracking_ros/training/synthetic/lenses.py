"""Lenses and rigs of the generator: rendering through pinholes and fisheyes (cameras.py).

A fisheye is rendered as up to five pinhole views, the faces of a cube, from which every pixel takes what its own ray
meets: exact up to the resampling.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache

import cv2
import numpy as np

from hand_tracking_ros.training.synthetic.model import UPPER_ARM, transform, unit
from hand_tracking_ros.training.synthetic.render import Lights, Renderer, SceneHand, Solid
from hand_tracking_ros.types import Camera

CUBE = {  # rotations, face from camera: ahead, and the four sides
    "ahead": np.eye(3),
    "right": np.array([[0.0, 0, -1], [0, 1, 0], [1, 0, 0]]),
    "left": np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]]),
    "below": np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]),
    "above": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
}
CUBE_PLANES = np.sqrt(0.5) * np.array([[1.0, -1, 0, 0], [0, 0, 1, -1], [1, 1, 1, 1]])  # inward normals of a face's view
ARM_RADIUS_M = 0.15  # of spheres along an arm, with its sleeve
FACE_BORDER_PX = 2  # so that the pixels at the edge of a face have neighbours


@dataclass(frozen=True)
class Lens:
    """A camera, without distortion or a fisheye, and the size of its images."""

    camera: Camera
    size_wh: tuple[int, int]

    @property
    def is_fisheye(self) -> bool:
        return self.camera.model == "fisheye"

    def ray(self, pixel: np.ndarray) -> np.ndarray:
        """Direction (3,) of a pixel, of length 1 in the measure of ``range_m``; NaN where the lens sees nothing."""
        ray = self.camera.rays(pixel)
        return ray if self.is_fisheye else ray / ray[2]

    def pixel_rays(self) -> np.ndarray:
        """(H, W, 3) directions of the centres of all pixels; NaN where the lens sees nothing."""
        width, height = self.size_wh
        return self.camera.rays(np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), axis=-1))

    def range_m(self, points_m: np.ndarray) -> np.ndarray:
        """What the depth images of ``render`` hold for points (N, 3): z, or of a fisheye the distance."""
        return np.linalg.norm(points_m, axis=-1) if self.is_fisheye else points_m[..., 2]

    def inside(self, pixels: np.ndarray) -> np.ndarray:
        """(N,) bool of pixels (N, 2), False for NaN."""
        return ((pixels >= 0) & (pixels < self.size_wh)).all(axis=-1)

    def scaled(self, factor: float, shift_px: tuple[float, float] = (0.0, 0.0)) -> Lens:
        """The same lens with ``factor`` times the pixels, the picture moved by ``shift_px`` of those."""
        c = self.camera
        center = {"cx": c.cx * factor + shift_px[0], "cy": c.cy * factor + shift_px[1]}
        size = int(self.size_wh[0] * factor), int(self.size_wh[1] * factor)
        return Lens(replace(c, fx=c.fx * factor, fy=c.fy * factor, **center), size)

    def record(self) -> dict:
        """The ``camera`` of a label (docs/evaluation.md)."""
        c = self.camera
        k = [round(float(v), 6) for v in (c.fx, c.fy, c.cx, c.cy)]
        return {"model": c.model, "K": k, "D": [round(v, 10) for v in c.distortion]}


def random_lens(model: str, rng: np.random.Generator, size_wh: tuple[int, int], field_deg: float) -> Lens:
    """A 'pinhole' or 'fisheye' with a horizontal field of view of ``field_deg``, not quite centred."""
    half = np.radians(field_deg) / 2
    distortion = tuple(rng.normal(0, (0.02, 0.006, 0.001, 0.0002))) if model == "fisheye" else ()
    unscaled = Camera(1.0, 1.0, 0.0, 0.0, model, distortion)
    focal = size_wh[0] / 2 / float(unscaled.project(np.array([np.sin(half), 0.0, np.cos(half)]))[0])
    center = np.array(size_wh) / 2 + rng.normal(0, 0.008, 2) * size_wh[0]
    return Lens(Camera(focal, focal, *center.tolist(), model, distortion), size_wh)


@dataclass(frozen=True)
class RigCamera:
    """A camera of a rig: x_camera = ``rotation`` x_rig + ``translation`` (metres). The rig's frame is camera 0's."""

    name: str
    lens: Lens
    rotation: np.ndarray = field(default_factory=lambda: np.eye(3))
    translation: np.ndarray = field(default_factory=lambda: np.zeros(3))

    def points(self, points_m: np.ndarray) -> np.ndarray:
        """(..., 3) from the rig's frame into the camera's."""
        return points_m @ self.rotation.T + self.translation

    def scene(self, hands: list[SceneHand], solids: list[Solid], lights: Lights):
        """The same scene in this camera's frame."""
        turn, shift = self.rotation, self.translation

        def moved(thing):
            return replace(thing, rotation=turn @ thing.rotation, translation=turn @ thing.translation + shift)

        directions = {name: turn @ getattr(lights, name) for name in ("key_direction", "fill_direction")}
        return [moved(hand) for hand in hands], [moved(solid) for solid in solids], replace(lights, **directions)

    def record(self) -> dict:
        """The entry of cameras.yaml."""
        width, height = self.lens.size_wh
        return {
            "name": self.name, "width": width, "height": height, **self.lens.record(),
            "rotation": np.asarray(self.rotation, float).ravel().tolist(),
            "translation_m": np.asarray(self.translation, float).tolist(),
        }  # fmt: skip


def looking(position: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotation and translation, camera from rig, of a level camera at ``position`` that looks at ``target`` (3,)."""
    ahead = unit(np.asarray(target, float) - position)
    right = unit(np.cross([0.0, 1.0, 0.0], ahead))
    rotation = np.stack([right, np.cross(ahead, right), ahead])
    return rotation, -rotation @ position


def render(renderer: Renderer, lens: Lens, hands: list[SceneHand], lights: Lights, solids: list[Solid] = ()):
    """(H, W, 3) linear RGB and (H, W) ``Lens.range_m``, 0 where nothing is; of a scene in the camera's frame."""
    if not lens.is_fisheye:
        return renderer.render(lens.camera, lens.size_wh, hands, lights, solids)
    cube = cube_of(lens)
    centers, radii = bounding_spheres(renderer, hands, solids)
    light = np.zeros((cube.side, len(cube.names) * cube.side, 3), np.float32)
    depth = np.zeros(light.shape[:2], np.float32)
    for number, name in enumerate(cube.names):
        if not ((centers @ CUBE[name].T @ CUBE_PLANES > -radii[:, None]).all(axis=1)).any():
            continue  # nothing reaches into this face
        moved, things, lit = RigCamera(name, lens, CUBE[name]).scene(hands, solids, lights)
        own = np.s_[:, number * cube.side : (number + 1) * cube.side]
        light[own], depth[own] = renderer.render(cube.camera, (cube.side, cube.side), moved, lit, things)
    maps = cube.columns, cube.rows
    distance = cv2.remap(depth, *maps, cv2.INTER_NEAREST) * cube.stretch
    light, cover = (cv2.remap(part, *maps, cv2.INTER_LINEAR) for part in (light, (depth > 0).astype(np.float32)))
    light *= ((distance > 0) / np.maximum(cover, 0.2))[..., None]  # at outlines no black of the empty face mixes in
    return light, distance


def bounding_spheres(renderer: Renderer, hands: list[SceneHand], solids: list[Solid]):
    """Centres (N, 3) and radii (N,), in metres, of spheres that hold all of a scene."""
    spheres = [(solid.translation, np.linalg.norm(solid.size_m)) for solid in solids]
    for hand in hands:
        points, elbow = hand.keypoints_m(), renderer.model.joints[hand.posed.shape, 0]
        center = points.mean(axis=0)
        spheres.append((center, np.linalg.norm(points - center, axis=1).max() + 0.03))
        for bone, shares in ((0, np.linspace(0, 1, 5)), (UPPER_ARM, np.linspace(1, 3, 9))):
            along = transform(hand.posed.bones[bone], shares[:, None] * elbow)
            spheres += [(hand.rotation @ point + hand.translation, ARM_RADIUS_M) for point in along]
    return np.array([s[0] for s in spheres]).reshape(-1, 3), np.array([s[1] for s in spheres])


@dataclass(frozen=True)
class Cube:
    """Square views of ``side`` px, the faces ``names`` of CUBE that a fisheye sees, side by side in one picture.

    For every pixel (H, W) of the fisheye: where to look it up there (as cv2.remap counts; outside of it where the lens
    sees nothing), and the distance per depth of its face.
    """

    names: tuple[str, ...]
    camera: Camera
    side: int
    columns: np.ndarray
    rows: np.ndarray
    stretch: np.ndarray


@lru_cache(maxsize=16)  # the lens of a film, supersampled and in its shifts within a pixel
def cube_of(lens: Lens) -> Cube:
    """The faces are as fine as the centre of the fisheye, and finer elsewhere."""
    rays, focal = lens.pixel_rays().astype(np.float32), float(np.ceil(lens.camera.fx))
    side = 2 * int(focal) + 2 * FACE_BORDER_PX
    lookup, stretch = np.full((*rays.shape[:2], 2), -9, np.float32), np.zeros(rays.shape[:2], np.float32)
    nearest, names = np.abs(rays).max(axis=-1), []
    for name, rotation in CUBE.items():
        axis = rotation[2].astype(np.float32)
        own = rays @ axis == nearest  # never so for NaN, nor for what lies behind
        if own.any():
            ray = rays[own] @ rotation.T.astype(np.float32)
            lookup[own] = focal * ray[:, :2] / ray[:, 2:] + (side / 2 - 0.5 + len(names) * side, side / 2 - 0.5)
            stretch[own] = 1 / ray[:, 2]
            names.append(name)
    camera = Camera(focal, focal, side / 2, side / 2)
    return Cube(tuple(names), camera, side, lookup[..., 0].copy(), lookup[..., 1].copy(), stretch)
