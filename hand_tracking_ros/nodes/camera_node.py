"""camera_node: a camera, video or image folder as ``image_raw`` and ``camera_info``.

Live images carry the node clock at capture. Files carry media time, counted from the node clock at their first image:
exact intervals, also with ``camera.pace`` fast. A thread of its own reads, because reading blocks.
"""

from __future__ import annotations

import threading
import time

import cv2
import rclpy
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from hand_tracking_ros.calibration import Calibration, load_camera_yaml, size_problem
from hand_tracking_ros.errors import HandTrackingError, SourceError
from hand_tracking_ros.images import as_mono
from hand_tracking_ros.nodes.base import HandNode, image_qos, run
from hand_tracking_ros.nodes.conversions import camera_info_message, image_to_message, time_from_ns
from hand_tracking_ros.nodes.settings import CameraNodeConfig
from hand_tracking_ros.sources import Source, SourceImage, open_source

MAX_RECONNECT_S = 10.0
SETTLE_S = 0.5  # the publisher learns of a subscriber before that is ready to receive
DAMAGED_S = 0.01  # after a damaged image of a file; doubles with every one that follows, up to MAX_RECONNECT_S
JOIN_S = 5.0  # a read that blocks for longer is left to end on its own


class CameraNode(HandNode):
    """Publishes the images of one source."""

    def __init__(self, **options) -> None:
        super().__init__("camera_node", CameraNodeConfig, **options)
        self._source: Source | None = None
        self._calibration: Calibration | None = None
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    def configure(self) -> None:
        camera = self.config.camera
        self._calibration = load_camera_yaml(camera.calibration) if camera.calibration else None
        self._source = self._open()  # a camera that is not there should fail now, not at the first frame
        self._images = self.publish_to(Image, "image_raw", image_qos(reliable=camera.reliable))
        self._infos = self.publish_to(CameraInfo, "camera_info", image_qos(reliable=camera.reliable))
        self.statistics.facts |= {"source": camera.source, "reconnects": 0}

    def activate(self) -> None:
        if self._source is None:
            self._source = self._open()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._capture, args=(self._source, self._stop), daemon=True)
        self._source = None  # the thread's from now on
        self._thread.start()

    def deactivate(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(JOIN_S)
            if self._thread.is_alive():
                self.get_logger().warning(f"the source still blocks after {JOIN_S:.0f} s; leaving it behind")
            self._thread = None
        self.statistics.problems.pop("source", None)

    def cleanup(self) -> None:
        if self._source is not None:
            self._source.close()
            self._source = None

    def _open(self) -> Source:
        camera = self.config.camera
        return open_source(
            camera.source,
            loop=camera.loop,
            pace=camera.pace,
            width=camera.width or None,
            height=camera.height or None,
            fps=camera.fps or None,
        )

    def _capture(self, source: Source | None, stop: threading.Event) -> None:
        """Read and publish until ``stop`` or the end of a file; open a camera again when it fails."""
        wait_s, damaged_s = self.config.camera.reconnect_s, DAMAGED_S
        start_ns = None
        self._wait_for_subscribers(stop)
        while not stop.is_set():
            try:
                if source is None:
                    source = self._open()
                    start_ns = None
                item = source.read()
                if item is None:
                    self._ended()
                    break
                wait_s, damaged_s = self.config.camera.reconnect_s, DAMAGED_S
                now_ns = self.get_clock().now().nanoseconds
                if source.live:
                    start_ns = now_ns - int(time.monotonic() * 1e9)
                elif start_ns is None:
                    start_ns = now_ns - int(item.stamp_s * 1e9)
                if not stop.is_set():
                    self._publish(item, start_ns + int(item.stamp_s * 1e9), source.live)
            except (SourceError, cv2.error) as error:
                if source is not None and not source.live:  # the next image of a file may be a good one
                    self.skip(str(error))
                    stop.wait(damaged_s)
                    damaged_s = min(2 * damaged_s, MAX_RECONNECT_S)
                    continue
                if source is not None:
                    source.close()
                    source = None
                self._failed_source(str(error), wait_s)
                stop.wait(wait_s)
                wait_s = min(2 * wait_s, MAX_RECONNECT_S)
            except HandTrackingError as error:
                self.skip(str(error))
            except Exception as error:
                if not rclpy.ok(context=self.context):
                    break
                self.skip(f"internal error: {error!r}")
        if source is not None:
            source.close()

    def _wait_for_subscribers(self, stop: threading.Event) -> None:
        wanted = self.config.camera.wait_for_subscribers
        if wanted:
            while not stop.is_set() and self._images.get_subscription_count() < wanted:
                stop.wait(0.02)
            stop.wait(SETTLE_S)

    def _publish(self, item: SourceImage, stamp: int, live: bool) -> None:
        camera = self.config.camera
        self.statistics.problems.pop("source", None)
        image = item.image
        if camera.encoding == "mono8":
            image = as_mono(image)
        elif image.ndim == 2:
            image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
        header = Header(stamp=time_from_ns(stamp), frame_id=camera.frame_id)
        height, width = image.shape[:2]
        calibration = self._fitting_calibration(width, height, live)
        self._infos.publish(camera_info_message(calibration, header, width, height))
        self._images.publish(image_to_message(image, header))
        self.statistics.frame()

    def _fitting_calibration(self, width: int, height: int, live: bool) -> Calibration | None:
        calibration = self._calibration
        if calibration is None or (calibration.width, calibration.height) == (width, height):
            return calibration
        wanted = calibration.width, calibration.height
        setting = f"set camera.width to {calibration.width} and camera.height to {calibration.height}"
        problem = (
            f"camera_info stays uncalibrated: the calibration "
            f"{size_problem(wanted, (width, height), setting, live=live)}"
        )
        self.statistics.problems["calibration"] = problem
        self.warn(problem)
        return None

    def _failed_source(self, error: str, wait_s: float) -> None:
        self.statistics.problems["source"] = error
        self.statistics.facts["reconnects"] += 1
        self.get_logger().warning(f"{error}; trying again in {wait_s:.1f} s")

    def _ended(self) -> None:
        self.statistics.facts["source"] = f"{self.config.camera.source} (ended)"
        self.get_logger().info(
            f"{self.config.camera.source} has ended after {self.statistics.frames} images; camera.loop repeats"
        )


def main() -> int:
    """Console entry point."""
    return run(CameraNode)


if __name__ == "__main__":
    raise SystemExit(main())
