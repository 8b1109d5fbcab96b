"""The hand skeleton: order, bones and palm length."""

import itertools

import numpy as np

from hand_tracking_ros import skeleton
from hand_tracking_ros.skeleton import EDGES, FINGERS, JOINT_NAMES, NUM_JOINTS, PALM_PAIRS, TIPS, Joint, Side


def test_order_is_the_mediapipe_order():
    """Wrist 0, then thumb to little finger, palm to tip; consumers such as dex-retargeting rely on these indices."""
    assert NUM_JOINTS == len(set(JOINT_NAMES)) == 21
    assert JOINT_NAMES[0] == "wrist"
    assert TIPS == (4, 8, 12, 16, 20)
    assert [JOINT_NAMES[i] for i in TIPS] == [f"{finger}_tip" for finger in FINGERS]
    assert list(FINGERS) == ["thumb", "index", "middle", "ring", "little"]
    assert [joint for chain in FINGERS.values() for joint in chain] == list(range(1, 21))
    for finger, chain in FINGERS.items():
        assert all(JOINT_NAMES[joint].startswith(finger) for joint in chain)


def test_joint_enum_follows_the_names():
    assert [joint.name.lower() for joint in Joint] == list(JOINT_NAMES)
    assert [int(joint) for joint in Joint] == list(range(21))
    assert Joint.MIDDLE_MCP == 9


def test_edges_connect_every_joint_along_the_fingers():
    assert len(set(map(frozenset, EDGES))) == len(EDGES)
    for chain in FINGERS.values():
        assert all(bone in EDGES for bone in itertools.pairwise(chain))
    reached = {0}
    for _ in EDGES:
        reached |= {child for parent, child in EDGES if parent in reached}
    assert reached == set(range(21))


def test_sides():
    assert (Side.UNKNOWN, Side.LEFT, Side.RIGHT) == (0, 1, 2)


def test_palm_length_is_the_largest_palm_distance():
    points = np.zeros((21, 2))
    points[9] = (3, 4)
    assert skeleton.palm_length(points) == 5
    points[5], points[17] = (-6, 0), (6, 0)  # seen end-on, the palm's width decides
    assert skeleton.palm_length(points) == 12
    points[8] = (1000, 1000)  # fingers never count
    assert skeleton.palm_length(points) == 12


def test_palm_length_of_batches_and_of_3d_points():
    points = np.random.default_rng(0).normal(size=(4, 7, 21, 3))
    lengths = skeleton.palm_length(points)
    assert lengths.shape == (4, 7)
    expected = max(np.linalg.norm(points[2, 5, a] - points[2, 5, b]) for a, b in PALM_PAIRS)
    assert lengths[2, 5] == expected
