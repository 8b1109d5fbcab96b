"""What the nodes publish of hand poses: keypoints of hands in, joint states, poses and OpenXR joints out."""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
pytest.importorskip("hand_tracking_ros.msg", reason="the package was installed without its ROS messages")

from blob_models import draw
from geometry_msgs.msg import PoseArray, PoseStamped
from ros_graph import diagnostics
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import Header

from hand_tracking_ros.geometry import box_around
from hand_tracking_ros.kinematics import NUM_ANGLES, HandPose, exp_rotation
from hand_tracking_ros.msg import HandArray, HandKeypointsArray, XrHand, XrHandArray
from hand_tracking_ros.nodes.base import result_qos
from hand_tracking_ros.nodes.conversions import image_to_message, keypoints_to_message, stamp_ns, time_from_ns
from hand_tracking_ros.nodes.hand_messages import hands_from_message
from hand_tracking_ros.nodes.outputs import _TfPublisher
from hand_tracking_ros.outputs.frames import rotation_of, wrist_rotation
from hand_tracking_ros.outputs.openxr import KEYPOINT_JOINTS, XrJoint, xr_joints
from hand_tracking_ros.outputs.urdf import joint_names
from hand_tracking_ros.skeleton import Side
from hand_tracking_ros.types import Camera, Hand, HandKeypoints, Scale, Source

CAMERA = Camera(500.0, 500.0, 320.0, 240.0)
MS = 1_000_000
HAS_TF2 = importlib.util.find_spec("tf2_msgs") is not None


def camera_info(header: Header) -> CameraInfo:
    message = CameraInfo(header=header, width=640, height=480, distortion_model="plumb_bob", d=[0.0] * 5)
    message.k = [500.0, 0.0, 320.0, 0.0, 500.0, 240.0, 0.0, 0.0, 1.0]
    return message


def fist(side: Side, x_m: float) -> HandPose:
    angles = np.radians([10, 10, 10, 10, *[60, 0, 70, 40] * 4])
    return HandPose(side, exp_rotation(np.array([0.1, 0.2, 0.1])), np.array([x_m, 0.06, 0.5]), angles, 0.088)


def keypoints_of(hand_id: int, pose: HandPose) -> HandKeypoints:
    points = pose.points()
    px = CAMERA.project(points)
    depth = (points[:, 2] - points[9, 2]) / pose.palm_m
    right = 0.99 if pose.side == Side.RIGHT else 0.01
    return HandKeypoints(hand_id, box_around(px), Source.PROPAGATED, px, np.ones(21), depth, 1.0, right)


class Filter:
    """An active filter node, fed with keypoints."""

    def __init__(self, ros, namespace: str, calibrated: bool = True, **parameters) -> None:
        self.ros, self.root = ros, f"{namespace}/filter_node"
        self.node = ros.node("filter_node", namespace, **parameters)
        assert self.node.bring_up()
        self.hands = ros.listen(HandArray, f"{namespace}/hands")
        self.keypoints = ros.publisher(HandKeypointsArray, f"{namespace}/keypoints", result_qos())
        self.count = 0
        if calibrated:
            infos = ros.publisher(CameraInfo, f"{namespace}/camera_info")
            infos.publish(camera_info(Header(frame_id="eye")))
            ros.until(lambda: diagnostics(self.node).get("camera") == "calibrated", "camera_info to arrive")

    def send(self, hands: list[HandKeypoints]) -> HandArray:
        self.count += 1
        header = Header(stamp=time_from_ns(self.count * 20 * MS), frame_id="eye")
        self.keypoints.publish(keypoints_to_message(hands, header, 640, 480))
        self.ros.until(lambda: len(self.hands) == self.count, "the hands of these keypoints")
        return self.hands[-1]


def position(point) -> list[float]:
    return [point.x, point.y, point.z]


def turn(orientation) -> np.ndarray:
    return rotation_of(np.array([orientation.x, orientation.y, orientation.z, orientation.w]))


