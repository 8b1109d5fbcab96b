"""Runs our core over videos and data sets, and keeps what it says in the form that records and metrics take."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from hand_tracking_ros.images import as_mono
from hand_tracking_ros.records import TrackedFrame
from hand_tracking_ros.rig_tracker import RigTracker
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


def track_rig(
    tracker: RigTracker, sources: Sequence[Source], max_frames: int | None = None
) -> Iterator[tuple[list[SourceImage], TrackedFrame]]:
    """Step ``tracker`` through one source per camera, frame by frame, until one of them ends."""
    done = 0
    while max_frames is None or done < max_frames:
        items = [source.read() for source in sources]
        if any(item is None for item in items):
            return
        start_s = time.perf_counter()
        hands = tracker.step([Frame(as_mono(item.image), item.stamp_s) for item in items])
        latency_ms = {"total": 1000 * (time.perf_counter() - start_s)}
        height, width = items[0].image.shape[:2]
        yield items, TrackedFrame(items[0].index, items[0].stamp_s, width, height, tuple(hands), latency_ms)
        done += 1
