"""Hands as kinematic poses over time: fit, expectation for the next frame, hand size, and filters on the pose.

Per hand: fit to the raw keypoints (fitting.py), started from the pose that the last frames lead to and held together
by it, then filtered: the turn on the manifold of rotations, the wrist as direction and distance, the joint angles. The
size of the hand is one for all hands of a person; it is measured wherever two cameras or a depth image see the hand.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hand_tracking_ros.config import FilterConfig, PoseConfig
from hand_tracking_ros.filters import make_filter
from hand_tracking_ros.fit_terms import (
    DOF,
    FINGERS,
    REST_INFORMATION,
    SIZE,
    STEP,
    TURN,
    FitConfig,
    FitProblem,
    HandView,
    PosePrior,
    difference,
)
from hand_tracking_ros.fitting import HandFit, first_pose, fit_hands, stepped
from hand_tracking_ros.hand_size import FINGER_SIGMA, RANGE_M, HandSize
from hand_tracking_ros.kinematics import LIMITS, NUM_ANGLES, HandPose, exp_rotation, log_rotation
from hand_tracking_ros.lifting import facing
from hand_tracking_ros.skeleton import Side, palm_length

# How fast a hand may leave what was expected of it, per second (standard deviation): turn, position, angles.
_DRIFT = np.concatenate([np.full(3, 8.0), np.full(3, 1.2), np.full(20, 14.0), [0.001, 0.0]])
LOST_COST = 40.0  # per view; good fits cost 3 to 15
CONTRADICTION = 0.4  # palms between a view's keypoints and the fit
SIZE_FLOOR = 0.003  # never surer than this: keypoints are not independent from frame to frame
FINGER_FLOOR = 0.03  # nor of how long the fingers are, as long as nobody has measured them
LARGEST_LOG_Z = 20.0  # further away than any hand, and a number still
WARM_S = 0.1  # a hand that was posed for this long has a motion that can be led on
PRESETS = {"teleop": (1.0, 8.0), "balanced": (0.5, 4.0), "xr": (0.5, 1.0)}  # cut-off in Hz, beta: benchmarks/poses.py


class PoseFilter:
    """One hand's pose over time, by the filter that the config names; ``predict`` extrapolates."""

    def __init__(self, config: FilterConfig, max_gap_s: float):
        # Points of three coordinates: the wrist's direction, its distance, the turn, the angles.
        self._filter = make_filter(config, max_gap_s)
        self._base = np.eye(3)  # the turn is a rotation vector from here
        self._aim = np.eye(3)  # direction and distance are those of a camera that is turned so (rows: its axes)

    def update(self, pose: HandPose, stamp_s: float) -> None:
        """Take the pose of time ``stamp_s``."""
        self._rebase()
        self._look_at(pose.position_m)
        values, unit = np.zeros((3 + NUM_ANGLES, 3)), np.ones((3 + NUM_ANGLES, 1))
        values[:2] = _seen_from(self._aim, pose.position_m)
        values[2], values[3:, 0] = log_rotation(pose.rotation @ self._base.T), pose.angles
        palm = pose.palm_m / math.exp(values[1, 0])
        unit[0], unit[1] = palm, 4 * palm  # the distance is less sure than the direction
        self._filter.take(values, stamp_s, unit)
        self._last = pose

    def predict(self, stamp_s: float) -> HandPose:
        """The pose expected at ``stamp_s``, its joints within their limits."""
        values = self._filter.predict(stamp_s)
        return replace(
            self._last,
            rotation=exp_rotation(values[2]) @ self._base,
            position_m=_in_space(self._aim, values),
            angles=np.minimum(np.maximum(values[3:, 0], _LOWEST), _HIGHEST),
        )

    def velocities(self, stamp_s: float, pose: HandPose, points_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of the keypoints, (21, 3) m/s, and of the joint angles, (20,) rad/s; at ``stamp_s`` the hand is in ``pose``,
        whose points are ``points_m``."""
        step_s = 1e-3
        then = self.predict(stamp_s + step_s)
        return (then.points() - points_m) / step_s, (then.angles - pose.angles) / step_s

    def _look_at(self, position_m: np.ndarray) -> None:
        """Turn the camera of direction and distance to a hand that is far from its axis: a fisheye, or a rig, sees
        hands beside and behind the camera as well."""
        x, y, z = (self._aim @ position_m).tolist()
        if z > 0.5 * math.hypot(x, y, z) or not position_m.any():
            return
        old, self._aim = self._aim, facing(position_m, np.eye(3)[np.abs(position_m).argmin()])

        def seen_anew(values: np.ndarray) -> np.ndarray:
            values = values.copy()
            values[:2] = _seen_from(self._aim, _in_space(old, values))
            return values

        self._filter.map_positions(seen_anew, with_velocities=True)

    def _rebase(self) -> None:
        """Move the base of the rotation vectors to the filtered turn: they stay small, where they add like numbers."""
        if self._filter.position is None:
            return
        turn = exp_rotation(self._filter.position[2])
        self._base = turn @ self._base

        def moved(values: np.ndarray) -> np.ndarray:
            values = values.copy()
            values[2] = log_rotation(exp_rotation(values[2]) @ turn.T)
            return values

        self._filter.map_positions(moved)


def _seen_from(aim: np.ndarray, position_m: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(x / z, y / z, 0) and (log z, 0, 0) of a point (3,) in a camera whose axes are the rows of ``aim``."""
    x, y, z = (aim @ position_m).tolist()
    z = max(z, 1e-3)
    return (x / z, y / z, 0.0), (math.log(z), 0.0, 0.0)


def _in_space(aim: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The point (3,) of which ``values`` (2 or more, 3) begin as ``_seen_from`` has it."""
    z = math.exp(min(values[1, 0], LARGEST_LOG_Z))
    return np.array([values[0, 0] * z, values[0, 1] * z, z]) @ aim


@dataclass
class _Posed:
    """One hand's state."""

    side: Side
    fit: HandFit
    since_s: float
    stamp_s: float
    filter: PoseFilter
    velocity: np.ndarray  # (26,) of the fitted pose, smoothed


class HandPoser:
    """Poses of all tracked hands, by id. ``size`` is what is known of the person's hands; it may be set."""

    def __init__(self, config: PoseConfig, filters: FilterConfig, max_gap_s: float, size: HandSize | None = None):
        cutoff_hz, beta = PRESETS.get(config.preset, (config.min_cutoff_hz, config.beta))
        self.config, self._max_gap_s = config, max_gap_s
        self._filters = replace(filters, min_cutoff_hz=cutoff_hz, beta=beta)
        self.size = size or HandSize(config.palm_m)
        self._fit_config = FitConfig(iterations=config.iterations)
        self._hands: dict[int, _Posed] = {}

    def forget(self, kept: set[int], oldest_s: float = -math.inf) -> None:
        """Drop all hands but those with the ids ``kept`` that were fitted at ``oldest_s`` or later."""
        self._hands = {i: hand for i, hand in self._hands.items() if i in kept and hand.stamp_s >= oldest_s}

    def stamp_s(self, hand_id: int) -> float | None:
        """When a hand was last fitted; None when it has no pose."""
        hand = self._hands.get(hand_id)
        return None if hand is None else hand.stamp_s

    def fit(self, hand_id: int, side: Side, views: Sequence[HandView], stamp_s: float) -> bool:
        """Fit one hand to what cameras saw of it at ``stamp_s``. False when they did not see enough of a new hand."""
        return bool(self.fit_all({hand_id: (side, views)}, stamp_s))

    def fit_all(self, seen: Mapping[int, tuple[Side, Sequence[HandView]]], stamp_s: float) -> set[int]:
        """Fit all hands, by id, to what cameras saw of them at ``stamp_s``. The ids of those that now have a fit."""
        if any(_measures(views) for _, views in seen.values()):
            rounds = [[hand_id] for hand_id in seen]  # what the first one says of the size helps the next one
        else:
            rounds = [list(seen)]
        fitted = {i for i in seen if self._goes_on(i, seen[i][0], stamp_s) and self._hands[i].stamp_s == stamp_s}
        for ids in rounds:
            ids = [i for i in ids if i not in fitted]  # a repeated stamp changes nothing
            going_on = {i: self._goes_on(i, seen[i][0], stamp_s) for i in ids if _is_seen(seen[i][1])}
            fits = self._go_on(seen, [i for i, goes_on in going_on.items() if goes_on], stamp_s)
            fitted |= {i for i in going_on if self._take(i, *seen[i], fits.get(i), stamp_s)}
        return fitted

    def _goes_on(self, hand_id: int, side: Side, stamp_s: float) -> bool:
        """Whether a hand is the one of some frames ago; else it starts afresh."""
        old = self._hands.get(hand_id)
        return old is not None and old.side == side and 0 <= stamp_s - old.stamp_s <= self._max_gap_s

    def _go_on(self, seen, ids: Sequence[int], stamp_s: float) -> dict[int, HandFit]:
        """Fits of hands that go on from their last poses."""
        priors = {i: self._expected(self._hands[i], stamp_s) for i in ids}
        problems = [FitProblem(seen[i][1], prior.pose, prior, _measures(seen[i][1])) for i, prior in priors.items()]
        return dict(zip(ids, fit_hands(problems, self._fit_config))) if problems else {}

    def _take(self, hand_id: int, side: Side, views: Sequence[HandView], fit: HandFit | None, stamp_s: float) -> bool:
        """Take over the fit of a hand that goes on, or start afresh without one, or where it has lost the hand."""
        old = self._hands.get(hand_id)
        try:
            if fit is None or not math.isfinite(fit.cost):
                fit, old = self._fresh(views, side), None
            elif fit.cost > LOST_COST * len(views):  # the track has jumped, or the pose was caught in a wrong one
                fresh = self._fresh(views, side)
                fit, old = (fresh, None) if fresh.cost < 0.5 * fit.cost else (fit, old)
        except ValueError:
            return False
        if old is None:
            old = _Posed(side, fit, stamp_s, stamp_s, PoseFilter(self._filters, self._max_gap_s), np.zeros(DOF))
            self._hands[hand_id] = old
        else:
            elapsed_s = stamp_s - old.stamp_s
            rate = difference(fit.pose, old.fit.pose)[:DOF] / elapsed_s
            old.velocity += min(1.0, 20 * elapsed_s) * (rate - old.velocity)
            if _measures(views):
                self._learn_size(fit)
        old.fit, old.stamp_s = fit, stamp_s
        self._learn_fingers(fit)
        old.filter.update(fit.pose, stamp_s)
        return True

    def pose(self, hand_id: int, stamp_s: float | None) -> HandPose | None:
        """The filtered pose at ``stamp_s`` (the future is extrapolated; None: as last seen), None when it has none."""
        hand = self._hands.get(hand_id)
        return None if hand is None else hand.filter.predict(hand.stamp_s if stamp_s is None else stamp_s)

    def expected(self, hand_id: int, stamp_s: float) -> HandPose | None:
        """The last fit led on to ``stamp_s``, without the lag of a filter; None until the hand's motion is known."""
        hand = self._hands.get(hand_id)
        return None if hand is None or hand.stamp_s - hand.since_s < WARM_S else self._led_on(hand, stamp_s)

    def velocities(
        self, hand_id: int, stamp_s: float, pose: HandPose, points_m: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """As PoseFilter.velocities, of the hand with this id. Raises KeyError without a pose."""
        return self._hands[hand_id].filter.velocities(stamp_s, pose, points_m)

    def raw(self, hand_id: int) -> HandFit | None:
        """The last fit, not filtered."""
        hand = self._hands.get(hand_id)
        return None if hand is None else hand.fit

    def _expected(self, hand: _Posed, stamp_s: float) -> PosePrior:
        """Where the hand should be: its last pose led on, and how sure that is."""
        elapsed_s = stamp_s - hand.stamp_s
        pose = self._led_on(hand, stamp_s)
        information = hand.fit.information - REST_INFORMATION
        information[SIZE, :], information[:, SIZE] = 0.0, 0.0
        information[SIZE, SIZE] = 1 / self.size.sigma**2
        if self.size.fingers_are_measured:
            information[FINGERS, :], information[:, FINGERS] = 0.0, 0.0
            information[FINGERS, FINGERS] = 1 / self.size.finger_sigma**2
        information += _LEAST
        drift = (_DRIFT * self.config.drift) ** 2 * elapsed_s
        # Information after the drift, inv(inv(information) + diag(drift)), with one decomposition instead of two:
        return PosePrior(pose, np.linalg.solve(_EYE + information * drift, information))

    def _led_on(self, hand: _Posed, stamp_s: float) -> HandPose:
        """The last fit after the motion that it had."""
        step = np.zeros(STEP)
        step[:DOF] = hand.velocity * (stamp_s - hand.stamp_s) * self.config.lead
        step[TURN] *= min(1.0, 0.7 / max(float(np.linalg.norm(step[TURN])), 1e-9))
        led_on = replace(stepped(hand.fit.pose, step), palm_m=self.size.palm_m, shape=self.size.shape)
        return replace(led_on, finger_ratio=self.size.finger_ratio) if self.size.fingers_are_measured else led_on

    def _fresh(self, views: Sequence[HandView], side: Side) -> HandFit:
        """The fit of a hand of which nothing is known but its size. Raises ValueError when too little is seen."""
        return self._with_known_fingers(first_pose(views, side, self.size.palm_m, self.size.shape, self._fit_config))

    def _with_known_fingers(self, fit: HandFit) -> HandFit:
        """A new hand's first fit, with the finger length that the person's hands are known to have."""
        if self.size.finger_sigma >= FINGER_SIGMA:
            return fit
        information = fit.information.copy()
        information[FINGERS, :], information[:, FINGERS] = 0.0, 0.0
        information[FINGERS, FINGERS] = 1 / self.size.finger_sigma**2
        pose = replace(fit.pose, finger_ratio=self.size.finger_ratio)
        return replace(fit, pose=pose, information=information)

    def _learn_fingers(self, fit: HandFit) -> None:
        """Remember how long the fingers are, for the person's next hand, unless somebody has measured them."""
        if not self.size.fingers_are_measured:
            sigma = max(float(fit.information[FINGERS, FINGERS]) ** -0.5, FINGER_FLOOR)
            self.size = replace(self.size, finger_ratio=fit.pose.finger_ratio, finger_sigma=min(sigma, FINGER_SIGMA))

    def _learn_size(self, fit: HandFit) -> None:
        """Take over the size that a fit found, unless its views contradict each other: a wrong calibration, say."""
        for view, errors in zip(fit.views, fit.errors_px):
            if np.nanmean(errors) > CONTRADICTION * palm_length(view.keypoints_px):
                return
        sigma = float(np.sqrt(np.linalg.inv(fit.information)[SIZE, SIZE]))
        sigma = max(min(sigma, self.size.sigma), SIZE_FLOOR)
        self.size = replace(self.size, palm_m=float(np.clip(fit.pose.palm_m, *RANGE_M)), sigma=sigma)


def _measures(views: Sequence[HandView]) -> bool:
    """Whether views say how large a hand is."""
    return len(views) > 1 or any(view.depth_m is not None and np.isfinite(view.depth_m).any() for view in views)


def _is_seen(views: Sequence[HandView]) -> bool:
    """Whether views have a keypoint to fit to."""
    return any(view.known.any() for view in views)


_LOWEST, _HIGHEST = LIMITS.T.copy()
_EYE = np.eye(STEP)
_LEAST = 1e-3 * _EYE
