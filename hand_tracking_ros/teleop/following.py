"""Which hand a robot hand follows, and how fast: joint targets do not jump when a hand comes, goes or changes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hand_tracking_ros.teleop.retargeting import RetargetConfig

LONGEST_STEP_S = 0.1  # images that come later than this do not make up for it


class JointFollower:
    """Follows one hand for as long as it lasts, and leads the robot's joints to what that hand does.

    Call ``choose`` for every image, then ``lead`` where it names a hand. After a gap, or with another hand, targets
    start slowly from where they were. ``target``: joint positions (J,) in radians or metres; None before the first.
    """

    def __init__(self, config: RetargetConfig = RetargetConfig()):
        self.config = config
        self.target: np.ndarray | None = None
        self._hand_id: int | None = None
        self._stamp_s = -np.inf  # of the last image
        self._led_s = -np.inf  # of the last one that moved the target
        self._since_s: float | None = None  # the target follows without a gap; None before the first

    def place(self, joints: np.ndarray) -> None:
        """Where the robot's joints (J,) are: there the first target starts. Later the targets lead."""
        if self._since_s is None and np.isfinite(joints).all():
            self.target = joints

    def choose(self, hands: Mapping[int, bool], stamp_s: float) -> int | None:
        """The id of the hand to follow in the image of ``stamp_s``; None where nothing may move.

        ``hands``: the hands of the wanted side, by id, and whether what is seen of each can be believed. Repeated
        images are no news; time that goes back is a gap.
        """
        last_s, self._stamp_s = self._stamp_s, stamp_s
        if stamp_s < last_s:
            self._led_s = -np.inf
        if stamp_s <= last_s:
            return None
        if self._hand_id not in hands:
            self._hand_id = min((hand_id for hand_id, believed in hands.items() if believed), default=None)
            self._led_s = -np.inf
        return self._hand_id if hands.get(self._hand_id) else None

    def lead(self, joints: np.ndarray, stamp_s: float) -> np.ndarray:
        """The target, moved towards ``joints`` (J,) as far as the speed allows. Raises ValueError when they are not
        finite."""
        if not np.isfinite(joints).all():
            raise ValueError(f"joints that are not finite: {joints}")
        elapsed_s = stamp_s - self._led_s
        if self._since_s is None or elapsed_s > self.config.timeout_s:
            self._since_s, elapsed_s = stamp_s, 0.0
        self._led_s = stamp_s
        share = min((stamp_s - self._since_s) / self.config.ramp_s, 1.0)
        most = self.config.speed * share * min(elapsed_s, LONGEST_STEP_S)
        start = joints if self.target is None else self.target
        self.target = start + np.clip(joints - start, -most, most)
        return self.target
