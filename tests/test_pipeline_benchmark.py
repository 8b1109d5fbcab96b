"""benchmarks/pipeline.py: its worker on our tracker, and its summary. MediaPipe itself only where it is installed."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hand_tracking_ros.cli.demo import CLIP, demo_directory

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
MEDIAPIPE_PYTHON = os.environ.get("HAND_TRACKING_MEDIAPIPE_PYTHON")
pytestmark = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="pins processes to a core: Linux only")


@pytest.fixture
def pipeline(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("pipeline")


def settings(pipeline, folder: Path, frames: int) -> dict:
    clip = pipeline.write_frames(str(demo_directory() / CLIP), folder / "frames.raw", frames, width=320)
    core = min(os.sched_getaffinity(0))
    return clip | {"parameters": {"inference.backend": "onnxruntime"}, "max_hands": 2, "core": core}


def test_our_tracker_takes_its_turns_and_finds_the_hands(pipeline, tmp_path):
    chosen = settings(pipeline, tmp_path, frames=12)
    assert (chosen["count"], chosen["height"], chosen["width"], chosen["fps"]) == (12, 240, 320, 30)
    assert (tmp_path / "frames.raw").stat().st_size == 12 * 240 * 320 * 3
    tracker = pipeline.Tracker("ours", sys.executable, chosen, tmp_path)
    try:
        assert tracker.runs == "onnxruntime int8"
        tracker.step(5)
        tracker.step(25)  # beyond the end: to and fro
        milliseconds, hands = np.array(tracker.times).T
        assert len(hands) == 30 and (milliseconds > 0).all() and hands[-1] == 2
        assert 40 < tracker.close() < 1000
    finally:
        tracker.kill()


def test_a_tracker_that_fails_is_named_with_its_last_words(pipeline, tmp_path):
    chosen = settings(pipeline, tmp_path, frames=1) | {"parameters": {"detector.model": "none_of_ours"}}
    with pytest.raises(SystemExit, match=r"(?s)ours failed:.*unknown model 'none_of_ours'"):
        pipeline.Tracker("ours", sys.executable, chosen, tmp_path)
    with pytest.raises(SystemExit, match="cannot run .*no_python"):
        pipeline.Tracker("ours", str(tmp_path / "no_python"), chosen, tmp_path)


def measured(*trackers: tuple[str, list[float], list[int]]) -> dict:
    return {
        name: {"runs": "x", "memory_mb": 100.0, "times": np.array([ms, hands], float).T} for name, ms, hands in trackers
    }


def test_the_summary_compares_frames_on_which_all_saw_the_hands(pipeline):
    ours, peer = [2.0] * 30 + [1.0] * 30, [8.0] * 30 + [4.0] * 30
    rows = pipeline.summarise(measured(("ours", ours, [1] * 30 + [0] * 30), ("peer", peer, [1] * 60)), expected=1)
    assert [(row["frames"], row["of"], row["p50_ms"], row["p99_ms"]) for row in rows] == [
        (30, 60, 2.0, 2.0),
        (30, 60, 8.0, 8.0),
    ]
    assert [row["ours_over_p50"] for row in rows] == [1.0, 0.25]
    assert [row["all_p50_ms"] for row in rows] == [1.5, 6.0] and [row["hands"] for row in rows] == [0.5, 1.0]


def test_too_few_frames_have_no_percentiles(pipeline):
    rows = pipeline.summarise(measured(("ours", [2.0] * 60, [1] * 10 + [0] * 50), ("p", [4.0] * 60, [1] * 60)), 1)
    assert rows[1]["frames"] == 10 and rows[1]["p50_ms"] is None and rows[1]["ours_over_p50"] is None
    table = pipeline.markdown([{"case": "one hand", "max_hands": 2} | row for row in rows], {"commit": "abc"})
    assert "| one hand | 2 | p | 10 of 60 | - | - | - | - | 4.00 | 0.50 | 1.00 | 100 |" in table
    assert "- commit: abc" in table


@pytest.mark.skipif(not MEDIAPIPE_PYTHON, reason="a comparison needs MediaPipe: set HAND_TRACKING_MEDIAPIPE_PYTHON")
def test_the_whole_comparison(tmp_path):
    command = [sys.executable, str(BENCHMARKS / "pipeline.py"), "--mediapipe-python", str(MEDIAPIPE_PYTHON)]
    command += ["--two-hands", str(demo_directory() / CLIP), "--frames", "25", "--json", str(tmp_path / "out.json")]
    path = os.pathsep.join(filter(None, (str(BENCHMARKS), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out.json").read_text())
    assert [(row["max_hands"], row["tracker"]) for row in report["rows"]] == [
        (most, name) for most in (1, 2) for name in ("ours", "MediaPipe, complexity 0", "MediaPipe, complexity 1")
    ]
    assert all(0 < row["all_p50_ms"] < 10_000 and 50 < row["memory_mb"] < 2000 for row in report["rows"])
    assert report["machine"]["MediaPipe, complexity 0"] == "0.10.21" and report["machine"]["commit"]
