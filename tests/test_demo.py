"""`hand-tracking demo`: the shipped clip and its truth, and the command on them."""

from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np
import pytest

from hand_tracking_ros.cli import main
from hand_tracking_ros.cli.demo import CLIP, demo_directory, summary
from hand_tracking_ros.paths import models_directory
from hand_tracking_ros.records import read_labels, read_tracks
from hand_tracking_ros.skeleton import Side

FRAMES = 180


@pytest.fixture(scope="module")
def labels():
    return read_labels(demo_directory())


@pytest.fixture(scope="module")
def disc_models(tmp_path_factory) -> list[str]:
    """--set options that choose the test networks, which take bright discs for hands."""
    pytest.importorskip("onnx", reason="needs onnx to write the test networks")
    from blob_models import write_models

    chosen = write_models(tmp_path_factory.mktemp("models"))
    return [part for name, path in chosen.items() for part in ("--set", f"{name}={path}")]


def test_clip_is_small_and_has_a_label_for_every_frame(labels):
    assert (demo_directory() / CLIP).stat().st_size < 1.5e6
    video = cv2.VideoCapture(str(demo_directory() / CLIP))
    assert (video.get(cv2.CAP_PROP_FRAME_WIDTH), video.get(cv2.CAP_PROP_FRAME_HEIGHT)) == (640, 480)
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(30)
    count = 0
    while video.read()[0]:
        count += 1
    assert count == FRAMES == len(labels)
    assert [image.frame for image in labels] == list(range(FRAMES))


def test_truth_in_3d_projects_to_the_truth_in_the_image(labels):
    fx, fy, cx, cy = labels[0].camera["K"]
    for image in labels:
        for hand in image.hands:
            projected = hand.keypoints_m[:, :2] / hand.keypoints_m[:, 2:] * (fx, fy) + (cx, cy)
            np.testing.assert_allclose(projected, hand.keypoints_px, atol=0.01)
            palm_m = np.linalg.norm(hand.keypoints_m[9] - hand.keypoints_m[0])
            assert palm_m == pytest.approx(0.088, abs=0.004)  # closing the hand bends the palm a little


def test_two_hands_move_smoothly_and_the_left_one_leaves_and_returns(labels):
    present = {side: np.array([any(h.side == side for h in image.hands) for image in labels]) for side in (1, 2)}
    assert present[Side.RIGHT].all()
    changes = np.flatnonzero(np.diff(present[Side.LEFT].astype(int)))
    assert present[Side.LEFT][0] and present[Side.LEFT][-1] and len(changes) == 2
    assert changes[1] - changes[0] > 20
    right = np.stack([next(h for h in image.hands if h.side == Side.RIGHT).keypoints_px for image in labels])
    speed = np.linalg.norm(np.diff(right, axis=0), axis=-1)
    assert speed.max() < 40 and np.median(speed) > 0.3  # px per frame


def test_command_tracks_the_clip_and_writes_what_it_says(disc_models, labels, tmp_path, capsys):
    overlay, output = tmp_path / "out.mp4", tmp_path / "hands.jsonl"
    assert main(["demo", "--overlay", str(overlay), "--output", str(output), *disc_models]) == 0
    printed = capsys.readouterr().out
    hands = sum(len(image.hands) for image in labels)
    assert f"of {hands}" in printed and f"wrote {overlay}" in printed and "latency p99" in printed
    assert len(read_tracks(output)) == FRAMES
    assert cv2.VideoCapture(str(overlay)).get(cv2.CAP_PROP_FRAME_COUNT) == FRAMES


def test_unwritable_overlay_and_unknown_parameter_are_user_errors(disc_models, tmp_path, capsys):
    assert main(["demo", "--overlay", str(tmp_path / "clip.gif"), *disc_models]) == 2
    assert "clip.gif" in capsys.readouterr().err
    assert main(["demo", "--no-overlay", "--set", "track.hands=3"]) == 2
    assert "track.hands" in capsys.readouterr().err


def test_training_dependencies_are_not_needed():
    code = (
        "import sys; import hand_tracking_ros.cli.demo as d; import hand_tracking_ros.evaluation.tracking, "
        "hand_tracking_ros.tracker, hand_tracking_ros.cli.track; d.demo_directory(); "
        "assert not {'torch', 'moderngl', 'rclpy'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_summary_shows_missing_values_as_a_dash():
    names = "recall recall_within_20_percent false_hands_per_frame mean_percent median_percent mpjpe_mm pa_mpjpe_mm"
    names += " jitter_px lag_ms side_accuracy latency_ms_p50 latency_ms_p99"
    metrics = dict.fromkeys(names.split(), float("nan")) | {"frames": 3, "hands": 0, "id_switches": 0}
    assert "nan" not in summary(metrics)


@pytest.mark.skipif(
    not all((models_directory() / f"{name}.yaml").is_file() for name in ("detnet", "keynet")),
    reason="the shipped networks are not in models/",
)
@pytest.mark.parametrize("size", ["", "_small"])
def test_shipped_networks_find_the_hands(tmp_path, labels, size):
    from hand_tracking_ros.evaluation.tracking import track_metrics

    output = tmp_path / "hands.jsonl"
    chosen = ["--set", f"detector.model=detnet{size}", "--set", f"keypoints.model=keynet{size}"]
    assert main(["demo", "--no-overlay", "--output", str(output), *chosen]) == 0
    metrics = track_metrics([(labels, read_tracks(output))])
    assert metrics["recall"] > 0.6
    assert metrics["median_percent"] < 20
