"""Values to messages and back: pixels exactly, so that both graphs compute the same; scores to float32."""

from __future__ import annotations

import array
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
pytest.importorskip("hand_tracking_ros.msg", reason="the package was installed without its ROS messages")

from builtin_interfaces.msg import Time
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from hand_tracking_ros.calibration import Calibration
from hand_tracking_ros.errors import ImageError
from hand_tracking_ros.geometry import Box
from hand_tracking_ros.kinematics import LIMITS, MEAN_HAND, HandPose, KinematicHand, exp_rotation
from hand_tracking_ros.nodes import conversions, hand_messages, outputs
from hand_tracking_ros.nodes.settings import HandTrackerNodeConfig
from hand_tracking_ros.skeleton import EDGES, Side
from hand_tracking_ros.types import Hand, HandBox, HandKeypoints, Scale, Source

HEADER = Header(stamp=Time(sec=1_700_000_000, nanosec=123_456_789), frame_id="left_optical_frame")
BOX = Box((320.5, 240.25), (90.5, 91.5), -0.75)


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).uniform(0, 700, shape)


def same(a, b) -> None:
    """Equal field by field: pixels exactly, the rest to float32."""
    for name, value in vars(a).items():
        other = getattr(b, name)
        if isinstance(value, (Box, HandPose)):
            same(value, other)
        elif isinstance(value, KinematicHand):
            np.testing.assert_allclose(other.bone_ratios, value.bone_ratios, rtol=1e-6)
        elif value is None:
            assert other is None, name
        elif isinstance(value, int):
            assert other == value and type(other) is type(value), name
        else:
            exact = name in ("center_px", "size_px", "angle_rad", "keypoints_px")
            close = {"rtol": 0} if exact else {"rtol": 1e-6, "atol": 1e-12}
            np.testing.assert_allclose(other, value, **close, err_msg=name)


def test_boxes_survive():
    expected = random(21, 2)
    variance = np.where(np.arange(21) == 4, np.inf, np.arange(21) / 8)
    told = HandBox(BOX, 0.75, 0.25, 7, Source.PROPAGATED, expected_px=expected, expected_variance=variance)
    boxes = [told, HandBox(BOX, 0.5)]
    message = conversions.boxes_to_message(boxes, HEADER, width=640, height=480)
    assert message.header == HEADER and (message.image_width, message.image_height) == (640, 480)
    for before, after in zip(boxes, conversions.boxes_from_message(message), strict=True):
        same(before, after)


def test_keypoints_survive():
    hand = HandKeypoints(3, BOX, Source.DETECTED, random(21, 2), random(21) / 700, random(21) / 700 - 0.5, 0.9, 0.1)
    message = conversions.keypoints_to_message([hand], HEADER, width=640, height=480)
    assert message.header == HEADER
    same(hand, conversions.keypoints_from_message(message)[0])


def a_pose(side: Side, seed: int = 0, shape: KinematicHand = MEAN_HAND) -> HandPose:
    rng = np.random.default_rng(seed)
    angles = rng.uniform(LIMITS[:, 0], LIMITS[:, 1])
    return HandPose(side, exp_rotation(rng.normal(size=3)), rng.uniform(0.2, 1, 3), angles, 0.091, 1.05, shape)


def posed_hand(number: int, side: Side, seed: int = 0, scale: Scale = Scale.ASSUMED) -> Hand:
    """A hand whose 3D points are those of its pose."""
    pose = a_pose(side, seed)
    values = random(21, 2), random(21) / 700, random(21, 2)
    facts = {"points_3d": pose.points(), "velocities_3d": random(21, 3), "pose": pose, "scale": scale}
    facts["angle_velocities"] = random(20)
    return Hand(number, side, 0.9, 0.8, Source.PROPAGATED, BOX, *values, **facts)


@pytest.mark.parametrize("metric", [True, False])
def test_hands_survive_and_unknown_values_stay_nan(metric):
    facts = {"scale": Scale.ASSUMED, "points_3d": random(21, 3), "velocities_3d": random(21, 3)} if metric else {}
    hand = Hand(4, Side.LEFT, 0.9, 0.8, Source.PREDICTED, BOX, random(21, 2), random(21) / 700, random(21, 2), **facts)
    message = hand_messages.hands_to_message([hand], HEADER, width=640, height=480)
    assert message.header == HEADER and message.hands[0].id == 4
    assert np.isnan(message.hands[0].points_3d[0].x) != metric
    same(hand, hand_messages.hands_from_message(message)[0])
    wrist = message.hands[0].wrist_pose
    assert np.isnan(
        [wrist.position.x, wrist.orientation.w, message.hands[0].palm_m, *message.hands[0].joint_angles]
    ).all()


