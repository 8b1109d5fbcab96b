"""The command line, end to end: real video files, the real loop, networks that track bright discs (blob_models)."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

import cv2
import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs onnx to write the test networks")

from blob_models import draw, hand_at, write_models

from hand_tracking_ros.cli import COMMANDS, main, options
from hand_tracking_ros.config import TrackerConfig
from hand_tracking_ros.errors import ConfigError
from hand_tracking_ros.paths import config_directory
from hand_tracking_ros.records import LabelledHand, LabelledImage, read_tracks, write_labels
from hand_tracking_ros.skeleton import Side
from hand_tracking_ros.types import Scale

COUNT, FPS = 20, 30.0


def centers(index: int) -> tuple[tuple[float, float], tuple[float, float]]:
    return (150.0 + 4 * index, 200.0), (450.0, 300.0 - 2 * index)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> list[str]:
    """The --set options that choose the test networks."""
    chosen = write_models(tmp_path_factory.mktemp("models"))
    return [part for name, path in chosen.items() for part in ("--set", f"{name}={path}")]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """clip.avi, images/, and labels for either: the exact joints of two hands."""
    root = tmp_path_factory.mktemp("dataset")
    (root / "images").mkdir()
    writer = cv2.VideoWriter(str(root / "clip.avi"), cv2.VideoWriter_fourcc(*"MJPG"), FPS, (640, 480))
    of_video, of_images = [], []
    for index in range(COUNT):
        image = draw(*centers(index))
        writer.write(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR))
        cv2.imwrite(str(root / "images" / f"{index}.png"), image)
        hands = tuple(
            LabelledHand(side, keypoints_px=hand_at(*center), id=number)
            for number, (side, center) in enumerate(zip((Side.RIGHT, Side.LEFT), centers(index), strict=True))
        )
        of_video.append(LabelledImage(640, 480, hands, video="clip.avi", frame=index, person="ann"))
        of_images.append(LabelledImage(640, 480, hands, file=f"images/{index}.png"))
    writer.release()
    write_labels(root / "labels.jsonl", of_video)
    write_labels(root / "images.jsonl", of_images)
    return root


def test_track_writes_records_overlay_and_summary(dataset, models, tmp_path, capsys):
    output, overlay = tmp_path / "hands.jsonl", tmp_path / "overlay.avi"
    arguments = ["track", str(dataset / "clip.avi"), "--output", str(output), "--overlay", str(overlay), *models]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert "frames                    20" in text and "hands                     40  2.00 per frame" in text
    assert "tracks (ids)               2" in text and "latency, ms" in text and f"wrote {output}" in text

    frames = read_tracks(output)
    assert [frame.frame for frame in frames] == list(range(COUNT))
    assert np.allclose([frame.stamp_s for frame in frames], np.arange(COUNT) / FPS, atol=1e-6)
    assert set(frames[0].latency_ms) == {"flow", "detect", "keypoints", "filter", "total"}
    last = sorted(frames[-1].hands, key=lambda hand: hand.box.center_px)
    for hand, center in zip(last, centers(COUNT - 1), strict=True):
        assert np.abs(hand.keypoints_px - hand_at(*center)).max() < 10  # the filter trails a little
        assert hand.scale == Scale.RELATIVE

    video = cv2.VideoCapture(str(overlay))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == COUNT and video.get(cv2.CAP_PROP_FPS) == FPS
    image = video.read()[1]
    assert image.shape == (480, 640, 3)
    assert np.ptp(image[190:210, 90:130].astype(int), axis=2).max() > 60  # coloured bones on a grey image


def save_calibration(path, *, width=640, height=480, distortion_model="plumb_bob", D=(0.0,) * 5):
    from hand_tracking_ros.calibration import Calibration, save_camera_yaml

    K = (600.0, 0.0, 319.5, 0.0, 600.0, 239.5, 0.0, 0.0, 1.0)
    eye = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    P = (600.0, 0.0, 319.5, 0.0, 0.0, 600.0, 239.5, 0.0, 0.0, 0.0, 1.0, 0.0)
    calibration = Calibration("c", width, height, distortion_model, D, K, eye, P)
    save_camera_yaml(path, calibration)
    return calibration.camera()


@pytest.mark.parametrize(
    ("distortion_model", "D"),
    [
        ("plumb_bob", (0.0,) * 5),
        ("plumb_bob", (-0.2, 0.05, 0.001, -0.001, 0.0)),
        ("rational_polynomial", (0.4, -0.1, 1e-3, -5e-4, 0.02, 0.7, 0.05, 0.01)),
        ("equidistant", (0.02, -0.01, 0.003, -0.0005)),
    ],
)
def test_track_with_calibration_is_metric(dataset, models, tmp_path, distortion_model, D):
    camera = save_calibration(tmp_path / "camera.yaml", distortion_model=distortion_model, D=D)
    output = tmp_path / "hands.jsonl"
    arguments = ["track", str(dataset / "images"), "--output", str(output), "--max-frames", "3", "--mono", *models]
    plain = ["--set", "track.max_hands=1", "--set", "pose.enabled=false"]  # no fit, which moves the points
    assert main([*arguments, "--camera-info", str(tmp_path / "camera.yaml"), *plain]) == 0
    frames = read_tracks(output)
    assert [len(frame.hands) for frame in frames] == [1, 1, 1]
    (hand,) = frames[-1].hands
    assert hand.scale == Scale.ASSUMED and 0.3 < hand.points_3d[:, 2].mean() < 3.0
    assert np.allclose(camera.project(hand.points_3d), hand.keypoints_px, atol=0.5)


def test_track_takes_a_camera_of_a_rig(dataset, models, tmp_path, capsys):
    from hand_tracking_ros.cameras import Camera
    from hand_tracking_ros.rig import Rig, RigCamera, save_rig

    cameras = (
        RigCamera("left", 640, 480, Camera(600, 600, 320, 240)),
        RigCamera("right", 64, 48, Camera(60, 60, 32, 24)),
    )
    save_rig(tmp_path / "rig.yaml", Rig(cameras))
    output = tmp_path / "hands.jsonl"
    arguments = ["track", str(dataset / "images"), "--output", str(output), "--max-frames", "2", *models]
    assert main([*arguments, "--camera-info", f"{tmp_path / 'rig.yaml'}:left"]) == 0
    assert all(hand.scale == Scale.ASSUMED for frame in read_tracks(output) for hand in frame.hands)
    assert main([*arguments, "--camera-info", f"{tmp_path / 'rig.yaml'}:right"]) == 2
    assert main([*arguments, "--camera-info", f"{tmp_path / 'rig.yaml'}:top"]) == 2
    assert main([*arguments, "--camera-info", str(tmp_path / "rig.yaml")]) == 2
    errors = capsys.readouterr().err
    assert f"(left, right) as in 'track --camera-info {tmp_path / 'rig.yaml'}:left'" in errors
    assert "is for 64x48 images" in errors and "no camera 'top' in the rig; it has left, right" in errors


@pytest.mark.parametrize(
    ("width", "height", "advice"),
    [
        (320, 240, "give --size 320x240 if they are the same but scaled, or calibrate at this size"),
        (320, 480, "another shape, so scaling would squeeze them; calibrate at this size"),
    ],
)
def test_track_refuses_a_calibration_for_another_size(dataset, models, tmp_path, capsys, width, height, advice):
    save_calibration(tmp_path / "camera.yaml", width=width, height=height)
    arguments = ["track", str(dataset / "images"), "--max-frames", "3", *models]
    assert main([*arguments, "--camera-info", str(tmp_path / "camera.yaml")]) == 2
    assert f"is for {width}x{height} images, but these are 640x480: {advice}" in capsys.readouterr().err


def test_evaluate_detection(dataset, models, capsys):
    assert main(["evaluate", str(dataset), "--task", "detect", "--json", *models]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["images"], result["hands"], result["people"]) == (COUNT, 2 * COUNT, 1)
    assert result["by_size"]["all"]["ap50"] == 1.0 and result["by_size"]["80-128"]["hands"] == 2 * COUNT
    assert result["by_size"]["<48"]["ap50"] is None
    assert result["center_error_radius"] < 0.2  # the grid of 16 px
    assert result["side_accuracy"] == 0.5  # this detector calls every disc a right hand


@pytest.mark.parametrize("boxes", ["labels", "detector"])
def test_evaluate_keypoints(dataset, models, boxes, tmp_path, capsys):
    elsewhere = tmp_path / "labels.jsonl"
    elsewhere.write_text((dataset / "images.jsonl").read_text())
    where = [str(elsewhere), "--images", str(dataset)]
    assert main(["evaluate", *where, "--task", "keypoints", "--boxes", boxes, "--json", *models]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["hands"], result["missed"], result["people"]) == (2 * COUNT, 0, None)
    assert result["mean_percent"] < 3 and result["pck20"] == 1.0 and result["auc50"] > 0.94


@pytest.mark.parametrize("labels", ["labels.jsonl", "images.jsonl"])
def test_evaluate_tracking(dataset, models, labels, capsys):
    arguments = ["evaluate", str(dataset / labels), "--task", "track", "--json", *models, "--set", "filter.kind=none"]
    assert main(arguments) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["videos"], result["frames"], result["hands"]) == (1, COUNT, 2 * COUNT)
    assert result["recall"] == 1.0 and result["id_switches"] == 0 and result["false_hands_per_frame"] == 0
    assert result["mean_percent"] < 5
    assert abs(result["lag_ms"]) <= 10


def test_evaluate_output_files(dataset, models, tmp_path, capsys):
    output = tmp_path / "hands.jsonl"
    assert main(["track", str(dataset / "clip.avi"), "--output", str(output), *models]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(dataset), "--tracks", str(output), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["recall"] == 1.0
    assert main(["evaluate", "--tracks", str(output), "--reference", str(output), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["ids"] == 2 and result["left_right_consistency"] == 1.0
    assert result["agreement"]["share"] == 1.0 and result["agreement"]["median_error_percent"] == 0.0
    assert main(["evaluate", "--tracks", str(output)]) == 0
    assert "left_right_consistency" in capsys.readouterr().out


def test_tracks_that_do_not_belong_to_the_labels_are_refused(dataset, tmp_path, capsys):
    line = '{"frame": %d, "stamp_s": 0.0, "width": %d, "height": 480, "hands": []}\n'
    files = {"empty": "", "small": line % (0, 320), "late": line % (99, 640), "twice": 2 * line % (3, 640, 3, 640)}
    files["fits"] = "".join(line % (frame, 640) for frame in range(5))
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    for name, message in {
        "empty": f"{tmp_path / 'empty'} has no line: there is nothing to measure",
        "small": "frame 0 is 640x480 in the labels, but 320x480 in the tracks: they are not of one video",
        "late": "the labels and the tracks have no frame in common",
        "twice": f"{tmp_path / 'twice'}:2: frame 3 is in the file a second time",
    }.items():
        assert main(["evaluate", str(dataset), "--tracks", str(tmp_path / name)]) == 2
        assert message in capsys.readouterr().err
    fits = ["--tracks", str(tmp_path / "fits")]
    assert main(["evaluate", *fits, "--reference", str(tmp_path / "small")]) == 2
    assert f"is 320x480 in {tmp_path / 'small'}, but 640x480 in {tmp_path / 'fits'}" in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path / "empty"), *fits]) == 2
    assert "empty has no line" in capsys.readouterr().err
    assert main(["evaluate", str(dataset), *fits, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["frames"], result["frames_missing"], result["recall"]) == (COUNT, COUNT - 5, 0.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["track", "nowhere.mp4"], "no such source: nowhere.mp4"),
        (["track", ""], "the source is empty"),
        (["track", ".", "--fps", "0"], "fps must be above 0 and below 1000, got 0.0"),
        (["size", "--hand-mm", "19"], "--hand-mm must be between 63 and 414 mm, got 19; 19 cm are 190 mm"),
        (["size", "--hand-mm", "0.19"], "--hand-mm must be between 63 and 414 mm, got 0.19; 0.19 m are 190 mm"),
        (["size", "--palm-mm", "900"], "--palm-mm must be between 30 and 200 mm, got 900"),
        (["urdf", "--side", "left", "--finger-ratio", "0"], "finger_ratio must be above 0 and below 3, got 0.0"),
        (["urdf", "--side", "left", "--palm-m", "8.8"], "palm_m must be above 0 and below 1 m, got 8.8"),
        (["track", "x", "--set", "track.max_hand=1"], "parameter 'track.max_hand'; did you mean 'track.max_hands'?"),
        (["track", "x", "--set", "budget.enabled=false"], "budget.enabled: a parameter of nodes, without effect here"),
        (["demo", "--set", "gestures.bent=0.5"], "gestures.bent: a parameter of nodes, without effect here"),
        (["track", "x", "--set", "track.max_hands=99"], "'track.max_hands' must be between 1 and 16, got 99"),
        (["track", "x", "--set", "track"], "--set needs NAME=VALUE, got 'track'"),
        (["track", "x", "--params", "none.yaml"], "cannot read parameter file none.yaml"),
        (["track", "x", "--max-frames", "0"], "--max-frames must be at least 1"),
        (["track", "x", "--size", "big"], "--size must be WIDTHxHEIGHT"),
        (["track", "x", "--size", "0x0"], "--size: width and height must be between 1 and 16384, got 0x0"),
        (["track", "x", "--size", "99999x99999"], "must be between 1 and 16384, got 99999x99999"),
        (["rig", ".", "--size", "0x0", "--unit-m", "1"], "must be between 1 and 16384, got 0x0"),
        (
            ["rig", "rig.yaml", "--size", "640x480"],
            "--size and --unit-m are for a folder of text files, which rig.yaml",
        ),
        (["rig", "left.yaml", "right.yaml", "--unit-m", "3"], "--size and --unit-m are for a folder of text files"),
        (["track", "x", "--camera-info", "none.yaml"], "cannot read camera calibration none.yaml"),
        (["evaluate", "data"], "say what to measure"),
        (["evaluate", "--task", "detect"], "give a data set"),
        (["evaluate", "data", "--task", "detect", "--tracks", "x"], "--tracks and --reference belong to --task track"),
        (["evaluate", "data", "--task", "detect"], "cannot read data"),
    ],
)
def test_user_errors_are_one_line_and_exit_2(arguments, message, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("hand-tracking: error: ") and "Traceback" not in error


def test_model_and_output_problems_are_named(dataset, models, tmp_path, capsys):
    clip = str(dataset / "clip.avi")
    assert main(["track", clip, "--set", "detector.model=nonesuch"]) == 2
    assert "nonesuch" in capsys.readouterr().err
    assert main(["track", clip, "--overlay", str(tmp_path / "overlay.gif"), *models]) == 2
    assert "must end in one of .mp4" in capsys.readouterr().err


def test_folders_of_outputs_are_made(dataset, models, tmp_path, capsys):
    new = tmp_path / "new"
    outputs = ["--output", str(new / "a" / "hands.jsonl"), "--overlay", str(new / "b" / "overlay.avi")]
    assert main(["track", str(dataset / "clip.avi"), "--max-frames", "2", *outputs, *models]) == 0
    assert main(["urdf", "--side", "left", "--output", str(new / "c" / "left.urdf")]) == 0
    assert len(read_tracks(new / "a" / "hands.jsonl")) == 2
    assert (new / "b" / "overlay.avi").stat().st_size and (new / "c" / "left.urdf").read_text().startswith("<?xml")


def test_labels_that_do_not_fit_the_images(dataset, models, tmp_path, capsys):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((48, 64), np.uint8))
    write_labels(tmp_path / "labels.jsonl", [LabelledImage(640, 480, (), file="a.png")])
    assert main(["evaluate", str(tmp_path), "--task", "detect", *models]) == 2
    assert "a.png is 64x48, but its label says 640x480" in capsys.readouterr().err
    write_labels(dataset / "late.jsonl", [LabelledImage(640, 480, (), video="clip.avi", frame=COUNT)])
    assert main(["evaluate", str(dataset / "late.jsonl"), "--task", "detect", *models]) == 2
    assert f"has no frame {COUNT}" in capsys.readouterr().err


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert all(f"    {name} " in text for name in COMMANDS)


def test_version_and_module_run():
    done = subprocess.run([sys.executable, "-m", "hand_tracking_ros.cli", "--version"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("hand-tracking 0.")


def test_importing_the_command_line_loads_neither_ros_nor_torch():
    code = "import sys, hand_tracking_ros.cli.track, hand_tracking_ros.cli.evaluate; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"rclpy", "torch", "onnxruntime"} & set(loaded)


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    options.add_tracker_options(parser)
    return parser.parse_args(arguments)


def test_parameter_files(tmp_path):
    shipped = options.tracker_config(parsed("--params", str(config_directory() / "hand_tracking.yaml")))
    assert isinstance(shipped, TrackerConfig)
    ros = tmp_path / "ros.yaml"
    ros.write_text(
        "/**:\n  ros__parameters:\n    track: {max_hands: 1}\n    camera: {source: '0'}\n"
        "hand_tracker_node:\n  ros__parameters:\n    filter.kind: kalman\n"
        "camera_node:\n  ros__parameters:\n    camera.fps: 10.0\n"
    )
    config = options.tracker_config(parsed("--params", str(ros), "--set", "flow.window_px=31"))
    assert (config.track.max_hands, config.filter.kind, config.flow.window_px) == (1, "kalman", 31)
    plain = tmp_path / "plain.yaml"
    plain.write_text("track:\n  max_hands: 3\n")
    assert options.tracker_config(parsed("--params", str(plain))).track.max_hands == 3
    assert options.tracker_config(parsed("--params", str(plain), "--set", "track.max_hands=4")).track.max_hands == 4
    plain.write_text("track:\n  max_hand: 3\n")
    with pytest.raises(ConfigError, match=r"unknown parameter 'track\.max_hand'"):
        options.tracker_config(parsed("--params", str(plain)))
    plain.write_text("track: [")
    with pytest.raises(ConfigError, match="not valid YAML"):
        options.tracker_config(parsed("--params", str(plain)))
    plain.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"parameter file .*plain\.yaml is no text \(UTF-8\)"):
        options.tracker_config(parsed("--params", str(plain)))
    plain.write_text("/**: {ros__parameters: [1]}")
    with pytest.raises(ConfigError, match="ros__parameters must map names to values"):
        options.tracker_config(parsed("--params", str(plain)))


def test_numbers_with_an_exponent_are_numbers(tmp_path):
    file = tmp_path / "params.yaml"
    file.write_text("filter: {beta: 1e-3, min_cutoff_hz: 2.5E+1}\n")
    config = options.tracker_config(parsed("--params", str(file), "--set", "pose.drift=.2e1"))
    assert (config.filter.beta, config.filter.min_cutoff_hz, config.pose.drift) == (0.001, 25.0, 2.0)
    with pytest.raises(ConfigError, match=r"'track.max_hands' must be int, got 1.0 \(float\)"):
        options.tracker_config(parsed("--set", "track.max_hands=1e0"))
    with pytest.raises(ConfigError, match=r"'filter.beta' must be float, got '1e-3' \(str\)"):
        options.tracker_config(parsed("--set", "filter.beta='1e-3'"))


def test_text_table():
    text = options.text_table([("a", 1), ("long name", 22)], ("name", "n"))
    assert text.splitlines() == ["name        n", "-------------", "a           1", "long name  22"]


def test_a_table_has_words_to_the_left_and_numbers_with_their_units_to_the_right():
    rows = [("a", "cpu", "9.50 ms"), ("b", "gpu, new", "-"), ("c", "", "10.25 ms")]
    text = options.text_table(rows, ("name", "runs on", "latency"))
    assert text.splitlines()[0] == "name  runs on    latency"
    assert text.splitlines()[2:] == ["a     cpu        9.50 ms", "b     gpu, new         -", "c               10.25 ms"]
    assert options.text_table([], ("name", "n")).splitlines()[0] == "name  n"


def test_a_command_that_needs_what_is_not_installed_says_so():
    """Training needs torch, which the runtime does not: here it is hidden."""
    program = (
        "import sys; sys.modules['torch'] = None; from hand_tracking_ros.cli import main; sys.exit(main(['train']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "'hand-tracking train' needs the Python package 'torch'" in done.stderr and "Traceback" not in done.stderr
