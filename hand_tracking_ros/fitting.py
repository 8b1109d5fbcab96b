"""Pose reconstruction: the kinematic hand that explains the keypoints of one or several cameras.

Levenberg-Marquardt over 26 degrees of freedom (MEgATrack, Han et al. 2020, section 5), the length of the fingers, and,
where something measures it, the size of the hand. Its terms: 2D keypoints, relative depths, optionally metric depths,
joint limits, a weak prior on how hands bend, and the pose that was expected. Every term is a squared difference over
the variance of its noise, so the normal matrix at the solution is the pose's information, which the next frame starts
from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from hand_tracking_ros.fit_terms import (
    ANGLES,
    DOF,
    FINGERS,
    POSITION,
    REST_ANGLES,
    SIZE,
    STEP,
    TURN,
    FitConfig,
    FitProblem,
    FitTerms,
    HandView,
    PosePrior,
    difference,
)
from hand_tracking_ros.hand_size import FINGER_RANGE
from hand_tracking_ros.kinematics import LIMITS, MEAN_HAND, NUM_ANGLES, HandPose, KinematicHand, exp_rotation
from hand_tracking_ros.lifting import palm_length_px
from hand_tracking_ros.skeleton import NUM_JOINTS, Side

__all__ = [
    "DOF", "FINGERS", "SIZE", "STEP", "FitConfig", "FitProblem", "HandFit", "HandView", "PosePrior", "difference",
    "first_pose", "fit_hand", "fit_hands", "stepped",
]  # fmt: skip
PALM_JOINTS = np.array([0, 1, 5, 9, 13, 17])


@dataclass(frozen=True)
class HandFit:
    """The pose, its ``information`` (28, 28), the weighted ``cost`` (half the sum of squares) before the last step, the
    ``views`` that it explains, and ``iterations`` that it took."""

    pose: HandPose
    information: np.ndarray
    cost: float
    views: tuple[HandView, ...]
    iterations: int

    @cached_property
    def errors_px(self) -> tuple[np.ndarray, ...]:
        """One (21,) array of reprojection errors per view, NaN where there is no keypoint."""
        points = self.pose.points()
        return tuple(
            np.linalg.norm(v.camera.project(points @ v.rotation.T + v.translation_m) - v.keypoints_px, axis=1)
            for v in self.views
        )


def fit_hand(
    views: Sequence[HandView],
    start: HandPose,
    prior: PosePrior | None = None,
    config: FitConfig = FitConfig(),
    free_size: bool = False,
) -> HandFit:
    """The pose nearest to ``views`` and ``prior``, searched from ``start``; its size stays unless ``free_size``.

    Raises ValueError when no view has a keypoint.
    """
    return fit_hands([FitProblem(views, start, prior, free_size)], config)[0]


def fit_hands(problems: Sequence[FitProblem], config: FitConfig = FitConfig()) -> list[HandFit]:
    """``fit_hand`` for several hands of one shape (``HandPose.shape``) at once, which takes little longer than for one.

    Raises ValueError when a hand has no view with a keypoint.
    """
    terms = FitTerms(problems, config)
    linear = terms.linearised([problem.start for problem in problems])
    searches = [_Search(problem, *of_hand) for problem, *of_hand in zip(problems, *linear)]
    for _ in range(config.iterations):
        for search in searches:
            search.step(config.tolerance)
        if all(search.done for search in searches):
            break
        linear = terms.linearised([search.moved for search in searches])
        for search, *of_hand in zip(searches, *linear):
            search.judge(*of_hand)
    return [search.result() for search in searches]


class _Search:
    """Levenberg-Marquardt for one hand: the best pose so far, linearised, and ``moved``, the one to try next."""

    def __init__(self, problem: FitProblem, cost: float, gradient: np.ndarray, hessian: np.ndarray):
        self._problem, self._pose = problem, problem.start
        self._linear = cost, gradient, hessian
        self._damping, self._iterations = 1e-3, 0
        self._count = STEP if problem.free_size else STEP - 1
        self.moved, self.done = problem.start, False

    def step(self, tolerance: float) -> None:
        """Choose the next pose to try; the search is done when that has little to gain."""
        if self.done:
            return
        self._iterations += 1
        (cost, gradient, hessian), count = self._linear, self._count
        matrix = hessian[:count, :count].copy()
        diagonal = matrix.reshape(-1)[:: count + 1]
        diagonal += self._damping * diagonal + 1e-9
        step = np.zeros(STEP)
        step[:count] = -np.linalg.solve(matrix, gradient[:count])
        self.moved = stepped(self._pose, step)
        if -0.5 * float(gradient @ step) < tolerance * (1 + cost):
            self._pose, self.done = self.moved, True  # so little to gain that it need not be measured

    def judge(self, cost: float, gradient: np.ndarray, hessian: np.ndarray) -> None:
        """Take ``moved``, where the terms are these, or try a shorter step."""
        if self.done:
            return
        if cost < self._linear[0]:
            self._pose, self._linear = self.moved, (cost, gradient, hessian)
            self._damping = max(self._damping * 0.2, 1e-6)
        else:
            self._damping *= 8

    def result(self) -> HandFit:
        """The search as it stands."""
        cost, _, hessian = self._linear
        return HandFit(self._pose, hessian, float(cost), tuple(self._problem.views), self._iterations)


def stepped(pose: HandPose, step: np.ndarray) -> HandPose:
    """``pose`` after a step (28,): turned about its wrist in the common frame, moved, bent, and scaled."""
    size, fingers = float(step[SIZE]), float(step[FINGERS])
    return HandPose(
        pose.side,
        exp_rotation(step[TURN]) @ pose.rotation,
        pose.position_m + step[POSITION],
        np.minimum(np.maximum(pose.angles + step[ANGLES], _LOWEST), _HIGHEST),
        pose.palm_m * math.exp(min(max(size, -0.3), 0.3)),
        min(max(pose.finger_ratio * math.exp(min(max(fingers, -0.2), 0.2)), FINGER_RANGE[0]), FINGER_RANGE[1]),
        pose.shape,
    )


_LOWEST, _HIGHEST = (LIMITS + (-0.1, 0.1)).T.copy()  # what a step may reach


def first_pose(
    views: Sequence[HandView],
    side: Side,
    palm_m: float,
    shape: KinematicHand = MEAN_HAND,
    config: FitConfig = FitConfig(),
) -> HandFit:
    """A pose for a hand of which nothing is known yet: the best fit from several guesses.

    The guesses: the palm as relative depths of the surest view have it, and turned the other way about the image
    plane; fingers straight, and bent. Raises ValueError when no view has all keypoints of the palm.
    """
    able = [view for view in views if view.known[PALM_JOINTS].all()]
    if not able:
        raise ValueError(
            "cannot fit a new hand: no view has all keypoints of the palm, with a ray of the lens for each"
        )
    view = max(able, key=lambda view: float(view.scores.sum()))
    starts = []
    for sign in (1.0, -1.0):
        start = _palm_pose(view, side, palm_m, shape, sign)
        for bend in (0.15, 1.0):
            angles = REST_ANGLES.copy()
            angles[4:][np.arange(16) % 4 != 1] = bend
            starts.append(replace(start, angles=angles))
    fits = fit_hands([FitProblem(views, start) for start in starts], replace(config, iterations=4))
    best = min(fits, key=lambda fit: fit.cost)
    return fit_hand(views, best.pose, config=replace(config, iterations=8))


def _palm_pose(view: HandView, side: Side, palm_m: float, shape: KinematicHand, sign: float) -> HandPose:
    """The flat palm laid on the palm's keypoints, with relative depths times ``sign`` (Kabsch)."""
    depth = sign * np.nan_to_num(view.depth_rel[PALM_JOINTS] - view.depth_rel[9])
    px = view.keypoints_px[PALM_JOINTS]
    rays = view.camera.rays(px)
    rays = rays / np.maximum(rays[:, 2:], 0.05)
    full = np.zeros((NUM_JOINTS, 2))
    full[PALM_JOINTS] = rays[:, :2]
    relative = np.zeros(NUM_JOINTS)
    relative[PALM_JOINTS] = depth
    distance = palm_m / palm_length_px(full, relative)  # palm over its length at distance 1
    seen = rays * (distance + palm_m * depth)[:, None]
    pose = HandPose(side, np.eye(3), np.zeros(3), np.zeros(NUM_ANGLES), palm_m, shape=shape)
    flat = pose.points()[PALM_JOINTS]
    centre, flat_centre = seen.mean(axis=0), flat.mean(axis=0)
    u, _, vt = np.linalg.svd((seen - centre).T @ (flat - flat_centre))
    rotation = u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt
    position = centre - rotation @ flat_centre
    return replace(pose, rotation=rotation, position_m=position).moved(
        view.rotation.T, -view.rotation.T @ view.translation_m
    )
