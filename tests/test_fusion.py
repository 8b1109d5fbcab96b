"""Keypoints averaged over frames by what flow carries along: steadier at rest, no lag in motion, nothing made up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_tracks import detection, keypoints, view

from hand_tracking_ros.config import FlowConfig, TrackConfig
from hand_tracking_ros.fusion import REST_NOISE, after_flow, after_seeing, averaged, doubted
from hand_tracking_ros.skeleton import palm_length
from hand_tracking_ros.tracks import HandTracks
from hand_tracking_ros.types import Source

ONES = np.ones(21)
HAND = keypoints(detection(300, 240)).keypoints_px


def test_what_is_surer_counts_for_more():
    """Two opinions are weighed by the inverse of their variances; a score of 0.5 has four times that of a sure one."""
    apart = np.column_stack([np.linspace(-0.1, 0.1, 21), np.zeros(21)])  # px: nothing to doubt
    expected, seen = HAND, HAND + apart
    np.testing.assert_allclose(averaged(expected, ONES, seen, ONES), HAND + apart / 2, atol=1e-3)
    np.testing.assert_allclose(averaged(expected, 3 * ONES, seen, ONES), HAND + apart * 3 / 4, atol=1e-3)
    np.testing.assert_allclose(averaged(expected, ONES, seen, 0.5 * ONES), HAND + apart / 5, atol=1e-3)
    np.testing.assert_allclose(after_seeing(ONES, ONES), 0.5)
    np.testing.assert_allclose(after_seeing(np.inf, 0.5 * ONES), 4.0)


def test_flow_that_has_slipped_off_the_hand_or_off_a_joint_is_not_believed():
    palm = palm_length(HAND)
    gone = averaged(HAND, 0.2 * ONES, HAND + [palm, 0], ONES)
    assert np.abs(gone - HAND - [palm, 0]).max() < 0.02 * palm
    finger = [6, 7, 8]
    bent = HAND.copy()
    bent[finger] += [palm, 0]
    together = averaged(HAND, 0.2 * ONES, bent, ONES)
    assert np.abs(together - bent).max() < 0.02 * palm
    np.testing.assert_allclose(np.delete(together, finger, axis=0), np.delete(HAND, finger, axis=0))
    doubt = doubted(0.2 * ONES, HAND, HAND + [0.1 * palm, 0])  # a whole hand that has moved is surer than one joint
    single = HAND.copy()
    single[8] += [0.1 * palm, 0]
    assert doubt[8] > 3 * doubted(0.2 * ONES, HAND, single)[8] > 3 * 1.1
    np.testing.assert_allclose(doubted(0.2 * ONES, np.nan * HAND, bent), 0.2)


def test_where_nothing_is_expected_keynet_alone_counts():
    expected = np.where(np.arange(21)[:, None] < 3, np.nan, HAND)
    variance = np.where(np.arange(21) > 17, np.inf, ONES)
    seen = HAND + 10
    together = averaged(expected, variance, seen, ONES)
    np.testing.assert_allclose(together[[0, 1, 2, 18, 19, 20]], seen[[0, 1, 2, 18, 19, 20]])
    assert (together[3:18] < seen[3:18] - 1e-3).all()


def test_flow_adds_noise_more_so_to_joints_that_moved_and_lost_ones_are_unknown():
    moved = HAND.copy()
    moved[8] += [0.1 * palm_length(HAND), 0]
    followed = np.arange(21) != 4
    variance = after_flow(ONES, HAND, moved, followed)
    assert np.isinf(variance[4]) and variance[0] == pytest.approx(1 + REST_NOISE**2)
    assert variance[8] > 1.3
    end_on = after_flow(ONES, 0 * HAND, moved, followed)  # a palm without length in the image
    assert np.isinf(end_on[4]) and not np.isnan(end_on).any()


def follow(step_px: int, frames: int, noise_px: float = 1.5, flow: FlowConfig = FlowConfig()):
    """Errors (frames, 21, 2) px of a hand that moves by ``step_px`` per frame, and of KeyNet's noisy answers alone."""
    rng, tracks = np.random.default_rng(2), HandTracks(TrackConfig(max_hands=1), flow)
    errors, alone = [], []
    for k in range(frames):
        shift = (k * step_px - 90 if step_px else 0, 0)
        truth = keypoints(detection(300 + shift[0], 240)).keypoints_px
        boxes = tracks.predict(view(shift), k / 30)
        if tracks.wants_detection(k / 30):
            boxes = tracks.associate([detection(300 + shift[0], 240)], k / 30)
        (box,) = boxes
        seen = truth + rng.normal(0, noise_px, truth.shape)
        points = seen
        if box.expected_px is not None and box.expected_variance is not None:
            points = averaged(box.expected_px, box.expected_variance, seen, ONES)
        tracks.update([replace(keypoints(box), keypoints_px=points)], k / 30)
        errors.append(points - truth)
        alone.append(seen - truth)
    return np.array(errors), np.array(alone)


def test_a_hand_at_rest_is_twice_as_steady():
    """Noise of 2 % of the palm."""
    errors, alone = follow(0, 60)
    assert errors[10:].std() < 0.5 * alone[10:].std()
    jumps = np.diff(errors[10:], axis=0).std() / np.diff(alone[10:], axis=0).std()
    assert jumps < 0.3
    bare, _ = follow(0, 20, flow=FlowConfig(average=False))
    assert bare.std() == pytest.approx(alone[:20].std(), rel=1e-6)


def test_a_moving_hand_does_not_lag():
    """12 px per frame to the right: an average that lagged by a frame would be 12 px to the left."""
    errors, _ = follow(12, 16)
    assert abs(errors[5:, :, 0].mean()) < 0.7


def test_joints_outside_the_image_are_averaged_too_and_move_with_the_hand():
    """Nobody sees them: what KeyNet says of them jumps most. 3 px per frame to the left, fingertips on the right."""
    rng, tracks, errors, alone = np.random.default_rng(3), HandTracks(TrackConfig(max_hands=1)), [], []
    for k in range(24):
        cut = view((-3 * k, 0))[:, :300]
        truth = keypoints(detection(300 - 3 * k, 240)).keypoints_px
        boxes = tracks.predict(np.ascontiguousarray(cut), k / 30)
        (box,) = boxes or tracks.associate([detection(300, 240)], k / 30)
        seen = truth + rng.normal(0, 1, truth.shape)
        points = seen if box.expected_variance is None else averaged(box.expected_px, box.expected_variance, seen, ONES)
        tracks.update([replace(keypoints(box), keypoints_px=points)], k / 30)
        outside = truth[:, 0] > 300
        if 8 <= k < 14:
            errors.append((points - truth)[outside])
            alone.append((seen - truth)[outside])
    assert min(map(len, errors)) >= 1
    assert np.concatenate(errors).std() < 0.75 * np.concatenate(alone).std()


def test_new_hands_and_a_finger_that_flow_lost_are_as_keynet_says():
    tracks = HandTracks(TrackConfig(max_hands=1))
    tracks.predict(view(), 0.0)
    (new,) = tracks.associate([detection(300, 240)], 0.0)
    assert new.expected_variance is None
    tracks.update([keypoints(new)], 0.0)
    image = view()
    x, y = HAND[8].astype(int)
    around = slice(y - 20, y + 20), slice(x - 20, x + 20)
    image[around] = view(seed=1)[around]
    (box,) = tracks.predict(image, 1 / 30)
    assert box.source == Source.PROPAGATED and np.isinf(box.expected_variance[8])
    assert np.isfinite(box.expected_variance[[0, 5, 17]]).all()
