"""A robot hand that follows a hand does not jump: not when hands come and go, nor when time does."""

from __future__ import annotations

import numpy as np
import pytest

from hand_tracking_ros.teleop.following import JointFollower
from hand_tracking_ros.teleop.retargeting import RetargetConfig

TICK_S = 1 / 30
OPEN, FIST = np.zeros(3), np.array([1.5, 1.0, -0.5])


class Session:
    """Images of hands at 30 Hz."""

    def __init__(self, **config):
        self.follower, self.now_s, self.moved = JointFollower(RetargetConfig(**config)), 100.0, []

    def see(self, joints: np.ndarray, hands: dict[int, bool], count: int = 1) -> np.ndarray | None:
        """The target after ``count`` images; ``moved``: the greatest step of a joint in each of them, rad/s."""
        for _ in range(count):
            self.now_s += TICK_S
            before = self.follower.target
            self.chosen = self.follower.choose(hands, self.now_s)
            if self.chosen is not None:
                self.follower.lead(joints, self.now_s)
            if before is not None:
                self.moved.append(np.abs(self.follower.target - before).max() / TICK_S)
        return self.follower.target

    def assert_slow_start(self) -> None:
        """What was seen since the last call did not move at first, then ever faster."""
        moved, self.moved = self.moved, []
        assert moved[0] == 0 and max(moved[:8]) <= 6.0 * 8 * TICK_S + 1e-9


def test_it_sticks_to_one_hand_while_that_lasts():
    session = Session()
    session.see(OPEN, {7: True})
    for hands in ({7: True}, {3: True, 7: True}, {3: True, 7: False}, {7: True, 9: True}):
        session.see(OPEN, hands)
        assert session.chosen == (7 if hands[7] else None)
    session.see(OPEN, {3: False, 9: True})
    assert session.chosen == 9
    session.see(OPEN, {3: True})
    assert session.chosen == 3
    session.see(OPEN, {})
    assert session.chosen is None


def test_a_steady_hand_is_followed_up_to_the_speed():
    session = Session(speed=3.0)
    session.see(OPEN, {1: True}, 40)
    session.moved.clear()
    assert session.see(FIST, {1: True}, 5)[0] == pytest.approx(5 * 3.0 * TICK_S)
    np.testing.assert_allclose(session.see(FIST, {1: True}, 20), FIST)
    assert max(session.moved) == pytest.approx(3.0)


GAPS = {
    "another hand": lambda session: session.see(FIST, {2: True}),
    "the side changed": lambda session: (session.see(OPEN, {}), session.see(FIST, {1: True})),
    "not believed": lambda session: (session.see(OPEN, {1: False}, 9), session.see(FIST, {1: True})),
    "silence": lambda session: (setattr(session, "now_s", session.now_s + 2.0), session.see(FIST, {1: True})),
    "time went back": lambda session: (setattr(session, "now_s", 5.0), session.see(FIST, {1: True}, 2)),
}


@pytest.mark.parametrize("gap", GAPS)
def test_after_a_gap_targets_start_slowly_from_where_they_were(gap):
    session = Session()
    np.testing.assert_array_equal(session.see(OPEN, {1: True}, 40), OPEN)
    session.moved.clear()
    GAPS[gap](session)
    np.testing.assert_array_equal(session.follower.target, OPEN)
    session.see(FIST, {2 if gap == "another hand" else 1: True}, 40)
    session.assert_slow_start()
    np.testing.assert_allclose(session.follower.target, FIST)


def test_a_hand_in_doubt_for_a_moment_is_no_gap():
    session = Session()
    session.see(OPEN, {1: True}, 40)
    session.see(OPEN, {1: False}, 3)
    assert session.see(FIST, {1: True})[0] == pytest.approx(6.0 * 0.1)  # not for the 4 images that have passed


def test_the_same_image_again_moves_nothing():
    session = Session()
    session.see(OPEN, {1: True}, 40)
    assert session.follower.choose({1: True}, session.now_s) is None
    assert session.follower.choose({1: True}, session.now_s - 1.0) is None


def test_joints_that_are_not_finite_are_refused_and_leave_the_target():
    session = Session()
    session.see(OPEN, {1: True}, 2)
    with pytest.raises(ValueError, match="not finite"):
        session.see(np.array([0.1, np.nan, 0.0]), {1: True})
    np.testing.assert_array_equal(session.follower.target, OPEN)


def test_the_first_target_is_where_the_robot_is_and_later_the_targets_lead():
    session = Session()
    session.follower.place(np.array([np.nan, 0.0, 0.0]))
    assert session.follower.target is None
    session.follower.place(FIST)
    np.testing.assert_array_equal(session.see(OPEN, {1: True}), FIST)
    session.see(OPEN, {1: True}, 40)
    session.assert_slow_start()
    session.follower.place(FIST)
    np.testing.assert_array_equal(session.see(OPEN, {1: True}), OPEN)
    np.testing.assert_array_equal(Session().see(FIST, {1: True}), FIST)  # nothing is known of the robot
