"""Random sequences: who moves which hands how, before which rig of cameras, in which room and light."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from hand_tracking_ros.skeleton import Side
from hand_tracking_ros.training.synthetic import lenses, photo, scene
from hand_tracking_ros.training.synthetic.backgrounds import Backgrounds
from hand_tracking_ros.training.synthetic.film import Exposure
from hand_tracking_ros.training.synthetic.lenses import Lens, RigCamera
from hand_tracking_ros.training.synthetic.model import hand_model
from hand_tracking_ros.training.synthetic.motion import PALM, HandMotion, Space, random_motion
from hand_tracking_ros.training.synthetic.render import Lights, SceneHand, Solid
from hand_tracking_ros.training.synthetic.rooms import Room, random_room

SIZE_WH = (640, 480)
FIELDS_DEG = {"pinhole": (55, 88), "fisheye": (100, 150)}  # horizontal
LEAST_GAP_M = 0.03  # between the joints of two hands


@dataclass(frozen=True)
class Passer:
    """Something that crosses the view on a straight line, at ``speed_m_s`` (3,); ``solid`` is where it is at time 0."""

    solid: Solid
    speed_m_s: np.ndarray

    def at(self, time_s: float) -> Solid:
        return replace(self.solid, translation=self.solid.translation + self.speed_m_s * time_s)


@dataclass(frozen=True)
class Sequence:
    """All that a random sequence is made of. Places are in the rig's frame, that of camera 0."""

    rig: tuple[RigCamera, ...]
    motions: tuple[HandMotion, ...]
    passers: tuple[Passer, ...]
    room: Room
    lights: Lights
    shot: photo.Shot
    exposure: Exposure
    mono: tuple[float, float, float]

    def at(self, time_s: float) -> tuple[list[SceneHand], list[Solid]]:
        """The hands and the moving things at one moment."""
        hands = [motion.hand(time_s) for motion in self.motions]
        held = [solid for motion, hand in zip(self.motions, hands, strict=True) for solid in motion.solids(hand)]
        return hands, held + [passer.at(time_s) for passer in self.passers]


class Director:
    """Draws sequences. ``fisheye``: share of those with fisheye cameras; sequence k of a seed is always the same."""

    def __init__(
        self, seed: int, cameras: int = 1, fisheye: float = 0.0, background_folders=(), skip=(), poses: int = 1000
    ):
        self.seed, self.cameras, self.fisheye = seed, cameras, fisheye
        self.model = hand_model()
        self.scenes = scene.SceneSampler(self.model, seed, poses)
        self.backgrounds = Backgrounds(background_folders, seed, skip=skip)
        self.shapes = np.random.default_rng([seed, 6]).permutation(self.model.num_shapes)

    def sequence(self, index: int, seconds: float) -> Sequence:
        """Sequence number ``index``, whose motions last at least so long. Different lengths move differently."""
        rng = np.random.default_rng([self.seed, 5, index])
        model = "fisheye" if rng.random() < self.fisheye else "pinhole"
        lens = lenses.random_lens(model, rng, SIZE_WH, rng.uniform(*FIELDS_DEG[model]))
        person = self._person(2 * index, rng)
        palm_px = np.exp(rng.uniform(np.log(46), np.log(115))) * (0.85 if lens.is_fisheye else 1.0)
        depth_m = float(np.clip(lens.camera.fx * person.palm_m / palm_px, 0.24, 1.2))
        motions = self._motions(index, person, lens, depth_m, seconds, rng)
        passers = [random_passer(lens, depth_m, seconds, person, rng) for _ in range(rng.poisson(0.5))]
        return Sequence(
            random_rig(lens, self.cameras, depth_m, rng), motions, tuple(passers),
            random_room(self.backgrounds, depth_m, person, rng), scene.random_lights(rng), random_shot(rng),
            Exposure(float(np.exp(rng.uniform(np.log(0.003), np.log(0.018)))), 0.015 if rng.random() < 0.25 else 0.0),
            photo.MONO_WEIGHTS[str(rng.choice(list(photo.MONO_WEIGHTS), p=photo.MONO_CHANCES))],
        )  # fmt: skip

    def _person(self, number: int, rng: np.random.Generator) -> scene.Person:
        """No two sequences of less than half as many as there are shapes show the same hand."""
        return replace(self.scenes.person(rng), shape=int(self.shapes[number % len(self.shapes)]))

    def _motions(self, index, person, lens: Lens, depth_m: float, seconds: float, rng: np.random.Generator):
        """The motions of one or two hands, of one person or two."""
        side = Side(int(rng.integers(1, 3)))
        holds = bool(rng.random() < 0.2)
        if rng.random() < 0.6:
            return (random_motion(self.scenes, person, side, Space(lens, depth_m), seconds, rng, holds),)
        guest = rng.random() < 0.12
        other = self._person(2 * index + 1, rng) if guest else person
        other_side = side if guest and rng.random() < 0.5 else Side.LEFT if side == Side.RIGHT else Side.RIGHT
        crossing = rng.random() < 0.6
        left = Space(lens, depth_m, columns=(0.12, 0.48))
        right = replace(left, columns=(0.52, 0.88))
        times = np.arange(0, seconds + 0.01, 1 / 30)
        for attempt in range(40):  # until the hands do not touch; the crossing goes when it does not work out
            first = random_motion(self.scenes, person, side, left, seconds, rng, holds)
            meet = _crossing(first, rng.uniform(0.2, 0.8) * seconds, rng) if crossing and attempt < 25 else None
            second = random_motion(self.scenes, other, other_side, right, seconds, rng, meet=meet)
            if least_gap_m(first.points_m(times), second.points_m(times)) > LEAST_GAP_M:
                return first, second
        return (first,)


