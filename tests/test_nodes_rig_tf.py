"""rig_tracker_node with lenses from camera_info and places from tf: what it waits for, and whose frame hands are in."""

from __future__ import annotations

import importlib.util
from contextlib import ExitStack

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from blob_models import draw
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import TransformStamped
from ros_graph import diagnostics, node_command, process
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from hand_tracking_ros.msg import HandArray
from hand_tracking_ros.nodes.conversions import image_to_message, stamp_ns, time_from_ns
from hand_tracking_ros.nodes.hand_messages import hands_from_message
from hand_tracking_ros.nodes.tf_messages import tf_qos

HAS_TF2 = importlib.util.find_spec("tf2_msgs") is not None
needs_tf2 = pytest.mark.skipif(not HAS_TF2, reason="needs tf2_msgs, which has no wheel")
MS = 1_000_000
BASE_M = 0.1  # the right camera stands to the right of the left one
EYE_M = (1.0, 0.0, 0.5)  # the left camera in base_link
OPTICAL = (-0.5, 0.5, -0.5, 0.5)  # an optical frame below a frame with x forward
STILL = (0.0, 0.0, 0.0, 1.0)
K = [500.0, 0.0, 319.5, 0.0, 500.0, 239.5, 0.0, 0.0, 1.0]
HEAD = ("base_link", "head", EYE_M, STILL)
LEFT = ("head", "left_eye", (0.0, 0.0, 0.0), OPTICAL)
RIGHT = ("head", "right_eye", (0.0, -BASE_M, 0.0), OPTICAL)


def link(parent: str, child: str, at, turn) -> TransformStamped:
    message = TransformStamped(header=Header(frame_id=parent), child_frame_id=child)
    place, rotation = message.transform.translation, message.transform.rotation
    place.x, place.y, place.z = at
    rotation.x, rotation.y, rotation.z, rotation.w = turn
    return message


class Robot:
    """What the driver of two cameras publishes, piece by piece, around a rig_tracker_node in ``namespace``."""

    def __init__(self, ros, namespace: str) -> None:
        from tf2_msgs.msg import TFMessage

        self.ros, self.type, self.count, self.namespace = ros, TFMessage, 0, namespace
        self.hands = ros.listen(HandArray, f"{namespace}/hands")
        self.eyes = ("left", "right")
        self.images, self.infos = (
            [ros.publisher(kind, f"{namespace}/{eye}/{topic}") for eye in self.eyes]
            for kind, topic in ((Image, "image_raw"), (CameraInfo, "camera_info"))
        )
        self.static = ros.publisher(TFMessage, "/tf_static", tf_qos(static=True))
        self.moving = ros.publisher(TFMessage, "/tf", tf_qos())

    def inform(self, *cameras: int, k=tuple(K), size=(640, 480), binning: int = 0) -> None:
        for camera in cameras:
            header = Header(stamp=time_from_ns(1), frame_id=f"{self.eyes[camera]}_eye")
            self.infos[camera].publish(
                CameraInfo(header=header, width=size[0], height=size[1], k=k, binning_x=binning, binning_y=binning)
            )

    def place(self, *links, moving: bool = False) -> None:
        message = self.type(transforms=[link(*values) for values in links])
        (self.moving if moving else self.static).publish(message)

    def show(self) -> None:
        """The next pair of images, of a disc 0.5 m before the cameras."""
        self.count += 1
        for camera, publisher in enumerate(self.images):
            header = Header(stamp=time_from_ns(self.count * 33 * MS), frame_id=f"{self.eyes[camera]}_eye")
            image = draw((330 - 500 * BASE_M * camera / 0.5, 240))
            publisher.publish(image_to_message(image, header))

    def answer(self, count: int = 1) -> HandArray:
        """The answer to the last of ``count`` pairs."""
        for _ in range(count):
            self.show()
            self.ros.until(self._answered, "hands")
        return self.hands[-1]

    def _answered(self) -> bool:
        return bool(self.hands) and stamp_ns(self.hands[-1].header.stamp) == self.count * 33 * MS


def bench(ros, models, namespace: str, **parameters):
    values = {**models, "rig.extrinsics": "tf", "rig.cameras": "left, right", "rig.wait_s": 1.0, **parameters}
    node = ros.node("rig_tracker_node", namespace, **values)
    assert node.bring_up()
    return node, Robot(ros, namespace)


