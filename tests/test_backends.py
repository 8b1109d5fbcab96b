"""Backends: their numbers against a numpy reference and each other, their checks, and which one runs."""

from __future__ import annotations

import importlib.util
import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

pytest.importorskip("onnx", reason="the test networks are made with onnx: pip install onnx")

import tiny_models
from onnx.reference import ReferenceEvaluator
from tiny_models import DETNET_TENSORS, KEYNET_TENSORS, crops, detnet_manifest, keynet_manifest

from hand_tracking_ros.backends import (
    PREFERENCE,
    available_backends,
    backend_status,
    backends_for,
    choose_backend,
    create_backend,
    version_for,
)
from hand_tracking_ros.backends.onnxruntime_cuda import OnnxRuntimeCudaBackend
from hand_tracking_ros.config import DetectorConfig, InferenceConfig, KeypointConfig
from hand_tracking_ros.detection import HandDetector
from hand_tracking_ros.errors import BackendError, ModelError
from hand_tracking_ros.keypoints import KeypointEstimator
from hand_tracking_ros.manifest import TensorSpec, load_manifest

NEEDS_OPENVINO = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="openvino is not installed: pip install openvino"
)
CPU_BACKENDS = ["onnxruntime", pytest.param("openvino", marks=NEEDS_OPENVINO)]
ONNX_RUNTIME = InferenceConfig(backend="onnxruntime")


@pytest.fixture(scope="module")
def keynet(tmp_path_factory):
    return keynet_manifest(tmp_path_factory.mktemp("keynet"))


@pytest.fixture(scope="module")
def detnet(tmp_path_factory):
    return detnet_manifest(tmp_path_factory.mktemp("detnet"))


def reference(manifest, **feeds) -> dict[str, np.ndarray]:
    """The model evaluated operator by operator in numpy."""
    values = ReferenceEvaluator(str(manifest.file)).run(None, feeds)
    return dict(zip(manifest.outputs, values, strict=True))


def assert_outputs(actual: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert actual.keys() == wanted.keys()
    for name, values in wanted.items():
        assert actual[name].dtype == np.float32
        np.testing.assert_allclose(actual[name], values, rtol=1e-4, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("name", CPU_BACKENDS)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_keynet_equals_numpy_at_every_batch_size(keynet, name, count):
    backend = create_backend(keynet, InferenceConfig(backend=name))
    assert (backend.name, backend.precision) == (name, "fp32")
    images = crops(count)
    assert_outputs(backend.run({"crop": images}), reference(keynet, crop=images))


@pytest.mark.parametrize("name", CPU_BACKENDS)
def test_detnet_equals_numpy(detnet, name):
    backend = create_backend(detnet, InferenceConfig(backend=name, threads=2))
    image = np.random.default_rng(5).integers(0, 256, (1, 1, 240, 320), dtype=np.uint8)
    outputs = backend.run({"image": image})
    assert_outputs(outputs, reference(detnet, image=image))
    assert 0 < np.count_nonzero(outputs["scores"]) < outputs["scores"].size / 4  # peaks only


@pytest.mark.parametrize("name", CPU_BACKENDS)
def test_results_survive_the_next_run(keynet, name):
    backend = create_backend(keynet, InferenceConfig(backend=name))
    first = backend.run({"crop": crops(2, seed=1)})
    kept = {key: values.copy() for key, values in first.items()}
    backend.run({"crop": crops(2, seed=2)})
    for key, values in kept.items():
        np.testing.assert_array_equal(first[key], values)


@pytest.mark.parametrize("name", CPU_BACKENDS)
def test_threads_that_call_at_once_get_what_is_theirs(keynet, name):
    """As the cameras of a rig do: batches of one and two, of other images, through one backend."""
    backend = create_backend(keynet, InferenceConfig(backend=name))
    feeds = [{"crop": crops(1 + seed % 2, seed=seed)} for seed in range(40)]
    alone = [backend.run(feed) for feed in feeds]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(backend.run, feeds))
    for one, other in zip(alone, together, strict=True):
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])


@pytest.mark.parametrize("name", CPU_BACKENDS)
def test_views_of_a_larger_array_are_read_right(keynet, name):
    backend = create_backend(keynet, InferenceConfig(backend=name))
    wide = np.zeros((2, 1, 96, 200), dtype=np.uint8)
    wide[..., 7:103] = crops(2)
    assert_outputs(backend.run({"crop": wide[..., 7:103]}), reference(keynet, crop=crops(2)))


