"""The size of a person's hands: given, written, read back, and what is wrong with a file."""

from __future__ import annotations

import numpy as np
import pytest

from hand_tracking_ros.cli import main
from hand_tracking_ros.config import PoseConfig
from hand_tracking_ros.errors import ConfigError
from hand_tracking_ros.geometry import box_around
from hand_tracking_ros.hand_size import HandSize, from_hand_length, load_hand_size, save_hand_size
from hand_tracking_ros.kinematics import FLAT_HAND, MEAN_HAND, HandPose
from hand_tracking_ros.skeleton import Side
from hand_tracking_ros.smoothing import HandFilter
from hand_tracking_ros.types import Camera, HandKeypoints, Source


def test_a_length_from_a_ruler_is_a_measured_size():
    size = from_hand_length(0.19)
    assert size.palm_m == pytest.approx(0.0918, abs=0.001) and size.is_measured
    assert 0.19 / size.palm_m == pytest.approx(0.06 - FLAT_HAND[12, 1], abs=0.01)  # tip beyond the keypoint
    assert not HandSize().is_measured


def test_a_size_comes_back_from_its_file(tmp_path):
    path = tmp_path / "users" / "me.yaml"
    save_hand_size(path, HandSize(0.0812, 0.011))
    assert load_hand_size(path) == HandSize(0.0812, 0.011)
    assert HandFilter(pose=PoseConfig(size_file=str(path))).size == HandSize(0.0812, 0.011)


def test_the_fingers_of_a_size_come_back_with_it(tmp_path):
    learned = HandSize(0.0812, 0.011, finger_ratio=1.07, finger_sigma=0.03)
    save_hand_size(tmp_path / "me.yaml", learned)
    assert load_hand_size(tmp_path / "me.yaml") == learned and not learned.fingers_are_measured


@pytest.mark.parametrize(("text", "message"), [
    ("palm_m: 0.09\nsigma: 0.01\nfinger_ratio: long", "finger_ratio and finger_sigma must be numbers"),
    ("palm_m: 0.09\nsigma: 0.01\nfinger_ratio: 3", "finger_ratio must be 0.6 to 1.5"),
    ("palm_m: 0.9\nsigma: 0.01", "0.03 to 0.2 m, got 0.9"),
    ("palm_m: 0.09\nsigma: 0", "sigma of a hand's size must be positive"),
    ("palm_m: big\nsigma: 0.1", "must have the numbers palm_m and sigma"),
    ("- 1", "must have the numbers"),
    ("a: [", "cannot read hand size"),
    ("palm_m: 0.09\nsigma: 0.01\nbone_ratios: 1.1", "bone_ratios must be 20 numbers, got 1.1"),
    ("palm_m: 0.09\nsigma: 0.01\nbone_ratios: [1, 1.1]", "no hand has such bones: bone_ratios must be 20 numbers"),
])  # fmt: skip
def test_a_wrong_file_says_what_is_wrong(tmp_path, text, message):
    path = tmp_path / "me.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_hand_size(path)


def test_a_missing_file_says_how_to_get_one(tmp_path):
    with pytest.raises(ConfigError, match="'hand-tracking size' writes one"):
        HandFilter(pose=PoseConfig(size_file=str(tmp_path / "none.yaml")))


def test_the_command_writes_and_shows(tmp_path, capsys):
    path = tmp_path / "me.yaml"
    assert main(["size", "--hand-mm", "180", "--output", str(path)]) == 0
    assert main(["size", "--show", str(path)]) == 0
    assert capsys.readouterr().out.count("palm length 87.0 mm") == 2
    save_hand_size(path, HandSize(0.09, 0.01, finger_ratio=1.1, finger_sigma=0.01))
    assert main(["size", "--show", str(path)]) == 0
    index_mm = 99 * MEAN_HAND.bone_lengths[5]  # 90 mm times 1.1
    assert f"index  {index_mm:.1f}, " in capsys.readouterr().out
    assert main(["size", "--palm-mm", "900", "--output", str(path)]) == 2
    assert "got 900" in capsys.readouterr().err
    assert main(["size", "--palm-mm", "90"]) == 2
    assert "--output" in capsys.readouterr().err


