"""TensorRT: parsing and building engines for real, with tensorrt_rtx even without a GPU; running where a GPU is."""

from __future__ import annotations

import os
import stat

import numpy as np
import pytest

pytest.importorskip("onnx", reason="the test networks are made with onnx: pip install onnx")

import onnx
from tiny_models import DETNET_TENSORS, crops, detnet_manifest, keynet_manifest

from hand_tracking_ros.backends import backend_status, create_backend, tensorrt
from hand_tracking_ros.backends.engine_cache import engine_cache_path, load_engine, store_engine
from hand_tracking_ros.backends.half import half_precision
from hand_tracking_ros.backends.onnxruntime import OnnxRuntimeBackend
from hand_tracking_ros.config import InferenceConfig
from hand_tracking_ros.errors import BackendError, ModelError

STATUS = backend_status("tensorrt")
NEEDS_GPU = pytest.mark.skipif(not STATUS.usable, reason=f"running TensorRT needs it and a GPU: {STATUS.detail}")


@pytest.fixture
def rtx(monkeypatch):
    """tensorrt_rtx, whose builder runs without a GPU, even where tensorrt is installed as well."""
    module = pytest.importorskip(
        "tensorrt_rtx", reason="building engines without a GPU needs: pip install tensorrt-rtx"
    )
    monkeypatch.setattr(tensorrt, "LIBRARIES", ("tensorrt_rtx",))
    return module


@pytest.fixture(scope="module")
def keynet(tmp_path_factory):
    return keynet_manifest(tmp_path_factory.mktemp("keynet"))


@pytest.fixture(scope="module")
def detnet(tmp_path_factory):
    return detnet_manifest(tmp_path_factory.mktemp("detnet"))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("architecture", ["SM86", "SM120"])
def test_engine_is_built_for_a_gpu_that_is_not_here(rtx, keynet, precision, architecture):
    engine = tensorrt.build_engine(keynet, precision, max_batch=4, compute_capability=architecture)
    assert len(engine) > 10_000


def test_engine_with_a_fixed_batch_is_built(rtx, detnet):
    assert len(tensorrt.build_engine(detnet, "fp32", 1, "SM86")) > 10_000


