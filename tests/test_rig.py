"""Rigs of several cameras: files good and bad, where points are seen, and triangulation."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from hand_tracking_ros.calibration import Calibration, save_camera_yaml
from hand_tracking_ros.cameras import Camera
from hand_tracking_ros.cli import main
from hand_tracking_ros.errors import CalibrationError
from hand_tracking_ros.rig import Rig, RigCamera, load_rig, rig_from_stereo, rig_from_text, save_rig, triangulate

DATA = Path(os.environ.get("HAND_TRACKING_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
STEREO_DESK = DATA / "videos" / "stereo_desk"
FISHEYE = Camera(200, 201, 321, 239, "fisheye", (0.02, -0.01, 0.003, -0.0005))
PLUMB_BOB = Camera(430, 437, 305, 244, "plumb_bob", (-0.3, 0.08, 0.001, 0.0005))


def turn(x: float, y: float, z: float) -> np.ndarray:
    return cv2.Rodrigues(np.array([x, y, z], float))[0]


def rig() -> Rig:
    return Rig(
        (
            RigCamera("left", 640, 480, FISHEYE),
            RigCamera("right", 640, 480, PLUMB_BOB, turn(0.1, -0.4, 0.05), np.array([-0.2, 0.01, 0.05])),
            RigCamera("top", 720, 720, Camera(900, 900, 360, 360), turn(0.5, 0, 0), np.array([0.0, 0.25, 0.1])),
        )
    )


def points_m() -> np.ndarray:
    return np.random.default_rng(0).uniform((-0.1, -0.1, 0.5), (0.1, 0.1, 0.7), (21, 3))


def test_written_rig_reads_back_the_same(tmp_path):
    save_rig(tmp_path / "rig.yaml", rig())
    again = load_rig(tmp_path / "rig.yaml")
    assert [c.name for c in again.cameras] == ["left", "right", "top"]
    for camera, copy in zip(rig().cameras, again.cameras, strict=True):
        assert (camera.width, camera.height, camera.camera) == (copy.width, copy.height, copy.camera)
        np.testing.assert_array_equal(camera.rotation, copy.rotation)
        np.testing.assert_array_equal(camera.translation_m, copy.translation_m)
    assert again["top"].camera.fx == 900
    with pytest.raises(CalibrationError, match="no camera 'bottom' in the rig; it has left, right, top"):
        again["bottom"]


def test_a_file_written_by_hand(tmp_path):
    """Rotation nested or in a row; no D for a pinhole; cx and cy are taken as they stand."""
    (tmp_path / "rig.yaml").write_text(
        "cameras:\n"
        "- {name: a, width: 640, height: 480, model: pinhole, K: [500, 500, 320, 240],\n"
        "   rotation: [1, 0, 0, 0, 1, 0, 0, 0, 1], translation_m: [0, 0, 0]}\n"
        "- {name: b, width: 640, height: 480, model: fisheye, K: [300, 300, 320, 240], D: [0, 0, 0, 0],\n"
        "   rotation: [[0, 0, -1], [0, 1, 0], [1, 0, 0]], translation_m: [0.5, 0, 0.5]}\n"
    )
    a, b = load_rig(tmp_path / "rig.yaml").cameras
    assert (a.camera, b.camera) == (Camera(500, 500, 320, 240), Camera(300, 300, 320, 240, "fisheye", (0, 0, 0, 0)))
    np.testing.assert_allclose(b.position_m, [-0.5, 0, 0.5])  # to the left, and level with what is 0.5 m ahead
    np.testing.assert_allclose(b.project(np.array([0.0, 0.0, 0.5])), [320, 240], atol=1e-9)  # it looks to the right
    np.testing.assert_allclose(a.project(np.array([0.1, 0.0, 0.5])), [420, 240])


def test_into_a_camera_and_back():
    for camera in rig().cameras:
        np.testing.assert_allclose(camera.to_rig(camera.from_rig(points_m())), points_m(), atol=1e-12)
        np.testing.assert_allclose(camera.from_rig(camera.position_m), 0, atol=1e-12)
    first, *others = Rig(rig().cameras[1:]).seen_from_first().cameras
    np.testing.assert_array_equal(first.rotation, np.eye(3))
    points = rig()["right"].from_rig(points_m())
    np.testing.assert_allclose(others[0].project(points), rig()["top"].project(points_m()), atol=1e-9)


def test_triangulation_finds_the_points_and_says_how_far_off_they_are():
    cameras = rig().cameras
    pixels = np.array([camera.project(points_m()) for camera in cameras])
    assert np.isfinite(pixels).all()
    points, errors = triangulate(cameras, pixels)
    np.testing.assert_allclose(points, points_m(), atol=1e-9)
    assert errors.shape == (3, 21) and errors.max() < 1e-6
    pixels[0, :5], pixels[1, 3:8], pixels[2, 4:6] = np.nan, np.nan, np.nan  # 3 and 5 have one ray, 4 none
    points, errors = triangulate(cameras, pixels)
    assert np.isnan(points).all(axis=1).nonzero()[0].tolist() == [3, 4, 5]
    np.testing.assert_allclose(np.delete(points, [3, 4, 5], axis=0), np.delete(points_m(), [3, 4, 5], axis=0))
    pixels = np.array([camera.project(points_m()) for camera in cameras]) + np.array([0, 0, 6.0])[:, None, None]
    points, errors = triangulate(cameras, pixels)
    assert 1 < errors.mean() < 6 and np.linalg.norm(points - points_m(), axis=1).max() < 0.02


def test_parallel_rays_have_no_point():
    camera = RigCamera("a", 640, 480, Camera(500, 500, 320, 240))
    other = replace(camera, name="b", translation_m=np.array([-0.1, 0.0, 0.0]))
    points, errors = triangulate((camera, other), np.full((2, 1, 2), 100.0))
    assert np.isnan(points).all() and np.isnan(errors).all()


ENTRY = {
    "name": "cam0", "width": 640, "height": 480, "model": "fisheye", "K": [300, 300, 320, 240], "D": [0, 0, 0, 0],
    "rotation": [1, 0, 0, 0, 1, 0, 0, 0, 1], "translation_m": [0, 0, 0],
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"K": None}, r"cameras\[0\]: 'K' is missing"),
        ({"rotation": None}, "'rotation' is missing"),
        ({"K": [300, 300, 320]}, r"cameras\[0\] \('cam0'\): 'K' must have 4 numbers, got 3"),
        ({"K": [300, 300, float("nan"), 240]}, "'K' has values that are not finite"),
        ({"K": [-300, 300, 320, 240]}, "positive focal lengths"),
        ({"D": [0, 0]}, "'fisheye' has 4 distortion coefficients, got 2"),
        ({"model": "magic"}, "unknown camera model 'magic'"),
        ({"width": 0}, "width and height must be positive"),
        ({"rotation": [1, 0, 0, 0, 1, 0]}, "'rotation' must have 9 numbers, got 6"),
        ({"rotation": [1, 0, 0, 0, 1, 0, 0, 0, 1.1]}, "rotation is not orthonormal"),
        ({"rotation": [1, 0, 0, 0, 1, 0, 0, 0, -1]}, "rotation mirrors"),
        ({"rotation": "none"}, "'rotation' must be numbers"),
        ({"translation_m": [0, float("inf"), 0]}, "'translation_m' has values that are not finite"),
    ],
)
def test_bad_rigs_name_the_file_the_camera_and_the_fault(tmp_path, change, message):
    entry = {key: value for key, value in (ENTRY | change).items() if value is not None}
    (tmp_path / "rig.yaml").write_text(yaml.safe_dump({"cameras": [entry]}))
    with pytest.raises(CalibrationError, match=message) as caught:
        load_rig(tmp_path / "rig.yaml")
    assert str(tmp_path / "rig.yaml") in str(caught.value)


def test_other_bad_rig_files(tmp_path):
    with pytest.raises(CalibrationError, match=r"cannot read rig .*no\.yaml"):
        load_rig(tmp_path / "no.yaml")
    for text in ("", "cameras: []", "[1, 2]"):
        (tmp_path / "rig.yaml").write_text(text)
        with pytest.raises(CalibrationError, match="must have a list 'cameras'"):
            load_rig(tmp_path / "rig.yaml")
    (tmp_path / "rig.yaml").write_text(yaml.safe_dump({"cameras": [ENTRY, ENTRY]}))
    with pytest.raises(CalibrationError, match="names of their own"):
        load_rig(tmp_path / "rig.yaml")


def stereo_pair(tmp_path) -> tuple[Calibration, Calibration, np.ndarray, np.ndarray]:
    """A pair as stereo calibration leaves it: OpenCV rectifies two cameras of known place."""
    matrix = np.array([[500.0, 0, 319.5], [0, 505.0, 239.5], [0, 0, 1]])
    D = np.array([-0.1, 0.02, 0.001, -0.001, 0.0])
    rotation, translation = turn(0.02, -0.05, 0.01), np.array([-0.12, 0.003, 0.002])
    R1, R2, P1, P2, *_ = cv2.stereoRectify(matrix, D, matrix, D, (640, 480), rotation, translation[:, None])
    pair = [
        Calibration(
            name, 640, 480, "plumb_bob", tuple(D.tolist()), *(tuple(m.ravel().tolist()) for m in (matrix, R, P))
        )
        for name, R, P in (("left", R1, P1), ("right", R2, P2))
    ]
    return *pair, rotation, translation


def test_a_stereo_pair_of_ros_becomes_a_rig(tmp_path, capsys):
    left, right, rotation, translation = stereo_pair(tmp_path)
    made = rig_from_stereo(left, right)
    np.testing.assert_allclose(made["right"].rotation, rotation, atol=1e-9)
    np.testing.assert_allclose(made["right"].translation_m, translation, atol=1e-9)
    assert made["left"].camera.cx == 320.0 and made["left"].camera.model == "plumb_bob"
    for calibration in (left, right):
        save_camera_yaml(tmp_path / f"{calibration.camera_name}.yaml", calibration)
    paths = [str(tmp_path / name) for name in ("left.yaml", "right.yaml", "rig.yaml")]
    assert main(["rig", *paths[:2], "--output", paths[2]]) == 0
    assert "0.1201" in capsys.readouterr().out  # metres between the two
    np.testing.assert_allclose(load_rig(paths[2])["right"].translation_m, translation, atol=1e-9)
    with pytest.raises(CalibrationError, match="no baseline"):
        rig_from_stereo(right, left)


INNER = "intrinsic:\n900.0 0.0 355.5\n0.0 901.0 359.5\n0.0 0.0 1.0\ndistortion:\n-0.01 0.2 0.001 -0.002 0.0\n"


def write_text_rig(folder: Path, inner: str = INNER) -> None:
    places = (turn(0.2, 0, 0), [0, 0, 10.0]), (turn(0, 0.6, 0), [1.0, 2, 12])
    for number, (rotation, translation) in enumerate(places):
        (folder / f"c{number}.dat").write_text(inner)
        rows = "\n".join(" ".join(map(repr, row)) for row in rotation.tolist())
        shift = "\n".join(map(str, translation))
        (folder / f"rot_trans_c{number}.dat").write_text(f"R:\n{rows}\nT:\n{shift}\n\n#an older one\nR:\n1 0\nT:\n3\n")


def test_text_files_become_a_rig_in_metres(tmp_path, capsys):
    write_text_rig(tmp_path)
    arguments = ["rig", str(tmp_path), "--size", "720x720", "--unit-m", "0.04", "--output", str(tmp_path / "rig.yaml")]
    assert main(arguments) == 0 and main(["rig", str(tmp_path / "rig.yaml")]) == 0
    cam0, cam1 = load_rig(tmp_path / "rig.yaml").cameras
    assert cam0.camera == Camera(900, 901, 356, 360, "plumb_bob", (-0.01, 0.2, 0.001, -0.002, 0.0))
    np.testing.assert_array_equal(cam0.rotation, np.eye(3))
    np.testing.assert_allclose(cam1.rotation, turn(0, 0.6, 0) @ turn(0.2, 0, 0).T, atol=1e-12)
    board = np.array([3.0, -1.0, 2.0])  # squares, in the frame of the board
    in_cam0, in_cam1 = (
        0.04 * (turn(*r) @ board + t) for r, t in (((0.2, 0, 0), [0, 0, 10]), ((0, 0.6, 0), [1, 2, 12]))
    )
    np.testing.assert_allclose(cam1.from_rig(in_cam0), in_cam1, atol=1e-12)
    assert main(["rig", str(tmp_path)]) == 2
    assert "name --size WxH of its images and --unit-m" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("intrinsic:", "matrix:", "needs 'intrinsic:' and 9 numbers"),
        ("900.0", "", "needs 'intrinsic:' and 9 numbers"),
        ("900.0", "wide", "is no row of numbers"),
        ("900.0", "-900.0", "positive focal lengths"),
        ("-0.01 0.2", "", "4 or 5 distortion coefficients, got 3"),
    ],
)
def test_bad_text_files(tmp_path, old, new, message):
    write_text_rig(tmp_path, INNER.replace(old, new))
    inner, outer = ([tmp_path / f"{kind}{n}.dat" for n in (0, 1)] for kind in ("c", "rot_trans_c"))
    with pytest.raises(CalibrationError, match=message):
        rig_from_text(inner, outer, (720, 720), 0.04)


@pytest.mark.skipif(not STEREO_DESK.is_dir(), reason="needs ../shared/data/videos/stereo_desk (or HAND_TRACKING_DATA)")
def test_the_shared_stereo_clip():
    """Its file also states the way from camera 0 to camera 1: the two must agree."""
    inner, outer = ([STEREO_DESK / f"{kind}{n}.dat" for n in (0, 1)] for kind in ("c", "rot_trans_c"))
    made = rig_from_text(inner, outer, (720, 720), 0.042)
    stated = outer[1].read_text().partition("#")[2].split("T:")
    rotation = np.array(stated[0].split("R:")[1].split(), float).reshape(3, 3)
    np.testing.assert_allclose(made["cam1"].rotation, rotation, atol=1e-6)
    np.testing.assert_allclose(made["cam1"].translation_m, 0.042 * np.array(stated[1].split(), float), atol=1e-5)
