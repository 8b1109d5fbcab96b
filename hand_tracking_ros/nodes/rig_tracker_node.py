"""rig_tracker_node: several calibrated cameras in, one set of hands out, in the frame of the rig.

Which images make one step: frame_groups.py; where the cameras are: rig_source.py.
"""

from __future__ import annotations

import time
from functools import partial

import numpy as np
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from hand_tracking_ros.errors import HandTrackingError, ImageError
from hand_tracking_ros.frame_groups import FrameGroups
from hand_tracking_ros.nodes.base import HandNode, run
from hand_tracking_ros.nodes.conversions import stamp_ns, stamp_s
from hand_tracking_ros.nodes.diagnostics import FrameLoss
from hand_tracking_ros.nodes.hand_size_services import HandSizeServices
from hand_tracking_ros.nodes.image_input import Deadline, ImageInput, Stopwatch
from hand_tracking_ros.nodes.models import ModelInfoPublisher, warm_up_detector, warm_up_estimator
from hand_tracking_ros.nodes.rig_source import FileRig, TfRig, rig_source
from hand_tracking_ros.nodes.rig_watch import RigWatch
from hand_tracking_ros.nodes.settings import RigTrackerNodeConfig
from hand_tracking_ros.nodes.visuals import HandPublisher
from hand_tracking_ros.rig_tracker import RigTracker
from hand_tracking_ros.types import Frame


class RigTrackerNode(HandNode):
    """Wraps RigTracker."""

    def __init__(self, **options) -> None:
        super().__init__("rig_tracker_node", RigTrackerNodeConfig, **options)
        self._tracker: RigTracker | None = None
        self._images = ImageInput(self)
        self._deadline = Deadline(self, self._give_up_waiting)
        self._hand_size = HandSizeServices(self, lambda: self._tracker and self._tracker.filter)

    def configure(self) -> None:
        self._source: FileRig | TfRig = rig_source(self)
        self._tracker = RigTracker(None, self.config)
        warm_up_detector(self._tracker.detector)
        warm_up_estimator(self._tracker.estimator, self.config.track.max_hands)
        self._model_info = ModelInfoPublisher(self, (self._tracker.detector, self._tracker.estimator))
        self._output = HandPublisher(self)
        self._losses = [FrameLoss() for _ in self._source.names]
        self._groups: FrameGroups[tuple[np.ndarray, Image | CompressedImage]] = FrameGroups(
            len(self._losses), time.monotonic()
        )
        self._set_waiting()

    def activate(self) -> None:
        self._model_info.publish()
        self._groups.clear(time.monotonic())
        self._watch = RigWatch(self._source.names, self._groups, self._source.stated_by)
        self._observed_s = time.monotonic()
        self._source.subscribe(self._losses)
        for index, name in enumerate(self._source.names):
            self._images.subscribe(partial(self._on_image, index), topic=f"{name}/image_raw")

    def deactivate(self) -> None:
        self._deadline.stop()
        if self._tracker is not None:
            self._tracker.reset()
            for loss in self._losses:
                loss.reset()
            self._show({})

    def cleanup(self) -> None:
        if self._tracker is not None:
            self._tracker.detector.backend.close()
            self._tracker.estimator.backend.close()
            self._tracker = None

    def apply(self) -> None:
        self._tracker.reconfigure(self.config)
        self._set_waiting()

    def observe(self) -> None:
        now_s = time.monotonic()
        self.statistics.facts |= self._watch.facts(now_s, now_s - self._observed_s)
        self._observed_s = now_s
        self._hand_size.report()
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
        loss = self._losses[index]
        loss.arrive(stamp_ns(message.header.stamp))
        self.statistics.loss.lost = sum(loss.lost for loss in self._losses)
        mono = self._images.mono(message)
        self._check_size(index, mono)
        now_s = time.monotonic()
        self._groups.add(index, stamp_s(message.header.stamp), (mono, message), now_s)
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
        rig = self._source.rig()
        if rig is not self._tracker.rig:
            self._tracker.place(rig)
        frames = [item and Frame(item[0], stamp_s(item[1].header.stamp)) for item in group]
        newest = max((item[1] for item in group if item is not None), key=lambda m: stamp_ns(m.header.stamp))
        try:
            hands = self._tracker.step(frames)
        except Exception:
            self._tracker.reset()  # half a step may have been done
            raise
        total_s = watch.lap()
        self._watch.step(self._tracker.disagreement, self._tracker.apart, stamp_s(newest.header.stamp))
        header = Header(stamp=newest.header.stamp, frame_id=self._source.frame_id)
        first = rig.cameras[0]
        self._output.publish(hands, header, width=first.width, height=first.height)
        self.statistics.frame(total=total_s, publish=watch.lap(), age=self._images.age_s(newest))
        self.statistics.facts["cameras"] = sum(item is not None for item in group)
        if group[0] is not None:
            shown = group[0][1]
            self._output.publish_overlay(hands, shown.header, lambda: self._images.bgr(shown))


def main() -> int:
    """Console entry point."""
    return run(RigTrackerNode)


if __name__ == "__main__":
    raise SystemExit(main())
