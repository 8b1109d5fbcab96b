"""Images and camera_info coming in."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from hand_tracking_ros.errors import CalibrationError
from hand_tracking_ros.nodes.base import HandNode, image_qos
from hand_tracking_ros.nodes.conversions import camera_from_message, image_from_message, stamp_ns
from hand_tracking_ros.nodes.diagnostics import FrameLoss
from hand_tracking_ros.types import Camera

LARGE_IMAGES = "large images need the DDS profile config/fastdds_shared_memory.xml, as launch files and 'up' set it"
PAIRING_DEPTH = 16  # images kept until another stage asks about them
INFO_DEPTH = 20  # camera_info is small, and what it announces must not be missed while a frame is processed


class CameraInput:
    """The camera that camera_info states, lens included: ``camera``, or None while unknown or uncalibrated.

    ``frame_id`` and ``size_wh``, px, are those of its images; empty and None while unknown. ``name``: of the camera
    where there are several, with topics and reports below it. ``without``: what happens without a camera_info that can
    be used.
    """

    def __init__(
        self, node: HandNode, name: str = "", loss: FrameLoss | None = None, without: str = "3D points stay relative"
    ) -> None:
        self.camera: Camera | None = None
        self.frame_id, self.size_wh = "", None
        self.topic = node.resolve_topic_name(f"{name}/camera_info".lstrip("/"))
        self._node, self._loss, self._without = node, loss or node.statistics.loss, without
        self._prefix = f"{name} ".lstrip()
        self._stated: tuple | None = None  # what ``camera`` was made of

    def subscribe(self) -> None:
        """Listen until the node is deactivated."""
        self._node.subscribe(CameraInfo, self.topic, self._on_info, image_qos(INFO_DEPTH))

    def fitting(self, shape: tuple[int, ...]) -> Camera | None:
        """``camera``, where its images have the ``shape`` (H, W) of this one; else None, and the diagnostics say so.

        A stream that changes its size loses the camera for the images between its first one and its camera_info.
        """
        problems, what = self._node.statistics.problems, f"{self._prefix}image size"
        problems.pop(what, None)
        if self.camera is None or self._has_size(shape[1], shape[0]):
            return self.camera
        problems[what] = (
            f"images are {shape[1]}x{shape[0]}, but {self.topic} is for {self.size_wh[0]}x{self.size_wh[1]}: set "
            "the camera to the calibrated size, calibrate at this one, or correct what camera_info says of roi and "
            f"binning; until then {self._without}"
        )
        self._node.warn(f"{what}: {problems[what]}")
        return None

    def _has_size(self, width: int, height: int) -> bool:
        """Whether camera_info is for images of this size, or says nothing about it. Drivers round what they bin."""
        return 0 in self.size_wh or all(
            size == stated or (binning > 1 and size == stated + 1)
            for size, stated, binning in zip((width, height), self.size_wh, self._binning)
        )

    def _on_info(self, message: CameraInfo) -> None:
        statistics = self._node.statistics
        problem, errors = f"{self._prefix}camera_info", f"{self._prefix}camera_info_errors"
        self._loss.announce(stamp_ns(message.header.stamp))
        part = message.binning_x, message.binning_y, message.roi.x_offset, message.roi.y_offset
        size = message.roi.width or message.width, message.roi.height or message.height
        lens = np.asarray(message.k).tobytes(), np.asarray(message.d).tobytes(), message.distortion_model
        stated = *lens, part, size, message.header.frame_id
        if stated == self._stated:
            if statistics.problems.get(problem):
                statistics.facts[errors] += 1
            return
        self._stated, self.frame_id = stated, message.header.frame_id
        self._binning = max(part[0], 1), max(part[1], 1)
        self.size_wh = size[0] // self._binning[0], size[1] // self._binning[1]
        try:
            self.camera = camera_from_message(message)
            statistics.problems.pop(problem, None)
        except CalibrationError as error:
            self.camera = None
            statistics.problems[problem] = str(error)
            statistics.facts[errors] = statistics.facts.get(errors, 0) + 1
            self._node.get_logger().warning(f"{self._prefix}{error}; until then {self._without}")
        statistics.facts[f"{self._prefix}camera"] = "calibrated" if self.camera else "not calibrated"


class ImageInput:
    """Images of the parameter group ``image``: raw or compressed, handed on as messages and read on demand."""

    def __init__(self, node: HandNode) -> None:
        self._node = node

    def subscribe(self, callback: Callable[[Image | CompressedImage], None], depth: int = 1, topic: str = "image_raw"):
        """Call ``callback`` with every image message until the node is deactivated; returns the subscription."""
        topic = self._node.resolve_topic_name(topic)
        if self._node.config.image.transport == "compressed":
            return self._node.subscribe(CompressedImage, f"{topic}/compressed", callback, image_qos(depth))
        return self._node.subscribe(Image, topic, callback, image_qos(depth))

    def mono(self, message: Image | CompressedImage) -> np.ndarray:
        """(H, W) uint8. Raises ImageError."""
        return image_from_message(message, bits=self._node.config.image.bits)

    def bgr(self, message: Image | CompressedImage) -> np.ndarray:
        """(H, W, 3) uint8. Raises ImageError."""
        return image_from_message(message, color=True, bits=self._node.config.image.bits)

    def is_new(self, message: Image | CompressedImage, loss: FrameLoss | None = None) -> bool:
        """Count an image that has arrived; False, and reported, where it has the stamp of the image before."""
        stamp = message.header.stamp
        if (loss or self._node.statistics.loss).arrive(stamp_ns(stamp)):
            return True
        self._node.skip(
            f"two images of {message.header.frame_id or 'the camera'} have the same stamp: the camera's driver has to "
            "stamp every image with the time at which it was taken"
        )
        return False

    def age_s(self, message: Image | CompressedImage) -> float:
        """Seconds since the image was taken, by the node's clock."""
        return (self._node.get_clock().now().nanoseconds - stamp_ns(message.header.stamp)) * 1e-9


