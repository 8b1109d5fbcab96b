"""The launch files: compiled and checked everywhere, really described where ``launch`` exists (it has no wheel)."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest

from hand_tracking_ros.nodes import graph
from hand_tracking_ros.paths import share_directory

LAUNCH = share_directory() / "launch"
FILES = {"hand_tracking.launch.py": graph.TRACKER_GRAPH, "hand_tracking_stages.launch.py": graph.STAGES_GRAPH}
NODES = Path(graph.__file__).parent


def executables(file: str) -> tuple[str, ...]:
    """The nodes that the file names, read without running it."""
    tree = ast.parse((LAUNCH / file).read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    (call,) = [node for node in calls if getattr(node.func, "id", "") == "describe_graph"]
    return ast.literal_eval(call.args[0])


@pytest.mark.parametrize("file", FILES)
def test_launch_files_compile_and_start_the_graph_that_up_starts(file):
    compile((LAUNCH / file).read_text(), file, "exec")
    assert executables(file) == FILES[file]


@pytest.mark.parametrize("node", sorted({*graph.TRACKER_GRAPH, *graph.STAGES_GRAPH, "rig_tracker_node"}))
def test_their_executables_are_nodes_that_the_build_installs(node):
    assert (NODES / f"{node}.py").is_file()
    build = share_directory() / "CMakeLists.txt"
    if not build.is_file():
        pytest.skip("an installed package has no CMakeLists.txt")
    assert node in build.read_text()


def test_launching_compiles():
    compile((NODES / "launching.py").read_text(), "launching.py", "exec")


def test_rviz_file_shows_our_topics():
    import yaml

    config = yaml.safe_load((share_directory() / "rviz" / "hand_tracking.rviz").read_text())
    displays = config["Visualization Manager"]["Displays"]
    topics = {display.get("Topic", {}).get("Value") for display in displays}
    assert {"markers", "overlay"} <= topics


@pytest.mark.parametrize("file", FILES)
def test_launch_files_describe_their_graph(file):
    pytest.importorskip("launch_ros", reason="needs launch and launch_ros, which come with a ROS installation only")
    from launch.actions import OpaqueFunction
    from launch_ros.actions import Node

    from launch import LaunchContext

    spec = importlib.util.spec_from_file_location("launch_file", LAUNCH / file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    description = module.generate_launch_description()
    arguments = {argument.name: argument for argument in description.get_launch_arguments()}
    expected = {"source", "calibration", "namespace", "params_file", "backend", "rviz", "autostart"}
    assert set(arguments) == expected and all(argument.description for argument in arguments.values())
    assert "openvino" in arguments["backend"].choices

    context = LaunchContext()
    for entity in description.entities:
        if not isinstance(entity, (OpaqueFunction, Node)):
            entity.visit(context)
    context.launch_configurations["source"] = "clip.mp4"
    (start,) = [entity for entity in description.entities if isinstance(entity, OpaqueFunction)]
    nodes = start.execute(context)
    assert tuple(node.node_executable for node in nodes) == FILES[file]
    assert context.environment[graph.DDS_PROFILE_VARIABLE].endswith(".xml")


def test_the_rigs_launch_file_compiles():
    compile((LAUNCH / "hand_tracking_rig.launch.py").read_text(), "hand_tracking_rig.launch.py", "exec")


def test_the_rigs_launch_file_starts_a_camera_per_source(tmp_path):
    pytest.importorskip("launch_ros", reason="needs launch and launch_ros, which come with a ROS installation only")
    from launch.actions import OpaqueFunction

    from hand_tracking_ros.cameras import Camera
    from hand_tracking_ros.rig import Rig, RigCamera, save_rig
    from launch import LaunchContext

    lens = Camera(500.0, 500.0, 320.0, 240.0)
    save_rig(tmp_path / "rig.yaml", Rig(tuple(RigCamera(name, 640, 480, lens) for name in ("left", "right"))))
    spec = importlib.util.spec_from_file_location("launch_file", LAUNCH / "hand_tracking_rig.launch.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    description = module.generate_launch_description()
    names = {argument.name for argument in description.get_launch_arguments()}
    assert names == {"rig", "sources", "namespace", "params_file", "backend", "rviz", "autostart"}
    context = LaunchContext()
    context.launch_configurations |= {"rig": str(tmp_path / "rig.yaml"), "sources": "a.mp4;b.mp4", "backend": ""}
    context.launch_configurations |= {"namespace": "", "params_file": "p.yaml", "autostart": "true"}
    (start,) = [entity for entity in description.entities if isinstance(entity, OpaqueFunction)]
    nodes = start.execute(context)
    assert [node.node_executable for node in nodes] == ["rig_tracker_node", "camera_node", "camera_node"]
    context.launch_configurations |= {"rig": "tf:left,right", "sources": ""}
    assert [node.node_executable for node in start.execute(context)] == ["rig_tracker_node"]
