"""An arm's target pose from a hand: the target repeats the wrist's motion while a clutch gesture holds.

Engaging never moves the target: only the motion since then counts. The target stands still unless a hand that is
tracked now, and was tracked all along, holds the clutch, and unless the arm follows. After every stop the clutch must
be opened before it can be closed again, so a hand that comes back with a closed fist moves nothing.

What this cannot do: avoid obstacles and joint limits, or stop the arm when this process ends. That is for the arm's
controller, which must take silence as a stop, too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from hand_tracking_ros.config import Config, param
from hand_tracking_ros.errors import ConfigError
from hand_tracking_ros.kinematics import exp_rotation, log_rotation

CLUTCHES = ("fist", "pinch")
HALF_TURN = 2.8  # rad; a turn that is almost pi may as well be one the other way round
LONGEST_STEP_S = 0.1  # a loop that was held up for longer does not make up for it
SAME_SIZE = 0.01  # share of the palm; a hand that is believed to be larger by more is further away, and has not moved


@dataclass(frozen=True)
class ArmConfig(Config):
    """How an arm follows a hand. Lengths and limits in the frame of the arm's base."""

    side: str = param("right", "The hand that moves the arm", choices=("left", "right"))
    clutch: str = param("fist", "What engages: grasp strength, or pinch of thumb and index finger", choices=CLUTCHES)
    engage: float = param(0.85, "Strength of the clutch gesture above which it closes", low=0.5, high=1.0)
    release: float = param(0.5, "Strength below which it opens", low=0.05, high=0.5)
    engage_s: float = param(0.15, "The clutch must stay closed for this long before it engages", low=0.0, high=5.0)
    scale: float = param(1.0, "Motion of the arm over motion of the hand", low=0.01, high=10.0)
    turn: bool = param(True, "Follow the turns of the wrist as well")
    camera_roll: float = param(
        -math.pi / 2, "Turn of the camera's optical frame in the arm's base, rad about its x axis", low=-6.3, high=6.3
    )
    camera_pitch: float = param(0.0, "Then about the base's y axis, rad", low=-6.3, high=6.3)
    camera_yaw: float = param(-math.pi / 2, "Then about the base's z axis, rad", low=-6.3, high=6.3)
    low_x: float = param(0.2, "Workspace: least x of the target, m", low=-10.0, high=10.0)
    high_x: float = param(0.7, "Workspace: greatest x, m", low=-10.0, high=10.0)
    low_y: float = param(-0.4, "Workspace: least y, m", low=-10.0, high=10.0)
    high_y: float = param(0.4, "Workspace: greatest y, m", low=-10.0, high=10.0)
    low_z: float = param(0.1, "Workspace: least z, m", low=-10.0, high=10.0)
    high_z: float = param(0.7, "Workspace: greatest z, m", low=-10.0, high=10.0)
    most_turn: float = param(1.2, "Farthest turn from where the arm stood when it engaged, rad", low=0.0, high=3.1)
    speed_m_s: float = param(0.25, "Greatest speed of the target", low=0.001, high=5.0)
    turn_speed_rad_s: float = param(1.0, "Greatest angular speed of the target", low=0.001, high=10.0)
    timeout_s: float = param(0.25, "Without news of the hand for this long the target stops", low=0.02, high=5.0)
    arm_timeout_s: float = param(
        0.5, "The arm's own pose must be younger than this to engage, and to stay engaged", low=0.02, high=10.0
    )
    most_lag_m: float = param(
        0.1, "An arm that is further than this from the target does not follow it: stop", low=0.001, high=10.0
    )
    most_lag_rad: float = param(
        0.5, "Likewise an arm that is turned against the target by more, while it follows turns", low=0.01, high=3.2
    )
    hand_speed_m_s: float = param(3.0, "A wrist that is faster than this has been mistaken: stop", low=0.1, high=50.0)
    least_score: float = param(0.5, "Hands of a lower score are not believed", low=0.0, high=1.0)

    def __post_init__(self) -> None:
        """Raises ConfigError when the limits of the workspace are the wrong way around."""
        for axis in "xyz":
            least, most = getattr(self, f"low_{axis}"), getattr(self, f"high_{axis}")
            if least >= most:
                raise ConfigError(f"the workspace is empty: low_{axis} {least} must be less than high_{axis} {most}")


