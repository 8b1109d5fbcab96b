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
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from hand_tracking_ros.kinematics import (
    LIMITS,
    MEAN_HAND,
    NUM_ANGLES,
    HandPose,
    KinematicHand,
    exp_rotation,
    log_rotation,
)
from hand_tracking_ros.lifting import palm_length_px
from hand_tracking_ros.skeleton import NUM_JOINTS, Side
from hand_tracking_ros.types import Camera

# A step: turn (3), wrist position (3), joint angles (20), logarithms of finger ratio and palm length.
DOF = 6 + NUM_ANGLES
TURN, POSITION, ANGLES, FINGERS, SIZE = slice(0, 3), slice(3, 6), slice(6, DOF), DOF, DOF + 1
STEP = DOF + 2
FINGER_SIGMA = 0.12  # of the logarithm of finger ratios, when nothing is known of the person

# How hands bend when nothing is known, radians: flexion, abduction, middle flexion, tip flexion of a finger.
REST_ANGLES = np.tile([0.35, 0.0, 0.5, 0.3], 5)
REST_ANGLES[:4] = (0.1, 0.0, 0.1, 0.15)
REST_SIGMA = np.tile([0.8, 0.14, 0.9, 0.6], 5)
REST_SIGMA[:4] = (0.4, 0.4, 0.45, 0.5)
TIP_SHARE, TIP_SIGMA = 0.6, 0.25  # the last joint of a finger follows the middle one
LIMIT_SIGMA = 0.03  # radians beyond a joint's limit that count as one standard deviation
_FROM_PALM = np.array([0, *(k / 3 for _ in range(5) for k in range(4))])  # 0 at a finger's base, 1 at its tip
PALM_JOINTS = np.array([0, 1, 5, 9, 13, 17])


@dataclass(frozen=True)
class FitConfig:
    """Noise of what the networks say, and when the search stops.

    ``keypoint_sigma``: of a keypoint of score 1, as a share of the palm; it grows with 1 / score. ``depth_sigma``: of a
    relative depth, palm lengths. ``metric_sigma_m``: of a depth image's sample. ``outlier``: standard deviations beyond
    which a keypoint is believed less (Huber).
    """

    keypoint_sigma: float = 0.05
    shape_sigma: float = 0.15
    depth_sigma: float = 0.25
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


@dataclass(frozen=True)
class PosePrior:
    """A pose that is expected, and how surely: ``information`` (28, 28), the inverse covariance of a step away from
    it."""

    pose: HandPose
    information: np.ndarray


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
    terms = [_ViewTerm(view, config) for view in views]
    if not any(term.known.any() for term in terms):
        raise ValueError("cannot fit a hand: no view has a finite keypoint")
    count = STEP if free_size else STEP - 1
    pose = start
    cost, gradient, hessian = _linearised(pose, terms, prior, config)
    damping, done = 1e-3, 0
    while done < config.iterations:
        done += 1
        matrix = hessian[:count, :count].copy()
        diagonal = matrix.reshape(-1)[:: count + 1]
        diagonal += damping * diagonal + 1e-9
        step = np.zeros(STEP)
        step[:count] = -np.linalg.solve(matrix, gradient[:count])
        moved = stepped(pose, step)
        if -0.5 * float(gradient @ step) < config.tolerance * (1 + cost):
            pose = moved  # so little to gain that it need not be measured
            break
        new_cost, new_gradient, new_hessian = _linearised(moved, terms, prior, config)
        if new_cost < cost:
            pose, cost, gradient, hessian = moved, new_cost, new_gradient, new_hessian
            damping = max(damping * 0.2, 1e-6)
        else:
            damping *= 8
    return HandFit(pose, hessian, cost, tuple(views), done)


def stepped(pose: HandPose, step: np.ndarray) -> HandPose:
    """``pose`` after a step (28,): turned about its wrist in the common frame, moved, bent, and scaled."""
    return replace(
        pose,
        rotation=exp_rotation(step[TURN]) @ pose.rotation,
        position_m=pose.position_m + step[POSITION],
        angles=np.clip(pose.angles + step[ANGLES], LIMITS[:, 0] - 0.1, LIMITS[:, 1] + 0.1),
        palm_m=pose.palm_m * float(np.exp(np.clip(step[SIZE], -0.3, 0.3))),
        finger_ratio=min(max(pose.finger_ratio * float(np.exp(np.clip(step[FINGERS], -0.2, 0.2))), 0.6), 1.5),
    )


