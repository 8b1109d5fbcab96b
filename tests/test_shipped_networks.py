"""The networks in models/ on frames of the shipped clip: every backend that can run here gives the same hands."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from hand_tracking_ros.backends import backend_status, create_backend, tensorrt
from hand_tracking_ros.cli.demo import CLIP, demo_directory
from hand_tracking_ros.config import InferenceConfig
from hand_tracking_ros.geometry import box_around, crop_from_image, mirrored, warp
from hand_tracking_ros.manifest import load_manifest
from hand_tracking_ros.paths import models_directory
from hand_tracking_ros.records import read_labels
from hand_tracking_ros.skeleton import Side, palm_length

MODELS = sorted(path.stem for path in models_directory().glob("*.yaml") if not path.stem.endswith("_int8"))
FRAMES = range(0, 180, 20)


@pytest.fixture(scope="module")
def clip() -> list[tuple[np.ndarray, list]]:
    """Grey images of the clip and the labels of their hands."""
    capture, labels = cv2.VideoCapture(str(demo_directory() / CLIP)), read_labels(demo_directory())
    images = [cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2GRAY) for _ in labels]
    return [(images[k], labels[k].hands) for k in FRAMES]


def feeds_of(manifest, clip) -> list[dict[str, np.ndarray]]:
    """Whole images for DetNet; for KeyNet two crops at a time, as right hands, expected where they are."""
    spec = manifest.inputs.get("image") or manifest.inputs["crop"]
    height, width = spec.shape[2:]
    if "image" in manifest.inputs:
        return [{"image": cv2.resize(image, (width, height))[None, None]} for image, _ in clip]
    crops = []
    for image, hands in clip:
        for hand in hands:
            matrix = crop_from_image(box_around(hand.keypoints_px).scaled(1.42), (width, height))
            matrix = mirrored(matrix, width) if hand.side == Side.LEFT else matrix
            crops.append(warp(image, matrix, (width, height)))
    feeds = [{"crop": np.stack(crops[k : k + 2])[:, None]} for k in range(0, len(crops) - 1, 2)]
    if "prior" in manifest.inputs:
        nothing = {"prior": np.zeros((2, 21, 2), np.float32), "prior_scores": np.zeros((2, 21), np.float32)}
        feeds = [feed | nothing for feed in feeds]
    return feeds


def outputs(manifest, backend: str, precision: str, feeds) -> dict[str, np.ndarray]:
    runner = create_backend(manifest, InferenceConfig(backend=backend, precision=precision))
    found = [runner.run(feed) for feed in feeds]
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]}


@pytest.mark.parametrize("name", MODELS)
def test_openvino_and_onnxruntime_agree(name, clip):
    """Up to rounding in fp32; in int8, where both round on their own, within a fiftieth of a palm."""
    if not backend_status("openvino").usable:
        pytest.skip(f"openvino cannot run here: {backend_status('openvino').detail}")
    manifest = load_manifest(models_directory() / f"{name}.yaml")
    feeds = feeds_of(manifest, clip)
    for precision, closest in (("fp32", 2e-3), ("int8", 0.02)):
        ours, other = (outputs(manifest, backend, precision, feeds) for backend in ("onnxruntime", "openvino"))
        if "keypoints" in ours:
            sure = ours["presence"] > 0.5
            gaps = np.linalg.norm(ours["keypoints"] - other["keypoints"], axis=-1).mean(axis=1)[sure]
            assert sure.mean() > 0.5
            assert (gaps / palm_length(ours["keypoints"])[sure]).mean() < closest
            assert np.abs(ours["presence"] - other["presence"]).mean() < closest
        else:
            for output, values in ours.items():
                assert np.abs(values - other[output]).mean() < closest * max(np.abs(values).mean(), 0.5), output


@pytest.mark.parametrize("name", MODELS)
def test_int8_stays_close_to_fp32(name, clip):
    """Mean difference of keypoints on clear crops: a thirtieth of a palm at most."""
    manifest = load_manifest(models_directory() / f"{name}.yaml")
    if "crop" not in manifest.inputs:
        pytest.skip("of DetNet the manifests and docs/accuracy.md say what int8 costs: its boxes depend on a threshold")
    feeds = feeds_of(manifest, clip)
    exact, rounded = (outputs(manifest, "onnxruntime", precision, feeds) for precision in ("fp32", "int8"))
    sure = exact["presence"] > 0.5
    gaps = np.linalg.norm(exact["keypoints"] - rounded["keypoints"], axis=-1).mean(axis=1)[sure]
    assert 0 < (gaps / palm_length(exact["keypoints"])[sure]).mean() < 1 / 30


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", MODELS)
def test_tensorrt_builds_engines_of_what_is_shipped(name, precision, monkeypatch):
    """For a GPU that need not be here; running them: test_tensorrt.py."""
    pytest.importorskip("tensorrt_rtx", reason="building engines without a GPU needs: pip install tensorrt-rtx")
    monkeypatch.setattr(tensorrt, "LIBRARIES", ("tensorrt_rtx",))
    manifest = load_manifest(models_directory() / f"{name}.yaml")
    engine = tensorrt.build_engine(manifest, precision, manifest.max_batch, "SM86")
    least = 1.0 if precision == "fp32" else 0.5  # of the weights of the file
    assert len(engine) > least * manifest.file.stat().st_size
