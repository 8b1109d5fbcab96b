"""Nodes that cannot keep up: what they give up is applied, counted and said, and comes back. Stamps are the clock."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from blob_models import draw
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from ros_graph import diagnostics, node_command, process, write_blob_models
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from hand_tracking_ros.cameras import Camera
from hand_tracking_ros.msg import HandArray, HandModelInfo
from hand_tracking_ros.nodes.base import latched_qos
from hand_tracking_ros.nodes.conversions import image_to_message, stamp_ns, time_from_ns
from hand_tracking_ros.rig import Rig, RigCamera, save_rig

MS = 1_000_000
IMPOSSIBLE_S, PLENTY_S = 1e-6, 10.0
QUICK = {"budget__window_s": 0.5, "budget__recover_s": 0.5}


@pytest.fixture(scope="module")
def rig_file(tmp_path_factory) -> str:
    file = tmp_path_factory.mktemp("rig") / "rig.yaml"
    save_rig(file, Rig((RigCamera("eye", 640, 480, Camera(500.0, 500.0, 320.0, 240.0)),)))
    return str(file)


class Bench:
    """An active node fed with images 50 ms apart, each with a disc, one at a time."""

    def __init__(self, ros, name: str, namespace: str, topic: str, **parameters) -> None:
        self.ros, self.count = ros, 0
        self.node = ros.node(name, namespace, **parameters)
        assert self.node.bring_up()
        self.hands = ros.listen(HandArray, f"{namespace}/hands")
        self.models = ros.listen(HandModelInfo, f"{namespace}/model_info", latched_qos())
        self.images = ros.publisher(Image, f"{namespace}/{topic}")

    def run(self, count: int) -> dict[str, str]:
        """Send images, each once the last is done; the diagnostics after them."""
        for _ in range(count):
            self.count += 1
            header = Header(stamp=time_from_ns(self.count * 50 * MS), frame_id="eye")
            self.images.publish(image_to_message(draw((320, 240)), header))
            self.ros.until(lambda: self.node.statistics.frames + self.dropped == self.count, "the image")
        self.node.observe()
        return diagnostics(self.node)

    @property
    def dropped(self) -> int:
        return self.node._load._budget.dropped

    def allow(self, seconds: float) -> None:
        self.node.set_parameters([Parameter("budget.step_s", value=seconds)])

    def answered_ms(self) -> list[float]:
        return [stamp_ns(message.header.stamp) / MS for message in self.hands]


@pytest.mark.parametrize("name", ["hand_tracker_node", "rig_tracker_node"])
def test_levels_are_given_up_applied_said_and_taken_back(ros, models, rig_file, name):
    own = {"rig__file": rig_file} if name == "rig_tracker_node" else {}
    topic = "eye/image_raw" if own else "image_raw"
    bench = Bench(ros, name, f"/load_{name}", topic, **models, **own, **QUICK, budget__step_s=PLENTY_S)
    values = bench.run(12)
    assert values["load_level"] == "full" and values["load_dropped"] == "0" and values["level"] == "0"
    tracker, networks = bench.node._tracker, (bench.node._tracker.detector, bench.node._tracker.estimator)
    tracks = tracker._tracks[0] if own else tracker.tracks
    assert tracks.least_interval_s == 0.0

    bench.allow(IMPOSSIBLE_S)
    values = bench.run(12)
    assert values["load_level"] == "fewer_detections" and tracks.least_interval_s == 0.6
    assert "may take 0.0 ms" in values["load_reason"] and values["level"] == "1"
    assert "load: fewer detections: images took " in values["message"]

    bench.run(12)  # there are no smaller networks: half the rate comes next
    before, dropped = len(bench.hands), bench.dropped
    values = bench.run(20)
    ros.until(lambda: len(bench.hands) >= before + 10, "hands")
    assert values["load_level"] == "half_rate" and bench.dropped - dropped == 10
    assert len(bench.hands) - before == 10
    late = bench.answered_ms()[before:]
    assert {b - a for a, b in pairwise(late)} == {100.0}
    assert (tracker.detector, tracker.estimator) == networks

    bench.allow(PLENTY_S)
    values = bench.run(80)
    assert values["load_level"] == "full" and tracks.least_interval_s == 0.0 and values["level"] == "0"


def test_what_the_thread_does_between_images_counts_as_well(ros, models):
    """As reading large messages does."""
    budget = {"budget__step_s": 0.15, "budget__window_s": 0.1}
    bench = Bench(ros, "hand_tracker_node", "/load_reading", "image_raw", **models, **budget)
    assert bench.run(12)["load_level"] == "full"
    for _ in range(7):
        end_s = time.thread_time() + 0.2
        while time.thread_time() < end_s:
            pass
        values = bench.run(1)
    assert values["load_level"] != "full" and "and may take 150.0 ms" in values["load_reason"]


def test_smaller_networks_take_over_and_give_back(ros, models, tmp_path):
    small = {
        "budget__keypoints_model": write_blob_models(tmp_path)["keypoints.model"],
        "budget__detector_model": models["detector.model"],
    }
    bench = Bench(ros, "hand_tracker_node", "/load_small", "image_raw", **models, **QUICK, **small)
    full = bench.node._tracker.estimator
    bench.allow(IMPOSSIBLE_S)
    values = bench.run(24)
    assert values["load_level"] == "small_networks" and values["hands"] == "1"
    tracker = bench.node._tracker
    assert tracker.estimator is not full and str(tmp_path) in str(tracker.estimator.manifest.file)
    ros.until(lambda: len(bench.models) == 2, "the change of networks to be announced")
    bench.node.set_parameters([Parameter("keypoints.crop_scale", value=1.7)])
    bench.run(1)
    assert tracker.estimator.config.crop_scale == 1.7
    bench.node.set_parameters([Parameter("budget.enabled", value=False)])
    values = bench.run(30)
    assert values["load_level"] == "full" and bench.dropped == 0
    assert tracker.estimator is full and full.config.crop_scale == 1.7


def small_beside(manifest: Path) -> Path:
    """The manifest of the same network as the small one of ``manifest``."""
    beside = manifest.with_name(f"{manifest.stem}_small.yaml")
    beside.write_text(manifest.read_text().replace(f"name: {manifest.stem}", f"name: {beside.stem}"))
    return beside


def test_the_small_network_beside_a_model_is_the_one_to_change_to(ros, tmp_path):
    models = write_blob_models(tmp_path)
    beside = small_beside(Path(models["keypoints.model"]))
    bench = Bench(ros, "hand_tracker_node", "/load_auto", "image_raw", **models, **QUICK, budget__step_s=IMPOSSIBLE_S)
    full, detector = bench.node._tracker.estimator, bench.node._tracker.detector
    assert bench.run(24)["load_level"] == "small_networks"
    assert bench.node._tracker.estimator.manifest.path == beside != full.manifest.path
    assert bench.node._tracker.detector is detector, "it has no small one beside it"


def test_a_node_that_is_interrupted_while_smaller_networks_run_ends_cleanly(ros, tmp_path):
    models = write_blob_models(tmp_path)
    beside = small_beside(Path(models["keypoints.model"]))
    quick = {name.replace("__", "."): value for name, value in QUICK.items()}
    settings = {**models, **quick, "budget.step_s": 0.0001, "autostart": True}
    command, log = node_command("hand_tracker_node", "/load_end", settings), tmp_path / "node.log"
    running = ros.listen(HandModelInfo, "/load_end/model_info", latched_qos())
    with process(command, log) as node:
        images, count = ros.publisher(Image, "/load_end/image_raw"), 0

        def small_networks_run() -> bool:
            nonlocal count
            count += 1
            header = Header(stamp=time_from_ns(count * 50 * MS), frame_id="eye")
            images.publish(image_to_message(draw((320, 240)), header))
            return bool(running) and beside.stem in {model.name for model in running[-1].models}

        ros.until(small_networks_run, "the smaller networks")
        assert node.poll() is None
    assert node.returncode == 0 and "Traceback" not in log.read_text()


def test_a_smaller_network_that_is_not_there_fails_the_configure_transition(ros, models, capfd):
    node = ros.node("hand_tracker_node", "/load_bad", **models, budget__keypoints_model="nowhere.yaml")
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert "nowhere.yaml" in capfd.readouterr().err


def test_after_a_pause_nothing_is_given_up(ros, models):
    bench = Bench(ros, "hand_tracker_node", "/load_pause", "image_raw", **models, **QUICK, budget__step_s=IMPOSSIBLE_S)
    assert bench.run(40)["load_level"] == "half_rate"
    assert bench.node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    assert bench.node._load._budget.level.name == "FULL" and bench.node._tracker.tracks.least_interval_s == 0.0
    assert bench.node.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