def test_every_form_of_two_hands_tells_of_the_same_poses(ros):
    topics = {"joint_states": JointState, "wrist_poses": PoseArray, "palm_poses": PoseArray, "xr_hands": XrHandArray}
    topics |= {f"{side}/{part}_pose": PoseStamped for side in ("left", "right") for part in ("wrist", "palm")}
    filtering = Filter(ros, "/forms", gestures__hold_s=0.0)
    got = {topic: ros.listen(kind, f"{filtering.root}/{topic}") for topic, kind in topics.items()}
    publishers = {p.topic_name: p for p in filtering.node.publishers}
    for topic in topics:
        ros.until(lambda t=topic: publishers[f"{filtering.root}/{t}"].get_subscription_count() > 0, topic)
    seen = [keypoints_of(3, fist(Side.RIGHT, -0.12)), keypoints_of(4, fist(Side.LEFT, 0.12))]
    for _ in range(5):
        message = filtering.send(seen)
    ros.until(lambda: all(messages and messages[-1].header == message.header for messages in got.values()), "all forms")
    assert all(len(messages) == 5 for messages in got.values())
    right, left = hands_from_message(message)
    assert (right.side, left.side) == (Side.RIGHT, Side.LEFT)
    np.testing.assert_allclose(right.pose.points(), fist(Side.RIGHT, -0.12).points(), atol=0.02)

    states = got["joint_states"][-1]
    assert list(states.name) == [*joint_names(Side.LEFT), *joint_names(Side.RIGHT)]
    np.testing.assert_allclose(states.position, [*left.pose.angles, *right.pose.angles], atol=1e-6)
    wrists = got["wrist_poses"][-1].poses
    palms = got["palm_poses"][-1].poses
    for wrist, palm, hand in zip(wrists, palms, (right, left), strict=True):
        assert position(wrist.position) == hand.pose.position_m.tolist()
        np.testing.assert_allclose(turn(wrist.orientation), wrist_rotation(hand.pose), atol=1e-9)
        assert palm.orientation == wrist.orientation
        np.testing.assert_allclose(position(palm.position), hand.points_3d[[0, 9]].mean(axis=0), atol=1e-9)
    for hand, side in ((left, "left"), (right, "right")):
        wrist, palm = got[f"{side}/wrist_pose"][-1].pose, got[f"{side}/palm_pose"][-1].pose
        assert position(wrist.position) == hand.pose.position_m.tolist()
        assert palm.orientation == wrist.orientation
        np.testing.assert_allclose(position(palm.position), hand.points_3d[[0, 9]].mean(axis=0), atol=1e-9)
    xr = got["xr_hands"][-1]
    assert (xr.image_width, xr.image_height, [hand.id for hand in xr.hands]) == (640, 480, [3, 4])
    for xr_hand, hand in zip(xr.hands, (right, left)):
        places = np.array([position(pose.position) for pose in xr_hand.poses])
        np.testing.assert_allclose(places[KEYPOINT_JOINTS], hand.points_3d, atol=1e-6)
        wanted = rotation_of(xr_joints(hand.pose).orientations[XrJoint.RING_DISTAL])
        np.testing.assert_allclose(turn(xr_hand.poses[XrJoint.RING_DISTAL].orientation), wanted, atol=1e-5)
        assert (xr_hand.gesture, xr_hand.side) == (XrHand.GESTURE_FIST, hand.side)
        assert xr_hand.grasp_strength > 0.6

    gone = filtering.send([])
    arrays = {"joint_states": "name", "wrist_poses": "poses", "palm_poses": "poses", "xr_hands": "hands"}
    ros.until(lambda: all(got[topic][-1].header == gone.header for topic in arrays), "the next message of each")
    assert all(len(getattr(got[topic][-1], field)) == 0 for topic, field in arrays.items())
    assert all(len(got[f"{side}/wrist_pose"]) == 5 for side in ("left", "right")), "a pose of a hand that is not there"


def test_predicted_poses_carry_the_time_for_which_they_hold_and_hands_that_of_their_image(ros):
    filtering = Filter(ros, "/ahead", filter__predict_s=0.05)
    kinds = {"joint_states": JointState, "wrist_poses": PoseArray, "palm_poses": PoseArray, "xr_hands": XrHandArray}
    kinds["right/palm_pose"] = PoseStamped
    got = {topic: ros.listen(kind, f"{filtering.root}/{topic}") for topic, kind in kinds.items()}

    def sent() -> bool:
        filtering.send([keypoints_of(3, fist(Side.RIGHT, 0.0))])
        return all(got.values())

    ros.until(sent, "all forms")
    hands = filtering.send([keypoints_of(3, fist(Side.RIGHT, 0.0))])
    image_ns = filtering.count * 20 * MS
    wanted = {topic: image_ns + (0 if topic == "xr_hands" else 50 * MS) for topic in kinds}
    assert stamp_ns(hands.header.stamp) == image_ns
    ros.until(lambda: {t: stamp_ns(m[-1].header.stamp) for t, m in got.items()} == wanted, f"the stamps {wanted}")
    assert {messages[-1].header.frame_id for messages in got.values()} == {"eye"}