class ImagePairing:
    """Brings together what arrives on two topics: an image, and what another stage says about the image of that stamp.

    Either may come first. A request whose image did not arrive, though a later one did, is lost: it is reported, and
    whoever asked gets no answer.
    """

    def __init__(self, node: HandNode, process: Callable) -> None:
        """``process(request, image message)`` is called for every pair."""
        self._node = node
        self._process = process
        self.clear()

    def clear(self) -> None:
        """Forget everything that waits."""
        self._images: dict[int, Image | CompressedImage] = {}
        self._requests: dict[int, object] = {}

    def add_image(self, message: Image | CompressedImage) -> None:
        """An image has arrived."""
        stamp = stamp_ns(message.header.stamp)
        self._node.statistics.loss.arrive(stamp)
        if self._images and stamp < next(reversed(self._images)):
            self.clear()  # time went back: another run of the stream
        self._images[stamp] = message
        if len(self._images) > PAIRING_DEPTH:
            del self._images[next(iter(self._images))]
        for earlier in [waiting for waiting in self._requests if waiting < stamp]:
            self._give_up(earlier)
        if stamp in self._requests:
            self._process(self._requests.pop(stamp), message)

    def add_request(self, header: Header, request) -> None:
        """Another stage says something about the image with this header."""
        stamp = stamp_ns(header.stamp)
        if stamp in self._images:
            self._process(request, self._images[stamp])
        elif self._images and stamp < next(reversed(self._images)):
            self._node.skip(f"the image that another stage asks about never arrived, or is too old; {LARGE_IMAGES}")
        else:
            self._requests[stamp] = request
            if len(self._requests) > PAIRING_DEPTH:
                self._give_up(next(iter(self._requests)))

    def _give_up(self, stamp: int) -> None:
        del self._requests[stamp]
        self._node.skip(f"the image that another stage asks about never arrived; {LARGE_IMAGES}")


class Deadline:
    """Calls ``callback`` once, some time after ``start``, unless ``stop`` comes first.

    Lives as long as the node, or until ``close``.
    """

    def __init__(self, node: HandNode, callback: Callable[[], None]) -> None:
        self._node, self._callback = node, node.guarded(callback)
        self._timer = node.create_timer(1.0, self._due, clock=node.steady_clock)
        self._timer.cancel()

    def start(self, seconds: float) -> None:
        """Call in ``seconds``; has no effect while a call is due already."""
        if self._timer.is_canceled():
            self._timer.timer_period_ns = int(max(seconds, 1e-4) * 1e9)
            self._timer.reset()

    def stop(self) -> None:
        """Do not call."""
        self._timer.cancel()

    def close(self) -> None:
        """Never call again."""
        self._node.destroy_timer(self._timer)

    def _due(self) -> None:
        self._timer.cancel()
        self._callback()


class Stopwatch:
    """Seconds per step: ``lap`` returns those since the last lap."""

    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()

    def total(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._start

    def lap(self) -> float:
        """Seconds since the last lap, or since the start."""
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        return seconds
