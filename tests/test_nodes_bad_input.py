"""Bad input: a clear message, and a failed transition or one skipped frame that is counted. Nothing dies."""

from __future__ import annotations

import math
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from blob_models import draw, hand_at
from rclpy.lifecycle import TransitionCallbackReturn
from ros_graph import Ros, diagnostics, write_blob_models, write_clip
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, RegionOfInterest
from std_msgs.msg import Header

from hand_tracking_ros.calibration import Calibration, save_camera_yaml
from hand_tracking_ros.geometry import box_around
from hand_tracking_ros.msg import HandArray, HandBox, HandBoxArray, HandKeypoints, HandKeypointsArray
from hand_tracking_ros.nodes.base import image_qos, result_qos
from hand_tracking_ros.nodes.conversions import (
    boxes_to_message,
    image_to_message,
    keypoints_to_message,
    stamp_ns,
    time_from_ns,
)
from hand_tracking_ros.nodes.diagnostics import Statistics
from hand_tracking_ros.nodes.image_input import CameraInput
from hand_tracking_ros.types import HandBox as KnownBox
from hand_tracking_ros.types import HandKeypoints as Keypoints
from hand_tracking_ros.types import Scale, Source

WIDTH, HEIGHT = 640, 480
MS = 1_000_000


class Tracker:
    """An active tracker node, fed by hand."""

    def __init__(
        self, ros: Ros, namespace: str, parameters: dict, message_type=Image, topic: str = "image_raw"
    ) -> None:
        self.ros = ros
        self.node = ros.node("hand_tracker_node", namespace, **parameters)
        assert self.node.bring_up()
        self.hands = ros.listen(HandArray, f"{namespace}/hands")
        self.images = ros.publisher(message_type, f"{namespace}/{topic}")
        self.infos = ros.publisher(CameraInfo, f"{namespace}/camera_info")
        self.count = 0

    def header(self) -> Header:
        self.count += 1
        return Header(stamp=time_from_ns(self.count * 33 * MS), frame_id="camera_optical_frame")

    def good_image(self) -> Image:
        return image_to_message(draw((300, 240)), self.header())

    def send_good(self) -> HandArray:
        """A good image must be answered, whatever came before."""
        before, image = len(self.hands), self.good_image()
        self.images.publish(image)
        self.ros.until(lambda: len(self.hands) > before, "the hands of a good image")
        assert self.hands[-1].header == image.header
        return self.hands[-1]


def unknown_encoding(image: Image) -> None:
    image.encoding = "mono7"


def truncated(image: Image) -> None:
    image.data = image.data[: WIDTH * 100]


def zero_size(image: Image) -> None:
    image.width = image.height = image.step = 0
    image.data = b""


def wrong_step(image: Image) -> None:
    image.step = WIDTH - 7


BAD_IMAGES = [
    (unknown_encoding, ["unknown image encoding 'mono7'", "supported: mono8"]),
    (truncated, ["mono8 image of 640x480", "truncated", "expected 307200 bytes", "got 64000"]),
    (zero_size, ["0x0", "zero size", "camera driver"]),
    (wrong_step, ["step is 633 bytes", "one row needs 640"]),
]


@pytest.mark.parametrize(("damage", "says"), BAD_IMAGES, ids=[row[0].__name__ for row in BAD_IMAGES])
def test_a_bad_image_is_skipped_counted_and_explained(ros, models, capfd, damage, says):
    tracker = Tracker(ros, f"/{damage.__name__}", models)
    tracker.send_good()
    bad = tracker.good_image()
    damage(bad)
    tracker.images.publish(bad)
    ros.until(lambda: diagnostics(tracker.node)["skipped"] == "1", "the bad image to be counted")
    report = diagnostics(tracker.node)
    (reason,) = [key for key in report if key.startswith("skipped: ")]
    log = capfd.readouterr().err
    for words in says:
        assert words in reason and words in log
    assert "skipped 1 frames" in report["message"]
    assert len(tracker.send_good().hands) == 1 and len(tracker.hands) == 2  # and it goes on, with a hand


def test_a_damaged_compressed_image_is_skipped(ros, models):
    import cv2

    tracker = Tracker(
        ros, "/jpeg", {**models, "image__transport": "compressed"}, CompressedImage, "image_raw/compressed"
    )
    data = cv2.imencode(".jpg", draw((300, 240)))[1].tobytes()
    tracker.images.publish(CompressedImage(header=tracker.header(), format="jpeg", data=data[:300]))
    ros.until(lambda: diagnostics(tracker.node)["skipped"] == "1", "the damaged image to be counted")
    tracker.images.publish(CompressedImage(header=tracker.header(), format="jpeg", data=data))
    ros.until(lambda: len(tracker.hands) == 1, "hands in the good image")
    assert len(tracker.hands[0].hands) == 1


