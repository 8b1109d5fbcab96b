"""rig_tracker_node: several cameras in, hands in the rig's frame out; what is wrong with a camera is said."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from blob_models import draw
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.parameter import Parameter
from ros_graph import diagnostics, node_command, process
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from hand_tracking_ros.cameras import Camera
from hand_tracking_ros.hand_size import HandSize, load_hand_size, save_hand_size
from hand_tracking_ros.msg import HandArray
from hand_tracking_ros.nodes.conversions import image_to_message, stamp_ns, stamp_s, time_from_ns
from hand_tracking_ros.nodes.hand_messages import hands_from_message
from hand_tracking_ros.paths import models_directory
from hand_tracking_ros.rig import Rig, RigCamera, rig_from_text, save_rig
from hand_tracking_ros.sources import open_source
from hand_tracking_ros.types import Scale

DATA = Path(os.environ.get("HAND_TRACKING_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
FOLDER = DATA / "videos" / "stereo_desk"
MODELS = [models_directory() / f"{name}.yaml" for name in ("detnet", "keynet")]
MS = 1_000_000
BASE_M = 0.1  # the second camera stands to the right of the first


@pytest.fixture(scope="module")
def rig_file(tmp_path_factory) -> str:
    lens = Camera(500.0, 500.0, 320.0, 240.0)
    second = RigCamera("cam1", 640, 480, replace(lens), translation_m=np.array([-BASE_M, 0.0, 0.0]))
    file = tmp_path_factory.mktemp("rig") / "rig.yaml"
    save_rig(file, Rig((RigCamera("cam0", 640, 480, lens), second)))
    return str(file)


class RigOnTheBench:
    """An active rig_tracker_node, fed by hand."""

    def __init__(self, ros, namespace: str, parameters: dict) -> None:
        self.ros = ros
        self.node = ros.node("rig_tracker_node", namespace, **parameters)
        assert self.node.bring_up()
        self.hands = ros.listen(HandArray, f"{namespace}/hands")
        self.images = [ros.publisher(Image, f"{namespace}/cam{i}/image_raw") for i in (0, 1)]
        self.count = 0

    def send(self, *cameras: int, apart_ms: float = 0.0, size=(640, 480)) -> HandArray:
        """The next image of ``cameras``, of a disc 0.5 m away; the answer to it."""
        before = len(self.hands)
        self.count += 1
        for order, camera in enumerate(cameras):
            stamp = time_from_ns(int((self.count * 33 + order * apart_ms) * MS))
            header = Header(stamp=stamp, frame_id=f"cam{camera}")
            image = draw((330 - 500 * BASE_M * camera / 0.5, 240), size=size)
            self.images[camera].publish(image_to_message(image, header))
        self.ros.until(lambda: len(self.hands) > before, "hands")
        return self.hands[-1]


def test_two_cameras_answer_together_in_the_rigs_frame(ros, models, rig_file):
    bench = RigOnTheBench(ros, "/rig_both", {**models, "rig__file": rig_file, "rig__wait_s": 1.0})
    for _ in range(12):
        answer = bench.send(0, 1, apart_ms=5)
    assert len(bench.hands) == 12  # one per pair
    assert answer.header.frame_id == "rig" and stamp_ns(answer.header.stamp) == (12 * 33 + 5) * MS
    assert (answer.image_width, answer.image_height) == (640, 480)
    (hand,) = hands_from_message(answer)
    assert hand.scale in (Scale.ASSUMED, Scale.MEASURED) and np.isfinite(hand.points_3d).all()
    assert hand.points_3d[:, 2].mean() == pytest.approx(0.5, abs=0.1)  # the baseline says so, not the size of the blob
    assert diagnostics(bench.node)["cameras"] == "2"


def test_a_camera_that_never_comes_is_not_waited_for_and_is_named(ros, models, rig_file):
    bench = RigOnTheBench(ros, "/rig_one", {**models, "rig__file": rig_file, "rig__silent_s": 0.1})
    reports = ros.listen(DiagnosticArray, "/diagnostics")
    answer = bench.send(0)
    assert len(answer.hands) == 1 and answer.hands[0].scale == Scale.ASSUMED
    for _ in range(3):
        bench.send(0)

    def says() -> str:
        bench.send(0)
        return reports[-1].status[0].message if reports else ""

    ros.until(lambda: "cam1: no image for" in says(), "a report about the camera that is missing")
    values = {value.key: value.value for value in reports[-1].status[0].values}
    assert values["cam0 images"] != "0" and values["cam1 images"] == "0" and values["hand_size"] == "assumed"
    assert reports[-1].status[0].level == b"\1"
    bench.send(0, 1)
    ros.until(lambda: "cam1: no image" not in says() or bench.send(0, 1) is None, "the camera to be there again")


def test_images_of_another_size_are_counted_and_explained(ros, models, rig_file):
    bench = RigOnTheBench(ros, "/rig_size", {**models, "rig__file": rig_file, "rig__silent_s": 0.1})
    header = Header(stamp=time_from_ns(1), frame_id="cam1")
    bench.images[1].publish(image_to_message(draw((300, 200), size=(800, 600)), header))
    ros.until(lambda: diagnostics(bench.node)["skipped"] == "1", "the image to be counted")
    (reason,) = [key for key in diagnostics(bench.node) if key.startswith("skipped: ")]
    assert "camera 'cam1' sends images of 800x600" in reason and "640x480" in reason
    assert len(bench.send(0).hands) == 1  # the other one goes on


BAD_RIGS = {
    "": "the parameter rig.file is not set",
    "nowhere.yaml": "cannot read rig nowhere.yaml",
}


@pytest.mark.parametrize("file", BAD_RIGS)
def test_without_a_rig_the_node_does_not_configure_and_says_why(ros, models, capfd, file):
    node = ros.node("rig_tracker_node", f"/rig_bad_{bool(file)}", **models, rig__file=file)
    assert not node.bring_up()
    assert BAD_RIGS[file] in capfd.readouterr().err and BAD_RIGS[file] in diagnostics(node)["message"]


def test_a_camera_whose_name_makes_no_topic_is_refused(ros, models, tmp_path, capfd):
    save_rig(tmp_path / "rig.yaml", Rig((RigCamera("left eye", 640, 480, Camera(500.0, 500.0, 320.0, 240.0)),)))
    assert not ros.node("rig_tracker_node", "/rig_name", **models, rig__file=str(tmp_path / "rig.yaml")).bring_up()
    assert "'left eye'" in capfd.readouterr().err


@pytest.mark.parametrize("name", ["hand_tracker_node", "filter_node", "rig_tracker_node"])
def test_the_size_of_the_hands_is_saved_reset_and_loaded(ros, models, rig_file, tmp_path, name):
    namespace, file = f"/size_{name}", tmp_path / "me.yaml"
    parameters = {"filter_node": {}, "hand_tracker_node": models}
    node = ros.node(name, namespace, **parameters.get(name, {**models, "rig__file": rig_file}))

    def call(service: str) -> tuple[bool, str]:
        answer = ros.call(Trigger, f"{namespace}/{name}/{service}_hand_size", Trigger.Request())
        return answer.success, answer.message

    assert call("save") == (False, "the node is not configured")
    assert node.bring_up()
    success, text = call("save")
    assert not success and "not measured so far (palm 88.0 mm" in text
    hand_filter = node._filter if name == "filter_node" else node._tracker.filter
    hand_filter.size = HandSize(0.08, 0.01)  # as after some seconds with two cameras
    success, text = call("save")
    assert not success and "set the parameter hand_size.file" in text
    node.set_parameters([Parameter("hand_size.file", value=str(file))])
    success, text = call("save")
    assert success and "80.0 mm" in text and load_hand_size(file) == HandSize(0.08, 0.01)
    node.observe()
    assert diagnostics(node)["hand_size"] == "measured" and diagnostics(node)["palm_m"] == "0.08"
    assert call("reset")[0] and hand_filter.size == HandSize(0.088)


def test_a_size_file_is_loaded_and_a_missing_one_fails_to_configure(ros, models, tmp_path, capfd):
    save_hand_size(tmp_path / "me.yaml", HandSize(0.08, 0.01))
    node = ros.node("hand_tracker_node", "/size_loaded", **models, pose__size_file=str(tmp_path / "me.yaml"))
    assert node.bring_up() and node._tracker.filter.size == HandSize(0.08, 0.01)
    other = ros.node("hand_tracker_node", "/size_missing", **models, pose__size_file=str(tmp_path / "you.yaml"))
    assert not other.bring_up()
    assert "cannot read hand size" in capfd.readouterr().err
    assert "'hand-tracking size' writes one" in diagnostics(other)["message"]


# Real videos, and the node in a process of its own


@pytest.mark.skipif(not all(path.is_file() for path in MODELS), reason="needs the models detnet and keynet in models/")
@pytest.mark.skipif(not FOLDER.is_dir(), reason="needs ../shared/data/videos/stereo_desk (or HAND_TRACKING_DATA)")
def test_two_videos_make_metric_hands_and_one_that_dies_only_degrades_them(ros, tmp_path):
    rig = rig_from_text(
        [FOLDER / "c0.dat", FOLDER / "c1.dat"],
        [FOLDER / "rot_trans_c0.dat", FOLDER / "rot_trans_c1.dat"],
        (720, 720),
        0.042,
    )
    save_rig(tmp_path / "rig.yaml", rig)
    hands = ros.listen(HandArray, "/stereo/hands")
    reports = ros.listen(DiagnosticArray, "/diagnostics")

    def status() -> dict[str, str]:
        own = [m.status[0] for m in reports if m.status[0].name == "stereo/rig_tracker_node"]
        return {v.key: v.value for v in own[-1].values} | {"message": own[-1].message} if own else {}

    def measured() -> list:
        newest = [hand for message in hands[-10:] for hand in hands_from_message(message)]
        return [hand for hand in newest if hand.scale == Scale.MEASURED]

    values = {"rig.file": str(tmp_path / "rig.yaml"), "hand_size.file": str(tmp_path / "me.yaml"), "rig.wait_s": 0.5}
    command = node_command("rig_tracker_node", "/stereo", {"track.max_hands": 1, **values, "autostart": True})
    with process(command, tmp_path / "rig.log") as rig_node:
        ros.until(lambda: status().get("state") == "active", "the rig node")
        clips = [open_source(str(FOLDER / f"cam{i}.mp4"), pace="fast", loop=True) for i in (0, 1)]
        images = [ros.publisher(Image, f"/stereo/cam{i}/image_raw") for i in (0, 1)]

        def show(*cameras: int) -> bool:
            """Send the next image of these cameras, taken at the same moment; False when none was answered."""
            before, end = len(hands), time.monotonic() + 3.0
            for i, shown in ((i, clips[i].read()) for i in cameras):
                header = Header(stamp=time_from_ns(int(shown.stamp_s * 1e9) + MS), frame_id=f"cam{i}")
                images[i].publish(image_to_message(shown.image, header))
            while len(hands) == before and time.monotonic() < end:
                ros.spin(0.01)
            return len(hands) > before

        ros.until(lambda: show(0, 1) and len(measured()) >= 3, "hands of measured size")
        (header,) = {message.header.frame_id for message in hands}
        assert header == "rig"
        stamps = [stamp_s(message.header.stamp) for message in hands]
        hand = measured()[-1]
        assert 0.3 < hand.points_3d[:, 2].mean() < 3.0 and 0.06 < hand.pose.palm_m < 0.11
        ros.until(lambda: show(0, 1) and status().get("hand_size") == "measured", "a report of it")
        assert status()["cameras"] == "2"
        assert stamps == sorted(stamps)
        answer = ros.call(Trigger, "/stereo/rig_tracker_node/save_hand_size", Trigger.Request())
        assert answer.success, answer.message
        assert load_hand_size(tmp_path / "me.yaml").palm_m == pytest.approx(measured()[-1].pose.palm_m, abs=0.01)

        ros.until(lambda: show(0) and "cam1: no image for" in status().get("message", ""), "a warning about cam1")
        count = len(hands)
        ros.until(lambda: show(0) and len(hands) > count + 10 and measured(), "hands of one camera, measured")
        assert status()["cameras"] == "1" and rig_node.poll() is None
    assert rig_node.returncode == 0
