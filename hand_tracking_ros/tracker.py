"""HandTracker: the whole loop in one object. The public API of the package."""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np

from hand_tracking_ros.config import TrackerConfig
from hand_tracking_ros.detection import HandDetector
from hand_tracking_ros.images import as_mono
from hand_tracking_ros.keypoints import KeypointEstimator
from hand_tracking_ros.smoothing import HandFilter
from hand_tracking_ros.tracks import HandTracks
from hand_tracking_ros.types import Camera, Frame, Hand, HandBox, HandKeypoints, Source

STAGES = ("flow", "detect", "keypoints", "filter", "total")


class HandTracker:
    """Tracks hands through the frames of one camera.

    Raises ModelError or BackendError when the networks cannot be loaded, and only then: ``step`` takes any valid Frame.
    ``timings_s``: seconds that each stage took on the last frame.
    """

    def __init__(self, config: TrackerConfig = TrackerConfig()):
        self.config = config
        self.detector = HandDetector(config.detector, config.inference)
        self.estimator = KeypointEstimator(config.keypoints, config.inference, config.track.max_hands)
        self.tracks = HandTracks(config.track, config.flow)
        self.filter = HandFilter(config.filter, config.track, config.pose)
        self._tracked: _Tracked | None = None
        self.timings_s = dict.fromkeys(STAGES, 0.0)

    def step(self, frame: Frame) -> list[Hand]:
        """Hands in ``frame``, by id. Frames come in the order of their stamps; a jump in time starts all over."""
        hands = self.track(frame)
        self.search()
        return hands

    def track(self, frame: Frame) -> list[Hand]:
        """The first and urgent half of ``step``: all that its hands need.

        ``search`` has to follow, and finds the image of ``frame`` as it was.
        """
        mono = as_mono(frame.image)
        clock = _StageClock()
        boxes = self.tracks.predict(mono, frame.stamp_s)
        vote = self.estimator.takes_prior
        if frame.camera is not None and (vote or any(box.source == Source.PREDICTED for box in boxes)):
            boxes = self.tracks.expect(self.filter.expected_px(frame.camera, frame.stamp_s), vote)
        clock.lap("flow")
        searched = not self.tracks.in_view and self.tracks.wants_detection(frame.stamp_s)
        if searched:
            boxes = self.tracks.associate(self.detector.detect(mono), frame.stamp_s)
        clock.lap("detect")
        least = self.config.track.least_presence
        keypoints = self.estimator.estimate(mono, boxes, frame.camera, least) if boxes else []
        self.tracks.update(keypoints, frame.stamp_s)
        clock.lap("keypoints")
        views = self.filter.depth_views(keypoints, frame.camera, frame.depth_m)
        hands = self.filter.apply(keypoints, frame.stamp_s, frame.camera, views)
        clock.lap("filter")
        self.timings_s = clock.laps()
        self._tracked = None if searched else _Tracked(mono, frame.stamp_s, frame.camera, boxes, keypoints)
        return hands

    def search(self) -> None:
        """The second half of ``step``: where a hand is in view, look for others in the image that ``track`` had, and
        once more at one that looks strange.

        What is found is in the hands of the next frame. Nodes publish before, so that a hand that is tracked never
        waits for DetNet, nor for the looks that a new or a strange one takes.
        """
        tracked, self._tracked = self._tracked, None
        if tracked is None or not self.tracks.in_view:
            return
        clock = _StageClock()
        mono, stamp_s, camera, keypoints = tracked.mono, tracked.stamp_s, tracked.camera, tracked.keypoints
        least = self.config.track.least_presence
        self.tracks.add(self.estimator.read_afresh(mono, tracked.boxes, keypoints, camera, least), stamp_s)
        clock.lap("keypoints")
        if self.tracks.wants_detection(stamp_s):
            boxes = self.tracks.associate(self.detector.detect(mono), stamp_s)
            clock.lap("detect")
            new = [box for box in boxes if box.source == Source.DETECTED]
            if new:
                ids = {box.id for box in new}
                known = [hand for hand in keypoints if hand.id not in ids]
                self.tracks.add(self.estimator.estimate(mono, new, camera, least, known), stamp_s)
            clock.lap("keypoints")
        self.timings_s = {stage: self.timings_s[stage] + lap for stage, lap in clock.laps().items()}

    def reconfigure(self, config: TrackerConfig) -> None:
        """Take over new settings between two frames. The networks stay as loaded; the filters start afresh."""
        self.config = config
        self.detector.config, self.estimator.config = config.detector, config.keypoints
        self.tracks.reconfigure(config.track, config.flow)
        self.filter.reconfigure(config.filter, config.track, config.pose)

    def give_up(self, least_interval_s: float, detector: HandDetector, estimator: KeypointEstimator) -> None:
        """Go on with fewer detections and these networks, or as before when they are the tracker's own (budget.py)."""
        self.tracks.least_interval_s = least_interval_s
        self.detector, self.estimator = detector, estimator
        self.detector.config, self.estimator.config = self.config.detector, self.config.keypoints

    def close(self) -> None:
        """Free the networks."""
        for stage in (self.detector, self.estimator):
            stage.backend.close()

    def reset(self) -> None:
        """Forget all hands. Ids go on counting, so an id always means one hand."""
        self.tracks.reset()
        self.filter.reset()
        self._tracked = None


class _Tracked(NamedTuple):
    """What ``search`` goes on with, after a frame that was not searched before."""

    mono: np.ndarray
    stamp_s: float
    camera: Camera | None
    boxes: list[HandBox]
    keypoints: list[HandKeypoints]


class _StageClock:
    """Wall time per stage. Measures only; nothing that is computed depends on it."""

    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()
        self._laps = dict.fromkeys(STAGES, 0.0)

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self._laps[stage] += now - self._last
        self._last = now

    def laps(self) -> dict[str, float]:
        return {**self._laps, "total": self._last - self._start}
