"""`hand-tracking tune`: what is measured, how it is judged, and the whole command on the shipped networks."""

from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from hand_tracking_ros import profiles
from hand_tracking_ros.cli import main
from hand_tracking_ros.errors import BackendError
from hand_tracking_ros.machine import usable_cores
from hand_tracking_ros.manifest import load_manifest
from hand_tracking_ros.paths import models_directory
from hand_tracking_ros.tuning.candidates import Candidate, list_candidates, networks, thread_counts, usable_backends
from hand_tracking_ros.tuning.choice import (
    Limits,
    Result,
    accuracy_floor,
    choose,
    pareto_front,
    same_detections,
    stated_accuracy,
    summarise,
    verdicts,
)
from hand_tracking_ros.tuning.measure import WorkerFailed, measure_all, run_worker, write_clip
from hand_tracking_ros.tuning.plot import HEIGHT, RED, WIDTH, ticks
from hand_tracking_ros.tuning.report import figures, table
from hand_tracking_ros.tuning.worker import FrameFile

FP32 = Candidate("detnet", "keynet", "onnxruntime", "fp32", 1)
INT8 = FP32._replace(precision="int8")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip"))


def copy_models(folder, *more: str) -> None:
    """detnet and keynet with their int8 versions, and ``more``."""
    for name in ("detnet", "detnet_int8", "keynet", "keynet_int8", *more):
        for suffix in (".yaml", ".onnx"):
            shutil.copy(models_directory() / (name + suffix), folder)


# What is tried


def test_candidates_are_all_shipped_networks_on_every_backend_precision_and_thread_count():
    shipped = [[name for name, _ in networks(task)] for task in ("detect", "keypoints")]
    assert "detnet" in shipped[0] and "detnet_int8" not in shipped[0]  # which is a precision of detnet
    found = list_candidates(["openvino", "onnxruntime", "tensorrt"], [1, 2])
    assert len(found) == len(set(found))

    def size(name: str) -> str:
        return name[-5:] if name.endswith(("_small", "_nano")) else ""

    pairs = {(one, other) for one, other in itertools.product(*shipped) if size(one) == size(other)}
    assert {(c.detector, c.keypoints) for c in found} == pairs and ("detnet_small", "keynet_small") in pairs
    found = [c for c in found if (c.detector, c.keypoints) == ("detnet", "keynet")]
    assert len(found) == 4 + 4 + 3
    assert {c.precision for c in found if c.backend == "openvino"} == {"int8", "fp32"}
    assert {(c.precision, c.threads) for c in found if c.backend == "tensorrt"} == {
        ("int8", 1), ("fp16", 1), ("fp32", 1),
    }  # fmt: skip
    assert found[0].parameters().keys() == set(profiles.TUNED)


def test_networks_of_one_licence_are_not_mixed_with_others():
    """Who may not use share-alike weights must not be given any, and permissive ones are no rival of the default."""
    permissive = {(c.detector, c.keypoints) for c in list_candidates(["onnxruntime"], [1], licence="Apache-2.0")}
    default = {(c.detector, c.keypoints) for c in list_candidates(["onnxruntime"], [1], licence="CC-BY-SA-4.0")}
    assert permissive == {("detnet_permissive", "keynet_permissive")}
    assert default == {
        *(("detnet", own) for own in ("keynet", "keynet_f")),
        *(("detnet_small", own) for own in ("keynet_small", "keynet_f_small")),
        ("detnet_nano", "keynet_f_nano"),
    }
    assert list_candidates(["onnxruntime"], [1], licence="MIT") == []


def test_a_small_network_goes_with_a_small_one_in_another_folder_as_well(tmp_path):
    copy_models(tmp_path, "detnet_small", "keynet_small")
    found = list_candidates(["onnxruntime"], [1], tmp_path)
    pairs = {(Path(c.detector).stem, Path(c.keypoints).stem) for c in found}
    assert pairs == {("detnet", "keynet"), ("detnet_small", "keynet_small")}


