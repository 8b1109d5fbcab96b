"""Depth images coming in, each brought to the image, or to the keypoints, that it belongs to."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import numpy as np
from sensor_msgs.msg import CompressedImage, Image

from hand_tracking_ros.errors import ImageError
from hand_tracking_ros.frame_groups import Rhythm
from hand_tracking_ros.msg import HandKeypointsArray
from hand_tracking_ros.nodes.base import HandNode, image_qos
from hand_tracking_ros.nodes.conversions import depth_from_message, stamp_s
from hand_tracking_ros.nodes.image_input import Deadline
from hand_tracking_ros.types import Camera

TOPIC = "depth/image_rect_raw"
KEPT = 4  # depth images that may still find their image

Message = Image | CompressedImage | HandKeypointsArray


class DepthInput:
    """Calls ``process(message, depth message or None)`` for every message about an image, in their order.

    It waits for its depth image, which may arrive before or after it, for ``depth.wait_s``; not at all while
    depth images do not come, or once none is expected that is nearer in time. Without a depth image, or with one that
    cannot be used, tracking goes on, and the diagnostics say so. ``camera``: its name where there are several, with its
    topic below it; ``kept``: depth images that wait for their message.
    """

    def __init__(
        self, node: HandNode, process: Callable[[Message, Image | None], None], camera: str = "", kept: int = KEPT
    ) -> None:
        self._node, self._process, self._kept = node, process, kept
        self._prefix = f"{camera} ".lstrip()
        self._topic = f"{camera}/{TOPIC}".lstrip("/")
        self._image_topic = f"{camera}/image_raw".lstrip("/")
        self._deadline = Deadline(node, self._give_up_waiting)
        self.clear()

    def subscribe(self) -> None:
        """Listen until the node is deactivated."""
        self.clear()
        self._node.statistics.facts |= {f"{self._prefix}depth_{what}": 0 for what in ("used", "missing", "errors")}
        self._node.subscribe(Image, self._topic, self._on_depth, image_qos(self._kept))

    def clear(self) -> None:
        """Forget everything that waits."""
        self._deadline.stop()
        self._waiting: Message | None = None
        self._depths: deque[Image] = deque(maxlen=self._kept)
        self._rhythm = Rhythm()
        self._last_at_s = self._used_at_s = time.monotonic()
        self._error = ""
        self._node.statistics.problems.pop(f"{self._prefix}depth", None)

    def close(self) -> None:
        """End it, where it is not to live as long as the node."""
        self.clear()
        self._deadline.close()

    def add(self, message: Message) -> None:
        """An image, or what was seen in it, has arrived."""
        try:
            self._give_up_waiting()
        finally:  # an image that cannot be read does not take the next one with it
            self._take(message)

    def _take(self, message: Message) -> None:
        if self._is_silent or self._has_come(message):
            self._hand_on(message, self._nearest(message))
        else:
            self._waiting = message
            self._deadline.start(self._node.config.depth.wait_s)

    def read(self, depth: Image | None, shape: tuple[int, ...], camera: Camera | None) -> np.ndarray | None:
        """(H, W) float32 metres for an image of ``shape``; None, counted, where there is nothing to use."""
        if depth is None:
            self._count("missing")
            return None
        try:
            depth_m = depth_from_message(depth)
            if depth_m.shape != shape[:2]:
                raise ImageError(
                    f"depth images are {depth_m.shape[1]}x{depth_m.shape[0]}, but {self._image_topic} is "
                    f"{shape[1]}x{shape[0]}: use the depth that the driver aligns with the image"
                )
            if camera is None:
                raise ImageError("depth is of no use without a calibrated camera_info")
        except ImageError as error:
            self._count("errors")
            self._error = str(error)
            return None
        self._count("used")
        self._error, self._used_at_s = "", time.monotonic()
        return depth_m

    def observe(self) -> None:
        """State in the diagnostics whether depth is of use."""
        problem, where = self._problem(), f"{self._prefix}depth"
        known = self._node.statistics.problems.pop(where, None)
        if problem:
            self._node.statistics.problems[where] = problem
            if known is None:
                self._node.get_logger().warning(f"{where}: {problem}")

    def _count(self, what: str) -> None:
        self._node.statistics.facts[f"{self._prefix}depth_{what}"] += 1

    def _problem(self) -> str:
        now_s, goes_on = time.monotonic(), "tracking goes on without"
        topic = self._node.resolve_topic_name(self._topic)
        if self._is_silent:
            return f"no depth image on {topic} for {now_s - self._last_at_s:.1f} s; {goes_on}"
        if self._error:
            return f"{self._error}; {goes_on}"
        if now_s - self._used_at_s > 2 * self._node.config.depth.silent_s and self._node.statistics.frames:
            return (
                f"depth images come on {topic}, but none with a stamp within depth.sync_s of an image's: synchronise "
                f"the streams, or raise depth.wait_s where depth comes late; {goes_on}"
            )
        return ""

    @property
    def _is_silent(self) -> bool:
        return time.monotonic() - self._last_at_s > self._node.config.depth.silent_s

    def _on_depth(self, message: Image) -> None:
        self._last_at_s = time.monotonic()
        self._depths.append(message)
        self._rhythm.add(stamp_s(message.header.stamp))
        if self._waiting is not None and self._has_come(self._waiting):
            self._give_up_waiting()

    def _has_come(self, message: Message) -> bool:
        """Whether there is a depth image, and none that is nearer in time is expected: the next one would be later."""
        nearest = self._nearest(message)
        if nearest is None or nearest is not self._depths[-1]:
            return nearest is not None
        return stamp_s(message.header.stamp) - stamp_s(nearest.header.stamp) <= self._rhythm.near_s

    def _nearest(self, message: Message) -> Image | None:
        """The depth image nearest in time, if it is near enough."""

        def gap_s(depth: Image) -> float:
            return abs(stamp_s(depth.header.stamp) - stamp_s(message.header.stamp))

        nearest = min(self._depths, key=gap_s, default=None)
        return nearest if nearest is not None and gap_s(nearest) <= self._node.config.depth.sync_s else None

    def _give_up_waiting(self) -> None:
        """Hand on the image that waits, with what there is."""
        message, self._waiting = self._waiting, None
        if message is not None:
            self._hand_on(message, self._nearest(message))

    def _hand_on(self, message: Message, depth: Image | None) -> None:
        self._deadline.stop()
        self._process(message, depth)
