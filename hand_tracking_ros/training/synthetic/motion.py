"""Random smooth motions of a hand: minimum jerk between plausible poses and places, with rests, fast phases and exits.

A motion is a function of time, so that pictures can be taken at any moment, and many within one exposure. Its palm is
rigid: the bend of the little finger's metacarpal (CUP) stays what it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from hand_tracking_ros.skeleton import Side
from hand_tracking_ros.training.synthetic.lenses import Lens
from hand_tracking_ros.training.synthetic.model import CUP, HandModel, turn, unit
from hand_tracking_ros.training.synthetic.poses import MEAN_UNIT_M, clip_pose, is_plausible, penetration_m, trajectory
from hand_tracking_ros.training.synthetic.render import Look, SceneHand, Solid
from hand_tracking_ros.training.synthetic.scene import Person, SceneSampler, held_object, random_rotation

PALM = [0, 5, 9, 13, 17]  # a hand is placed by the mean of these: rigid, so that curling does not move the wrist
PHASES = {"slow": 0.4, "fast": 0.2, "rest": 0.24, "wave": 0.08, "leave": 0.08}
SWAY = {0.4: 1.0, 1.3: 0.4}  # Hz and strength: a living hand never rests, it sways by half a degree and a millimetre
MOST_ELBOW_DEG, ARM_M = 40, 0.5  # nearly straight arms, that reach so far from the palm, leave the picture
WANDER_M, WANDER_DEG = 0.02, 6.0  # drift on top of the keys, but at rest


@dataclass(frozen=True)
class Keys:
    """Values (K, D) that are passed at rest at times (K,), with minimum jerk in between."""

    times_s: np.ndarray
    values: np.ndarray

    def at(self, times_s: np.ndarray) -> np.ndarray:
        """(T, D)"""
        return trajectory(self.values, self.times_s, times_s)


@dataclass(frozen=True)
class HandMotion:
    """One hand through time. ``turns`` (K, 3, 3) belong to the keys of ``center``, in the rig's frame (metres)."""

    model: HandModel
    person: Person
    side: Side
    look: Look
    elbow: np.ndarray  # (3, 3)
    pose: Keys  # (K, POSE_SIZE) degrees
    center: Keys  # (K, 3)
    turns: np.ndarray
    unrest: Keys  # (K, 1): 0 in rests, 1 in motion
    phases: np.ndarray  # of all oscillations
    held: Solid | None = field(default=None)  # in the hand's frame

    def values(self, times_s: np.ndarray):
        """Poses (T, POSE_SIZE) degrees, rotations (T, 3, 3) and palm centres (T, 3) in the rig's frame."""
        times_s = np.asarray(times_s, float)
        pose, center, turns = self.pose.at(times_s), self.center.at(times_s), self._turns(times_s)
        pose[:, :25] += 0.4 * self._waves(times_s, 0, 25)
        center = center + 0.0007 * self._waves(times_s, 25, 3)
        unrest, slow = self.unrest.at(times_s), times_s[:, None] * 2 * np.pi
        drift = np.sin(slow * (0.35, 0.5, 0.6, 0.45, 0.3, 0.55) + self.phases[0, -6:]) * unrest
        spin = np.radians(WANDER_DEG) * drift[:, 3:] + np.radians(0.4) * self._waves(times_s, 28, 3)
        return clip_pose(pose), rotations_by(spin) @ turns, center + WANDER_M * drift[:, :3]

    def _waves(self, times_s: np.ndarray, first: int, count: int) -> np.ndarray:
        phases = self.phases[:, first : first + count]
        return sum(
            strength * np.sin(2 * np.pi * hertz * times_s[:, None] + phase)
            for (hertz, strength), phase in zip(SWAY.items(), phases, strict=True)
        )

    def _turns(self, times_s: np.ndarray) -> np.ndarray:
        """Rotation about one axis from key to key, eased like the rest."""
        count = len(self.turns)
        place = Keys(self.center.times_s, np.arange(count, dtype=float)[:, None]).at(times_s)[:, 0]
        key = np.clip(place.astype(int), 0, count - 2)
        steps = np.stack([rotation_vector(self.turns[k].T @ self.turns[k + 1]) for k in range(count - 1)])
        return self.turns[key] @ rotations_by(steps[key] * (place - key)[:, None])

    def hand(self, time_s: float) -> SceneHand:
        """The hand at one moment, in the rig's frame."""
        pose, rotation, center = (values[0] for values in self.values(np.array([time_s])))
        posed = self.model.posed(self.person.shape, pose, self.side, self.person.palm_m, self.elbow)
        return SceneHand(posed, rotation, center - rotation @ posed.keypoints[PALM].mean(axis=0), self.look)

    def solids(self, hand: SceneHand) -> list[Solid]:
        """What ``hand`` holds, in the rig's frame."""
        if self.held is None:
            return []
        place = hand.rotation @ self.held.translation + hand.translation
        return [replace(self.held, rotation=hand.rotation @ self.held.rotation, translation=place)]

    def points_m(self, times_s: np.ndarray) -> np.ndarray:
        """(T, 25, 3): the keypoints, and four points along the forearm, in the rig's frame."""
        poses, rotations, centers = self.values(times_s)
        shapes = np.full(len(poses), self.person.shape)
        bones, keypoints = self.model.forward(shapes, poses)
        elbow = self.model.joints[self.person.shape, 0] * np.linspace(0.25, 1.0, 4)[:, None]
        arm = np.einsum("tij,aj->tai", bones[:, 0, :3, :3], elbow) + bones[:, 0, None, :3, 3]
        unit_m = self.person.palm_m / self.model.palm_units[self.person.shape]
        points = np.concatenate([keypoints, arm], axis=1) * unit_m * (-1.0 if self.side == Side.LEFT else 1.0, 1.0, 1.0)
        points = points - points[:, PALM].mean(axis=1, keepdims=True)
        return np.einsum("tij,tpj->tpi", rotations, points) + centers[:, None]


