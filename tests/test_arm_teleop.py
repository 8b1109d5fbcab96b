"""Every rule that keeps an arm safe: engage without a jump, limits, and stand still when the hand is in doubt."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hand_tracking_ros.errors import ConfigError
from hand_tracking_ros.kinematics import exp_rotation, log_rotation
from hand_tracking_ros.teleop.arm import ArmConfig, ArmPose, ArmTeleop, HandSample

TICK_S = 0.02
START = ArmPose(np.array([0.4, 0.0, 0.3]), exp_rotation(np.array([0.0, np.pi, 0.0])))
HAND = HandSample("camera", 7, np.array([0.05, 0.1, 0.6]), exp_rotation(np.array([0.2, 0.1, -0.3])), 0.0, palm_m=0.088)
FAST = ArmConfig(speed_m_s=5.0, turn_speed_rad_s=10.0)


class Session:
    """A hand before a camera, an arm that goes where it should, and time."""

    def __init__(self, config: ArmConfig = FAST):
        self.teleop, self.now_s, self.hand = ArmTeleop(config), 100.0, HAND
        self.arm: ArmPose | None = None  # where it is stuck
        self.teleop.place(START, self.now_s)

    def see(self, ticks: int = 1, **changes) -> ArmPose | None:
        """The hand with ``changes`` for some ticks, with the stamps of a camera that is 50 ms late."""
        self.hand = replace(self.hand, **changes)
        for _ in range(ticks):
            self.now_s += TICK_S
            self.teleop.place(self.arm or (self.teleop.target if self.teleop.engaged else START), self.now_s)
            self.teleop.see(self.hand, self.now_s - 0.05, self.now_s)
            target = self.teleop.step(self.now_s)
        return target

    def gone(self) -> ArmPose | None:
        self.now_s += TICK_S
        self.teleop.see(None, self.now_s - 0.05, self.now_s)
        return self.teleop.step(self.now_s)

    def engage(self) -> ArmPose:
        self.see(5, clutch=0.0)
        target = self.see(12, clutch=0.95)
        assert self.teleop.engaged
        return target

    def assert_stands_still(self, target: ArmPose, **changes) -> None:
        """Nothing moves, however the hand moves with its clutch closed."""
        assert not self.teleop.engaged
        for k in range(30):
            moved = self.see(position_m=HAND.position_m + 0.01 * k, clutch=0.95, **changes)
            np.testing.assert_array_equal(moved.position_m, target.position_m)
            np.testing.assert_array_equal(moved.rotation, target.rotation)
        assert not self.teleop.engaged


def same(a: ArmPose, b: ArmPose, atol: float = 1e-9) -> None:
    np.testing.assert_allclose(a.position_m, b.position_m, atol=atol)
    np.testing.assert_allclose(a.rotation, b.rotation, atol=atol)


def test_nothing_moves_before_the_clutch_closes():
    session = Session()
    for k in range(20):
        assert session.see(position_m=HAND.position_m + 0.01 * k) is None
    assert not session.teleop.engaged and "ready" in session.teleop.status


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_engaging_does_not_move_the_target(scale):
    session = Session(replace(FAST, scale=scale))
    same(session.engage(), START)
    same(session.see(10), START)


def test_the_target_repeats_the_motion_in_the_frame_of_the_base():
    session = Session(replace(FAST, scale=0.5))
    session.engage()
    # Away from the camera, to its right, and up: forward, right and up for the arm that looks the same way.
    moves = ([0, 0, 0.04], [0.04, 0, 0], [0, -0.04, 0])
    for move, expected in zip(moves, ([0.02, 0, 0], [0, -0.02, 0], [0, 0, 0.02])):
        target = session.see(5, position_m=HAND.position_m + np.array(move))
        same(target, replace(START, position_m=START.position_m + expected))


def test_the_target_turns_as_the_wrist_does():
    session = Session()
    session.engage()
    about_camera_z = exp_rotation(np.array([0, 0, 0.3]))  # which is the base's x
    target = session.see(5, rotation=about_camera_z @ HAND.rotation)
    same(target, replace(START, rotation=exp_rotation(np.array([0.3, 0, 0])) @ START.rotation))
    fixed = Session(replace(FAST, turn=False))
    fixed.engage()
    same(fixed.see(5, rotation=about_camera_z @ HAND.rotation), START)


def test_a_camera_that_stands_otherwise():
    """A camera above the table looks straight down, the top of its image away from the arm."""
    session = Session(replace(FAST, camera_roll=np.pi, camera_pitch=0.0, camera_yaw=-np.pi / 2))
    session.engage()
    target = session.see(5, position_m=HAND.position_m + np.array([0, -0.05, 0]))
    np.testing.assert_allclose(target.position_m - START.position_m, [0.05, 0, 0], atol=1e-9)
    target = session.see(5, position_m=HAND.position_m + np.array([0, -0.02, 0.03]))  # away from the camera: down
    np.testing.assert_allclose(target.position_m - START.position_m, [0.02, 0, -0.03], atol=1e-9)


def test_a_camera_that_faces_the_operator():
    """The operator faces the base's x axis: what is forward, left and up for them is so for the arm."""
    session = Session(replace(FAST, camera_yaw=np.pi / 2))
    session.engage()
    forward_left_up = np.array([[0, 0, -0.02], [0.02, 0, 0], [0, -0.02, 0]])  # towards the camera, to its right, up
    for move, expected in zip(forward_left_up, 0.02 * np.eye(3)):
        target = session.see(5, position_m=HAND.position_m + move)
        np.testing.assert_allclose(target.position_m - START.position_m, expected, atol=1e-9)


