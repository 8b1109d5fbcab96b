"""A node's tracker within its budget of time: budget.py decides, this applies it and says so."""

from __future__ import annotations

import time
from dataclasses import replace

from sensor_msgs.msg import CompressedImage, Image

from hand_tracking_ros.budget import Budget, Level
from hand_tracking_ros.detection import HandDetector
from hand_tracking_ros.keypoints import KeypointEstimator
from hand_tracking_ros.manifest import load_manifest
from hand_tracking_ros.nodes.base import HandNode
from hand_tracking_ros.nodes.conversions import stamp_s
from hand_tracking_ros.nodes.image_input import Stopwatch
from hand_tracking_ros.nodes.models import ModelInfoPublisher, warm_up_detector, warm_up_estimator
from hand_tracking_ros.rig_tracker import RigTracker
from hand_tracking_ros.tracker import HandTracker


class LoadControl:
    """Gives up what the parameters ``budget.*`` name while a tracker cannot keep up, and takes it back.

    Made when the node is configured; loads the smaller networks, and frees those of the tracker as well. Raises
    HandTrackingError when one cannot be loaded.
    """

    def __init__(self, node: HandNode, tracker: HandTracker | RigTracker) -> None:
        self._node, self._tracker = node, tracker
        self._full = (tracker.detector, tracker.estimator)
        self._small = self._load_small()
        levels = [level for level in Level if level != Level.SMALL_NETWORKS or self._small != self._full]
        self._budget = Budget(node.config.budget, levels)
        self._stamp_s = 0.0
        self._start_laps()
        self._model_info = ModelInfoPublisher(node, self._full)

    def activate(self) -> None:
        """Say which networks run."""
        self._model_info.publish()
        self._start_laps()

    def reset(self) -> None:
        """Give nothing up, as at the start."""
        self._budget.reset()
        self._use_level()

    def apply(self) -> None:
        """Take over changed parameters."""
        self._budget.config = self._node.config.budget
        if not self._budget.config.enabled:
            self._budget.reset()
        self._use_level()

    def close(self) -> None:
        """Free all networks."""
        for stage in {*self._full, *self._small}:
            stage.backend.close()

    def takes(self, message: Image | CompressedImage) -> bool:
        """Whether an image that has arrived is to be processed. What is not is counted."""
        self._stamp_s = stamp_s(message.header.stamp)
        self._reading_s += self._lap()
        return not self._node.config.budget.enabled or self._budget.takes(self._stamp_s)

    def done(self, watch: Stopwatch) -> None:
        """The image that was taken is done; ``watch`` has run since then.

        What this thread did before, from the end of the last image on, is reading messages, and counts as well.
        """
        seconds = watch.total() + self._reading_s
        self._start_laps()
        if self._node.config.budget.enabled and self._budget.step(seconds):
            self._use_level()
            self._node.get_logger().warning(f"load: {self._describe()}")

    def observe(self) -> None:
        """State the level, since when and why, in the diagnostics."""
        budget, statistics = self._budget, self._node.statistics
        since_s = 0.0 if budget.since_s is None else max(self._stamp_s - budget.since_s, 0.0)
        budget_s = budget.budget_s
        statistics.facts |= {
            "load_level": budget.level.name.lower(),
            "load_level_for_s": since_s,
            "load_reason": budget.reason,
            "load_dropped": budget.dropped,
            "budget_ms": float("nan") if budget_s is None else 1e3 * budget_s,
        }
        statistics.problems.pop("load", None)
        if budget.level != Level.FULL:
            statistics.problems["load"] = f"{self._describe()}, for {since_s:.1f} s"

    def _start_laps(self) -> None:
        self._reading_s, self._thread_s = 0.0, time.thread_time()

    def _lap(self) -> float:
        """Seconds of CPU that this thread has taken since the last lap: not those in which it waited for images."""
        now_s = time.thread_time()
        seconds, self._thread_s = now_s - self._thread_s, now_s
        return seconds

    def _describe(self) -> str:
        return f"{_MEANING[self._budget.level]}: {self._budget.reason}"

    def _load_small(self) -> tuple[HandDetector, KeypointEstimator]:
        config, (detector, estimator) = self._node.config, self._full
        if small := _smaller(config.budget.detector_model, config.detector.model):
            detector = HandDetector(replace(config.detector, model=small), config.inference)
            warm_up_detector(detector)
        if small := _smaller(config.budget.keypoints_model, config.keypoints.model):
            settings = replace(config.keypoints, model=small)
            estimator = KeypointEstimator(settings, config.inference, config.track.max_hands)
            warm_up_estimator(estimator, config.track.max_hands)
        return detector, estimator

    def _use_level(self) -> None:
        level, config = self._budget.level, self._node.config.budget
        interval_s = config.detect_interval_s if level >= Level.FEWER_DETECTIONS else 0.0
        networks = self._small if level >= Level.SMALL_NETWORKS else self._full
        changed = networks != (self._tracker.detector, self._tracker.estimator)
        self._tracker.give_up(interval_s, *networks)
        if changed:
            self._model_info.change(networks)


def _smaller(wanted: str, model: str) -> str:
    """The smaller network to load for ``model``; empty: none."""
    if wanted != "auto":
        return wanted
    found = load_manifest(model).smaller()
    return str(found.path) if found else ""


_MEANING = {
    Level.FULL: "nothing is given up any more",
    Level.FEWER_DETECTIONS: "fewer detections",
    Level.SMALL_NETWORKS: "fewer detections and smaller networks",
    Level.HALF_RATE: "fewer detections, smaller networks where there are any, and half the rate",
}