@pytest.mark.parametrize("name", CPU_BACKENDS)
@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({}, "takes the inputs crop; got none"),
        ({"image": crops(1)}, "takes the inputs crop; got image"),
        ({"crop": crops(1).astype(np.float32)}, r"'crop' must be uint8 \[N, 1, 96, 96\].*got float32 \[1, 1, 96, 96\]"),
        ({"crop": crops(1)[:, :, :95]}, r"got uint8 \[1, 1, 95, 96\]"),
        ({"crop": crops(1)[0]}, r"got uint8 \[1, 96, 96\]"),
        ({"crop": crops(5)}, r"free dimensions in 1\.\.4; got uint8 \[5, 1, 96, 96\]"),
        ({"crop": crops(1)[:0]}, r"got uint8 \[0, 1, 96, 96\]"),
    ],
)
def test_wrong_feeds_are_refused(keynet, name, feeds, message):
    with pytest.raises(BackendError, match=message):
        create_backend(keynet, InferenceConfig(backend=name)).run(feeds)


@pytest.mark.parametrize("name", CPU_BACKENDS)
def test_closed_backend_says_so(keynet, name):
    backend = create_backend(keynet, InferenceConfig(backend=name))
    backend.close()
    backend.close()
    with pytest.raises(BackendError, match="closed"):
        backend.run({"crop": crops(1)})


@pytest.mark.parametrize("name", CPU_BACKENDS)
@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"inputs": {"image": KEYNET_TENSORS["inputs"]["crop"]}}, "inputs are crop, the manifest says image"),
        ({"inputs": {"crop": TensorSpec("float32", ("N", 1, 96, 96))}}, r"'crop' is uint8 .*manifest says float32"),
        ({"inputs": {"crop": TensorSpec("uint8", ("N", 1, 64, 64))}}, r"the manifest says uint8 \[N, 1, 64, 64\]"),
        ({"inputs": {"crop": TensorSpec("uint8", ("N", 96, 96))}}, r"the manifest says uint8 \[N, 96, 96\]"),
        ({"outputs": DETNET_TENSORS["outputs"]}, "outputs are keypoints, .*the manifest says scores, boxes"),
        (
            {"outputs": {**KEYNET_TENSORS["outputs"], "depth": TensorSpec("float32", ("N", 20))}},
            r"output 'depth' is float32 \[.*, 21\], the manifest says float32 \[N, 20\]",
        ),
    ],
)
def test_model_that_does_not_fit_its_manifest(tmp_path, name, tensors, message):
    manifest = keynet_manifest(tmp_path, **tensors)
    with pytest.raises(ModelError, match=message):
        create_backend(manifest, InferenceConfig(backend=name))


def test_fixed_batch_of_the_file_cannot_be_free_in_the_manifest(tmp_path):
    tensors = {"inputs": {"image": TensorSpec("uint8", ("N", 1, 240, 320))}, "max_batch": 2}
    with pytest.raises(ModelError, match=r"'image' is uint8 \[1, 1, 240, 320\], the manifest says"):
        create_backend(detnet_manifest(tmp_path, **tensors), ONNX_RUNTIME)


@pytest.mark.parametrize("name", CPU_BACKENDS)
def test_file_that_is_no_onnx(tmp_path, name):
    keynet_manifest(tmp_path)
    (tmp_path / "keynet.onnx").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")  # as without git lfs
    values = {"name": "keynet", "task": "keypoints", "file": "keynet.onnx", "max_batch": 4}
    manifest = tiny_models.write_manifest(tmp_path / "k.yaml", **values, **KEYNET_TENSORS, **tiny_models.FACTS)
    with pytest.raises(ModelError, match=r"cannot load .*keynet\.onnx"):
        create_backend(manifest, InferenceConfig(backend=name))


def test_corrupted_file_is_noticed_before_it_is_loaded(tmp_path):
    manifest = keynet_manifest(tmp_path)
    content = bytearray(manifest.file.read_bytes())
    content[-20] ^= 1  # one bit of a weight: the file still loads
    manifest.file.write_bytes(content)
    with pytest.raises(ModelError, match=r"sha256 is .* expected"):
        create_backend(manifest, ONNX_RUNTIME)


