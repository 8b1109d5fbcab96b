"""Real processes: a clip through camera_node and both graphs, observed from this process."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from blob_models import hand_at
from diagnostic_msgs.msg import DiagnosticArray, KeyValue
from ros_graph import ENVIRONMENT, node_command, process, write_blob_models, write_clip
from sensor_msgs.msg import CameraInfo
from visualization_msgs.msg import MarkerArray

from hand_tracking_ros.cameras import Camera
from hand_tracking_ros.cli.demo import CLIP, demo_directory
from hand_tracking_ros.msg import HandArray
from hand_tracking_ros.nodes.base import image_qos
from hand_tracking_ros.nodes.conversions import stamp_ns
from hand_tracking_ros.nodes.graph import STAGES_GRAPH
from hand_tracking_ros.nodes.hand_messages import hands_from_message
from hand_tracking_ros.paths import models_directory
from hand_tracking_ros.rig import Rig, RigCamera, save_rig

DATA = Path(os.environ.get("HAND_TRACKING_DATA", Path(__file__).parents[2] / "shared" / "data"))
VIDEO = DATA / "videos" / "hand_640x360.mp4"
MODELS = [models_directory() / f"{name}.yaml" for name in ("detnet", "keynet")]

# A graph drops what it has no time for; the times in the tracker are stretched, so that drops end no track.
STRETCHED = {"track.coast_s": 5.0, "track.max_gap_s": 10.0, "stage.timeout_s": 20.0, "filter.kind": "none"}
DISC_FPS = 6.0
VIDEO_FPS = (5.0, 1.5)  # paces to try: on a real video the graphs agree only when neither drops an image
ANSWER_S = 3.0  # an image that is not answered after this was dropped


def by_stamp(messages: list) -> dict:
    return {stamp_ns(message.header.stamp): message for message in messages}


def active(reports: list[DiagnosticArray]) -> set[str]:
    """The nodes that have reported to be active."""
    return {m.status[0].name for m in reports if KeyValue(key="state", value="active") in m.status[0].values}


class Watch:
    """What both graphs publish under ``root``, and what the camera announces."""

    def __init__(self, ros, root: str) -> None:
        self.ros = ros
        self.one, self.many = ros.listen(HandArray, f"{root}/one/hands"), ros.listen(HandArray, f"{root}/many/hands")
        self.infos = ros.listen(CameraInfo, f"{root}/camera_info", image_qos(100, reliable=True))
        self.reports = ros.listen(DiagnosticArray, "/diagnostics")

    def common(self) -> dict:
        """{stamp: (HandArray of one graph, of the other)} of the images that both have answered."""
        one, many = by_stamp(self.one), by_stamp(self.many)
        return {stamp: (one[stamp], many[stamp]) for stamp in sorted(set(one) & set(many))}

    def stamps(self) -> list[int]:
        return sorted(by_stamp(self.infos))

    def check_stamps(self) -> None:
        """Every answer has a stamp of the camera, from the first one on that this process has heard."""
        self.ros.until(lambda: self.infos, "camera_info")  # which this process may discover after the hands
        self.ros.spin(1.0)  # what is still on its way
        announced = self.stamps()
        answered = {stamp for stamp in {*by_stamp(self.one), *by_stamp(self.many)} if stamp >= announced[0]}
        assert answered, "no answer at all"
        assert answered <= {*announced}, "a stamp that is not the camera's"


@contextmanager
def both_graphs(ros, folder: Path, root: str, camera: dict, parameters: dict) -> Iterator[Watch]:
    """One camera_node feeds the default graph and the stage graph, in seven processes."""
    watch = Watch(ros, root)
    shared = ["-r", f"image_raw:={root}/image_raw", "-r", f"camera_info:={root}/camera_info"]
    with ExitStack() as stack:

        def start(name: str, namespace: str, values: dict, arguments: list[str]) -> subprocess.Popen:
            log = folder / f"{namespace.strip('/').replace('/', '_')}_{name}.log"
            command = [*node_command(name, namespace, {**values, "autostart": True}), *arguments]
            return stack.enter_context(process(command, log))

        values = {**STRETCHED, **parameters}
        children = [start("hand_tracker_node", f"{root}/one", values, shared)]
        children += [start(name, f"{root}/many", values, shared) for name in STAGES_GRAPH[1:]]
        names = {f"{root[1:]}/one/hand_tracker_node", *(f"{root[1:]}/many/{name}" for name in STAGES_GRAPH[1:])}
        ros.until(lambda: active(watch.reports) >= names, "the nodes to become active")
        ros.spin(2.0)  # by now all know each other, so that both graphs start with the same image
        children += [
            start("camera_node", root, {**camera, "camera.reliable": True, "camera.wait_for_subscribers": 4}, [])
        ]
        yield watch
        assert all(child.poll() is None for child in children), "a node has died"
    assert [child.returncode for child in children] == [0] * len(children), "a node did not end cleanly"


def assert_agreement(one: HandArray, many: HandArray) -> None:
    """The same hands, within 2 px."""
    assert one.header == many.header
    hands, others = ({hand.id: hand for hand in hands_from_message(message)} for message in (one, many))
    assert set(hands) == set(others)
    for hand_id, hand in hands.items():
        other = others[hand_id]
        assert (hand.side, hand.scale) == (other.side, other.scale)
        assert np.abs(hand.keypoints_px - other.keypoints_px).max() < 2.0


def test_both_graphs_follow_a_hand_and_agree(ros, tmp_path):
    centers = write_clip(tmp_path / "clip")
    camera = {"camera.source": str(tmp_path / "clip"), "camera.frame_id": "eye_optical_frame"}
    camera |= {"camera.fps": DISC_FPS, "camera.loop": True}
    with both_graphs(ros, tmp_path, "/disc", camera, write_blob_models(tmp_path)) as watch:
        ros.until(lambda: len(watch.common()) >= 12, "12 images that both graphs answered")
    watch.check_stamps()
    answers = watch.common()
    stamps = watch.stamps()
    first = min(stamps[0], *answers)  # this process may have missed what the camera announced first
    for stamp, messages in answers.items():
        index = (stamp - first) * 1e-9 * DISC_FPS
        assert index == pytest.approx(round(index), abs=1e-6), "a stamp that is not exactly media time"
        for message in messages:
            assert message.header.frame_id == "eye_optical_frame"
            assert (message.image_width, message.image_height) == (640, 480)
            (hand,) = hands_from_message(message)
            truth = hand_at(*centers[round(index) % len(centers)])
            assert np.abs(hand.keypoints_px - truth).mean(axis=0).max() < 3.0
    if {stamp for stamp in stamps if stamp <= max(answers)} <= set(answers):  # no image dropped: the same history
        for messages in answers.values():
            assert_agreement(*messages)


@pytest.mark.skipif(not all(path.is_file() for path in MODELS), reason="needs the models detnet and keynet in models/")
@pytest.mark.parametrize(
    "video, count, hands",
    [pytest.param(VIDEO, 70, 1, id="one"), pytest.param(demo_directory() / CLIP, 30, 2, id="two")],
)
def test_both_graphs_agree_on_a_video(ros, tmp_path, video, count, hands):
    """The hand of the real one is found at about the 45th image; of the two rendered ones, one after the other."""
    if not video.is_file():
        pytest.skip(f"needs {video.name} of ../shared/data/videos (or HAND_TRACKING_DATA)")
    for fps in VIDEO_FPS:
        camera = {"camera.source": str(video), "camera.fps": fps}
        with both_graphs(ros, tmp_path, f"/{video.stem}_{fps:.0f}", camera, {}) as watch:
            ros.until(lambda: len(watch.stamps()) >= count, f"{count} images")
            ros.spin(ANSWER_S)
        watch.check_stamps()
        answers = watch.common()
        if set(watch.stamps()[:count]) <= set(answers):
            break
    else:
        pytest.skip(f"this machine is too busy: images are dropped even at {fps} Hz")
    for stamp in watch.stamps()[:count]:
        assert_agreement(*answers[stamp])
    found = sum(len(one.hands) == hands for one, _ in answers.values())
    assert found > count / 4, f"hardly {hands} in a video of {hands}"


def rates(reports: list[DiagnosticArray]) -> list[float]:
    return [float(value.value) for m in reports for value in m.status[0].values if value.key == "rate_hz"]


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
        ros.until(lambda: max(rates(reports)) > 0, "a rate")
        child.send_signal(signal.SIGINT)
        assert child.wait(60) == 0
    assert "started camera_node" in (tmp_path / "up.log").read_text()


def test_up_with_a_rig_starts_its_cameras_and_their_tracker(ros, tmp_path):
    write_clip(tmp_path / "clip", count=10)
    lens = Camera(500.0, 500.0, 320.0, 240.0)
    save_rig(tmp_path / "rig.yaml", Rig(tuple(RigCamera(name, 640, 480, lens) for name in ("left", "right"))))
    lines = [f"    {name}: {value}" for name, value in write_blob_models(tmp_path).items()]
    (tmp_path / "params.yaml").write_text("\n".join(["/**:", "  ros__parameters:", *lines, "    track.coast_s: 1.0"]))
    hands = ros.listen(HandArray, "/up_rig/hands")
    reports = ros.listen(DiagnosticArray, "/diagnostics")
    command = [sys.executable, "-m", "hand_tracking_ros.cli", "up", "--rig", str(tmp_path / "rig.yaml"), "--loop"]
    command += ["--source", str(tmp_path / "clip")] * 2 + ["--params-file", str(tmp_path / "params.yaml")]
    with process([*command, "--namespace", "up_rig"], tmp_path / "up.log") as child:
        ros.until(lambda: any(message.hands for message in hands), "a hand")
        assert hands[-1].header.frame_id == "rig"
        expected = {"up_rig/rig_tracker_node", "up_rig/left/camera_node", "up_rig/right/camera_node"}
        ros.until(lambda: {m.status[0].name for m in reports} >= expected, "diagnostics of all nodes")
        child.send_signal(signal.SIGINT)
        assert child.wait(60) == 0
    assert "started rig_tracker_node, left/camera_node, right/camera_node" in (tmp_path / "up.log").read_text()


def test_up_explains_options_that_do_not_go_together(capsys):
    from hand_tracking_ros.cli import main

    assert main(["up", "--source", "a", "--source", "b"]) == 2
    assert "several --source need --rig" in capsys.readouterr().err
    assert main(["up", "--rig", "rig.yaml", "--stages"]) == 2
    assert "without --stages" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (b"a: [1", [], "params.yaml is not valid YAML"),
        (b"\xff\xfe", [], "params.yaml is no text (UTF-8)"),
        (b"track: {max_hands: 1}", [], "Cannot have a value before ros__parameters at line 1; "),
        (b"", ["--params-file", "."], "cannot read parameter file .: Is a directory"),
        (b"", ["--params-file", "nowhere.yaml"], "--params-file nowhere.yaml does not exist; copy "),
        (b"", ["--namespace", "bad name"], "'bad name' is no namespace of ROS: it takes letters, digits and single _"),
        (b"", ["--namespace", "a//b"], "'a//b' is no namespace of ROS"),
        (b"", ["--namespace", "a/b__c"], "'a/b__c' is no namespace of ROS"),
    ],
)
def test_up_starts_nothing_that_ros_would_refuse(tmp_path, monkeypatch, capsys, content, options, message):
    from hand_tracking_ros.cli import main, up

    monkeypatch.setattr(up, "supervise", lambda commands: pytest.fail(f"started {commands}"))
    (tmp_path / "params.yaml").write_bytes(content)
    assert main(["up", "--params-file", str(tmp_path / "params.yaml"), *options]) == 2
    assert message in capsys.readouterr().err


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
