"""Images of several cameras, grouped by their stamps. No ROS, and no clock but the one given."""

from __future__ import annotations

import numpy as np
import pytest

from hand_tracking_ros.frame_groups import FrameGroups, Rhythm

WAIT_S, SYNC_S = 0.02, 0.017


def play(arrivals, count=2, silent_s=0.5):
    """Groups as a node gives them out: ``arrivals`` (camera, stamp, arrival time); the image is (camera, stamp)."""
    groups, given, due = FrameGroups(count, 0.0, SYNC_S, WAIT_S, silent_s), [], None
    for camera, stamp_s, at_s in sorted(arrivals, key=lambda a: a[2]):
        if due is not None and at_s >= due:
            due = None
            if groups.has_news:
                given.append(groups.take())
        if groups.pushes_out(camera, stamp_s, at_s):
            due = given.append(groups.take())
        groups.add(camera, stamp_s, stamp_s, at_s)
        if groups.is_complete(at_s):
            due = given.append(groups.take())
        elif groups.has_news and due is None:
            due = at_s + WAIT_S
    return given, groups


def stream(camera, count, period_s=1 / 30, start_s=0.0, delay_s=0.001, clock_s=0.0):
    """``clock_s``: how far the stamps are ahead of the time."""
    return [(camera, start_s + i * period_s + clock_s, start_s + i * period_s + delay_s) for i in range(count)]


def late(arrivals, index, late_s):
    """One message of a stream is ``late_s`` late, and holds up those behind it."""
    until_s = arrivals[index][2] + late_s
    held_up = [(camera, stamp_s, max(at_s, until_s + 1e-4 * i)) for i, (camera, stamp_s, at_s) in enumerate(arrivals)]
    return arrivals[:index] + held_up[index:]


def test_synchronised_cameras_make_complete_groups_with_one_stamp():
    given, groups = play(stream(0, 20) + stream(1, 20, delay_s=0.004))
    assert len(given) == 20 and all(first == second for first, second in given)
    assert [s.dropped for s in groups.streams] == [0, 0] and not groups.has_news


@pytest.mark.parametrize("rate_hz", [30, 60, 90, 120])
@pytest.mark.parametrize("late_s", [0.008, 0.012, 0.016, 0.03])
@pytest.mark.parametrize("camera", [0, 1])
def test_after_one_late_image_synchronised_cameras_are_together_again(rate_hz, late_s, camera):
    streams = [stream(i, 60, period_s=1 / rate_hz, delay_s=0.001 + 0.002 * i) for i in (0, 1)]
    streams[camera] = late(streams[camera], 20, late_s)
    given, groups = play(streams[0] + streams[1])
    after = [group for group in given if max(s for s in group if s is not None) > 20 / rate_hz + late_s + 0.02]
    assert len(after) >= 30 - 0.03 * rate_hz and all(first == second for first, second in after)
    assert groups.streams[1 - camera].dropped <= 1  # at most the partner of the late one


@pytest.mark.parametrize("rate_hz", [60, 90])
def test_cameras_that_start_one_image_apart_come_together(rate_hz):
    given, _ = play(stream(0, 30, 1 / rate_hz, start_s=1 / rate_hz) + stream(1, 31, 1 / rate_hz, delay_s=0.012))
    assert len(given) == 30 and all(first == pytest.approx(second) for first, second in given)


@pytest.mark.parametrize("rate_hz", [60, 90])
@pytest.mark.parametrize("phase", [0.1, 0.3, 0.45, 0.5, 0.55, 0.7, 0.9])
@pytest.mark.parametrize("jitter", [0.0, 0.05])
def test_fast_free_running_cameras_meet_too_and_hardly_an_image_is_dropped(rate_hz, phase, jitter):
    rng, period_s = np.random.default_rng(0), 1 / rate_hz
    arrivals = [
        (camera, stamp_s + jitter * period_s * wiggle, at_s + jitter * period_s * wiggle)
        for camera in (0, 1)
        for (_, stamp_s, at_s), wiggle in zip(
            stream(0, 60, period_s, phase * period_s * camera), rng.uniform(-1, 1, 60)
        )
    ]
    given, groups = play(arrivals)
    pairs = [group for group in given[5:-1]]
    assert sum(None not in group for group in pairs) >= 48 and max(s.dropped for s in groups.streams) <= 3
    gaps = [abs(first - second) for first, second in pairs if first is not None and second is not None]
    assert max(gaps) <= (0.75 + 2 * jitter) * period_s and np.median(gaps) <= 0.6 * period_s


