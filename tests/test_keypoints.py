"""The keypoint stage: duplicates, batches, and that results come back in image pixels, with the real KeyNet."""

from __future__ import annotations

from dataclasses import replace

import blob_models
import numpy as np
import pytest
from tiny_models import FACTS, KEYNET_TENSORS, save_model

from hand_tracking_ros.cli.demo import demo_directory
from hand_tracking_ros.config import InferenceConfig, KeypointConfig, TrackConfig
from hand_tracking_ros.evaluation.datasets import labelled_images
from hand_tracking_ros.geometry import Box, box_around
from hand_tracking_ros.keypoints import PATIENCE, KeypointEstimator, suppress_duplicates
from hand_tracking_ros.manifest import write_manifest
from hand_tracking_ros.records import read_labels
from hand_tracking_ros.skeleton import Side, palm_length
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


def test_a_hand_that_an_earlier_look_has_found_is_not_found_again(estimator):
    here, there = box(150, 150, id=1), box(420, 300, id=2)
    (first,) = estimator.estimate(picture(), [here])
    known = [replace(first, presence=0.9)]
    again, other = estimator.estimate(picture(), [replace(here, id=3), there], known=known)
    assert (again.id, again.presence) == (3, 0.0)
    assert other.presence == estimator.estimate(picture(), [there])[0].presence > 0.0


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


def test_keynet_f_is_told_where_the_keypoints_are_expected(tmp_path):
    """The network here answers what it is told: the way into the crop and back must be exact, whatever the box."""
    pytest.importorskip("onnx", reason="the test network is made with onnx: pip install onnx")
    from tiny_models import keynet_f_manifest

    model = str(keynet_f_manifest(tmp_path).path)
    estimator = KeypointEstimator(KeypointConfig(model=model, sure_score=0.01), max_hands=3)
    expected = np.random.default_rng(0).uniform(100, 300, (21, 2))
    hidden = expected.copy()
    hidden[4] = np.nan
    boxes = [
        HandBox(Box((200.0, 220.0), (150.0, 150.0), 0.8), 0.9, id=1, source=Source.PROPAGATED, expected_px=expected),
        HandBox(Box((210.0, 190.0), (170.0, 170.0), -2.0), 0.9, id=2, source=Source.PROPAGATED, expected_px=hidden),
        HandBox(Box((400.0, 300.0), (100.0, 100.0)), 0.9, id=3, source=Source.PROPAGATED),
    ]
    tracked, partly, new = estimator.estimate(picture(), boxes)
    np.testing.assert_allclose(tracked.keypoints_px, expected, atol=1e-3)
    assert tracked.keypoint_scores.min() == 1.0
    np.testing.assert_allclose(np.delete(partly.keypoints_px, 4, 0), np.delete(expected, 4, 0), atol=1e-3)
    assert partly.keypoint_scores[4] == 0.0 and partly.keypoint_scores.sum() == 20
    assert new.keypoint_scores.max() == 0.0


def test_more_hands_than_at_the_start_are_looked_at_in_one_batch():
    """``track.max_hands`` may be raised at run time."""
    estimator = KeypointEstimator(KeypointConfig(refine_new=False), max_hands=1)
    crops, run = [], estimator.backend.run
    estimator.backend.run = lambda feeds: crops.append(len(feeds["crop"])) or run(feeds)
    boxes = [box(150 + 100 * i, 200, id=i + 1) for i in range(3)]
    boxes = [replace(one, right_score=0.9) for one in boxes]
    estimator.estimate(picture(), boxes, least_presence=1.0)
    assert crops == [3]


def test_left_hands_are_seen_in_a_mirror_and_new_ones_both_ways(tmp_path):
    """The blob network answers with a right hand at the disc, so a mirrored look gives its mirror image."""
    model = blob_models.write_models(tmp_path)["keypoints.model"]
    estimator = KeypointEstimator(KeypointConfig(model=model, refine_new=False), max_hands=2)
    image, here = blob_models.draw((300, 200)), Box((300, 200), (blob_models.SIDE_PX,) * 2, 0.0)
    right_hand = blob_models.hand_at(300, 200)
    left_hand = right_hand * [-1, 1] + [600, 0]

    def seen(right_score: float, source: Source) -> HandKeypoints:
        return estimator.estimate(image, [HandBox(here, 0.9, right_score, 1, source)])[0]

    for right_score, source, points, says in (
        (0.9, Source.PROPAGATED, right_hand, 0.95), (0.1, Source.PROPAGATED, left_hand, 0.05),
        (0.5, Source.PROPAGATED, right_hand, 0.95), (0.1, Source.DETECTED, left_hand, 0.05),
    ):  # fmt: skip
        hand = seen(right_score, source)
        np.testing.assert_allclose(hand.keypoints_px, points, atol=0.3)
        assert hand.right_score == pytest.approx(says, abs=1e-6)


def test_a_new_hand_must_be_one_in_the_mirror_as_well(tmp_path):
    """A network that sees hands in the left half of its crop only: what stands there is none in the mirror."""
    text = blob_models.KEYNET_TEXT.replace(
        "share = Div(mass, full)", "seen = MatMul(flat, half)\n  share = Div(seen, full)"
    )
    x, y = np.meshgrid(np.arange(96) + 0.5, np.arange(96) + 0.5)
    weights = {
        "grid": np.stack([x, y], axis=-1).reshape(1, -1, 2), "template": 64 * blob_models.template()[None],
        "joints": np.ones((1, 21)), "half": (x < 48).astype(np.float32).reshape(1, -1, 1),
    }  # fmt: skip
    save_model(text, weights, tmp_path / "half.onnx")
    names = {"name": "half", "task": "keypoints", "file": "half.onnx", "max_batch": 4}
    write_manifest(tmp_path / "half.yaml", **names, **KEYNET_TENSORS, **FACTS)
    estimator = KeypointEstimator(KeypointConfig(model=str(tmp_path / "half.yaml"), refine_new=False), max_hands=2)
    image, box = blob_models.draw((270, 200)), Box((300, 200), (blob_models.SIDE_PX,) * 2, 0.0)
    presence = {
        source: estimator.estimate(image, [HandBox(box, 0.9, 0.9, 1, source)])[0].presence
        for source in (Source.PROPAGATED, Source.DETECTED)
    }
    assert presence[Source.PROPAGATED] > 0.9 and presence[Source.DETECTED] < 0.1


