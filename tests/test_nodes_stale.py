"""A node that was held up goes on with the newest message of those that came meanwhile: nothing queues."""

from __future__ import annotations

import time

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from blob_models import draw
from rclpy.qos import QoSProfile
from ros_graph import diagnostics
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from hand_tracking_ros.msg import HandArray, HandBoxArray, HandKeypointsArray
from hand_tracking_ros.nodes.base import image_qos, result_qos
from hand_tracking_ros.nodes.conversions import image_to_message, stamp_ns, time_from_ns

MS = 1_000_000
LAST = 6
RELIABLE = QoSProfile(depth=LAST)

ROUTES = [
    # node, what it takes (all reliable, so that the sender loses nothing), what it answers
    ("hand_tracker_node", {"image_raw": Image}, ("hands", HandArray)),
    ("flow_node", {"image_raw": Image}, ("boxes", HandBoxArray)),
    ("detector_node", {"image_raw": Image, "detect_requests": Header}, ("detections", HandBoxArray)),
    ("keypoint_node", {"boxes": HandBoxArray}, ("keypoints", HandKeypointsArray)),
    ("filter_node", {"keypoints": HandKeypointsArray}, ("hands", HandArray)),
]


def message_of(kind: type, number: int):
    header = Header(stamp=time_from_ns(number * 33 * MS), frame_id="eye")
    if kind is Header:
        return header
    return image_to_message(draw((320, 240)), header) if kind is Image else kind(header=header)


@pytest.mark.parametrize(("name", "inputs", "output"), ROUTES, ids=[route[0] for route in ROUTES])
def test_a_node_that_was_held_up_goes_on_with_the_newest(ros, models, name, inputs, output):
    node = ros.node(name, f"/stale_{name}", **models)
    assert node.bring_up()
    publishers = {topic: ros.publisher(kind, f"/stale_{name}/{topic}", RELIABLE) for topic, kind in inputs.items()}
    answers = ros.listen(output[1], f"/stale_{name}/{output[0]}", result_qos())
    ros.until(lambda: node.count_subscribers(f"/stale_{name}/{output[0]}") > 0, "the listener")

    def send(number: int) -> None:
        for topic, kind in inputs.items():
            publishers[topic].publish(message_of(kind, number))

    send(1)
    ros.until(lambda: len(answers) == 1, "the first answer")
    for number in range(2, LAST + 1):
        send(number)
    time.sleep(0.5)  # the node is held up: nothing spins it
    ros.until(lambda: stamp_ns(answers[-1].header.stamp) == LAST * 33 * MS, "the newest")
    assert [stamp_ns(answer.header.stamp) // (33 * MS) for answer in answers] == [1, LAST]


def test_keypoints_that_were_passed_over_are_counted(ros):
    node = ros.node("filter_node", "/stale_count")
    assert node.bring_up()
    publisher = ros.publisher(HandKeypointsArray, "/stale_count/keypoints", RELIABLE)
    answers = ros.listen(HandArray, "/stale_count/hands", image_qos(10))
    for number in [*range(1, 11), 14]:
        publisher.publish(message_of(HandKeypointsArray, number))
        ros.until(lambda: len(answers) > 0 and answers[-1].header.stamp == time_from_ns(number * 33 * MS), "hands")  # noqa: B023
    assert diagnostics(node)["keypoints_lost"] == "3"
