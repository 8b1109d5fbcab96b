"""Images of several videos are brought together by their stamps; what finds no partner is said."""

from __future__ import annotations

import itertools
import logging

import cv2
import numpy as np
import pytest

from hand_tracking_ros.cameras import Camera
from hand_tracking_ros.config import TrackerConfig
from hand_tracking_ros.errors import SourceError
from hand_tracking_ros.evaluation.pairing import PairedSources, Stream
from hand_tracking_ros.evaluation.run import track_rig
from hand_tracking_ros.rig import Rig, RigCamera
from hand_tracking_ros.rig_tracker import RigTracker
from hand_tracking_ros.sources import Source, SourceImage, open_source

NAMES = ("left", "right")


@pytest.fixture
def video(tmp_path):
    """Writes a grey video of ``count`` images at ``rate``, and opens it."""
    numbers = itertools.count()

    def write(rate: float, count: int, **options):
        path = str(tmp_path / f"{next(numbers)}.avi")
        writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"MJPG"), rate, (64, 48))
        for _ in range(count):
            writer.write(np.full((48, 64, 3), 128, np.uint8))
        writer.release()
        return open_source(path, pace="fast", **options)

    return write


def stamps_of(pairs: PairedSources) -> np.ndarray:
    """(steps, sources) stamps of all that is paired."""
    groups = iter(pairs.read, None)
    return np.array([[item.stamp_s for item in items] for items in groups])


def test_images_of_equal_rates_are_paired_one_by_one_and_nothing_is_said(video, caplog):
    sources = [video(30, 20), video(30, 20)]
    pairs = PairedSources(sources, NAMES)
    indices = [[item.index for item in items] for items in iter(pairs.read, None)]
    pairs.warn(ended=True)
    assert indices == [[k, k] for k in range(20)] and not caplog.records


@pytest.mark.parametrize(("rates", "counts"), [((30, 60), (30, 60)), ((60, 30), (60, 30)), ((25, 30), (50, 60))])
def test_images_of_other_rates_meet_the_nearest_in_time(video, caplog, rates, counts):
    pairs = PairedSources([video(rate, count) for rate, count in zip(rates, counts)], NAMES)
    stamps = stamps_of(pairs)
    slowest, fastest = min(rates), max(rates)
    assert len(stamps) == min(counts) and pairs.slowest.fps == slowest
    assert np.abs(stamps[:, 0] - stamps[:, 1]).max() <= 0.5 / fastest + 1e-9  # no pair could be nearer
    assert (np.diff(stamps, axis=0) > 0).all()
    pairs.warn(ended=True)
    (record,) = caplog.records
    fast = NAMES[rates.index(fastest)]
    assert f"{fast}: {max(counts) - min(counts)} of {max(counts)} images are left out" in record.getMessage()


def test_a_video_that_ends_sooner_ends_it_and_the_rest_is_counted(video, caplog):
    """As many images, but the container of one says twice the rate: 1 s beside 0.5 s."""
    pairs = PairedSources([video(30, 30), video(60, 30)], NAMES)
    stamps = stamps_of(pairs)
    assert len(stamps) == 16 and np.allclose(stamps[:15, 0], stamps[:15, 1])
    pairs.warn(ended=True)
    said = [record.getMessage() for record in caplog.records]
    assert said[0].startswith("left: 14 of 30 images") and said[1].startswith("right: 14 of 30 images")
    assert "rates: 30, 60 Hz" in said[0] and "give one (fps)" in said[0]
    given = PairedSources([video(30, 30, fps=30), video(60, 30, fps=30)], NAMES)  # what it advises
    assert len(stamps_of(given)) == 30


class LiveSource(Source):
    """Stands for a camera: images at these stamps."""

    live, fps = True, 30.0

    def __init__(self, stamps_s) -> None:
        self._stamps = iter(enumerate(stamps_s))

    def read(self) -> SourceImage | None:
        index, stamp_s = next(self._stamps, (0, None))
        return None if stamp_s is None else SourceImage(np.zeros((48, 64), np.uint8), stamp_s, index, "camera")


def test_live_cameras_that_drift_and_drop_images_meet_the_nearest(caplog):
    steady = 100 + np.arange(60) / 30
    other = np.delete(100.02 + np.arange(60) / 29.5, slice(20, 30))  # silent for a third of a second
    pairs = PairedSources([LiveSource(steady), LiveSource(other)], NAMES)
    stamps = stamps_of(pairs)
    assert np.abs(stamps[:, 0] - stamps[:, 1]).max() <= 0.5 / 30 + 1e-9 and 45 <= len(stamps) <= 50
    pairs.warn(ended=True)
    assert "left: " in caplog.text and f"of {len(steady)} images are left out" in caplog.text


def test_live_cameras_slower_than_they_say_are_paired_too():
    """Two cameras in the dark: 30 Hz stated, 12 Hz delivered, half a period apart."""
    first = 100 + np.arange(30) / 12
    pairs = PairedSources([LiveSource(first), LiveSource(first + 0.035)], NAMES)
    assert len(stamps_of(pairs)) >= 28


def test_what_cannot_be_paired_is_refused(video):
    with pytest.raises(SourceError, match="no common time.*left live, right a file; give files for all cameras"):
        PairedSources([LiveSource([100.0]), video(30, 3)], NAMES)
    pairs = PairedSources([LiveSource([1.0, 2.0]), LiveSource([50.0, 51.0])], NAMES)
    with pytest.raises(SourceError, match="no images of left and right were taken at the same time"):
        pairs.read()


def test_a_stream_gives_no_image_twice(video):
    stream = Stream(video(10, 5))
    assert stream.at(0.04, 0.05).index == 0
    assert stream.at(0.06, 0.05).index == 1  # not 0 again
    assert stream.at(0.06, 0.05) is None
    assert stream.at(0.31, 0.05).index == 3


def test_the_tracker_gets_what_belongs_together_and_the_newest_stamp_counts(video, caplog):
    lens = Camera(60, 60, 32, 24)
    rig = Rig((RigCamera("left", 64, 48, lens), RigCamera("right", 64, 48, lens, translation_m=np.array([-0.1, 0, 0]))))
    tracker = RigTracker(rig, TrackerConfig())
    with caplog.at_level(logging.WARNING):
        tracked = [frame for _, frame in track_rig(tracker, [video(60, 12), video(25, 5)])]
    assert [frame.frame for frame in tracked] == [0, 2, 5, 7, 10]
    assert [frame.stamp_s for frame in tracked] == pytest.approx([0, 0.04, 5 / 60, 0.12, 10 / 60])
    assert "left: 7 of 12 images" in caplog.text
