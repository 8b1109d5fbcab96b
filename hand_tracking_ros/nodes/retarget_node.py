"""retarget_node: joints of a robot hand that does what a hand does, by dex-retargeting (teleop/retargeting.py).

An example. Takes ``hand_tracker_node/xr_hands``, publishes ``~/joint_targets`` (JointState) for every image in which
the wanted hand is seen. Silence stops the motion: without a hand nothing is published.
"""

from __future__ import annotations

import numpy as np
from sensor_msgs.msg import JointState

from hand_tracking_ros import msg
from hand_tracking_ros.nodes.base import HandNode, result_qos, run
from hand_tracking_ros.nodes.settings import RetargetNodeConfig
from hand_tracking_ros.outputs.frames import rotation_of
from hand_tracking_ros.outputs.openxr import KEYPOINT_JOINTS, wrist_axes
from hand_tracking_ros.skeleton import Side
from hand_tracking_ros.teleop.retargeting import HandRetargeter


class RetargetNode(HandNode):
    """Wraps HandRetargeter."""

    def __init__(self, **options) -> None:
        super().__init__("retarget_node", RetargetNodeConfig, **options)
        self._retargeter: HandRetargeter | None = None

    def configure(self) -> None:
        self._retargeter = HandRetargeter(self.config.retarget)
        self._targets = self.publish_to(JointState, "~/joint_targets", result_qos())

    def activate(self) -> None:
        self.subscribe(msg.XrHandArray, "hand_tracker_node/xr_hands", self._on_hands, result_qos())

    def cleanup(self) -> None:
        self._retargeter = None

    def _on_hands(self, message: msg.XrHandArray) -> None:
        side = Side[self.config.retarget.side.upper()]
        hands = [h for h in message.hands if h.side == side and h.source != msg.XrHand.SOURCE_PREDICTED]
        if hands:
            hand = min(hands, key=lambda h: h.id)
            points_m = np.array([(p.position.x, p.position.y, p.position.z) for p in hand.poses])[KEYPOINT_JOINTS]
            turn = hand.poses[msg.XrHand.WRIST].orientation
            wrist = wrist_axes(rotation_of(np.array([turn.x, turn.y, turn.z, turn.w])))
            joints = self._retargeter.retarget(points_m, wrist)
            names = self._retargeter.joint_names
            self._targets.publish(JointState(header=message.header, name=names, position=joints.tolist()))
        self.statistics.frame()


def main() -> int:
    """Console entry point."""
    return run(RetargetNode)


if __name__ == "__main__":
    raise SystemExit(main())
