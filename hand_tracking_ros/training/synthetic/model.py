"""A poseable hand: baked mesh shapes, anatomical joints, forward kinematics, skinning weights.

Hand frame (right hand): origin at the wrist, x towards the thumb, y from the fingers towards the arm, z out of the
back of the hand. Seen by a camera with the same axes (x right, y down, z forward), the hand is upright and shows its
palm. A left hand is the mirror image in x, so its thumb points to -x in the same view. Rotations applied afterwards
are proper (det +1): the mirror is inside the model and nowhere else.

A pose is a vector of ``POSE_SIZE`` angles in degrees, the same for both sides (see ``FINGER_ANGLES`` and below).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from hand_tracking_ros.skeleton import NUM_JOINTS, Side

ASSET = Path(__file__).resolve().parents[1] / "assets" / "hand_mesh.npz"

FINGER_ANGLES = ("flexion", "abduction", "middle_flexion", "tip_flexion", "twist")
"""Five angles per finger, thumb first: pose[5 * finger + k]. For the fingers flexion is total (0 straight); the
thumb's are relative to its rest pose. Abduction is positive towards the thumb (the thumb's: towards the palm)."""
WRIST_FLEXION, WRIST_DEVIATION, CUP = 25, 26, 27  # towards the palm; towards the thumb; little finger's metacarpal
POSE_SIZE = 28
ABDUCTION_SIGNS = np.array([1, -1, -1, -1, -1], np.float32)  # of a turn about the direction out of the palm
CUP_SHARES = np.array([0, 0, 0, 0.5, 1.0], np.float32)  # the ring and little fingers' metacarpals close the palm

# Where people and MediaPipe put the keypoints differs from the rig's joints. Shifts in model units, measured as the
# median difference to MediaPipe on 240 clear renders. The wrist point lies at the crease, not in the forearm; the
# finger bases a little below the knuckle; tips inside the flesh; the thumb's first two joints further out.
WRIST_SHIFT = np.array([0.0, -0.14, 0.0], np.float32)  # hand frame
BASE_SHIFT = 0.045  # towards the wrist
THUMB_CMC_SHIFT = np.array([0.05, 0.03, 0.0], np.float32)  # hand frame
THUMB_MCP_SHIFT = 0.065  # outwards along the thumb
TIP_INSET = 0.05
UPPER_ARM = 22  # the bone that the generator adds behind the elbow


@dataclass(frozen=True)
class PosedHand:
    """``bones`` (23, 3, 4): skinning matrices for the RIGHT mesh in model units, mirror and scale included, to metres
    in the hand frame of ``side``; ``keypoints`` (21, 3): metres, same frame; ``unit_m``: metres per model unit."""

    shape: int
    side: Side
    unit_m: float
    bones: np.ndarray
    keypoints: np.ndarray


class HandModel:
    """The baked shapes (``num_shapes``) and the kinematics of each, in model units.

    A model unit is the distance of the rig's joints wrist and middle finger base, about a tenth of a metre.

    vertices, normals (S, V, 3); joints (S, 22, 3); tips (S, 5, 3); faces (F, 3); bone_index, bone_weight (V, 4);
    attributes (V, 4): finger coordinate 0..3, nail 0/1, palm side -1..1, distance behind the wrist.
    """

    def __init__(self, path: Path = ASSET):
        with np.load(path) as asset:
            shapes = asset["mean"] + np.tensordot(asset["coefficients"], asset["basis"].astype(np.float32), axes=1)
            self.bone_names = [str(name) for name in asset["bones"]]
            faces, nails = asset["faces"].astype(np.int32), asset["nails"]
            bone_index, bone_weight = asset["bone_index"].astype(np.int32), asset["bone_weight"].astype(np.float32)
        num_bones = len(self.bone_names)
        self.num_shapes = len(shapes)
        self.joints = shapes[:, -5 - num_bones : -5]
        self.tips = shapes[:, -5:]
        self.finger_bones = np.array(
            [[self.bone_names.index(f"finger{f}-{j}.R") for j in (1, 2, 3)] for f in range(1, 6)]
        )
        self.metacarpals = np.array([self.bone_names.index(f"metacarpal{f}.R") for f in range(1, 5)])
        self._find_axes()
        vertices, self.faces, source = add_upper_arm(shapes[:, : -5 - num_bones], faces, -unit(self.joints[:, 0]))
        added = np.arange(len(source)) >= len(nails)
        self.vertices = vertices
        self.bone_index = np.where(added[:, None], UPPER_ARM, bone_index[source])
        self.bone_weight = bone_weight[source]
        self.normals = vertex_normals(self.vertices, self.faces)
        self.attributes = self._attributes(nails[source], added)
        rest = self.forward(np.arange(self.num_shapes), np.zeros((self.num_shapes, POSE_SIZE), np.float32))[1]
        self.palm_units = np.linalg.norm(rest[:, 9] - rest[:, 0], axis=1)

    def _find_axes(self) -> None:
        """Per shape and finger: direction, flexion axis, dorsal-to-palmar normal, and the flexion of the rest shape."""
        joints = self.joints
        base, middle, last = (joints[:, self.finger_bones[:, k]] for k in range(3))
        self.direction = unit(self.tips - base)
        palmward = np.broadcast_to(np.array([0.0, 0.0, -1.0]), self.direction.shape).copy()
        palmward[:, 0] = (-0.75, 0.0, -0.65)  # the thumb's pulp faces sideways, across the palm
        self.palmward = unit(palmward - (palmward * self.direction).sum(axis=-1, keepdims=True) * self.direction)
        self.axis = np.cross(self.direction, self.palmward)  # a positive turn bends the finger towards the palm
        roots = np.concatenate([np.zeros_like(base[:, :1]), joints[:, self.metacarpals]], axis=1)
        segments = np.stack([base - roots, middle - base, last - middle, self.tips - last], axis=2)
        self.rest_flexion = signed_angle(segments[:, :, :-1], segments[:, :, 1:], self.axis[:, :, None])
        self.rest_flexion[:, 0] = 0.0

    def _attributes(self, nails: np.ndarray, added: np.ndarray) -> np.ndarray:
        """What the shader needs to know of each vertex, from the mean shape."""
        vertices, joints, tips = self.vertices.mean(axis=0), self.joints.mean(axis=0), self.tips.mean(axis=0)
        normals = unit(self.normals.mean(axis=0))
        weight = np.zeros((len(vertices), UPPER_ARM + 1), np.float32)
        np.put_along_axis(weight, self.bone_index, self.bone_weight, axis=1)
        attributes = np.zeros((len(vertices), 4), np.float32)
        attributes[:, 1] = nails * ~added
        attributes[:, 2] = -normals[:, 2]
        for finger in range(5):
            own = weight[:, self.finger_bones[finger]].sum(axis=1) > 0.5
            chain = np.vstack([joints[self.finger_bones[finger]], tips[finger]])
            attributes[own, 0] = chain_coordinate(vertices[own], chain)
            attributes[own, 2] = normals[own] @ self.palmward.mean(axis=0)[finger]
        attributes[:, 3] = np.maximum(0.0, vertices @ unit(joints[0]))
        return attributes

    def forward(self, shapes: np.ndarray, poses: np.ndarray, elbow: np.ndarray | None = None):
        """Bones (N, 23, 4, 4) and keypoints (N, 21, 3) of right hands, model units, hand frame.

        shapes (N,) indices; poses (N, POSE_SIZE) degrees; elbow (N, 3, 3) rotation of the upper arm, optional.
        """
        shapes, poses = np.asarray(shapes), np.asarray(poses, np.float32)
        joints, tips = self.joints[shapes], self.tips[shapes]
        bones = np.broadcast_to(np.eye(4, dtype=np.float32), (len(shapes), UPPER_ARM + 1, 4, 4)).copy()
        keypoints = np.zeros((len(shapes), NUM_JOINTS, 3), np.float32)
        keypoints[:, 0] = WRIST_SHIFT
        chain = self._finger_chains(shapes, joints, poses)
        for k, point in enumerate(self._landmarks(joints, tips)):
            keypoints[:, 1 + k :: 4] = transform(chain[k], point)
            if k > 0:
                bones[:, self.finger_bones[:, k - 1]] = chain[k]
        bones[:, self.metacarpals] = chain[0][:, 1:]
        arm = self._arm(shapes, poses)
        bones[:, :2] = arm[:, None]
        if elbow is not None:
            arm = arm @ about(elbow, joints[:, 0])
        bones[:, UPPER_ARM] = arm
        return bones, keypoints

    def _landmarks(self, joints, tips):
        """The four keypoints of all fingers in the rest pose, (N, 5, 3) each, before they move with the bones."""
        base, middle, last = (joints[:, self.finger_bones[:, k]] for k in range(3))
        shifted_base = np.empty_like(base)
        shifted_base[:, 0] = base[:, 0] + THUMB_CMC_SHIFT
        shifted_base[:, 1:] = base[:, 1:] - BASE_SHIFT * unit(base[:, 1:] - joints[:, self.metacarpals])
        shifted_middle = middle.copy()
        shifted_middle[:, 0] += THUMB_MCP_SHIFT * unit(last[:, 0] - middle[:, 0])
        return shifted_base, shifted_middle, last, tips - TIP_INSET * unit(tips - last)

    def _finger_chains(self, shapes, joints, poses):
        """Transforms of metacarpal and three phalanges of all fingers, (N, 5, 4, 4) each, from the rest pose."""
        angles = poses[:, :25].reshape(-1, 5, 5)
        axis, palmward, direction = self.axis[shapes], self.palmward[shapes], self.direction[shapes]
        bend = angles[..., [0, 2, 3]] - self.rest_flexion[shapes]
        base, middle, last = (joints[:, self.finger_bones[:, k]] for k in range(3))
        roots = joints[:, [0, *self.metacarpals]]
        metacarpal = about(turn(axis, CUP_SHARES * poses[:, CUP, None]), roots)
        first = (
            turn(palmward, ABDUCTION_SIGNS * angles[..., 1])
            @ turn(direction, angles[..., 4])
            @ turn(axis, bend[..., 0])
        )
        first = metacarpal @ about(first, base)
        second = first @ about(turn(axis, bend[..., 1]), middle)
        third = second @ about(turn(axis, bend[..., 2]), last)
        return metacarpal, first, second, third

    def _arm(self, shapes, poses):
        """Transform of the forearm about the wrist: bending the hand moves the arm in the hand frame."""
        sideways = np.broadcast_to(np.array([1.0, 0.0, 0.0]), (len(shapes), 3))
        outwards = np.broadcast_to(np.array([0.0, 0.0, 1.0]), (len(shapes), 3))
        rotation = turn(sideways, -poses[:, WRIST_FLEXION]) @ turn(outwards, -poses[:, WRIST_DEVIATION])
        return about(rotation, np.zeros((len(shapes), 3)))

    def posed(
        self, shape: int, pose: np.ndarray, side: Side, palm_m: float, elbow: np.ndarray | None = None
    ) -> PosedHand:
        """One hand of ``side`` with a palm (keypoints 0 to 9) of ``palm_m`` metres."""
        bones, keypoints = self.forward(np.array([shape]), pose[None], None if elbow is None else elbow[None])
        unit_m = float(palm_m / self.palm_units[shape])
        mirror = np.array([-1.0 if side == Side.LEFT else 1.0, 1.0, 1.0], np.float32) * unit_m
        return PosedHand(shape, side, unit_m, mirror[:, None] * bones[0, :, :3], keypoints[0] * mirror)

    def skin(self, hand: PosedHand) -> np.ndarray:
        """(V, 3) vertices of a posed hand in its hand frame, metres (the renderer does this on its own)."""
        rest = np.concatenate([self.vertices[hand.shape], np.ones((len(self.bone_index), 1), np.float32)], axis=1)
        moved = np.einsum("vkij,vj->vki", hand.bones[self.bone_index], rest)
        return (moved * self.bone_weight[..., None]).sum(axis=1)

    def faces_of(self, side: Side) -> np.ndarray:
        """(F, 3) triangles, counter-clockwise seen from outside: a mirrored mesh needs the reverse order."""
        return self.faces[:, ::-1] if side == Side.LEFT else self.faces


@lru_cache(maxsize=1)
def hand_model() -> HandModel:
    """The shared model; loading takes about a second."""
    return HandModel()


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def turn(axis: np.ndarray, degrees: np.ndarray) -> np.ndarray:
    """(N, 3, 3) rotations about unit axes (N, 3), right-handed."""
    x, y, z = np.moveaxis(axis.astype(np.float32), -1, 0)
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(*x.shape, 3, 3)
    radians = np.radians(np.asarray(degrees, np.float32))[..., None, None]
    return np.eye(3, dtype=np.float32) + np.sin(radians) * cross + (1 - np.cos(radians)) * (cross @ cross)


def about(rotation: np.ndarray, center: np.ndarray) -> np.ndarray:
    """(N, 4, 4) transforms that turn about a point (N, 3)."""
    out = np.zeros((*rotation.shape[:-2], 4, 4), np.float32)
    out[..., :3, :3] = rotation
    out[..., :3, 3] = center - np.einsum("...ij,...j->...i", rotation, center)
    out[..., 3, 3] = 1
    return out


def transform(matrices: np.ndarray, points: np.ndarray) -> np.ndarray:
    return np.einsum("...ij,...j->...i", matrices[..., :3, :3], points) + matrices[..., :3, 3]


def signed_angle(start: np.ndarray, end: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Angle in degrees from ``start`` to ``end`` about ``axis``, after projection along it."""
    start = start - (start * axis).sum(axis=-1, keepdims=True) * axis
    end = end - (end * axis).sum(axis=-1, keepdims=True) * axis
    return np.degrees(np.arctan2((np.cross(start, end) * axis).sum(axis=-1), (start * end).sum(axis=-1)))


