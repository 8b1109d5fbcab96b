"""What is wrong with the cameras of a rig is noticed, lastingly, and by name. No ROS needed."""

from __future__ import annotations

import numpy as np
import pytest

from hand_tracking_ros.frame_groups import FrameGroups
from hand_tracking_ros.hand_size import HandSize
from hand_tracking_ros.rig_watch import RigWatch

NAMES = ("left", "right")
NEITHER = np.zeros(2, bool)
UNKNOWN = np.full(2, np.nan)


def watch_of(groups: FrameGroups | None = None) -> RigWatch:
    return RigWatch(NAMES, groups or FrameGroups(2, 0.0, silent_s=1e9))


def feed(watch: RigWatch, seconds: float, disagreement, apart=NEITHER, start_s=0.0, lags_s=UNKNOWN) -> None:
    for k in range(int(seconds * 30)):
        noise = 1e-6 * k * (np.arange(len(disagreement)) == 0)  # what is compared anew changes a little
        watch.step(np.asarray(disagreement) + noise, np.asarray(apart), np.asarray(lags_s), start_s + k / 30)


def test_a_camera_that_disagrees_is_named_after_two_seconds_and_forgiven_when_it_agrees():
    watch = watch_of()
    feed(watch, 1.5, [0.2, 0.7])
    assert watch.problems(0.0, HandSize()) == {}
    feed(watch, 1.0, [0.2, 0.7], start_s=1.5)
    assert "right disagrees with the other cameras by 0.70 palm lengths" in watch.problems(0.0, HandSize())["rig"]
    feed(watch, 0.2, [0.2, 0.3], start_s=2.5)
    assert "right has disagreed with the other cameras by more than 0.4" in watch.problems(0.0, HandSize())["rig"]
    feed(watch, 4.0, [0.1, 0.1], start_s=2.7)
    assert watch.problems(0.0, HandSize()) == {}


def test_cameras_that_differ_a_little_more_than_usual_are_noticed_when_it_lasts():
    """As where one focal length is wrong by 30 %."""
    watch = watch_of()
    feed(watch, 3.5, [0.15, 0.17])
    assert watch.problems(0.0, HandSize()) == {}
    feed(watch, 1.0, [0.15, 0.17], start_s=3.5)
    problem = watch.problems(0.0, HandSize())["rig"]
    assert "right has differed from the other cameras by 0.17 palm lengths lately" in problem
    feed(watch, 2.0, [0.05, 0.06], start_s=4.5)
    assert watch.problems(0.0, HandSize()) == {}
    for start_s in range(7, 19, 2):  # a hand that is misread now and then
        feed(watch, 0.9, [0.3, 0.3], start_s=start_s)
        feed(watch, 1.1, [0.06, 0.06], start_s=start_s + 0.9)
        assert watch.problems(0.0, HandSize()) == {}


def test_a_disagreement_of_which_nothing_new_is_known_does_not_count():
    watch = watch_of()
    for k in range(300):  # hands have left: the last value stands
        watch.step(np.array([0.2, 0.7]), NEITHER, UNKNOWN, k / 30)
    assert watch.problems(0.0, HandSize()) == {}


@pytest.mark.parametrize(("lag_s", "words"), [(0.033, "33 ms older"), (-0.033, "33 ms newer"), (0.015, "")])
def test_stamps_that_lie_are_noticed_when_it_lasts(lag_s, words):
    watch = watch_of()
    feed(watch, 1.5, [0.06, 0.07], lags_s=[np.nan, lag_s])
    assert watch.problems(0.0, HandSize()) == {}
    feed(watch, 1.0, [0.06, 0.07], lags_s=[np.nan, lag_s], start_s=1.5)
    problems = watch.problems(0.0, HandSize())
    assert bool(words) == ("right" in problems)
    if words:
        assert f"its images are {words} than their stamps say, beside those of left" in problems["right"]
        assert watch.facts(0.0, 1.0)["right lag_ms"] == pytest.approx(1e3 * lag_s)
    feed(watch, 1.0, [0.06, 0.07], start_s=2.5)  # nothing moves: nothing is known
    assert watch.problems(0.0, HandSize()) == {}


def test_where_all_others_seem_late_alike_it_is_the_first_camera():
    for lags_s, named, words in (
        ((np.nan, -0.04, -0.05), ["a"], "45 ms older than their stamps say, beside those of the others"),
        ((np.nan, -0.04, 0.05), ["b", "c"], "50 ms older than their stamps say, beside those of a"),
        ((np.nan, 0.0, 0.05), ["c"], "50 ms older than their stamps say, beside those of a"),
    ):
        watch = RigWatch(("a", "b", "c"), FrameGroups(3, 0.0, silent_s=1e9))
        feed(watch, 2.5, [0.06] * 3, apart=[False] * 3, lags_s=lags_s)
        problems = watch.problems(0.0, HandSize())
        assert sorted(problems) == named and words in problems[named[-1]]


def test_cameras_that_never_meet_are_named():
    watch = watch_of()
    feed(watch, 2.5, [np.nan, np.nan], apart=[True, True])
    assert watch.problems(0.0, HandSize())["rig"].startswith("left and right: sees hands, but never those")


@pytest.mark.parametrize(("palm_m", "wrong"), [(0.068, True), (0.072, False), (0.106, False), (0.114, True)])
def test_hands_of_no_adults_size_are_a_matter_of_the_rig(palm_m, wrong):
    """The middle one, measured by focal lengths that are wrong by 30 %, is found out."""
    problems = watch_of().problems(0.0, HandSize(palm_m, 0.01))
    assert ("rig" in problems) == wrong
    if wrong:
        assert f"palms measure {palm_m * 1e3:.0f} mm, those of adults 70 to 108 mm: unless" in problems["rig"]
        assert "a child's, rig.file does not fit the cameras" in problems["rig"]
    assert watch_of().problems(0.0, HandSize(palm_m, 0.075)) == {}  # not measured


def test_silent_and_late_cameras_are_named_and_counted():
    groups: FrameGroups[str] = FrameGroups(2, 0.0)
    watch = RigWatch(NAMES, groups)
    for k in range(30):
        groups.add(0, k / 30, "image", k / 30)
        groups.add(1, k / 30 - 0.5, "image", k / 30)
        groups.take()
    problems = watch.problems(1.0, HandSize())
    assert set(problems) == {"right"} and "0.50 s older" in problems["right"]
    assert "no image for 2.0 s" in watch.problems(29 / 30 + 2.0, HandSize())["left"]
    facts = watch.facts(2.0, 2.0)
    assert facts["left rate_hz"] == 15 and facts["left dropouts"] == 1 and facts["right unused"] == 30
    assert watch.facts(2.0, 2.0)["left rate_hz"] == 0  # since the last time
