"""The benchmarks that need nothing but the package: they do what they say, whatever the times are."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from hand_tracking_ros.cli.demo import demo_directory
from hand_tracking_ros.config import InferenceConfig, TrackerConfig
from hand_tracking_ros.evaluation.run import track_source
from hand_tracking_ros.records import write_tracks
from hand_tracking_ros.sources import open_source
from hand_tracking_ros.tracker import HandTracker

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
DEMO = demo_directory() / "demo_hands.mp4"


def start(script: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess:
    """A benchmark in a process of its own, run in ``folder``."""
    command = [sys.executable, str(BENCHMARKS / script), *arguments]
    paths = (str(BENCHMARKS), *filter(None, [os.environ.get("PYTHONPATH")]))  # neighbours, also in Python's safe mode
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=240, env=environment)


def run(script: str, *arguments: str, folder: Path) -> tuple[str, dict]:
    """What a benchmark printed, and its JSON file."""
    done = start(script, *arguments, "--json", str(folder / "out.json"), folder=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads((folder / "out.json").read_text())


def test_scaling_tracks_as_many_hands_as_are_wanted_in_images_of_all_sizes(tmp_path):
    arguments = ("--frames", "4", "--no-profile", "--set", "inference.backend=onnxruntime")
    _, result = run("scaling.py", *arguments, "--output", "table.md", folder=tmp_path)
    assert [row["hands"] for row in result["hands"]] == [1, 2, 3, 4, 6, 8]
    assert [row["case"] for row in result["image size"]][:2] == ["640x480", "960x720"]
    assert all(row["hands"] == 2 and row["frames"] == 4 for row in result["image size"])
    assert all(row["cpu_p50_ms"] > 0 and row["p50_ms"] <= row["p99_ms"] for row in result["hands"])
    assert "| 8 hands | 4 |" in (tmp_path / "table.md").read_text()


def test_endurance_sees_hands_most_of_the_time_and_counts_every_minute(tmp_path):
    arguments = ("--hours", "0.0334", "--no-profile", "--set", "inference.backend=onnxruntime")
    text, result = run("endurance.py", *arguments, folder=tmp_path)
    assert [row["minute"] for row in result["minutes"]] == [1, 2]
    assert all(0.75 < row["with_hands"] < 0.85 and 40 < row["memory_mb"] < 1000 for row in result["minutes"])
    assert "memory after a tenth" in text


def test_startup_measures_every_backend_that_can_run(tmp_path):
    _, result = run("startup.py", "--runs", "1", folder=tmp_path)
    parts = result["medians"]["onnxruntime"]
    assert parts["all_s"] == pytest.approx(parts["imports_s"] + parts["networks_s"] + parts["first_hands_s"])
    assert min(parts.values()) > 0 and 40 < parts["memory_mb"] < 1000


@pytest.mark.parametrize(("command", "message"), [
    ("startup.py --runs 0", "--runs must be at least 1, got 0"),
    ("scaling.py --frames 0", "--frames must be at least 1, got 0"),
    ("scaling.py --frames 3 --rig nope", "cannot read rig nope/cameras.yaml: No such file or directory"),
    ("stereo.py nope.yaml left right", "cannot read rig nope.yaml: No such file or directory"),
    ("held_out.py --data nope --labels nope", "nope/hagrid_hand_crops does not exist"),
])  # fmt: skip
def test_what_is_wrong_with_a_benchmark_is_said_in_one_line(command, message, tmp_path):
    script, *arguments = command.split()
    if script == "held_out.py":
        pytest.importorskip("torch", reason="needs the 'train' extra: pip install '.[train]'")
    done = start(script, *arguments, folder=tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    assert message in done.stderr and not done.stdout


def test_device_report_keeps_what_was_measured_when_a_part_fails(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    report = importlib.import_module("device_report")
    (tmp_path / "a.png").touch()
    good = report.run(report.Part("Good", (sys.executable, "-c", "print('12 ms')"), ("a.png", "b.png")), tmp_path)
    bad = report.run(report.Part("Bad", (sys.executable, "-c", "print('3 ms'); raise SystemExit('no GPU')")), tmp_path)
    assert good.startswith("## Good\n") and "12 ms" in good and "(a.png)" in good and "b.png" not in good
    assert "3 ms" in bad and "exit status 1" in bad and "no GPU" in bad and str(BENCHMARKS) not in good + bad
    doctor, *rest = report.parts(quick=False)
    assert "MACHINE" in report.run(doctor, tmp_path) and "exit status" not in report.run(doctor, tmp_path)
    assert {"Fastest settings", "Stages", "Starting", "Scaling"} <= {part.title for part in rest}


def test_blind_sheets_hide_who_is_who_and_the_key_tells(tmp_path):
    """Ours sees nothing: on every row one answer is empty, and which one is in the key, as are the verdicts."""

    def judge(*arguments: str | Path) -> subprocess.CompletedProcess:
        command = [sys.executable, str(BENCHMARKS / "judge_by_eye.py"), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=240)

    with open(tmp_path / "reference.jsonl", "w") as reference, open(tmp_path / "ours.jsonl", "w") as ours:
        tracker = HandTracker(TrackerConfig(inference=InferenceConfig(backend="onnxruntime", profile="none")))
        with open_source(DEMO, pace="fast") as source:
            frames = [frame for _, frame in itertools.islice(track_source(tracker, source), 12)]
        write_tracks(reference, frames)
        write_tracks(ours, [replace(frame, hands=()) for frame in frames])
    done = judge("draw", DEMO, "reference.jsonl", "ours.jsonl", "--hands", "7", "--output", "sheets")
    assert done.returncode == 0 and "7 hands on 2 sheets" in done.stdout, done.stderr
    key = json.loads((tmp_path / "sheets" / "key.json").read_text())
    sheets = [cv2.imread(str(tmp_path / "sheets" / f"sheet0{i}.png")) for i in range(2)]
    index_finger = np.concatenate([(sheet == (255, 80, 0)).all(axis=2) for sheet in sheets])
    drawn = [index_finger[400 * (i // 2) :][:400, 1200 * (i % 2) :][:, :1200] for i in range(7)]
    assert [bool(row[:, 800:].sum() > 20) for row in drawn] == key and set(key) == {True, False}
    assert all((row[:, 400:800].sum() > 20) != (row[:, 800:].sum() > 20) for row in drawn)

    rows = [{"n": n, "A": "wrong" if ours_first else "right", "B": "right" if ours_first else "wrong"}
            for n, ours_first in enumerate(key)]  # fmt: skip
    (tmp_path / "sheets" / "verdicts.json").write_text(json.dumps(rows))
    counted = judge("count", "sheets").stdout
    assert "| reference | 7 | 0 | 0 |" in counted and "| ours | 0 | 0 | 7 |" in counted
    (tmp_path / "sheets" / "verdicts.json").write_text(json.dumps(rows[:-1]))
    missing = judge("count", "sheets")
    assert missing.returncode != 0 and "the hands 0 to 6, each once" in missing.stderr


@pytest.mark.skipif(importlib.util.find_spec("rclpy") is None, reason="needs ROS 2 (rclpy)")
def test_latency_through_the_stage_graph_in_colour(tmp_path):
    arguments = ("--stages", "--encoding", "bgr8", "--size", "320x240", "--rate", "10", "--seconds", "3")
    text, result = run("ros_latency.py", *arguments, "--backend", "onnxruntime", folder=tmp_path)
    assert result["published"] == 30 and result["received"] == 30 - result["lost"] > 20
    assert result["images_with_hands"].get("2", 0) > 15 and 0 < result["latency_ms"]["p50"] < 1000
    assert "lost" in text and result["tracker_peak_mb"] > 200  # four processes
