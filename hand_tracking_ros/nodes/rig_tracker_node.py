"""rig_tracker_node: several calibrated cameras in, one set of hands out, in the frame of the rig.

Which images make one step: frame_groups.py; where the cameras are: rig_source.py.
"""

from __future__ import annotations

import time
from functools import partial
from typing import NamedTuple

import numpy as np
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from hand_tracking_ros.errors import ConfigError, HandTrackingError, ImageError
from hand_tracking_ros.frame_groups import FrameGroups
from hand_tracking_ros.nodes.base import HandNode, run
from hand_tracking_ros.nodes.conversions import stamp_s
from hand_tracking_ros.nodes.depth_input import DepthInput
from hand_tracking_ros.nodes.diagnostics import FrameLoss
from hand_tracking_ros.nodes.hand_size_services import HandSizeServices
from hand_tracking_ros.nodes.image_input import Deadline, ImageInput, Stopwatch
from hand_tracking_ros.nodes.load import LoadControl
from hand_tracking_ros.nodes.models import warm_up_detector, warm_up_estimator
from hand_tracking_ros.nodes.rig_source import FileRig, TfRig, names_in, rig_source
from hand_tracking_ros.nodes.settings import RigTrackerNodeConfig
from hand_tracking_ros.nodes.visuals import HandPublisher
from hand_tracking_ros.rig_tracker import RigTracker
from hand_tracking_ros.rig_watch import RigWatch
from hand_tracking_ros.types import Frame


class _Arrived(NamedTuple):
    """An image that waits for those of the other cameras."""

    mono: np.ndarray
    message: Image | CompressedImage
    depth: Image | None

    @property
    def stamp_s(self) -> float:
        return stamp_s(self.message.header.stamp)