@pytest.mark.parametrize("side", [Side.LEFT, Side.RIGHT])
@pytest.mark.parametrize("shape", [MEAN_HAND, KinematicHand(np.linspace(0.9, 1.1, 20))], ids=["mean", "own"])
def test_poses_survive(side, shape):
    pose = a_pose(side, shape=shape)
    facts = {"scale": Scale.MEASURED, "points_3d": pose.points(), "pose": pose}
    hand = Hand(4, side, 0.9, 0.8, Source.DETECTED, BOX, random(21, 2), random(21) / 700, **facts)
    message = hand_messages.hands_to_message([hand], HEADER, width=640, height=480)
    back = hand_messages.hands_from_message(message)[0]
    same(hand, back)
    np.testing.assert_allclose(back.pose.points(), pose.points(), atol=1e-6)
    filled = message.hands[0]
    assert filled.joint_angles[filled.ANGLE_INDEX_MIDDLE_FLEXION] == pytest.approx(pose.angles[6])
    assert (back.pose.shape is MEAN_HAND) == (shape is MEAN_HAND)


def test_a_hand_that_nobody_filled_has_no_pose():
    from hand_tracking_ros import msg

    box = msg.RotatedBox(width_px=1.0, height_px=1.0)
    message = msg.HandArray(hands=[msg.Hand(box=box, source=msg.Hand.SOURCE_DETECTED)])
    assert hand_messages.hands_from_message(message)[0].pose is None


def test_a_message_in_old_parts_equals_a_new_one():
    def hand(number: int) -> Hand:
        values = random(21, 2), random(21) / 700, random(21, 2)
        if number % 2:
            return posed_hand(number, Side.LEFT)
        return Hand(number, Side.LEFT, 0.9, 0.8, Source.PREDICTED, BOX, *values)

    old: list = []
    for numbers in ((0, 1), (1,), (2, 3, 4), (), (1, 2)):
        hands = [hand(number) for number in numbers]
        message = hand_messages.hands_to_message(hands, HEADER, 640, 480, old)
        old = message.hands
        assert len(message.hands) == len(numbers)
        for wanted, got in zip(hands, hand_messages.hands_from_message(message)):
            same(wanted, got)


def test_xr_hand_carries_joints_and_signs():
    from hand_tracking_ros import msg
    from hand_tracking_ros.outputs.gestures import Gesture, HandSigns
    from hand_tracking_ros.outputs.openxr import XrJoint, xr_joints

    hand = posed_hand(7, Side.LEFT, scale=Scale.MEASURED)
    joints, signs = xr_joints(hand.pose), HandSigns(np.array([0.1, 0.2, 0.3, 0.4]), 0.5, Gesture.POINT)
    message = hand_messages.fill_xr_hand(msg.XrHand(), hand, joints, signs)
    assert (message.id, message.side, message.scale) == (7, msg.XrHand.SIDE_LEFT, msg.XrHand.SCALE_MEASURED)
    assert (message.source, message.gesture) == (msg.XrHand.SOURCE_PROPAGATED, msg.XrHand.GESTURE_POINT)
    assert (message.score, message.palm_m, message.grasp_strength) == pytest.approx((0.8, 0.091, 0.5))
    np.testing.assert_allclose(message.pinch_strengths, signs.pinch, rtol=1e-6)
    np.testing.assert_allclose(message.radii_m, joints.radii_m, rtol=1e-6)
    tip = message.poses[msg.XrHand.INDEX_TIP]
    assert [tip.position.x, tip.position.y, tip.position.z] == hand.points_3d[8].tolist()
    turn = [tip.orientation.x, tip.orientation.y, tip.orientation.z, tip.orientation.w]
    assert turn == joints.orientations[XrJoint.INDEX_TIP].tolist()


def test_joint_states_name_one_hand_of_each_side():
    hands = posed_hand(5, Side.LEFT, 1), posed_hand(2, Side.RIGHT, 2), posed_hand(4, Side.RIGHT, 3)
    left, right, second = (replace(hand, angle_velocities=random(20)) for hand in hands)
    message = outputs.joint_state([left, second, right], HEADER)
    assert message.header == HEADER
    assert len(message.name) == len(set(message.name)) == len(message.position) == 40
    assert message.name[4] == "left_index_flexion" and message.name[20] == "right_thumb_flexion"
    np.testing.assert_allclose(message.position, [*left.pose.angles, *right.pose.angles])  # id 2 is the older track
    np.testing.assert_allclose(message.velocity, [*left.angle_velocities, *right.angle_velocities])
    empty = outputs.joint_state([], HEADER)
    assert list(empty.name) == [] and list(empty.position) == [] and list(empty.velocity) == []


def test_tf_frames_hang_below_the_camera_with_the_ids_of_their_hands():
    hand = posed_hand(5, Side.LEFT)
    frames = {frame.child_frame_id: frame for frame in outputs.hand_transforms([hand], HEADER)}
    assert set(frames) == {"left_hand_5", "left_palm_5", "left_hand"}
    assert all(frame.header == HEADER for frame in frames.values())
    root, own = frames["left_hand"].transform, frames["left_hand_5"].transform
    assert root == own
    assert [own.translation.x, own.translation.y, own.translation.z] == hand.pose.position_m.tolist()
    palm = frames["left_palm_5"].transform
    middle = (hand.points_3d[0] + hand.points_3d[9]) / 2
    np.testing.assert_allclose([palm.translation.x, palm.translation.y, palm.translation.z], middle)
    assert palm.rotation == own.rotation


