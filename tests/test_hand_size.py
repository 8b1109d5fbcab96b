"""The size of a person's hands: given, written, read back, and what is wrong with a file."""

from __future__ import annotations

import pytest

from hand_tracking_ros.cli import main
from hand_tracking_ros.config import PoseConfig
from hand_tracking_ros.errors import ConfigError
from hand_tracking_ros.hand_size import HandSize, from_hand_length, load_hand_size, save_hand_size
from hand_tracking_ros.kinematics import FLAT_HAND
from hand_tracking_ros.smoothing import HandFilter


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


@pytest.mark.parametrize(("text", "message"), [
    ("palm_m: 0.9\nsigma: 0.01", "0.03 to 0.2 m, got 0.9"),
    ("palm_m: 0.09\nsigma: 0", "sigma of a hand's size must be positive"),
    ("palm_m: big\nsigma: 0.1", "must have the numbers palm_m and sigma"),
    ("- 1", "must have the numbers"),
    ("a: [", "cannot read hand size"),
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
    assert main(["size", "--palm-mm", "900", "--output", str(path)]) == 2
    assert "got 0.9" in capsys.readouterr().err
    assert main(["size", "--palm-mm", "90"]) == 2
    assert "--output" in capsys.readouterr().err
