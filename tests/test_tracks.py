"""The life of tracks: budget of the detector, ids, coasting, time jumps. Images are textures that really move."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import cv2
import numpy as np
import pytest

from hand_tracking_ros.config import FlowConfig, TrackConfig
from hand_tracking_ros.geometry import Box
from hand_tracking_ros.tracks import HandTracks
from hand_tracking_ros.types import HandBox, HandKeypoints, Source

WIDTH, HEIGHT = 640, 480
POSE = np.array([(0, 0), (-20, -15), (-35, -30), (-45, -45), (-52, -58), (-18, -60), (-20, -85), (-21, -100),
                 (-22, -112),
                 (0, -63), (0, -92), (0, -108), (0, -120), (16, -60), (18, -85), (19, -100), (20, -110), (30, -52),
                 (34, -70), (36, -82), (38, -92)], float)  # fmt: skip


@lru_cache
def texture(seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (HEIGHT + 200, WIDTH + 200)).astype(np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2.5), None, 0, 255, cv2.NORM_MINMAX)


def view(shift: tuple[int, int] = (0, 0), seed: int = 0) -> np.ndarray:
    """The texture as the camera sees it after everything moved by ``shift`` px."""
    x, y = 100 - shift[0], 100 - shift[1]
    return np.ascontiguousarray(texture(seed)[y : y + HEIGHT, x : x + WIDTH])


def detection(x: float, y: float, side: float = 120.0, score: float = 0.9) -> HandBox:
    return HandBox(Box((x, y), (side, side), 0.0), score, 0.7)


def keypoints(hand_box: HandBox, presence: float = 0.95) -> HandKeypoints:
    """What KeyNet would say of a hand in the middle of ``hand_box``."""
    points = POSE - (POSE.min(0) + POSE.max(0)) / 2 + np.array(hand_box.box.center_px)
    ones = np.ones(21)
    return HandKeypoints(hand_box.id, hand_box.box, hand_box.source, points, ones, 0 * ones, presence, 0.7)


def see(tracks: HandTracks, stamp_s: float, *detections: HandBox, image=None, presence: float = 0.95) -> list[HandBox]:
    """One whole frame: returns the boxes. ``detections`` are offered only when the tracks want them."""
    boxes = tracks.predict(view() if image is None else image, stamp_s)
    if tracks.wants_detection(stamp_s):
        boxes = tracks.associate(list(detections), stamp_s)
    tracks.update([keypoints(box, presence) for box in boxes], stamp_s)
    return boxes


def test_ids_count_up_and_are_never_reused():
    tracks = HandTracks()
    assert [b.id for b in see(tracks, 0.0, detection(200, 240), detection(450, 240))] == [1, 2]
    tracks.reset()
    assert [b.id for b in see(tracks, 0.1, detection(200, 240))] == [3]


def test_a_tracked_hand_is_carried_by_flow_not_by_detection():
    tracks = HandTracks(TrackConfig(max_hands=1))
    see(tracks, 0.0, detection(300, 240))
    before = keypoints(detection(300, 240)).keypoints_px
    (box,) = tracks.predict(view((17, -9)), 0.033)
    assert box.source == Source.PROPAGATED and box.id == 1
    assert not tracks.wants_detection(0.033)
    middle = (before.min(0) + before.max(0)) / 2
    np.testing.assert_allclose(box.box.center_px, middle + [17, -9], atol=1.0)


@pytest.mark.parametrize(
    "config, hands, frames, most",
    [
        pytest.param(TrackConfig(max_hands=1), 1, 60, 1, id="all wanted hands tracked: never again"),
        pytest.param(
            TrackConfig(max_hands=2, missing_interval_s=0.5), 1, 60, 5, id="second hand missing: on the budget"
        ),
        pytest.param(TrackConfig(max_hands=2, search_interval_s=0.1), 0, 60, 21, id="no hand: on the search interval"),
        pytest.param(
            TrackConfig(max_hands=2, search_interval_s=0.0), 0, 60, 60, id="no hand, no interval: every frame"
        ),
    ],
)
def test_detector_budget(config, hands, frames, most):
    tracks = HandTracks(config)
    offered = [detection(200 + 200 * i, 240) for i in range(hands)]
    ran = 0
    for k in range(frames):
        boxes = tracks.predict(view(), k / 30)
        if tracks.wants_detection(k / 30):
            ran += 1
            boxes = tracks.associate(offered, k / 30)
        tracks.update([keypoints(box) for box in boxes], k / 30)
    assert 1 <= ran <= most
    assert ran >= most - 2  # the budget is also used


@pytest.mark.parametrize(("least_s", "most"), [(0.0, 60), (0.1, 20), (0.5, 4)])
def test_detections_may_be_held_apart_whatever_the_config_says(least_s, most):
    tracks = HandTracks(TrackConfig(search_interval_s=0.0))
    tracks.least_interval_s = least_s
    calls = 0
    for frame in range(60):
        tracks.predict(view(), frame / 30)
        if tracks.wants_detection(frame / 30):
            calls += 1
            tracks.associate([], frame / 30)
        tracks.update([], frame / 30)
    assert calls == most


def test_a_new_detection_that_keynet_denies_never_becomes_a_track():
    tracks = HandTracks(TrackConfig(start_presence=0.6))
    see(tracks, 0.0, detection(300, 240), presence=0.5)
    assert tracks.predict(view(), 0.033) == []


def test_boxes_say_where_keypoints_are_expected_once_a_hand_was_seen():
    tracks = HandTracks(TrackConfig(max_hands=1))
    (new,) = see(tracks, 0.0, detection(300, 240))
    assert new.expected_px is None
    (box,) = tracks.predict(view((17, -9)), 0.033)
    np.testing.assert_allclose(box.expected_px, keypoints(new).keypoints_px + [17, -9], atol=1.0)


def test_only_confirmed_hands_use_up_ids():
    tracks = HandTracks(TrackConfig(search_interval_s=0.0, missing_interval_s=0.0))
    for frame in range(5):
        boxes = see(tracks, 0.03 * frame, detection(200, 240), detection(450, 240), presence=0.1)
        assert [b.id for b in boxes] == [1, 2]
    tracks.predict(view(), 0.2)
    first, second = tracks.associate([detection(200, 240), detection(450, 240)], 0.2)
    tracks.update([keypoints(first, 0.1), keypoints(second, 0.95)], 0.2)  # one of the two is a hand
    assert [(b.id, b.source) for b in see(tracks, 0.23, detection(200, 240))] == [
        (2, Source.PROPAGATED), (3, Source.DETECTED),
    ]  # fmt: skip


def test_where_no_hand_is_nobody_looks_again_for_a_while():
    tracks = HandTracks(TrackConfig(retry_interval_s=0.1))
    lamp = detection(300, 240)
    looked = [bool(see(tracks, k / 30, lamp, presence=0.01)) for k in range(7)]
    assert looked == [True, False, False, True, False, False, True]
    assert see(tracks, 7 / 30, lamp, detection(450, 240))[0].box.center_px == (450, 240), "elsewhere it does"
    assert see(tracks, 8 / 30, detection(305, 240, side=300)), "what differs in size is something else"


def test_where_keynet_is_in_doubt_others_have_their_turn_first():
    tracks = HandTracks(TrackConfig(max_hands=1, start_presence=0.8))
    left, right = detection(200, 240, score=0.9), detection(450, 240, score=0.5)
    centers = [see(tracks, k / 30, left, right, presence=0.5)[0].box.center_px[0] for k in range(3)]
    assert centers == [200, 450, 200]
    assert see(tracks, 0.1, left, presence=0.9), "and alone it is looked at every time"
    assert tracks.predict(view(), 0.133)[0].box.center_px == pytest.approx((200, 240), abs=1)


@pytest.mark.parametrize("presence", [0.0, 0.5])
def test_what_was_refused_gives_way_even_when_it_may_be_tried_again(presence):
    """Otherwise two surer things that are no hands would be looked at again and again, and never the hand."""
    tracks = HandTracks(TrackConfig(max_hands=1, start_presence=0.8, retry_interval_s=0.1))
    things = [detection(x, 240, score=score) for x, score in ((100, 0.9), (300, 0.7), (500, 0.5))]
    centers = [see(tracks, 0.2 * k, *things, presence=presence)[0].box.center_px[0] for k in range(6)]
    assert centers == [100, 300, 500, 100, 300, 500]


def test_a_hand_that_fades_coasts_then_ends():
    tracks = HandTracks(TrackConfig(max_hands=1, coast_s=0.1))
    see(tracks, 0.0, detection(300, 240))
    alive = [bool(see(tracks, k / 30, presence=0.1)) for k in range(1, 8)]
    assert alive == [True, True, True, False, False, False, False]


def test_a_lost_hand_found_nearby_keeps_its_id_and_one_far_away_does_not():
    tracks = HandTracks(TrackConfig(max_hands=1, coast_s=0.2))
    see(tracks, 0.0, detection(200, 240))
    see(tracks, 0.033, presence=0.1)
    (box,) = see(tracks, 0.066, detection(330, 240))
    assert (box.id, box.source) == (1, Source.DETECTED)
    for k in range(3, 12):
        see(tracks, k * 0.033, presence=0.1)
    (box,) = see(tracks, 0.45, detection(330, 240))
    assert box.id == 2


def test_a_detection_on_a_tracked_hand_makes_no_second_track():
    tracks = HandTracks(TrackConfig(max_hands=2, missing_interval_s=0.0))
    see(tracks, 0.0, detection(300, 240))
    boxes = see(tracks, 0.033, detection(320, 250), detection(520, 240))
    assert [b.id for b in boxes] == [1, 2]


@pytest.mark.parametrize("jump_s", [pytest.param(-3.0, id="backwards"), pytest.param(2.0, id="gap over max_gap_s")])
def test_time_jumps_start_all_over(jump_s):
    tracks = HandTracks()
    see(tracks, 10.0, detection(300, 240))
    assert tracks.predict(view(), 10.0 + jump_s) == []
    assert tracks.wants_detection(10.0 + jump_s)


def test_a_change_of_image_size_starts_all_over():
    tracks = HandTracks()
    see(tracks, 0.0, detection(300, 240))
    assert tracks.predict(np.zeros((240, 320), np.uint8), 0.033) == []


def test_a_hand_that_leaves_the_image_ends():
    tracks = HandTracks(TrackConfig(max_hands=1))
    see(tracks, 0.0, detection(600, 240))
    for k in range(1, 8):
        see(tracks, k / 30, image=view((12 * k, 0)))
    assert tracks.predict(view((96, 0)), 8 / 30) == []


def test_without_texture_the_box_goes_on_with_its_velocity():
    tracks = HandTracks(TrackConfig(max_hands=1, coast_s=1.0))
    for k in range(10):
        see(tracks, k / 30, detection(200, 240), image=view((8 * k, 0)))
    flat = np.full((HEIGHT, WIDTH), 128, np.uint8)
    (box,) = tracks.predict(flat, 10 / 30)
    assert box.source == Source.PREDICTED
    assert box.box.center_px[0] == pytest.approx(200 + 80, abs=4)


def test_the_caller_may_reuse_its_image_buffer():
    tracks = HandTracks(TrackConfig(max_hands=1))
    buffer = view()
    see(tracks, 0.0, detection(300, 240), image=buffer)
    buffer[:] = view((20, 0))
    (box,) = tracks.predict(buffer, 0.033)
    assert box.source == Source.PROPAGATED
    assert box.box.center_px[0] == pytest.approx(300 + 20, abs=1.0)


def test_a_slow_camera_keeps_its_ids():
    tracks = HandTracks(TrackConfig(max_hands=1, coast_s=0.15))
    ids = [see(tracks, k / 5, detection(300, 240))[0].id for k in range(6)]
    assert ids == [1] * 6


def test_a_change_to_a_size_that_flow_halves_to_the_same_starts_all_over():
    tracks = HandTracks()
    see(tracks, 0.0, detection(300, 240), image=cv2.resize(view(), (1280, 960)))
    assert tracks.predict(view(), 0.033) == []


@pytest.mark.parametrize("side, presence, source", [
    pytest.param(130.0, 0.8, Source.PROPAGATED, id="about the same size: the track knows better"),
    pytest.param(300.0, 0.8, Source.DETECTED, id="far larger: the track had shrunk onto a part of the hand"),
    pytest.param(50.0, 0.8, Source.DETECTED, id="far smaller: the track had grown off the hand"),
    pytest.param(300.0, 0.95, Source.PROPAGATED, id="KeyNet was sure of the track"),
])  # fmt: skip
def test_a_detection_corrects_a_track_of_the_wrong_size(side, presence, source):
    tracks = HandTracks(TrackConfig(max_hands=2, missing_interval_s=0.0))
    see(tracks, 0.0, detection(300, 240), presence=presence)
    (box,) = see(tracks, 0.033, detection(305, 245, side))
    assert (box.id, box.source) == (1, source)


@pytest.mark.parametrize("presence, stays", [(0.9, True), (1.0, False)], ids=["less sure", "surer"])
def test_of_two_boxes_of_a_hand_in_one_frame_the_surer_one_counts(presence, stays):
    """The hand was seen in its own box (0.95); DetNet then names a part of it, and KeyNet looks there, too."""
    tracks = HandTracks(TrackConfig(max_hands=2, missing_interval_s=0.0))
    see(tracks, 0.0, detection(300, 240))
    own = tracks.boxes()[0].box
    (box,) = tracks.associate([detection(330, 270, 50.0)], 0.0)
    assert (box.id, box.source, box.box.center_px) == (1, Source.DETECTED, (330, 270))
    tracks.add([keypoints(box, presence)], 0.0)
    (kept,) = tracks.boxes()
    assert (kept.box == own) == stays
    assert kept.box.center_px == pytest.approx((300, 240) if stays else (330, 270), abs=10)
    assert tracks.in_view


def test_a_box_that_nobody_has_looked_into_is_forgotten():
    tracks = HandTracks(TrackConfig(max_hands=2, missing_interval_s=0.0))
    see(tracks, 0.0, detection(300, 240))
    tracks.associate([detection(330, 270, 50.0)], 0.0)  # no answer comes: a stage is not there
    (box,) = tracks.predict(view(), 0.033)
    assert box.source == Source.PROPAGATED and box.box.center_px == pytest.approx((300, 240), abs=10)


def test_a_box_that_flow_lost_follows_the_pose():
    tracks, rng = HandTracks(), np.random.default_rng(5)
    scene = rng.integers(0, 255, (240, 320)).astype(np.uint8)
    other = rng.integers(0, 255, (240, 320)).astype(np.uint8)  # nothing of the scene is left: flow has no chance
    points = np.column_stack([np.linspace(75, 125, 21), np.linspace(75, 125, 21)[::-1]])
    tracks.predict(scene, 0.0)
    tracks.adopt(points)
    (hand_box,) = tracks.boxes()
    np.testing.assert_array_equal(hand_box.expected_px, points)
    nothing = np.zeros(21)
    seen = HandKeypoints(hand_box.id, hand_box.box, Source.DETECTED, points, nothing + 1, nothing, 1.0, 0.5)
    tracks.update([seen], 0.0)
    expected = {hand_box.id: points + 40.0}
    (carried,) = [b for b in tracks.predict(scene, 1 / 30) if b.id == hand_box.id]
    assert carried.source == Source.PROPAGATED
    (kept,) = tracks.expect(expected)
    assert kept.box == carried.box  # flow saw the image: it is believed
    tracks.update([seen], 1 / 30)
    (lost,) = tracks.predict(other, 2 / 30)
    assert lost.source == Source.PREDICTED
    (moved,) = tracks.expect(expected)
    assert moved.box.center_px == pytest.approx((140.0, 140.0), abs=0.5)
    assert tracks.expect({hand_box.id: np.full((21, 2), np.nan)})[0].box == moved.box
    tracks.drop(hand_box.id)
    assert tracks.boxes() == []


def test_flow_and_pose_vote_on_where_each_joint_is_expected():
    """Flow saw how the hand moved, the pose knows its shape: that counts where a joint is lost, or contradicts it."""
    tracks = HandTracks(TrackConfig(max_hands=1))
    hand = keypoints(see(tracks, 0.0, detection(300, 240))[0]).keypoints_px
    moved = hand + [17, -9]
    image = view((17, -9))
    x, y = moved[0].astype(int)
    around = slice(y - 20, y + 20), slice(x - 20, x + 20)
    image[around] = view(seed=1)[around]  # something has come before the wrist
    (carried,) = tracks.predict(image, 0.033)
    pose = 1.2 * moved + [44.0, 33.0]  # elsewhere, but of the right shape, save for the index fingertip
    pose[8] += [90.0, 0.0]
    pose[4] = np.nan
    (silent,) = tracks.expect({carried.id: pose})
    np.testing.assert_array_equal(silent.expected_px, carried.expected_px)  # most networks are not told
    (told,) = tracks.expect({carried.id: pose}, vote=True)
    by_pose = np.flatnonzero((told.expected_px != carried.expected_px).any(axis=1))
    assert {0, 8} <= set(by_pose.tolist()) <= {0, 1, 8}  # the base of the thumb is at the edge of it
    np.testing.assert_allclose(told.expected_px[0], moved[0], atol=2)
    np.testing.assert_allclose(told.expected_px[8], moved[8] + [75.0, 0.0], atol=2)
    by_flow = np.setdiff1d(np.arange(21), by_pose)
    np.testing.assert_array_equal(told.expected_px[by_flow], carried.expected_px[by_flow])
    assert np.isfinite(told.expected_px).all() and told.box == carried.box and told.source == Source.PROPAGATED
    assert np.isinf(told.expected_variance[by_pose]).all() and np.isfinite(carried.expected_variance[8])
    (other,) = tracks.expect({carried.id + 1: pose}, vote=True)
    np.testing.assert_array_equal(other.expected_px, told.expected_px)


def test_the_side_of_a_track_is_what_its_views_have_said_so_far():
    """Boxes tell KeyNet which side to expect: evidence adds up, a view that says nothing changes nothing."""
    tracks = HandTracks(TrackConfig(max_hands=1))

    def side_after(right_score: float, frames: int) -> float:
        for _ in range(frames):
            stamp_s = side_after.stamp_s = side_after.stamp_s + 1 / 30
            boxes = tracks.predict(view(), stamp_s)
            if tracks.wants_detection(stamp_s):
                boxes = tracks.associate([detection(300, 240)], stamp_s)
            tracks.update([replace(keypoints(box), right_score=right_score) for box in boxes], stamp_s)
        return tracks.boxes()[0].right_score

    side_after.stamp_s = 0.0
    assert side_after(0.9, 1) == pytest.approx(0.9)  # a new hand: what KeyNet says, whatever DetNet said
    assert side_after(0.5, 20) == pytest.approx(0.9)
    assert side_after(0.9, 30) == pytest.approx(0.982, abs=0.001)  # never surer than that
    assert side_after(0.2, 4) > 0.5  # one wrong glance does not turn a hand around
    assert side_after(0.2, 15) < 0.5
    tracks.predict(view(), side_after.stamp_s + 0.02)
    tracks.associate([detection(300, 240, side=300)], side_after.stamp_s + 0.02)  # 0.7, but its size is what counts
    assert tracks.boxes()[0].right_score < 0.5


@pytest.mark.parametrize("alone, as_pair", [
    ((0.98, 0.7), (0.957, 0.107)),  # the unsure one is the other hand
    ((0.98, 0.98), (0.715, 0.715)),  # both sure: two people after all
    ((0.5, 0.1), (0.876, 0.1)),
    ((0.5, 0.5), (0.5, 0.5)),
    ((1.0, 0.0), (1.0, 0.0)),
])  # fmt: skip
def test_two_hands_in_view_are_seldom_of_the_same_side(alone, as_pair):
    """What is known of one says something of the other; expected values by Bayes' rule, 3 % for the same side."""
    tracks = HandTracks()
    tracks.predict(view(), 0.0)
    boxes = tracks.associate([detection(200, 240), detection(450, 240)], 0.0)
    tracks.update([replace(keypoints(box), right_score=right) for box, right in zip(boxes, alone)], 0.0)
    seen = tracks.predict(view(), 0.033)
    assert [box.right_score for box in seen] == pytest.approx(as_pair, abs=0.001)


def test_the_hands_of_two_people_may_be_of_the_same_side():
    tracks = HandTracks(TrackConfig(one_person=False))
    tracks.predict(view(), 0.0)
    boxes = tracks.associate([detection(200, 240), detection(450, 240)], 0.0)
    tracks.update([replace(keypoints(box), right_score=right) for box, right in zip(boxes, (0.9, 0.95))], 0.0)
    assert [box.right_score for box in tracks.predict(view(), 0.033)] == pytest.approx([0.9, 0.95], abs=0.001)


def test_fewer_hands_leave_the_oldest_tracks():
    tracks = HandTracks(TrackConfig(max_hands=2))
    see(tracks, 0.0, detection(200, 240), detection(450, 240))
    ids = [box.id for box in tracks.boxes()]
    tracks.reconfigure(TrackConfig(max_hands=1), FlowConfig())
    assert len(ids) == 2 and [box.id for box in tracks.boxes()] == [min(ids)]
