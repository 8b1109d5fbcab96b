"""Packing labelled images for another machine: the same hands, on smaller grey images."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the 'train' extra: pip install '.[train]'")

from hand_tracking_ros.errors import ConfigError
from hand_tracking_ros.training.pack import pack
from hand_tracking_ros.training.recipe import Check, Data, Recipe, Source

POINTS = np.stack([np.linspace(100, 500, 21), np.linspace(80, 300, 21)], axis=1)


def label(name: str, wh: tuple[int, int], points: np.ndarray) -> str:
    box = [*points.min(axis=0), *points.max(axis=0)]
    hand = {"side": "left", "box": box, "keypoints_px": points.tolist(), "relative_depth": [0.0] * 21}
    return json.dumps({"file": name, "width": wh[0], "height": wh[1], "hands": [hand]})


def folder(path, name: str, shape: tuple[int, ...], points: np.ndarray, **files: str):
    """One image with a bright dot at its first keypoint."""
    path.mkdir(parents=True)
    image = np.full(shape, 40, np.uint8)
    cv2.circle(image, tuple(int(v) for v in points[0]), 12, (255,) * (shape[2] if len(shape) == 3 else 1), -1)
    cv2.imwrite(str(path / name), image)
    (path / "labels.jsonl").write_text(label(name, shape[1::-1], points) + "\n")
    for file, text in files.items():
        (path / file.replace("_", ".")).write_text(text)


def test_what_is_packed_is_what_was_labelled_only_smaller(tmp_path):
    data, output = tmp_path / "data", tmp_path / "pack"
    boxes = json.dumps({"file": "a.jpg", "w": 640, "h": 480, "boxes": [[0, 0, 64, 48], [560, 400, 640, 480]]})
    folder(data / "frames", "a.jpg", (480, 640, 3), POINTS, boxes_jsonl=boxes + "\n", hard_txt="a.jpg\n")
    folder(data / "cut", "b.png", (160, 80, 4), POINTS / 8)
    folder(data / "digits", "c.png", (90, 90), POINTS / 8)
    (data / "walls").mkdir()
    cv2.imwrite(str(data / "walls" / "1.jpg"), np.full((600, 960, 3), 90, np.uint8))
    cv2.imwrite(str(data / "walls" / "hands.jpg"), np.zeros((60, 90), np.uint8))
    recipe = Recipe(
        "keynet", (Source("frame", images="frames"), Source("cutout", images="cut")),
        {"digits": (Check("digits"),)}, backgrounds=("walls",), skip_backgrounds=("hands.jpg",),
    )  # fmt: skip
    assert pack(recipe, data, None, output) == {"frames": 1, "cut": 1, "digits": 1}

    loaded = Data(output)
    frame, cut, digit = (loaded.load(part) for part in (*recipe.sources, recipe.checks["digits"][0]))
    assert [image.mono.shape for image in (frame[0], cut[0], digit[0])] == [(240, 320), (160, 80), (90, 90)]
    np.testing.assert_allclose(frame[0].hands[0].keypoints_px, POINTS / 2, atol=0.01)
    x, y = POINTS[0] / 2
    assert frame[0].mono[int(y), int(x)] > 200 > frame[0].mono[int(y) + 20, int(x)]
    assert cut[0].alpha is not None and frame[0].alpha is None
    assert [hand.has_keypoints for hand in frame[0].hands] == [True, False, False]  # hands with a box only
    np.testing.assert_allclose(frame[0].hands[2].box.center_px, (300, 220))
    assert (output / "frames" / "hard.txt").read_text() == "a.jpg\n"
    walls = list((output / "walls").iterdir())
    assert [path.name for path in walls] == ["1.jpg"] and cv2.imread(str(walls[0]), -1).shape == (300, 480)


def test_missing_labels_are_named(tmp_path):
    (tmp_path / "own").mkdir()
    with pytest.raises(ConfigError, match="labels.jsonl does not exist: 'hand-tracking label"):
        pack(Recipe("keynet", (Source("frame", images="own"),)), tmp_path, None, tmp_path / "out")
