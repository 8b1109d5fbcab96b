"""The kinematic hand: 26 degrees of freedom, bone lengths from one palm length and optional ratios per bone.

Hand frame (right hand): origin at the wrist, x towards the thumb, y from the fingers towards the arm, z out of the
back of the hand, so a hand with its fingers up that shows its palm to a camera has the camera's own axes. A left hand
is the mirror image in x: the mirror is in ``HandPose.points`` and ``KinematicHand`` and nowhere else.

Joint angles are radians, (20,): per finger, thumb first, flexion and abduction of the base (thumb: of the
carpometacarpal joint), flexion of the middle joint, flexion of the last joint. Zero is the straight finger of a flat
hand; flexion bends towards the palm, abduction leads towards the thumb (the thumb's: towards the index finger). The
bend axes of a finger's three joints are parallel. MEgATrack (Han et al. 2020, section 5) has the same degrees of
freedom.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np

from hand_tracking_ros.skeleton import FINGERS, NUM_JOINTS, Side

NUM_ANGLES = 20
ANGLE_NAMES = tuple(
    f"{finger}_{joint}" for finger in FINGERS for joint in ("flexion", "abduction", "middle_flexion", "tip_flexion")
)
BONES = tuple((chain[k - 1] if k else 0, joint) for chain in FINGERS.values() for k, joint in enumerate(chain))
"""(parent, child) of the 20 bones: metacarpal or thumb root, then the three phalanges of each finger."""
NUM_BONES = len(BONES)
BONE_RATIOS = (0.5, 2.0)  # least and most of a bone over that of the mean hand

# Keypoints of the flat hand in palm lengths (0 to 9), and the axis about which each finger bends: means over the
# generator's 256 hand shapes (MakeHuman, CC0, with people's proportions: training/synthetic/bake.py). The keypoints lie
# where people and MediaPipe put them (training/synthetic/model.py).
FLAT_HAND = np.array([
    (0, 0, 0),
    (0.3353, -0.2435, -0.0520), (0.5455, -0.4784, -0.3341), (0.7112, -0.7074, -0.4906), (0.7892, -0.9146, -0.6286),
    (0.2778, -1.0138, -0.0497), (0.3503, -1.4681, -0.0599), (0.3753, -1.7447, -0.0662), (0.3994, -1.9652, -0.0712),
    (0.0023, -1.0000, -0.0021), (-0.0587, -1.4864, 0.0164), (-0.0838, -1.7797, 0.0274), (-0.0908, -2.0103, 0.0360),
    (-0.2194, -0.9292, 0.0039), (-0.3389, -1.3541, 0.0392), (-0.4044, -1.6111, 0.0604), (-0.4671, -1.8120, 0.0771),
    (-0.4103, -0.8188, -0.0431), (-0.5538, -1.1376, -0.0411), (-0.6369, -1.3356, -0.0400), (-0.7135, -1.4963, -0.0391),
])  # fmt: skip
BEND_AXES = np.array([
    (0.4221, 0.7646, -0.4871), (0.9932, 0.1165, 0.0), (0.9959, -0.0907, 0.0), (0.9582, -0.2861, 0.0),
    (0.9102, -0.4142, 0.0),
])  # fmt: skip
THUMB_OPPOSITION = np.array([-0.7538, -0.0028, -0.6571])  # out of the thumb's pulp, where its abduction turns about

# Anatomical limits in degrees, per finger (low, high) of flexion, abduction, middle and last flexion.
_THUMB_LIMITS = ((-35, 60), (-40, 45), (-20, 65), (-30, 85))
_FINGER_LIMITS = ((-35, 100), (-24, 24), (-10, 115), (-15, 90))
LIMITS = np.radians(np.array([*_THUMB_LIMITS, *_FINGER_LIMITS * 4], np.float64))  # (20, 2)
_ABDUCTION_SIGN = np.array([1.0, -1.0, -1.0, -1.0, -1.0])
_EYE = np.eye(3)
_MIRROR, _NO_MIRROR = np.array([-1.0, 1.0, 1.0]), np.ones(3)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def skew(vectors: np.ndarray) -> np.ndarray:
    """(..., 3, 3) cross product matrices: skew(a) @ b = a x b."""
    out = np.zeros((*vectors.shape, 3))
    out[..., 0, 1], out[..., 0, 2], out[..., 1, 2] = -vectors[..., 2], vectors[..., 1], -vectors[..., 0]
    out[..., 1, 0], out[..., 2, 0], out[..., 2, 1] = vectors[..., 2], -vectors[..., 1], vectors[..., 0]
    return out


def exp_rotation(vector: np.ndarray) -> np.ndarray:
    """(3, 3) rotation by ``vector`` (3,): axis times angle in radians (Rodrigues)."""
    x, y, z = vector.tolist()  # plain numbers: numpy takes several times longer on so few
    square = x * x + y * y + z * z
    angle = math.sqrt(square)
    if angle < 1e-6:
        a, b = 1.0 - square / 6, 0.5 - square / 24
    else:
        a, b = math.sin(angle) / angle, (1 - math.cos(angle)) / square
    c = 1.0 - b * square
    return np.array([
        (c + b * x * x, b * x * y - a * z, b * x * z + a * y),
        (b * x * y + a * z, c + b * y * y, b * y * z - a * x),
        (b * x * z - a * y, b * y * z + a * x, c + b * z * z),
    ])  # fmt: skip


def log_rotation(rotation: np.ndarray) -> np.ndarray:
    """(3,) axis times angle (radians, 0..pi) of a rotation (3, 3): the inverse of exp_rotation."""
    (a, b, c), (d, e, f), (g, h, i) = rotation.tolist()
    x, y, z = h - f, c - g, d - b
    sine, cosine = math.sqrt(x * x + y * y + z * z) / 2, (a + e + i - 1) / 2
    angle = math.atan2(sine, cosine)
    if sine > 1e-6:
        share = angle / (2 * sine)
        return np.array([share * x, share * y, share * z])
    if cosine > 0:
        return np.array([x / 2, y / 2, z / 2])
    outer = (rotation + np.eye(3)) / 2  # half a turn: axis axis^T
    axis = outer[:, np.argmax(np.diag(outer))]
    return angle * axis / np.linalg.norm(axis)


class KinematicHand:
    """Bone geometry of one person's hand: ``bone_lengths`` (20,) in palm lengths, and what forward kinematics needs.

    ``bone_ratios`` (20,): each bone's length over that of the mean hand, in the order of ``BONES``; default 1. Raises
    ValueError when they are not 20 finite numbers between 0.5 and 2.
    """

    def __init__(self, bone_ratios: np.ndarray | None = None):
        ratios = np.ones(NUM_BONES) if bone_ratios is None else np.asarray(bone_ratios, np.float64)
        low, high = BONE_RATIOS
        if ratios.shape != (NUM_BONES,) or not ((ratios >= low) & (ratios <= high)).all():
            raise ValueError(
                f"bone_ratios must be {NUM_BONES} numbers between {low:g} and {high:g}, got {ratios.tolist()}"
            )
        self.bone_ratios = ratios
        parents, children = np.array(BONES).T
        bones = (FLAT_HAND[children] - FLAT_HAND[parents]) * ratios[:, None]
        self.bone_lengths = np.linalg.norm(bones, axis=1)  # (20,)
        bones = bones.reshape(5, 4, 3)
        self.bases = bones[:, 0].copy()  # (5, 3)
        self._at_bases = np.vstack([np.zeros(3), np.repeat(self.bases, 4, axis=0)])  # (21, 3): fingers of no length
        phalanges = bones[:, 1:]  # (5, 3, 3)
        axes = _unit(BEND_AXES)
        outwards = np.cross(axes, _unit(bones[:, 1]))  # for the fingers: out of the palm, towards the palm's side
        outwards[0] = THUMB_OPPOSITION
        self.spread_axes = _ABDUCTION_SIGN[:, None] * _unit(outwards)  # (5, 3)
        self.bend_axes = axes
        # Rodrigues about the bend axis, v cos + (a x v) sin + a (a.v) (1 - cos), then about the spread axis: a phalanx
        # is linear in the products of (1, cos, sin) of its finger's spread and of its own bend.
        along = (phalanges @ axes[:, :, None]) * axes[:, None]
        bent = np.stack([along, phalanges - along, np.cross(axes[:, None], phalanges)], axis=2)  # (5, 3, 3 trig, 3)
        cross = skew(self.spread_axes)
        square = cross @ cross
        spread = np.stack([_EYE + square, -square, cross], axis=1)  # (5, 3 trig, 3, 3)
        self._bend_axis = (spread @ axes[:, None, :, None])[..., 0]  # (5, 3 trig, 3): spread with the finger
        terms = np.einsum("fsxy,fpby->fxspb", spread, bent)
        self._moves = _moves(terms)

    def forward(self, angles: np.ndarray, finger_ratio: float = 1.0) -> np.ndarray:
        """Keypoints (21, 3) of a right hand in the hand frame, palm lengths, at ``angles`` (20,).

        ``finger_ratio`` multiplies the length of all phalanges.
        """
        points = self._at_bases.copy()
        moved = (self._moves[:, :9] @ _trig_products(angles)).reshape(5, 3, 3)
        points[1:].reshape(5, 4, 3)[:, 1:] += finger_ratio * moved
        return points

    def jacobian(self, angles: np.ndarray, finger_ratio: float | np.ndarray = 1.0) -> tuple[np.ndarray, np.ndarray]:
        """Keypoints (..., 21, 3) as ``forward`` at ``angles`` (..., 20), and their derivative (..., 21, 3, 21): by the
        angles, palm lengths per radian, and by the logarithm of ``finger_ratio``, a number or (...)."""
        products = _trig_products(angles) * np.asarray(finger_ratio)[..., None, None, None]
        moved = (self._moves @ products).reshape(*angles.shape[:-1], _PLACES.size)
        by_parameter = np.zeros((*angles.shape[:-1], NUM_JOINTS * (NUM_ANGLES + 1) * 3))
        by_parameter[..., _PLACES] = moved
        by_parameter = by_parameter.reshape(*angles.shape[:-1], NUM_JOINTS, NUM_ANGLES + 1, 3)
        return self._at_bases + by_parameter[..., NUM_ANGLES, :], by_parameter.swapaxes(-1, -2)

    def frames(self, angles: np.ndarray) -> np.ndarray:
        """Orientation (21, 3, 3) of every keypoint's bone in the hand frame of a right hand.

        That of a phalanx belongs to the joint at its palm end; a tip has that of the last phalanx, wrist and thumb
        root that of the hand. Columns: x sideways (the bend axis), y back along the bone, z out of the back.
        """
        back = -_unit(np.diff(self.forward(angles)[1:].reshape(5, 4, 3), axis=1))  # (5, 3, 3)
        spread = angles.reshape(5, 4)[:, 1:2]
        trig = np.stack([np.ones_like(spread), np.cos(spread), np.sin(spread)], axis=-1)  # (5, 1, 3)
        axes = trig @ self._bend_axis  # (5, 1, 3)
        x = _unit(axes - (axes * back).sum(axis=-1, keepdims=True) * back)
        out = np.empty((NUM_JOINTS, 3, 3))
        out[0] = _EYE
        fingers = out[1:].reshape(5, 4, 3, 3)
        fingers[:, :3] = np.stack([x, back, np.cross(x, back)], axis=-1)
        fingers[:, 3] = fingers[:, 2]
        return out


# Of a finger's angles: its spread, and how far each phalanx is bent from the hand.
_TURNS = np.array([(0, 1, 1, 1), (1, 0, 0, 0), (0, 0, 1, 1), (0, 0, 0, 1)], np.float64)
_SLOPE = np.array([(0, 0, 0), (0, 0, -1), (0, 1, 0)], np.float64)  # the derivative of x @ trig is x @ _SLOPE @ trig


def _trig_products(angles: np.ndarray) -> np.ndarray:
    """(..., 5, 27, 1): per finger (1, cos, sin) of the spread times (1, cos, sin) of the bend of each phalanx."""
    turns = angles.reshape(*angles.shape[:-1], 5, 4) @ _TURNS
    trig = np.ones((*turns.shape, 3))
    np.cos(turns, out=trig[..., 1])
    np.sin(turns, out=trig[..., 2])
    bends = trig[..., 1:, :].reshape(*turns.shape[:-1], 1, 9)
    return (trig[..., 0, :, None] * bends).reshape(*turns.shape[:-1], 27, 1)


def _moves(phalanges: np.ndarray) -> np.ndarray:
    """(5, 45, 27): of every finger the joints 1 to 3, from its base, and their derivatives by its four angles, as
    linear functions of ``_trig_products``; ``phalanges`` (5, xyz, spread, phalanx, bend): the same of each phalanx."""
    by_spread = np.einsum("fxspb,st->fxtpb", phalanges, _SLOPE)
    by_bend = np.einsum("fxspb,bc->fxspc", phalanges, _SLOPE)
    after = [np.arange(3)[:, None] >= first for first in (0, 1, 2)]  # phalanges that an angle bends
    parts = [phalanges, by_bend * after[0], by_spread, by_bend * after[1], by_bend * after[2]]
    joints = np.zeros((5, 5, 3, 3, 3, 3, 3))  # finger, part, joint, xyz, spread, phalanx, bend
    for joint in range(3):
        for k, part in enumerate(parts):
            joints[:, k, joint, :, :, : joint + 1] = part[..., : joint + 1, :]
    return joints.reshape(5, 45, 27)


def _places() -> np.ndarray:
    """(225,) where the rows of ``_moves`` belong in the flat derivative (21, 21, 3) by joint, parameter and axis."""
    finger, part, joint, axis = np.indices((5, 5, 3, 3))
    parameter = np.where(part == 0, NUM_ANGLES, 4 * finger + part - 1)  # by the logarithm of a length: itself
    return (((4 * finger + joint + 2) * (NUM_ANGLES + 1) + parameter) * 3 + axis).reshape(-1)


_PLACES = _places()
MEAN_HAND = KinematicHand()


@lru_cache(maxsize=8)
def shape_of(bone_ratios: tuple[float, ...]) -> KinematicHand:
    """The hand with these ratios, the same object for the same ones; () and all 1: ``MEAN_HAND``. Raises ValueError."""
    return MEAN_HAND if all(ratio == 1 for ratio in bone_ratios) else KinematicHand(np.array(bone_ratios))


@dataclass(frozen=True)
class HandPose:
    """Where a hand is and how it is bent: 26 degrees of freedom, and the size of the hand.

    ``rotation`` (3, 3): of the hand frame in the camera's (or rig's) frame; ``position_m`` (3,): the wrist in it;
    ``angles`` (20,) radians; ``palm_m``: palm length 0 to 9 in metres; ``finger_ratio``: length of the fingers over
    that of ``shape``, the bone lengths.
    """

    side: Side
    rotation: np.ndarray
    position_m: np.ndarray
    angles: np.ndarray
    palm_m: float
    finger_ratio: float = 1.0
    shape: KinematicHand = field(default=MEAN_HAND, compare=False)

    @property
    def mirror(self) -> np.ndarray:
        """(3,) factor on the axes of a right hand's points: x is mirrored for a left hand."""
        return _MIRROR if self.side == Side.LEFT else _NO_MIRROR

    def points(self) -> np.ndarray:
        """Keypoints (21, 3) in metres, in the frame of ``rotation`` and ``position_m``."""
        local = self.shape.forward(self.angles, self.finger_ratio) * self.mirror
        return local @ (self.palm_m * self.rotation.T) + self.position_m

    def frames(self) -> np.ndarray:
        """Orientation (21, 3, 3) of every keypoint's bone (KinematicHand.frames), proper rotations on both sides.

        For both hands y points back along the bone and z out of the back of the hand; x completes them: it leads
        towards the thumb on a right hand, away from it on a left one.
        """
        frames = self.shape.frames(self.angles)
        if self.side == Side.LEFT:  # mirror in x, then turn the x axis around: a proper rotation again
            frames = frames * self.mirror[:, None] * self.mirror
        return self.rotation @ frames

    def moved(self, rotation: np.ndarray, translation_m: np.ndarray) -> HandPose:
        """The same hand in another frame: x' = rotation x + translation_m."""
        position = rotation @ self.position_m + translation_m
        return replace(self, rotation=rotation @ self.rotation, position_m=position)
