"""Real processes: a clip through camera_node and both graphs, observed from this process."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from blob_models import hand_at
from diagnostic_msgs.msg import DiagnosticArray
from ros_graph import ENVIRONMENT, FRAMES, node_command, process, write_blob_models, write_clip
from sensor_msgs.msg import CameraInfo
from visualization_msgs.msg import MarkerArray

from hand_tracking_ros.msg import HandArray
from hand_tracking_ros.nodes.base import image_qos
from hand_tracking_ros.nodes.conversions import hands_from_message, stamp_ns
from hand_tracking_ros.nodes.graph import STAGES_GRAPH
from hand_tracking_ros.paths import models_directory

DATA = Path(os.environ.get("HAND_TRACKING_DATA", Path(__file__).parents[2] / "shared" / "data"))
VIDEO = DATA / "videos" / "two_hands_cups_1280x720.mp4"
MODELS = [models_directory() / f"{name}.yaml" for name in ("detnet", "keynet")]

# Slow enough that a busy machine drops nothing; the times in the tracker are stretched with it.
SLOW = {"track.coast_s": 2.0, "track.max_gap_s": 5.0, "stage.timeout_s": 20.0, "filter.kind": "none"}


def by_stamp(messages: list) -> dict:
    return {stamp_ns(message.header.stamp): message for message in messages}


def run_both_graphs(ros, tmp_path, camera: dict, parameters: dict, enough: int) -> tuple[list, list, list]:
    """One camera_node feeds the default graph (/duo/one) and the stage graph (/duo/many); what each published."""
    one = ros.listen(HandArray, "/duo/one/hands")
    many = ros.listen(HandArray, "/duo/many/hands")
    infos = ros.listen(CameraInfo, "/duo/camera_info", image_qos(100))
    camera = {**camera, "autostart": True, "camera.wait_for_subscribers": 4}
    shared = ["-r", "image_raw:=/duo/image_raw", "-r", "camera_info:=/duo/camera_info"]
    with ExitStack() as stack:

        def start(name: str, namespace: str, values: dict, arguments: list[str]) -> subprocess.Popen:
            log = tmp_path / f"{namespace.strip('/').replace('/', '_')}_{name}.log"
            return stack.enter_context(process([*node_command(name, namespace, values), *arguments], log))

        values = {**SLOW, **parameters, "autostart": True}
        children = [start("hand_tracker_node", "/duo/one", values, shared)]
        children += [start(name, "/duo/many", values, shared) for name in STAGES_GRAPH[1:]]
        children += [start("camera_node", "/duo", camera, [])]

        def done() -> bool:
            assert all(child.poll() is None for child in children), "a node has died"
            return min(len(one), len(many)) >= enough

        ros.until(done, f"{enough} messages of both graphs")
    assert [child.returncode for child in children] == [0] * len(children), "a node did not end cleanly"
    return one, many, infos


def assert_agreement(one: list, many: list, infos: list, enough: int) -> dict:
    """Both graphs saw the same hands within 2 px, at stamps of the camera; the pairs, by stamp."""
    stamps = set(by_stamp(infos))
    assert set(by_stamp(one)) <= stamps and set(by_stamp(many)) <= stamps
    pairs = {s: (m, by_stamp(many)[s]) for s, m in by_stamp(one).items() if s in by_stamp(many)}
    assert len(pairs) >= enough
    for stamp, messages in pairs.items():
        hands = [{hand.id: hand for hand in hands_from_message(message)} for message in messages]
        assert set(hands[0]) == set(hands[1]), stamp
        assert messages[0].header == messages[1].header
        for hand_id, hand in hands[0].items():
            other = hands[1][hand_id]
            assert (hand.side, hand.source, hand.scale) == (other.side, other.source, other.scale)
            assert np.abs(hand.keypoints_px - other.keypoints_px).max() < 2.0
    return pairs


def test_both_graphs_follow_a_hand_and_agree(ros, tmp_path):
    centers = write_clip(tmp_path / "clip")
    camera = {"camera.source": str(tmp_path / "clip"), "camera.fps": 5.0, "camera.frame_id": "eye_optical_frame"}
    one, many, infos = run_both_graphs(ros, tmp_path, camera, write_blob_models(tmp_path), FRAMES - 2)
    pairs = assert_agreement(one, many, infos, FRAMES - 4)
    first = min(by_stamp(infos))
    for stamp, (message, _) in pairs.items():
        index = round((stamp - first) * 1e-9 * 5.0)
        (hand,) = hands_from_message(message)
        assert message.header.frame_id == "eye_optical_frame"
        assert np.abs(hand.keypoints_px - hand_at(*centers[index])).max() < 3.0


@pytest.mark.skipif(
    not all(path.is_file() for path in MODELS), reason="needs models/detnet.yaml and models/keynet.yaml"
)
@pytest.mark.skipif(not VIDEO.is_file(), reason=f"needs {VIDEO.name} of ../shared/data/videos (or HAND_TRACKING_DATA)")
def test_both_graphs_agree_on_a_real_video(ros, tmp_path):
    camera = {"camera.source": str(VIDEO), "camera.fps": 4.0, "camera.reliable": True}
    one, many, infos = run_both_graphs(ros, tmp_path, camera, {}, 40)
    pairs = assert_agreement(one, many, infos, 36)
    assert sum(bool(message.hands) for message, _ in pairs.values()) > 20, "hardly a hand in a video of hands"


@pytest.mark.parametrize("stages", [False, True], ids=["tracker", "stages"])
def test_up_starts_the_graph_and_ends_it(ros, tmp_path, stages):
    write_clip(tmp_path / "clip", count=10)
    lines = [f"    {name}: {value}" for name, value in write_blob_models(tmp_path).items()]
    (tmp_path / "params.yaml").write_text("\n".join(["/**:", "  ros__parameters:", *lines, "    track.coast_s: 1.0"]))
    namespace = f"/up_{stages}"
    hands = ros.listen(HandArray, f"{namespace}/hands")
    markers = ros.listen(MarkerArray, f"{namespace}/markers")
    reports = ros.listen(DiagnosticArray, "/diagnostics")
    command = [sys.executable, "-m", "hand_tracking_ros.cli", "up", "--source", str(tmp_path / "clip"), "--loop"]
    command += ["--params-file", str(tmp_path / "params.yaml"), "--namespace", namespace, "--backend", "onnxruntime"]
    with process(command + ["--stages"] * stages, tmp_path / "up.log") as child:
        ros.until(lambda: any(message.hands for message in hands), "a hand")
        ros.until(lambda: markers, "markers")
        nodes = {"camera_node", *(STAGES_GRAPH if stages else ["hand_tracker_node"])}
        expected = {f"{namespace[1:]}/{node}" for node in nodes}
        ros.until(lambda: {m.status[0].name for m in reports} >= expected, "diagnostics of all nodes")
        child.send_signal(signal.SIGINT)
        assert child.wait(60) == 0
    report = {v.key: v.value for m in reports for v in m.status[0].values if m.status[0].name.endswith("camera_node")}
    assert report["state"] == "active" and float(report["rate_hz"]) > 0
    assert "started camera_node" in (tmp_path / "up.log").read_text()


def test_up_ends_everything_when_one_node_fails(ros, tmp_path):
    write_clip(tmp_path / "clip", count=2)
    (tmp_path / "params.yaml").write_text("/**:\n  ros__parameters:\n    detector.model: no_such_model\n")
    command = [sys.executable, "-m", "hand_tracking_ros.cli", "up", "--source", str(tmp_path / "clip")]
    command += ["--params-file", str(tmp_path / "params.yaml"), "--namespace", "failing"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, **ENVIRONMENT})
    assert done.returncode == 1
    assert "unknown model 'no_such_model'" in done.stderr
    assert "hand_tracker_node has ended (exit status 1; its own message stands above); stopping all" in done.stderr


def test_a_node_ends_cleanly_on_sigterm_and_says_what_it_waits_for(ros, tmp_path):
    with process(node_command("filter_node", "/term", {}), tmp_path / "node.log") as child:
        ros.until(lambda: "waiting for a lifecycle manager" in (tmp_path / "node.log").read_text(), "the node")
        child.send_signal(signal.SIGTERM)
        assert child.wait(60) == 0
    assert "Traceback" not in (tmp_path / "node.log").read_text()


def test_up_without_parameter_file_says_so(capsys):
    from hand_tracking_ros.cli import main

    assert main(["up", "--params-file", "nowhere.yaml"]) == 2
    assert "nowhere.yaml does not exist" in capsys.readouterr().err


def test_every_node_module_can_be_found():
    for node in {*STAGES_GRAPH, "hand_tracker_node"}:
        assert importlib.util.find_spec(f"hand_tracking_ros.nodes.{node}") is not None
