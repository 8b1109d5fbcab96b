"""Runs our core over videos and data sets, and keeps what it says in the form that records and metrics take."""

from __future__ import annotations

from collections.abc import Iterator

from hand_tracking_ros.images import as_mono
from hand_tracking_ros.records import TrackedFrame
from hand_tracking_ros.sources import Source, SourceImage
from hand_tracking_ros.tracker import HandTracker
from hand_tracking_ros.types import Camera, Frame


def track_source(
    tracker: HandTracker, source: Source, camera: Camera | None = None, max_frames: int | None = None
) -> Iterator[tuple[SourceImage, TrackedFrame]]:
    """Step ``tracker`` through ``source``, the images read mono; yield every image with its hands."""
    done = 0
    while (max_frames is None or done < max_frames) and (item := source.read()) is not None:
        mono = as_mono(item.image)
        hands = tracker.step(Frame(mono, item.stamp_s, camera))
        latency_ms = {stage: 1000 * seconds for stage, seconds in tracker.timings_s.items()}
        height, width = mono.shape
        yield item, TrackedFrame(item.index, item.stamp_s, width, height, tuple(hands), latency_ms)
        done += 1
