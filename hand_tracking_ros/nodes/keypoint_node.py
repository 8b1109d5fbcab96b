"""keypoint_node: KeyNet in the boxes of flow_node (stage graph, docs/architecture.md)."""

from __future__ import annotations

from typing import NamedTuple

from sensor_msgs.msg import CompressedImage, Image

from hand_tracking_ros import msg
from hand_tracking_ros.keypoints import KeypointEstimator
from hand_tracking_ros.nodes.base import HandNode, newest_qos, result_qos, run
from hand_tracking_ros.nodes.conversions import boxes_from_message, keypoints_to_message, stamp_ns
from hand_tracking_ros.nodes.image_input import PAIRING_DEPTH, CameraInput, ImageInput, ImagePairing, Stopwatch
from hand_tracking_ros.nodes.models import ModelInfoPublisher, warm_up_estimator
from hand_tracking_ros.nodes.settings import KeypointNodeConfig
from hand_tracking_ros.types import HandKeypoints


class _Request(NamedTuple):
    """Boxes, and where the answer goes."""

    message: msg.HandBoxArray
    is_new: bool  # of hands that were looked for after the others in this image


class KeypointNode(HandNode):
    """Wraps KeypointEstimator."""

    def __init__(self, **options) -> None:
        super().__init__("keypoint_node", KeypointNodeConfig, **options)
        self._estimator: KeypointEstimator | None = None
        self._images = ImageInput(self)
        self._pairing = ImagePairing(self, self._estimate)
        self._answered: tuple[int, list[HandKeypoints]] = 0, []  # last, its stamp

    def configure(self) -> None:
        config = self.config
        self._estimator = KeypointEstimator(config.keypoints, config.inference, config.track.max_hands)
        warm_up_estimator(self._estimator, config.track.max_hands)
        self._model_info = ModelInfoPublisher(self, (self._estimator,))
        self._keypoints = self.publish_to(msg.HandKeypointsArray, "keypoints", result_qos())
        self._new_keypoints = self.publish_to(msg.HandKeypointsArray, "new_keypoints", result_qos())

    def activate(self) -> None:
        self._model_info.publish()
        self._camera = CameraInput(self)
        self._camera.subscribe()
        self._images.subscribe(self._pairing.add_image, depth=PAIRING_DEPTH)
        self.subscribe(msg.HandBoxArray, "boxes", self._on_boxes, newest_qos())
        self.subscribe(msg.HandBoxArray, "new_boxes", self._on_new_boxes, newest_qos())

    def deactivate(self) -> None:
        self._pairing.clear()

    def cleanup(self) -> None:
        if self._estimator is not None:
            self._estimator.backend.close()
            self._estimator = None

    def apply(self) -> None:
        self._estimator.config = self.config.keypoints

    def _on_boxes(self, message: msg.HandBoxArray) -> None:
        if message.boxes:
            self._pairing.add_request(message.header, _Request(message, False))
        else:
            self._publish([], _Request(message, False))
            self.statistics.frame()

    def _on_new_boxes(self, message: msg.HandBoxArray) -> None:
        self._pairing.add_request(message.header, _Request(message, True))

    def _estimate(self, request: _Request, message: Image | CompressedImage) -> None:
        watch = Stopwatch()
        mono = self._images.mono(message)
        convert_s = watch.lap()
        boxes, least_presence = boxes_from_message(request.message), self.config.track.least_presence
        stamp, ids = stamp_ns(request.message.header.stamp), {box.id for box in boxes}
        same_image = request.is_new and self._answered[0] == stamp
        known = [hand for hand in self._answered[1] if hand.id not in ids] if same_image else []
        camera = self._camera.fitting(mono.shape)
        hands = self._estimator.estimate(mono, boxes, camera, least_presence, known)
        if not request.is_new:
            fresh = {hand.id: hand for hand in self._estimator.read_afresh(mono, boxes, hands, camera, least_presence)}
            hands = [fresh.get(hand.id, hand) for hand in hands]
        keypoints_s = watch.lap()
        self._answered = stamp, hands
        self._publish(hands, request)
        age_s = self._images.age_s(message)
        self.statistics.frame(convert=convert_s, keypoints=keypoints_s, publish=watch.lap(), age=age_s)

    def _publish(self, hands: list[HandKeypoints], request: _Request) -> None:
        boxes, publisher = request.message, self._new_keypoints if request.is_new else self._keypoints
        size = {"width": boxes.image_width, "height": boxes.image_height}
        publisher.publish(keypoints_to_message(hands, boxes.header, **size))


def main() -> int:
    """Console entry point."""
    return run(KeypointNode)


if __name__ == "__main__":
    raise SystemExit(main())
