"""Random scenes: hands with arms, the person's face and body, objects, light. Metres, camera's optical frame."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from hand_tracking_ros.skeleton import TIPS, Side
from hand_tracking_ros.training.synthetic.model import HandModel, turn, unit
from hand_tracking_ros.training.synthetic.poses import MIXTURE, clip_pose, grasp_library, pose_library
from hand_tracking_ros.training.synthetic.render import AWAY, Lights, Look, SceneHand, Solid

SKIN_TONES = np.array(
    [(0.78, 0.56, 0.46), (0.62, 0.41, 0.30), (0.42, 0.25, 0.16), (0.22, 0.12, 0.075), (0.09, 0.05, 0.035)]
)
X, Y, Z = np.eye(3)
VIEWS = {"facing": 0.3, "towards": 0.38, "away": 0.14, "any": 0.18}  # the fingers point across, at or from the camera


@dataclass(frozen=True)
class Person:
    """What the two hands of one person have in common."""

    shape: int
    palm_m: float
    look: Look


class SceneSampler:
    """Draws random hands, people, objects and lights. ``poses``: size of the library of plausible poses.

    ``mixture`` of poses and ``views``: relative shares by name.
    """

    def __init__(self, model: HandModel, seed: int, poses: int = 4000, mixture=MIXTURE, views=VIEWS):
        self.model, self.views = model, views
        self.poses = pose_library(poses, model, np.random.default_rng([seed, 104729]), mixture)
        self.grasps = grasp_library(poses // 4, model, np.random.default_rng([seed, 104723]))

    def person(self, rng: np.random.Generator) -> Person:
        """A random adult or (rarely) child, with skin, sleeves and jewellery."""
        child = rng.random() < 0.08
        palm_m = rng.normal(0.068, 0.006) if child else rng.normal(0.088, 0.0065)
        return Person(int(rng.integers(self.model.num_shapes)), float(np.clip(palm_m, 0.055, 0.108)), random_look(rng))

    def hand(
        self, person: Person, side: Side, rng: np.random.Generator, position: np.ndarray, rotation=None, holds=False
    ) -> SceneHand:
        """A hand with a random pose, one to hold something where ``holds``; keypoints centred on ``position`` (3,)."""
        library = self.grasps if holds else self.poses
        pose = library[rng.integers(len(library))] + rng.normal(0, 1.5, library.shape[1])
        elbow = turn(unit(rng.normal(size=(1, 3))), np.array([rng.uniform(0, 100)]))[0]
        posed = self.model.posed(person.shape, clip_pose(pose), side, person.palm_m, elbow)
        rotation = random_rotation(rng, self.views) if rotation is None else rotation
        center = posed.keypoints.min(axis=0) / 2 + posed.keypoints.max(axis=0) / 2
        return SceneHand(
            posed, rotation, position - rotation @ center, replace(person.look, seed=float(rng.uniform(0, 50)))
        )


def random_rotation(rng: np.random.Generator, views=VIEWS) -> np.ndarray:
    """(3, 3) camera from hand frame: palm or back towards the camera, along the fingers, or any.

    Half of the VIEWS look along the fingers: a fist or finger held towards the camera, or the wearer's own hands from
    behind. Photo collections hardly hold such views (2 of 1000 hands of HaGRID), so they have to come from here.
    """
    kind = rng.choice(list(views), p=np.array(list(views.values())) / sum(views.values()))
    if kind == "any":
        return random_direction_rotation(rng)
    if kind == "facing":
        roll = rng.uniform(-60, 60) if rng.random() < 0.65 else rng.uniform(-180, 180)
        yaw = rng.choice([0.0, 180.0, rng.uniform(-180, 180)], p=[0.37, 0.33, 0.30]) + rng.normal(0, 28)
        return rotation_of(roll, rng.normal(-5, 30), yaw)
    pitch = rng.uniform(35, 110) if kind == "towards" else rng.uniform(-110, -35)
    return rotation_of(rng.uniform(-180, 180), pitch, rng.uniform(-180, 180))


def rotation_of(roll: float, pitch: float, yaw: float) -> np.ndarray:
    """Yaw about the hand's own long axis first, then pitch towards the camera, then roll in the image; degrees."""
    return np.linalg.multi_dot([turn(axis[None], np.array([a]))[0] for axis, a in ((Z, roll), (X, pitch), (Y, yaw))])


