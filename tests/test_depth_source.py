"""Depth images from files: read as metres, taken with their images, and what the command makes of them."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from hand_tracking_ros.calibration import HALF_PIXEL, Calibration, save_camera_yaml
from hand_tracking_ros.cli import main
from hand_tracking_ros.cli.demo import CLIP, demo_directory
from hand_tracking_ros.depth import SKIN_M
from hand_tracking_ros.depth_source import open_depth
from hand_tracking_ros.errors import SourceError
from hand_tracking_ros.hand_size import load_hand_size
from hand_tracking_ros.records import read_labels

FRAMES = 45


def millimetres(index: int) -> np.ndarray:
    image = np.full((48, 64), 700 + index, np.uint16)
    image[0, 0] = 0
    return image


def test_a_folder_and_a_video_give_metres(tmp_path):
    folder, video = tmp_path / "depth", tmp_path / "depth.mkv"
    folder.mkdir()
    options = [cv2.VIDEOWRITER_PROP_DEPTH, cv2.CV_16U, cv2.VIDEOWRITER_PROP_IS_COLOR, 0]
    writer = cv2.VideoWriter(str(video), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*"FFV1"), 15.0, (64, 48), options)
    for index in range(12):
        cv2.imwrite(str(folder / f"{index}.png"), millimetres(index))
        writer.write(millimetres(index))
    writer.release()
    for path, fps in ((folder, 30.0), (video, 15.0)):
        with open_depth(path, folder_fps=30.0) as source:
            items = list(source)
        assert source.fps == fps and [item.index for item in items] == list(range(12))
        for item in items:
            assert item.image.dtype == np.float32 and item.image[0, 0] == 0
            np.testing.assert_allclose(item.image[1:], 0.7 + item.index / 1000, atol=1e-6)
    assert open_depth(video, folder_fps=30.0, fps=60.0).fps == 60.0


def test_what_is_no_depth_is_refused(tmp_path):
    with pytest.raises(SourceError, match="neither a folder of 16-bit PNG nor a video"):
        open_depth(tmp_path / "none", 30.0)
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((48, 64), np.uint8))
    with pytest.raises(SourceError, match=r"a.png is no depth image: uint8 \(48, 64\)"):
        open_depth(tmp_path, 30.0).read()
    (tmp_path / "a.png").write_text("broken")
    with pytest.raises(SourceError, match="cannot read depth image .*a.png"):
        open_depth(tmp_path, 30.0).read()
    writer = cv2.VideoWriter(str(tmp_path / "grey.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 30, (64, 48))
    writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    with pytest.raises(SourceError, match="is no depth image: uint8"):
        open_depth(tmp_path / "grey.avi", 30.0).read()


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """The demo clip's calibration, and depth images of its hands: discs of the skin's depth at the joints."""
    root = tmp_path_factory.mktemp("recording")
    (root / "depth").mkdir()
    labels = read_labels(demo_directory())
    fx, fy, cx, cy = labels[0].camera["K"]
    K = (fx, 0.0, cx - HALF_PIXEL, 0.0, fy, cy - HALF_PIXEL, 0.0, 0.0, 1.0)
    eye, P = tuple(np.eye(3).ravel().tolist()), tuple(np.eye(3, 4).ravel().tolist())
    save_camera_yaml(root / "camera.yaml", Calibration("demo", 640, 480, "plumb_bob", (0.0,) * 5, K, eye, P))
    for index in range(FRAMES):
        depth = np.full((480, 640), 1200, np.uint16)
        joints = [
            (pixel, point[2])
            for hand in labels[index].hands
            for pixel, point in zip(hand.keypoints_px, hand.keypoints_m, strict=True)
        ]
        for (x, y), z in sorted(joints, key=lambda joint: -joint[1]):
            cv2.circle(depth, (int(x), int(y)), 7, int(1000 * (z - SKIN_M)), -1)
        cv2.imwrite(str(root / "depth" / f"{index}.png"), depth)
    return root


def arguments(recording, *others: str) -> list[str]:
    clip, camera = str(demo_directory() / CLIP), str(recording / "camera.yaml")
    return ["track", clip, "--camera-info", camera, "--depth", str(recording / "depth"), *others]


def test_a_clip_with_depth_measures_the_hands(recording, tmp_path, capsys):
    size, output = tmp_path / "me.yaml", tmp_path / "hands.jsonl"
    small = ["--set", "pose.palm_m=0.075", "--max-frames", str(FRAMES), "--save-hand-size", str(size)]
    assert main(arguments(recording, *small, "--output", str(output))) == 0
    assert f"wrote {size}" in capsys.readouterr().out
    assert load_hand_size(size).is_measured and load_hand_size(size).palm_m == pytest.approx(0.088, rel=0.1)
    last = json.loads(output.read_text().splitlines()[-1])
    assert {hand["scale"] for hand in last["hands"]} == {"measured"}
    without = [part for part in arguments(recording, *small) if part not in ("--depth", str(recording / "depth"))]
    assert main(without) == 2
    assert "--save-hand-size needs what measures hands" in capsys.readouterr().err
    assert main([*arguments(recording, *small), "--max-frames", "1"]) == 2
    assert f"{size} is not written: nothing measured the hands" in capsys.readouterr().err


def test_images_without_depth_are_tracked_and_counted(recording, caplog):
    assert main(arguments(recording, "--max-frames", str(FRAMES + 5))) == 0
    assert f"5 of {FRAMES + 5} images have no depth image near enough in time" in caplog.text


def test_depth_that_cannot_be_used_is_refused(recording, tmp_path, capsys):
    cv2.imwrite(str(tmp_path / "0.png"), millimetres(0))
    others = arguments(recording)[:-1]
    for command, message in (
        ([*others, str(tmp_path)], "depth image 0.png is 64x48, but the images are 640x480"),
        (["track", others[1], "--depth", str(recording / "depth")], "--depth is of no use without --camera-info"),
        ([*others, str(recording / "depth"), "--stereo", "x", "y"], "--depth is for one camera"),
        ([*others, str(recording / "none")], "no depth images"),
    ):
        assert main([*command, "--max-frames", "2"]) == 2
        assert message in capsys.readouterr().err