def chain_coordinate(points: np.ndarray, chain: np.ndarray) -> np.ndarray:
    """Position along a chain of four joints, 0..3: 1.5 is the middle of the second phalanx."""
    coordinate = np.zeros(len(points), np.float32)
    for k in range(3):
        bone = chain[k + 1] - chain[k]
        share = (points - chain[k]) @ bone / (bone @ bone)
        coordinate = np.where(share > 0, np.maximum(coordinate, k + np.minimum(share, 1)), coordinate)
    return coordinate


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(S, V, 3) unit normals of meshes (S, V, 3) with shared faces, weighted by area."""
    corners = vertices[:, faces]
    normals = np.cross(corners[:, :, 1] - corners[:, :, 0], corners[:, :, 2] - corners[:, :, 0])
    order = np.argsort(faces.ravel(), kind="stable")
    starts = np.searchsorted(faces.ravel()[order], np.arange(vertices.shape[1]))
    return unit(np.add.reduceat(normals[:, order // 3], starts, axis=1))


def add_upper_arm(vertices: np.ndarray, faces: np.ndarray, towards_hand: np.ndarray):
    """Extend the open end at the elbow by two rings and close it, so that no camera sees into the arm.

    vertices (S, V, 3), faces (F, 3), towards_hand (S, 3) direction of the forearm. Returns the longer vertices and
    faces, and for each vertex the old one that it copies.
    """
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    directed = {(int(a), int(b)) for a, b in edges}
    border = [(a, b) for a, b in directed if (b, a) not in directed]
    ring = sorted({a for a, _ in border})
    place = {vertex: k for k, vertex in enumerate(ring)}
    count, size = vertices.shape[1], len(ring)
    center = vertices[:, ring].mean(axis=1, keepdims=True)
    flat = vertices[:, ring] - center
    flat -= np.einsum("svi,si->sv", flat, towards_hand)[..., None] * towards_hand[:, None]
    rings = [center + widen * flat - far * towards_hand[:, None] for widen, far in ((1.12, 0.5), (1.25, 3.5))]
    quads = []
    for a, b in border:
        outer, last = (count + place[a], count + place[b]), (count + size + place[a], count + size + place[b])
        for (near_a, near_b), (far_a, far_b) in (((a, b), outer), (outer, last)):
            quads += [(near_b, near_a, far_a), (near_b, far_a, far_b)]
        quads.append((last[1], last[0], count + size))  # closes the end, which else shows the arm's inside
    source = np.concatenate([np.arange(count), ring, ring]).astype(int)
    return np.concatenate([vertices, *rings], axis=1), np.concatenate([faces, np.array(quads, np.int32)]), source
