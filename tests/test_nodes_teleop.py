"""The teleoperation examples as nodes: the arm in a process of its own, the robot hand with and without its package."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
pytest.importorskip("hand_tracking_ros.msg", reason="the package was installed without its ROS messages")

from geometry_msgs.msg import Pose, PoseStamped
from ros_graph import node_command, process
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Header

from hand_tracking_ros.geometry import Box
from hand_tracking_ros.kinematics import LIMITS, HandPose, exp_rotation
from hand_tracking_ros.msg import XrHand, XrHandArray
from hand_tracking_ros.nodes.arm_teleop_node import hand_sample
from hand_tracking_ros.nodes.base import result_qos
from hand_tracking_ros.nodes.conversions import time_from_ns
from hand_tracking_ros.nodes.hand_messages import fill_pose, fill_xr_hand
from hand_tracking_ros.outputs.frames import wrist_rotation
from hand_tracking_ros.outputs.gestures import HandSigns
from hand_tracking_ros.outputs.openxr import xr_joints
from hand_tracking_ros.outputs.urdf import hand_urdf
from hand_tracking_ros.skeleton import TIPS, Side
from hand_tracking_ros.types import Hand, Scale, Source

START = np.array([0.4, 0.1, 0.3])


def xr_hand(pose: HandPose, grasp: float, hand_id: int = 5) -> XrHand:
    values = np.zeros((21, 2)), np.ones(21)
    box = Box((100.0, 100.0), (50.0, 50.0))
    facts = {"scale": Scale.ASSUMED, "points_3d": pose.points(), "pose": pose}
    hand = Hand(hand_id, pose.side, 0.9, 0.9, Source.PROPAGATED, box, *values, **facts)
    return fill_xr_hand(XrHand(), hand, xr_joints(pose), HandSigns(np.zeros(4), grasp))


class Operator:
    """Publishes hands and the arm's pose as a tracker and a robot would, and hears what the node answers."""

    def __init__(self, ros, namespace: str) -> None:
        self.ros = ros
        self.targets = ros.listen(PoseStamped, f"{namespace}/arm_teleop_node/target_pose")
        self.engaged = ros.listen(Bool, f"{namespace}/arm_teleop_node/engaged")
        self.hands = ros.publisher(XrHandArray, f"{namespace}/hand_tracker_node/xr_hands", result_qos())
        self.arm = ros.publisher(PoseStamped, f"{namespace}/arm_pose", result_qos())
        self.wrist_m = np.array([0.0, 0.0, 0.6])

    def header(self, frame_id: str) -> Header:
        return Header(stamp=self.ros.observer.get_clock().now().to_msg(), frame_id=frame_id)

    def show(self, grasp: float | None) -> bool:
        """One image with the hand (None: without), and the arm's pose; whether the node is engaged."""
        pose = HandPose(Side.RIGHT, np.eye(3), self.wrist_m, np.zeros(20), 0.088)
        hands = [] if grasp is None else [xr_hand(pose, grasp)]
        self.hands.publish(XrHandArray(header=self.header("eye"), hands=hands))
        arm = fill_pose(Pose(), START, np.array([0.0, 0.0, 0.0, 1.0]))
        self.arm.publish(PoseStamped(header=self.header("base_link"), pose=arm))
        self.ros.spin(0.02)
        return bool(self.engaged) and self.engaged[-1].data

    def engages(self) -> bool:
        """Open the clutch for a while, then close it: the node may hear hands later than it is heard itself."""
        for _ in range(10):
            self.show(0.0)
        return any(self.show(1.0) for _ in range(25))

    def place(self) -> np.ndarray:
        at = self.targets[-1].pose.position
        return np.array([at.x, at.y, at.z])


def test_an_arm_follows_a_fist_and_stops_without_a_hand(ros, tmp_path):
    """Two processes: the node, and this one, which is tracker and robot."""
    parameters = {"autostart": True, "arm.timeout_s": 2.0, "arm.arm_timeout_s": 2.0, "arm.hand_speed_m_s": 50.0}
    with process(node_command("arm_teleop_node", "/arm", parameters), tmp_path / "arm.log") as child:
        operator = Operator(ros, "/arm")
        ros.until(lambda: not operator.show(0.0) and bool(operator.engaged), "the node to answer")
        ros.until(lambda: not operator.show(0.0) and len(operator.engaged) > 10, "an open clutch to be seen")
        assert operator.targets == []
        ros.until(operator.engages, "the clutch to engage")
        ros.until(lambda: bool(operator.targets), "a target")
        np.testing.assert_allclose(operator.place(), START, atol=1e-9)
        assert operator.targets[0].header.frame_id == "base_link"
        operator.wrist_m = operator.wrist_m + np.array([0.0, 0.0, 0.05])  # away from the camera: the arm's x
        ros.until(lambda: operator.show(1.0) and operator.place()[0] > START[0] + 0.049, "the arm to follow")
        np.testing.assert_allclose(operator.place(), START + [0.05, 0, 0], atol=1e-3)

        ros.until(lambda: not operator.show(None), "the empty array to stop the arm")
        held = operator.place()
        count = len(operator.targets)
        operator.wrist_m = operator.wrist_m + 0.05
        ros.until(lambda: not operator.show(1.0) and len(operator.targets) > count + 20, "held targets")
        np.testing.assert_array_equal(operator.place(), held)

        ros.until(lambda: not operator.show(0.0) and len(operator.targets) > count + 40, "an open clutch to be seen")
        ros.until(lambda: operator.show(1.0), "the clutch to engage again")
        ros.until(lambda: not operator.engaged[-1].data, "silence to stop the arm")  # until() only listens
        assert child.poll() is None
    log = (tmp_path / "arm.log").read_text()
    assert "engaged" in log and "the hand is gone" in log and "no news of the hand for 2.0 s" in log
    assert child.returncode == 0


