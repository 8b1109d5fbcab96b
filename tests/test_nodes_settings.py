"""Parameters as config classes, the YAML file, and the graphs. No ROS needed."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest
import yaml

import hand_tracking_ros
from hand_tracking_ros.cameras import Camera
from hand_tracking_ros.config import TrackerConfig, flat_fields, to_flat
from hand_tracking_ros.errors import ConfigError
from hand_tracking_ros.nodes import graph, settings
from hand_tracking_ros.paths import config_directory
from hand_tracking_ros.profiles import TUNED
from hand_tracking_ros.rig import Rig, RigCamera, save_rig

NODES = Path(hand_tracking_ros.__file__).parent / "nodes"


def flatten(values, prefix=""):
    for key, value in values.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def test_yaml_file_states_every_default_and_nothing_else():
    text = (config_directory() / "hand_tracking.yaml").read_text()
    assert text == settings.default_yaml(), "write it anew, its head says how"
    open_ones = set(settings.known_names()) - set(dict(flatten(yaml.safe_load(text)["/**"]["ros__parameters"])))
    assert open_ones == set(TUNED), "stated there, it would win over the machine's profile"
    for leaf in ("backend", "precision", "threads", "model"):
        text = text.replace(f"      # {leaf}: ", f"      {leaf}: ")
    stated = dict(flatten(yaml.safe_load(text)["/**"]["ros__parameters"]))
    assert set(stated) == settings.known_names()
    for config in settings.NODE_CONFIGS.values():
        for name, value in to_flat(config()).items():
            assert stated[name] == value and type(stated[name]) is type(value), name


def test_the_tracker_node_is_configured_by_the_tracker_config_of_the_core():
    config = settings.HandTrackerNodeConfig()
    assert isinstance(config, TrackerConfig)
    assert {k: v for k, v in to_flat(config).items() if k in to_flat(TrackerConfig())} == to_flat(TrackerConfig())


def test_stage_nodes_share_the_names_and_defaults_of_the_tracker_node():
    tracker = dict(flat_fields(settings.HandTrackerNodeConfig))
    for node in ("detector_node", "flow_node", "keypoint_node", "filter_node"):
        for name, field in flat_fields(settings.NODE_CONFIGS[node]):
            if name != "stage.timeout_s":
                assert tracker[name].default == field.default, (node, name)
    stages = {name for node in graph.STAGES_GRAPH[1:] for name, _ in flat_fields(settings.NODE_CONFIGS[node])}
    extras = {name for name in tracker if name.startswith("budget.")}  # not in the stage graph
    assert set(tracker) - extras <= stages, "a parameter of the tracker that no stage knows"


@pytest.mark.parametrize("name", sorted(settings.NODE_CONFIGS))
def test_every_node_has_a_module_with_main(name):
    tree = ast.parse((NODES / f"{name}.py").read_text())
    assert "main" in {item.name for item in tree.body if isinstance(item, ast.FunctionDef)}


@pytest.mark.parametrize("name", sorted(settings.known_names()))
def test_every_parameter_is_described_and_every_number_has_a_range(name):
    field = settings._all_fields()[name]
    assert len(field.metadata["doc"]) > 10
    if type(field.default) in (int, float):
        assert field.metadata["low"] <= field.default <= field.metadata["high"]


def test_options_name_parameters_and_what_is_not_said_is_not_set():
    assert {option.parameter for option in graph.OPTIONS.values()} <= settings.known_names()
    said = graph.overrides(graph.TRACKER_GRAPH, {"source": "clip.mp4", "calibration": None, "backend": ""})
    assert said == {"camera.source": "clip.mp4", "autostart": True, "camera.wait_for_subscribers": 1}
    assert graph.overrides(graph.STAGES_GRAPH, {})["camera.wait_for_subscribers"] == 3


def test_a_rig_starts_a_camera_per_source_below_its_name_and_says_when_they_do_not_fit(tmp_path):
    lens, file = Camera(500.0, 500.0, 320.0, 240.0), str(tmp_path / "rig.yaml")
    save_rig(file, Rig(tuple(RigCamera(name, 640, 480, lens) for name in ("left", "right"))))
    tracker, left, right = graph.rig_starts(file, ["a.mp4", "b.mp4"], "openvino")
    assert (tracker.node, tracker.namespace) == ("rig_tracker_node", "")
    assert tracker.parameters["rig.file"] == file and tracker.parameters["inference.backend"] == "openvino"
    assert (left.node, left.namespace, left.parameters["camera.source"]) == ("camera_node", "left", "a.mp4")
    assert right.parameters["camera.frame_id"] == "right_optical_frame"
    assert all(set(start.parameters) <= settings.known_names() for start in (tracker, left, right))
    assert [start.node for start in graph.rig_starts(file, [])] == ["rig_tracker_node"]
    (tracker,) = graph.rig_starts("tf:left,right", [], "openvino")
    assert (
        tracker.parameters.items() >= {"rig.extrinsics": "tf", "rig.cameras": "left,right", "autostart": True}.items()
    )
    assert tracker.parameters["inference.backend"] == "openvino" and set(tracker.parameters) <= settings.known_names()
    with pytest.raises(ConfigError, match="sources go with a rig file, not with 'tf:left,right'"):
        graph.rig_starts("tf:left,right", ["a", "b"])
    with pytest.raises(ConfigError, match="3 sources for the 2 cameras of .* \\(left, right\\)"):
        graph.rig_starts(file, ["a", "b", "c"])


def test_settings_and_graph_need_no_ros():
    for module in ("settings", "graph"):
        imports = [
            n for n in ast.walk(ast.parse((NODES / f"{module}.py").read_text())) if isinstance(n, ast.ImportFrom)
        ]
        assert all(n.module.split(".")[0] not in ("rclpy", "sensor_msgs", "launch") for n in imports)


def test_shipped_files_that_the_graph_names_exist():
    assert Path(graph.default_params_file()).is_file()
    assert Path(graph.dds_profile()).is_file()
    assert importlib.util.find_spec("hand_tracking_ros.cli.up") is not None


def test_the_example_calibration_can_be_loaded():
    from hand_tracking_ros.calibration import load_camera_yaml

    calibration = load_camera_yaml(config_directory() / "camera_example.yaml")
    camera = calibration.camera()
    assert (calibration.width, calibration.height) == (640, 480) and camera.fx == pytest.approx(554.256)