@dataclass(frozen=True)
class ArmPose:
    """``position_m`` (3,) and ``rotation`` (3, 3) of the tool in the frame of the arm's base."""

    position_m: np.ndarray
    rotation: np.ndarray


@dataclass(frozen=True)
class HandSample:
    """One hand in one image: ``frame_id`` of the camera, ``id`` of the track, the wrist's ``position_m`` (3,) and
    ``rotation`` (3, 3) in the camera's frame, the ``clutch`` gesture's strength 0..1, the palm length ``palm_m`` that
    the metres count on, ``score`` 0..1, and whether it was ``seen`` in this image (or extrapolated)."""

    frame_id: str
    id: int
    position_m: np.ndarray
    rotation: np.ndarray
    clutch: float
    palm_m: float
    score: float = 1.0
    seen: bool = True


class ArmTeleop:
    """The clutch and the target. ``now_s`` is any clock that only goes forward, the same in all calls.

    ``engaged``: whether the target follows the hand; ``status``: what it does, or why it stopped, in words.
    """

    def __init__(self, config: ArmConfig = ArmConfig()):
        self.target: ArmPose | None = None
        self._arm: ArmPose | None = None
        self._arm_s = self._stamp_s = self._news_s = -math.inf
        self._stepped_s = math.inf
        self.reconfigure(config)

    def reconfigure(self, config: ArmConfig) -> None:
        """Stop, and go on with ``config``."""
        self.config = config
        self._low = np.array([config.low_x, config.low_y, config.low_z])
        self._high = np.array([config.high_x, config.high_y, config.high_z])
        self._to_base = _from_rpy(config.camera_roll, config.camera_pitch, config.camera_yaw)
        self.stop("waiting for a hand with an open clutch")

    def place(self, arm: ArmPose, now_s: float) -> None:
        """Where the arm is now: where the target starts, and what has to keep up with it. What is not finite is
        ignored."""
        if np.isfinite(arm.position_m).all() and np.isfinite(arm.rotation).all():
            self._arm, self._arm_s = arm, now_s

    def see(self, hand: HandSample | None, stamp_s: float, now_s: float) -> None:
        """What one image showed of the wanted hand; None: it is not there. ``stamp_s``: time of the image."""
        if stamp_s == self._stamp_s:
            return  # no news
        if stamp_s < self._stamp_s:
            self.stop("time jumped back")
        self._stamp_s = stamp_s
        if hand is None:
            self.stop("the hand is gone")
        elif not all(np.isfinite(v).all() for v in (hand.position_m, hand.rotation, hand.clutch, hand.palm_m)):
            self.stop("the hand's pose is not finite")
        elif hand.seen and hand.score >= self.config.least_score:  # else no news: the timeout counts on
            self._follow(hand, now_s)

    def step(self, now_s: float) -> ArmPose | None:
        """The target to send now: moving while engaged, standing still otherwise; None until it was first engaged."""
        elapsed_s, self._stepped_s = min(max(now_s - self._stepped_s, 0.0), LONGEST_STEP_S), now_s
        if self.engaged and now_s - self._news_s > self.config.timeout_s:
            self.stop(f"no news of the hand for {self.config.timeout_s} s")
        if self.engaged:
            self._check_arm(now_s)
        if self.engaged:
            self.target = self._moved(elapsed_s)
        return self.target

    def stop(self, why: str) -> None:
        """Let the target stand where it is. The clutch must be opened before it can engage again."""
        self.engaged, self.status = False, why
        self._opened: tuple[str, int] | None = None  # the hand that has shown an open clutch
        self._closed_s: float | None = None  # stamp since when the clutch is closed

    def _check_arm(self, now_s: float) -> None:
        """Stop when the arm says nothing or does not follow; its target is then where it is, for when it is let go."""
        if now_s - self._arm_s > self.config.arm_timeout_s:
            self.stop(f"no news of the arm for {self.config.arm_timeout_s} s")
            return
        behind_m = float(np.linalg.norm(self.target.position_m - self._arm.position_m))
        behind_rad = float(np.linalg.norm(log_rotation(self.target.rotation @ self._arm.rotation.T)))
        if behind_m > self.config.most_lag_m or (self.config.turn and behind_rad > self.config.most_lag_rad):
            self.stop(f"the arm does not follow: it is {behind_m:.2f} m and {behind_rad:.1f} rad from the target")
            self.target = self._arm

    def _follow(self, hand: HandSample, now_s: float) -> None:
        """Take a hand that can be believed."""
        who = hand.frame_id, hand.id
        if self._opened not in (None, who):
            self.stop("another hand")
        if now_s - self._news_s > self.config.timeout_s:
            self.stop("the hand was away")
        if self.engaged and (why := self._objection(hand, now_s)):
            self.stop(why)
        self._news_s = now_s
        if self.engaged:
            self._hand, self._hand_s = hand, self._stamp_s
        elif hand.clutch < self.config.release:
            self._opened, self._closed_s = who, None
            self.status = "ready: close the clutch to engage"
        elif hand.clutch < self.config.engage:
            self._closed_s = None
        elif self._opened == who:
            self._close(hand, now_s)

    def _objection(self, hand: HandSample, now_s: float) -> str:
        """Why the target must not follow this hand any more, '' if it may."""
        if hand.clutch < self.config.release:
            return "the clutch was opened"
        if now_s - self._stamp_s - self._delay_s > self.config.timeout_s:
            return f"images come {self.config.timeout_s} s later than when it engaged"
        if abs(hand.palm_m - self._hand_start.palm_m) > SAME_SIZE * self._hand_start.palm_m:
            return "the size of the hand changed"
        moved_m = float(np.linalg.norm(hand.position_m - self._hand.position_m))
        if moved_m > self.config.hand_speed_m_s * (self._stamp_s - self._hand_s):
            return "the hand jumped"
        if self.config.turn and np.linalg.norm(log_rotation(hand.rotation @ self._hand_start.rotation.T)) > HALF_TURN:
            return "the hand turned too far"
        return ""

    def _close(self, hand: HandSample, now_s: float) -> None:
        """The clutch is closed by a hand that has opened it before: engage once it has been for long enough."""
        if self._closed_s is None:
            self._closed_s = self._stamp_s
        if self._stamp_s - self._closed_s < self.config.engage_s:
            return
        if self._arm is None or now_s - self._arm_s > self.config.arm_timeout_s:
            self.status = "cannot engage: where the arm is is not known"
        elif (self._arm.position_m < self._low).any() or (self._arm.position_m > self._high).any():
            self.status = "cannot engage: the arm is outside of the workspace"
        else:
            self.engaged, self.status = True, "engaged"
            self.target = self._arm_start = self._arm
            self._hand = self._hand_start = hand
            self._hand_s, self._delay_s = self._stamp_s, now_s - self._stamp_s
            self._stepped_s = now_s

    def _wanted(self) -> ArmPose:
        """Where the hand leads the target, within the workspace."""
        moved_m = self.config.scale * self._to_base @ (self._hand.position_m - self._hand_start.position_m)
        position_m = np.clip(self._arm_start.position_m + moved_m, self._low, self._high)
        turn = np.zeros(3)
        if self.config.turn:
            turn = self._to_base @ log_rotation(self._hand.rotation @ self._hand_start.rotation.T)
        return ArmPose(position_m, exp_rotation(_at_most(turn, self.config.most_turn)) @ self._arm_start.rotation)

    def _moved(self, elapsed_s: float) -> ArmPose:
        """The target, moved towards what is wanted as far as the speed limits allow."""
        wanted, target = self._wanted(), self.target
        way = _at_most(wanted.position_m - target.position_m, self.config.speed_m_s * elapsed_s)
        turn = log_rotation(wanted.rotation @ target.rotation.T)
        turn = _at_most(turn, self.config.turn_speed_rad_s * elapsed_s)
        return ArmPose(target.position_m + way, exp_rotation(turn) @ target.rotation)


def _at_most(vector: np.ndarray, length: float) -> np.ndarray:
    """``vector``, shortened to ``length`` where it is longer."""
    norm = float(np.linalg.norm(vector))
    return vector if norm <= length else vector * (length / norm)


def _from_rpy(roll: float, pitch: float, yaw: float) -> np.ndarray:
    x, y, z = (exp_rotation(angle * axis) for angle, axis in zip((roll, pitch, yaw), np.eye(3)))
    return z @ y @ x
