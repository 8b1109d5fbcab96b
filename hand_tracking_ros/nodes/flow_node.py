"""flow_node: the tracks. Carries boxes from image to image, decides when to detect (stage graph, docs/architecture.md).

One image at a time, as HandTracker does: predict, where no hand is in view wait for detections, publish boxes, wait for
their keypoints; then, where another hand is wanted, wait for detections and for the keypoints of what is new. Nothing
blocks; what is waited for is in ``_Pending``. Meanwhile only the newest image is kept.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from hand_tracking_ros import msg
from hand_tracking_ros.nodes.base import HandNode, result_qos, run
from hand_tracking_ros.nodes.conversions import (
    boxes_from_message,
    boxes_to_message,
    keypoints_from_message,
    stamp_ns,
    stamp_s,
)
from hand_tracking_ros.nodes.image_input import CameraInput, ImageInput, Stopwatch
from hand_tracking_ros.nodes.settings import FlowNodeConfig
from hand_tracking_ros.tracks import HandTracks
from hand_tracking_ros.types import HandBox, Source

TIMEOUT_CHECK_S = 0.05
STAGE = {"detections": "detector_node", "keypoints": "keypoint_node", "new_keypoints": "keypoint_node"}  # who answers


@dataclass
class _Pending:
    """The image under way, and the topic whose answer it waits for."""

    header: Header
    width: int
    height: int
    boxes: list[HandBox]
    answer: str  # a key of STAGE
    since_s: float  # monotonic
    searched: bool = False  # detections were asked for
    tracked: bool = False  # keypoints have come: what is detected now is new


class FlowNode(HandNode):
    """Wraps HandTracks."""

    def __init__(self, **options) -> None:
        super().__init__("flow_node", FlowNodeConfig, **options)
        self._tracks: HandTracks | None = None
        self._images = ImageInput(self)
        self._newest: Image | CompressedImage | None = None
        self._pending: _Pending | None = None
        check = self.guarded(self._give_up_waiting)
        self.create_timer(TIMEOUT_CHECK_S, check, clock=self.steady_clock)

    def configure(self) -> None:
        self._tracks = HandTracks(self.config.track, self.config.flow)
        self._boxes = self.publish_to(msg.HandBoxArray, "boxes", result_qos())
        self._new_boxes = self.publish_to(msg.HandBoxArray, "new_boxes", result_qos())
        self._requests = self.publish_to(Header, "detect_requests", result_qos())
        self.statistics.facts["timeouts"] = 0

    def activate(self) -> None:
        CameraInput(self).subscribe()  # announces images: what does not arrive is counted
        self.subscribe(msg.HandBoxArray, "detections", self._on_detections, result_qos())
        self.subscribe(msg.HandKeypointsArray, "keypoints", self._on_keypoints, result_qos())
        self.subscribe(msg.HandKeypointsArray, "new_keypoints", self._on_new_keypoints, result_qos())
        self._images.subscribe(self._on_image)

    def deactivate(self) -> None:
        self._newest = self._pending = None
        if self._tracks is not None:
            self._tracks.reset()

    def cleanup(self) -> None:
        self._tracks = None

    def apply(self) -> None:
        self._tracks.reconfigure(self.config.track, self.config.flow)

    def _on_image(self, message: Image | CompressedImage) -> None:
        if not self._images.is_new(message):
            return
        if self._newest is not None:
            self.statistics.loss.lost += 1
        self._newest = message
        self._next_image()

    def _next_image(self) -> None:
        """Start on the newest image, if none is under way."""
        if self._pending is not None or self._newest is None:
            return
        message, self._newest = self._newest, None
        watch = Stopwatch()
        mono = self._images.mono(message)
        convert_s = watch.lap()
        stamp = stamp_s(message.header.stamp)
        boxes = self._tracks.predict(mono, stamp)
        height, width = mono.shape
        self._pending = _Pending(message.header, width, height, boxes, "detections", time.monotonic())
        self.statistics.latencies({"convert": convert_s, "flow": watch.lap()})
        if self._tracks.in_view or not self._request_detections():
            self._publish_boxes()

    def _request_detections(self) -> bool:
        """Ask for detections in the image under way, where they are wanted and somebody is there to answer."""
        pending = self._pending
        wanted = self._tracks.wants_detection(stamp_s(pending.header.stamp))
        if not wanted or not self._is_there("detections", self._requests):
            return False
        pending.answer, pending.since_s, pending.searched = "detections", time.monotonic(), True
        self._requests.publish(pending.header)
        return True

    def _on_detections(self, message: msg.HandBoxArray) -> None:
        pending = self._answered("detections", message.header)
        if pending is None:
            return
        pending.boxes = self._tracks.associate(boxes_from_message(message), stamp_s(message.header.stamp))
        if not pending.tracked:
            self._publish_boxes()
        elif new := [box for box in pending.boxes if box.source == Source.DETECTED]:
            self._new_boxes.publish(boxes_to_message(new, pending.header, pending.width, pending.height))
            pending.answer, pending.since_s = "new_keypoints", time.monotonic()
        else:
            self._finish()

    def _publish_boxes(self) -> None:
        pending = self._pending
        self._boxes.publish(boxes_to_message(pending.boxes, pending.header, pending.width, pending.height))
        self.statistics.facts["tracks"] = len(pending.boxes)
        self.statistics.frame(age=self._images.age_s(pending))
        pending.answer, pending.since_s = "keypoints", time.monotonic()
        if not self._is_there("keypoints", self._boxes):
            self._pending = None

    def _on_keypoints(self, message: msg.HandKeypointsArray) -> None:
        pending = self._answered("keypoints", message.header)
        if pending is None:
            return
        self._tracks.update(keypoints_from_message(message), stamp_s(message.header.stamp))
        pending.tracked = True
        if pending.searched or not self._tracks.in_view or not self._request_detections():
            self._finish()

    def _on_new_keypoints(self, message: msg.HandKeypointsArray) -> None:
        if self._answered("new_keypoints", message.header) is not None:
            self._tracks.add(keypoints_from_message(message), stamp_s(message.header.stamp))
            self._finish()

    def _finish(self) -> None:
        """The image under way is done."""
        self._pending = None
        self._next_image()

    def _answered(self, topic: str, header: Header) -> _Pending | None:
        """The pending image when ``header`` answers it; None for an answer that came too late or is not ours."""
        pending = self._pending
        if pending is None or pending.answer != topic or stamp_ns(header.stamp) != stamp_ns(pending.header.stamp):
            return None
        self.statistics.latencies({f"wait_{topic}": time.monotonic() - pending.since_s})
        self.statistics.problems.pop(topic, None)
        return pending

    def _is_there(self, answer: str, question) -> bool:
        """Whether a stage listens to the publisher ``question`` and publishes the topic ``answer``; else say so."""
        there = question.get_subscription_count() > 0 and self.count_publishers(answer) > 0
        if not there:
            self._complain(answer, f"{STAGE[answer]} is not there; start and activate it")
        return there

    def _give_up_waiting(self) -> None:
        pending = self._pending
        if pending is None or time.monotonic() - pending.since_s < self.config.stage.timeout_s:
            return
        self.statistics.facts["timeouts"] += 1
        self._complain(pending.answer, f"no answer of {STAGE[pending.answer]} within {self.config.stage.timeout_s:g} s")
        if pending.answer == "detections" and not pending.tracked:
            self._publish_boxes()
        else:
            self._finish()

    def _complain(self, answer: str, problem: str) -> None:
        self.statistics.problems[answer] = problem
        self.warn(f"{answer}: {problem}")


def main() -> int:
    """Console entry point."""
    return run(FlowNode)


if __name__ == "__main__":
    raise SystemExit(main())