def test_uint8_inputs_keep_their_type_and_their_free_batch(rtx, keynet):
    log = tensorrt._make_log(rtx)
    network = rtx.Builder(log).create_network(1 << int(rtx.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = tensorrt._parse(rtx, log, network, keynet, "fp32")
    inputs, outputs = tensorrt._network_specs(rtx, network)
    assert str(inputs["crop"]) == "uint8 [?, 1, 96, 96]"
    assert str(outputs["keypoints"]) == "float32 [?, 21, 2]"
    del parser


def test_profile_covers_one_to_max_batch(rtx, keynet):
    profile = tensorrt._profile(rtx.Builder(tensorrt._make_log(rtx)), keynet, 4)
    assert [tuple(shape) for shape in profile.get_shape("crop")] == [(1, 1, 96, 96), (2, 1, 96, 96), (4, 1, 96, 96)]


def test_unknown_architecture_is_refused(rtx, keynet):
    with pytest.raises(BackendError, match=r"cannot build for SM12; it builds for .*SM86"):
        tensorrt.build_engine(keynet, "fp32", 4, "SM12")


def test_parser_errors_are_listed(rtx, keynet, tmp_path):
    model = onnx.load(keynet.file)
    model.graph.node[1].op_type = "NoSuchOperator"
    onnx.save(model, tmp_path / "keynet.onnx")
    broken = keynet.__class__(**{**vars(keynet), "file": tmp_path / "keynet.onnx"})
    with pytest.raises(ModelError, match=r"cannot parse .*keynet\.onnx: .*NoSuchOperator"):
        tensorrt.build_engine(broken, "fp32", 4, "SM86")


def test_model_that_does_not_fit_its_manifest(rtx, tmp_path):
    manifest = keynet_manifest(tmp_path, outputs=DETNET_TENSORS["outputs"])
    with pytest.raises(ModelError, match="the manifest says scores, boxes"):
        tensorrt.build_engine(manifest, "fp32", 4, "SM86")


def test_without_a_gpu_the_reason_is_given(rtx, keynet):
    status = backend_status("tensorrt")
    if status.usable:
        pytest.skip("this machine has a GPU")
    assert status.version == rtx.__version__
    assert status.detail and "driver" in status.remedy
    with pytest.raises(BackendError, match="'tensorrt' was asked for but cannot run"):
        create_backend(keynet, InferenceConfig(backend="tensorrt"))


def test_without_tensorrt_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(tensorrt, "LIBRARIES", ("no_such_tensorrt",))
    with pytest.raises(BackendError, match=r"no_such_tensorrt.*JetPack 6\.1"):
        tensorrt.import_tensorrt()
    assert backend_status("tensorrt").version is None


def test_half_precision_keeps_the_interface_and_nearly_the_numbers(keynet, detnet, tmp_path):
    image = np.random.default_rng(6).integers(0, 256, (1, 1, 240, 320), dtype=np.uint8)
    for manifest, feeds in ((keynet, {"crop": crops(2)}), (detnet, {"image": image})):
        half_file = tmp_path / f"{manifest.name}_half.onnx"
        half_file.write_bytes(half_precision(manifest.file.read_bytes()))
        half = manifest.__class__(**{**vars(manifest), "file": half_file})
        convolutions = [node for node in onnx.load(half_file).graph.node if node.op_type == "Conv"]
        assert convolutions and all(name.endswith("_half") for node in convolutions for name in node.input)
        wanted = OnnxRuntimeBackend(manifest, max_batch=2).run(feeds)
        actual = OnnxRuntimeBackend(half, max_batch=2).run(feeds)
        for name, values in wanted.items():
            assert actual[name].dtype == np.float32
            scale = np.abs(values).max()
            assert np.abs(actual[name] - values).max() < 0.005 * scale, name
            assert not np.array_equal(actual[name], values), f"{name}: nothing became fp16"


def test_cache_path_is_a_file_name_of_all_that_matters(keynet, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    base = (keynet, "tensorrt 10.3.0", "Orin (nvgpu)/x SM87", "fp16", 2)
    path = engine_cache_path(*base)
    assert path.parent == tmp_path / "hand_tracking_ros" / "engines"
    assert keynet.sha256[:16] in path.name and "tensorrt_10.3.0" in path.name and "SM87" in path.name
    other_model = keynet.__class__(**{**vars(keynet), "sha256": "0" * 64})
    changed = [
        (other_model, *base[1:]),
        (base[0], "tensorrt_rtx 10.3.0", *base[2:]),
        (base[0], "tensorrt 10.4.0", *base[2:]),
        (*base[:2], "Orin SM86", *base[3:]),
        (*base[:3], "fp32", 2),
        (*base[:4], 3),
    ]
    assert len({engine_cache_path(*key) for key in changed} | {path}) == 7


def test_cache_gives_back_what_was_stored(tmp_path):
    path = tmp_path / "deep" / "k.engine"
    assert load_engine(path) is None
    store_engine(path, b"engine one")
    store_engine(path, b"engine two")
    assert load_engine(path) == b"engine two"
    assert [file.name for file in path.parent.iterdir()] == ["k.engine"]


@pytest.mark.parametrize("damage", [lambda c: c[:-1], lambda c: c[:-1] + b"?", lambda c: b"", lambda c: b"x" + c])
def test_damaged_cache_is_noticed(tmp_path, caplog, damage):
    path = tmp_path / "k.engine"
    store_engine(path, b"engine")
    path.write_bytes(damage(path.read_bytes()))
    assert load_engine(path) is None
    assert "is damaged; building it again" in caplog.text


def test_cache_that_cannot_be_written_is_only_logged(tmp_path, caplog):
    (tmp_path / "engines").write_text("a file where the folder should be")
    store_engine(tmp_path / "engines" / "k.engine", b"engine")
    assert "cannot cache the engine" in caplog.text


@pytest.mark.skipif(os.name != "posix", reason="file modes")
def test_cached_engine_is_readable_by_its_owner_only(tmp_path):
    path = tmp_path / "k.engine"
    store_engine(path, b"engine")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600  # an engine is code: nobody else may replace or plant it


@NEEDS_GPU
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-3), ("fp16", 5e-2)])
def test_running_on_the_gpu_equals_onnxruntime(keynet, monkeypatch, tmp_path, precision, tolerance):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    wanted = OnnxRuntimeBackend(keynet, max_batch=4)
    inference = InferenceConfig(backend="tensorrt", precision=precision)
    backend = create_backend(keynet, inference)
    for count in (1, 4, 2):
        actual = backend.run({"crop": crops(count, seed=count)})
        for name, values in wanted.run({"crop": crops(count, seed=count)}).items():
            np.testing.assert_allclose(actual[name], values, rtol=tolerance, atol=tolerance, err_msg=name)
    backend.close()
    backend.close()


@NEEDS_GPU
def test_a_cuda_graph_of_each_batch_size_gives_what_plain_calls_give(keynet, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    recorded = create_backend(keynet, InferenceConfig(backend="tensorrt"))
    answers = [recorded.run({"crop": crops(count, seed=count)}) for count in (1, 2, 1, 2)]
    assert [one._graph is not None for one in recorded._passes.values()] == [True, True]

    def refuse(*_):
        raise BackendError("no graph")

    monkeypatch.setattr("hand_tracking_ros.backends.cuda.Graph", refuse)
    plain = create_backend(keynet, InferenceConfig(backend="tensorrt"))
    for count, answer in zip((1, 2, 1, 2), answers, strict=True):
        for name, values in plain.run({"crop": crops(count, seed=count)}).items():
            np.testing.assert_allclose(answer[name], values, rtol=1e-3, atol=1e-3, err_msg=name)


@NEEDS_GPU
def test_second_start_uses_the_cache_and_a_damaged_one_is_built_again(detnet, monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    caplog.set_level("INFO", logger="hand_tracking_ros")
    inference = InferenceConfig(backend="tensorrt")
    image = np.full((1, 1, 240, 320), 90, dtype=np.uint8)
    results = []
    for _ in range(2):
        results.append(create_backend(detnet, inference).run({"image": image}))
    assert caplog.text.count("building the TensorRT engine") == 1
    np.testing.assert_array_equal(results[0]["boxes"], results[1]["boxes"])
    (cached,) = (tmp_path / "hand_tracking_ros" / "engines").iterdir()
    cached.write_bytes(cached.read_bytes()[:-100])
    create_backend(detnet, inference)
    assert "is damaged; building it again" in caplog.text
    assert caplog.text.count("building the TensorRT engine") == 2
