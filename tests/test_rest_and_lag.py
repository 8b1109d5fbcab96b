"""benchmarks/rest_and_lag.py: still clips are what they say, and known noise and lag come out as known."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from hand_tracking_ros.geometry import box_around
from hand_tracking_ros.records import LabelledHand, LabelledImage, TrackedFrame
from hand_tracking_ros.skeleton import Side, palm_length
from hand_tracking_ros.types import Hand, Scale, Source

PATH = Path(__file__).resolve().parents[1] / "benchmarks" / "rest_and_lag.py"
FOCAL_PX, DISTANCE_M = 500.0, 0.5
CAMERA = {"K": [FOCAL_PX, FOCAL_PX, 320.0, 240.0]}


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("benchmark_rest_and_lag", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def points_m(x_m: float = 0.0) -> np.ndarray:
    """Joints of a flat hand, (21, 3)."""
    fingers = [(-0.04 + 0.02 * f, -0.08 - 0.02 * k) for f in range(5) for k in range(4)]
    flat = np.array([(0.0, 0.02), *fingers])
    return np.column_stack([flat[:, 0] + x_m, flat[:, 1], np.full(21, DISTANCE_M)])


def in_px(points: np.ndarray) -> np.ndarray:
    return FOCAL_PX * points[:, :2] / points[:, 2:] + (320, 240)


def label(index: int, points: np.ndarray, fps: float) -> LabelledImage:
    hand = LabelledHand(Side.RIGHT, None, in_px(points), None, points, 1)
    return LabelledImage(640, 480, (hand,), video="clip.avi", frame=index, stamp_s=index / fps, camera=CAMERA)


def found(hand_id: int, px: np.ndarray, points: np.ndarray | None = None) -> Hand:
    space = {} if points is None else {"scale": Scale.ASSUMED, "points_3d": points}
    return Hand(hand_id, Side.RIGHT, 1.0, 1.0, Source.PROPAGATED, box_around(px), px, np.ones(21), **space)


def frame(index: int, fps: float, *hands: Hand) -> TrackedFrame:
    return TrackedFrame(index, index / fps, 640, 480, hands)


def test_a_still_clip_repeats_the_image_with_new_noise_of_the_right_size(benchmark, tmp_path):
    image = np.full((48, 64, 3), (60, 120, 180), np.uint8)
    clip = benchmark.still_clip(image, label(70, points_m(), 30.0), tmp_path / "a.avi", seconds=2.0, noise=5.0)
    capture = cv2.VideoCapture(str(clip.video))
    frames = np.stack([capture.read()[1] for _ in range(60)]).astype(float)
    assert not capture.read()[0]
    np.testing.assert_allclose(frames.mean(axis=(0, 1, 2)), (60, 120, 180), atol=0.2)
    assert frames.std(axis=0).mean() == pytest.approx(5.0, rel=0.03)
    assert [image.frame for image in clip.labels] == list(range(60)) and clip.labels[30].stamp_s == 1.0
    assert {image.video for image in clip.labels} == {"a.avi"} and clip.labels[7].hands[0].id == 1


def test_known_noise_comes_out_in_px_and_in_mm(benchmark):
    """White noise of 1 px and 2 mm per axis, and a slow drift that only the wander sees."""
    rng, truth = np.random.default_rng(0), points_m()
    clip = benchmark.Clip(Path("clip.avi"), [label(k, truth, 30.0) for k in range(300)])
    frames = [
        frame(
            k,
            30.0,
            found(5, in_px(truth) + rng.normal(0, 1, (21, 2)) + (0.02 * k, 0), truth + rng.normal(0, 2e-3, (21, 3))),
        )
        for k in range(300)
    ]
    m = benchmark.rest_metrics([clip], [frames])
    assert m["found"] == 1.0 and m["clips"] == 1
    assert m["jitter_px"] == pytest.approx(np.sqrt(2), rel=0.03)
    drift = 0.02 * 270 / np.sqrt(12)  # RMS of a ramp; the first second does not count
    assert m["wander_px"] == pytest.approx(np.hypot(np.sqrt(2), drift), rel=0.03)
    assert m["jitter_mm"] == pytest.approx(2 * np.sqrt(3), rel=0.03)
    assert m["jitter_side_mm"] == pytest.approx(m["jitter_px"] * 1e3 * DISTANCE_M / FOCAL_PX)


def test_what_is_not_known_is_nan_and_what_is_no_hand_does_not_count(benchmark):
    truth = points_m()
    labels = [label(k, truth, 30.0) for k in range(90)]
    elsewhere = found(2, in_px(points_m(0.3)))
    half = [frame(k, 30.0, *([found(1, in_px(truth))] if k < 45 else []), elsewhere) for k in range(90)]
    m = benchmark.rest_metrics([benchmark.Clip(Path("clip.avi"), labels)], [half])
    assert m["found"] == 0.5 and m["jitter_px"] == m["wander_px"] == 0.0
    assert np.isnan(m["jitter_mm"]) and m["jitter_side_mm"] == 0.0
    photo = benchmark.Clip(Path("clip.avi"), [replace(image, hands=(), camera=None) for image in labels])
    m = benchmark.rest_metrics([photo], [half[:45]])
    assert m["jitter_px"] == 0.0 and np.isnan(m["jitter_side_mm"])
    nothing = benchmark.rest_metrics([photo], [[frame(k, 30.0) for k in range(90)]])
    assert nothing["found"] == 0.0 and np.isnan(nothing["jitter_px"])


def test_the_one_euro_filter_behind_the_peer_trades_jitter_for_lag(benchmark):
    rng = np.random.default_rng(1)

    def tracks(still: bool) -> tuple:
        xs = [0.0 if still else 0.06 * np.sin(5 * k / 30) for k in range(240)]
        labels = [label(k, points_m(x), 30.0) for k, x in enumerate(xs)]
        noisy = [frame(k, 30.0, found(1, in_px(points_m(x)) + rng.normal(0, 1.0, (21, 2)))) for k, x in enumerate(xs)]
        return benchmark.Clip(Path("clip.avi"), labels), noisy

    clip, noisy = tracks(still=True)
    bare = benchmark.rest_metrics([clip], [noisy])["jitter_px"]
    calm = benchmark.rest_metrics([clip], [benchmark.one_euro(noisy, 0.5, 1.0)])["jitter_px"]
    assert calm < 0.3 * bare
    clip, noisy = tracks(still=False)
    lags = [
        benchmark.moving_metrics([clip], [frames])["lag_ms"]
        for frames in (noisy, benchmark.one_euro(noisy, 0.5, 4.0), benchmark.one_euro(noisy, 0.5, 1.0))
    ]
    assert abs(lags[0]) <= 3 and lags[0] + 10 < lags[1] < lags[2]
    assert palm_length(in_px(points_m())) > 50  # px: the filter's speeds are in these


def test_the_table_has_a_dash_for_what_is_not_known(benchmark):
    rows = {"MediaPipe": dict.fromkeys(benchmark.AT_REST, 1.25) | {"jitter_mm": float("nan"), "clips": 3}}
    head, _, row = benchmark.table("at rest", benchmark.AT_REST, rows).splitlines()
    assert head.startswith(
        "| at rest | found | jitter px, median hand | jitter mm, sideways, median hand | hands that jump |"
    )
    assert row == "| MediaPipe | " + "1.25 | " * 8 + "- | 1.25 |"


def test_a_hand_that_jumps_decides_the_mean_and_not_the_median(benchmark):
    truth = points_m()
    clips = [benchmark.Clip(Path(f"{i}.avi"), [label(k, truth, 30.0) for k in range(90)]) for i in range(5)]
    rng = np.random.default_rng(1)
    still = [[frame(k, 30.0, found(1, in_px(truth) + rng.normal(0, 0.1, (21, 2)))) for k in range(90)] for _ in clips]
    still[3] = [frame(k, 30.0, found(1, in_px(truth) + (10.0 * (k % 2), 0))) for k in range(90)]
    m = benchmark.rest_metrics(clips, still)
    assert m["jumping"] == pytest.approx(0.2) and m["jitter_px"] > 2
    assert m["median_jitter_px"] < 0.3 and m["found"] == 1
