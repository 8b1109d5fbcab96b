"""What a tracker would expect of a hand, simulated from its true keypoints: the second input of KeyNet-F.

In use the expectation comes from the last frame, carried along by optical flow: mostly a little off as a whole, now
and then left behind or wrong for a finger that has moved, missing for hidden joints, and nothing at all for a new hand.
Some come from a hand that was misread: as the other side of a hand, say, whose thumb is where the little finger is.

What a tracker expects is its own answer to the image before, though, with its mistakes. A network that only ever is
told the truth, however disturbed, takes every expectation like its own answer for a proof, and keeps its mistakes. So
it is told its own answers as well (``told_itself``; compare scheduled sampling, Bengio et al., NeurIPS 2015).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from hand_tracking_ros.skeleton import FINGERS, NUM_JOINTS

NONE = 0.35  # share of samples without expectation
OTHER = 0.06  # share whose expectation is that of another hand
MISREAD = 0.05  # share that was read the wrong way round, mirrored about the hand's own axis
BEHIND = 0.12  # share that flow has left behind
LOST_JOINT = 0.08
MOVED_FINGER = 0.08  # per finger
# Of the network's own answer as the next image's expectation, shares of the crop's side:
CARRIED_SHIFT, CARRIED_NOISE = 0.02, 0.008


def no_prior() -> tuple[np.ndarray, np.ndarray]:
    """(keypoints (21, 2), scores (21,)) of a new hand."""
    return np.zeros((NUM_JOINTS, 2)), np.zeros(NUM_JOINTS)


def simulated_prior(
    keypoints: np.ndarray, size: int, rng: np.random.Generator, others: Sequence[np.ndarray] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Expected keypoints (21, 2) in crop px and their scores (21,) for a hand with these true ones.

    ``others``: keypoints of other hands in crops, to be expected by mistake.
    """
    if rng.random() < NONE:
        return no_prior()
    if others and rng.random() < OTHER:
        keypoints = others[rng.integers(len(others))]
    elif rng.random() < MISREAD:
        keypoints = _mirrored(keypoints)
    centre = keypoints.mean(axis=0)
    turn, scale = rng.normal(0, 0.06), np.exp(rng.normal(0, 0.03))
    cos, sin = scale * np.cos(turn), scale * np.sin(turn)
    expected = (keypoints - centre) @ np.array([[cos, sin], [-sin, cos]]) + centre
    expected = expected + rng.normal(0, (0.1 if rng.random() < BEHIND else 0.025) * size, 2)
    expected = expected + rng.normal(0, rng.uniform(0.003, 0.035) * size, expected.shape)
    for finger in FINGERS.values():
        if rng.random() < MOVED_FINGER:
            reach = np.linspace(0.2, 1.0, len(finger))[:, None]
            expected[list(finger)] += reach * rng.normal(0, 0.1 * size, 2)
    scores = np.where(rng.random(NUM_JOINTS) < LOST_JOINT, 0.0, 1.0)
    return expected, scores


@torch.no_grad()
def told_itself(answer: torch.Tensor, scores: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A network's answer (B, 21, 2) crop px as the next image's expectation: carried along, with what flow gets wrong.

    ``scores`` (B, 21) are those of what the answer was told; joints of a hand it was told nothing of are all known now.
    """
    carried = answer + CARRIED_SHIFT * size * torch.randn_like(answer[:, :1])
    carried = carried + CARRIED_NOISE * size * torch.randn_like(answer)
    new = (scores == 0).all(dim=1, keepdim=True)
    return carried, torch.where(new, torch.ones_like(scores), scores)


def _mirrored(keypoints: np.ndarray) -> np.ndarray:
    """Keypoints (21, 2) of the other side's hand in the same place: mirrored about the line from wrist to middle
    finger."""
    wrist, axis = keypoints[0], keypoints[9] - keypoints[0]
    square = max(float(axis @ axis), 1e-6)
    away = keypoints - wrist
    return wrist + 2 * np.outer(away @ axis / square, axis) - away
