"""The detection stage: decoding DetNet's maps, suppression, and the letterbox, with a real ONNX model."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from hand_tracking_ros.config import DetectorConfig
from hand_tracking_ros.detection import HandDetector, decode, letterboxed, suppress
from hand_tracking_ros.errors import ModelError
from hand_tracking_ros.geometry import Box, warp
from hand_tracking_ros.types import HandBox, Source


def maps(*peaks):
    """Score and box maps with ``peaks`` (row, column, score, x, y, side, angle, right)."""
    scores, boxes = np.zeros((30, 40), np.float32), np.zeros((6, 30, 40), np.float32)
    for row, column, score, x, y, side, angle, right in peaks:
        scores[row, column] = score
        boxes[:, row, column] = (x, y, side, np.cos(angle), np.sin(angle), right)
    return scores, boxes


def test_decode_gives_image_pixels_best_first():
    scores, boxes = maps(
        (3, 5, 0.6, 44.0, 30.0, 40.0, 0.5, 0.9),
        (20, 30, 0.8, 242.0, 166.0, 64.0, -2.0, 0.1),
        (9, 9, 0.2, 76, 76, 9, 0, 0.5),
    )
    first, second = decode(scores, boxes, 0.4, scale=0.5)
    assert first.score == pytest.approx(0.8) and second.score == pytest.approx(0.6)
    np.testing.assert_allclose(first.box.center_px, (484, 332))
    np.testing.assert_allclose(first.box.size_px, (128, 128))
    assert first.box.angle_rad == pytest.approx(-2.0) and second.box.angle_rad == pytest.approx(0.5)
    assert first.right_score == pytest.approx(0.1) and first.source == Source.DETECTED and first.id == 0


def test_suppress_keeps_the_better_of_two_on_one_hand_and_both_of_two_hands():
    def box(x, score):
        return HandBox(Box((x, 100.0), (80.0, 80.0)), score)

    kept = suppress([box(100, 0.9), box(110, 0.8), box(260, 0.7)], 0.4)
    assert [hand.box.center_px[0] for hand in kept] == [100, 260]


@pytest.mark.parametrize("shape", [(240, 320), (480, 640), (720, 1280), (1080, 1920), (97, 53), (16, 16)])
def test_detections_of_any_image_size_are_centred_in_the_image(shape):
    detector = HandDetector(DetectorConfig(score_threshold=0.01))
    noise = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    for hand in detector.detect(noise):
        assert 0 <= hand.box.center_px[0] < shape[1] and 0 <= hand.box.center_px[1] < shape[0]
        assert 0 < hand.box.size_px[0] < 10 * max(shape)


@pytest.mark.parametrize(
    ("size", "closest"),
    [
        ((320, 240), 0), ((640, 480), 0), ((640, 360), 0), ((960, 540), 0), ((1280, 720), 1), ((1920, 1080), 1),
        ((720, 720), 0), ((848, 480), 0), ((641, 481), 0), ((160, 120), 0), ((53, 97), 0), ((16, 16), 0),
    ],
    ids=str,
)  # fmt: skip
def test_the_letterbox_is_the_image_at_the_top_left_and_black_elsewhere(size, closest):
    image = np.random.default_rng(0).integers(1, 256, size[::-1]).astype(np.uint8)
    shrink = max(size[0] / 320, size[1] / 240)
    seen = letterboxed(image, shrink, (320, 240))
    wanted = warp(image, np.eye(2, 3) / shrink, (320, 240))
    assert seen.shape == (240, 320) and seen.dtype == np.uint8 and seen.flags.c_contiguous
    assert np.abs(seen.astype(int) - wanted).max() <= closest
    edge = int(np.ceil(1 / shrink))  # an enlarged image fades out over a pixel of its own
    assert not seen[:, int(np.ceil(size[0] / shrink)) + edge :].any()
    assert not seen[int(np.ceil(size[1] / shrink)) + edge :].any()


def test_threads_that_detect_at_once_see_their_own_images():
    """As the cameras of a rig might, with one detector."""
    detector = HandDetector(DetectorConfig(score_threshold=0.01))
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 256, shape).astype(np.uint8) for shape in ((480, 640), (360, 640)) for _ in range(8)]
    alone = [detector.detect(image) for image in images]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(detector.detect, images)) == alone


def test_flat_images_have_no_hands():
    detector = HandDetector()
    for level in (0, 128, 255):
        assert detector.detect(np.full((480, 640), level, np.uint8)) == []


def test_a_model_for_another_task_is_refused():
    with pytest.raises(ModelError, match="for task 'keypoints', needed is one for 'detect'"):
        HandDetector(DetectorConfig(model="keynet"))