def random_direction_rotation(rng: np.random.Generator) -> np.ndarray:
    """Uniform over all rotations."""
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q if np.linalg.det(q) > 0 else q * np.array([1.0, 1.0, -1.0])


def skin_color(rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Linear RGB and its darkness 0..1, from very light to very dark skin."""
    darkness = rng.uniform(0, 1)
    place = darkness * (len(SKIN_TONES) - 1)
    low = min(int(place), len(SKIN_TONES) - 2)
    log_tone = np.log(SKIN_TONES[low]) * (low + 1 - place) + np.log(SKIN_TONES[low + 1]) * (place - low)
    return np.exp(log_tone + rng.normal(0, 0.08) + rng.normal(0, 0.05, 3)), darkness


def random_look(rng: np.random.Generator) -> Look:
    color, darkness = skin_color(rng)
    sleeve = rng.random() < 0.6
    start = rng.uniform(-0.05, 0.25) if rng.random() < 0.6 else rng.uniform(0.25, 1.6)
    band = rng.random() < 0.15
    band_start = rng.uniform(0.1, 0.5)
    gloved = rng.random() < 0.03
    if gloved:
        color = np.full(3, rng.uniform(0.02, 0.8)) * np.exp(rng.normal(0, 0.3, 3))
    return Look(
        skin_color=tuple(color),
        palm_lightness=0.0 if gloved else rng.uniform(0, 0.15) + darkness * rng.uniform(0, 0.7),
        nail_lightness=0.0
        if gloved
        else rng.uniform(-0.1, 0.35) + (rng.choice([-0.7, 0.6]) if rng.random() < 0.07 else 0),
        crease_depth=rng.uniform(0, 0.1) if gloved else rng.uniform(0.03, 0.4),
        mottle=rng.uniform(0, 0.12),
        grain=rng.uniform(0, 0.12),
        relief=rng.uniform(0, 0.12),
        specular=rng.uniform(0, 0.16) ** 1.4,
        gloss=rng.uniform(4, 40),
        sleeve_start=start if sleeve else AWAY,
        sleeve_thickness=rng.uniform(0.02, 0.16),
        sleeve_color=tuple(np.exp(rng.uniform(np.log(0.02), np.log(0.85))) * np.exp(rng.normal(0, 0.35, 3))),
        sleeve_pattern=rng.uniform(0.1, 0.8) if rng.random() < 0.2 else 0.0,
        band_start=band_start if band else AWAY,
        band_end=band_start + rng.uniform(0.06, 0.3) if band else AWAY,
        band_color=tuple(np.full(3, rng.uniform(0.01, 0.7))),
    )


def random_lights(rng: np.random.Generator) -> Lights:
    """From an overcast sky to one hard lamp, from any side, now and then from behind."""
    hard = rng.random()
    ambient = rng.uniform(0.1, 0.9) * (1.3 - hard)
    tint = np.exp(rng.normal(0, 0.08, 3))
    bias = np.array([0, -0.5, -0.6]) if rng.random() < 0.85 else np.array([0, -0.2, 0.5])
    fill = rng.uniform(0, 0.6) * (rng.random() < 0.7)
    return Lights(
        key_direction=unit(rng.normal(size=3) + bias),
        key_color=tuple(rng.uniform(0.3, 2.0) * hard * tint + 0.1),
        fill_direction=unit(rng.normal(size=3) + np.array([0, 0, -0.4])),
        fill_color=tuple(fill / tint),
        sky_color=tuple(ambient * np.exp(rng.normal(0, 0.08, 3))),
        ground_color=tuple(ambient * rng.uniform(0.2, 0.8) * np.ones(3)),
        shadow_strength=rng.uniform(0.4, 0.95),
        wrap=rng.uniform(0.0, 0.45),
    )


def face_and_body(
    position: np.ndarray, person: Person, rng: np.random.Generator, upright: np.ndarray = np.eye(3)
) -> list[Solid]:
    """A head at ``position`` (3,) turned roughly to the camera, with neck and torso below.

    ``upright`` (3, 3): the camera's frame from one whose y points down.
    """
    turned = upright @ rotation_of(rng.normal(0, 12), rng.normal(0, 15), rng.normal(0, 30))
    skin, cloth = person.look.skin_color, person.look.sleeve_color
    hair = tuple(np.exp(rng.uniform(np.log(0.01), np.log(0.4))) * np.array([1.0, 0.8, 0.6]))
    seed = float(rng.uniform(0, 50))
    head = (0.075 * rng.uniform(0.9, 1.1), 0.11 * rng.uniform(0.9, 1.1), 0.095)

    def below(down: float, back: float) -> np.ndarray:
        return position + upright @ np.array([0.0, down, back])

    cloth_look = {"color": cloth, "material": "cloth", "specular": 0.01, "seed": seed}
    return [
        Solid("sphere", turned, position, head, skin, hair, "face", 0.06, seed),
        Solid("cylinder", upright, below(0.15, 0.02), (0.055, 0.08, 0.055), skin, seed=seed),
        Solid("sphere", upright, below(0.24, 0.04), (0.22, 0.07, 0.09), **cloth_look),
        Solid("sphere", upright, below(0.46, 0.04), (0.19, 0.28, 0.12), **cloth_look),
    ]


def held_object(hand: SceneHand, rng: np.random.Generator) -> Solid:
    """Something in the hand, between palm and fingers and as thick as they leave room: a cup, a box, a ball, a pen."""
    shape = str(rng.choice(["cylinder", "box", "sphere"], p=[0.6, 0.2, 0.2]))
    radii = [0.004] if rng.random() < 0.15 else rng.uniform(0.015, 0.055, 5)
    points = hand.posed.keypoints.astype(float)
    along = turn(unit(rng.normal(size=(1, 3))), np.array([rng.normal(0, 25)]))[0] @ unit(points[5] - points[17])
    across = np.stack([np.cross(along, Z), along, Z], axis=1)
    across[:, 0] = unit(across[:, 0])
    across[:, 2] = np.cross(across[:, 0], across[:, 1])  # columns: the object's axes in the hand frame
    fits = [grasp(points, across, radius, shape == "sphere") for radius in radii]
    best = int(np.argmin([gap for _, gap in fits]))
    radius, place = float(radii[best]), fits[best][0] + along * rng.normal(0, 0.02)
    length = radius if shape == "sphere" else float(rng.uniform(0.04, 0.12))
    size = (radius, length, radius * (rng.uniform(0.4, 1.0) if shape == "box" else 1.0))
    return Solid(
        shape, hand.rotation @ across, hand.rotation @ place + hand.translation, size, random_color(rng),
        random_color(rng), str(rng.choice(["plain", "stripes"])), rng.uniform(0, 0.4), float(rng.uniform(0, 50)),
    )  # fmt: skip


def grasp(points: np.ndarray, axes: np.ndarray, radius_m: float, is_ball: bool) -> tuple[np.ndarray, float]:
    """Where an object of that radius sits (3,), and how far the fingertips are from its surface on average, in metres.

    It sits before the palm, free of all bones, as near to the palm as that allows. points (21, 3): keypoints in the
    hand frame; axes (3, 3): the object's axes as columns, the second its length.
    """
    bones = np.concatenate([points, *[(points[1:] + points[:-1]) / 2]])
    palm = points[[0, 5, 17]].mean(axis=0)
    out, up = np.meshgrid(np.linspace(0.01, 0.1, 19), np.linspace(-0.06, 0.03, 13), indexing="ij")
    tries = palm - out.reshape(-1, 1) * Z + up.reshape(-1, 1) * Y
    gap = bones - tries[:, None]
    if not is_ball:
        gap = gap - (gap @ axes[:, 1])[..., None] * axes[:, 1]
    surface_m = np.linalg.norm(gap, axis=-1) - radius_m - 0.01  # a finger's half thickness
    cost = np.linalg.norm(tries - palm, axis=-1) + 10 * np.maximum(0, -surface_m.min(axis=1))
    best = cost.argmin()
    return tries[best], float(np.abs(surface_m[best, list(TIPS)]).mean())


def stray_object(position: np.ndarray, person: Person, rng: np.random.Generator) -> Solid:
    """A distractor at ``position``: often skin-coloured, or as thin as a finger or an arm."""
    shape = str(rng.choice(["sphere", "cylinder", "box"], p=[0.25, 0.55, 0.2]))
    long, thin = rng.uniform(0.03, 0.25), rng.uniform(0.006, 0.06)
    color = person.look.skin_color if rng.random() < 0.45 else random_color(rng)
    material = str(rng.choice(["plain", "cloth", "stripes"], p=[0.6, 0.2, 0.2]))
    size = (thin, long, thin * rng.uniform(0.5, 1.5))
    return Solid(
        shape, random_direction_rotation(rng), position, size, color, random_color(rng), material,
        rng.uniform(0, 0.3), float(rng.uniform(0, 50)),
    )  # fmt: skip


def bottle(position: np.ndarray, rng: np.random.Generator) -> list[Solid]:
    """A bottle, can or jar that stands or lies at ``position`` (3,): body, shoulder, neck and cap."""
    axes = rotation_of(rng.normal(0, 25) if rng.random() < 0.8 else rng.uniform(0, 360), rng.normal(0, 15), 0.0)
    radius, height = rng.uniform(0.02, 0.045), rng.uniform(0.05, 0.12)
    look = {"color": random_color(rng), "specular": rng.uniform(0.1, 0.6), "seed": float(rng.uniform(0, 50))}
    parts = [Solid("cylinder", axes, position, (radius, height, radius), material="stripes", **look)]
    if rng.random() < 0.7:
        neck, up = radius * rng.uniform(0.25, 0.6), axes[:, 1]
        parts += [
            Solid("sphere", axes, position - up * height, (radius, radius * rng.uniform(0.8, 2.0), radius), **look),
            Solid("cylinder", axes, position - up * (height + 1.6 * radius), (neck, radius, neck), **look),
            Solid("cylinder", axes, position - up * (height + 2.6 * radius), (neck * 1.2, neck * 0.7, neck * 1.2),
                  random_color(rng), seed=look["seed"]),
        ]  # fmt: skip
    return parts


def bundle(position: np.ndarray, rng: np.random.Generator) -> list[Solid]:
    """Things side by side as fingers are: pens, cables, chair legs, blocks."""
    axes, color = random_direction_rotation(rng), random_color(rng)
    thin, long, gap = rng.uniform(0.004, 0.012), rng.uniform(0.03, 0.08), rng.uniform(1.6, 3.5)
    shape, seed = str(rng.choice(["cylinder", "box"])), float(rng.uniform(0, 50))
    places = [
        position + axes[:, 0] * thin * gap * k + axes[:, 1] * rng.normal(0, 0.01) for k in range(rng.integers(2, 6))
    ]
    return [
        Solid(shape, axes, place, (thin, long * rng.uniform(0.7, 1.2), thin), color, random_color(rng), "plain",
              rng.uniform(0, 0.4), seed)
        for place in places
    ]  # fmt: skip


def random_color(rng: np.random.Generator) -> tuple[float, float, float]:
    return tuple(np.exp(rng.uniform(np.log(0.015), np.log(0.85))) * np.exp(rng.normal(0, 0.4, 3)))