def says(node) -> str:
    """What is wrong with the rig at the moment."""
    node.observe()
    return node.statistics.problems.get("rig", "")


def shown(ros, node, robot, text: str) -> None:
    """Images go in; the node skips them and says ``text``."""
    before = int(diagnostics(node)["skipped"])
    robot.show()
    ros.until(lambda: int(diagnostics(node)["skipped"]) > before, "the images to be skipped")
    assert text in says(node) and text in diagnostics(node)["message"]
    assert any(key.startswith("skipped: waiting for where the cameras are") for key in diagnostics(node))


@needs_tf2
def test_the_node_waits_and_names_what_is_missing_then_tracks_in_the_frame_asked_for(ros, models):
    node, robot = bench(ros, models, "/tf_base", **{"rig.frame_id": "base_link"})
    shown(
        ros, node, robot, "no camera_info on /tf_base/left/camera_info; camera 'right': no camera_info on /tf_base/ri"
    )
    robot.inform(0, 1)
    ros.until(lambda: "frame 'left_eye' is not in tf; known: none so far" in says(node), "lenses to be known")
    robot.place(LEFT, RIGHT)
    ros.until(lambda: "known: head, left_eye, right_eye" in says(node), "places below the head to be known")
    shown(ros, node, robot, "camera 'left': frame 'base_link' is not in tf")
    assert robot.hands == [] and diagnostics(node)["extrinsics"] == "tf, not known yet"

    robot.place(HEAD)
    ros.until(lambda: not says(node), "the places")
    assert diagnostics(node)["extrinsics"] == "tf, in base_link"
    answer = robot.answer(12)
    assert answer.header.frame_id == "base_link" and (answer.image_width, answer.image_height) == (640, 480)
    (hand,) = hands_from_message(answer)
    assert hand.points_3d[9] == pytest.approx([EYE_M[0] + 0.5, EYE_M[1], EYE_M[2]], abs=0.1)  # ahead is x here
    np.testing.assert_allclose(hand.pose.position_m, hand.points_3d[0], atol=1e-3)
    assert node._tracker.rig.cameras[1].project(hand.points_3d)[9] == pytest.approx([230, 240], abs=15)


@needs_tf2
def test_without_a_frame_hands_are_in_that_of_the_first_camera_as_with_a_file(ros, models):
    node, robot = bench(ros, models, "/tf_first")
    robot.inform(0)
    robot.inform(1, k=[1000.0, 0.0, 639.5, 0.0, 1000.0, 479.5, 0.0, 0.0, 1.0], size=(1280, 960), binning=2)
    robot.place(HEAD, LEFT, RIGHT)
    ros.until(lambda: not says(node), "the places")
    left, right = node._source.rig().cameras
    assert left.camera == right.camera and (right.width, right.height) == (640, 480)
    np.testing.assert_array_equal(left.rotation, np.eye(3))
    np.testing.assert_allclose(right.translation_m, [-BASE_M, 0, 0], atol=1e-9)
    answer = robot.answer(12)
    assert answer.header.frame_id == "left_eye"
    (hand,) = hands_from_message(answer)
    assert hand.points_3d[:, 2].mean() == pytest.approx(0.5, abs=0.1)

    node.trigger_deactivate()
    node.trigger_activate()
    assert "no camera_info" in says(node)  # it starts afresh: the cameras may be other ones
    ros.until(lambda: "left_eye" in node._source._tree.frames, "the latched places, again")
    ros.until(lambda: robot.inform(0, 1) or not says(node), "the places")  # as drivers do, with every image
    assert len(robot.answer().hands) == 1


