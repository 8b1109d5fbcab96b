"""arm_teleop_node: an arm's target pose from a hand, with clutch, limits and stops (teleop/arm.py). An example.

Takes ``hand_tracker_node/xr_hands`` and ``arm_pose``, where the arm's tool is (PoseStamped in ``target.frame_id``).
Publishes at ``target.rate_hz`` ``~/engaged`` (Bool) and ``~/target_pose`` (PoseStamped): the pose that the arm's
controller should go to. It stands still whenever the node is not engaged; before the first time there is none. The
controller should follow it only while ``~/engaged`` is true and new, and take silence as a stop.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from geometry_msgs.msg import Pose, PoseStamped
from std_msgs.msg import Bool, Header

from hand_tracking_ros import msg
from hand_tracking_ros.nodes.base import HandNode, result_qos, run
from hand_tracking_ros.nodes.conversions import stamp_s
from hand_tracking_ros.nodes.hand_messages import fill_pose
from hand_tracking_ros.nodes.settings import ArmTeleopNodeConfig
from hand_tracking_ros.outputs.frames import quaternions, rotation_of
from hand_tracking_ros.skeleton import Side
from hand_tracking_ros.teleop.arm import ArmPose, ArmTeleop, HandSample


class ArmTeleopNode(HandNode):
    """Wraps ArmTeleop."""

    def __init__(self, **options) -> None:
        super().__init__("arm_teleop_node", ArmTeleopNodeConfig, **options)
        self._teleop: ArmTeleop | None = None
        self._timer = None
        self._hand_id = 0  # the hand that is followed, where several of its side are in view

    def configure(self) -> None:
        self._teleop = ArmTeleop(self.config.arm)
        self._targets = self.publish_to(PoseStamped, "~/target_pose", result_qos())
        self._engaged = self.publish_to(Bool, "~/engaged", result_qos())

    def activate(self) -> None:
        self.subscribe(msg.XrHandArray, "hand_tracker_node/xr_hands", self._on_hands, result_qos())
        self.subscribe(PoseStamped, "arm_pose", self._on_arm, result_qos())
        period_s = 1 / self.config.target.rate_hz
        self._timer = self.create_timer(period_s, self.guarded(self._step), clock=self.steady_clock)

    def deactivate(self) -> None:
        if self._timer is not None:
            self.destroy_timer(self._timer)
            self._timer = None
        if self._teleop is not None and self._teleop.target is not None:
            self._teleop.stop("the node is not active")
            self.guarded(self._publish)()  # after a signal it fails, at any moment: silence must do

    def cleanup(self) -> None:
        self._teleop = None

    def apply(self) -> None:
        self._teleop.reconfigure(self.config.arm)

    def _on_hands(self, message: msg.XrHandArray) -> None:
        hand = self._pick(message.hands)
        sample = None if hand is None else hand_sample(hand, message.header.frame_id, self.config.arm.clutch)
        self._teleop.see(sample, stamp_s(message.header.stamp), time.monotonic())
        self.statistics.frame()

    def _pick(self, hands: Sequence[msg.XrHand]) -> msg.XrHand | None:
        """The hand of the wanted side that was followed last, else the longest tracked one."""
        wanted = [hand for hand in hands if hand.side == Side[self.config.arm.side.upper()]]
        chosen = min(wanted, key=lambda hand: (hand.id != self._hand_id, hand.id), default=None)
        if chosen is not None:
            self._hand_id = chosen.id
        return chosen

    def _on_arm(self, message: PoseStamped) -> None:
        expected = self.config.target.frame_id
        if message.header.frame_id != expected:
            self.skip(f"arm_pose is in '{message.header.frame_id}', not in target.frame_id '{expected}'")
            return
        self._teleop.place(ArmPose(_position(message.pose), _rotation(message.pose)), time.monotonic())

    def _step(self) -> None:
        self._teleop.step(time.monotonic())
        if self._teleop.status != self.statistics.facts.get("teleop"):
            self.statistics.facts["teleop"] = self._teleop.status
            self.get_logger().info(self._teleop.status)
        self._publish()

    def _publish(self) -> None:
        self._engaged.publish(Bool(data=self._teleop.engaged))
        target = self._teleop.target
        if target is not None:
            header = Header(stamp=self.get_clock().now().to_msg(), frame_id=self.config.target.frame_id)
            pose = fill_pose(Pose(), target.position_m, quaternions(target.rotation))
            self._targets.publish(PoseStamped(header=header, pose=pose))


def hand_sample(hand: msg.XrHand, frame_id: str, clutch: str) -> HandSample:
    """What arm.py needs of a hand; a wrist that is no rotation becomes NaN, which stops the arm."""
    wrist = hand.poses[msg.XrHand.WRIST]
    return HandSample(
        frame_id=frame_id,
        id=hand.id,
        position_m=_position(wrist),
        rotation=_rotation(wrist),
        clutch=hand.grasp_strength if clutch == "fist" else hand.pinch_strengths[0].item(),
        palm_m=hand.palm_m,
        score=hand.score,
        seen=hand.source != msg.XrHand.SOURCE_PREDICTED,
    )


def _position(pose: Pose) -> np.ndarray:
    return np.array([pose.position.x, pose.position.y, pose.position.z])


def _rotation(pose: Pose) -> np.ndarray:
    turn = pose.orientation
    try:
        return rotation_of(np.array([turn.x, turn.y, turn.z, turn.w]))
    except ValueError:
        return np.full((3, 3), np.nan)


def main() -> int:
    """Console entry point."""
    return run(ArmTeleopNode)


if __name__ == "__main__":
    raise SystemExit(main())