def test_a_new_hand_that_cannot_be_one_is_not_looked_at_again(tmp_path):
    model = blob_models.write_models(tmp_path)["keypoints.model"]
    estimator = KeypointEstimator(KeypointConfig(model=model), max_hands=2)
    crops, run = [], estimator.backend.run
    estimator.backend.run = lambda feeds: crops.append(len(feeds["crop"])) or run(feeds)
    image, box = blob_models.draw((300, 200)), Box((380, 200), (blob_models.SIDE_PX,) * 2, 0.0)
    new, tracked = (HandBox(box, 0.9, 0.9, 1, source) for source in (Source.DETECTED, Source.PROPAGATED))
    (hand,) = estimator.estimate(image, [tracked])
    assert 0.2 < hand.presence < 0.8 and crops == [1]
    for least_presence, looks in ((0.1, [1, 1, 1]), (0.8, [1])):
        crops.clear()
        (again,) = estimator.estimate(image, [new], least_presence=least_presence)
        assert crops == looks and again.presence <= hand.presence
    assert TrackConfig(start_presence=0.5, keep_presence=0.6).least_presence == 0.5


def test_a_new_hand_is_taken_the_way_in_which_it_looks_like_a_right_one():
    """With the real KeyNet on a rendered hand: whatever DetNet guessed, both guesses end at the same keypoints."""
    directory = demo_directory()
    label, mono = next(iter(labelled_images(directory, read_labels(directory))))
    hand = label.hands[0]
    estimator = KeypointEstimator(KeypointConfig(), max_hands=2)
    results = [
        estimator.estimate(mono, [HandBox(box_around(hand.keypoints_px), 0.9, guess)])[0] for guess in (0.1, 0.9)
    ]
    np.testing.assert_allclose(results[0].keypoints_px, results[1].keypoints_px, atol=0.5)
    assert (results[0].right_score > 0.5) == (hand.side == Side.RIGHT)


def test_a_hand_read_the_wrong_way_round_is_read_afresh():
    """A left hand that is believed to be a right one, in a box turned by a right angle: its real image, real KeyNet."""
    estimator = KeypointEstimator(KeypointConfig(), InferenceConfig(backend="onnxruntime", profile="none"))
    runs = []
    run, estimator.backend.run = estimator.backend.run, lambda feeds: runs.append(feeds) or run(feeds)
    labels = [label for label in read_labels(demo_directory()) if label.frame in (10, 30)]
    for label, image in labelled_images(demo_directory(), labels):
        (truth,) = [hand for hand in label.hands if hand.side == Side.LEFT]
        points = np.array(truth.keypoints_px)
        tight = box_around(points)
        turned = replace(tight, angle_rad=tight.angle_rad + np.pi / 2)
        wrong = HandBox(turned, 1.0, 1.0, label.frame, Source.PROPAGATED)
        first = estimator.estimate(image, [wrong])
        reads = [estimator.read_afresh(image, [wrong], first) for _ in range(PATIENCE + 1)]
        for (read,) in (reads[0], reads[PATIENCE]):  # at most so often
            assert np.linalg.norm(read.keypoints_px - points, axis=1).mean() < 0.1 * palm_length(points)
            assert read.right_score < 0.1 and (read.id, read.source) == (label.frame, Source.PROPAGATED)
        assert reads[1:PATIENCE] == [[]] * (PATIENCE - 1)
        runs.clear()
        believed = [HandBox(tight, 1.0, 0.0, 7, Source.PROPAGATED)]
        assert estimator.read_afresh(image, believed, estimator.estimate(image, believed)) == []
        assert len(runs) == 1  # one that looks as believed is looked at once


def test_of_two_hands_that_look_strange_one_is_read_afresh_per_image():
    """The other one comes with the next image: no image waits for both."""
    estimator = KeypointEstimator(
        KeypointConfig(duplicate_share=0.0), InferenceConfig(backend="onnxruntime", profile="none")
    )
    (label,) = [label for label in read_labels(demo_directory()) if label.frame == 10]
    ((_, image),) = labelled_images(demo_directory(), [label])
    (truth,) = [np.array(hand.keypoints_px) for hand in label.hands if hand.side == Side.LEFT]
    tight = box_around(truth)
    wrong = [
        HandBox(replace(tight, angle_rad=tight.angle_rad + turn), 1.0, 1.0, number, Source.PROPAGATED)
        for number, turn in ((1, 0.5 * np.pi), (2, 0.6 * np.pi))
    ]
    seen = estimator.estimate(image, wrong)
    crops, run = [], estimator.backend.run
    estimator.backend.run = lambda feeds: crops.append(len(feeds["crop"])) or run(feeds)
    right = [
        [hand.id for hand in estimator.read_afresh(image, wrong, seen) if hand.right_score < 0.1]
        for _ in range(PATIENCE + 1)
    ]
    assert right == [[1], [2], *[[]] * (PATIENCE - 2), [1]]
    assert crops == [2, 1, 2, 1, 2, 1]