@needs_tf2
def test_cameras_on_a_head_that_moves_are_followed_and_hands_live_on(ros, models):
    node, robot = bench(ros, models, "/tf_moving", **{"rig.frame_id": "base_link"})
    robot.inform(0, 1)
    robot.place(LEFT, RIGHT)
    robot.place(HEAD, moving=True)
    ros.until(lambda: not says(node), "the places")
    assert diagnostics(node)["extrinsics"] == "tf, in base_link, moving: head"
    (before,) = hands_from_message(robot.answer(8))
    robot.place(("base_link", "head", (0.0, 0.0, 2.5), STILL), ("base_link", "arm", (0, 0, 0.0), STILL), moving=True)
    ros.until(lambda: node._source.rig().cameras[0].position_m[2] > 2, "the head to have moved")
    (after,) = hands_from_message(robot.answer())
    assert after.id == before.id
    np.testing.assert_allclose(after.points_3d - before.points_3d, np.tile([-1.0, 0.0, 2.0], (21, 1)), atol=0.01)
    assert "arm" not in node._source._tree.frames  # the rest of the robot is none of its business


@needs_tf2
def test_a_camera_that_loses_its_calibration_is_named_and_bad_transforms_are_counted(ros, models):
    node, robot = bench(ros, models, "/tf_bad")
    robot.inform(0, 1)
    robot.place(HEAD, LEFT, RIGHT, ("base_link", "broken", (0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0)))
    ros.until(lambda: not says(node), "the places")
    assert diagnostics(node)["tf_errors"] == "1"
    robot.answer()
    robot.inform(1, k=[0.0] * 9)
    ros.until(lambda: "/tf_bad/right/camera_info is not calibrated" in says(node), "the calibration to be gone")
    shown(ros, node, robot, "camera 'right'")
    robot.inform(1)
    ros.until(lambda: not says(node), "the calibration to be back")
    assert len(robot.answer(2).hands) == 1


@needs_tf2
def test_a_node_in_a_process_of_its_own_takes_what_was_latched_before_it_came(ros, models, tmp_path):
    from tf2_msgs.msg import TFMessage

    latched = ros.observer.create_publisher(TFMessage, "/tf_static", tf_qos(static=True))
    ros._ends.append(latched)
    latched.publish(TFMessage(transforms=[link(*values) for values in (HEAD, LEFT, RIGHT)]))
    reports = ros.listen(DiagnosticArray, "/diagnostics")
    values = {**models, "rig.extrinsics": "tf", "rig.cameras": "left,right", "rig.frame_id": "head", "autostart": True}

    def message() -> str:
        own = [m.status[0].message for m in reports if m.status[0].name == "tf_process/rig_tracker_node"]
        return own[-1] if own else ""

    with ExitStack() as stack:
        command = node_command("rig_tracker_node", "/tf_process", {**values, "rig.wait_s": 1.0})
        child = stack.enter_context(process(command, tmp_path / "rig.log"))
        robot = Robot(ros, "/tf_process")
        ros.until(lambda: "no camera_info on /tf_process/left/camera_info" in message(), "a report of what is missing")
        robot.inform(0, 1)
        ros.until(lambda: message() and "waiting" not in message(), "the places")
        (hand,) = hands_from_message(robot.answer(8))
        assert robot.hands[-1].header.frame_id == "head"
        assert hand.points_3d[9] == pytest.approx([0.5, 0.0, 0.0], abs=0.1)
        assert child.poll() is None
    assert child.returncode == 0
    assert "frame skipped" not in (tmp_path / "rig.log").read_text()  # it had nothing to skip: no image came too early


BAD = {
    "": "rig.extrinsics is tf, but the parameter rig.cameras names no camera",
    "left,right eye": "camera 'right eye' of rig.cameras makes no topic name",
    "left,left": "rig.cameras names a camera twice: left, left",
}


@needs_tf2
@pytest.mark.parametrize("cameras", BAD)
def test_wrong_names_of_cameras_fail_to_configure(ros, models, capfd, cameras):
    node = ros.node("rig_tracker_node", "/tf_names", **models, rig__extrinsics="tf", rig__cameras=cameras)
    assert not node.bring_up()
    assert BAD[cameras] in capfd.readouterr().err and BAD[cameras] in diagnostics(node)["message"]


@pytest.mark.skipif(HAS_TF2, reason="tf2_msgs is installed here")
def test_without_tf2_msgs_the_node_does_not_configure_and_says_what_to_install(ros, models, capfd):
    node = ros.node("rig_tracker_node", "/tf_none", **models, rig__extrinsics="tf", rig__cameras="left,right")
    assert not node.bring_up()
    assert "'rig.extrinsics: tf' needs the ROS package tf2_msgs" in capfd.readouterr().err
