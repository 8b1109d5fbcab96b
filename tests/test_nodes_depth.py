"""Depth images in the nodes: metres that are measured; whatever is wrong with them, tracking goes on."""

from __future__ import annotations

import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from blob_models import draw, hand_at
from ros_graph import diagnostics
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from hand_tracking_ros.cameras import Camera
from hand_tracking_ros.geometry import box_around
from hand_tracking_ros.msg import HandArray, HandKeypointsArray
from hand_tracking_ros.nodes.base import image_qos, result_qos
from hand_tracking_ros.nodes.conversions import image_to_message, keypoints_to_message, stamp_ns, time_from_ns
from hand_tracking_ros.nodes.hand_messages import hands_from_message
from hand_tracking_ros.rig import Rig, RigCamera, save_rig
from hand_tracking_ros.types import HandKeypoints, Source

MS = 1_000_000
K = [500.0, 0.0, 319.5, 0.0, 500.0, 239.5, 0.0, 0.0, 1.0]
HAND_M = 0.7  # the palm of the drawn hand is 77 mm long there


def depth_message(header: Header, encoding: str, size=(640, 480), hand_m: float = HAND_M) -> Image:
    """A wall at 1.5 m, and a hand before it."""
    width, height = size
    metres = np.full((height, width), 1.5, np.float32)
    metres[150:330, 220:420] = hand_m
    pixels = metres if encoding == "32FC1" else (metres * 1000).astype(np.uint16)
    message = Image(header=header, height=height, width=width, encoding=encoding, step=pixels.nbytes // height)
    message.data = pixels.tobytes()
    return message


class Bench:
    """An active tracker node with a calibrated camera, fed by hand."""

    def __init__(self, ros, namespace: str, parameters: dict, k=tuple(K)) -> None:
        self.ros, self.count = ros, 0
        self.node = ros.node("hand_tracker_node", namespace, depth__enabled=True, **parameters)
        assert self.node.bring_up()
        self.hands = ros.listen(HandArray, f"{namespace}/hands")
        self.images = ros.publisher(Image, f"{namespace}/image_raw")
        self.depths = ros.publisher(Image, f"{namespace}/depth/image_rect_raw", image_qos(4))
        infos = ros.publisher(CameraInfo, f"{namespace}/camera_info")
        infos.publish(CameraInfo(header=self.header(), width=640, height=480, k=k))
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
    assert hand.points_3d[9, 2] == pytest.approx(HAND_M, abs=0.03)  # its size alone would say 0.61 m: see below
    report = bench.report()
    assert report["depth_used"] == "16" and report["depth_missing"] == report["depth_errors"] == "0"
    assert "depth" not in report["message"] and "hand size" not in report["message"]


@pytest.mark.parametrize("rate_hz", [30, 60, 90])
def test_images_that_come_before_their_depth_get_their_own_also_after_a_late_one(ros, models, rate_hz):
    bench = Bench(ros, f"/depth_order_{rate_hz}", {**models, "depth__wait_s": 1.0, "depth__silent_s": 60.0})
    process, used = bench.node._depth._process, []

    def noted(image: Image, depth: Image | None) -> None:
        stamps = [stamp_ns(m.header.stamp) * rate_hz / 1e9 for m in (image, depth) if m is not None]
        used.append([round(stamp) for stamp in stamps])
        process(image, depth)

    bench.node._depth._process = noted

    def send(what: str, count: int) -> None:
        header = Header(stamp=time_from_ns(round(count * 1e9 / rate_hz)), frame_id="eye")
        if what == "image":
            bench.images.publish(image_to_message(draw((320, 240)), header))
        else:
            bench.depths.publish(depth_message(header, "16UC1"))
        ros.spin(0.05)

    for count in range(1, 7):
        send("image", count)
        send("depth", count)
    send("image", 7)
    send("image", 8)  # the seventh depth image is late
    for count in (7, 8):
        send("depth", count)
    for count in range(9, 12):
        send("image", count)
        send("depth", count)
    ros.until(lambda: len(used) == 11, "all images")
    assert [pair for pair in used if pair[0] != 7] == [[count, count] for count in range(1, 12) if count != 7]
    assert [7, 7] not in used and bench.report()["depth_errors"] == "0"


@pytest.mark.parametrize(("share", "says"), [(1.3, "palms measure 6"), (1.0, ""), (0.6, "palms measure 1")])
def test_a_wrong_focal_length_is_found_out_by_the_size_of_hands(ros, models, share, says):
    k = [share * K[0], *K[1:4], share * K[4], *K[5:]]
    bench = Bench(ros, f"/depth_focal_{round(10 * share)}", {**models, "depth__wait_s": 1.0}, k)
    for _ in range(16):
        bench.send("16UC1", depth_first=True)
    report = bench.report()
    assert report["hand_size"] == "measured" and ("hand size" in report["message"]) == bool(says)
    if says:
        assert report["message"].startswith(f"hand size: {says}")
        assert "mm, those of adults 70 to 108 mm: unless the hands are a child's" in report["message"]
        assert "check the focal length in camera_info" in report["message"] and report["level"] == "1"
    bench.node.trigger_deactivate()
    assert diagnostics(bench.node)["message"] == "inactive"


def test_without_depth_images_tracking_goes_on_and_the_report_says_so(ros, models):
    bench = Bench(ros, "/depth_none", {**models, "depth__silent_s": 1.0})
    for _ in range(5):
        time.sleep(0.3)  # before, not after: a report of a second without images would be an error
        answer = bench.send(None)
    (hand,) = hands_from_message(answer)
    assert abs(hand.points_3d[9, 2] - HAND_M) > 0.05
    report = bench.report()
    assert "no depth image on /depth_none/depth/image_rect_raw for" in report["message"] and report["level"] == "1"
    assert report["depth_missing"] == "5"
    bench.send("32FC1", depth_first=True)
    assert "depth" not in bench.report()["message"]


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
    assert "depth" not in bench.report()["message"]


def test_depth_images_of_other_times_are_not_used_and_the_report_says_so(ros, models):
    bench = Bench(ros, "/depth_late", {**models, "depth__silent_s": 0.05})
    for _ in range(6):
        assert len(bench.send("32FC1", depth_first=True, apart_ms=-100).hands) == 1
        ros.spin(0.03)
    bench.depths.publish(depth_message(bench.header(-90), "32FC1"))
    ros.spin(0.02)
    report = bench.report()
    assert report["depth_used"] == "0" and "none with a stamp within depth.sync_s" in report["message"]


# The stage graph


def test_filter_node_measures_with_the_depth_image_of_the_keypoints_stamp(ros):
    """Keypoints come when newer depth images are there already: each takes the one of its own time."""
    namespace = "/depth_stage"
    node = ros.node("filter_node", namespace, depth__enabled=True, depth__wait_s=1.0, depth__silent_s=60.0)
    assert node.bring_up()
    answers = ros.listen(HandArray, f"{namespace}/hands")
    keypoints = ros.publisher(HandKeypointsArray, f"{namespace}/keypoints", result_qos())
    depths = ros.publisher(Image, f"{namespace}/depth/image_rect_raw", image_qos(20))
    infos = ros.publisher(CameraInfo, f"{namespace}/camera_info")
    infos.publish(CameraInfo(header=Header(frame_id="eye"), width=640, height=480, k=K))
    ros.until(lambda: diagnostics(node).get("camera") == "calibrated", "the camera")
    points, ones = hand_at(320, 240), np.ones(21)
    seen = HandKeypoints(7, box_around(points), Source.PROPAGATED, points, ones, 0 * ones, 1.0, 0.95)

    def header(count: int) -> Header:
        return Header(stamp=time_from_ns(count * 33 * MS), frame_id="eye")

    for count in range(1, 13):  # twelve depth images, and only then the keypoints of the first
        depths.publish(depth_message(header(count), "16UC1", hand_m=HAND_M if count <= 11 else 1.0))
        ros.spin(0.02)
    for count in range(1, 12):
        before = len(answers)
        keypoints.publish(keypoints_to_message([seen], header(count), width=640, height=480))
        ros.until(lambda: len(answers) > before, "an answer")  # noqa: B023
    (hand,) = hands_from_message(answers[-1])
    assert hand.id == 7 and hand.points_3d[9, 2] == pytest.approx(HAND_M, abs=0.03)  # not 0.61 m, and not 1 m
    report = diagnostics(node)
    assert report["depth_used"] == "11" and report["depth_missing"] == report["depth_errors"] == "0"
    keypoints.publish(keypoints_to_message([], header(13), width=424, height=240))
    depths.publish(depth_message(header(13), "16UC1"))
    ros.until(lambda: diagnostics(node)["depth_errors"] == "1", "a depth image of another size to be counted")
    node.observe()
    assert "depth images are 640x480, but image_raw is 424x240" in diagnostics(node)["message"]


# A rig


def rig_file(folder, *names: str) -> str:
    lens = Camera(500.0, 500.0, 320.0, 240.0)
    places = [np.array([-0.1 * i, 0.0, 0.0]) for i in range(len(names))]
    cameras = (RigCamera(name, 640, 480, lens, translation_m=place) for name, place in zip(names, places))
    save_rig(folder / "rig.yaml", Rig(tuple(cameras)))
    return str(folder / "rig.yaml")


def rig_node(ros, models, folder, namespace: str, names=("cam0", "cam1"), **parameters):
    file = rig_file(folder, *names)
    return ros.node("rig_tracker_node", namespace, **{**models, "rig__file": file, "rig__wait_s": 1.0, **parameters})


@pytest.mark.parametrize("depth", ["", "cam0"])
def test_a_camera_of_a_rig_measures_with_its_depth_image(ros, models, tmp_path, depth):
    """The only camera that works has depth: the distance is measured, though no other camera sees the hand."""
    namespace = f"/depth_rig_{depth or 'all'}"
    names = ("cam0", "cam1") if depth else ("cam0",)
    values = {"depth__enabled": True, "depth__wait_s": 1.0, "depth__silent_s": 60.0}
    values |= {"rig__depth": depth, "rig__silent_s": 0.05}
    node = rig_node(ros, models, tmp_path, namespace, names, **values)
    assert node.bring_up()
    answers = ros.listen(HandArray, f"{namespace}/hands")
    images = ros.publisher(Image, f"{namespace}/cam0/image_raw")
    depths = ros.publisher(Image, f"{namespace}/cam0/depth/image_rect_raw", image_qos(4))
    for count in range(1, 17):
        header, before = Header(stamp=time_from_ns(count * 33 * MS), frame_id="cam0"), len(answers)
        parts = [(images, image_to_message(draw((320, 240)), header)), (depths, depth_message(header, "32FC1"))]
        for publisher, message in parts if count % 2 else parts[::-1]:
            publisher.publish(message)
            ros.spin(0.02)
        ros.until(lambda: len(answers) > before, "an answer")  # noqa: B023
    (hand,) = hands_from_message(answers[-1])
    assert hand.points_3d[9, 2] == pytest.approx(HAND_M, abs=0.03)
    node.observe()
    report = diagnostics(node)
    assert report["cam0 depth_used"] == "16" and report["cam0 depth_missing"] == report["cam0 depth_errors"] == "0"
    assert "cam1 depth_used" not in report and "depth" not in report["message"]


def test_a_rig_without_the_depth_that_it_was_promised_goes_on_and_names_the_camera(ros, models, tmp_path):
    node = rig_node(ros, models, tmp_path, "/depth_rig_none", depth__enabled=True, depth__silent_s=0.05)
    assert node.bring_up()
    answers = ros.listen(HandArray, "/depth_rig_none/hands")
    images = [ros.publisher(Image, f"/depth_rig_none/cam{i}/image_raw") for i in (0, 1)]
    for count in range(1, 9):
        before = len(answers)
        for i, publisher in enumerate(images):
            header = Header(stamp=time_from_ns(count * 33 * MS), frame_id=f"cam{i}")
            publisher.publish(image_to_message(draw((330 - 100 * i, 240)), header))
        ros.until(lambda: len(answers) > before, "an answer")  # noqa: B023
    assert len(answers[-1].hands) == 1
    node.observe()
    report = diagnostics(node)
    assert "cam0 depth: no depth image on /depth_rig_none/cam0/depth/image_rect_raw" in report["message"]
    assert "cam1 depth: no depth image" in report["message"]
    assert report["cam0 depth_missing"] == report["cam1 depth_missing"] == "8"


WRONG = {
    "cam2": (True, "rig.depth names 'cam2', but the cameras of the rig are cam0, cam1"),
    "cam0": (False, "rig.depth names cameras, but depth.enabled is false"),
}


@pytest.mark.parametrize("depth", WRONG)
def test_depth_cameras_that_cannot_be_fail_to_configure(ros, models, tmp_path, depth, capfd):
    enabled, says = WRONG[depth]
    node = rig_node(ros, models, tmp_path, "/depth_wrong", rig__depth=depth, depth__enabled=enabled)
    assert not node.bring_up()
    assert says in capfd.readouterr().err and says in diagnostics(node)["message"]


def test_a_rig_with_depth_can_be_configured_again_and_leaves_no_timers(ros, models, tmp_path):
    node = rig_node(ros, models, tmp_path, "/depth_again", depth__enabled=True)
    before = len(list(node.timers))
    for _ in range(2):
        assert node.bring_up() and len(list(node.timers)) == before + 2
        node.trigger_deactivate()
        node.trigger_cleanup()
        assert len(list(node.timers)) == before