def test_frames_are_not_published_below_a_frame_without_a_name(monkeypatch):
    """With what comes in place of tf2_msgs, which has no wheel."""
    kind, published, said = (lambda transforms: transforms), [], []
    monkeypatch.setattr("hand_tracking_ros.nodes.outputs.tf_message_type", lambda parameter: kind)
    publisher = SimpleNamespace(publish=published.append)
    node = SimpleNamespace(publish_to=lambda *arguments: publisher, warn=said.append)
    frames = _TfPublisher(node)
    pose = fist(Side.RIGHT, 0.0)
    values = {"scale": Scale.ASSUMED, "points_3d": pose.points(), "pose": pose}
    seen = keypoints_of(3, pose)
    hand = Hand(3, Side.RIGHT, 0.9, 0.9, Source.PROPAGATED, seen.box, seen.keypoints_px, np.ones(21), **values)
    frames.publish([hand], Header())
    assert published == [] and "images have no frame_id" in said[0]
    frames.publish([], Header())
    assert len(said) == 1
    frames.publish([hand], Header(frame_id="eye"))
    assert {frame.child_frame_id for frame in published[0]} == {"right_hand_3", "right_palm_3", "right_hand"}


def test_without_calibration_the_arrays_are_empty_and_the_log_says_why(ros, capfd):
    filtering = Filter(ros, "/relative", calibrated=False)
    xr = ros.listen(XrHandArray, f"{filtering.root}/xr_hands")
    seen = [keypoints_of(1, fist(Side.RIGHT, 0.0))]
    filtering.send(seen)

    def sent() -> bool:
        filtering.send(seen)
        return bool(xr)

    ros.until(sent, "an answer on xr_hands")
    assert filtering.hands[-1].hands and not any(message.hands for message in xr)
    assert np.isnan(filtering.hands[-1].hands[0].palm_m)
    assert "camera_info is missing or not calibrated" in capfd.readouterr().err


def test_the_tracker_node_publishes_poses_from_images(ros, models):
    node = ros.node("hand_tracker_node", "/poses", **models)
    assert node.bring_up()
    states = ros.listen(JointState, "/poses/hand_tracker_node/joint_states")
    images = ros.publisher(Image, "/poses/image_raw")
    infos = ros.publisher(CameraInfo, "/poses/camera_info")
    infos.publish(camera_info(Header(frame_id="eye")))
    ros.until(lambda: diagnostics(node).get("camera") == "calibrated", "camera_info to arrive")
    header = Header(stamp=time_from_ns(MS), frame_id="eye")
    images.publish(image_to_message(draw((300, 240)), header))
    ros.until(lambda: states, "joint states")
    assert states[0].header == header
    assert list(states[0].name) == joint_names(Side.RIGHT) and len(states[0].position) == NUM_ANGLES


@pytest.mark.skipif(HAS_TF2, reason="tf2_msgs is installed here")
def test_tf_without_tf2_msgs_fails_to_configure_and_says_so(ros, capfd):
    node = ros.node("filter_node", "/no_tf", tf__enabled=True)
    assert not node.bring_up()
    assert "'tf.enabled' needs the ROS package tf2_msgs" in capfd.readouterr().err


@pytest.mark.skipif(not HAS_TF2, reason="needs tf2_msgs, which has no wheel")
def test_tf_frames_are_published(ros):
    from tf2_msgs.msg import TFMessage

    filtering = Filter(ros, "/with_tf", tf__enabled=True)
    frames = ros.listen(TFMessage, "/tf")
    seen = [keypoints_of(3, fist(Side.RIGHT, 0.0))]

    def sent() -> bool:
        filtering.send(seen)
        return bool(frames)

    ros.until(sent, "frames")
    assert {f.child_frame_id for f in frames[-1].transforms} == {"right_hand_3", "right_palm_3", "right_hand"}
    assert {f.header.frame_id for f in frames[-1].transforms} == {"eye"}
