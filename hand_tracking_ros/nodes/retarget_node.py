"""retarget_node: joints of a robot hand that does what a hand does, by dex-retargeting (teleop/retargeting.py).

An example. Takes ``hand_tracker_node/xr_hands``, publishes ``~/joint_targets`` (JointState) for every image in which
the hand that it follows is seen (teleop/following.py). Silence stops the motion: without a hand nothing is published.
The first target is where ``robot_joints`` (JointState) says that the robot is; without it, what the hand does.
"""

from __future__ import annotations

import numpy as np
from sensor_msgs.msg import JointState

from hand_tracking_ros import msg
from hand_tracking_ros.nodes.base import HandNode, result_qos, run
from hand_tracking_ros.nodes.conversions import stamp_s
from hand_tracking_ros.nodes.settings import RetargetNodeConfig
from hand_tracking_ros.outputs.frames import rotation_of
from hand_tracking_ros.outputs.openxr import KEYPOINT_JOINTS, wrist_axes
from hand_tracking_ros.skeleton import Side
from hand_tracking_ros.teleop.following import JointFollower
from hand_tracking_ros.teleop.retargeting import HandRetargeter


class RetargetNode(HandNode):
    """Wraps HandRetargeter and JointFollower."""

    def __init__(self, **options) -> None:
        super().__init__("retarget_node", RetargetNodeConfig, **options)
        self._retargeter: HandRetargeter | None = None
        self._robot: dict[str, float] = {}  # its joints, as far as they are known

    def configure(self) -> None:
        self._retargeter = HandRetargeter(self.config.retarget)
        self._follower = JointFollower(self.config.retarget)
        self._targets = self.publish_to(JointState, "~/joint_targets", result_qos())

    def activate(self) -> None:
        self.subscribe(msg.XrHandArray, "hand_tracker_node/xr_hands", self._on_hands, result_qos())
        self.subscribe(JointState, "robot_joints", self._on_robot, result_qos())

    def cleanup(self) -> None:
        self._retargeter = None
        self._robot.clear()

    def apply(self) -> None:
        self._follower.config = self.config.retarget

    def _on_robot(self, message: JointState) -> None:
        names = self._retargeter.joint_names
        self._robot |= zip(message.name, message.position)
        if all(name in self._robot for name in names):
            self._follower.place(np.array([self._robot[name] for name in names]))

    def _on_hands(self, message: msg.XrHandArray) -> None:
        config, time_s = self.config.retarget, stamp_s(message.header.stamp)
        hands = {hand.id: hand for hand in message.hands if hand.side == Side[config.side.upper()]}
        chosen = self._follower.choose({i: _is_sure(hand, config.least_score) for i, hand in hands.items()}, time_s)
        if chosen is not None:
            joints = self._follower.lead(self._joints(hands[chosen]), time_s)
            names = self._retargeter.joint_names
            self._targets.publish(JointState(header=message.header, name=names, position=joints.tolist()))
        self.statistics.frame()

    def _joints(self, hand: msg.XrHand) -> np.ndarray:
        points_m = np.array([(p.position.x, p.position.y, p.position.z) for p in hand.poses])[KEYPOINT_JOINTS]
        turn = hand.poses[msg.XrHand.WRIST].orientation
        wrist = wrist_axes(rotation_of(np.array([turn.x, turn.y, turn.z, turn.w])))
        return self._retargeter.retarget(points_m, wrist)


def _is_sure(hand: msg.XrHand, least_score: float) -> bool:
    """Whether the hand was seen in this image, and well enough."""
    return hand.source != msg.XrHand.SOURCE_PREDICTED and hand.score >= least_score


def main() -> int:
    """Console entry point."""
    return run(RetargetNode)


if __name__ == "__main__":
    raise SystemExit(main())