class RigTrackerNode(HandNode):
    """Wraps RigTracker."""

    def __init__(self, **options) -> None:
        super().__init__("rig_tracker_node", RigTrackerNodeConfig, **options)
        self._tracker: RigTracker | None = None
        self._load: LoadControl | None = None
        self._images = ImageInput(self)
        self._deadline = Deadline(self, self._give_up_waiting)
        self._depths: dict[int, DepthInput] = {}  # by camera
        self._hand_size = HandSizeServices(self, lambda: self._tracker and self._tracker.filter)

    def configure(self) -> None:
        self._source: FileRig | TfRig = rig_source(self)
        for index in _depth_cameras(self.config, self._source.names):
            self._depths[index] = DepthInput(self, partial(self._add, index), self._source.names[index])
        self._tracker = RigTracker(None, self.config)
        warm_up_detector(self._tracker.detector)
        warm_up_estimator(self._tracker.estimator, self.config.track.max_hands)
        self._load = LoadControl(self, self._tracker)
        self._output = HandPublisher(self)
        self._losses = [FrameLoss() for _ in self._source.names]
        self._groups: FrameGroups[_Arrived] = FrameGroups(len(self._losses), time.monotonic())
        self._set_waiting()

    def activate(self) -> None:
        self._load.activate()
        self._groups.clear(time.monotonic())
        self._watch = RigWatch(self._source.names, self._groups, self._source.stated_by)
        self._observed_s = time.monotonic()
        self._source.subscribe(self._losses)
        for depth in self._depths.values():
            depth.subscribe()
        for index, name in enumerate(self._source.names):
            self._images.subscribe(partial(self._on_image, index), topic=f"{name}/image_raw")

    def deactivate(self) -> None:
        self._deadline.stop()
        for depth in self._depths.values():
            depth.clear()
        if self._load is not None:
            self._tracker.reset()
            self._load.reset()
            for loss in self._losses:
                loss.reset()
            self._show({})

    def cleanup(self) -> None:
        for depth in self._depths.values():
            depth.close()
        self._depths.clear()
        if self._load is not None:
            self._load.close()
        elif self._tracker is not None:
            self._tracker.close()
        self._tracker = self._load = None

    def apply(self) -> None:
        self._tracker.reconfigure(self.config)
        self._load.apply()
        self._set_waiting()

    def observe(self) -> None:
        now_s = time.monotonic()
        self.statistics.facts |= self._watch.facts(now_s, now_s - self._observed_s)
        self._observed_s = now_s
        self._hand_size.report()
        for depth in self._depths.values():
            depth.observe()
        self._load.observe()
        problems = self._watch.problems(now_s, self._tracker.filter.size)
        try:
            self._source.rig()
        except HandTrackingError as error:
            problems["rig"] = str(error)
        for name in problems.keys() - self.statistics.problems.keys():
            self.get_logger().warning(f"{name}: {problems[name]}")
        self._show(problems)

    def _show(self, problems: dict[str, str]) -> None:
        """State the problems of the cameras as they are now."""
        for name in ("rig", *self._source.names):
            self.statistics.problems.pop(name, None)
        self.statistics.problems |= problems

    def _set_waiting(self) -> None:
        config = self.config.rig
        self._groups.sync_s, self._groups.wait_s, self._groups.silent_s = config.sync_s, config.wait_s, config.silent_s

    def _on_image(self, index: int, message: Image | CompressedImage) -> None:
        if not self._images.is_new(message, self._losses[index]):
            return
        self.statistics.loss.lost = sum(loss.lost for loss in self._losses)
        if index in self._depths:
            self._depths[index].add(message)
        else:
            self._add(index, message)

    def _add(self, index: int, message: Image | CompressedImage, depth: Image | None = None) -> None:
        arrived = _Arrived(self._images.mono(message), message, depth)
        self._check_size(index, arrived.mono)
        now_s = time.monotonic()
        try:
            if self._groups.pushes_out(index, arrived.stamp_s, now_s):
                self._step()
        finally:
            self._groups.add(index, arrived.stamp_s, arrived, now_s)
        if self._groups.is_complete(now_s):
            self._step()
        elif self._groups.has_news:
            self._deadline.start(self._groups.wait_s)

    def _check_size(self, index: int, mono: np.ndarray) -> None:
        size, wanted = mono.shape[::-1], self._source.size_wh(index)
        if wanted not in (size, None):
            raise ImageError(
                f"camera '{self._source.names[index]}' sends images of {size[0]}x{size[1]}, but its calibration is for "
                f"{wanted[0]}x{wanted[1]}: set the camera to that size, or calibrate at this one"
            )

    def _give_up_waiting(self) -> None:
        if self._groups.has_news:
            self._step()

    def _step(self) -> None:
        """Track through the images that wait."""
        self._deadline.stop()
        watch = Stopwatch()
        group = self._groups.take()
        newest = max((item for item in group if item is not None), key=lambda item: item.stamp_s).message
        if not self._load.takes(newest):
            return
        rig = self._source.rig()
        if rig is not self._tracker.rig:
            self._tracker.place(rig)
        frames = [item and self._frame(index, item) for index, item in enumerate(group)]
        convert_s = watch.lap()
        try:
            hands = self._tracker.step(frames)
        except Exception:
            self._tracker.reset()  # half a step may have been done
            raise
        total_s = watch.lap()
        tracker = self._tracker
        self._watch.step(tracker.disagreement, tracker.apart, tracker.lags_s, stamp_s(newest.header.stamp))
        header = Header(stamp=newest.header.stamp, frame_id=self._source.frame_id)
        first = rig.cameras[0]
        self._output.publish(hands, header, width=first.width, height=first.height)
        self.statistics.frame(convert=convert_s, total=total_s, publish=watch.lap(), age=self._images.age_s(newest))
        self.statistics.facts["cameras"] = sum(item is not None for item in group)
        if group[0] is not None:
            shown = group[0].message
            self._output.publish_overlay(hands, shown.header, lambda: self._images.bgr(shown))
        self._load.done(watch)

    def _frame(self, index: int, arrived: _Arrived) -> Frame:
        depth_m = None
        if index in self._depths:
            lens = self._tracker.rig.cameras[index].camera
            depth_m = self._depths[index].read(arrived.depth, arrived.mono.shape, lens)
        return Frame(arrived.mono, arrived.stamp_s, depth_m=depth_m)


def _depth_cameras(config: RigTrackerNodeConfig, names: list[str]) -> list[int]:
    """The cameras that have depth images. Raises ConfigError."""
    wanted = names_in(config.rig.depth)
    unknown = [name for name in wanted if name not in names]
    if unknown:
        raise ConfigError(f"rig.depth names '{unknown[0]}', but the cameras of the rig are {', '.join(names)}")
    if wanted and not config.depth.enabled:
        raise ConfigError("rig.depth names cameras, but depth.enabled is false: set it, or leave rig.depth empty")
    return [names.index(name) for name in wanted or names] if config.depth.enabled else []


def main() -> int:
    """Console entry point."""
    return run(RigTrackerNode)


if __name__ == "__main__":
    raise SystemExit(main())