def test_a_black_image_is_a_frame_without_hands(ros, models):
    tracker = Tracker(ros, "/black", models)
    tracker.images.publish(image_to_message(np.zeros((HEIGHT, WIDTH), np.uint8), tracker.header()))
    ros.until(lambda: len(tracker.hands) == 1, "an answer")
    assert tracker.hands[0].hands == [] and diagnostics(tracker.node)["skipped"] == "0"


def test_nan_in_camera_info_is_reported_once_and_3d_stays_relative(ros, models, capfd):
    tracker = Tracker(ros, "/nan", models)
    k = [500.0, 0.0, 320.0, 0.0, 500.0, 240.0, 0.0, 0.0, 1.0]
    for _ in range(3):
        info = CameraInfo(header=tracker.header(), width=WIDTH, height=HEIGHT, k=[math.nan, *k[1:]])
        tracker.infos.publish(info)
    ros.until(lambda: diagnostics(tracker.node).get("camera_info_errors") == "3", "camera_info to be counted")
    assert tracker.send_good().hands[0].scale == Scale.RELATIVE
    assert capfd.readouterr().err.count("not finite") == 1
    assert "not finite" in diagnostics(tracker.node)["message"]
    tracker.infos.publish(CameraInfo(header=tracker.header(), width=WIDTH, height=HEIGHT, k=k))
    ros.until(lambda: diagnostics(tracker.node)["camera"] == "calibrated", "the good camera_info")
    assert tracker.send_good().hands[0].scale == Scale.ASSUMED
    assert "not finite" not in diagnostics(tracker.node)["message"]


BAD_LENSES = [
    ({"distortion_model": "plumb_bob", "d": [0.1, 0.2, 0.3]}, "'plumb_bob' needs 4 or 5 values in D, got 3"),
    ({"distortion_model": "magic", "d": [0.1] * 5}, "distortion_model 'magic' is not supported"),
    ({"distortion_model": "equidistant", "d": [math.nan] * 4}, "D has values that are not finite"),
]


@pytest.mark.parametrize(("lens", "says"), BAD_LENSES, ids=["length", "model", "nan"])
def test_a_bad_lens_in_camera_info_is_counted_and_tracking_goes_on_without_a_camera(ros, models, capfd, lens, says):
    tracker = Tracker(ros, f"/lens_{len(lens['d'])}_{lens['distortion_model']}", models)
    k = [300.0, 0.0, 319.5, 0.0, 300.0, 239.5, 0.0, 0.0, 1.0]
    for _ in range(2):
        tracker.infos.publish(CameraInfo(header=tracker.header(), width=WIDTH, height=HEIGHT, k=k, **lens))
    ros.until(lambda: diagnostics(tracker.node).get("camera_info_errors") == "2", "camera_info to be counted")
    assert tracker.send_good().hands[0].scale == Scale.RELATIVE
    assert says in capfd.readouterr().err and says in diagnostics(tracker.node)["message"]
    good = {"distortion_model": "equidistant", "d": [0.02, -0.01, 0.0, 0.0]}
    tracker.infos.publish(CameraInfo(header=tracker.header(), width=WIDTH, height=HEIGHT, k=k, **good))
    ros.until(lambda: diagnostics(tracker.node)["camera"] == "calibrated", "the good camera_info")
    assert tracker.send_good().hands[0].scale == Scale.ASSUMED


def test_time_that_jumps_back_starts_afresh(ros, models):
    tracker = Tracker(ros, "/jump", models)
    tracker.count = 1000
    first = tracker.send_good().hands[0].id
    assert tracker.send_good().hands[0].id == first
    tracker.count = 0
    assert tracker.send_good().hands[0].id > first
    assert diagnostics(tracker.node)["lost"] == "0"


def test_without_camera_info_an_image_of_another_size_is_taken(ros, models):
    tracker = Tracker(ros, "/size", models)
    tracker.send_good()
    tracker.images.publish(image_to_message(draw((300, 200), size=(800, 600)), tracker.header()))
    ros.until(lambda: len(tracker.hands) == 2, "an answer to the larger image")
    assert (tracker.hands[1].image_width, tracker.hands[1].image_height) == (800, 600)


def info(width: int, height: int, **changes) -> CameraInfo:
    k = [500.0, 0.0, width / 2, 0.0, 500.0, height / 2, 0.0, 0.0, 1.0]
    return CameraInfo(width=width, height=height, k=k, **changes)


