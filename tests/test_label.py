"""`hand-tracking label` and the teacher: views undo exactly, only repeated hands are kept, interrupted runs go on."""

from __future__ import annotations

import collections
import json
import os
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

from hand_tracking_ros.cli import main
from hand_tracking_ros.cli.demo import CLIP, demo_directory
from hand_tracking_ros.training import teacher

MEDIAPIPE_PYTHON = os.environ.get("HAND_TRACKING_MEDIAPIPE_PYTHON", "")


@pytest.mark.parametrize("kind", ["crops", "frames"])
def test_a_point_seen_in_any_view_is_where_it_was(kind):
    image = np.full((90, 120, 3), 30, np.uint8)
    cv2.circle(image, (40, 60), 4, (255, 255, 255), -1)  # around the corner-origin point (40.5, 60.5)
    for first in teacher.search_views(kind):
        for view in (first, teacher.second_look(first)):
            seen, view_from_image = teacher.render_view(image, view, min_long_side_px=200)
            y, x = np.argwhere(seen[..., 0] > 140).mean(axis=0) + 0.5
            back = np.linalg.solve(view_from_image[:, :2], np.array([x, y]) - view_from_image[:, 2])
            np.testing.assert_allclose(back, [40.5, 60.5], atol=0.3)
            assert max(seen.shape) >= 200


def test_the_second_look_differs_in_everything():
    for kind in ("crops", "frames"):
        for view in teacher.search_views(kind):
            again = teacher.second_look(view)
            assert again.flip != view.flip and again.padding > view.padding and again.rotation_deg != view.rotation_deg


def hand(shift: float, right: bool) -> dict:
    points = np.stack([np.linspace(0, 100, 21), np.linspace(0, 50, 21)], axis=1)
    points[17] = (0, 100)  # palm length 100
    return {"points_px": points + [shift, 0], "depth": np.zeros(21), "right": right}


@pytest.mark.parametrize(("shift", "right", "kept", "side"), [
    (4.0, True, 1, "right"), (4.0, False, 1, None), (30.0, True, 0, None),
])  # fmt: skip
def test_a_hand_is_kept_when_it_is_found_again_nearby(shift, right, kept, side):
    reasons: collections.Counter = collections.Counter()
    hands = teacher.agreeing_hands([[hand(0.0, True)], [hand(shift, right)]], 0.12, reasons)
    assert len(hands) == kept
    if kept:
        assert hands[0]["side"] == side
        assert hands[0]["keypoints_px"][0] == [shift / 2, 0.0]  # the mean of both looks
        assert not reasons
    else:
        assert reasons == {"hand not found again in the second look": 1}


def test_an_interrupted_run_goes_on_and_counts_all(tmp_path):
    output = tmp_path / "labels.jsonl"
    lines = [
        {"file": "a.png", "hands": [{"side": None}], "dropped": {}},
        {"file": "b.png", "hands": [], "dropped": {"no hand found": 1}},
    ]
    whole = "".join(json.dumps(line) + "\n" for line in lines)
    output.write_text(whole + '{"file": "c.png", "ha')
    assert teacher.finished(output) == {"a.png", "b.png"}
    assert output.read_text() == whole
    assert teacher.finished(tmp_path / "none.jsonl") == set()
    assert teacher.summary(output) == "2 images: 1 kept, with 1 hands (1 of unclear side)\n1 fell out: no hand found"


def test_hard_images_are_listed(tmp_path):
    output = tmp_path / "labels.jsonl"
    lines = [("easy.png", [{}], 1), ("turned.png", [{}], 2), ("nothing.png", [], 5), ("wide.png", [{}], 5)]
    output.write_text("".join(json.dumps({"file": f, "hands": h, "looks": k}) + "\n" for f, h, k in lines))
    assert teacher.list_hard(output).read_text() == "turned.png\nwide.png\n"
    assert teacher.list_hard(output) == tmp_path / "hard.txt"


def test_the_command_says_what_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert main(["label", str(tmp_path / "nowhere")]) == 2
    assert "nowhere is not a folder" in capsys.readouterr().err
    assert main(["label", str(tmp_path), "--python", "/bin/false"]) == 2
    assert "/bin/false cannot import mediapipe" in capsys.readouterr().err
    assert main(["label", str(tmp_path), "--python", "nope"]) == 2
    assert "--python: cannot run nope: No such file or directory" in capsys.readouterr().err
    if subprocess.run(["python", "-c", "import mediapipe"], capture_output=True).returncode:
        assert main(["label", str(tmp_path)]) == 2
        assert "run the command once with --install" in capsys.readouterr().err


@pytest.mark.skipif(
    not MEDIAPIPE_PYTHON, reason="labelling for real needs a Python with MediaPipe: set HAND_TRACKING_MEDIAPIPE_PYTHON"
)
def test_real_labels_of_rendered_hands_lie_on_the_hands(tmp_path, capfd):
    truth = [json.loads(line) for line in (demo_directory() / "labels.jsonl").read_text().splitlines()]
    video = cv2.VideoCapture(str(demo_directory() / CLIP))
    for index in range(0, 60, 12):
        video.set(cv2.CAP_PROP_POS_FRAMES, index)
        cv2.imwrite(str(tmp_path / f"{index}.png"), video.read()[1])
    (tmp_path / "text.jpg").write_text("no image")
    assert main(["label", str(tmp_path), "--python", MEDIAPIPE_PYTHON, "--workers", "1"]) == 0
    text = capfd.readouterr().out
    assert "6 images" in text and "1 fell out: image unreadable" in text
    gaps = []
    for line in (tmp_path / "labels.jsonl").read_text().splitlines():
        label = json.loads(line)
        for found in label["hands"]:
            points = np.array(found["keypoints_px"])
            known = [np.array(h["keypoints_px"]) for h in truth[int(Path(label["file"]).stem)]["hands"]]
            gaps.append(min(np.linalg.norm(points - k, axis=1).mean() / teacher.palm_length(k) for k in known))
    assert len(gaps) >= 3 and np.median(gaps) < 0.2