def test_the_clutch_must_stay_closed_for_a_while():
    session = Session(replace(FAST, engage_s=0.2))
    session.see(5)
    session.see(8, clutch=0.95)
    assert not session.teleop.engaged
    session.see(1, clutch=0.7)  # neither open nor closed: starts again
    session.see(10, clutch=0.95)
    assert not session.teleop.engaged
    session.see(2)
    assert session.teleop.engaged


def test_opening_the_clutch_holds_the_target_and_moving_the_open_hand_does_not():
    session = Session()
    session.engage()
    before = session.see(5, position_m=HAND.position_m + 0.02)
    held = session.see(1, clutch=0.6)  # weaker, yet not open
    assert session.teleop.engaged
    same(session.see(1, clutch=0.4), held)
    assert not session.teleop.engaged
    same(session.see(10, position_m=HAND.position_m - 0.1), before)


def test_engaging_again_goes_on_from_where_the_arm_is():
    session = Session()
    session.engage()
    session.see(5, position_m=HAND.position_m + np.array([0, 0, 0.1]))
    session.see(5, clutch=0.0)
    session.see(5, position_m=HAND.position_m)  # the hand goes back, with the clutch open
    elsewhere = ArmPose(np.array([0.5, 0.2, 0.4]), START.rotation)
    for _ in range(12):
        session.now_s += TICK_S
        session.teleop.place(elsewhere, session.now_s)
        session.teleop.see(replace(session.hand, clutch=0.95), session.now_s - 0.05, session.now_s)
    assert session.teleop.engaged
    same(session.teleop.step(session.now_s), elsewhere)


def test_a_closed_clutch_that_comes_into_view_engages_nothing():
    session = Session()
    for k in range(30):
        assert session.see(clutch=0.95, position_m=HAND.position_m + 0.01 * k) is None
    assert not session.teleop.engaged


def test_a_lost_hand_stops_until_the_clutch_was_opened_again():
    session = Session()
    session.engage()
    session.see(3, position_m=HAND.position_m + 0.03)
    target = session.gone()
    assert session.teleop.status == "the hand is gone"
    session.assert_stands_still(target)
    session.see(1, clutch=0.0)
    session.see(12, clutch=0.95)
    assert session.teleop.engaged


def test_another_id_stops():
    session = Session()
    target = session.engage()
    session.see(1, id=8)
    assert session.teleop.status == "another hand"
    session.assert_stands_still(target)


def test_another_camera_stops():
    session = Session()
    target = session.engage()
    session.see(1, frame_id="other_camera")
    session.assert_stands_still(target)


def test_silence_stops_after_the_timeout():
    session = Session()
    session.engage()
    session.see(1, position_m=HAND.position_m + 0.03)
    target = session.teleop.step(session.now_s + 0.25)
    assert session.teleop.engaged
    session.now_s += 0.26
    stopped = session.teleop.step(session.now_s)
    same(stopped, target)
    assert session.teleop.status == "no news of the hand for 0.25 s"
    session.assert_stands_still(stopped)


def test_a_tracker_that_repeats_one_image_is_silent():
    session = Session()
    session.engage()
    stamp_s = session.now_s - 0.05
    for _ in range(14):
        session.now_s += TICK_S
        session.teleop.see(replace(session.hand, position_m=HAND.position_m + 0.1), stamp_s, session.now_s)
        target = session.teleop.step(session.now_s)
    assert not session.teleop.engaged
    same(target, START)


def test_silence_of_the_loop_itself_counts_too():
    """Nobody called step; the next image comes after the timeout."""
    session = Session()
    target = session.engage()
    session.now_s += 0.5
    session.see(1, position_m=HAND.position_m + 0.1)
    session.assert_stands_still(target)
    ready = Session()
    ready.see(5)
    ready.now_s += 0.5
    ready.see(20, clutch=0.95)
    assert not ready.teleop.engaged, "nobody knows what the hand did meanwhile"


