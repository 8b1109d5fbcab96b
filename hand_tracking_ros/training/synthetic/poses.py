"""Plausible hand poses: canonical gestures, free curls, pinches and fists inside anatomical limits.

All functions work on batches of pose vectors (N, POSE_SIZE) in degrees (model.py). Poses in which fingers pass
through each other or through the palm are rejected by ``penetration_m``.
"""

from __future__ import annotations

import numpy as np

from hand_tracking_ros.training.synthetic.model import CUP, POSE_SIZE, WRIST_DEVIATION, WRIST_FLEXION, HandModel

# Limits in degrees, (low, high) per angle: flexion, abduction, middle flexion, tip flexion, twist.
THUMB_LIMITS = np.array([(-30, 55), (-35, 40), (-15, 60), (-25, 80), (-25, 45)], np.float32)
FINGER_LIMITS = np.array([(-30, 95), (-22, 22), (-8, 112), (-12, 85), (-10, 10)], np.float32)
LIMITS = np.vstack([THUMB_LIMITS, *[FINGER_LIMITS] * 4, [(-65, 65)], [(-35, 25)], [(-2, 18)]]).astype(np.float32)

# Thumb postures: flexion, abduction, middle flexion, tip flexion, twist.
THUMBS = {
    "out": (-8, -12, -2, -5, 0),
    "side": (5, 8, 5, 5, 0),
    "oppose": (20, 15, 20, 20, 15),
    "over": (38, 18, 30, 35, 20),
    "up": (-15, -15, -5, -10, 0),
}
# Gestures: thumb posture and the curl (0 straight .. 1 fully bent) of index, middle, ring and little finger.
GESTURES = {
    "open": ("out", 0, 0, 0, 0),
    "flat": ("side", 0, 0, 0, 0),
    "four": ("oppose", 0, 0, 0, 0),
    "fist": ("over", 1, 1, 1, 1),
    "fist_thumb_side": ("side", 0.95, 1, 1, 1),
    "thumb_up": ("up", 1, 1, 1, 1),
    "point": ("over", 0, 1, 1, 1),
    "gun": ("out", 0, 1, 1, 1),
    "peace": ("over", 0, 0, 1, 1),
    "gun_two": ("out", 0, 0, 1, 1),
    "three": ("over", 0, 0, 0, 1),
    "horns": ("over", 0, 1, 1, 0),
    "love": ("out", 0, 1, 1, 0),
    "call": ("out", 1, 1, 1, 0),
    "little": ("over", 1, 1, 1, 0),
    "cup": ("oppose", 0.45, 0.45, 0.45, 0.45),
    "relaxed": ("side", 0.2, 0.25, 0.3, 0.35),
    "claw": ("out", 0.35, 0.35, 0.35, 0.35),
    "ok": ("oppose", 0.6, 0, 0, 0),
    "grasp": ("oppose", 0.55, 0.6, 0.7, 0.75),
    "grip": ("oppose", 0.7, 0.7, 0.7, 0.7),
    "hook": ("side", 0.5, 0.8, 0.9, 1),
}
# Abduction of a widely spread hand, index to little; the rest pose (0) is spread a little, -0.7 closes the fingers.
SPREAD = np.array([8, 1, -6, -13], np.float32)
CURL_START, CURL_RANGE = np.array([-8, 2, 2], np.float32), np.array([94, 98, 44], np.float32)
FINGER_RADIUS_M = np.array([0.0088, 0.0078, 0.0068], np.float32)
MIXTURE = {"gesture": 0.28, "fist": 0.26, "free": 0.25, "pinch": 0.15, "thumb": 0.06}
THUMB_GESTURES = ("thumb_up", "thumb_up", "fist_thumb_side", "gun", "call", "point")  # what a raised digit may be
GRASPS = ("cup", "grasp", "grip", "claw", "relaxed", "hook")
MEAN_UNIT_M = 0.099  # metres per model unit for a hand of 18 cm


def clip_pose(poses: np.ndarray) -> np.ndarray:
    return np.clip(poses, LIMITS[:, 0], LIMITS[:, 1]).astype(np.float32)


