"""Keeping up: what is given up, in which order, when it comes back, and that nothing flaps."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from hand_tracking_ros.budget import Budget, BudgetConfig, Level

PERIOD_S = 1 / 50


class Stream:
    """Images every PERIOD_S through a budget; ``cost`` says how long a step takes at a level."""

    def __init__(self, cost, levels=tuple(Level), **config):
        self.budget, self.cost = Budget(BudgetConfig(**config), levels), cost
        self.index, self.taken, self.changes = 0, 0, []

    def run(self, seconds: float) -> Level:
        for _ in range(round(seconds / PERIOD_S)):
            stamp_s = 100 + self.index * PERIOD_S
            self.index += 1
            if self.budget.takes(stamp_s):
                self.taken += 1
                if self.budget.step(self.cost(self.budget.level)):
                    self.changes.append((round(stamp_s - 100, 2), self.budget.level))
        return self.budget.level


def test_what_keeps_up_gives_nothing_up():
    stream = Stream(lambda level: 0.95 * PERIOD_S)
    assert stream.run(30) == Level.FULL
    assert stream.budget.dropped == 0 and stream.budget.since_s is None and stream.budget.reason == ""
    assert stream.budget.budget_s == pytest.approx(PERIOD_S)


def test_levels_are_given_up_in_order_one_per_window():
    stream = Stream(lambda level: 3 * PERIOD_S)
    stream.run(10)
    assert [level for _, level in stream.changes] == [Level.FEWER_DETECTIONS, Level.SMALL_NETWORKS, Level.HALF_RATE]
    times = [time_s for time_s, _ in stream.changes]
    assert times[0] == pytest.approx(1.0, abs=0.05) and times[2] - times[0] == pytest.approx(2.0, abs=0.1)
    assert stream.budget.since_s == pytest.approx(100 + times[2])
    assert stream.budget.reason == "images took 60.0 ms each, and may take 20.0 ms"


def test_a_level_that_is_enough_is_the_last_one():
    stream = Stream(lambda level: (1.5 if level == Level.FULL else 0.9) * PERIOD_S)
    assert stream.run(60) == Level.FEWER_DETECTIONS and len(stream.changes) == 1


def test_levels_that_do_not_exist_are_left_out():
    stream = Stream(lambda level: 3 * PERIOD_S, (Level.FULL, Level.FEWER_DETECTIONS, Level.HALF_RATE))
    stream.run(10)
    assert [level for _, level in stream.changes] == [Level.FEWER_DETECTIONS, Level.HALF_RATE]


def test_half_rate_leaves_out_every_second_image_and_counts_it():
    stream = Stream(lambda level: 1.8 * PERIOD_S)
    stream.run(4)
    before, dropped = stream.taken, stream.budget.dropped
    assert stream.run(4) == Level.HALF_RATE
    assert stream.taken - before == 100 and stream.budget.dropped - dropped == 100
    assert stream.budget.budget_s == pytest.approx(PERIOD_S)  # of the images that arrive, not of those taken


def test_what_was_given_up_comes_back_one_by_one_when_it_is_calm():
    load = [3.0]
    stream = Stream(lambda level: load[0] * PERIOD_S)
    stream.run(5)
    load[0] = 0.8  # below the budget, but not by enough
    assert stream.run(30) == Level.HALF_RATE
    load[0] = 0.3
    start_s = stream.index * PERIOD_S
    assert stream.run(30) == Level.FULL
    back = [(time_s - start_s, level) for time_s, level in stream.changes[3:]]
    assert [level for _, level in back] == [Level.SMALL_NETWORKS, Level.FEWER_DETECTIONS, Level.FULL]
    assert back[0][0] >= 4.9 and all(b[0] - a[0] >= 4.9 for a, b in pairwise(back))
    assert stream.budget.reason == "images took only 6.0 ms each for 5 s, and may take 20.0 ms"


def test_what_comes_back_too_early_waits_longer_and_longer():
    """Detections are what does not fit: without them all is calm, so it is tried again, ever more rarely."""
    stream = Stream(lambda level: (1.5 if level == Level.FULL else 0.3) * PERIOD_S)
    stream.run(400)
    tried = [time_s for time_s, level in stream.changes if level == Level.FULL]
    waits = [b - a for a, b in pairwise(tried)]
    assert waits[0] == pytest.approx(11, abs=2) and waits[1] == pytest.approx(21, abs=2)
    assert max(waits) == pytest.approx(61, abs=2)  # but not for ever
    assert len(stream.changes) < 25


def test_patience_is_as_at_first_after_a_recovery_that_lasted():
    load = [3.0]
    stream = Stream(lambda level: load[0] * PERIOD_S, (Level.FULL, Level.FEWER_DETECTIONS))
    for _ in range(3):
        load[0] = 3.0
        assert stream.run(5) == Level.FEWER_DETECTIONS
        load[0] = 0.2
        assert stream.run(20) == Level.FULL
    waits = [b[0] - a[0] for a, b in zip(stream.changes[::2], stream.changes[1::2])]
    assert max(waits) - min(waits) < 1.5


def test_one_slow_step_changes_nothing():
    stream = Stream(lambda level: 0.3 if stream.index % 50 == 7 else 0.004)  # 0.3 s once per second
    assert stream.run(20) == Level.FULL


def test_reset_gives_everything_back_and_keeps_the_count():
    stream = Stream(lambda level: 3 * PERIOD_S)
    stream.run(5)
    dropped = stream.budget.dropped
    stream.budget.reset()
    assert not stream.budget.step(1.0)  # of an image that was taken before
    assert 45 < dropped < 55 and stream.budget.dropped == dropped
    assert (stream.budget.level, stream.budget.since_s, stream.budget.budget_s) == (Level.FULL, None, None)
    assert stream.run(0.9) == Level.FULL


def test_a_budget_in_seconds_does_not_ask_for_the_rate():
    stream = Stream(lambda level: 0.012, step_s=0.01)
    stream.run(5)
    assert stream.budget.budget_s == 0.01 and stream.changes[0][1] == Level.FEWER_DETECTIONS


def test_images_that_do_not_arrive_do_not_raise_the_budget():
    """A step of 1.5 periods: of three images two arrive, as from a queue of one."""
    budget = Budget(BudgetConfig())
    for index in range(300):
        if index % 3 != 2 and budget.takes(index * PERIOD_S):
            budget.step(1.5 * PERIOD_S)
    assert budget.budget_s == pytest.approx(PERIOD_S) and budget.level == Level.HALF_RATE


def test_jitter_of_stamps_does_not_lower_the_budget():
    rng, budget = np.random.default_rng(0), Budget(BudgetConfig())
    for index in range(300):
        if budget.takes((index + rng.uniform(-0.15, 0.15)) * PERIOD_S):
            budget.step(0.9 * PERIOD_S)
    assert budget.budget_s == pytest.approx(PERIOD_S, rel=0.02) and budget.level == Level.FULL


@pytest.mark.parametrize("jump_s", [-50.0, 30.0])
def test_jumps_in_time_start_the_window_afresh_and_keep_the_level(jump_s):
    stream = Stream(lambda level: 1.5 * PERIOD_S, (Level.FULL, Level.FEWER_DETECTIONS))
    stream.run(2)
    assert stream.budget.level == Level.FEWER_DETECTIONS
    stream.index += round(jump_s / PERIOD_S)
    stream.cost = lambda level: 0.1 * PERIOD_S
    assert stream.run(4) == Level.FEWER_DETECTIONS  # the jump is no time in which it was calm
    assert stream.run(3) == Level.FULL


class Camera:
    """60 images per second into a queue of one: a step that takes longer misses images, and nobody sees which.

    ``cost`` says how many periods a step takes at a level; reading an image takes ``reading`` periods more, four fifths
    of which are known. The clock counts periods, and its images are the stamps.
    """

    def __init__(self, cost, reading: float = 0.0) -> None:
        self.budget, self.cost, self.reading = Budget(BudgetConfig()), cost, reading
        self.now, self.newest, self.answered, self.changes = 0.0, -1, 0, []

    def run(self, seconds: float) -> Level:
        end = self.now + 60 * seconds
        while self.now < end:
            self.newest = max(int(self.now), self.newest + 1)
            self.now = max(self.now, float(self.newest)) + self.reading
            if self.budget.takes(self.newest / 60):
                step, spent = self.cost(self.budget.level), 0.8 * self.reading
                self.now, self.answered = self.now + step, self.answered + 1
                if self.budget.step((step + spent) / 60):
                    self.changes.append((self.newest / 60, self.budget.level))
        return self.budget.level


SLOW = [(0.9, 0.3), (1.5, 0.0), (2.9, 0.3), (3.0, 0.0), (3.6, 0.4), (6.0, 0.6)]


@pytest.mark.parametrize(("step", "reading"), SLOW)
def test_whoever_misses_images_gives_something_up_however_slow_it_is(step, reading):
    """Also where so many are missed that the stamps of those that are left say nothing about the camera's rate."""
    camera = Camera(lambda level: step, reading)
    assert camera.run(8) == Level.HALF_RATE
    assert [level for _, level in camera.changes] == [Level.FEWER_DETECTIONS, Level.SMALL_NETWORKS, Level.HALF_RATE]
    camera.run(120)
    assert len(camera.changes) == 3


