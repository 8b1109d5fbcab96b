"""Lenses in the nodes: camera_info of a binned part of the sensor, and a fisheye in front of the keypoint stage."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from blob_models import draw
from ros_graph import diagnostics
from sensor_msgs.msg import CameraInfo, Image, RegionOfInterest
from std_msgs.msg import Header

from hand_tracking_ros.cameras import Camera
from hand_tracking_ros.config import KeypointConfig
from hand_tracking_ros.geometry import Box
from hand_tracking_ros.keypoints import KeypointEstimator
from hand_tracking_ros.msg import HandBoxArray, HandKeypointsArray
from hand_tracking_ros.nodes.base import result_qos
from hand_tracking_ros.nodes.conversions import (
    boxes_to_message,
    camera_from_message,
    image_to_message,
    keypoints_from_message,
    time_from_ns,
)
from hand_tracking_ros.types import HandBox, Source

K = [200.0, 0.0, 319.5, 0.0, 200.0, 239.5, 0.0, 0.0, 1.0]
FISHEYE = Camera(200, 200, 320, 240, "fisheye", (0.02, -0.01, 0.0, 0.0))


def info(**changes) -> CameraInfo:
    values = {"distortion_model": "equidistant", "d": list(FISHEYE.distortion), "k": K, "width": 640, "height": 480}
    return CameraInfo(**{**values, **changes})


def test_the_camera_of_a_message():
    assert camera_from_message(info()) == FISHEYE
    assert camera_from_message(info(k=[0.0] * 9)) is None
    part = RegionOfInterest(x_offset=40, y_offset=20, width=560, height=440)
    assert camera_from_message(info(roi=part)) == Camera(200, 200, 280, 220, "fisheye", FISHEYE.distortion)
    binned = camera_from_message(info(roi=part, binning_x=2, binning_y=4))
    assert binned == Camera(100, 50, 140, 55, "fisheye", FISHEYE.distortion)
    point = np.array([0.3, -0.2, 0.5])
    np.testing.assert_allclose(binned.project(point), (FISHEYE.project(point) - (40, 20)) / (2, 4))


def test_keypoint_node_looks_through_the_lens_that_camera_info_states(ros, models):
    node = ros.node("keypoint_node", "/fisheye", **models)
    assert node.bring_up()
    answers = ros.listen(HandKeypointsArray, "/fisheye/keypoints", result_qos())
    publishers = [
        ros.publisher(kind, f"/fisheye/{topic}") for kind, topic in [(CameraInfo, "camera_info"), (Image, "image_raw")]
    ]
    boxes = ros.publisher(HandBoxArray, "/fisheye/boxes", qos=result_qos())
    header = Header(stamp=time_from_ns(5_000_000), frame_id="camera_optical_frame")
    image, box = draw((150, 120)), HandBox(Box((150.0, 120.0), (120.0, 120.0)), 0.9, id=1, source=Source.PROPAGATED)
    publishers[0].publish(info(header=header))
    ros.until(lambda: diagnostics(node).get("camera") == "calibrated", "camera_info")
    publishers[1].publish(image_to_message(image, header))
    boxes.publish(boxes_to_message([box], header, 640, 480))
    ros.until(lambda: answers, "keypoints")
    (answer,) = keypoints_from_message(answers[0])
    estimator = KeypointEstimator(KeypointConfig(model=models["keypoints.model"]))
    (expected,) = estimator.estimate(image, [box], FISHEYE)
    (without,) = estimator.estimate(image, [box])
    np.testing.assert_allclose(answer.keypoints_px, expected.keypoints_px, atol=1e-4)
    np.testing.assert_allclose(answer.depth_rel, expected.depth_rel, atol=1e-4)
    assert np.abs(without.keypoints_px - expected.keypoints_px).max() > 0.5