def test_a_camera_that_is_always_later_than_the_next_image_costs_no_images():
    given, groups = play(stream(0, 60, 1 / 60) + stream(1, 60, 1 / 60, delay_s=0.025))
    assert len(given) >= 58 and [s.dropped for s in groups.streams] == [0, 0]
    assert [first - second for first, second in given[5:-5]] == pytest.approx([1 / 60] * (len(given) - 10))


def test_the_rhythm_of_a_stream_outlives_lost_and_late_images_and_starts_afresh_when_time_goes_back():
    rhythm = Rhythm()
    assert rhythm.near_s == 0
    for stamp_s in (0.0, 0.1, 0.2, 0.5, 0.5, 0.6, 0.61, 0.7):
        rhythm.add(stamp_s)
    assert rhythm.near_s == pytest.approx(0.06)
    rhythm.add(0.0)
    assert rhythm.near_s == 0


@pytest.mark.parametrize("phase", [0.1, 0.3, 0.45, 0.55, 0.7, 0.9])
def test_free_running_cameras_meet_in_near_images(phase):
    given, _ = play(stream(0, 30) + stream(1, 30, start_s=phase / 30))
    pairs = [group for group in given[3:-1]]
    assert all(None not in group for group in pairs) and len(pairs) >= 24
    assert max(abs(first - second) for first, second in pairs) <= max(min(phase, 1 - phase) / 30, WAIT_S)


def test_four_cameras_and_one_of_half_the_rate():
    arrivals = [a for camera in range(3) for a in stream(camera, 20)] + stream(3, 10, period_s=2 / 30)
    given, _ = play(arrivals, count=4)
    assert len(given) >= 19
    assert [group[3] is not None for group in given[:6]] == [True, False] * 3
    assert all(group[:3].count(None) == 0 for group in given[:-1])


def test_a_silent_camera_is_waited_for_no_longer_and_counts_as_a_dropout_once_it_is_back():
    second = [a for a in stream(1, 90) if not 1.0 <= a[2] < 2.0]
    given, groups = play(stream(0, 90) + second)
    alone = [first for first, other in given if other is None]
    assert len(given) >= 89 and 28 <= len(alone) <= 31
    assert groups.streams[1].dropouts == 1 and groups.streams[0].dropouts == 0
    assert given[-2][0] == given[-2][1]  # together again
    only_first = FrameGroups(2, 0.0, SYNC_S, WAIT_S, 0.5)
    only_first.add(0, 1.0, "image", 0.1)
    assert not only_first.is_complete(0.1)  # the other may still come
    only_first.add(0, 2.0, "image", 1.1)
    assert only_first.is_silent(1, 1.1) and only_first.is_complete(1.1)


def test_an_image_that_comes_late_waits_for_the_next_group_and_stamps_only_grow():
    given, _ = play(stream(0, 30) + stream(1, 30, delay_s=0.055))
    newest = [max(stamp for stamp in group if stamp is not None) for group in given]
    assert newest == sorted(set(newest))
    assert sum(None not in group for group in given) >= 20


def test_clocks_that_differ_leave_the_older_images_out_and_show():
    given, groups = play(stream(0, 30) + stream(1, 30, clock_s=-1.0, delay_s=0.002))
    assert all(second is None for _, second in given) and len(given) >= 29
    assert groups.streams[1].lag_s == pytest.approx(1.0) and groups.streams[1].dropped >= 28


def test_time_that_goes_back_starts_afresh():
    _, groups = play(stream(0, 10, start_s=5.0) + stream(1, 10, start_s=5.0))
    for camera in (0, 1):
        groups.add(camera, 1.0, 1.0, 6.0)
    assert groups.is_complete(6.0) and groups.take() == [1.0, 1.0]
    groups.add(0, 1.0, 1.0, 6.0)  # the same image once more
    assert not groups.has_news and groups.streams[0].dropped == 1


@pytest.mark.parametrize("ahead_s", [10.0, 3600.0])
def test_the_others_go_on_when_a_camera_whose_stamps_were_ahead_is_gone(ahead_s):
    """Its stamps were 10 s, or an hour, ahead of the other's until it was unplugged at 2 s."""
    given, groups = play(stream(0, 150) + stream(1, 60, clock_s=ahead_s))
    alone = [first for first, second in given if second is None and first is not None and first > 2.6]
    assert len(alone) > 60 and alone == sorted(alone)
    assert groups.is_silent(1, 5.0) and not groups.is_silent(0, 5.0)