def test_a_signal_just_before_the_last_message_does_not_disturb_the_end():
    """Ctrl-C ends the ROS context from another thread, at any moment while the node closes."""
    script = """
import rclpy
from hand_tracking_ros.nodes.arm_teleop_node import ArmTeleopNode
from hand_tracking_ros.teleop.arm import ArmPose
import numpy as np

rclpy.init()
node = ArmTeleopNode()
assert node.bring_up()
node._teleop.target = ArmPose(np.zeros(3), np.eye(3))
publish = node._publish

def interrupted():
    rclpy.shutdown()
    publish()

node._publish = interrupted
node.close()
print("closed")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "closed" in done.stdout, done.stderr


def test_an_arm_pose_in_another_frame_is_refused(ros, capfd):
    node = ros.node("arm_teleop_node", "/frame")
    assert node.bring_up()
    arm = ros.publisher(PoseStamped, "/frame/arm_pose", result_qos())
    arm.publish(PoseStamped(header=Header(frame_id="world")))
    ros.until(lambda: sum(node.statistics.skipped.values()) == 1, "the pose to be counted")
    assert "arm_pose is in 'world', not in target.frame_id 'base_link'" in capfd.readouterr().err


def test_the_wrong_limits_fail_to_configure(ros, capfd):
    node = ros.node("arm_teleop_node", "/limits", arm__low_z=0.9)
    assert not node.bring_up()
    assert "low_z 0.9 must be less than high_z 0.7" in capfd.readouterr().err


def test_retargeting_without_a_configuration_fails_to_configure_and_says_what_is_missing(ros, capfd):
    node = ros.node("retarget_node", "/missing")
    assert not node.bring_up()
    log = capfd.readouterr().err
    assert "pip install '.[retarget]'" in log or "name a YAML of dex-retargeting" in log


def write_own_hand(folder, side: Side, kind: str) -> str:
    """A configuration whose robot hand is this package's URDF, so that the right answer is known; its path."""
    name = side.name.lower()
    (folder / "hand.urdf").write_text(hand_urdf(side, 0.088))
    tips = [f"{name}_{finger}_tip" for finger in ("thumb", "index", "middle", "ring", "little")]
    lines = ["retargeting:", f"  type: {kind}", "  urdf_path: hand.urdf", "  low_pass_alpha: 1.0"]
    if kind == "vector":
        lines += [f"  target_origin_link_names: {[f'{name}_hand'] * 5}", f"  target_task_link_names: {tips}"]
        lines += [f"  target_link_human_indices: {[[0] * 5, list(TIPS)]}"]
    else:
        lines += [f"  target_link_names: {tips}", f"  target_link_human_indices: {list(TIPS)}"]
    (folder / "hand.yml").write_text("\n".join(lines).replace("'", '"'))
    return str(folder / "hand.yml")


@pytest.mark.parametrize("kind", ["vector", "position"])
@pytest.mark.parametrize("side", [Side.LEFT, Side.RIGHT])
def test_a_robot_hand_like_ours_reaches_our_fingertips(tmp_path, side, kind):
    pytest.importorskip("dex_retargeting", reason="needs dex-retargeting: pip install '.[retarget]'")
    from hand_tracking_ros.teleop.retargeting import HandRetargeter, RetargetConfig

    config = RetargetConfig(side.name.lower(), write_own_hand(tmp_path, side, kind), "", "wrist")
    retargeter = HandRetargeter(config)
    rng = np.random.default_rng(3)
    middle = LIMITS.mean(axis=1)
    angles = middle + 0.3 * (rng.uniform(LIMITS[:, 0], LIMITS[:, 1]) - middle)
    pose = HandPose(side, exp_rotation(np.array([0.4, -0.9, 0.2])), np.array([0.1, 0.2, 0.6]), angles, 0.088)
    for _ in range(30):
        joints = retargeter.retarget(pose.points(), wrist_rotation(pose))
    from test_outputs import forward_kinematics

    links = forward_kinematics(hand_urdf(side, 0.088), dict(zip(retargeter.joint_names, joints)))
    wanted = (pose.points() - pose.position_m) @ wrist_rotation(pose)
    for finger, tip in zip(("thumb", "index", "middle", "ring", "little"), TIPS):
        reached = links[f"{side.name.lower()}_{finger}_tip"][:3, 3]
        assert np.linalg.norm(reached - wanted[tip]) < 0.006, finger  # it weighs small errors against small steps