@pytest.mark.parametrize("changes", [{"seen": False}, {"score": 0.3}], ids=["extrapolated", "low score"])
def test_hands_in_doubt_do_not_move_the_target_and_stop_after_the_timeout(changes):
    session = Session()
    target = session.engage()
    moved = session.see(5, position_m=HAND.position_m + 0.1, **changes)
    assert session.teleop.engaged
    same(moved, target)
    session.see(10)
    session.assert_stands_still(target)


def test_a_short_doubt_goes_on_without_a_jump():
    session = Session(replace(FAST, speed_m_s=0.2))
    session.engage()
    session.see(5, seen=False, position_m=HAND.position_m + 0.02)
    before = session.teleop.target
    after = session.see(1, seen=True)
    assert session.teleop.engaged
    assert 0 < np.linalg.norm(after.position_m - before.position_m) <= 0.2 * TICK_S + 1e-9


@pytest.mark.parametrize("what", ["position_m", "rotation", "clutch", "palm_m"])
def test_a_pose_that_is_not_finite_stops(what):
    session = Session()
    target = session.engage()
    bad = float("nan") if what in ("clutch", "palm_m") else np.full_like(getattr(HAND, what), np.nan)
    session.see(1, **{what: bad})
    assert session.teleop.status == "the hand's pose is not finite"
    session.hand = HAND
    session.assert_stands_still(target)


def test_a_wrist_that_jumps_stops():
    session = Session()
    target = session.engage()
    session.see(1, position_m=HAND.position_m + np.array([0.2, 0, 0]))
    assert session.teleop.status == "the hand jumped"
    session.assert_stands_still(target)


@pytest.mark.parametrize("palm_m", [0.0865, 0.0895])
def test_a_hand_whose_size_is_still_being_learned_stops(palm_m):
    """It stands still at one place in the image, and is believed to be ever further away, or nearer."""
    session = Session()
    target = session.engage()
    for share in np.linspace(1, 1.0099 if palm_m > HAND.palm_m else 0.9901, 20):
        session.see(palm_m=share * HAND.palm_m, position_m=share * HAND.position_m)
    assert session.teleop.engaged, "as well as one knows a size"
    target = session.teleop.target
    assert np.linalg.norm(target.position_m - START.position_m) < 0.0065
    session.see(palm_m=palm_m, position_m=palm_m / HAND.palm_m * HAND.position_m)
    assert session.teleop.status == "the size of the hand changed"
    session.assert_stands_still(target)
    session.see(1, clutch=0.0, position_m=HAND.position_m)
    session.see(12, clutch=0.95)
    assert session.teleop.engaged, "the new size is as good"


def test_a_hand_that_turns_too_far_stops():
    session = Session()
    session.engage()
    session.see(1, rotation=exp_rotation(np.array([0, 0, 2.9])) @ HAND.rotation)
    assert session.teleop.status == "the hand turned too far"


def test_time_that_jumps_back_stops():
    session = Session()
    target = session.engage()
    session.teleop.see(session.hand, session.now_s - 10, session.now_s)
    assert not session.teleop.engaged
    same(session.teleop.step(session.now_s), target)


def test_images_that_come_later_and_later_stop():
    session = Session()
    target = session.engage()
    stamp_s = session.now_s - 0.05
    for _ in range(40):
        session.now_s += TICK_S
        stamp_s += TICK_S / 2
        session.teleop.see(session.hand, stamp_s, session.now_s)
        session.teleop.step(session.now_s)
    assert not session.teleop.engaged
    same(session.teleop.target, target)


def test_the_workspace_is_never_left():
    config = replace(FAST, scale=5.0)
    session = Session(config)
    session.engage()
    rng = np.random.default_rng(1)
    low, high = np.array([0.2, -0.4, 0.1]), np.array([0.7, 0.4, 0.7])
    touched = np.zeros(6, bool)
    position_m = HAND.position_m
    for _ in range(600):
        position_m = HAND.position_m + np.clip(position_m - HAND.position_m + rng.normal(size=3) * 0.01, -0.2, 0.2)
        target = session.see(position_m=position_m)
        assert session.teleop.engaged
        assert (target.position_m >= low).all() and (target.position_m <= high).all()
        touched |= np.concatenate([target.position_m == low, target.position_m == high])
    assert touched.sum() >= 4


def test_turns_stay_within_their_limit():
    session = Session(replace(FAST, most_turn=0.5))
    session.engage()
    for angle in (0.2, 0.8, 1.6, 2.4):
        target = session.see(10, rotation=exp_rotation(np.array([0, angle, 0])) @ HAND.rotation)
        assert np.linalg.norm(log_rotation(target.rotation @ START.rotation.T)) == pytest.approx(min(angle, 0.5))