def pose_from(thumbs: np.ndarray, curls: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Poses from thumb angles (N, 5), finger curls (N, 4) and a spread (N,), -0.7 closed to 1 wide."""
    poses = np.zeros((len(curls), POSE_SIZE), np.float32)
    poses[:, :5] = thumbs
    for finger in range(4):
        first = 5 * (finger + 1)
        poses[:, [first, first + 2, first + 3]] = CURL_START + curls[:, finger, None] * CURL_RANGE
        poses[:, first + 1] = SPREAD[finger] * spread * (1 - 0.8 * np.clip(curls[:, finger], 0, 1))
    poses[:, CUP] = 12 * np.clip(curls[:, 3], 0, 1) ** 2
    return poses


def gesture(name: str, spread: float = -0.3) -> np.ndarray:
    """(POSE_SIZE,) a canonical gesture without noise."""
    thumb, *curls = GESTURES[name]
    return pose_from(np.array([THUMBS[thumb]], np.float32), np.array([curls], np.float32), np.array([spread]))[0]


def with_noise(poses: np.ndarray, rng: np.random.Generator, amount: float = 1.0) -> np.ndarray:
    """Individual variation on top of a posture, inside the limits."""
    sigma = np.concatenate([(8, 8, 9, 11, 7), *[(6, 3.5, 7, 6, 3)] * 4, (0, 0, 3)]).astype(np.float32)
    return clip_pose(poses + amount * sigma * rng.standard_normal(poses.shape, dtype=np.float32))


def thumbs_between(count: int, rng: np.random.Generator) -> np.ndarray:
    """(N, 5) thumbs on the way from one posture to another."""
    keys = np.array(list(THUMBS.values()), np.float32)
    share = rng.random((count, 1), dtype=np.float32)
    return keys[rng.integers(len(keys), size=count)] * share + keys[rng.integers(len(keys), size=count)] * (1 - share)


def gesture_poses(
    count: int, rng: np.random.Generator, names: tuple[str, ...] = tuple(GESTURES), blended: float = 0.35
) -> np.ndarray:
    """Canonical gestures; the share ``blended`` of them mixed with a second one."""
    table = [GESTURES[name] for name in names]
    thumbs = np.array([THUMBS[row[0]] for row in table], np.float32)
    curls = np.array([row[1:] for row in table], np.float32)
    a, b = rng.integers(len(table), size=(2, count))
    share = np.where(rng.random(count) < blended, rng.random(count), 0.0).astype(np.float32)[:, None]
    thumb = thumbs[a] * (1 - share) + thumbs[b] * share
    curl = curls[a] * (1 - share) + curls[b] * share + 0.05 * rng.standard_normal((count, 4), dtype=np.float32)
    return with_noise(pose_from(thumb, np.clip(curl, -0.08, 1.05), rng.normal(-0.2, 0.55, count)), rng)


def free_poses(count: int, rng: np.random.Generator) -> np.ndarray:
    """Every finger on its own or all in common, with joints that do not follow each other (hook, table top)."""
    own, common = rng.beta(0.6, 0.6, (count, 4)), rng.beta(0.7, 0.7, (count, 1))
    share = rng.random((count, 1))
    curls = own * share + common * (1 - share)
    poses = pose_from(thumbs_between(count, rng), curls.astype(np.float32), rng.normal(-0.15, 0.65, count))
    for finger in range(1, 5):
        for joint, low, high, chance in ((0, -20, 85, 0.12), (2, 0, 105, 0.1)):
            alone = rng.random(count) < chance
            poses[alone, 5 * finger + joint] = rng.uniform(low, high, alone.sum())
    return with_noise(poses, rng)


def fit_thumbs(poses: np.ndarray, model: HandModel, rng: np.random.Generator, fingers: np.ndarray, gap_m: float):
    """Of 32 thumbs (and small finger changes) per pose, the one whose tip is closest to ``gap_m`` from a fingertip.

    ``fingers`` (N,): 1 index .. 4 little; touches its tip for a pinch, or rests on its middle bone when the gap is
    negative (a fist, thumb over the fingers).
    """
    tries = 32
    count = len(poses)
    candidates = np.repeat(poses, tries, axis=0)
    low, high = THUMB_LIMITS.T * 0.85
    candidates[:, :5] = rng.uniform(low, high, (len(candidates), 5))
    rows, touched = np.arange(len(candidates)), np.repeat(fingers, tries)
    if gap_m >= 0:
        for joint, least, most in ((0, 10, 75), (2, 15, 75), (3, 5, 50)):
            candidates[rows, 5 * touched + joint] = rng.uniform(least, most, len(candidates))
    keypoints = MEAN_UNIT_M * model.forward(np.zeros(len(candidates), int), candidates)[1]
    target = keypoints[rows, 4 + 4 * touched]
    if gap_m < 0:
        target = 0.5 * (keypoints[rows, 2 + 4 * touched] + keypoints[rows, 3 + 4 * touched])
    distance = np.linalg.norm(keypoints[:, 4] - target, axis=-1)
    cost = np.abs(distance - abs(gap_m)) + 2 * np.maximum(0, -penetration_m(keypoints) - 0.003)
    return candidates.reshape(count, tries, -1)[np.arange(count), cost.reshape(count, tries).argmin(axis=1)]


def pinch_poses(count: int, model: HandModel, rng: np.random.Generator) -> np.ndarray:
    """Thumb tip on the tip of another finger, mostly the index."""
    fingers = rng.choice([1, 2, 3, 4], count, p=[0.65, 0.2, 0.08, 0.07])
    return fit_thumbs(free_poses(count, rng), model, rng, fingers, gap_m=0.012)


def fist_poses(count: int, model: HandModel, rng: np.random.Generator) -> np.ndarray:
    """Closed hands: the thumb over the fingers, at the side, or up; a third of the others point with the index."""
    curls = (rng.uniform(0.82, 1.05, (count, 1)) + 0.04 * rng.standard_normal((count, 4))).astype(np.float32)
    kind = rng.random(count)
    over, up, pointing = kind < 0.4, kind >= 0.65, rng.random(count) < 0.33
    curls[~over & pointing, 0] *= rng.random((~over & pointing).sum(), dtype=np.float32)
    thumbs = thumbs_between(count, rng)
    raised = np.array([THUMBS["up"], THUMBS["out"]], np.float32)
    thumbs[up] = raised[rng.integers(2, size=up.sum())]
    poses = with_noise(pose_from(thumbs, curls, rng.normal(-0.2, 0.3, count)), rng, 0.6)
    fingers = rng.choice([1, 2], over.sum())
    poses[over] = fit_thumbs(poses[over], model, rng, fingers, gap_m=-0.014)
    return poses


def penetration_m(keypoints: np.ndarray) -> np.ndarray:
    """(N,) least gap between two fingers' surfaces in metres, negative when they intersect. keypoints (N, 21, 3) m."""
    steps = np.linspace(0.15, 1, 4, dtype=np.float32)[:, None]
    samples = []
    for finger in range(5):
        chain = keypoints[:, 1 + 4 * finger : 5 + 4 * finger]
        samples.append(
            np.concatenate([chain[:, k, None] * (1 - steps) + chain[:, k + 1, None] * steps for k in range(3)], 1)
        )
    radius = np.repeat(FINGER_RADIUS_M, 4)
    least = np.full(len(keypoints), 1.0, np.float32)
    for a in range(5):
        for b in range(a + 1, 5):
            # Neighbours touch at their bases by nature; the thumb's first half lies in the palm.
            first_a, first_b = (4, 0) if a == 0 else (2, 2)
            delta = samples[a][:, first_a:, None] - samples[b][:, None, first_b:]
            gap = np.linalg.norm(delta, axis=-1) - (radius[first_a:, None] + radius[None, first_b:])
            least = np.minimum(least, gap.reshape(len(gap), -1).min(axis=1))
    return least


def is_plausible(poses: np.ndarray, model: HandModel, tolerance_m: float = 0.0045) -> np.ndarray:
    """(N,) bool: no two fingers intersect by more than the tolerance (flesh gives way), none is in the palm."""
    keypoints = MEAN_UNIT_M * model.forward(np.zeros(len(poses), int), poses)[1]
    behind = keypoints[:, 3:5, 2].max(axis=1) > 0.02
    tips = keypoints[:, [8, 12, 16, 20]]
    palm = np.stack([keypoints[:, 0], keypoints[:, 5], keypoints[:, 9], keypoints[:, 13], keypoints[:, 17]], axis=1)
    over_palm = tips[..., 1] > palm[:, 1:, 1].min(axis=1)[:, None] + 0.01
    in_palm = (over_palm & (tips[..., 2] > -0.011)).any(axis=1)
    return (penetration_m(keypoints) > -tolerance_m) & ~behind & ~in_palm


def pose_library(count: int, model: HandModel, rng: np.random.Generator, mixture=MIXTURE) -> np.ndarray:
    """(N, POSE_SIZE) plausible poses in random order, mixed as ``mixture`` says, with random wrists."""
    makers = {
        "gesture": lambda n: gesture_poses(n, rng),
        "fist": lambda n: fist_poses(n, model, rng),
        "free": lambda n: free_poses(n, rng),
        "pinch": lambda n: pinch_poses(n, model, rng),
        "thumb": lambda n: gesture_poses(n, rng, THUMB_GESTURES, blended=0.12),
    }
    parts = []
    for kind, share in mixture.items():
        wanted = int(np.ceil(count * share / sum(mixture.values())))
        found: list[np.ndarray] = []
        while sum(map(len, found)) < wanted:
            batch = makers[kind](min(512, 2 * wanted + 8))
            found.append(batch[is_plausible(batch, model)])
        parts.append(np.concatenate(found)[:wanted])
    return with_random_wrists(np.concatenate(parts)[rng.permutation(sum(map(len, parts)))[:count]], rng)


def wrap_poses(count: int, rng: np.random.Generator) -> np.ndarray:
    """Hands around wide or flat things: the joints bend by angles of their own, the four fingers nearly alike.

    Power, prismatic and parallel grips of Feix et al., The GRASP Taxonomy of Human Grasp Types, 2016.
    """
    poses = pose_from(thumbs_between(count, rng), np.zeros((count, 4), np.float32), rng.normal(-0.1, 0.6, count))
    lean = rng.normal(0, 9, (count, 1)) * np.linspace(-1, 1, 4)  # the little finger bends more, or less
    for joint, low, high in ((0, -5, 85), (2, 0, 75), (3, -5, 45)):
        poses[:, 5 + joint :: 5][:, :4] = rng.uniform(low, high, (count, 1)) + lean
    return with_noise(poses, rng, 0.7)


def grasp_library(count: int, model: HandModel, rng: np.random.Generator) -> np.ndarray:
    """(N, POSE_SIZE) plausible poses of hands around things, in random order."""
    poses = np.empty((0, POSE_SIZE), np.float32)
    while len(poses) < count:
        batch = np.concatenate([gesture_poses(count + 8, rng, GRASPS), wrap_poses(count + 8, rng)])
        poses = np.concatenate([poses, rng.permutation(batch[is_plausible(batch, model)])])
    return with_random_wrists(poses[:count], rng)


def with_random_wrists(poses: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    poses[:, WRIST_FLEXION] = rng.normal(-5, 25, len(poses))
    poses[:, WRIST_DEVIATION] = rng.normal(-3, 10, len(poses))
    return clip_pose(poses)


def trajectory(keys: np.ndarray, key_times_s: np.ndarray, times_s: np.ndarray) -> np.ndarray:
    """Smooth path through keys (K, D) at times (T,): eased so that it rests at every key, like a hand at a task."""
    segment = np.clip(np.searchsorted(key_times_s, times_s, side="right") - 1, 0, len(keys) - 2)
    share = (times_s - key_times_s[segment]) / (key_times_s[segment + 1] - key_times_s[segment])
    share = np.clip(share, 0, 1)[:, None]
    eased = share**3 * (10 + share * (6 * share - 15))  # minimum jerk
    return keys[segment] * (1 - eased) + keys[segment + 1] * eased