@dataclass(frozen=True)
class Space:
    """Where a hand may be: columns and rows of the image of camera 0 (shares), at about ``depth_m`` from it."""

    lens: Lens
    depth_m: float
    columns: tuple[float, float] = (0.16, 0.84)
    rows: tuple[float, float] = (0.2, 0.8)

    def inside(self, rng: np.random.Generator) -> np.ndarray:
        share = rng.uniform(self.columns[0], self.columns[1]), rng.uniform(self.rows[0], self.rows[1])
        return self.at(share) * rng.uniform(0.85, 1.18)

    def at(self, share: tuple[float, float]) -> np.ndarray:
        """(3,) metres: the place at ``depth_m`` that the camera sees at these shares of its columns and rows."""
        return self.depth_m * self.lens.ray(np.array(share) * self.lens.size_wh)

    def outside(self, place: np.ndarray, arm: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Out of the image to the left, right or below, where the arm points (3,); 0.2 to 0.3 m from its edge."""
        share = np.clip(self.lens.camera.project(place) / self.lens.size_wh, 0.1, 0.9)
        far = rng.uniform(0.2, 0.3)
        if abs(arm[0]) < max(arm[1], 0.0):
            return self.at((float(share[0]), 1.0)) + np.array([0, far, 0])
        side = float(arm[0] > 0)
        return self.at((side, float(share[1]))) + np.array([far * (2 * side - 1), 0, 0])


class _Script:
    """Writes the keys of one motion, phase after phase."""

    def __init__(self, sampler: SceneSampler, space: Space, holds: bool, rng: np.random.Generator, meet):
        self.sampler, self.space, self.rng, self.meet = sampler, space, rng, meet
        self.holds, self.time = holds, float(rng.uniform(-0.6, 0.0))
        self.cup = float(rng.uniform(1, 6))
        place = space.inside(rng)
        self.pose = self._fixed(self._library()[rng.integers(len(self._library()))])
        self.place_keys: list[tuple[float, np.ndarray, np.ndarray]] = []
        self.place_keys.append((self.time, place, self.next_turn(180, place)))
        self.pose_keys, self.unrest_keys = [(self.time, self.pose)], [(self.time, 0.0)]

    def _library(self) -> np.ndarray:
        return self.sampler.grasps if self.holds else self.sampler.poses

    def _fixed(self, pose: np.ndarray) -> np.ndarray:
        pose = pose.copy()
        pose[CUP] = self.cup
        return pose

    def next_pose(self) -> np.ndarray:
        """A pose on the way to which no finger passes through another, as far as eight draws allow."""
        if self.holds:
            return self._fixed(clip_pose(self.pose + self.rng.normal(0, 1.5, len(self.pose))))
        tries = np.stack([self._fixed(p) for p in self._library()[self.rng.integers(len(self._library()), size=8)]])
        shares = np.array([0.25, 0.4, 0.6, 0.8], np.float32)[:, None, None]
        between = (self.pose + shares * (tries - self.pose)).reshape(-1, len(self.pose))
        model = self.sampler.model
        passable = is_plausible(between, model).reshape(len(shares), -1).all(axis=0)
        gap = penetration_m(MEAN_UNIT_M * model.forward(np.zeros(len(between), int), between)[1])
        self.pose = tries[int(np.argmax(passable + gap.reshape(len(shares), -1).min(axis=0)))]
        return self.pose

    def next_turn(self, most_deg: float, place: np.ndarray) -> np.ndarray:
        """An orientation at ``place``, at most so far from the last one. As far as twelve draws allow, the arm does
        not come from above, and leaves the picture before it ends."""
        for _ in range(12):
            rotation = random_rotation(self.rng, self.sampler.views)
            if self.place_keys:
                last = self.place_keys[-1][2]
                step = rotation_vector(rotation @ last.T)
                share = min(1.0, np.radians(most_deg) / max(np.linalg.norm(step), 1e-9))
                rotation = rotations_by((share * step)[None])[0] @ last
            arm, lens = rotation[:, 1], self.space.lens
            if arm[1] > -0.25 and not lens.inside(lens.camera.project(place + ARM_M * arm)):
                break
        return rotation

    def move(self, seconds: float, place: np.ndarray, rotation: np.ndarray, poses: int = 1) -> None:
        """Go somewhere; change the pose on the way, not always at the same time."""
        start, end = self.time, self.time + seconds
        if self.meet is not None and self.meet[0] <= end:
            place, self.meet = self.meet[1](end), None
        cuts = np.linspace(start, end, poses + 1)
        for a, b in pairwise(cuts):
            late, early = self.rng.uniform(0, 0.3, 2) * (b - a)
            self.pose_keys += [(a + late, self.pose_keys[-1][1]), (b - early, self.next_pose())]
        self.unrest_keys += [(start, self.unrest_keys[-1][1]), (start + min(0.4, seconds / 2), 1.0)]
        self.place_keys.append((end, place, rotation))
        self.time = end

    def rest(self, seconds: float) -> None:
        """Stay; the drift dies out first."""
        settle = 0.4
        self.unrest_keys += [(self.time, self.unrest_keys[-1][1]), (self.time + settle, 0.0)]
        self.time += seconds + settle
        self.place_keys.append((self.time, *self.place_keys[-1][1:]))

    def phase(self, kind: str) -> None:
        rng, (_, place, rotation) = self.rng, self.place_keys[-1]
        if kind == "rest":
            self.rest(rng.uniform(0.4, 1.0))
        elif kind == "slow":
            there = self.space.inside(rng)
            self.move(rng.uniform(0.5, 1.2), there, self.next_turn(80, there), int(rng.integers(0, 3)))
        elif kind == "fast":  # out and, often, back: 0.1 to 0.3 m in a sixth to a third of a second
            there = place + unit(self.space.inside(rng) - place) * rng.uniform(0.06, 0.2)
            self.move(rng.uniform(0.18, 0.35), there, self.next_turn(35, there), 0)
            if rng.random() < 0.6:
                self.move(rng.uniform(0.18, 0.35), place, self.next_turn(35, place), 1)
        elif kind == "wave":
            axis, angle = unit(rng.normal(size=3) + (0, 0, 2)), rng.uniform(0.25, 0.6)
            seconds = rng.uniform(0.18, 0.32)
            for k in range(int(rng.integers(3, 7))):
                swing = rotations_by((axis * angle * (-1) ** k)[None])[0]
                self.move(seconds, place + rng.normal(0, 0.005, 3), swing @ rotation, 0)
        else:
            self.move(rng.uniform(0.4, 0.7), self.space.outside(place, rotation[:, 1], rng), rotation, 0)
            self.rest(rng.uniform(0.0, 0.3))
            there = self.space.inside(rng)
            self.move(rng.uniform(0.4, 0.8), there, self.next_turn(90, there), 1)


def random_motion(
    sampler: SceneSampler, person: Person, side: Side, space: Space, seconds: float, rng: np.random.Generator,
    holds: bool = False, meet: tuple[float, Callable[[float], np.ndarray]] | None = None,
) -> HandMotion:  # fmt: skip
    """A motion of at least ``seconds``, from before 0.

    ``meet``: a time, and where the hand has to be at its first key from then on.
    """
    script = _Script(sampler, space, holds, rng, meet)
    names, shares = list(PHASES), np.array(list(PHASES.values()))
    while script.time < seconds + 0.3:
        script.phase(str(rng.choice(names, p=shares / shares.sum())))
    script.rest(0.1)
    times, places, turns = zip(*script.place_keys, strict=True)
    motion = HandMotion(
        sampler.model, person, side, replace(person.look, seed=float(rng.uniform(0, 50))),
        turn(unit(rng.normal(size=(1, 3))), np.array([rng.uniform(0, MOST_ELBOW_DEG)]))[0],
        _keys(script.pose_keys), Keys(np.array(times), np.array(places)), np.array(turns), _keys(script.unrest_keys),
        rng.uniform(0, 2 * np.pi, (len(SWAY), 40)),
    )  # fmt: skip
    if not holds:
        return motion
    posed = sampler.model.posed(person.shape, script.pose_keys[0][1], side, person.palm_m)
    return replace(motion, held=held_object(SceneHand(posed, np.eye(3), np.zeros(3)), rng))


def _keys(pairs: list[tuple[float, np.ndarray]]) -> Keys:
    """Keys from (time, value) in any order of equal times; the last of equal ones stays, a second one comes after."""
    times = np.maximum.accumulate([time for time, _ in pairs]) + 1e-6 * np.arange(len(pairs))
    values = np.array([np.atleast_1d(value) for _, value in pairs], float)
    return Keys(np.append(times, times[-1] + 60), np.concatenate([values, values[-1:]]))


def rotation_vector(rotation: np.ndarray) -> np.ndarray:
    """(3,) axis times angle (radians, 0 to pi) of a rotation (3, 3)."""
    angle = np.arccos(np.clip((np.trace(rotation) - 1) / 2, -1, 1))
    axis = np.array([rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0], rotation[1, 0] - rotation[0, 1]])
    if angle < np.pi - 1e-3:
        return axis * (0.5 if angle < 1e-6 else angle / (2 * np.sin(angle)))
    column = int(np.argmax(np.diag(rotation)))  # near half a turn: (R + 1) / 2 is axis axis^T
    return angle * unit(rotation[:, column] + np.eye(3)[column])


def rotations_by(vectors: np.ndarray) -> np.ndarray:
    """(N, 3, 3) rotations of axis times angle (N, 3), radians."""
    angle = np.linalg.norm(vectors, axis=-1)
    x, y, z = np.moveaxis(vectors / np.maximum(angle, 1e-12)[..., None], -1, 0)
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(*x.shape, 3, 3)
    angle = angle[..., None, None]
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)