def test_speeds_stay_within_their_limits():
    session = Session(ArmConfig(speed_m_s=0.25, turn_speed_rad_s=1.0))
    before = session.engage()
    rotation = exp_rotation(np.array([0, 0.6, 0])) @ HAND.rotation
    travelled = []
    for k in range(50):
        target = session.see(position_m=HAND.position_m + 0.02 * min(k, 5), rotation=rotation)
        way = np.linalg.norm(target.position_m - before.position_m)
        turn = np.linalg.norm(log_rotation(target.rotation @ before.rotation.T))
        assert way <= 0.25 * TICK_S + 1e-9 and turn <= 1.0 * TICK_S + 1e-9
        travelled.append(way)
        before = target
    assert max(travelled) == pytest.approx(0.25 * TICK_S) and travelled[-1] == 0  # as fast as allowed, then there
    np.testing.assert_allclose(np.linalg.norm(target.position_m - START.position_m), 0.1 * 3**0.5, atol=1e-9)


def test_a_loop_that_was_held_up_makes_no_leap():
    session = Session(ArmConfig(speed_m_s=0.25, timeout_s=5.0))
    session.engage()
    session.see(1, position_m=HAND.position_m + 0.05)
    before = session.teleop.target
    after = session.teleop.step(session.now_s + 3.0)
    assert np.linalg.norm(after.position_m - before.position_m) <= 0.25 * 0.1 + 1e-9


def test_it_does_not_engage_without_a_fresh_arm_pose_inside_the_workspace():
    unknown = ArmTeleop()
    session = Session()
    session.teleop = unknown
    unknown.place(ArmPose(np.full(3, np.nan), np.eye(3)), session.now_s)

    def close(session) -> str:
        for clutch in (0.0,) * 3 + (0.95,) * 12:
            session.now_s += TICK_S
            session.teleop.see(replace(HAND, clutch=clutch), session.now_s, session.now_s)
        assert not session.teleop.engaged and session.teleop.step(session.now_s) is None
        return session.teleop.status

    assert close(session) == "cannot engage: where the arm is is not known"
    old = Session()
    old.now_s += 1.0
    assert close(old) == "cannot engage: where the arm is is not known"
    outside = Session()
    outside.teleop.place(ArmPose(np.array([0.4, 0.0, 0.9]), np.eye(3)), outside.now_s)
    assert close(outside) == "cannot engage: the arm is outside of the workspace"


def test_an_arm_that_stands_still_stops_and_its_target_is_where_it_is():
    """A protective stop: let go, the arm has no way to go."""
    session = Session(replace(FAST, speed_m_s=0.25))
    session.engage()
    session.arm = START
    for k in range(12):
        target = session.see(position_m=HAND.position_m + np.array([0.0, 0.0, 0.008 * k]))
    assert session.teleop.engaged and target.position_m[0] - START.position_m[0] > 0.05
    for k in range(12, 24):
        session.see(position_m=HAND.position_m + np.array([0.0, 0.0, 0.008 * k]))
    assert session.teleop.status == "the arm does not follow: it is 0.10 m and 0.0 rad from the target"
    same(session.teleop.target, START)
    session.assert_stands_still(session.teleop.target)


def test_an_arm_that_does_not_turn_stops_unless_it_need_not_turn():
    for turn in (True, False):
        session = Session(replace(FAST, turn=turn))
        session.engage()
        session.arm = replace(START, rotation=exp_rotation(np.array([0, 0.6, 0])) @ START.rotation)
        session.see()
        assert session.teleop.engaged != turn
    assert Session().teleop.config.most_lag_rad < 0.6


def test_an_arm_that_falls_silent_stops_though_the_hand_goes_on():
    session = Session(replace(FAST, arm_timeout_s=0.3))
    session.engage()
    for k in range(30):
        session.now_s += TICK_S
        hand = replace(session.hand, position_m=HAND.position_m + 0.001 * k)
        session.teleop.see(hand, session.now_s - 0.05, session.now_s)
        target = session.teleop.step(session.now_s)
        assert session.teleop.engaged == (k < 15)
    assert session.teleop.status == "no news of the arm for 0.3 s"
    np.testing.assert_allclose(np.linalg.norm(target.position_m - START.position_m), 0.014 * 3**0.5)
    session.teleop.place(target, session.now_s)
    session.assert_stands_still(target)


def test_new_settings_stop_and_hold():
    session = Session()
    target = session.engage()
    session.teleop.reconfigure(replace(FAST, scale=2.0))
    assert not session.teleop.engaged
    same(session.teleop.step(session.now_s), target)
    session.assert_stands_still(target)


def test_limits_the_wrong_way_around_are_refused():
    with pytest.raises(ConfigError, match="low_y 0.5 must be less than high_y 0.4"):
        ArmTeleop(ArmConfig(low_y=0.5))
