"""Camera calibration files and camera_info intrinsics, good and bad."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest

from hand_tracking_ros.calibration import (
    Calibration,
    camera_from_info,
    load_camera_yaml,
    save_camera_yaml,
    size_problem,
)
from hand_tracking_ros.errors import CalibrationError
from hand_tracking_ros.types import Camera

# As ROS' camera_calibration writes it.
ROS_FILE = """\
image_width: 640
image_height: 480
camera_name: narrow_stereo
camera_matrix:
  rows: 3
  cols: 3
  data: [438.783367, 0.000000, 305.593336, 0.000000, 437.302876, 243.738352, 0.000000, 0.000000, 1.000000]
distortion_model: plumb_bob
distortion_coefficients:
  rows: 1
  cols: 5
  data: [-0.361976, 0.110510, 0.001014, 0.000505, 0.000000]
rectification_matrix:
  rows: 3
  cols: 3
  data: [0.999978, 0.002789, -0.006046, -0.002816, 0.999986, -0.004401, 0.006034, 0.004417, 0.999972]
projection_matrix:
  rows: 3
  cols: 4
  data: [393.6538, 0.0, 322.797939, 0.0, 0.0, 393.6538, 241.090902, 0.0, 0.0, 0.0, 1.0, 0.0]
"""


@pytest.fixture
def ros_file(tmp_path):
    path = tmp_path / "camera.yaml"
    path.write_text(ROS_FILE)
    return path


def test_reads_the_file_of_camera_calibration(ros_file):
    calibration = load_camera_yaml(ros_file)
    assert (calibration.camera_name, calibration.width, calibration.height) == ("narrow_stereo", 640, 480)
    assert calibration.distortion_model == "plumb_bob"
    assert calibration.D == (-0.361976, 0.110510, 0.001014, 0.000505, 0.0)
    assert calibration.K[0] == 438.783367 and calibration.K[5] == 243.738352 and len(calibration.K) == 9
    assert calibration.R[1] == 0.002789 and len(calibration.R) == 9
    assert calibration.P[2] == 322.797939 and len(calibration.P) == 12


def test_written_file_reads_back_the_same(ros_file, tmp_path):
    calibration = dataclasses.replace(load_camera_yaml(ros_file), camera_name="other", D=(0.1, 0.2, 0.3, 0.4))
    save_camera_yaml(tmp_path / "copy.yaml", calibration)
    assert load_camera_yaml(tmp_path / "copy.yaml") == calibration


def test_urls(ros_file, tmp_path, monkeypatch):
    assert isinstance(load_camera_yaml(f"file://{ros_file}"), Calibration)
    share = tmp_path / "install" / "share" / "my_robot"
    share.mkdir(parents=True)
    ros_file.rename(share / "camera.yaml")
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"/nowhere:{tmp_path / 'install'}")
    assert load_camera_yaml("package://my_robot/camera.yaml").width == 640
    with pytest.raises(CalibrationError, match="no package 'other_robot' in AMENT_PREFIX_PATH"):
        load_camera_yaml("package://other_robot/camera.yaml")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("image_width: 640\n", "", "'image_width' is missing"),
        ("image_height: 480", "image_height: 0", "'image_height' must be a positive"),
        ("camera_matrix:", "matrix:", "'camera_matrix' is missing"),
        ("438.783367, ", "", "'camera_matrix' must have 9 values in 'data', got 8"),
        ("-0.361976, 0.110510, ", "", "'distortion_coefficients' must have 4 or 5 values in 'data', got 3"),
        ("438.783367", ".nan", "'camera_matrix' has values that are not finite"),
        ("393.6538", ".inf", "'projection_matrix' has values that are not finite"),
        ("438.783367", "wide", "'camera_matrix' has a value that is not a number"),
        ("438.783367", "-1.0", "focal lengths that are not positive"),
        ("plumb_bob", "magic", "unknown distortion_model 'magic'; known: plumb_bob"),
        ("image_width: 640", "image_width: [", "not valid YAML"),
    ],
)
def test_bad_files_name_the_file_and_the_fault(ros_file, old, new, message):
    ros_file.write_text(ROS_FILE.replace(old, new))
    with pytest.raises(CalibrationError, match=message) as caught:
        load_camera_yaml(ros_file)
    assert str(ros_file) in str(caught.value)


def test_missing_and_empty_file(tmp_path):
    with pytest.raises(CalibrationError, match=r"cannot read camera calibration .*no\.yaml"):
        load_camera_yaml(tmp_path / "no.yaml")
    (tmp_path / "empty.yaml").write_text("")
    with pytest.raises(CalibrationError, match="holds no keys"):
        load_camera_yaml(tmp_path / "empty.yaml")


K = [500.0, 0, 319.5, 0, 501, 239.5, 0, 0, 1]
EIGHT = [0.4, -0.1, 1e-3, -5e-4, 0.02, 0.7, 0.05, 0.01]


def test_camera_from_info_adds_the_half_pixel():
    """ROS counts the centre of the first pixel as 0; here it is 0.5. The middle of a 640x480 image is (320, 240)."""
    assert camera_from_info(K) == Camera(500.0, 501.0, 320.0, 240.0)
    assert camera_from_info([0.0] * 9) is None  # ROS: not calibrated


@pytest.mark.parametrize(
    ("distortion_model", "D", "model"),
    [
        ("plumb_bob", [], "pinhole"),
        ("plumb_bob", [0.0] * 5, "pinhole"),
        ("", [], "pinhole"),
        ("", [0.0] * 5, "pinhole"),
        ("plumb_bob", [-0.36, 0.11, 0.001, 0.0005, 0.0], "plumb_bob"),
        ("plumb_bob", [-0.36, 0.11, 0.001, 0.0005], "plumb_bob"),
        ("rational_polynomial", EIGHT, "rational_polynomial"),
        ("rational_polynomial", EIGHT + [0.0] * 6, "rational_polynomial"),
        ("rational_polynomial", [0.0] * 8, "pinhole"),
        ("equidistant", [0.02, -0.01, 0.0, 0.0], "fisheye"),
        ("fisheye", [0.0] * 4, "fisheye"),
    ],
)
def test_camera_from_info_of_every_lens(distortion_model, D, model):
    camera = camera_from_info(K, D, distortion_model)
    assert camera == Camera(500.0, 501.0, 320.0, 240.0, model, () if model == "pinhole" else tuple(D))


@pytest.mark.parametrize(
    ("distortion_model", "D", "message"),
    [
        ("plumb_bob", [0.1, 0.2, 0.3], "'plumb_bob' needs 4 or 5 values in D, got 3"),
        ("rational_polynomial", [0.1] * 5, "'rational_polynomial' needs 8 or 12 or 14 values in D, got 5"),
        ("equidistant", [], "'equidistant' needs 4 values in D, got 0"),
        ("equidistant", [0.1] * 5, "needs 4 values in D, got 5"),
        ("magic", [0.1] * 5, "distortion_model 'magic' is not supported; supported: plumb_bob"),
        ("thin_prism_fisheye", [0.1] * 8, "'thin_prism_fisheye' is not supported"),
        ("", [0.1] * 5, "distortion_model '' is not supported"),
        ("plumb_bob", [float("nan")] * 5, "D has values that are not finite"),
    ],
)
def test_distortion_that_cannot_be_computed_with(distortion_model, D, message):
    with pytest.raises(CalibrationError, match=message):
        camera_from_info(K, D, distortion_model)


def test_the_camera_of_a_file_sees_what_opencv_sees(ros_file):
    calibration = load_camera_yaml(ros_file)
    points = np.array([(0.0, 0.0, 1.0), (0.3, -0.2, 0.8), (-0.5, 0.4, 1.5)])
    matrix = np.array(calibration.K).reshape(3, 3)
    pixels, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), matrix, np.array(calibration.D))
    np.testing.assert_allclose(calibration.camera().project(points), pixels[:, 0] + 0.5, atol=1e-9)


@pytest.mark.parametrize(
    ("K", "message"),
    [
        ([float("nan"), 0, 320, 0, 500, 240, 0, 0, 1], "not finite"),
        ([500, 0, float("inf"), 0, 500, 240, 0, 0, 1], "not finite"),
        ([-500, 0, 320, 0, 500, 240, 0, 0, 1], "not positive"),
        ([500, 0, 320], "9 values"),
    ],
)
def test_bad_camera_info(K, message):
    with pytest.raises(CalibrationError, match=message):
        camera_from_info(K)


@pytest.mark.parametrize(
    ("size", "live", "message"),
    [
        ((640, 360), True, "is for 1280x720 images, but these are 640x360: SET, which asks the camera for that, or"),
        ((640, 480), True, "SET, which asks the camera for that, or calibrate at this size"),
        ((854, 480), False, "but these are 854x480: SET if they are the same but scaled, or calibrate at this size"),
        ((640, 480), False, "another shape, so scaling would squeeze them; calibrate at this size"),
    ],
)
def test_what_helps_where_images_have_another_size(size, live, message):
    assert message in size_problem((1280, 720), size, "SET", live=live)