@pytest.mark.parametrize(("step", "reading"), SLOW)
def test_what_was_given_up_by_whoever_missed_images_comes_back(step, reading):
    load = [step]
    camera = Camera(lambda level: load[0], reading)
    camera.run(8)
    load[0] = 0.05
    assert camera.run(30) == Level.FULL and len(camera.changes) == 6
    camera.run(60)
    assert len(camera.changes) == 6 and camera.budget.budget_s == pytest.approx(1 / 60, rel=0.01)


@pytest.mark.parametrize(("share", "level"), [(0.3, Level.HALF_RATE), (0.2, Level.SMALL_NETWORKS)])
def test_where_smaller_networks_are_enough_nothing_else_is_given_up(share, level):
    camera = Camera(lambda level: 3.2 * (share if level >= Level.SMALL_NETWORKS else 1.0), 0.1)
    camera.run(5)
    changes = len(camera.changes)
    assert camera.run(300) == level == changes and len(camera.changes) == changes


def test_larger_networks_that_make_it_miss_images_are_tried_ever_more_rarely():
    camera = Camera(lambda level: 0.3 if level >= Level.SMALL_NETWORKS else 3.2, 0.1)
    camera.run(600)
    tried = [time_s for time_s, level in camera.changes[2:] if level < Level.SMALL_NETWORKS]
    assert all(b - a > 9 for a, b in pairwise(tried)) and all(b - a > 59 for a, b in pairwise(tried[4:]))
    assert camera.answered > 0.97 * 60 * 600


