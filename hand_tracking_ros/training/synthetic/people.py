"""Where people have their hands: at a table across from the camera, or before a camera that they wear.

Forearms come from where elbows are, and there is a table with things on it. Metres; y points down in the upright frame,
whose origin is the camera, and ``tilt`` turns it into the camera's optical frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hand_tracking_ros.skeleton import Side
from hand_tracking_ros.training.synthetic import scene
from hand_tracking_ros.training.synthetic.lenses import Lens
from hand_tracking_ros.training.synthetic.model import turn, unit
from hand_tracking_ros.training.synthetic.render import SceneHand, Solid

X, Y, Z = np.eye(3)
THUMB_OF_RIGHT = X  # where the thumb of a right hand is, seen from the little finger, in the hand frame
WORN = 0.35  # share of people who wear the camera
HELD = {"thumb": 0.5, "back": 0.35, "any": 0.15}  # what points up: hands are seldom turned as no work needs it


@dataclass(frozen=True)
class Setting:
    """A person whose hands are about ``center`` (3,); ``head`` (3,), or None: it wears the camera. Upright frame."""

    tilt: np.ndarray
    center: np.ndarray
    head: np.ndarray | None

    def hand(self, scenes: scene.SceneSampler, person: scene.Person, side: Side, rng, holds: bool) -> SceneHand:
        """One hand of the person, its forearm from about where the elbow is."""
        right = 1.0 if (side == Side.RIGHT) == (self.head is None) else -1.0  # in the image
        place = self.center + np.array([right * rng.uniform(-0.05, 0.25), rng.normal(0, 0.07), rng.normal(0, 0.07)])
        if self.head is None:
            elbow = np.array([right * rng.uniform(0.12, 0.35), rng.uniform(0.15, 0.4), rng.uniform(-0.1, 0.15)])
        else:
            elbow = self.head + [right * rng.uniform(0.18, 0.4), rng.uniform(0.3, 0.6), rng.uniform(-0.15, 0.1)]
        forearm = unit(unit(elbow - place) + 0.3 * rng.normal(size=3))
        rotation = aligned(scene.random_direction_rotation(rng), Y, forearm)
        held = str(rng.choice(list(HELD), p=list(HELD.values())))
        if held != "any":
            up = Z if held == "back" else THUMB_OF_RIGHT * (1 if side == Side.RIGHT else -1)
            rotation = rolled(rotation, forearm, up, -Y, rng.normal(0, 25))
        return scenes.hand(person, side, rng, self.tilt @ place, self.tilt @ rotation, holds)

    def company(self, person: scene.Person, hands: Sequence[SceneHand], rng: np.random.Generator) -> list[Solid]:
        """The person's head and body, most often a table below the ``hands``, and things on it."""
        solids = [] if self.head is None else scene.face_and_body(self.tilt @ self.head, person, rng, self.tilt)
        if rng.random() < 0.25:
            return solids
        lowest = max([(hand.keypoints_m() @ self.tilt)[:, 1].max() for hand in hands], default=self.center[1])
        top = lowest + 0.015 + abs(rng.normal(0, 0.05))
        middle = np.array([self.center[0] + rng.normal(0, 0.1), top + 0.02, self.center[2] + rng.uniform(-0.1, 0.1)])
        size = (rng.uniform(0.35, 1.0), 0.02, rng.uniform(0.2, 0.45))
        colors = scene.random_color(rng), scene.random_color(rng)
        material = str(rng.choice(["plain", "cloth", "stripes"], p=[0.7, 0.2, 0.1]))
        seed = float(rng.uniform(0, 50))
        solids.append(Solid("box", self.tilt, self.tilt @ middle, size, *colors, material, 0.1, seed))
        for _ in range(rng.poisson(1.2)):
            place = middle + [rng.uniform(-0.35, 0.35), -0.1, rng.uniform(-0.15, 0.2)]
            make = scene.bottle if rng.random() < 0.6 else scene.bundle
            solids += make(self.tilt @ place, rng)
        return solids


def random_setting(ray: np.ndarray, rng: np.random.Generator) -> Setting:
    """A person whose hands are in the direction ``ray`` (3,), unit, of the camera's optical frame."""
    worn = rng.random() < WORN
    distance = rng.uniform(0.22, 0.6) if worn else np.exp(rng.uniform(np.log(0.3), np.log(1.6)))
    tilt = turn(X[None], np.array([rng.uniform(0, 60) if worn else rng.normal(12, 18)]))[0]
    center = tilt.T @ (distance * ray)
    head = None if worn else center + [rng.normal(0, 0.08), rng.uniform(-0.55, -0.3), rng.uniform(0.1, 0.4)]
    return Setting(tilt, center, head)


def bystanders(lens: Lens, hands: Sequence[SceneHand], person: scene.Person, rng: np.random.Generator) -> list[Solid]:
    """Faces, bodies and skin-coloured things that are no hands, anywhere behind the ``hands``."""
    nearest = min([lens.range_m(hand.keypoints_m()).mean() for hand in hands], default=rng.uniform(0.4, 1.5))
    solids: list[Solid] = []

    def somewhere(depth_m: float) -> np.ndarray:
        return depth_m * np.nan_to_num(lens.ray(rng.uniform(0.0, 1.0, 2) * lens.size_wh))

    if rng.random() < (0.35 if hands else 0.5):
        solids += scene.face_and_body(somewhere(nearest + rng.uniform(0.2, 0.9)), person, rng)
    for _ in range(rng.poisson(0.7 if hands else 2.0)):
        solids.append(scene.stray_object(somewhere(nearest + rng.uniform(0.1, 0.8)), person, rng))
    return solids


def rolled(rotation: np.ndarray, forearm: np.ndarray, axis: np.ndarray, goal: np.ndarray, degrees: float) -> np.ndarray:
    """``rotation`` (3, 3), turned about ``forearm`` until its ``axis`` is as near to ``goal`` as can be, then by
    ``degrees`` more."""
    now, wanted = (v - (v @ forearm) * forearm for v in (rotation @ axis, goal))
    angle = np.degrees(np.arctan2(np.cross(now, wanted) @ forearm, now @ wanted))
    return turn(forearm[None], np.array([angle + degrees]))[0] @ rotation


def aligned(rotation: np.ndarray, axis: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """``rotation`` (3, 3), turned the shortest way so that it takes ``axis`` to ``direction``, both unit (3,)."""
    now = rotation @ axis
    across = np.cross(now, direction)
    if np.linalg.norm(across) < 1e-9:
        return rotation
    degrees = np.degrees(np.arctan2(np.linalg.norm(across), now @ direction))
    return turn(unit(across)[None], np.array([degrees]))[0] @ rotation
