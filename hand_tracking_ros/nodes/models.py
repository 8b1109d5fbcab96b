"""Loading networks in a node: warm-up, and saying what runs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hand_tracking_ros import msg
from hand_tracking_ros.detection import HandDetector
from hand_tracking_ros.geometry import Box
from hand_tracking_ros.keypoints import KeypointEstimator
from hand_tracking_ros.nodes.base import HandNode, latched_qos
from hand_tracking_ros.nodes.conversions import model_info_message
from hand_tracking_ros.types import HandBox, Source

WARM_UP_IMAGE = np.zeros((480, 640), np.uint8)


def warm_up_detector(detector: HandDetector) -> None:
    """The first inference is slow: have it now."""
    detector.detect(WARM_UP_IMAGE)


def warm_up_estimator(estimator: KeypointEstimator, max_hands: int) -> None:
    """As ``warm_up_detector``, for every number of hands."""
    box = Box((320.0, 240.0), (200.0, 200.0))
    for count in range(1, max_hands + 1):
        estimator.estimate(WARM_UP_IMAGE, [HandBox(box, 1.0, id=i + 1, source=Source.PROPAGATED) for i in range(count)])


class ModelInfoPublisher:
    """Says on the latched topic ``model_info``, and in the diagnostics, which networks run and on what."""

    def __init__(self, node: HandNode, stages: Sequence) -> None:
        self._publisher = node.publish_to(msg.HandModelInfo, "model_info", latched_qos())
        self._facts, self._context = node.statistics.facts, node.context
        self._take(stages)

    def publish(self) -> None:
        """Once, when the node becomes active; nothing when ROS is being shut down, and nobody can hear it any more."""
        if self._context.ok():
            self._publisher.publish(self._message)

    def change(self, stages: Sequence) -> None:
        """Other networks run from now on."""
        self._take(stages)
        self.publish()

    def _take(self, stages: Sequence) -> None:
        self._message = model_info_message(stages)
        backends = {f"{stage.backend.name} {stage.backend.precision}" for stage in stages}
        self._facts["backend"] = ", ".join(sorted(backends))