def test_images_of_another_size_than_camera_info_get_no_metres_and_a_change_of_both_recovers(ros, models, capfd):
    tracker = Tracker(ros, "/misfit", models)

    def state(stated: CameraInfo) -> None:
        tracker.infos.publish(stated)
        ros.until(lambda: tracker.node._camera.size_wh == (stated.width, stated.height), "camera_info")

    def answer(size: tuple[int, int]) -> int:
        before = len(tracker.hands)
        tracker.images.publish(image_to_message(draw((300, 200), size=size), tracker.header()))
        ros.until(lambda: len(tracker.hands) > before, "an answer")
        (hand,) = tracker.hands[-1].hands
        assert np.isfinite(hand.points_3d[9].z)
        return hand.scale

    state(info(1280, 720))
    assert [answer((640, 480)) for _ in range(3)] == [Scale.RELATIVE] * 3
    problem = "images are 640x480, but /misfit/camera_info is for 1280x720: set the camera to the calibrated size"
    assert problem in diagnostics(tracker.node)["message"] and capfd.readouterr().err.count(problem) == 1
    state(info(640, 480))
    assert [answer((640, 480)) for _ in range(3)] == [Scale.ASSUMED] * 3
    assert "image size" not in diagnostics(tracker.node)["message"]
    assert answer((800, 600)) == Scale.RELATIVE  # the images change first, then camera_info
    state(info(800, 600))
    assert answer((800, 600)) == Scale.ASSUMED and "image size" not in diagnostics(tracker.node)["message"]
    state(info(640, 480))
    assert answer((800, 600)) == Scale.RELATIVE  # no metres of a pose from before
    assert answer((640, 480)) == Scale.ASSUMED and diagnostics(tracker.node)["skipped"] == "0"


def test_the_size_of_images_follows_from_roi_and_binning():
    node = SimpleNamespace(
        statistics=Statistics(), resolve_topic_name=lambda name: f"/{name}", get_logger=None, warn=lambda text: None
    )
    camera = CameraInput(node)
    camera._on_info(info(2049, 1536, binning_x=2, binning_y=2))
    assert camera.fitting((768, 1024)).fx == camera.fitting((768, 1025)).fx == 250.0  # drivers round up or down
    assert camera.fitting((1536, 2049)) is None and "is for 1024x768" in node.statistics.problems["image size"]
    camera._on_info(info(1280, 720, roi=RegionOfInterest(x_offset=320, y_offset=120, width=640, height=480)))
    assert camera.fitting((480, 640)).cx == 320.5 and camera.fitting((720, 1280)) is None
    camera._on_info(info(0, 0))  # says nothing
    assert camera.fitting((480, 640)) is camera.camera and node.statistics.problems == {}


@pytest.mark.parametrize("name", ["keypoint_node", "filter_node"])
def test_stage_nodes_report_images_of_another_size_than_camera_info(ros, models, name):
    namespace = f"/misfit_{name}"
    node = ros.node(name, namespace, **(models if name == "keypoint_node" else {}))
    assert node.bring_up()
    ros.publisher(CameraInfo, f"{namespace}/camera_info").publish(info(1280, 720))
    ros.until(lambda: diagnostics(node).get("camera") == "calibrated", "camera_info")
    header, points = Header(stamp=time_from_ns(5 * MS)), hand_at(300, 240)
    box = KnownBox(box_around(points), 0.9, id=1, source=Source.PROPAGATED)
    if name == "keypoint_node":
        images = ros.publisher(Image, f"{namespace}/image_raw")
        boxes = ros.publisher(HandBoxArray, f"{namespace}/boxes", qos=result_qos())
        images.publish(image_to_message(draw((300, 240)), header))
        boxes.publish(boxes_to_message([box], header, WIDTH, HEIGHT))
    else:
        hands = ros.listen(HandArray, f"{namespace}/hands")
        keypoints = ros.publisher(HandKeypointsArray, f"{namespace}/keypoints", qos=result_qos())
        seen = Keypoints(1, box.box, Source.PROPAGATED, points, np.ones(21), np.zeros(21), 1.0, 0.9)
        keypoints.publish(keypoints_to_message([seen], header, WIDTH, HEIGHT))
        ros.until(lambda: hands, "hands")
        assert hands[0].hands[0].scale == Scale.RELATIVE
    ros.until(lambda: diagnostics(node)["frames"] == "1", "a frame")
    wanted = f"image size: images are 640x480, but {namespace}/camera_info is for 1280x720"
    assert diagnostics(node)["message"].startswith(wanted)


def missing_file(folder):
    (folder / "blob_keynet.onnx").unlink()