def test_stamps_are_exact_as_nanoseconds_and_close_as_seconds():
    assert conversions.stamp_ns(HEADER.stamp) == 1_700_000_000_123_456_789
    assert conversions.time_from_ns(1_700_000_000_123_456_789) == HEADER.stamp
    assert conversions.stamp_s(HEADER.stamp) == pytest.approx(1_700_000_000.123456789, abs=3e-7)


@pytest.mark.parametrize(("shape", "encoding"), [((48, 64), "mono8"), ((48, 64, 3), "bgr8")])
def test_images_survive(shape, encoding):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    message = conversions.image_to_message(image, HEADER)
    assert (message.encoding, message.height, message.width) == (encoding, 48, 64)
    assert isinstance(message.data, array.array) and message.step == image.nbytes // 48
    back = conversions.image_from_message(message, color=image.ndim == 3)
    np.testing.assert_array_equal(back, image)
    assert np.shares_memory(back, np.frombuffer(message.data, np.uint8))


def test_a_cropped_image_is_published_whole():
    image = np.arange(48 * 64, dtype=np.uint8).reshape(48, 64)[4:20, 8:40]
    message = conversions.image_to_message(image, HEADER)
    np.testing.assert_array_equal(conversions.image_from_message(message), image)


def test_compressed_images_are_read_and_damaged_ones_refused():
    import cv2

    image = np.random.default_rng(0).integers(0, 256, (48, 64), dtype=np.uint8)
    data = cv2.imencode(".png", image)[1].tobytes()
    message = CompressedImage(header=HEADER, format="mono8; png compressed", data=data)
    np.testing.assert_array_equal(conversions.image_from_message(message), image)
    assert conversions.image_from_message(message, color=True).shape == (48, 64, 3)
    with pytest.raises(ImageError, match="cannot decode compressed image"):
        conversions.image_from_message(CompressedImage(format="png", data=data[:20]))


def test_unknown_encoding_is_refused_with_the_known_ones():
    message = Image(height=2, width=2, step=2, encoding="mono7", data=bytes(4))
    with pytest.raises(ImageError, match=r"mono7.*mono8"):
        conversions.image_from_message(message)


def test_camera_info_carries_the_calibration():
    K = (500.0, 0.0, 320.0, 0.0, 501.0, 240.0, 0.0, 0.0, 1.0)
    R = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    P = (500.0, 0.0, 320.0, 0.0, 0.0, 501.0, 240.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    calibration = Calibration("left", 640, 480, "plumb_bob", (0.1, 0.2, 0.0, 0.0, 0.3), K, R, P)
    message = conversions.camera_info_message(calibration, HEADER, 640, 480)
    assert message.header == HEADER and (message.width, message.height) == (640, 480)
    assert tuple(message.k) == K and tuple(message.r) == R and tuple(message.p) == P
    assert message.distortion_model == "plumb_bob" and list(message.d) == [0.1, 0.2, 0.0, 0.0, 0.3]
    assert not np.any(conversions.camera_info_message(None, HEADER, 640, 480).k)


def test_model_info_names_joints_and_edges():
    message = conversions.model_info_message([])
    assert message.joint_names[0] == "wrist" and len(message.joint_names) == 21
    assert list(message.skeleton_edges) == [joint for edge in EDGES for joint in edge]


def test_markers_are_stable_per_hand_and_deleted_when_it_is_lost():
    from visualization_msgs.msg import Marker

    from hand_tracking_ros.nodes.visuals import skeleton_markers

    config = HandTrackerNodeConfig()
    points = random(21, 3)

    def markers(scale: Scale, shown: set[str]):
        facts = {} if scale == Scale.NONE else {"points_3d": points, "scale": scale}
        hand = Hand(4, Side.LEFT, 0.9, 0.8, Source.DETECTED, BOX, random(21, 2), random(21), **facts)
        return skeleton_markers([hand], shown, HEADER, config.markers, config.pose).markers

    metric = markers(Scale.ASSUMED, set())
    assert [(m.ns, m.id, m.type) for m in metric] == [
        ("hand_4", 0, Marker.SPHERE_LIST),
        ("hand_4", 1, Marker.LINE_LIST),
    ]
    assert all(m.header == HEADER and m.lifetime.nanosec == 500_000_000 for m in metric)
    assert [len(m.points) for m in metric] == [21, 2 * len(EDGES)]
    assert metric[0].points[5].z == pytest.approx(points[5, 2])
    relative = markers(Scale.RELATIVE, {"hand_4"})
    assert relative[0].points[5].z == pytest.approx(points[5, 2] * config.pose.palm_m)
    gone = markers(Scale.NONE, {"hand_3"})
    assert [(m.ns, m.id, m.action) for m in gone] == [("hand_3", 0, Marker.DELETE), ("hand_3", 1, Marker.DELETE)]