@pytest.mark.parametrize("side", [Side.LEFT, Side.RIGHT])
def test_the_axes_named_dex_are_those_of_the_package(side):
    constants = pytest.importorskip("dex_retargeting.constants", reason="needs dex-retargeting")
    from hand_tracking_ros.teleop.retargeting import ROBOT_AXES

    # The frame that its examples estimate: x back to the wrist, z towards the thumb, y completes them.
    towards_thumb = 1.0 if side == Side.RIGHT else -1.0
    back, thumb = np.array([-1.0, 0, 0]), np.array([0, towards_thumb, 0])
    estimated = np.column_stack([back, np.cross(thumb, back), thumb])
    turn = constants.OPERATOR2MANO[constants.HandType[side.name.lower()]]
    np.testing.assert_array_equal(estimated @ turn, ROBOT_AXES["dex"])


class CopyingRetargeter:
    """Stands in for dex-retargeting, which is not everywhere: the robot's joints are the wrist's place."""

    joint_names = ("x", "y")

    def __init__(self, config) -> None:
        pass

    def retarget(self, points_m: np.ndarray, wrist: np.ndarray) -> np.ndarray:
        return points_m[0, :2]


def test_the_retargeting_node_follows_one_sure_hand_without_a_jump(ros, monkeypatch):
    monkeypatch.setattr("hand_tracking_ros.nodes.retarget_node.HandRetargeter", CopyingRetargeter)
    node = ros.node("retarget_node", "/follow", retarget__speed=0.3, retarget__ramp_s=0.1)
    assert node.bring_up()
    targets = ros.listen(JointState, "/follow/retarget_node/joint_targets")
    hands = ros.publisher(XrHandArray, "/follow/hand_tracker_node/xr_hands", result_qos())
    robot = ros.publisher(JointState, "/follow/robot_joints", result_qos())
    stamp = iter(range(1, 1000))

    def show(*places: tuple[int, float], score: float = 0.9) -> None:
        """The next image, with hands (id, x in m)."""
        seen = [
            xr_hand(HandPose(Side.RIGHT, np.eye(3), np.array([x, 0, 0.6]), np.zeros(20), 0.088), 0, i)
            for i, x in places
        ]
        for hand in seen:
            hand.score = score
        frames = node.statistics.frames
        hands.publish(XrHandArray(header=Header(stamp=time_from_ns(next(stamp) * 33_000_000)), hands=seen))
        ros.until(lambda: node.statistics.frames > frames, "the image to be taken")
        ros.spin(0.02)

    robot.publish(JointState(name=["x", "z"], position=[0.1, 9.0]))
    robot.publish(JointState(name=["y"], position=[0.0]))
    ros.until(lambda: node._follower.target is not None, "where the robot is")
    show((5, 0.1))
    for _ in range(3):
        show((2, 0.5), (5, 0.1))  # another hand of that side
    show((5, 0.3), score=0.4)
    assert [list(target.position) for target in targets] == [[0.1, 0.0]] * 4
    for _ in range(10):
        show((2, 0.5))
    steps = np.diff([target.position[0] for target in targets])
    assert steps[3] == 0 and 0 < steps.max() <= 0.3 * 0.033 + 1e-9
    assert 0.12 < targets[-1].position[0] < 0.2 and list(targets[-1].name) == ["x", "y"]


def test_the_palm_length_that_metres_count_on_reaches_the_arm():
    pose = HandPose(Side.RIGHT, np.eye(3), np.array([0, 0, 0.6]), np.zeros(20), 0.093)
    assert hand_sample(xr_hand(pose, 1.0), "eye", "fist").palm_m == pytest.approx(0.093)


def test_the_retargeting_node_publishes_the_robot_hands_joints(ros, tmp_path):
    pytest.importorskip("dex_retargeting", reason="needs dex-retargeting: pip install '.[retarget]'")
    path = write_own_hand(tmp_path, Side.RIGHT, "vector")
    node = ros.node("retarget_node", "/robot_hand", retarget__config=path, retarget__frame="wrist")
    assert node.bring_up()
    targets = ros.listen(JointState, "/robot_hand/retarget_node/joint_targets")
    hands = ros.publisher(XrHandArray, "/robot_hand/hand_tracker_node/xr_hands", result_qos())
    pose = HandPose(Side.RIGHT, np.eye(3), np.array([0, 0, 0.6]), LIMITS.mean(axis=1), 0.088)
    header = Header(frame_id="eye", stamp=time_from_ns(1))
    message = XrHandArray(header=header, hands=[xr_hand(pose, 0.5)])
    hands.publish(message)
    ros.until(lambda: bool(targets), "joint targets")
    assert targets[0].header == message.header
    assert len(targets[0].name) == len(targets[0].position) == 20 and "right_index_flexion" in targets[0].name
