"""The shipped int8 networks as TensorRT takes them: on real crops with ONNX Runtime, and built into engines."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="rewriting networks needs onnx: pip install onnx")

from hand_tracking_ros.backends import backend_status, create_backend, tensorrt  # noqa: E402
from hand_tracking_ros.backends.onnxruntime import OnnxRuntimeBackend  # noqa: E402
from hand_tracking_ros.backends.symmetric import symmetric_int8  # noqa: E402
from hand_tracking_ros.cli.demo import demo_directory  # noqa: E402
from hand_tracking_ros.config import InferenceConfig  # noqa: E402
from hand_tracking_ros.errors import ModelError  # noqa: E402
from hand_tracking_ros.geometry import apply, box_around, crop_from_image, warp  # noqa: E402
from hand_tracking_ros.manifest import ModelManifest, load_manifest  # noqa: E402
from hand_tracking_ros.records import read_labels  # noqa: E402

NETWORKS = ("keynet_int8", "keynet_f_int8", "detnet_int8")


@pytest.fixture(scope="module")
def symmetric(tmp_path_factory) -> dict[str, ModelManifest]:
    """Manifests of the rewritten networks, by name."""
    found = {}
    for name in NETWORKS:
        manifest = load_manifest(name)
        file = tmp_path_factory.mktemp("symmetric") / manifest.file.name
        file.write_bytes(symmetric_int8(manifest.file.read_bytes()))
        found[name] = replace(manifest, file=file)
    return found


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    """Every tenth grey frame of the shipped clip."""
    capture, frames = cv2.VideoCapture(str(demo_directory() / "demo_hands.mp4")), []
    while (read := capture.read())[0]:
        frames.append(cv2.cvtColor(read[1], cv2.COLOR_BGR2GRAY))
    return frames[::10]


@pytest.fixture(scope="module")
def crops(frames) -> tuple[np.ndarray, np.ndarray]:
    """Crops (N, 1, 96, 96) of its hands, and their keypoints (N, 21, 2)."""
    crops, keypoints = [], []
    for image in read_labels(demo_directory())[::10]:
        for hand in image.hands:
            matrix = crop_from_image(box_around(hand.keypoints_px).scaled(1.4), (96, 96))
            crops.append(warp(frames[image.frame // 10], matrix, (96, 96), border_value=None))
            keypoints.append(apply(matrix, hand.keypoints_px))
    return np.stack(crops)[:, None], np.stack(keypoints)


@pytest.mark.parametrize("name", NETWORKS)
def test_all_activations_are_symmetric_and_no_bias_is_quantised(symmetric, name):
    graph = onnx.load(symmetric[name].file).graph
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(nodes) > 50
    for node in nodes:
        zero = constants[node.input[2]]
        assert zero.dtype == np.int8 and not zero.any()
        assert node.input[0] not in constants or constants[node.input[0]].dtype == np.int8


@pytest.mark.parametrize("name", ["keynet_int8", "keynet_f_int8"])
def test_keypoints_are_nearly_those_of_the_int8_network(symmetric, crops, name):
    images, truth = crops
    feeds = {"crop": images[:16]}
    if "prior" in symmetric[name].inputs:
        feeds |= {"prior": truth[:16].astype(np.float32), "prior_scores": np.ones((16, 21), np.float32)}
    wanted, found = (OnnxRuntimeBackend(m, max_batch=16).run(feeds) for m in (load_manifest(name), symmetric[name]))
    apart = np.linalg.norm(found["keypoints"] - wanted["keypoints"], axis=-1)
    assert 0 < np.median(apart) < 0.5 and np.abs(found["presence"] - wanted["presence"]).max() < 0.1


def test_boxes_are_nearly_those_of_the_int8_network(symmetric, frames):
    manifest = load_manifest("detnet_int8")
    height, width = manifest.inputs["image"].shape[2:]
    wanted, found = OnnxRuntimeBackend(manifest), OnnxRuntimeBackend(symmetric["detnet_int8"])
    hands = seen = 0
    for frame in frames:
        image = cv2.resize(frame, (width, height))[None, None]
        one, other = wanted.run({"image": image}), found.run({"image": image})
        for box in one["boxes"][0][:, one["scores"][0] > 0.5].T:  # the peak may be one cell further
            near = np.linalg.norm(other["boxes"][0][:2] - box[:2, None, None], axis=0) < 0.1 * box[2]
            hands += 1
            seen += other["scores"][0][near].max(initial=0) > 0.35
    assert seen >= 0.97 * hands and hands > 20


def test_other_quantisation_is_refused(symmetric):
    with pytest.raises(ModelError, match="only activations in uint8 with one scale can be made symmetric"):
        symmetric_int8(symmetric["keynet_int8"].file.read_bytes())


@pytest.mark.parametrize("name", NETWORKS)
def test_engines_are_built_of_the_shipped_networks(monkeypatch, name):
    pytest.importorskip("tensorrt_rtx", reason="building engines without a GPU needs: pip install tensorrt-rtx")
    monkeypatch.setattr(tensorrt, "LIBRARIES", ("tensorrt_rtx",))
    batch = 1 if name.startswith("detnet") else 2
    assert len(tensorrt.build_engine(load_manifest(name), "int8", batch, "SM86")) > 100_000


STATUS = backend_status("tensorrt")


@pytest.mark.skipif(not STATUS.usable, reason=f"running TensorRT needs it and a GPU: {STATUS.detail}")
def test_running_on_the_gpu_equals_onnxruntime(monkeypatch, tmp_path, symmetric, crops):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    backend = create_backend(load_manifest("keynet"), InferenceConfig(backend="tensorrt", precision="int8"))
    assert backend.precision == "int8"
    wanted = OnnxRuntimeBackend(symmetric["keynet_int8"], max_batch=8).run({"crop": crops[0][:8]})
    found = backend.run({"crop": crops[0][:8]})
    apart = np.linalg.norm(found["keypoints"] - wanted["keypoints"], axis=-1)
    assert np.median(apart) < 0.3