def _crossing(first: HandMotion, time_s: float, rng: np.random.Generator):
    """Where the second hand goes at a time: behind or before the first one, with which it then shares the picture."""
    shift, beside = rng.choice([-1, 1]) * rng.uniform(0.1, 0.17), rng.normal(0, 0.03, 3) * (1, 1, 0)

    def place(at_s: float) -> np.ndarray:
        center = first.points_m(np.array([at_s]))[0, PALM].mean(axis=0)
        return center * max(0.5, 1 + shift / np.linalg.norm(center)) + beside

    return time_s, place


def least_gap_m(first: np.ndarray, second: np.ndarray) -> float:
    """Smallest distance at any time between points (T, N, 3) and points (T, M, 3)."""
    return float(min(np.linalg.norm(a[:, None] - b, axis=-1).min() for a, b in zip(first, second, strict=True)))


def random_passer(lens: Lens, depth_m: float, seconds: float, person, rng: np.random.Generator) -> Passer:
    """A thing that crosses the view before the hands or between them, within half a second to two."""
    speed = rng.choice([-1, 1]) * rng.uniform(0.3, 1.2)
    near = rng.uniform(0.5, 0.85) * depth_m
    middle = near * lens.ray(np.array([rng.uniform(0.3, 0.7), rng.uniform(0.25, 0.75)]) * lens.size_wh)
    velocity = np.array([speed, rng.normal(0, 0.2), 0.0])
    start = middle - velocity * rng.uniform(0.2, 0.8) * seconds
    solid = scene.stray_object(start, person, rng)
    return Passer(replace(solid, size_m=tuple(0.6 * np.array(solid.size_m))), velocity)


def random_rig(lens: Lens, count: int, depth_m: float, rng: np.random.Generator) -> tuple[RigCamera, ...]:
    """``count`` cameras beside each other, 6 to 30 cm apart, that look at the same hands at ``depth_m``."""
    rig = [RigCamera("cam0", lens)]
    apart = rng.uniform(0.06, 0.30) if count == 2 else rng.uniform(0.06, 0.14)
    target, side = np.array([0.0, 0.0, depth_m]), rng.choice([-1, 1])
    for number in range(1, count):
        position = np.array([side * apart * number, *rng.normal(0, 0.012, 2)])
        far = 4.0 if apart * number < 0.2 * depth_m and rng.random() < 0.4 else 1.0  # nearly parallel
        rotation, _ = lenses.looking(position, target * far + rng.normal(0, 0.01, 3))
        rotation = scene.rotation_of(*rng.normal(0, 1.0, 3)) @ rotation
        other = replace(lens, camera=replace(
            lens.camera, fx=lens.camera.fx * rng.uniform(0.99, 1.01), fy=lens.camera.fy * rng.uniform(0.99, 1.01),
            cx=lens.camera.cx + rng.normal(0, 3), cy=lens.camera.cy + rng.normal(0, 3),
        ))  # fmt: skip
        rig.append(RigCamera(f"cam{number}", other, rotation, -rotation @ position))
    return tuple(rig)


def random_shot(rng: np.random.Generator) -> photo.Shot:
    """How a tracking camera takes its pictures: mostly well, one in eight in the dark."""
    dark = rng.random() < 0.12
    noise = rng.uniform(0.015, 0.05) if dark else rng.uniform(0.002, 0.014)
    return photo.Shot(
        target_level=float(rng.uniform(0.02, 0.06) if dark else np.exp(rng.uniform(np.log(0.13), np.log(0.42)))),
        meter_hand=False, read_noise=0.5 * noise, shot_noise=0.6 * noise, defocus_px=rng.uniform(0.3, 1.0),
        background_defocus_px=rng.uniform(0.5, 2.5), vignette=rng.uniform(0, 0.4), gamma=rng.uniform(1.8, 2.4),
        contrast=rng.uniform(0.85, 1.15),
    )  # fmt: skip
