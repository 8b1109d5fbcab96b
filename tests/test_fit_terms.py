"""The terms of the fit: derivatives that are right, and several hands at once that come out as each one alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hand_tracking_ros.fit_terms import SIZE, STEP, FitConfig, FitProblem, FitTerms, HandView, PosePrior
from hand_tracking_ros.fitting import fit_hand, fit_hands, stepped
from hand_tracking_ros.kinematics import MEAN_HAND, HandPose, KinematicHand, exp_rotation
from hand_tracking_ros.skeleton import Side
from hand_tracking_ros.types import Camera

PINHOLE = Camera(500, 500, 320, 240)
FISHEYE = Camera(260, 260, 320, 240, "fisheye", (0.02, -0.005, 0.0, 0.0))
TURNED, SHIFT = exp_rotation(np.array([0.1, 0.4, 0.0])), np.array([-0.15, 0.02, 0.05])


def pose_at(side=Side.RIGHT, seed=0, palm_m=0.088) -> HandPose:
    rng = np.random.default_rng(seed)
    turn = exp_rotation(rng.normal(0, 0.3, 3))
    return HandPose(side, turn, np.array([0.05, 0.02, 0.45]), rng.uniform(0.05, 0.6, 20), palm_m)


def view_of(pose: HandPose, camera=PINHOLE, rotation=None, shift=None, seed=1) -> HandView:
    rotation, shift = np.eye(3) if rotation is None else rotation, np.zeros(3) if shift is None else shift
    rng = np.random.default_rng(seed)
    points = pose.points() @ rotation.T + shift
    depth = (points[:, 2] - points[9, 2]) / pose.palm_m + rng.normal(0, 0.1, 21)
    px = camera.project(points) + rng.normal(0, 2.0, (21, 2))
    return HandView(camera, px, rng.uniform(0.3, 1.0, 21), depth, None, rotation, shift)


def some_problems() -> list[FitProblem]:
    """Hands on both sides, with one and two views, priors and without, with a depth image and without."""
    right, left = pose_at(), pose_at(Side.LEFT, seed=5)
    depth = replace(view_of(left), depth_m=np.where(np.arange(21) % 5 == 0, np.nan, left.points()[:, 2]))
    missing = view_of(right, seed=3)
    missing.keypoints_px[[4, 20]] = np.nan
    prior = PosePrior(stepped(right, np.full(STEP, 0.01)), np.diag(np.linspace(5.0, 400.0, STEP)))
    start = stepped(right, np.full(STEP, 0.03))
    return [
        FitProblem([view_of(right)], start),
        FitProblem([depth], stepped(left, np.full(STEP, -0.03)), free_size=True),
        FitProblem([missing, view_of(right, FISHEYE, TURNED, SHIFT)], start, prior, free_size=True),
        FitProblem([view_of(right, seed=7)], start, prior),
    ]


@pytest.mark.parametrize("outlier", [2.0, 1e6], ids=["huber", "squares"])
def test_the_gradient_is_the_derivative_of_the_cost(outlier):
    problems = some_problems()
    terms = FitTerms(problems, FitConfig(outlier=outlier))
    poses = [replace(problem.start, angles=problem.start.angles - 0.15) for problem in problems]  # beyond some limits
    _, gradient, hessian = terms.linearised(poses)
    size = 1e-6
    for k in range(STEP):
        step = size * np.eye(STEP)[k]
        ahead, behind = (terms.linearised([stepped(pose, sign * step) for pose in poses])[0] for sign in (1, -1))
        np.testing.assert_allclose((ahead - behind) / (2 * size), gradient[:, k], rtol=1e-4, atol=0.02)
    np.testing.assert_allclose(hessian, hessian.swapaxes(1, 2), rtol=1e-9, atol=1e-6)
    assert (np.linalg.eigvalsh(hessian[:, :SIZE, :SIZE]) > 0).all()


def test_hands_at_once_come_out_as_each_one_alone():
    problems = some_problems()
    for fit, problem in zip(fit_hands(problems), problems):
        alone = fit_hand(problem.views, problem.start, problem.prior, free_size=problem.free_size)
        np.testing.assert_allclose(fit.pose.points(), alone.pose.points(), atol=1e-9)
        np.testing.assert_allclose(fit.information, alone.information, rtol=1e-6, atol=1e-3)
        assert fit.cost == pytest.approx(alone.cost, rel=1e-9) and fit.iterations == alone.iterations
        assert fit.views == tuple(problem.views)
        assert problem.free_size or fit.pose.palm_m == problem.start.palm_m


def test_one_hand_that_nobody_sees_is_an_error_for_all():
    seen, *_ = some_problems()
    unseen = replace(seen.views[0], keypoints_px=np.full((21, 2), np.nan))
    for views in ([unseen], []):
        with pytest.raises(ValueError, match="no view has a finite keypoint"):
            fit_hands([seen, FitProblem(views, seen.start)])


def test_jacobians_of_many_hands_are_those_of_each():
    rng = np.random.default_rng(0)
    angles, ratios = rng.uniform(-0.2, 1.0, (3, 20)), np.array([0.8, 1.0, 1.2])
    for shape in (MEAN_HAND, KinematicHand(rng.uniform(0.9, 1.1, 20))):
        points, jacobian = shape.jacobian(angles, ratios)
        assert points.shape == (3, 21, 3) and jacobian.shape == (3, 21, 3, 21)
        for i in range(3):
            one_points, one_jacobian = shape.jacobian(angles[i], float(ratios[i]))
            np.testing.assert_allclose(points[i], one_points, atol=1e-14)
            np.testing.assert_allclose(jacobian[i], one_jacobian, atol=1e-14)
            np.testing.assert_allclose(points[i], shape.forward(angles[i], float(ratios[i])), atol=1e-14)