def corrupted_file(folder):
    data = bytearray((folder / "blob_keynet.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "blob_keynet.onnx").write_bytes(bytes(data))


def broken_manifest(folder):
    (folder / "blob_keynet.yaml").write_text("name: [")


BAD_MODELS = [
    (missing_file, ["blob_keynet.onnx is missing", "hand-tracking models verify"]),
    (corrupted_file, ["sha256 is", "expected", "hand-tracking models verify"]),
    (broken_manifest, ["blob_keynet.yaml is not valid YAML"]),
]


@pytest.mark.parametrize(("damage", "says"), BAD_MODELS, ids=[row[0].__name__ for row in BAD_MODELS])
@pytest.mark.parametrize("name", ["hand_tracker_node", "keypoint_node"])
def test_a_bad_model_fails_the_configure_transition(ros, tmp_path, capfd, name, damage, says):
    values = write_blob_models(tmp_path)
    damage(tmp_path)
    node = ros.node(name, "/model", **values)
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    log = capfd.readouterr().err
    assert "configure failed" in log and all(words in log for words in says)
    assert diagnostics(node)["state"] == "unconfigured" and "configure: " in diagnostics(node)["message"]


def test_a_model_that_is_put_right_can_be_configured(ros, tmp_path):
    values = write_blob_models(tmp_path)
    shutil.move(tmp_path / "blob_detnet.onnx", tmp_path / "elsewhere.onnx")
    node = ros.node("detector_node", "/mended", **values)
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    shutil.move(tmp_path / "elsewhere.onnx", tmp_path / "blob_detnet.onnx")
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS


def test_an_unknown_model_or_a_wrong_one_fails_the_configure_transition(ros, models, capfd):
    node = ros.node("detector_node", "/unknown", detector__model="palmnet")
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert "unknown model 'palmnet'" in capfd.readouterr().err
    node = ros.node("detector_node", "/swapped", detector__model=models["keypoints.model"])
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert "is for task 'keypoints'" in capfd.readouterr().err


BAD_SOURCES = [
    ("/dev/video97", "no camera /dev/video97; present:"),
    ("nowhere.mp4", "no such source: nowhere.mp4"),
    ("gst:videotestsrc", "cannot open GStreamer pipeline 'videotestsrc'"),
]


@pytest.mark.parametrize(("source", "says"), BAD_SOURCES, ids=[row[0] for row in BAD_SOURCES])
def test_a_missing_camera_fails_the_configure_transition(ros, capfd, source, says):
    node = ros.node("camera_node", "/missing", camera__source=source)
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert says in capfd.readouterr().err


def test_a_bad_calibration_fails_the_configure_transition(ros, tmp_path, capfd):
    write_clip(tmp_path / "clip", count=1)
    node = ros.node("camera_node", "/cal", camera__source=str(tmp_path / "clip"), camera__calibration="nowhere.yaml")
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert "cannot read camera calibration nowhere.yaml" in capfd.readouterr().err


def test_a_damaged_image_of_a_folder_is_passed_over(ros, tmp_path, capfd):
    """The second of three images is damaged: it is counted, and the third comes at its own time."""
    folder = tmp_path / "clip"
    write_clip(folder, count=3)
    (folder / "0001.png").write_bytes(b"not an image")
    images = ros.listen(Image, "/past/image_raw", image_qos(10, reliable=True))
    parameters = {"camera__wait_for_subscribers": 1, "camera__reliable": True, "camera__fps": 10.0}
    node = ros.node("camera_node", "/past", camera__source=str(folder), **parameters)
    assert node.bring_up()
    ros.until(lambda: "(ended)" in diagnostics(node)["source"] and len(images) == 2, "the end of the clip")
    first, last = (stamp_ns(image.header.stamp) for image in images)
    assert last - first == pytest.approx(0.2e9, abs=1e3)
    report = diagnostics(node)
    assert (report["frames"], report["skipped"], report["reconnects"]) == ("2", "1", "0")
    assert "cannot read image" in capfd.readouterr().err


class _Stream(BaseHTTPRequestHandler):
    """A network camera that breaks off after some images, again and again."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
        self.end_headers()
        jpeg = cv2.imencode(".jpg", draw((300, 240)))[1].tobytes()
        for _ in range(8):
            self.wfile.write(b"--next\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg))
            self.wfile.write(jpeg + b"\r\n")

    def log_message(self, *_) -> None:
        pass


def test_a_stream_that_breaks_off_is_opened_again(ros, capfd):
    with ThreadingHTTPServer(("127.0.0.1", 0), _Stream) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        source = f"http://127.0.0.1:{server.server_port}/stream.mjpg"
        images = ros.listen(Image, "/again/image_raw", image_qos(10))
        node = ros.node("camera_node", "/again", camera__source=source, camera__reconnect_s=0.05)
        assert node.bring_up()
        ros.until(lambda: int(diagnostics(node)["reconnects"]) >= 2, "two attempts")
        before = len(images)
        ros.until(lambda: len(images) > before, "images of another attempt")
        assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
        server.shutdown()
    assert "stopped delivering images" in capfd.readouterr().err and "source" not in node.statistics.problems


def test_a_calibration_for_another_size_is_reported_and_left_out(ros, tmp_path):
    write_clip(tmp_path / "clip", count=2)
    K = (500.0, 0.0, 160.0, 0.0, 500.0, 120.0, 0.0, 0.0, 1.0)
    P = (500.0, 0.0, 160.0, 0.0, 0.0, 500.0, 120.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    small = Calibration("small", 320, 240, "plumb_bob", (0.0,) * 5, K, (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0), P)
    save_camera_yaml(tmp_path / "small.yaml", small)
    parameters = {"camera__source": str(tmp_path / "clip"), "camera__calibration": str(tmp_path / "small.yaml")}
    infos = ros.listen(CameraInfo, "/other_size/camera_info", image_qos(10))
    node = ros.node("camera_node", "/other_size", camera__loop=True, **parameters)
    assert node.bring_up()
    ros.until(lambda: infos, "camera_info")
    assert not any(infos[0].k) and (infos[0].width, infos[0].height) == (WIDTH, HEIGHT)
    problem = diagnostics(node)["message"]
    assert "calibration is for 320x240 images, but these are 640x480" in problem
    assert "set camera.width to 320 and camera.height to 240 if they are the same but scaled" in problem


def test_stage_nodes_survive_nonsense_from_other_stages(ros, models):
    """Boxes and keypoints that are not finite are skipped, and the node still works afterwards."""
    keypoint_node = ros.node("keypoint_node", "/nonsense", **models)
    filter_node = ros.node("filter_node", "/nonsense")
    assert keypoint_node.bring_up() and filter_node.bring_up()
    hands = ros.listen(HandArray, "/nonsense/hands")
    images = ros.publisher(Image, "/nonsense/image_raw")
    boxes = ros.publisher(HandBoxArray, "/nonsense/boxes", qos=result_qos())
    keypoints = ros.publisher(HandKeypointsArray, "/nonsense/keypoints", qos=result_qos())
    header = Header(stamp=time_from_ns(5 * MS))
    bad_box = HandBox(source=1, id=1)
    bad_box.box.center_px.x = math.nan
    images.publish(image_to_message(draw((300, 240)), header))
    boxes.publish(HandBoxArray(header=header, boxes=[bad_box]))
    ros.until(lambda: diagnostics(keypoint_node)["skipped"] == "1", "the bad box to be counted")
    keypoints.publish(HandKeypointsArray(header=header, hands=[HandKeypoints(source=9)]))
    ros.until(lambda: diagnostics(filter_node)["skipped"] == "1", "the bad keypoints to be counted")
    keypoints.publish(HandKeypointsArray(header=header))
    ros.until(lambda: len(hands) == 1, "an answer to good keypoints")


def test_images_with_one_stamp_are_reported(ros, models):
    """A driver that stamps nothing sends 0 all the time: the first image is tracked, and why no other is said."""
    tracker = Tracker(ros, "/unstamped", models)
    for _ in range(3):
        tracker.images.publish(image_to_message(draw((300, 240)), Header(frame_id="eye")))
        ros.spin(0.1)
    ros.until(lambda: diagnostics(tracker.node)["skipped"] == "2", "the others to be counted")
    assert "the camera's driver has to stamp every image" in diagnostics(tracker.node)["message"]
    assert len(tracker.hands) == 1


def test_requests_whose_images_never_come_do_not_pile_up(ros, models):
    node = ros.node("keypoint_node", "/never", **models)
    assert node.bring_up()
    boxes = ros.publisher(HandBoxArray, "/never/boxes", result_qos())
    known = [KnownBox(box_around(hand_at(300, 240)), 1.0, 0.5, 1, Source.DETECTED)]
    for count in range(40):
        boxes.publish(boxes_to_message(known, Header(stamp=time_from_ns((count + 1) * 33 * MS)), WIDTH, HEIGHT))
        ros.spin(0.01)
    ros.until(lambda: int(diagnostics(node)["skipped"]) >= 20, "requests given up")
    assert "never arrived" in diagnostics(node)["message"] and len(node._pairing._requests) <= 16
