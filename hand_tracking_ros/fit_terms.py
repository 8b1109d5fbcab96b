"""What pulls at a hand while it is fitted (fitting.py): cameras, joint limits, how hands bend, the expected pose.

Every term is linearised at a pose: half its weighted sum of squares, the gradient (28,) of that, and its Gauss-Newton
matrix (28, 28), over a step: turn (3), wrist position (3), joint angles (20), logarithms of finger ratio and palm
length. This is the inner loop of the pose stage, so it is written for few and large numpy calls.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from hand_tracking_ros.hand_size import FINGER_SIGMA
from hand_tracking_ros.kinematics import LIMITS, NUM_ANGLES, HandPose, log_rotation
from hand_tracking_ros.lifting import palm_length_px
from hand_tracking_ros.skeleton import NUM_JOINTS
from hand_tracking_ros.types import Camera

DOF = 6 + NUM_ANGLES
TURN, POSITION, ANGLES, FINGERS, SIZE = slice(0, 3), slice(3, 6), slice(6, DOF), DOF, DOF + 1
STEP = DOF + 2

# How hands bend when nothing is known, radians: flexion, abduction, middle flexion, tip flexion of a finger.
REST_ANGLES = np.tile([0.35, 0.0, 0.5, 0.3], 5)
REST_ANGLES[:4] = (0.1, 0.0, 0.1, 0.15)
REST_SIGMA = np.tile([0.8, 0.14, 0.9, 0.6], 5)
REST_SIGMA[:4] = (0.4, 0.4, 0.45, 0.5)
TIP_SHARE, TIP_SIGMA = 0.6, 0.25  # the last joint of a finger follows the middle one
LIMIT_SIGMA = 0.03  # radians beyond a joint's limit that count as one standard deviation
NOTHING_TO_FIT = "cannot fit a hand: no view has a finite keypoint"
_FROM_PALM = np.array([0, *(k / 3 for _ in range(5) for k in range(4))])  # 0 at a finger's base, 1 at its tip


class ViewNoise(NamedTuple):
    """Standard deviations of what KeyNet says of a keypoint of score 1; the first and the last grow with 1 / score.

    ``keypoint``: of its place in the image, as a share of the palm; ``shape``: the same, of a fingertip, for fingers of
    other proportions; ``depth``: of its relative depth, palm lengths.
    """

    keypoint: float
    shape: float
    depth: float


@dataclass(frozen=True)
class FitConfig:
    """Noise of what the networks say, and when the search stops.

    ``alone``: of the only view of a hand; ``together``: of each of several, which say by themselves how far away a
    fingertip is. Both by a search on synthetic sequences. ``metric_sigma_m``: of a depth image's sample. ``outlier``:
    standard deviations beyond which a keypoint is believed less (Huber).
    """

    alone: ViewNoise = ViewNoise(0.05, 0.15, 0.25)
    together: ViewNoise = ViewNoise(0.04, 0.0, 0.35)
    metric_sigma_m: float = 0.008
    outlier: float = 2.0
    iterations: int = 12
    tolerance: float = 0.05


@dataclass(frozen=True)
class HandView:
    """What one camera says about a hand.

    keypoints_px (21, 2), NaN for unknown; scores (21,) 0..1; depth_rel (21,) along the camera's z relative to joint 9
    in palm lengths, NaN for unknown; depth_m (21,) metric z of the joints from a depth image, NaN for unknown. The
    camera sees a point x of the common frame at ``rotation`` x + ``translation_m``.
    """

    camera: Camera
    keypoints_px: np.ndarray
    scores: np.ndarray
    depth_rel: np.ndarray
    depth_m: np.ndarray | None = None
    rotation: np.ndarray = field(default_factory=lambda: np.eye(3))
    translation_m: np.ndarray = field(default_factory=lambda: np.zeros(3))

    @cached_property
    def known(self) -> np.ndarray:
        """(21,) bool: the keypoints that say something. The lens has a ray for them."""
        return self._known_and_rays[0]

    @cached_property
    def rays(self) -> np.ndarray:
        """(3, 21, 3) rays through every keypoint, half a pixel right of it and below it; any, where it is not known."""
        return self._known_and_rays[1]

    @cached_property
    def _known_and_rays(self) -> tuple[np.ndarray, np.ndarray]:
        rays = self.camera.rays(self.keypoints_px + _BESIDE_PX)
        known = (self.scores > 0) & np.isfinite(rays).all(axis=(0, 2))
        return known, rays if known.all() else np.where(known[:, None], rays, _ANY_RAYS)


@dataclass(frozen=True)
class PosePrior:
    """A pose that is expected, and how surely: ``information`` (28, 28), the inverse covariance of a step away from
    it."""

    pose: HandPose
    information: np.ndarray


@dataclass(frozen=True)
class FitProblem:
    """One hand to fit: what cameras see of it, where the search starts, what is expected, and whether the size of the
    hand is searched for too."""

    views: Sequence[HandView]
    start: HandPose
    prior: PosePrior | None = None
    free_size: bool = False


class FitTerms:
    """Everything that pulls at some hands of one shape, (N,), made ready; they are linearised together.

    Raises ValueError when a hand has no view with a keypoint.
    """

    def __init__(self, problems: Sequence[FitProblem], config: FitConfig):
        self._outlier = config.outlier
        counts = [len(problem.views) for problem in problems]
        if 0 in counts:
            raise ValueError(NOTHING_TO_FIT)
        noise = [config.alone if count == 1 else config.together for count in counts for _ in range(count)]
        views = [view for problem in problems for view in problem.views]
        self._views = _ViewTerms(views, np.array(noise).T, config.metric_sigma_m)
        self._first = np.cumsum([0, *counts[:-1]])  # the first view of each hand
        self._owner = None if set(counts) == {1} else np.repeat(np.arange(len(problems)), counts)  # hand of each view
        if not self._per_hand(self._views.known.any(axis=1)).all():
            raise ValueError(NOTHING_TO_FIT)
        self._shape = problems[0].start.shape
        # How hands bend, and what is expected, are one parabola about the expected pose.
        priors = [problem.prior or _no_prior(problem.start) for problem in problems]
        self._expected = [prior.pose for prior in priors]
        self._information = _stacked([prior.information for prior in priors]) + REST_INFORMATION
        angles = _stacked([pose.angles for pose in self._expected])
        pull = angles @ REST_INFORMATION[ANGLES, ANGLES]
        self._pull = np.zeros((len(problems), STEP))
        self._pull[:, ANGLES] = pull - _REST_PULL
        self._cost = (angles * (0.5 * pull - _REST_PULL)).sum(axis=1) + _REST_COST

    def _per_view(self, values: np.ndarray) -> np.ndarray:
        """(V, ...) of the hand that each view shows, from (N, ...)."""
        return values if self._owner is None else values[self._owner]

    def _per_hand(self, values: np.ndarray) -> np.ndarray:
        """(N, ...) the sum over the views of each hand, from (V, ...)."""
        return values if self._owner is None else np.add.reduceat(values, self._first)

    def linearised(self, poses: Sequence[HandPose]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Half the weighted sum of squares at each hand's pose, (N,), its gradient (N, 28) and its Gauss-Newton matrix
        (N, 28, 28)."""
        angles, palms_m = _stacked([pose.angles for pose in poses]), np.array([pose.palm_m for pose in poses])
        points, jacobian = self._points(poses, angles)
        residuals, rows = self._views.residuals(*map(self._per_view, (points, jacobian, palms_m[:, None])))
        # Huber, by reweighting: what is far is believed less.
        size = residuals * residuals
        size[..., :2] = (size[..., 0] + size[..., 1])[..., None]
        trust = self._outlier / np.maximum(np.sqrt(size), self._outlier)
        count = len(rows)
        rows = rows.reshape(count, -1, STEP)
        weighted = (residuals * trust).reshape(count, 1, -1)
        costs = (weighted @ (residuals * (2 - trust)).reshape(count, -1, 1))[:, 0, 0]
        gradients = (weighted @ rows)[:, 0]
        hessians = rows.swapaxes(1, 2) @ (rows * trust.reshape(count, -1, 1))
        cost, gradient, hessian = self._priors(poses, angles)
        cost += 0.5 * self._per_hand(costs)
        gradient += self._per_hand(gradients)
        hessian += self._per_hand(hessians)
        return cost, gradient, hessian

    def _points(self, poses: Sequence[HandPose], angles: np.ndarray):
        """Keypoints (N, 21, 3) in the common frame, and their derivatives (N, 21, 3, 28) by a step."""
        local, by_shape = self._shape.jacobian(angles, np.array([pose.finger_ratio for pose in poses]))
        from_local = _stacked([(pose.palm_m * pose.rotation * pose.mirror).T for pose in poses])  # (N, 3, 3)
        arm = local @ from_local  # from the wrist
        jacobian = np.zeros((len(poses), NUM_JOINTS, STEP, 3))
        jacobian[:, :, TURN] = (arm @ _TURNS_OF).reshape(-1, NUM_JOINTS, 3, 3)
        jacobian[:, :, POSITION] = _EYE
        jacobian[:, :, 6:SIZE] = by_shape.swapaxes(2, 3) @ from_local[:, None]
        jacobian[:, :, SIZE] = arm
        return arm + _stacked([pose.position_m for pose in poses])[:, None], jacobian.swapaxes(2, 3)

    def _priors(self, poses: Sequence[HandPose], angles: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Joint limits, how hands bend, and the expected pose."""
        away = _stacked([difference(pose, base) for pose, base in zip(poses, self._expected)])
        gradient = (self._information @ away[..., None])[..., 0]
        gradient += self._pull
        cost = 0.5 * (away * (gradient + self._pull)).sum(axis=1) + self._cost
        hessian = self._information.copy()
        beyond = angles - np.minimum(np.maximum(angles, _LOWEST), _HIGHEST)
        if beyond.any():
            cost += 0.5 * (beyond * beyond).sum(axis=1) / LIMIT_SIGMA**2
            gradient[:, ANGLES] += beyond / LIMIT_SIGMA**2
            diagonal = hessian.reshape(len(poses), -1)[:, 6 * (STEP + 1) : DOF * (STEP + 1) : STEP + 1]
            diagonal += (beyond != 0) / LIMIT_SIGMA**2
        return cost, gradient, hessian


class _ViewTerms:
    """Views (V,), made ready: rays, and maps from a point beside a ray to its error in standard deviations.

    ``noise`` (3, V): ``ViewNoise`` of each.
    """

    def __init__(self, views: Sequence[HandView], noise: np.ndarray, metric_sigma_m: float):
        keypoint_sigma, shape_sigma, depth_sigma = noise[..., None]
        self.rotation = self.translation = None  # where the common frame is the camera's
        if not all((view.rotation == _EYE).all() and not view.translation_m.any() for view in views):
            self.rotation = _stacked([view.rotation for view in views])
            self.translation = _stacked([view.translation_m for view in views])[:, None]
        points, scores = _stacked([view.keypoints_px for view in views]), _stacked([view.scores for view in views])
        self.known = _stacked([view.known for view in views])  # (V, 21)
        points = np.where(self.known[..., None], points, 0.0)
        # The camera's rays beside the keypoints say how far a pixel is there, whatever the lens.
        near = _stacked([view.rays for view in views])  # (V, 3, 21, 3)
        self.ray = near[:, 0]
        steps = (2 * (near[:, 1:] - near[:, :1])).swapaxes(1, 2)  # (V, 21, 2, 3) per px
        to_px = np.linalg.solve(steps @ steps.swapaxes(2, 3), steps)
        depth = _stacked([view.depth_rel for view in views])
        palms_px = [_palm_px(*of_view) for of_view in zip(points, self.known, depth)]
        scores = np.minimum(np.maximum(scores, 0.1), 1.0)
        shares = np.sqrt((keypoint_sigma / scores) ** 2 + (shape_sigma * _FROM_PALM) ** 2)
        sigma_px = np.maximum(np.array(palms_px)[:, None] * shares, 0.3)
        self.beside = to_px * (self.known / sigma_px)[..., None, None]  # weighted, (V, 21, 2, 3)
        self.beside_ray = (self.beside @ self.ray[..., None])[..., 0]
        depth = depth - depth[:, 9:10]
        relative = np.isfinite(depth) & self.known
        self.depth = np.where(relative, depth, 0.0)
        self.depth_weight = relative * scores / depth_sigma
        self.metric = None
        if any(view.depth_m is not None for view in views):
            unknown = np.full(NUM_JOINTS, np.nan)
            metric = _stacked([unknown if view.depth_m is None else view.depth_m for view in views])
            self.metric = np.where(np.isfinite(metric), metric, 0.0)
            self.metric_weight = np.isfinite(metric) / metric_sigma_m

    def residuals(self, points: np.ndarray, jacobian: np.ndarray, palm_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Residuals (V, 21, C) in standard deviations and their derivatives (V, 21, C, 28), for points (V, 21, 3) of
        the common frame with derivatives ``jacobian`` (V, 21, 3, 28), and ``palm_m`` (V, 1).

        The C residuals of a keypoint: two in the image, relative depth, and depth where some view has measured it.
        """
        count = 3 if self.metric is None else 4
        if self.rotation is not None:
            points = points @ self.rotation.swapaxes(1, 2) + self.translation
        residuals = np.empty((*points.shape[:2], count))
        by_point = np.zeros((*points.shape[:2], count, 3))
        ahead = np.maximum((self.ray * points).sum(axis=2), 1e-3)[..., None]
        aside = self.beside @ (points / ahead)[..., None]  # (V, 21, 2, 1)
        np.subtract(aside[..., 0], self.beside_ray, out=residuals[..., :2])
        # What moving away along the ray takes off:
        np.divide(self.beside - aside * self.ray[:, :, None], ahead[..., None], out=by_point[..., :2, :])
        by_point[..., 2, 2] = 1 / palm_m
        depth = points[..., 2]
        if self.metric is not None:
            np.multiply(self.metric_weight, depth - self.metric, out=residuals[..., 3])
            by_point[..., 3, 2] = self.metric_weight
        if self.rotation is not None:
            by_point = (by_point.reshape(len(points), -1, 3) @ self.rotation).reshape(by_point.shape)
        rows = by_point @ jacobian
        relative = (depth - depth[:, 9:10]) / palm_m
        np.multiply(self.depth_weight, relative - self.depth, out=residuals[..., 2])
        depth_rows = rows[:, :, 2] - rows[:, 9:10, 2]
        depth_rows[..., SIZE] -= relative
        np.multiply(self.depth_weight[..., None], depth_rows, out=rows[:, :, 2])
        return residuals, rows


_EYE = np.eye(3)
_BESIDE_PX = np.array([(0.0, 0.0), (0.5, 0.0), (0.0, 0.5)])[:, None]
_ANY_RAYS = np.array([(0.0, 0.0, 1.0), (1e-3, 0.0, 1.0), (0.0, 1e-3, 1.0)])[:, None]
_TURNS_OF = np.cross(_EYE[None, :], _EYE[:, None]).reshape(3, 9)  # arm @ this: turn x arm, for a turn about each axis


def _stacked(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """(N, ...): as np.stack, which takes several times longer on so few."""
    return arrays[0][None] if len(arrays) == 1 else np.array(arrays)


def _palm_px(points: np.ndarray, known: np.ndarray, depth_rel: np.ndarray) -> float:
    """Length of the palm in px; where some keypoints are missing, half the extent of the others."""
    if known.all():
        return palm_length_px(points, np.where(np.isfinite(depth_rel), depth_rel, 0.0))
    return 0.5 * float(np.ptp(points[known], axis=0).max()) if known.any() else 1.0


def _no_prior(start: HandPose) -> PosePrior:
    """Nothing is expected but fingers of about the usual length."""
    information = np.zeros((STEP, STEP))
    information[FINGERS, FINGERS] = 1 / FINGER_SIGMA**2
    return PosePrior(replace(start, finger_ratio=1.0), information)


def difference(pose: HandPose, base: HandPose) -> np.ndarray:
    """The step (28,) from ``base`` to ``pose``: stepped(base, difference(pose, base)) is ``pose``."""
    step = np.empty(STEP)
    step[TURN] = log_rotation(pose.rotation @ base.rotation.T)
    step[POSITION] = pose.position_m - base.position_m
    step[ANGLES] = pose.angles - base.angles
    step[FINGERS] = math.log(pose.finger_ratio / base.finger_ratio)
    step[SIZE] = math.log(pose.palm_m / base.palm_m)
    return step


def _rest_information() -> np.ndarray:
    """(28, 28) information of how hands bend: the rest pose, and last joints that follow the middle ones."""
    information = np.zeros((STEP, STEP))
    information[ANGLES, ANGLES] = np.diag(1 / REST_SIGMA**2)
    for finger in range(1, 5):
        row = np.zeros(STEP)
        row[6 + 4 * finger + 3], row[6 + 4 * finger + 2] = 1 / TIP_SIGMA, -TIP_SHARE / TIP_SIGMA
        information += np.outer(row, row)
    return information


_LOWEST, _HIGHEST = LIMITS.T.copy()
# The part of every fit's information that says how hands bend: the same at every frame, no evidence.
REST_INFORMATION = _rest_information()
REST_INFORMATION.setflags(write=False)
_REST_PULL = REST_ANGLES / REST_SIGMA**2
_REST_COST = 0.5 * float(REST_ANGLES @ _REST_PULL)
