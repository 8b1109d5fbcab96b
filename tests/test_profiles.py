"""Profiles of 'hand-tracking tune': what they fill in, where they do not hold, and who is told."""

from __future__ import annotations

import argparse
import dataclasses

import pytest
import yaml

from hand_tracking_ros import profiles
from hand_tracking_ros.cli import options, up
from hand_tracking_ros.cli.doctor import examine
from hand_tracking_ros.errors import ConfigError, ModelError
from hand_tracking_ros.manifest import load_manifest
from hand_tracking_ros.paths import config_directory, profile_file

PARAMETERS = {
    "inference.backend": "onnxruntime",
    "inference.precision": "int8",
    "inference.threads": 2,
    "detector.model": "detnet",
    "keypoints.model": "keynet",
}


@pytest.fixture
def profile(tmp_path, monkeypatch):
    """A profile of this machine, where nodes and command line look for it; its file."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    profiles.save_profile(profile_file(), profiles.profile_of(PARAMETERS, {"load": 0.1}))
    return profile_file()


def test_a_profile_is_read_as_it_was_written_and_fills_in_what_is_not_set(profile, tmp_path):
    assert profile == tmp_path / "hand_tracking_ros" / "profile.yaml"
    assert sorted(path.name for path in profile.parent.iterdir()) == ["profile.yaml"]  # nothing unfinished stays
    saved = profiles.load_profile(profile)
    assert saved == profiles.profile_of(PARAMETERS, {"load": 0.1})
    assert saved.models == {  # the files that run in int8
        "detector.model": load_manifest("detnet_int8").sha256,
        "keypoints.model": load_manifest("keynet_int8").sha256,
    }
    filled = profiles.fill_in({"track.max_hands": 1}, profiles.TUNED)
    assert filled.values == {"track.max_hands": 1, **PARAMETERS} and not filled.ignored
    assert filled.note.startswith(f"from profile {profile}: inference.backend onnxruntime, inference.precision int8")


EXPLICIT = [
    ({"inference.threads": 1}, {}, "threads go with any backend"),
    ({"inference.backend": "onnxruntime"}, {}, "the same backend: the precision was measured with it"),
    ({"inference.backend": "auto"}, {"inference.precision"}, "another backend may not have the precision"),
    ({"inference.precision": "fp32"}, {"inference.backend"}, "the backend was not measured in another precision"),
    ({"inference.precision": "int8"}, {}, "the same precision"),
    ({"keypoints.model": "mine.yaml"}, {"inference.precision"}, "another model may not come in int8"),
    (PARAMETERS, {}, "nothing left"),
]


@pytest.mark.parametrize(("explicit", "left_out", "why"), EXPLICIT, ids=[row[2] for row in EXPLICIT])
def test_explicit_settings_win_and_nothing_is_taken_that_may_not_run_with_them(profile, explicit, left_out, why):
    expected = {name: value for name, value in {**PARAMETERS, **explicit}.items() if name not in left_out}
    assert profiles.fill_in(explicit, profiles.TUNED).values == expected, why


def test_a_node_takes_only_the_parameters_that_it_has(profile):
    assert profiles.fill_in({}, ["inference.threads", "track.max_hands"]).values == {"inference.threads": 2}
    assert profiles.fill_in({}, ["camera.source"]) == profiles.Filled({})


ELSEWHERE = [
    ("machine", {"cpu": "8086", "cores": 1, "architecture": "x86"}, "another machine (8086, 1 cores, x86; this is "),
    ("version", "0.0.1", "measured with version 0.0.1 of this package, which is now "),
    ("backend_version", "0.9", "measured with onnxruntime 0.9, which is now "),
    (
        "models",
        dict.fromkeys(profiles.MODELS, "0" * 64),
        "model detnet and keynet has changed since (another sha256)",
    ),
    ("parameters", {**PARAMETERS, "keypoints.model": "gone"}, "unknown model 'gone'"),
    ("parameters", {**PARAMETERS, "inference.backend": "auto"}, "its backend auto cannot run"),
]


@pytest.mark.parametrize(("key", "value", "says"), ELSEWHERE, ids=[row[2][:30] for row in ELSEWHERE])
def test_what_was_measured_elsewhere_is_ignored_and_says_why(profile, key, value, says):
    profiles.save_profile(profile, dataclasses.replace(profiles.load_profile(profile), **{key: value}))
    filled = profiles.fill_in({"inference.threads": 4}, profiles.TUNED)
    assert filled.values == {"inference.threads": 4} and filled.ignored
    assert filled.note.startswith(f"ignored profile {profile}: ") and says in filled.note
    assert filled.note.endswith("; 'hand-tracking tune' measures anew")


BROKEN = [
    ("parameters: [", "is not valid|cannot read profile"),
    ("{}", "must have the keys"),
]


@pytest.mark.parametrize(("text", "says"), BROKEN)
def test_a_broken_profile_is_ignored_unless_it_was_asked_for(profile, text, says):
    profile.write_text(text)
    filled = profiles.fill_in({}, profiles.TUNED)
    assert filled.values == {} and filled.ignored and str(profile) in filled.note
    with pytest.raises(ConfigError, match=says):
        profiles.fill_in({"inference.profile": str(profile)}, profiles.TUNED)


def test_a_value_out_of_range_is_named(profile):
    content = yaml.safe_load(profile.read_text())
    content["parameters"]["inference.threads"] = 0
    profile.write_text(yaml.safe_dump(content))
    with pytest.raises(
        ConfigError, match=rf"profile {profile}: parameter 'inference.threads' must be between 1 and 64"
    ):
        profiles.load_profile(profile)


def test_switch(profile, tmp_path, monkeypatch):
    assert profiles.fill_in({"inference.profile": "none"}, profiles.TUNED) == profiles.Filled(
        {"inference.profile": "none"}
    )
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    assert profiles.fill_in({}, profiles.TUNED) == profiles.Filled({})  # none there: nothing to say
    named = profiles.fill_in({"inference.profile": str(profile)}, profiles.TUNED)
    assert named.values["inference.threads"] == 2 and str(profile) in named.note
    with pytest.raises(ConfigError, match="cannot read profile .*gone"):
        profiles.fill_in({"inference.profile": str(tmp_path / "gone.yaml")}, profiles.TUNED)
    with pytest.raises(ModelError, match="unknown model 'gone'"):
        profiles.profile_of({**PARAMETERS, "detector.model": "gone"}, {})


def inference(*arguments: str) -> tuple[str, str, int]:
    parser = argparse.ArgumentParser()
    options.add_tracker_options(parser)
    config = options.tracker_config(parser.parse_args(arguments)).inference
    return config.backend, config.precision, config.threads


def test_the_command_line_takes_it_where_nothing_is_set_and_says_so(profile, capsys):
    assert inference() == ("onnxruntime", "int8", 2)
    assert capsys.readouterr().err.startswith(f"hand-tracking: from profile {profile}: ")
    assert inference("--set", "inference.threads=1") == ("onnxruntime", "int8", 1)
    assert inference("--params", str(config_directory() / "hand_tracking.yaml"))[2] == 2, "the shipped file sets none"
    capsys.readouterr()
    assert inference("--no-profile") == ("auto", "auto", 1)
    assert inference("--set", "inference.profile=none") == ("auto", "auto", 1)
    assert capsys.readouterr().err == ""


def test_up_tells_every_node_to_leave_it_out():
    parser = argparse.ArgumentParser()
    up.add_parser(parser.add_subparsers())
    for arguments, switch in ((["up"], None), (["up", "--no-profile", "--stages"], "none")):
        starts = up._starts(parser.parse_args(arguments))
        assert [start.parameters.get("inference.profile") for start in starts] == [switch] * len(starts)


def test_the_doctor_knows_the_profile(profile, capsys):
    (item,) = [item for item in examine()["inference"] if item.name == "profile"]
    assert item.state == "ok" and str(profile) in item.detail
    profile.unlink()
    (item,) = [item for item in examine()["inference"] if item.name == "profile"]
    assert (item.state, item.remedy) == ("missing", "hand-tracking tune")
