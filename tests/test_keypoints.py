"""The keypoint stage: duplicates, batches, and that results come back in image pixels, with the real KeyNet."""

from __future__ import annotations

import numpy as np
import pytest

from hand_tracking_ros.config import KeypointConfig
from hand_tracking_ros.geometry import Box, box_around
from hand_tracking_ros.keypoints import KeypointEstimator, suppress_duplicates
from hand_tracking_ros.types import HandBox, HandKeypoints, Source


def hand(x: float, *, id: int, presence: float = 0.9) -> HandKeypoints:
    points = np.random.default_rng(0).uniform(0, 100, (21, 2)) + [x, 0]
    return HandKeypoints(id, box_around(points), Source.PROPAGATED, points, np.ones(21), np.zeros(21), presence, 0.5)


@pytest.mark.parametrize(
    "hands, presences",
    [
        pytest.param([hand(0, id=1), hand(5, id=2)], [0.9, 0.0], id="the older one stays"),
        pytest.param([hand(0, id=1, presence=0.2), hand(5, id=2)], [0.0, 0.9], id="unless it is hardly there"),
        pytest.param([hand(0, id=1), hand(150, id=2)], [0.9, 0.9], id="apart: both stay"),
        pytest.param([hand(0, id=1), hand(3, id=2), hand(6, id=3)], [0.9, 0.0, 0.0], id="three on one hand"),
    ],
)
def test_two_results_on_one_hand_leave_one(hands, presences):
    assert [h.presence for h in suppress_duplicates(hands, 0.35)] == presences


@pytest.fixture(scope="module")
def estimator() -> KeypointEstimator:
    return KeypointEstimator(KeypointConfig(refine_new=False), max_hands=3)


def picture(shape=(480, 640)) -> np.ndarray:
    rng = np.random.default_rng(3)
    low = rng.integers(0, 256, (shape[0] // 16, shape[1] // 16)).astype(np.float32)
    return np.kron(low, np.ones((16, 16))).astype(np.uint8)


def box(x, y, side=120.0, angle=0.0, id=1) -> HandBox:
    return HandBox(Box((x, y), (side, side), angle), 0.9, id=id, source=Source.PROPAGATED)


def test_a_batch_gives_what_single_crops_give_in_order(estimator):
    boxes = [box(150, 150, id=4), box(420, 300, 90.0, 0.7, id=2), box(300, 200, 200.0, -2.0, id=9), box(200, 380, id=1)]
    together = estimator.estimate(picture(), boxes)
    assert [h.id for h in together] == [4, 2, 9, 1]
    for one, all_of_them in zip(boxes, together):
        (alone,) = estimator.estimate(picture(), [one])
        np.testing.assert_allclose(alone.keypoints_px, all_of_them.keypoints_px, atol=0.05)
        assert np.abs(alone.keypoints_px - one.box.center_px).max() < 1.2 * one.box.size_px[0]


def test_keypoints_move_turn_and_scale_with_the_image(estimator):
    """The same picture, shifted by whole pixels with its box: the same keypoints, shifted."""
    image = picture()
    moved = np.roll(image, (16, 32), axis=(0, 1))
    (here,) = estimator.estimate(image, [box(300, 220)])
    (there,) = estimator.estimate(moved, [box(332, 236)])
    np.testing.assert_allclose(there.keypoints_px - here.keypoints_px, np.tile([32.0, 16.0], (21, 1)), atol=0.05)


def test_a_box_outside_the_image_is_no_error(estimator):
    (result,) = estimator.estimate(picture(), [box(-500, 2000)])
    assert np.isfinite(result.keypoints_px).all()
    assert estimator.estimate(picture(), []) == []


def test_smeared_keypoints_lower_the_presence():
    """Presence is the network's own, times the mean keypoint score over ``sure_score``, at most 1."""
    strict, trusting = (
        KeypointEstimator(KeypointConfig(refine_new=False, sure_score=share)).estimate(picture(), [box(300, 220)])[0]
        for share in (1.0, 0.01)
    )
    assert 0 < trusting.keypoint_scores.mean() < 1
    assert strict.presence == pytest.approx(trusting.presence * trusting.keypoint_scores.mean(), rel=1e-4)
