"""hand_tracker_node with depth images: metres that are measured; whatever is wrong with them, tracking goes on."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from blob_models import draw
from ros_graph import diagnostics, write_blob_models
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from hand_tracking_ros.msg import HandArray
from hand_tracking_ros.nodes.base import image_qos
from hand_tracking_ros.nodes.conversions import image_to_message, stamp_ns, time_from_ns
from hand_tracking_ros.nodes.hand_messages import hands_from_message

MS = 1_000_000
K = [500.0, 0.0, 319.5, 0.0, 500.0, 239.5, 0.0, 0.0, 1.0]
HAND_M = 0.5


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    values = write_blob_models(tmp_path_factory.mktemp("models"))
    return {name.replace(".", "__"): value for name, value in values.items()}


def depth_message(header: Header, encoding: str, size=(640, 480)) -> Image:
    """A wall at 1.5 m, and a hand before it."""
    width, height = size
    metres = np.full((height, width), 1.5, np.float32)
    metres[150:330, 220:420] = HAND_M
    pixels = metres if encoding == "32FC1" else (metres * 1000).astype(np.uint16)
    message = Image(header=header, height=height, width=width, encoding=encoding, step=pixels.nbytes // height)
    message.data = pixels.tobytes()
    return message


class Bench:
    """An active tracker node with a calibrated camera, fed by hand."""

    def __init__(self, ros, namespace: str, parameters: dict) -> None:
        self.ros, self.count = ros, 0
        self.node = ros.node("hand_tracker_node", namespace, depth__enabled=True, **parameters)
        assert self.node.bring_up()
        self.hands = ros.listen(HandArray, f"{namespace}/hands")
        self.images = ros.publisher(Image, f"{namespace}/image_raw")
        self.depths = ros.publisher(Image, f"{namespace}/depth/image_rect_raw", image_qos(4))
        infos = ros.publisher(CameraInfo, f"{namespace}/camera_info")
        infos.publish(CameraInfo(header=self.header(), width=640, height=480, k=K))
        ros.until(lambda: diagnostics(self.node).get("camera") == "calibrated", "the camera")

    def header(self, late_ms: float = 0.0) -> Header:
        return Header(stamp=time_from_ns(int((self.count * 33 + late_ms) * MS)), frame_id="eye")

    def send(self, encoding: str | None, *, depth_first=False, apart_ms=0.0, size=(640, 480)) -> HandArray:
        """The next image, with a depth image unless ``encoding`` is None; the answer to it."""
        before = len(self.hands)
        self.count += 1
        image = image_to_message(draw((320, 240)), self.header())
        parts = [(self.images, image)]
        if encoding is not None:
            parts.append((self.depths, depth_message(self.header(apart_ms), encoding, size)))
        for publisher, message in reversed(parts) if depth_first else parts:
            publisher.publish(message)
            self.ros.spin(0.02)
        self.ros.until(lambda: len(self.hands) > before, "an answer")
        assert stamp_ns(self.hands[-1].header.stamp) == stamp_ns(image.header.stamp)
        return self.hands[-1]

    def report(self) -> dict[str, str]:
        self.node.observe()
        return diagnostics(self.node)


@pytest.mark.parametrize("encoding", ["32FC1", "16UC1"])
def test_depth_places_the_hand_where_it_is_whichever_message_comes_first(ros, models, encoding):
    bench = Bench(ros, f"/depth_{encoding}", {**models, "depth__wait_s": 1.0})
    for order in range(16):
        answer = bench.send(encoding, depth_first=order % 2 == 0, apart_ms=5)
    (hand,) = hands_from_message(answer)
    assert hand.points_3d[9, 2] == pytest.approx(HAND_M, abs=0.03)  # its size alone would say 0.41 m: see below
    report = bench.report()
    assert report["depth_used"] == "16" and report["depth_missing"] == report["depth_errors"] == "0"
    assert report["message"] == "active"


def test_without_depth_images_tracking_goes_on_and_the_report_says_so(ros, models):
    bench = Bench(ros, "/depth_none", {**models, "depth__silent_s": 0.1})
    for _ in range(5):
        answer = bench.send(None)
    (hand,) = hands_from_message(answer)
    assert abs(hand.points_3d[9, 2] - HAND_M) > 0.05
    report = bench.report()
    assert "no depth image on /depth_none/depth/image_rect_raw for" in report["message"] and report["level"] == "1"
    assert report["depth_missing"] == "5"
    bench.send("32FC1", depth_first=True)
    assert bench.report()["message"] == "active"


BAD = {
    "encoding": ({"encoding": "rgb8"}, "a depth image in encoding 'rgb8'; known: 32FC1"),
    "size": ({"encoding": "16UC1", "size": (424, 440)}, "depth images are 424x440, but image_raw is 640x480"),
}


@pytest.mark.parametrize("case", BAD)
def test_depth_that_cannot_be_used_is_counted_and_explained(ros, models, case):
    arguments, says = BAD[case]
    bench = Bench(ros, f"/depth_bad_{case}", {**models, "depth__wait_s": 1.0, "depth__silent_s": 60.0})
    for _ in range(3):
        assert len(bench.send(**arguments).hands) == 1
    report = bench.report()
    assert report["depth_errors"] == "3" and says in report["message"] and report["skipped"] == "0"
    bench.send("32FC1")
    assert bench.report()["message"] == "active"


def test_depth_images_of_other_times_are_not_used_and_the_report_says_so(ros, models):
    bench = Bench(ros, "/depth_late", {**models, "depth__silent_s": 0.05})
    for _ in range(6):
        assert len(bench.send("32FC1", depth_first=True, apart_ms=-100).hands) == 1
        ros.spin(0.03)
    bench.depths.publish(depth_message(bench.header(-90), "32FC1"))
    ros.spin(0.02)
    report = bench.report()
    assert report["depth_used"] == "0" and "none with a stamp within depth.sync_s" in report["message"]