def test_fingers_from_a_ruler_make_the_bones_of_the_pose(tmp_path, capsys):
    path = tmp_path / "me.yaml"
    fingers = ("--finger-mm", "middle=50,30,20", "--finger-mm", "index=45,26,19")
    assert main(["size", "--palm-mm", "90", *fingers, "--output", str(path)]) == 0
    assert "middle 50.0, 30.0, 20.0 mm" in capsys.readouterr().out
    hand_filter = HandFilter(pose=PoseConfig(size_file=str(path)))
    assert hand_filter.size.bone_ratios[4] == hand_filter.size.bone_ratios[8] == 1  # the palm stays
    assert hand_filter.size.bone_ratios[16:] == (1,) * 4

    camera = Camera(600, 600, 320, 240)
    shape = hand_filter.size.shape
    truth = HandPose(Side.RIGHT, np.eye(3), np.array([0.0, 0.05, 0.5]), np.full(20, 0.2), 0.09, shape=shape)
    points = truth.points()
    lengths_mm = 1000 * np.linalg.norm(np.diff(points[[9, 10, 11, 12]], axis=0), axis=1)
    assert lengths_mm == pytest.approx([50, 30, 20], abs=0.01)
    seen = HandKeypoints(
        id=1, box=box_around(camera.project(points)), keypoints_px=camera.project(points),
        keypoint_scores=np.ones(21), depth_rel=(points[:, 2] - points[9, 2]) / 0.09, presence=1.0, right_score=1.0,
        source=Source.DETECTED,
    )  # fmt: skip
    for k in range(10):
        (hand,) = hand_filter.apply([seen], k / 30, camera)
    assert hand.pose.shape is shape and hand_filter.size.bone_ratios == load_hand_size(path).bone_ratios
    fitted_mm = 1000 * np.linalg.norm(np.diff(hand.points_3d[[9, 10, 11, 12]], axis=0), axis=1)
    assert fitted_mm / fitted_mm.sum() == pytest.approx([0.5, 0.3, 0.2], abs=1e-3)  # the mean hand: 0.48, 0.29, 0.23
    assert fitted_mm.sum() == pytest.approx(100, rel=0.03)
    hand_filter.forget_size()
    assert hand_filter.size.bone_ratios == ()


@pytest.mark.parametrize(("finger", "message"), [
    ("ring=40,25", "the ring has three bones from its base to its tip, got 2"),
    ("pinky=40,25,18", "no finger is called 'pinky'; there are thumb, index"),
    ("ring=4,25,18", "no ring has bones of 4, 25, 18 mm on a palm of 90 mm: the mean one's are 40, 24, 19"),
    ("ring", "must be NAME=A,B,C in millimetres"),
])  # fmt: skip
def test_wrong_fingers_say_what_is_wrong(finger, message, capsys):
    assert main(["size", "--palm-mm", "90", "--finger-mm", finger]) == 2
    assert message in capsys.readouterr().err


def test_a_finger_given_twice_is_no_finger(capsys):
    assert main(["size", "--palm-mm", "90", "--finger-mm", "ring=40,25,18", "--finger-mm", "ring=41,25,18"]) == 2
    assert "every finger once, got ring=40,25,18, ring=41,25,18" in capsys.readouterr().err


def test_a_home_that_nobody_has_is_said():
    with pytest.raises(ConfigError, match=r"cannot write hand size ~nobody7/me.yaml: Could not determine home"):
        save_hand_size("~nobody7/me.yaml", HandSize())
    with pytest.raises(ConfigError, match=r"cannot read hand size ~nobody7/me.yaml: Could not determine home"):
        load_hand_size("~nobody7/me.yaml")
