"""HandTracker, the whole loop, with the shipped networks on the shipped clip."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from blob_models import draw, hand_at, write_models

from hand_tracking_ros import Camera, Frame, HandTracker, Scale, Side, Source, TrackerConfig
from hand_tracking_ros.cli.demo import demo_directory
from hand_tracking_ros.config import TrackConfig, from_flat
from hand_tracking_ros.records import read_labels
from hand_tracking_ros.skeleton import palm_length

FPS = 30.0
FRAMES = 60


@pytest.fixture(scope="module")
def clip() -> list[np.ndarray]:
    """The first frames of the demo clip, mono."""
    capture = cv2.VideoCapture(str(demo_directory() / "demo_hands.mp4"))
    return [cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2GRAY) for _ in range(FRAMES)]


@pytest.fixture
def tracker() -> HandTracker:
    return HandTracker()


def run(tracker: HandTracker, images, start_s: float = 0.0, camera: Camera | None = None):
    return [tracker.step(Frame(image, start_s + k / FPS, camera)) for k, image in enumerate(images)]


def test_both_hands_are_found_and_lie_on_the_truth(tracker, clip):
    hands = run(tracker, clip)
    truth = [label.hands for label in read_labels(demo_directory())[:FRAMES]]
    found, errors = 0, []
    for ours, theirs in zip(hands[10:], truth[10:], strict=True):
        for hand in theirs:
            gaps = [np.linalg.norm(o.keypoints_px - hand.keypoints_px, axis=1).mean() for o in ours]
            share = min(gaps, default=np.inf) / palm_length(hand.keypoints_px)
            found += share < 0.5
            errors.append(min(share, 1.0))
    assert found >= 0.9 * len(errors)
    assert np.median(errors) < 0.2


def test_the_detector_rests_while_all_hands_are_tracked(tracker, clip):
    ran = 0
    for k, image in enumerate(clip):
        hands = tracker.step(Frame(image, k / FPS))
        ran += tracker.timings_s["detect"] > 1e-4
    assert len(hands) == 2
    assert ran < FRAMES / 4


def test_a_hand_in_view_does_not_wait_for_the_search_for_another(tmp_path):
    models = {**write_models(tmp_path), "track.missing_interval_s": 0.0, "filter.kind": "none"}
    tracker, searched = HandTracker(from_flat(TrackerConfig, models)), []
    detect = tracker.detector.detect
    tracker.detector.detect = lambda mono: searched.append(half) or detect(mono)
    seen = []
    for k in range(8):
        first, second = (200 + 4 * k, 200), (450, 250 + 4 * k)
        image = draw(first) if k < 4 else draw(first, second)
        half = "track"
        hands = tracker.track(Frame(image, k / FPS))
        half = "search"
        tracker.search()
        seen.append([hand.id for hand in hands])
        for hand, where in zip(hands, (first, second)):
            np.testing.assert_allclose(hand.keypoints_px[:, 1], hand_at(*where)[:, 1], atol=3.0)  # one is mirrored
    assert searched == ["track", *["search"] * 4]  # until both are known: the second is seen in the fifth image
    assert seen == [[1]] * 5 + [[1, 2]] * 3  # and published with the sixth


def test_both_halves_are_a_step(clip):
    whole, halves = HandTracker(), HandTracker()
    for k, image in enumerate(clip):
        frame = Frame(image, k / FPS)
        a, b = whole.step(frame), halves.track(frame)
        halves.search()
        assert [hand.id for hand in a] == [hand.id for hand in b]
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x.keypoints_px, y.keypoints_px)


def test_what_is_found_twice_in_an_image_is_one_hand(tmp_path):
    """Two boxes of different size on a disc: KeyNet puts the same hand in both."""
    models = {**write_models(tmp_path), "track.missing_interval_s": 0.0}
    tracker = HandTracker(from_flat(TrackerConfig, models))
    detect = tracker.detector.detect

    def twice(mono):
        return [replace(found, box=found.box.scaled(scale)) for found in detect(mono) for scale in (1.0, 2.2)]

    tracker.detector.detect = twice
    assert [[hand.id for hand in hands] for hands in run(tracker, [draw((300, 200))] * 6)] == [[1]] * 6


def test_ids_stay_while_tracked_and_are_not_reused_after_reset(tracker, clip):
    hands = run(tracker, clip)
    before = {hand.id for frame in hands for hand in frame}
    tracker.reset()
    after = {hand.id for frame in run(tracker, clip[:20]) for hand in frame}
    assert len(before) <= 4 and after and not before & after


def test_two_hands_of_one_person_are_left_and_right(tracker, clip):
    for hands in run(tracker, clip):
        if len(hands) == 2:
            assert {hand.side for hand in hands} == {Side.LEFT, Side.RIGHT}


def test_the_same_input_gives_the_same_output(clip):
    first, second = (run(HandTracker(), clip[:25]) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert [hand.id for hand in a] == [hand.id for hand in b]
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x.keypoints_px, y.keypoints_px)


def test_colour_is_read_as_grey(clip):
    grey = run(HandTracker(), clip[:10])
    colour = run(HandTracker(), [cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) for image in clip[:10]])
    for a, b in zip(grey, colour, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_allclose(x.keypoints_px, y.keypoints_px, atol=0.5)


def test_with_a_camera_the_points_are_in_metres_before_it(clip):
    labels = read_labels(demo_directory())
    fx, fy, cx, cy = labels[0].camera["K"]
    hands = run(HandTracker(), clip, camera=Camera(fx, fy, cx, cy))
    truth = [np.array(hand.keypoints_m) for label in labels[20:FRAMES] for hand in label.hands]
    depth = [hand.points_3d[:, 2].mean() for frame in hands[20:] for hand in frame]
    assert all(hand.scale == Scale.ASSUMED for frame in hands for hand in frame)
    assert np.median(depth) == pytest.approx(np.median([points[:, 2].mean() for points in truth]), rel=0.25)


def test_going_back_in_time_starts_all_over(tracker, clip):
    late = run(tracker, clip[:20], start_s=100.0)
    again = run(tracker, clip[:20], start_s=0.0)
    assert again[0] and again[0][0].source == Source.DETECTED
    assert not {h.id for h in late[-1]} & {h.id for h in again[-1]}


@pytest.mark.parametrize("level", [0, 255])
def test_an_empty_scene_has_no_hands(tracker, level):
    assert run(tracker, [np.full((480, 640), level, np.uint8)] * 5) == [[]] * 5


def test_black_frames_in_between_end_the_hands_and_they_come_back(tracker, clip):
    run(tracker, clip[:20])
    dark = run(tracker, [np.zeros_like(clip[0])] * 10, start_s=20 / FPS)
    assert dark[-1] == []
    back = run(tracker, clip[20:40], start_s=30 / FPS)
    assert len(back[-1]) == 2


def test_one_wanted_hand_gives_one_hand(clip):
    hands = run(HandTracker(TrackerConfig(track=TrackConfig(max_hands=1))), clip[:20])
    assert max(len(frame) for frame in hands) == 1


@pytest.mark.parametrize(
    "image, stamp_s, message",
    [
        (np.zeros((480, 640), np.float32), 0.0, "uint8"),
        (np.zeros((480, 640, 4), np.uint8), 0.0, "shape"),
        (np.zeros((0, 640), np.uint8), 0.0, "not empty"),
        (np.zeros((480, 640), np.uint8), float("nan"), "stamp"),
    ],
)
def test_a_frame_that_is_none_is_refused_with_the_reason(image, stamp_s, message):
    with pytest.raises(ValueError, match=message):
        Frame(image, stamp_s)
