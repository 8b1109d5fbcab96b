"""The hand skeleton: the one definition of joints, bones and sides that messages, models and tests are checked against.

Order: 21 joints, MediaPipe / OpenPose order (wrist, then thumb to little finger, each from palm to tip).
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

JOINT_NAMES = (
    "wrist",
    "thumb_cmc", "thumb_mcp", "thumb_ip", "thumb_tip",
    "index_mcp", "index_pip", "index_dip", "index_tip",
    "middle_mcp", "middle_pip", "middle_dip", "middle_tip",
    "ring_mcp", "ring_pip", "ring_dip", "ring_tip",
    "little_mcp", "little_pip", "little_dip", "little_tip",
)  # fmt: skip
NUM_JOINTS = len(JOINT_NAMES)

Joint = IntEnum("Joint", [(name.upper(), index) for index, name in enumerate(JOINT_NAMES)])

FINGERS = {
    "thumb": (1, 2, 3, 4),
    "index": (5, 6, 7, 8),
    "middle": (9, 10, 11, 12),
    "ring": (13, 14, 15, 16),
    "little": (17, 18, 19, 20),
}
TIPS = tuple(chain[-1] for chain in FINGERS.values())

# Edges to draw, (parent, child): the palm outline and each finger.
EDGES = (
    (0, 1), (1, 2), (2, 3), (3, 4),
    (0, 5), (5, 6), (6, 7), (7, 8),
    (5, 9), (9, 10), (10, 11), (11, 12),
    (9, 13), (13, 14), (14, 15), (15, 16),
    (13, 17), (17, 18), (18, 19), (19, 20), (0, 17),
)  # fmt: skip

# Joint pairs whose largest distance is the palm length, the unit of every 2D error (docs/evaluation.md).
PALM_PAIRS = ((0, 5), (0, 9), (0, 13), (0, 17), (5, 17))
_PALM_FROM, _PALM_TO = np.array(PALM_PAIRS).T


class Side(IntEnum):
    """The person's own hand, in an image that is not mirrored."""

    UNKNOWN = 0
    LEFT = 1
    RIGHT = 2


def palm_length(points: np.ndarray) -> np.ndarray:
    """Palm length: the largest distance among ``PALM_PAIRS``. ``points`` (..., 21, D) -> (...), same unit."""
    gaps = points[..., _PALM_FROM, :] - points[..., _PALM_TO, :]
    return np.sqrt((gaps * gaps).sum(axis=-1)).max(axis=-1)
