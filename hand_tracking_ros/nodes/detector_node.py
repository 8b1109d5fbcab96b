"""detector_node: DetNet on the images that flow_node asks about (stage graph, docs/architecture.md)."""

from __future__ import annotations

from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from hand_tracking_ros import msg
from hand_tracking_ros.detection import HandDetector
from hand_tracking_ros.nodes.base import HandNode, newest_qos, result_qos, run
from hand_tracking_ros.nodes.conversions import boxes_to_message
from hand_tracking_ros.nodes.image_input import PAIRING_DEPTH, ImageInput, ImagePairing, Stopwatch
from hand_tracking_ros.nodes.models import ModelInfoPublisher, warm_up_detector
from hand_tracking_ros.nodes.settings import DetectorNodeConfig


class DetectorNode(HandNode):
    """Wraps HandDetector."""

    def __init__(self, **options) -> None:
        super().__init__("detector_node", DetectorNodeConfig, **options)
        self._detector: HandDetector | None = None
        self._images = ImageInput(self)
        self._pairing = ImagePairing(self, self._detect)

    def configure(self) -> None:
        self._detector = HandDetector(self.config.detector, self.config.inference)
        warm_up_detector(self._detector)
        self._model_info = ModelInfoPublisher(self, (self._detector,))
        self._detections = self.publish_to(msg.HandBoxArray, "detections", result_qos())

    def activate(self) -> None:
        self._model_info.publish()
        self._images.subscribe(self._pairing.add_image, depth=PAIRING_DEPTH)
        self.subscribe(
            Header, "detect_requests", lambda header: self._pairing.add_request(header, header), newest_qos()
        )

    def deactivate(self) -> None:
        self._pairing.clear()

    def cleanup(self) -> None:
        if self._detector is not None:
            self._detector.backend.close()
            self._detector = None

    def apply(self) -> None:
        self._detector.config = self.config.detector

    def _detect(self, header: Header, message: Image | CompressedImage) -> None:
        watch = Stopwatch()
        mono = self._images.mono(message)
        convert_s = watch.lap()
        boxes = self._detector.detect(mono)
        detect_s = watch.lap()
        self._detections.publish(boxes_to_message(boxes, header, width=mono.shape[1], height=mono.shape[0]))
        self.statistics.frame(convert=convert_s, detect=detect_s, publish=watch.lap(), age=self._images.age_s(message))


def main() -> int:
    """Console entry point."""
    return run(DetectorNode)


if __name__ == "__main__":
    raise SystemExit(main())
