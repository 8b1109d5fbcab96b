"""rig_tracker_node: several calibrated cameras in, one set of hands out, in the frame of the rig.

Which images make one step: frame_groups.py. The rig file has the lenses, so camera_info is not used.
"""

from __future__ import annotations

import re
import time
from functools import partial

import numpy as np
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from hand_tracking_ros.errors import ConfigError, ImageError
from hand_tracking_ros.frame_groups import FrameGroups
from hand_tracking_ros.nodes.base import HandNode, run
from hand_tracking_ros.nodes.conversions import stamp_ns, stamp_s
from hand_tracking_ros.nodes.diagnostics import FrameLoss
from hand_tracking_ros.nodes.hand_size_services import HandSizeServices
from hand_tracking_ros.nodes.image_input import Deadline, ImageInput, Stopwatch
from hand_tracking_ros.nodes.load import LoadControl
from hand_tracking_ros.nodes.models import warm_up_detector, warm_up_estimator
from hand_tracking_ros.nodes.rig_watch import RigWatch
from hand_tracking_ros.nodes.settings import RigTrackerNodeConfig
from hand_tracking_ros.nodes.visuals import HandPublisher
from hand_tracking_ros.rig import Rig, load_rig
from hand_tracking_ros.rig_tracker import RigTracker
from hand_tracking_ros.types import Frame

TOPIC_NAME = re.compile(r"[A-Za-z_]\w*(/[A-Za-z_]\w*)*", re.ASCII)


class RigTrackerNode(HandNode):
    """Wraps RigTracker."""

    def __init__(self, **options) -> None:
        super().__init__("rig_tracker_node", RigTrackerNodeConfig, **options)
        self._tracker: RigTracker | None = None
        self._load: LoadControl | None = None
        self._images = ImageInput(self)
        self._deadline = Deadline(self, self._give_up_waiting)
        self._hand_size = HandSizeServices(self, lambda: self._tracker and self._tracker.filter)

    def configure(self) -> None:
        rig = _load(self.config.rig.file)
        self._tracker = RigTracker(rig, self.config)
        warm_up_detector(self._tracker.detector)
        warm_up_estimator(self._tracker.estimator, self.config.track.max_hands)
        self._load = LoadControl(self, self._tracker)
        self._output = HandPublisher(self)
        self._losses = [FrameLoss() for _ in rig.cameras]
        self._groups: FrameGroups[tuple[np.ndarray, Image | CompressedImage]] = FrameGroups(
            len(rig.cameras), time.monotonic()
        )
        self._set_waiting()

    def activate(self) -> None:
        self._load.activate()
        self._groups.clear(time.monotonic())
        self._watch = RigWatch([camera.name for camera in self._tracker.rig.cameras], self._groups)
        self._observed_s = time.monotonic()
        for index, camera in enumerate(self._tracker.rig.cameras):
            self._images.subscribe(partial(self._on_image, index), topic=f"{camera.name}/image_raw")

    def deactivate(self) -> None:
        self._deadline.stop()
        if self._load is not None:
            self._tracker.reset()
            self._load.reset()
            for loss in self._losses:
                loss.reset()
            self._show({})

    def cleanup(self) -> None:
        if self._load is not None:
            self._load.close()
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
        self._load.observe()
        problems = self._watch.problems(now_s, self._tracker.filter.size)
        for name in problems.keys() - self.statistics.problems.keys():
            self.get_logger().warning(f"{name}: {problems[name]}")
        self._show(problems)

    def _show(self, problems: dict[str, str]) -> None:
        """State the problems of the cameras as they are now."""
        for name in ("rig", *(camera.name for camera in self._tracker.rig.cameras)):
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
        camera = self._tracker.rig.cameras[index]
        height, width = mono.shape
        if (width, height) != (camera.width, camera.height):
            raise ImageError(
                f"camera '{camera.name}' sends images of {width}x{height}, but rig.file is for "
                f"{camera.width}x{camera.height}: set the camera to that size, or calibrate at this one"
            )

    def _give_up_waiting(self) -> None:
        if self._groups.has_news:
            self._step()

    def _step(self) -> None:
        """Track through the images that wait."""
        self._deadline.stop()
        watch = Stopwatch()
        group = self._groups.take()
        frames = [item and Frame(item[0], stamp_s(item[1].header.stamp)) for item in group]
        newest = max((item[1] for item in group if item is not None), key=lambda m: stamp_ns(m.header.stamp))
        if not self._load.takes(newest):
            return
        try:
            hands = self._tracker.step(frames)
        except Exception:
            self._tracker.reset()  # half a step may have been done
            raise
        total_s = watch.lap()
        self._watch.step(self._tracker.disagreement, self._tracker.apart, stamp_s(newest.header.stamp))
        header = Header(stamp=newest.header.stamp, frame_id=self.config.rig.frame_id)
        first = self._tracker.rig.cameras[0]
        self._output.publish(hands, header, width=first.width, height=first.height)
        self.statistics.frame(total=total_s, publish=watch.lap(), age=self._images.age_s(newest))
        self.statistics.facts["cameras"] = sum(item is not None for item in group)
        if group[0] is not None:
            shown = group[0][1]
            self._output.publish_overlay(hands, shown.header, lambda: self._images.bgr(shown))
        self._load.done(watch)


def _load(file: str) -> Rig:
    if not file:
        raise ConfigError("the parameter rig.file is not set; 'hand-tracking rig' makes and checks rig files")
    rig = load_rig(file)
    for camera in rig.cameras:
        if not TOPIC_NAME.fullmatch(camera.name):
            raise ConfigError(
                f"camera '{camera.name}' of {file} makes no topic name: use letters, digits and _, not beginning with "
                "a digit"
            )
    return rig


def main() -> int:
    """Console entry point."""
    return run(RigTrackerNode)


if __name__ == "__main__":
    raise SystemExit(main())