def test_a_further_network_is_tried_and_int8_only_where_both_have_it(tmp_path):
    copy_models(tmp_path)
    text = (tmp_path / "keynet.yaml").read_text()
    (tmp_path / "other.yaml").write_text(text.replace("name: keynet\n", "name: other\n"))
    found = list_candidates(["onnxruntime"], [1], tmp_path)
    pairs = [(c.keypoints.removeprefix(f"{tmp_path}/"), c.precision) for c in found]
    assert pairs == [("keynet.yaml", "int8"), ("keynet.yaml", "fp32"), ("other.yaml", "fp32")]


def test_backends_that_cannot_run_are_refused_and_threads_double():
    assert "onnxruntime" in usable_backends()
    missing = {"openvino", "tensorrt"} - set(usable_backends())
    for name in missing:
        with pytest.raises(BackendError, match=f"backend '{name}' cannot run: "):
            usable_backends([name])
    assert thread_counts() == [1, 2, 4, 8][: len(thread_counts())] and thread_counts()[-1] <= usable_cores()


# How it is measured


def test_the_clip_goes_forth_and_back_and_every_sample_has_its_hands(clip):
    frames = FrameFile(clip._asdict())
    assert frames[0].shape == (480, 640) and clip.count == 180
    for index, same in ((180, 178), (357, 1), (358, 0), (359, 1)):
        assert np.array_equal(frames[index], frames[same])
    assert not np.array_equal(frames[0], frames[1])
    assert [sample["frame"] for sample in clip.samples] == list(range(0, 180, 9))
    assert {np.shape(points) for sample in clip.samples for points in sample["hands"]} == {(21, 2)}


def test_a_candidate_that_fails_does_not_end_the_run(clip, tmp_path):
    copy_models(tmp_path)
    (tmp_path / "keynet_int8.onnx").write_bytes(b"damaged")
    good, damaged = list_candidates(["onnxruntime"], [1], tmp_path)[::-1]
    calls = []
    measured, references = measure_all([damaged, good], clip, 4, 1, lambda: calls.append(1))
    assert len(calls) == 3  # the reference, and one process each
    assert "model 'keynet_int8'" in measured[0].failure and "is damaged" in measured[0].failure
    assert not measured[1].failure and [len(ms) for ms in measured[1].wall_ms.values()] == [4, 4]
    results = [summarise(m, references[m.candidate.reference()], clip) for m in measured]
    assert verdicts(results, Limits())[0].startswith("failed: model 'keynet_int8'")
    assert choose(results, Limits()) is results[1]
    assert "failed: model 'keynet_int8'" in table(results, verdicts(results, Limits()), Limits())


