"""Counting what is lost, skipped and slow."""

from __future__ import annotations

import pytest

pytest.importorskip("diagnostic_msgs", reason="needs ROS 2 messages")

from builtin_interfaces.msg import Time

from hand_tracking_ros.nodes.diagnostics import MAX_REASONS, FrameLoss, Statistics

MS = 1_000_000
LOSSES = [
    # images that arrive (in periods of 10 ms), camera_info before them?, expected loss, why
    (range(20), True, 0, "nothing lost"),
    ([0, 1, 2, 5, 6], True, 2, "a gap"),
    (range(0, 20, 2), True, 9, "every second one, from the start: gaps alone could not tell"),
    (range(20), False, 0, "nothing lost, without camera_info"),
    ([*range(10), 13, 14], False, 3, "a gap, without camera_info"),
    ([*range(10), 3, 4, 5], True, 0, "time jumps back: a new run of the stream"),
    ([5, 6, 7], True, 0, "images before the first one that came do not count"),
]


@pytest.mark.parametrize(("arrivals", "announced", "lost", "why"), LOSSES, ids=[row[3] for row in LOSSES])
@pytest.mark.parametrize("info_first", [True, False])
def test_frame_loss(arrivals, announced, lost, why, info_first):
    loss, last = FrameLoss(), None
    for period in arrivals:
        start = period if last is None or period <= last else last + 1
        infos = [p * 10 * MS for p in range(start, period + 1)] if announced else []
        if not info_first:
            loss.arrive(period * 10 * MS)
        for stamp in infos:
            loss.announce(stamp)
        if info_first:
            loss.arrive(period * 10 * MS)
        last = period
    assert loss.lost == lost, why


@pytest.mark.parametrize("gaps_ms", [(2.0, 64.7), (2.0, 2.0, 96.2), (12.0, 54.7)])
def test_images_that_come_in_bursts_are_not_lost(gaps_ms):
    loss, stamp = FrameLoss(), 0
    for index in range(300):
        stamp += round(gaps_ms[index % len(gaps_ms)] * MS)
        loss.arrive(stamp)
    assert loss.lost == 0


@pytest.mark.parametrize("off_ns", [-900_000, -1000, 1000, 900_000])
@pytest.mark.parametrize("info_first", [True, False])
def test_a_camera_info_that_is_stamped_by_itself_belongs_to_its_image(off_ns, info_first):
    loss, lost = FrameLoss(), (40, 41)
    for index in range(100):
        stamp = (index + 1) * 33 * MS
        calls = [lambda s=stamp: loss.announce(s + off_ns)]
        if index not in lost:
            calls.insert(1 if info_first else 0, lambda s=stamp: loss.arrive(s))
        for call in calls:
            call()
    assert loss.lost == len(lost)


def test_the_stamp_of_the_image_before_is_noticed():
    loss = FrameLoss()
    assert [loss.arrive(stamp) for stamp in (0, 0, 5, 5, 5, 7, 3)] == [True, False, True, False, False, True, True]


def test_what_was_wrong_with_a_stream_ends_with_it():
    statistics = Statistics()
    statistics.problems |= {"camera_info": "K has no focal lengths", "configure": "no such model"}
    statistics.end_stream()
    assert statistics.problems == {"configure": "no such model"}


def status(statistics: Statistics, state: str = "active"):
    message = statistics.message("camera/hand_tracker_node", state, 2.0, Time(sec=5)).status[0]
    return message.level[0], message.message, {value.key: value.value for value in message.values}


def test_rates_and_percentiles_in_milliseconds():
    statistics = Statistics()
    for i in range(100):
        statistics.frame(detect=(i + 1) / 1000)
    level, text, values = status(statistics)
    assert (level, text) == (0, "active")
    assert values["rate_hz"] == "50" and values["frames"] == "100"
    assert values["detect_ms_p50"] == "50.5" and values["detect_ms_p99"] == "99.01"
    assert status(statistics)[:2] == (1, "active, but no frames for 2.0 s")


def test_skipped_frames_are_listed_by_reason_and_warn_once():
    statistics = Statistics()
    for _ in range(3):
        statistics.skip("unknown encoding 'x'")
    level, text, values = status(statistics)
    assert level == 2 and text == "skipped 3 frames: unknown encoding 'x'"  # nothing else came: an error
    assert values["skipped: unknown encoding 'x'"] == "3"
    statistics.frame()
    assert status(statistics)[0] == 0
    for i in range(MAX_REASONS + 5):
        statistics.skip(f"reason {i}")
    values = status(statistics)[2]
    assert values["skipped: other reasons"] == "6" and values["skipped"] == str(3 + MAX_REASONS + 5)


def test_lost_frames_and_problems_warn():
    statistics = Statistics()
    statistics.frame()
    statistics.loss.lost += 4
    assert status(statistics)[:2] == (
        1,
        "lost 4 frames in 2.0 s: the machine or the network is too slow, or the DDS profile is missing",
    )
    statistics.frame()
    statistics.problems["camera_info"] = "K has values that are not finite"
    assert status(statistics)[:2] == (1, "camera_info: K has values that are not finite")


def test_a_node_that_is_not_active_is_not_blamed_for_silence():
    assert status(Statistics(), "inactive")[:2] == (0, "inactive")