@pytest.mark.parametrize("step", [0.3, 0.69, 0.9, 0.95])
def test_a_camera_that_is_kept_up_with_loses_nothing(step):
    camera = Camera(lambda level: step - 0.05, 0.05)
    assert camera.run(120) == Level.FULL and camera.changes == []


def test_a_budget_in_seconds_may_be_longer_than_the_time_between_images():
    """Steps without a pause are as wanted then."""
    stream = Stream(lambda level: 3 * PERIOD_S, step_s=0.1)
    assert stream.run(20) == Level.FULL


BURSTS = [(0.002, 0.0647), (0.002, 0.002, 0.0962), (0.012, 0.0547), (0.028, 0.0387)]


@pytest.mark.parametrize("gaps_s", BURSTS, ids=["pairs", "triples", "uneven", "jitter"])
def test_images_that_come_in_bursts_leave_time_for_each(gaps_s):
    """As networks deliver them: 30 Hz in the mean. What keeps up with the mean gives nothing up."""
    budget, stamp_s = Budget(BudgetConfig()), 100.0
    for index in range(300):
        stamp_s += gaps_s[index % len(gaps_s)]
        assert budget.takes(stamp_s)
        budget.step(0.015)
    assert budget.level == Level.FULL
    assert budget.budget_s == pytest.approx(sum(gaps_s) / len(gaps_s), rel=0.05)