def difference(pose: HandPose, base: HandPose) -> np.ndarray:
    """The step (28,) from ``base`` to ``pose``: stepped(base, difference(pose, base)) is ``pose``."""
    step = np.empty(STEP)
    step[TURN] = log_rotation(pose.rotation @ base.rotation.T)
    step[POSITION] = pose.position_m - base.position_m
    step[ANGLES] = pose.angles - base.angles
    step[FINGERS] = np.log(pose.finger_ratio / base.finger_ratio)
    step[SIZE] = np.log(pose.palm_m / base.palm_m)
    return step


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
    able = [view for view in views if np.isfinite(view.keypoints_px[PALM_JOINTS]).all()]
    if not able:
        raise ValueError("cannot fit a new hand: no view has all keypoints of the palm")
    view = max(able, key=lambda view: float(view.scores.sum()))
    fits = []
    for sign in (1.0, -1.0):
        start = _palm_pose(view, side, palm_m, shape, sign)
        for bend in (0.15, 1.0):
            angles = REST_ANGLES.copy()
            angles[4:][np.arange(16) % 4 != 1] = bend
            fits.append(fit_hand(views, replace(start, angles=angles), config=replace(config, iterations=4)))
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


class _ViewTerm:
    """One view, made ready: rays, and maps from a point beside a ray to its error in standard deviations."""

    def __init__(self, view: HandView, config: FitConfig):
        self.rotation, self.translation = view.rotation, view.translation_m
        self.known = np.isfinite(view.keypoints_px).all(axis=1) & (view.scores > 0)
        points = np.where(self.known[:, None], view.keypoints_px, 0.0)
        # The camera's rays beside the keypoints say how far a pixel is there, whatever the lens.
        near = view.camera.rays(np.concatenate([points, points + (0.5, 0.0), points + (0.0, 0.5)]))
        self.ray = near[:NUM_JOINTS]
        steps = 2 * (near[NUM_JOINTS:].reshape(2, NUM_JOINTS, 3) - self.ray).transpose(1, 0, 2)  # (21, 2, 3) per px
        to_px = np.linalg.solve(steps @ steps.transpose(0, 2, 1), steps)
        palm_px = palm_length_px(points, np.nan_to_num(view.depth_rel)) if self.known.all() else _palm_px(view)
        scores = np.clip(view.scores, 0.1, 1.0)
        sigma_px = palm_px * np.sqrt((config.keypoint_sigma / scores) ** 2 + (config.shape_sigma * _FROM_PALM) ** 2)
        self.beside = to_px * (self.known / np.maximum(sigma_px, 0.3))[:, None, None]  # weighted, (21, 2, 3)
        relative = np.isfinite(view.depth_rel) & self.known & np.isfinite(view.depth_rel[9])
        self.depth = np.where(relative, view.depth_rel - view.depth_rel[9], 0.0)
        self.depth_weight = relative * scores / config.depth_sigma
        self.metric = None
        if view.depth_m is not None and np.isfinite(view.depth_m).any():
            found = np.isfinite(view.depth_m)
            self.metric = np.where(found, view.depth_m, 0.0)
            self.metric_weight = found / config.metric_sigma_m
        self.count = 3 if self.metric is None else 4  # residuals per keypoint: 2 in the image, relative depth, depth

    def residuals(self, points: np.ndarray, jacobian: np.ndarray, palm_m: float) -> tuple[np.ndarray, np.ndarray]:
        """Residuals (21, count) in standard deviations and their derivatives (21, count, 28), for points (21, 3) of the
        common frame with derivatives ``jacobian`` (21, 3, 28)."""
        points = points @ self.rotation.T + self.translation
        residuals = np.empty((NUM_JOINTS, self.count))
        by_point = np.zeros((NUM_JOINTS, self.count, 3))
        ahead = np.maximum((self.ray * points).sum(axis=1), 1e-3)[:, None]
        place = points / ahead
        residuals[:, :2] = (self.beside @ (place - self.ray)[..., None])[..., 0]
        along = (self.beside @ place[..., None]) * self.ray[:, None]  # what moving away along the ray takes off
        by_point[:, :2] = (self.beside - along) / ahead[..., None]
        by_point[:, 2, 2] = 1 / palm_m
        if self.metric is not None:
            residuals[:, 3] = self.metric_weight * (points[:, 2] - self.metric)
            by_point[:, 3, 2] = self.metric_weight
        rows = (by_point @ self.rotation) @ jacobian
        relative = (points[:, 2] - points[9, 2]) / palm_m
        residuals[:, 2] = self.depth_weight * (relative - self.depth)
        depth_rows = rows[:, 2] - rows[9, 2]
        depth_rows[:, SIZE] -= relative
        rows[:, 2] = self.depth_weight[:, None] * depth_rows
        return residuals, rows


