"""`hand-tracking track` with several videos: stereo pairs, other rates, all outputs. Networks track bright discs."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs onnx to write the test networks")

from blob_models import draw, hand_at, write_models

from hand_tracking_ros.calibration import Calibration, save_camera_yaml
from hand_tracking_ros.cli import main
from hand_tracking_ros.outputs.openxr import xr_joints
from hand_tracking_ros.records import read_tracks
from hand_tracking_ros.rig import load_rig
from hand_tracking_ros.types import Scale

FOCAL_PX, BASELINE_M, PALM_M = 600.0, 0.2, 0.061  # the rest of this hand is that of a palm of 88 mm
PALM_PX = np.linalg.norm(hand_at(0, 0)[9] - hand_at(0, 0)[0])
DISTANCE_M = FOCAL_PX * PALM_M / PALM_PX
SHIFT_PX = FOCAL_PX * BASELINE_M / DISTANCE_M  # of the disc in the right image
SECONDS = 0.8


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> list[str]:
    """The --set options that choose the test networks, for one hand."""
    chosen = {**write_models(tmp_path_factory.mktemp("models")), "track.max_hands": 1}
    return [part for name, value in chosen.items() for part in ("--set", f"{name}={value}")]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """left.avi, right.avi at 30 Hz and right60.avi of a disc that goes to the right by 60 px/s, and calibrations."""
    root = tmp_path_factory.mktemp("pair")
    for name, rate, shift_px in (("left", 30, 0.0), ("right", 30, SHIFT_PX), ("right60", 60, SHIFT_PX)):
        writer = cv2.VideoWriter(str(root / f"{name}.avi"), cv2.VideoWriter_fourcc(*"MJPG"), rate, (640, 480))
        for index in range(round(SECONDS * rate)):
            image = draw((320.0 + 60 * index / rate - shift_px, 240.0))
            writer.write(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR))
        writer.release()
    K, eye = (FOCAL_PX, 0.0, 319.5, 0.0, FOCAL_PX, 239.5, 0.0, 0.0, 1.0), tuple(np.eye(3).ravel().tolist())
    for name, baseline_px in (("left", 0.0), ("right", -FOCAL_PX * BASELINE_M)):
        P = (FOCAL_PX, 0.0, 319.5, baseline_px, 0.0, FOCAL_PX, 239.5, 0.0, 0.0, 0.0, 1.0, 0.0)
        save_camera_yaml(root / f"{name}.yaml", Calibration(name, 640, 480, "plumb_bob", (0.0,) * 5, K, eye, P))
    return root


def stereo(pair, right: str, *others: str) -> list[str]:
    files = ["--camera-info", str(pair / "left.yaml"), "--stereo", str(pair / right), str(pair / "right.yaml")]
    return ["track", str(pair / "left.avi"), *files, *others]


def test_a_stereo_pair_measures_with_the_two_files_of_ros(pair, models, tmp_path, capsys):
    output, size = tmp_path / "hands.jsonl", tmp_path / "me.yaml"
    assert main(stereo(pair, "right.avi", "--output", str(output), "--save-hand-size", str(size), *models)) == 0
    shown = capsys.readouterr()
    assert "disagreement" in shown.out and "palm lengths" in shown.out and "WARNING" not in shown.out
    last = read_tracks(output)[-1]
    (hand,) = last.hands
    assert last.frame == 23 and hand.scale == Scale.MEASURED
    assert hand.points_3d[:, 2].mean() == pytest.approx(DISTANCE_M, rel=0.05)
    # The same, by way of a rig file.
    rig, through_rig = str(tmp_path / "new" / "rig.yaml"), tmp_path / "rig.jsonl"
    assert main(["rig", str(pair / "left.yaml"), str(pair / "right.yaml"), "--output", rig]) == 0
    also = ["--rig", rig, "--also", str(pair / "right.avi"), "--output", str(through_rig)]
    assert main(["track", str(pair / "left.avi"), *also, *models]) == 0
    np.testing.assert_array_equal(read_tracks(through_rig)[-1].hands[0].points_3d, hand.points_3d)
    assert len(load_rig(rig).cameras) == 2


def test_videos_of_other_rates_are_paired_by_their_stamps(pair, models, tmp_path, caplog):
    """By index, the right one would be half as far when the left one ends, and the distance wrong by its motion."""
    output = tmp_path / "hands.jsonl"
    assert main(stereo(pair, "right60.avi", "--output", str(output), *models)) == 0
    frames = read_tracks(output)
    assert [frame.frame for frame in frames] == list(range(24))
    assert frames[-1].hands[0].points_3d[:, 2].mean() == pytest.approx(DISTANCE_M, rel=0.05)
    assert "right: 24 of 48 images are left out" in caplog.text and "rates: 30, 60 Hz" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--camera-info", "right.yaml", "--stereo", "right.avi", "left.yaml"], "are the two swapped?"),
        (
            ["--camera-info", "left.yaml", "--stereo", "right.avi", "left.yaml"],
            "projection_matrix has no baseline: cal",
        ),
        (["--camera-info", "left.yaml", "--stereo", "right.avi", "none.yaml"], "cannot read camera calibration"),
        (["--stereo", "right.avi", "right.yaml"], "give the left one's calibration as --camera-info"),
        (["--stereo", "right.avi", "right.yaml", "--rig", "rig.yaml"], "--stereo and --rig both say where cameras are"),
        (["--camera-info", "left.yaml", "--rig", "rig.yaml"], "--camera-info is the lens of one camera"),
        (["--also", "right.avi"], "--also needs --rig"),
        (["--everything"], "--everything belongs to --output"),
    ],
)
def test_cameras_that_make_no_pair_are_refused(pair, models, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(pair)
    assert main(["track", "left.avi", *arguments, *models]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


def test_everything_that_follows_from_a_pose_is_written_when_asked(pair, models, tmp_path):
    outputs = {}
    for name, others in (("plain", []), ("all", ["--everything", "--set", "gestures.hold_s=0"])):
        path = tmp_path / f"{name}.jsonl"
        assert main(stereo(pair, "right.avi", "--output", str(path), *others, *models)) == 0
        outputs[name] = json.loads(path.read_text().splitlines()[-1])["hands"][0]
        (hand,) = read_tracks(path)[-1].hands
        np.testing.assert_allclose(hand.pose.points(), hand.points_3d, atol=1e-4)
        assert np.isfinite(hand.velocities_3d).all()
        assert hand.velocities_3d[9, 0] == pytest.approx(60 / FOCAL_PX * DISTANCE_M, rel=0.3)  # m/s
    added = {"velocities_px", "palm_pose", "xr", "pinch_strengths", "grasp_strength", "gesture", "angle_velocities"}
    assert set(outputs["all"]) - set(outputs["plain"]) == added
    np.testing.assert_allclose(outputs["all"]["xr"]["positions_m"], xr_joints(hand.pose).positions_m, atol=1e-4)
    assert outputs["all"]["velocities_px"][9][0] == pytest.approx(60, rel=0.3)


def test_gesture_parameters_are_taken_and_wrong_ones_refused(pair, models, capsys):
    assert main(stereo(pair, "right.avi", "--set", "gestures.bent=7", *models)) == 2
    assert "'gestures.bent' must be between 0.4 and 1.0, got 7" in capsys.readouterr().err
