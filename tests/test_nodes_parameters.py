"""Parameters of running nodes: descriptors, refusal of bad values, bad start values, changes that take effect."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from rcl_interfaces.msg import ParameterType
from rcl_interfaces.srv import DescribeParameters, SetParametersAtomically
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter

from hand_tracking_ros.config import flat_fields
from hand_tracking_ros.errors import ConfigError
from hand_tracking_ros.nodes.settings import NODE_CONFIGS
from hand_tracking_ros.paths import profile_file
from hand_tracking_ros.profiles import TUNED, profile_of, save_profile


@pytest.mark.parametrize("name", sorted(NODE_CONFIGS))
def test_every_parameter_has_a_descriptor(ros, name):
    node = ros.node(name, f"/describe_{name}")
    names = [parameter for parameter, _ in flat_fields(NODE_CONFIGS[name])]
    request = DescribeParameters.Request(names=names)
    response = ros.call(DescribeParameters, f"{node.get_fully_qualified_name()}/describe_parameters", request)
    for descriptor, (_, field) in zip(response.descriptors, flat_fields(NODE_CONFIGS[name]), strict=True):
        assert descriptor.description == field.metadata["doc"]
        assert descriptor.read_only == field.metadata["read_only"]
        if descriptor.type == ParameterType.PARAMETER_DOUBLE:
            assert descriptor.floating_point_range[0].to_value == field.metadata["high"]
        if descriptor.type == ParameterType.PARAMETER_INTEGER:
            assert descriptor.integer_range[0].from_value == field.metadata["low"]
        if field.metadata["choices"]:
            assert field.metadata["choices"][-1] in descriptor.additional_constraints


REFUSED = [
    ("filter.kind", "median", "one_euro", "not one of the choices"),
    ("track.max_hands", 0, "track.max_hands", "below the range"),
    ("detector.score_threshold", 1.5, "detector.score_threshold", "above the range"),
    ("filter.beta", float("nan"), "filter.beta", "NaN"),
    ("filter.beta", "fast", "DOUBLE", "another type"),
    ("inference.threads", 2, "read-only", "fixed at the start"),
]


@pytest.mark.parametrize(("name", "value", "says", "why"), REFUSED, ids=[row[3] for row in REFUSED])
def test_bad_values_are_refused_and_change_nothing(ros, name, value, says, why):
    node = ros.node("hand_tracker_node", "/refuse")
    before = node.get_parameter(name).value
    request = SetParametersAtomically.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
    service = f"{node.get_fully_qualified_name()}/set_parameters_atomically"
    result = ros.call(SetParametersAtomically, service, request).result
    assert not result.successful and says in result.reason, why
    assert node.get_parameter(name).value == before


def test_values_that_do_not_go_together_are_refused(ros):
    """Each is within its range; the arm goes on with the limits that it has."""
    node = ros.node("arm_teleop_node", "/together")
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    (refused,) = node.set_parameters([Parameter("arm.low_x", value=0.9)])
    assert not refused.successful and "low_x 0.9 must be less than high_x 0.7" in refused.reason
    service = f"{node.get_fully_qualified_name()}/set_parameters_atomically"
    both = [Parameter("arm.low_x", value=0.9), Parameter("arm.high_x", value=1.2)]
    request = SetParametersAtomically.Request(parameters=[parameter.to_parameter_msg() for parameter in both])
    assert ros.call(SetParametersAtomically, service, request).result.successful
    node.guarded(lambda: None)()
    assert (
        (node.config.arm.low_x, node.config.arm.high_x)
        == (0.9, 1.2)
        == (
            node._teleop.config.low_x,
            node._teleop.config.high_x,
        )
    )


@pytest.mark.parametrize("name", ["flow_node", "hand_tracker_node", "arm_teleop_node"])
def test_a_parameter_may_be_set_before_the_node_is_configured(ros, name, models):
    node = ros.node(name, f"/early_{name}", **(models if name == "hand_tracker_node" else {}))
    value = Parameter("arm.scale", value=0.5) if name == "arm_teleop_node" else Parameter("track.max_hands", value=1)
    node.set_parameters([value])
    node.guarded(lambda: None)()  # as a timer that runs already
    assert not node.statistics.skipped
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert value.value in (node.config.arm.scale if name == "arm_teleop_node" else node.config.track.max_hands,)


BAD_STARTS = [
    ("track__max_hands", 0, "parameter 'track.max_hands' must be between 1 and 16, got 0"),
    ("track__max_hands", "two", "parameter 'track.max_hands' must be int, got 'two'"),
    ("filter__kind", "median", "parameter 'filter.kind' must be one of 'none', 'one_euro', 'kalman'; got 'median'"),
    ("filter__bta", 3.0, "unknown parameter 'filter.bta'; did you mean 'filter.beta'?"),
]


@pytest.mark.parametrize(("name", "value", "says"), BAD_STARTS, ids=[row[2][:40] for row in BAD_STARTS])
def test_a_bad_start_value_fails_the_configure_transition(ros, name, value, says, capfd):
    node = ros.node("hand_tracker_node", "/start", **{name: value})
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert says in capfd.readouterr().err
    assert says in node.statistics.problems["configure"]


def test_setting_a_good_value_mends_a_bad_start_value(ros):
    node = ros.node("filter_node", "/mend", track__max_hands=99)
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    node.set_parameters([Parameter("track.max_hands", value=3)])
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert node.config.track.max_hands == 3 and "configure" not in node.statistics.problems


def test_names_of_other_nodes_and_packages_are_let_through(ros):
    node = ros.node("filter_node", "/others", camera__source="clip.mp4", somebody__else=1, use_sim_time=False)
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS


def test_names_that_are_nearly_ours_are_warned_of(ros, capfd):
    start = {"tracks.max_hands": 1, "max_hands": 1, "foo.bar": 1}
    node = ros.node("filter_node", "/nearly", **{name.replace(".", "__"): value for name, value in start.items()})
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    log = capfd.readouterr().err
    for name in ("tracks.max_hands", "max_hands"):
        assert f"parameter '{name}' has no effect on this node; did you mean 'track.max_hands'?" in log
    assert "foo.bar" not in log


def test_numbers_are_read_kindly(ros):
    node = ros.node("filter_node", "/kind", filter__beta=3)
    assert node.get_parameter("filter.beta").value == 3.0
    camera = ros.node("camera_node", "/kind", camera__source=0)
    assert camera.get_parameter("camera.source").value == "0"


def test_a_change_is_applied_before_the_next_frame(ros, models):
    node = ros.node("hand_tracker_node", "/apply", **models)
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    node.set_parameters([Parameter("filter.kind", value="none"), Parameter("track.max_hands", value=1)])
    node.guarded(lambda: None)()
    tracker = node._tracker
    assert tracker.config.filter.kind == tracker.filter.config.kind == "none"
    assert tracker.tracks.config.max_hands == 1


def test_read_raises_what_is_wrong(ros):
    node = ros.node("filter_node", "/read", filter__kind="median")
    with pytest.raises(ConfigError, match=r"filter\.kind"):
        node._declared.read()


@pytest.fixture
def profile(tmp_path, monkeypatch):
    """A profile of 'hand-tracking tune' for this machine, where nodes look for it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    chosen = ["onnxruntime", "fp32", 2, "detnet", "keynet"]
    save_profile(profile_file(), profile_of(dict(zip(TUNED, chosen, strict=True)), {}))
    return profile_file()


def test_a_node_takes_the_profile_of_the_machine_where_nothing_is_set(ros, profile, capfd):
    node = ros.node("hand_tracker_node", "/tuned", inference__precision="int8")
    assert f"from profile {profile}: inference.threads 2" in capfd.readouterr().err
    values = [node.get_parameter(name).value for name in TUNED]
    assert values == ["auto", "int8", 2, "detnet", "keynet"]  # the backend was not measured in int8
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert node._tracker.detector.backend.precision == "int8" and node.config.inference.threads == 2

    plain = ros.node("detector_node", "/plain", inference__profile="none")
    assert plain.get_parameter("inference.threads").value == 1 and "profile" not in capfd.readouterr().err


def test_a_profile_that_is_asked_for_and_missing_fails_the_configure_transition(ros, tmp_path):
    node = ros.node("keypoint_node", "/missing", inference__profile=str(tmp_path / "gone.yaml"))
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert "cannot read profile" in node.statistics.problems["configure"]
