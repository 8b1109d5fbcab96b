"""Configuration: the only defaults, checked on every way in."""

import dataclasses
import math

import pytest

from hand_tracking_ros import config
from hand_tracking_ros.config import FilterConfig, FlowConfig, InferenceConfig, TrackConfig, TrackerConfig
from hand_tracking_ros.errors import ConfigError


def test_every_parameter_is_described_and_its_default_is_valid():
    for name, f in config.flat_fields(TrackerConfig):
        assert len(f.metadata["doc"]) > 10, name
        assert type(f.default) in (bool, int, float, str), name
        assert config.check_value(name, f.default, f) == f.default
        if type(f.default) in (int, float):
            assert f.metadata["low"] <= f.default <= f.metadata["high"], name
        elif type(f.default) is str and f.metadata["choices"]:
            assert f.default in f.metadata["choices"], name


def test_flat_round_trip():
    flat = config.to_flat(TrackerConfig())
    assert flat["track.max_hands"] == TrackConfig().max_hands
    assert set(flat) == {name for name, _ in config.flat_fields(TrackerConfig)}
    assert config.from_flat(TrackerConfig, flat) == TrackerConfig()
    assert config.from_flat(TrackerConfig, {}) == TrackerConfig()
    assert list(config.flat_fields(TrackerConfig())) == list(config.flat_fields(TrackerConfig))


def test_what_is_not_named_keeps_its_default():
    made = config.from_flat(TrackerConfig, {"track.max_hands": 4, "filter.kind": "kalman"})
    assert made.track == dataclasses.replace(TrackConfig(), max_hands=4)
    assert made.filter == dataclasses.replace(FilterConfig(), kind="kalman")
    assert made.flow == FlowConfig()


def test_nested_as_yaml_gives_it():
    nested = {"track": {"max_hands": 1}, "inference": {"threads": 2}}
    assert config.from_nested(TrackerConfig, nested) == config.from_flat(
        TrackerConfig, {"track.max_hands": 1, "inference.threads": 2}
    )


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("track.max_hand", 2, "unknown parameter 'track.max_hand'; did you mean 'track.max_hands'\\?"),
        ("bogus", 2, "unknown parameter 'bogus'; known: .*track.max_hands"),
        ("max_hands", 2, "unknown parameter 'max_hands'"),
        ("track", 2, "unknown parameter 'track'"),
        ("track.max_hands", 0, "'track.max_hands' must be between 1 and 16, got 0"),
        ("track.max_hands", 17, "between 1 and 16"),
        ("track.max_hands", 2.0, r"'track.max_hands' must be int, got 2.0 \(float\)"),
        ("track.max_hands", True, r"must be int, got True \(bool\)"),
        ("track.max_hands", "2", r"must be int, got '2' \(str\)"),
        ("track.coast_s", True, r"must be float, got True \(bool\)"),
        ("track.coast_s", None, "must be float, got None"),
        ("track.coast_s", math.nan, "'track.coast_s' is NaN"),
        ("track.coast_s", math.inf, "between"),
        ("track.coast_s", -0.1, "between"),
        ("keypoints.refine_new", 1, "must be bool, got 1"),
        ("filter.kind", "median", "must be one of 'none', 'one_euro', 'kalman'; got 'median'"),
        ("inference.backend", "cuda", "must be one of 'auto'"),
    ],
)
def test_bad_values_say_what_and_what_is_allowed(name, value, message):
    with pytest.raises(ConfigError, match=message):
        config.from_flat(TrackerConfig, {name: value})


def test_nested_errors_carry_the_full_name():
    with pytest.raises(ConfigError, match=r"'flow\.window_px' must be between 5 and 61, got 3"):
        config.from_nested(TrackerConfig, {"flow": {"window_px": 3}})


@pytest.mark.parametrize("values", [{"bogus": {}}, {"track": None}, {"track": {"max_hands": {}}}, {"track": 3}])
def test_sections_that_do_not_fit_are_not_ignored(values):
    with pytest.raises(ConfigError):
        config.from_nested(TrackerConfig, values)


def test_direct_construction_is_checked_too():
    with pytest.raises(ConfigError, match="threads"):
        InferenceConfig(threads=0)


def test_integers_are_accepted_where_a_float_is_wanted():
    made = config.from_flat(TrackerConfig, {"track.coast_s": 1})
    assert made.track.coast_s == 1.0 and type(made.track.coast_s) is float


def test_configs_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrackConfig().max_hands = 3
