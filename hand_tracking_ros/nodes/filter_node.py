"""filter_node: raw keypoints in, filtered hands out (stage graph, docs/architecture.md)."""

from __future__ import annotations

from sensor_msgs.msg import CompressedImage, Image

from hand_tracking_ros import msg
from hand_tracking_ros.nodes.base import HandNode, newest_qos, run
from hand_tracking_ros.nodes.conversions import keypoints_from_message, stamp_ns, stamp_s
from hand_tracking_ros.nodes.depth_input import DepthInput
from hand_tracking_ros.nodes.diagnostics import FrameLoss
from hand_tracking_ros.nodes.hand_size_services import ONE_CAMERA, HandSizeServices
from hand_tracking_ros.nodes.image_input import PAIRING_DEPTH, CameraInput, ImageInput, ImagePairing, Stopwatch
from hand_tracking_ros.nodes.settings import FilterNodeConfig
from hand_tracking_ros.nodes.visuals import HandPublisher
from hand_tracking_ros.smoothing import HandFilter


class FilterNode(HandNode):
    """Wraps HandFilter. Takes images only while somebody looks at the overlay."""

    def __init__(self, **options) -> None:
        super().__init__("filter_node", FilterNodeConfig, **options)
        self._filter: HandFilter | None = None
        self._images = ImageInput(self)
        self._image_subscription = None
        self._pairing = ImagePairing(self, self._draw)
        self._depth = DepthInput(self, self._publish, kept=PAIRING_DEPTH)  # keypoints come later than images do
        self._hand_size = HandSizeServices(self, lambda: self._filter, ONE_CAMERA)
        self._loss = FrameLoss()  # of keypoints; images, where they are taken, have their own

    def configure(self) -> None:
        self._filter = HandFilter(self.config.filter, self.config.track, self.config.pose)
        self._output = HandPublisher(self)

    def activate(self) -> None:
        self._camera = CameraInput(self)
        self._camera.subscribe()
        if self.config.depth.enabled:
            self._depth.subscribe()
        self.subscribe(msg.HandKeypointsArray, "keypoints", self._on_keypoints, newest_qos())

    def deactivate(self) -> None:
        self._pairing.clear()
        self._depth.clear()
        self._hand_size.clear()
        self._loss.reset()
        self._image_subscription = None
        if self._filter is not None:
            self._filter.reset()

    def cleanup(self) -> None:
        self._filter = None

    def apply(self) -> None:
        self._filter.reconfigure(self.config.filter, self.config.track, self.config.pose)

    def observe(self) -> None:
        self._hand_size.report()
        if self.config.depth.enabled:
            self._depth.observe()

    def _on_keypoints(self, message: msg.HandKeypointsArray) -> None:
        self._loss.arrive(stamp_ns(message.header.stamp))
        self.statistics.facts["keypoints_lost"] = self._loss.lost
        if self.config.depth.enabled:
            self._depth.add(message)
        else:
            self._publish(message)

    def _publish(self, message: msg.HandKeypointsArray, depth: Image | None = None) -> None:
        watch = Stopwatch()
        header, shape = message.header, (message.image_height, message.image_width)
        keypoints, camera, depth_m = keypoints_from_message(message), self._camera.fitting(shape), None
        if self.config.depth.enabled:
            depth_m = self._depth.read(depth, shape, camera)
        views = self._filter.depth_views(keypoints, camera, depth_m)
        hands = self._filter.apply(keypoints, stamp_s(header.stamp), camera, views)
        filter_s = watch.lap()
        self._output.publish(hands, header, width=message.image_width, height=message.image_height)
        self.statistics.frame(filter=filter_s, publish=watch.lap(), age=self._images.age_s(message))
        self._follow_overlay()
        if self._image_subscription is not None:
            self._pairing.add_request(header, (hands, header))

    def _follow_overlay(self) -> None:
        """Subscribe to images when somebody starts to look at the overlay, and stop when nobody does."""
        if self._output.wants_overlay and self._image_subscription is None:
            self._image_subscription = self._images.subscribe(self._pairing.add_image, depth=PAIRING_DEPTH)
        elif not self._output.wants_overlay and self._image_subscription is not None:
            self.unsubscribe(self._image_subscription)
            self._image_subscription = None
            self._pairing.clear()

    def _draw(self, request: tuple, message: Image | CompressedImage) -> None:
        hands, header = request
        self._output.publish_overlay(hands, header, lambda: self._images.bgr(message))


def main() -> int:
    """Console entry point."""
    return run(FilterNode)


if __name__ == "__main__":
    raise SystemExit(main())