def test_a_crash_of_the_process_is_named(clip, tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(WorkerFailed, match="crashed: SIGSEGV"):
        run_worker({"parameters": FP32.parameters(), "clip": clip._asdict(), "frames": 1}, tmp_path)


def test_a_process_that_hangs_is_ended(clip, tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text("import time\ntime.sleep(600)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(WorkerFailed, match="did not end within 1 s"):
        run_worker({"parameters": FP32.parameters(), "clip": clip._asdict(), "frames": 1}, tmp_path, timeout_s=1)


# How it is judged


def result(p50_ms=5.0, cpu_ms=4.0, accuracy=77.0, candidate=FP32, **changes) -> Result:
    case = {"p50_ms": p50_ms, "p99_ms": 2 * p50_ms, "cpu_ms": cpu_ms}
    made = Result(candidate, {"1": {**case, "p50_ms": p50_ms / 2}, "2": case}, 100.0, accuracy, 1.0, 95.0, 11.0, "")
    return replace(made, **changes)


JUDGED = [
    (result(), Limits(), ""),
    (result(accuracy=74.9), Limits(), "not accurate enough"),  # the best of the run has 77
    (result(accuracy=75.1), Limits(), ""),
    (result(accuracy=74.9), Limits(accuracy_floor=74.0), ""),
    (result(accuracy=78.0), Limits(accuracy_floor=80.0), "not accurate enough"),
    (result(accuracy=float("nan")), Limits(), "its manifests state no accuracy"),
    (result(deviation_percent=3.1), Limits(), "other keypoints than the reference"),
    (result(deviation_percent=float("nan")), Limits(), "other keypoints than the reference"),
    (result(same_percent=79.0), Limits(), "other detections than the reference"),
    (result(p50_ms=5.0), Limits(latency_ms=10.0), ""),
    (result(p50_ms=5.1), Limits(latency_ms=10.0), "too slow"),  # p99 is what counts
    (result(cpu_ms=5.0), Limits(cpu_percent=15.0), ""),
    (result(cpu_ms=5.0), Limits(cpu_percent=15.0, rate_hz=60.0), "too much CPU"),
    (result(failure="crashed: SIGILL"), Limits(), "failed: crashed: SIGILL"),
]


@pytest.mark.parametrize(("judged", "limits", "verdict"), JUDGED)
def test_verdicts(judged, limits, verdict):
    assert verdicts([judged, result(accuracy=77.0)], limits)[0] == verdict


def test_the_fastest_is_chosen_and_among_equally_fast_ones_the_least_cpu():
    slow, fast, spinning = result(6.0, 3.0), result(4.1, 4.0), result(4.0, 8.0)
    assert choose([slow, fast, spinning], Limits()) is fast  # 2.5 % slower, half the CPU time
    assert choose([slow, spinning], Limits()) is spinning
    assert choose([slow, fast, spinning], Limits(cpu_percent=10.0)) is slow
    assert choose([slow, fast, spinning], Limits(latency_ms=1.0)) is None
    assert choose([result(4.0, accuracy=70.0), slow], Limits()) is slow
    assert accuracy_floor([slow, result(accuracy=float("nan"))], Limits()) == 75.0


def test_other_networks_are_chosen_only_when_they_are_clearly_faster():
    default, temporal = result(4.3, 4.0), FP32._replace(keypoints="keynet_f")
    assert choose([default, result(4.0, 3.5, candidate=temporal)], Limits()) is default
    faster = result(3.8, 3.5, candidate=temporal)
    assert choose([default, faster], Limits()) is faster


def test_the_front_is_what_nothing_beats_in_both():
    points = [(3.0, 77.0), (2.0, 75.0), (4.0, 77.0), (5.0, 80.0), (2.5, 74.0), (3.0, 76.0)]
    assert pareto_front(points) == [1, 0, 3]
    assert pareto_front([(1.0, 5.0), (1.0, 5.0)]) == [0]


def test_same_detections():
    boxes = [[[100.0, 100.0, 40.0], [300.0, 100.0, 40.0]], []]
    assert same_detections(boxes, boxes) == 100.0
    moved = [[[300.0, 119.0, 40.0], [100.0, 121.0, 40.0]], []]  # half a side is 20 px
    assert same_detections(boxes, moved) == 50.0
    assert same_detections(boxes, [[], [[100.0, 100.0, 40.0]]]) == 0.0
    assert same_detections([[]], [[]]) == 100.0


def test_the_stated_accuracy_is_that_of_the_files_that_run():
    for candidate, end in ((FP32, ""), (INT8, "_int8")):
        detector, keypoints = load_manifest(f"detnet{end}").accuracy, load_manifest(f"keynet{end}").accuracy
        pck = (keypoints["digits_pck20_percent"] + keypoints["hagrid_pck20_percent"]) / 2
        assert stated_accuracy(candidate) == pytest.approx(detector["recall_percent"] * pck / 100)


def test_a_manifest_without_figures_states_no_accuracy(tmp_path):
    text = (models_directory() / "keynet.yaml").read_text()
    (tmp_path / "keynet.yaml").write_text(text.replace("_pck20_percent", "_other"))
    assert np.isnan(stated_accuracy(FP32._replace(keypoints=str(tmp_path / "keynet.yaml"))))


def test_figures_are_strict_json_and_ticks_are_round():
    failed = figures(replace(result(failure="crashed"), cases={}, accuracy_percent=float("nan")))
    assert json.loads(json.dumps(failed, allow_nan=False))["accuracy_percent"] is None
    assert ticks(0.0, 11.5) == [0, 5, 10] and ticks(76.1, 77.6) == pytest.approx([76.5, 77.0, 77.5])


# The whole command


def test_tune_measures_writes_and_is_used_from_then_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    quick = ["--backends", "onnxruntime", "--threads", "1", "--frames", "5", "--passes", "1"]
    assert main(["tune", *quick, "--accuracy-floor", "50"]) == 0
    folder = tmp_path / "hand_tracking_ros"
    report = json.loads((folder / "profile.json").read_text())
    rows = {tuple(row[name] for name in profiles.TUNED): row for row in report["candidates"]}
    fp32, int8 = (rows[tuple(c.parameters()[name] for name in profiles.TUNED)] for c in (FP32, INT8))
    assert fp32["deviation_percent"] == 0 and 0 < int8["deviation_percent"] < 3, "the reference itself is fp32"
    assert fp32["same_percent"] == 100 and int8["same_percent"] > 80
    assert int8["error_percent"] < 20 and 40 < int8["memory_mb"] < 1000
    assert int8["hands"]["1"]["p50_ms"] > 0 and fp32["hands"]["2"]["cpu_ms"] > 0
    (chosen,) = [row for row in report["candidates"] if row["chosen"]]

    text = capsys.readouterr().out
    assert f"onnxruntime {chosen['inference.precision']}, 1 thread" in text.split("fastest: ")[1]
    assert (
        f"{stated_accuracy(INT8):.1f} %" in text
        and "the floor is 50.0 %" in text
        and f"wrote {folder / 'profile.yaml'}" in text
    )
    image = cv2.imread(str(folder / "profile.png"))
    assert image.shape == (HEIGHT, WIDTH, 3) and (image == RED).all(axis=-1).any(), "the chosen one is ringed in red"
    used = profiles.fill_in({}, profiles.TUNED)
    assert used.values == {name: chosen[name] for name in profiles.TUNED} and not used.ignored

    before = (folder / "profile.yaml").read_text()
    assert main(["tune", *quick, "--accuracy-floor", "50", "--latency-ms", "0.001"]) == 2
    captured = capsys.readouterr()
    assert captured.out.count("too slow") == len(rows) and "no candidate meets the limits" in captured.err
    assert (folder / "profile.yaml").read_text() == before


@pytest.mark.parametrize(("options", "message"), [
    ("--threads 0", "--threads must be at least 1, got 0"),
    ("--threads 1 0", "--threads must be at least 1, got 0"),
    ("--frames 0", "--frames must be at least 1, got 0"),
    ("--passes 0", "--passes must be at least 1, got 0"),
    ("--rate 0", "--rate must be greater than 0, got 0"),
    ("--latency-ms -1", "--latency-ms must be greater than 0, got -1"),
    ("--cpu-percent nan", "--cpu-percent must be greater than 0, got nan"),
    ("--accuracy-floor 101", "--accuracy-floor must be between 0 and 100, got 101"),
    ("--output folder", "cannot write folder: it is a folder; give the name of a file"),
    ("--output p.yaml --json folder", "cannot write folder: it is a folder"),
    ("--output file/p.yaml", "cannot write file/p.yaml: cannot make file: File exists"),
])  # fmt: skip
def test_what_makes_no_sense_is_refused_before_anything_is_measured(options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    assert main(["tune", *options.split()]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and not captured.out
    assert {path.name for path in tmp_path.iterdir()} == {"folder", "file"}