@pytest.mark.parametrize("max_batch", [0, 5])
def test_batch_beyond_the_manifest_is_refused(keynet, max_batch):
    with pytest.raises(BackendError, match="takes batches of 1 to 4, asked for"):
        create_backend(keynet, ONNX_RUNTIME, max_batch=max_batch)


def test_smaller_batch_limit_holds(keynet):
    backend = create_backend(keynet, ONNX_RUNTIME, max_batch=2)
    backend.run({"crop": crops(2)})
    with pytest.raises(BackendError, match=r"free dimensions in 1\.\.2"):
        backend.run({"crop": crops(3)})


def test_auto_takes_the_best_usable_and_says_why(keynet, caplog):
    caplog.set_level(logging.INFO, logger="hand_tracking_ros")
    statuses = available_backends()
    assert [status.name for status in statuses] == list(PREFERENCE)
    backend = create_backend(keynet, InferenceConfig())
    assert backend.name == choose_backend(InferenceConfig()).names[0]
    assert f"model keynet runs on {backend.name}" in caplog.text
    assert "auto: best of" in caplog.text
    for status in statuses:
        if not status.usable:
            assert status.detail in caplog.text and status.remedy


@NEEDS_OPENVINO
def test_auto_passes_over_a_backend_that_fails_to_load(keynet, tmp_path):
    """With a broken onnxruntime on the path, a new process still runs the model, and says why not on that."""
    (tmp_path / "onnxruntime").mkdir()
    broken = "__version__ = '1.0-broken'\ndef get_available_providers():\n    return ['CPUExecutionProvider']\n"
    (tmp_path / "onnxruntime" / "__init__.py").write_text(broken)
    program = (
        "import logging, sys; logging.basicConfig(level=logging.INFO)\n"
        "from hand_tracking_ros.backends import create_backend\n"
        "from hand_tracking_ros.config import InferenceConfig\n"
        "from hand_tracking_ros.manifest import load_manifest\n"
        "print(create_backend(load_manifest(sys.argv[1]), InferenceConfig()).name)\n"
    )
    path = os.pathsep.join([str(tmp_path), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", program, str(keynet.path)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.strip() == "openvino"
    assert "backend onnxruntime cannot run" in result.stderr


@pytest.mark.parametrize("name", PREFERENCE)
def test_backend_asked_for_runs_or_says_what_to_install(keynet, name):
    status = backend_status(name)
    if status.usable:
        assert create_backend(keynet, InferenceConfig(backend=name)).name == name
        return
    with pytest.raises(BackendError) as error:
        create_backend(keynet, InferenceConfig(backend=name))
    assert f"backend '{name}' was asked for but cannot run" in str(error.value)
    assert "install" in str(error.value)


@pytest.mark.skipif(backend_status("onnxruntime_cuda").usable, reason="this ONNX Runtime has CUDA, and a GPU answers")
def test_an_onnxruntime_without_cuda_does_not_pass_for_one_with_it(keynet):
    """It would run the model on the CPU, and say so in its log only."""
    with pytest.raises(BackendError, match="ONNX Runtime cannot run 'keynet' with CUDAExecutionProvider"):
        OnnxRuntimeCudaBackend(keynet)
    with pytest.raises(BackendError, match="'onnxruntime_cuda' was asked for but cannot run"):
        create_backend(keynet, InferenceConfig(backend="onnxruntime_cuda"))


def test_fp16_needs_tensorrt_when_asked_for_and_falls_back_with_auto(keynet, caplog):
    with pytest.raises(BackendError, match="precision fp16 was asked for; onnxruntime runs int8 and fp32"):
        create_backend(keynet, InferenceConfig(backend="onnxruntime", precision="fp16"))
    backend = create_backend(keynet, InferenceConfig(precision="fp16"))
    if backend.name != "tensorrt":
        assert backend.precision == "fp32"
        assert "precision fp16 needs TensorRT" in caplog.text


def test_optional_runtimes_are_not_imported_for_onnxruntime(keynet):
    program = (
        "import sys\n"
        "from hand_tracking_ros.backends import create_backend\n"
        "from hand_tracking_ros.config import InferenceConfig\n"
        "from hand_tracking_ros.manifest import load_manifest\n"
        "create_backend(load_manifest(sys.argv[1]), InferenceConfig(backend='onnxruntime'))\n"
        "print(sorted({'openvino', 'tensorrt', 'tensorrt_rtx', 'torch', 'onnx'} & set(sys.modules)))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", program, str(keynet.path)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.strip() == "[]"


@pytest.fixture(scope="module")
def versions(tmp_path_factory):
    """KeyNet with an int8 version beside it; its own file here is the same network, so that it loads anywhere."""
    folder = tmp_path_factory.mktemp("versions")
    manifest = keynet_manifest(folder)
    text = manifest.path.read_text().replace("name: keynet", "name: keynet_int8")
    (folder / "keynet_int8.yaml").write_text(text.replace("precision: fp32", "precision: int8"))
    return manifest


@pytest.mark.parametrize("name", CPU_BACKENDS)
@pytest.mark.parametrize(("precision", "runs"), [("auto", "int8"), ("int8", "int8"), ("fp32", "fp32")])
def test_a_cpu_runs_the_int8_version_unless_told_otherwise(versions, name, precision, runs):
    backend = create_backend(versions, InferenceConfig(backend=name, precision=precision))
    assert backend.precision == runs
    assert backend.manifest.name == ("keynet_int8" if runs == "int8" else "keynet")


def test_int8_that_is_not_there_is_an_error_only_when_asked_for(keynet):
    assert create_backend(keynet, InferenceConfig(backend="onnxruntime", precision="auto")).precision == "fp32"
    with pytest.raises(BackendError, match="'keynet' has no int8 version: set inference.precision"):
        create_backend(keynet, InferenceConfig(backend="onnxruntime", precision="int8"))


def test_a_damaged_int8_version_is_an_error_not_a_fallback(tmp_path):
    manifest = keynet_manifest(tmp_path)
    text = manifest.path.read_text().replace("precision: fp32", "precision: int8")
    (tmp_path / "keynet_int8.yaml").write_text(text.replace(manifest.sha256, "0" * 64))
    with pytest.raises(ModelError, match="damaged"):
        create_backend(manifest, InferenceConfig())


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_model_in_int8_is_an_error_where_another_precision_is_asked_for(precision):
    says = (
        rf"precision {precision} was asked for, but model '{{}}' is in int8: choose the model .*'{{}}'.*to auto or int8"
    )
    inference = InferenceConfig(precision=precision)
    with pytest.raises(BackendError, match=says.format("keynet_int8", "keynet")):
        KeypointEstimator(KeypointConfig(model="keynet_int8"), inference)
    with pytest.raises(BackendError, match=says.format("detnet_int8", "detnet")):
        HandDetector(DetectorConfig(model="detnet_int8"), inference)
    for precision in ("auto", "int8"):
        inference = InferenceConfig(backend="onnxruntime", precision=precision)
        assert KeypointEstimator(KeypointConfig(model="keynet_int8"), inference).backend.precision == "int8"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux: a process kept to one core")
def test_no_more_threads_than_cores_that_may_be_used(keynet, caplog):
    """A profile of the machine says 8, and the process is kept to one core of it."""
    caplog.set_level(logging.INFO, logger="hand_tracking_ros")
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        backend = create_backend(keynet, InferenceConfig(backend="onnxruntime", threads=8))
    finally:
        os.sched_setaffinity(0, before)
    assert backend._session.get_session_options().intra_op_num_threads == 1
    assert "inference.threads is 8, but this process may use 1 cores only" in caplog.text


@pytest.mark.parametrize(("backend", "precision", "version"), [
    ("onnxruntime", "auto", "keynet_int8"), ("onnxruntime", "int8", "keynet_int8"), ("onnxruntime", "fp32", "keynet"),
    ("tensorrt", "auto", "keynet"), ("tensorrt", "int8", "keynet_int8"), ("tensorrt", "fp16", "keynet"),
    ("onnxruntime_cuda", "auto", "keynet"),
])  # fmt: skip
def test_which_version_of_a_model_runs(backend, precision, version):
    assert version_for(backend, load_manifest("keynet"), precision).name == version


def test_backends_without_int8_are_passed_over_where_a_model_is_to_run_in_it():
    keynet, quantised = load_manifest("keynet"), load_manifest("keynet_int8")
    everything = ("onnxruntime", "onnxruntime_cuda")
    assert backends_for(everything, keynet, "auto") == list(everything)
    assert backends_for(everything, keynet, "int8") == backends_for(everything, quantised, "auto") == ["onnxruntime"]
    with pytest.raises(BackendError, match="'keynet_int8' was asked for in int8, which onnxruntime_cuda cannot run"):
        backends_for(["onnxruntime_cuda"], quantised, "auto")
