"""Runs our core over videos and data sets, and keeps what it says in the form that records and metrics take."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence

import numpy as np

from hand_tracking_ros.errors import SourceError
from hand_tracking_ros.evaluation.pairing import PairedSources, Stream
from hand_tracking_ros.images import as_mono
from hand_tracking_ros.records import TrackedFrame
from hand_tracking_ros.rig_tracker import RigTracker
from hand_tracking_ros.sources import Source, SourceImage
from hand_tracking_ros.tracker import HandTracker
from hand_tracking_ros.types import Camera, Frame

log = logging.getLogger(__name__)


def track_source(
    tracker: HandTracker,
    source: Source,
    camera: Camera | None = None,
    max_frames: int | None = None,
    depth: Source | None = None,
) -> Iterator[tuple[SourceImage, TrackedFrame]]:
    """Step ``tracker`` through ``source``, the images read mono; yield every image with its hands.

    ``depth``: depth images (depth_source.py) aligned with the images, each taken with the image nearest in time. Images
    without one are tracked without, and logged. Raises SourceError when they have not the size of the images.
    """
    depths, done, without = depth and Stream(depth), 0, 0
    try:
        while (max_frames is None or done < max_frames) and (item := source.read()) is not None:
            mono = as_mono(item.image)
            measured = depths and depths.at(item.stamp_s, 0.5 / source.fps)
            without += measured is None
            depth_m = None if measured is None else _checked(measured, mono.shape)
            hands = tracker.step(Frame(mono, item.stamp_s, camera, depth_m))
            latency_ms = {stage: 1000 * seconds for stage, seconds in tracker.timings_s.items()}
            height, width = mono.shape
            yield item, TrackedFrame(item.index, item.stamp_s, width, height, tuple(hands), latency_ms)
            done += 1
    finally:
        if depths is not None and without:
            log.warning(
                "%d of %d images have no depth image near enough in time, and were tracked without", without, done
            )


def _checked(depth: SourceImage, shape: tuple[int, int]) -> np.ndarray:
    """The depth image, of the size of the image that it belongs to. Raises SourceError."""
    if depth.image.shape != shape:
        size, wanted = ("{1}x{0}".format(*of) for of in (depth.image.shape, shape))
        raise SourceError(
            f"depth image {depth.name} is {size}, but the images are {wanted}: depth must be aligned with them"
        )
    return depth.image


def track_rig(
    tracker: RigTracker, sources: Sequence[Source], max_frames: int | None = None
) -> Iterator[tuple[list[SourceImage], TrackedFrame]]:
    """Step ``tracker`` through one source per camera, until one of them ends; yield images that belong together.

    Their stamps say which do (pairing.py). A frame has the number of the first camera's image, and the newest stamp.
    What finds no partner is logged. Raises SourceError when nothing does.
    """
    pairs, done, ended = PairedSources(sources, [camera.name for camera in tracker.rig.cameras]), 0, False
    try:
        while max_frames is None or done < max_frames:
            items = pairs.read()
            if items is None:
                ended = True
                return
            start_s = time.perf_counter()
            hands = tracker.step([Frame(as_mono(item.image), item.stamp_s) for item in items])
            latency_ms = {"total": 1000 * (time.perf_counter() - start_s)}
            height, width = items[0].image.shape[:2]
            stamp_s = max(item.stamp_s for item in items)
            yield items, TrackedFrame(items[0].index, stamp_s, width, height, tuple(hands), latency_ms)
            done += 1
    finally:
        pairs.warn(ended)
