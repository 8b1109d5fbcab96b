"""`hand-tracking models` and `hand-tracking doctor`, as the command line runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("onnx", reason="the test networks are made with onnx: pip install onnx")

from tiny_models import detnet_manifest, keynet_manifest

from hand_tracking_ros.cli import main
from hand_tracking_ros.cli.doctor import PACKAGES


@pytest.fixture
def models(tmp_path):
    """Paths of two manifests, as arguments."""
    keynet = keynet_manifest(tmp_path, accuracy={"pck_0.2": 0.91})
    return [str(keynet.path), str(detnet_manifest(tmp_path).path)]


def test_list_shows_each_model(models, capsys):
    assert main(["models", "list", *models]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line.startswith(("keynet", "detnet"))] == ["keynet", "detnet"]
    keynet = next(line for line in lines if line.startswith("keynet"))
    for fact in ("keypoints", "MB", "1.2", "Apache-2.0", "pck_0.2 0.91"):
        assert fact in keynet


def test_list_as_json(models, capsys):
    assert main(["models", "--json", "list", *models]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert [fact["task"] for fact in facts] == ["keypoints", "detect"]
    assert facts[0]["accuracy"] == {"pck_0.2": 0.91} and facts[0]["problem"] is None


def test_verify_good_models(models, capsys):
    assert main(["models", "verify", *models]) == 0
    assert capsys.readouterr().out.count(": ok, sha256 ") == 2


def test_verify_names_what_is_wrong_and_goes_on(models, tmp_path, capsys):
    content = (tmp_path / "keynet.onnx").read_bytes()
    (tmp_path / "keynet.onnx").write_bytes(content[:-7])
    assert main(["models", "verify", *models]) == 1
    bad, good = capsys.readouterr().out.splitlines()
    assert bad.startswith("keynet: FAILED: ") and "sha256 is" in bad and str(tmp_path / "keynet.onnx") in bad
    assert good.startswith("detnet: ok")


@pytest.mark.parametrize("action", ["list", "verify"])
def test_missing_file_and_missing_manifest(models, tmp_path, capsys, action):
    (tmp_path / "detnet.onnx").unlink()
    assert main(["models", action, "no_such_net", *models]) == 1
    output = capsys.readouterr().out
    assert "unknown model 'no_such_net'" in output
    assert "detnet.onnx is missing" in output


def test_shipped_models_verify(capsys):
    status = main(["models", "verify", "--json"])
    if status == 2 and "no models" in capsys.readouterr().err:
        pytest.skip("models/ holds no models yet")
    assert status == 0, capsys.readouterr().out


def test_doctor_reports_backends_models_and_packages(capsys):
    status = main(["doctor", "--json"])
    report = json.loads(capsys.readouterr().out)
    items = {item["name"]: item for items in report.values() for item in items}
    broken = [name for name, item in items.items() if item["state"] == "problem"]
    assert set(broken) <= {"models"}  # nothing but, perhaps, models that are not trained yet
    assert status == (1 if broken else 0)
    assert {package[0] for package in PACKAGES} <= items.keys()
    assert items["onnxruntime"]["state"] == "ok"
    assert items["backend: auto"]["detail"].startswith("runs ")
    for item in items.values():
        assert item["state"] == "ok" or item["remedy"], f"{item['name']} does not say how to get it"


def test_doctor_prints_text(capsys):
    main(["doctor"])
    output = capsys.readouterr().out
    for title in ("MACHINE", "PACKAGES", "INFERENCE", "MODELS"):
        assert title in output


def test_doctor_survives_a_missing_and_a_broken_package(tmp_path):
    """In a process where onnxruntime does not import, the doctor says so and how to put it right; exit status 1."""
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime" / "__init__.py").write_text("raise ImportError('libonnxruntime.so: no such file')\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    command = [sys.executable, "-m", "hand_tracking_ros.cli", "doctor", "--json"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 1, result.stderr
    items = {item["name"]: item for items in json.loads(result.stdout).values() for item in items}
    assert items["onnxruntime"]["state"] == "problem"
    assert "libonnxruntime.so: no such file" in items["onnxruntime"]["detail"]
