"""hand_tracker_node: the whole pipeline in one process, image in, hands out. The default."""

from __future__ import annotations

from sensor_msgs.msg import CompressedImage, Image

from hand_tracking_ros.nodes.base import HandNode, run
from hand_tracking_ros.nodes.conversions import stamp_s
from hand_tracking_ros.nodes.depth_input import DepthInput
from hand_tracking_ros.nodes.hand_size_services import ONE_CAMERA, HandSizeServices
from hand_tracking_ros.nodes.image_input import CameraInput, ImageInput, Stopwatch
from hand_tracking_ros.nodes.load import LoadControl
from hand_tracking_ros.nodes.models import warm_up_detector, warm_up_estimator
from hand_tracking_ros.nodes.settings import HandTrackerNodeConfig
from hand_tracking_ros.nodes.visuals import HandPublisher
from hand_tracking_ros.tracker import HandTracker
from hand_tracking_ros.types import Frame


class HandTrackerNode(HandNode):
    """Wraps HandTracker."""

    def __init__(self, **options) -> None:
        super().__init__("hand_tracker_node", HandTrackerNodeConfig, **options)
        self._tracker: HandTracker | None = None
        self._load: LoadControl | None = None
        self._images = ImageInput(self)
        self._depth = DepthInput(self, self._track)
        self._hand_size = HandSizeServices(self, lambda: self._tracker and self._tracker.filter, ONE_CAMERA)

    def configure(self) -> None:
        self._tracker = HandTracker(self.config)
        warm_up_detector(self._tracker.detector)
        warm_up_estimator(self._tracker.estimator, self.config.track.max_hands)
        self._load = LoadControl(self, self._tracker)
        self._output = HandPublisher(self)

    def activate(self) -> None:
        self._load.activate()
        self._camera = CameraInput(self)
        self._camera.subscribe()
        if self.config.depth.enabled:
            self._depth.subscribe()
        self._images.subscribe(self._on_image)

    def deactivate(self) -> None:
        self._depth.clear()
        self._hand_size.clear()
        if self._load is not None:
            self._tracker.reset()
            self._load.reset()

    def cleanup(self) -> None:
        if self._load is not None:
            self._load.close()
        elif self._tracker is not None:
            self._tracker.close()
        self._tracker = self._load = None

    def apply(self) -> None:
        self._tracker.reconfigure(self.config)
        self._load.apply()

    def observe(self) -> None:
        self._hand_size.report()
        self._load.observe()
        if self.config.depth.enabled:
            self._depth.observe()

    def _on_image(self, message: Image | CompressedImage) -> None:
        if not self._images.is_new(message) or not self._load.takes(message):
            return
        if self.config.depth.enabled:
            self._depth.add(message)
        else:
            self._track(message)

    def _track(self, message: Image | CompressedImage, depth: Image | None = None) -> None:
        watch = Stopwatch()
        header, mono = message.header, self._images.mono(message)
        camera = self._camera.fitting(mono.shape)
        depth_m = self._depth.read(depth, mono.shape, camera) if self.config.depth.enabled else None
        convert_s = watch.lap()
        try:
            hands = self._tracker.track(Frame(mono, stamp_s(header.stamp), camera, depth_m))
            watch.lap()
            self._output.publish(hands, header, width=mono.shape[1], height=mono.shape[0])
            age_s, publish_s = self._images.age_s(message), watch.lap()
            self._tracker.search()
        except Exception:
            self._tracker.reset()  # half a step may have been done
            raise
        self.statistics.frame(convert=convert_s, **self._tracker.timings_s, publish=publish_s, age=age_s)
        self._output.publish_overlay(hands, header, lambda: self._images.bgr(message))
        self._load.done(watch)


def main() -> int:
    """Console entry point."""
    return run(HandTrackerNode)


if __name__ == "__main__":
    raise SystemExit(main())