def _palm_px(view: HandView) -> float:
    """Palm length where some keypoints are missing: half the extent of the others."""
    known = view.keypoints_px[np.isfinite(view.keypoints_px).all(axis=1)]
    return 0.5 * float(np.ptp(known, axis=0).max()) if len(known) else 1.0


def _linearised(pose: HandPose, terms: Sequence[_ViewTerm], prior: PosePrior | None, config: FitConfig):
    """Half the weighted sum of squares at ``pose``, its gradient (28,) and its Gauss-Newton matrix (28, 28)."""
    local, by_shape = pose.shape.jacobian(pose.angles, pose.finger_ratio)
    to_frame = pose.palm_m * pose.rotation * pose.mirror  # (3, 3)
    arm = local @ to_frame.T  # (21, 3) from the wrist
    jacobian = _PLAIN_JACOBIAN.copy()
    x, y, z = arm.T
    jacobian[:, 0, 1], jacobian[:, 0, 2], jacobian[:, 1, 2] = z, -y, x  # a turn moves a point by turn x arm
    jacobian[:, 1, 0], jacobian[:, 2, 0], jacobian[:, 2, 1] = -z, y, -x
    jacobian[..., 6:SIZE] = to_frame @ by_shape
    jacobian[..., SIZE] = arm
    points = arm + pose.position_m
    cost, gradient, hessian = _prior_terms(pose, prior)
    limit = config.outlier
    for term in terms:
        residuals, rows = term.residuals(points, jacobian, pose.palm_m)
        size = np.abs(residuals)
        size[:, 0] = size[:, 1] = np.hypot(size[:, 0], size[:, 1])
        far = size > limit  # believed less: Huber's cost, by reweighting
        trust = np.where(far, limit / np.maximum(size, limit), 1.0)
        costs = np.where(far, limit * (2 * size - limit), size * size)
        cost += 0.5 * float(costs[:, 1:].sum())
        rows = rows.reshape(-1, STEP)
        weighted = rows * trust.reshape(-1, 1)
        gradient += residuals.reshape(-1) @ weighted
        hessian += rows.T @ weighted
    return cost, gradient, hessian


_PLAIN_JACOBIAN = np.zeros((NUM_JOINTS, 3, STEP))
_PLAIN_JACOBIAN[..., POSITION] = np.eye(3)


def _prior_terms(pose: HandPose, prior: PosePrior | None):
    """Joint limits, how hands bend, and the expected pose."""
    angles = pose.angles
    gradient, hessian = np.zeros(STEP), _REST_INFORMATION.copy()
    pull = _REST_INFORMATION[ANGLES, ANGLES] @ angles
    cost = 0.5 * float(angles @ pull) - float(_REST_PULL @ angles) + _REST_COST
    gradient[ANGLES] = pull - _REST_PULL
    beyond = angles - np.minimum(np.maximum(angles, LIMITS[:, 0]), LIMITS[:, 1])
    if beyond.any():
        cost += 0.5 * float(beyond @ beyond) / LIMIT_SIGMA**2
        gradient[ANGLES] += beyond / LIMIT_SIGMA**2
        hessian.reshape(-1)[6 * (STEP + 1) : DOF * (STEP + 1) : STEP + 1] += (beyond != 0) / LIMIT_SIGMA**2
    if prior is None:
        length = math.log(pose.finger_ratio) / FINGER_SIGMA
        cost += 0.5 * length**2
        gradient[FINGERS] += length / FINGER_SIGMA
        hessian[FINGERS, FINGERS] += 1 / FINGER_SIGMA**2
    else:
        away = difference(pose, prior.pose)
        pull = prior.information @ away
        cost += 0.5 * float(away @ pull)
        gradient += pull
        hessian += prior.information
    return cost, gradient, hessian


def _rest_information() -> np.ndarray:
    """(28, 28) information of how hands bend: the rest pose, and last joints that follow the middle ones."""
    information = np.zeros((STEP, STEP))
    information[ANGLES, ANGLES] = np.diag(1 / REST_SIGMA**2)
    for finger in range(1, 5):
        row = np.zeros(STEP)
        row[6 + 4 * finger + 3], row[6 + 4 * finger + 2] = 1 / TIP_SIGMA, -TIP_SHARE / TIP_SIGMA
        information += np.outer(row, row)
    return information


_REST_INFORMATION = _rest_information()
_REST_PULL = REST_ANGLES / REST_SIGMA**2
_REST_COST = 0.5 * float(REST_ANGLES @ _REST_PULL)


def rest_information() -> np.ndarray:
    """(28, 28) the part of every fit's information that says how hands bend: the same at every frame, no evidence."""
    return _REST_INFORMATION.copy()
