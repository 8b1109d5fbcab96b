"""A room around the cameras of a sequence: the same walls and things for every camera, whatever its lens and place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from hand_tracking_ros.training.synthetic import lenses, scene
from hand_tracking_ros.training.synthetic.backgrounds import Backgrounds
from hand_tracking_ros.training.synthetic.render import Lights, Renderer, Solid

SUPERSAMPLING = 2
FRONT_PX, WALL_PX = 1024, 512


@dataclass(frozen=True)
class Room:
    """A box (metres, in the rig's frame, the cameras inside) with a picture on each face, and things that stand still.

    walls: for axis x, y, z and then its low and high side one picture (S, S, 3) linear RGB.
    """

    low: np.ndarray
    high: np.ndarray
    walls: tuple[tuple[np.ndarray, np.ndarray], ...]
    solids: tuple[Solid, ...]
    lights: Lights
    level: float  # mean of what camera 0 sees of it

    def views(self, rig: Sequence[lenses.RigCamera], renderer: Renderer) -> list[np.ndarray]:
        """What each camera sees when there are no hands: (H, W, 3) float32 linear RGB."""
        images = [self.seen(camera, renderer) for camera in rig]
        return [image * np.float32(self.level / max(float(images[0].mean()), 1e-3)) for image in images]

    def seen(self, camera: lenses.RigCamera, renderer: Renderer) -> np.ndarray:
        """The view of one camera, before it is brought to the ``level``."""
        large = camera.lens.scaled(SUPERSAMPLING)
        image = self._walls_seen(large, camera)
        _, solids, lights = camera.scene([], list(self.solids), self.lights)
        light, depth = lenses.render(renderer, large, [], lights, solids)
        image = np.where(depth[..., None] > 0, light, image)
        return cv2.resize(image, camera.lens.size_wh, interpolation=cv2.INTER_AREA)

    def _walls_seen(self, lens: lenses.Lens, camera: lenses.RigCamera) -> np.ndarray:
        rays = lens.pixel_rays()
        sees = np.isfinite(rays[..., 2])  # a fisheye may see nothing in the corners of its image
        rays = np.where(sees[..., None], rays, (0.0, 0.0, 1.0)) @ camera.rotation  # into the rig's frame
        eye = -camera.rotation.T @ camera.translation
        with np.errstate(divide="ignore"):
            reach = np.maximum((self.low - eye) / rays, (self.high - eye) / rays)  # where the ray leaves the box
        axis = reach.argmin(axis=-1)
        hit = eye + rays * reach.min(axis=-1)[..., None]
        share = ((hit - self.low) / (self.high - self.low)).astype(np.float32)
        image = np.zeros((*rays.shape[:2], 3), np.float32)
        for a, pictures in enumerate(self.walls):
            column, row = share[..., 2 if a == 0 else 0], share[..., 2 if a == 1 else 1]
            for side, picture in enumerate(pictures):
                own = sees & (axis == a) & ((rays[..., a] > 0) == bool(side))
                if own.any():
                    at = (part * len(picture) - 0.5 for part in (column, row))
                    found = cv2.remap(picture, *at, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
                    image[own] = found[own]
        return image


def random_room(backgrounds: Backgrounds, space_m: float, person: scene.Person, rng: np.random.Generator) -> Room:
    """A room with a picture far behind hands at ``space_m``, clutter between, and now and then a person."""
    far = space_m + np.exp(rng.uniform(np.log(0.5), np.log(2.5)))
    wide = far * rng.uniform(0.9, 1.3)  # the front wall spans 84 to 105 degrees
    low = np.array([-wide, -wide * rng.uniform(0.7, 1.0), -rng.uniform(0.8, 3.0)])
    high = np.array([wide, wide * rng.uniform(0.7, 1.0), far])

    def picture(size: int) -> np.ndarray:
        return np.ascontiguousarray(backgrounds.sample((size, size), rng, least_share=0.6))

    walls = tuple((picture(WALL_PX), picture(FRONT_PX if axis == 2 else WALL_PX)) for axis in range(3))
    solids: list[Solid] = []

    def behind(least: float) -> np.ndarray:
        depth = rng.uniform(space_m + least, max(space_m + least + 0.05, far - 0.1))
        return depth * np.array([rng.uniform(-0.8, 0.8), rng.uniform(-0.5, 0.6), 1.0])

    for _ in range(int(rng.integers(0, 6))):
        solids.append(scene.stray_object(behind(0.35), person, rng))
    if rng.random() < 0.3:
        solids += scene.face_and_body(behind(0.4), person, rng)
    level = float(np.exp(rng.uniform(np.log(0.08), np.log(0.4))))
    return Room(low, high, walls, tuple(solids), scene.random_lights(rng), level)
