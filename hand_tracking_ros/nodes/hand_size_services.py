"""Services that keep, or forget, the measured size of the user's hands."""

from __future__ import annotations

from collections.abc import Callable

from std_srvs.srv import Trigger

from hand_tracking_ros.errors import ConfigError
from hand_tracking_ros.hand_size import HandSize, save_hand_size
from hand_tracking_ros.nodes.base import HandNode
from hand_tracking_ros.rig_watch import strange_palm
from hand_tracking_ros.smoothing import HandFilter

PROBLEM, DEPTH = "hand size", "depth of hands"
ONE_CAMERA = (
    "check the focal length in camera_info, that depth images are aligned with the image and in the right unit, and "
    "pose.size_file, where it is set"
)


class HandSizeServices:
    """``~/save_hand_size`` and ``~/reset_hand_size`` of a node whose filter ``find_filter`` returns, None before
    it is configured. ``check``: what to look at when that size is strange; empty where others say so."""

    def __init__(self, node: HandNode, find_filter: Callable[[], HandFilter | None], check: str = "") -> None:
        self._node, self._find_filter, self._check = node, find_filter, check
        self._refused = 0
        node.create_service(Trigger, "~/save_hand_size", self._save)
        node.create_service(Trigger, "~/reset_hand_size", self._reset)

    def report(self) -> None:
        """The size for the diagnostics, and whether it can be believed."""
        hand_filter = self._find_filter()
        if hand_filter is None:
            return
        statistics, size = self._node.statistics, hand_filter.size
        statistics.facts |= hand_size_facts(size)
        known, strange = statistics.problems.pop(PROBLEM, None), strange_palm(size)
        self._report_depth(hand_filter.depths_refused)
        if self._check and strange:
            statistics.problems[PROBLEM] = f"{strange}, {self._check}"
            if known is None:
                self._node.get_logger().warning(f"{PROBLEM}: {statistics.problems[PROBLEM]}")

    def _report_depth(self, refused: int) -> None:
        """Say when depth was left out since the last report because a hand cannot be there and be of its size."""
        statistics, new, self._refused = self._node.statistics, refused - self._refused, refused
        if refused:
            statistics.facts["depth_refused"] = refused
        statistics.problems.pop(DEPTH, None)
        if new > 0:
            statistics.problems[DEPTH] = (
                f"depth of {new} hands left out: by the size of the hand it is much nearer or further away; check the "
                "unit of depth images, their alignment, and what the driver fills holes with"
            )
            self._node.warn(f"{DEPTH}: {statistics.problems[DEPTH]}")

    def clear(self) -> None:
        """Report nothing while the node is not active."""
        self._node.statistics.problems.pop(PROBLEM, None)

    def _save(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            response.message, response.success = self._saved(), True
        except ConfigError as error:
            response.message, response.success = str(error), False
        return response

    def _saved(self) -> str:
        """What was saved. Raises ConfigError when nothing was."""
        size = self._ready_filter().size
        file = self._node.get_parameter("hand_size.file").value or self._node.config.pose.size_file
        if not size.is_measured:
            raise ConfigError(
                f"the size of the hands is not measured so far (palm {size.palm_m * 1e3:.1f} mm, +- "
                f"{size.sigma:.1%}): it is while two cameras, or a depth image, see a hand for a second or two"
            )
        if not file:
            raise ConfigError("no file to write to: set the parameter hand_size.file")
        save_hand_size(file, size)
        return f"palm {size.palm_m * 1e3:.1f} mm, +- {size.sigma:.1%}, written to {file}"

    def _reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            self._ready_filter().forget_size()
            response.message, response.success = "the size of the hands is assumed again, and will be measured", True
        except ConfigError as error:
            response.message, response.success = str(error), False
        return response

    def _ready_filter(self) -> HandFilter:
        hand_filter = self._find_filter()
        if hand_filter is None:
            raise ConfigError("the node is not configured")
        return hand_filter


def hand_size_facts(size: HandSize) -> dict[str, object]:
    """What the diagnostics say about the size of the hands."""
    return {"palm_m": size.palm_m, "palm_sigma": size.sigma, "hand_size": "measured" if size.is_measured else "assumed"}
