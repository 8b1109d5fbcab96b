"""The robustness suite: exact labels under every condition, the same pixels for everyone, metrics, and the commands."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from blob_models import hand_at

from hand_tracking_ros.cli import main
from hand_tracking_ros.cli.demo import demo_directory
from hand_tracking_ros.errors import RecordError, SourceError
from hand_tracking_ros.evaluation.degrade import (
    CANVAS_WH,
    CONDITIONS,
    HAND_PX,
    degrade,
    load_backgrounds,
    motion_kernel,
)
from hand_tracking_ros.evaluation.robustness import robustness_metrics, sample
from hand_tracking_ros.geometry import box_around
from hand_tracking_ros.paths import models_directory
from hand_tracking_ros.records import (
    LabelledHand,
    LabelledImage,
    TrackedFrame,
    label_to_record,
    read_labels,
    write_labels,
    write_tracks,
)
from hand_tracking_ros.skeleton import Side, palm_length
from hand_tracking_ros.types import Hand, Source

GEOMETRIC = [name for name in CONDITIONS if name.startswith(("clear", "hand_", "turned_", "mirrored"))]
DOTS = (0, 4, 12, 20)  # far enough apart to be told from each other in the smallest hand
PALM = float(palm_length(hand_at(0, 0)))


def scaled_hand(center, size_px: float) -> np.ndarray:
    """A hand (21, 2) around ``center`` whose tight upright box has this long side."""
    points = hand_at(0.0, 0.0)
    low, high = points.min(axis=0), points.max(axis=0)
    return (points - (low + high) / 2) * size_px / (high - low).max() + center


def labelled(width, height, *hands, name="a.png", ignore=()) -> LabelledImage:
    return LabelledImage(width, height, tuple(hands), file=name, ignore=ignore)


def right(points) -> LabelledHand:
    return LabelledHand(Side.RIGHT, keypoints_px=points)


def texture(width=640, height=480) -> np.ndarray:
    """Smooth random grey, between 60 and 200."""
    noise = np.random.default_rng(3).uniform(0, 255, (height // 8, width // 8)).astype(np.float32)
    return np.clip(cv2.resize(cv2.GaussianBlur(noise, (0, 0), 1), (width, height)), 60, 200).astype(np.uint8)


@pytest.fixture(scope="module")
def scene():
    return texture(), labelled(640, 480, right(scaled_hand((300, 250), 160)))


# Labels


@pytest.mark.parametrize("name", GEOMETRIC)
@pytest.mark.parametrize(
    ("wh", "center", "size_px"),
    [((400, 300), (180, 160), 120), ((1200, 900), (700, 500), 500), ((1280, 720), (150, 560), 210)],
    ids=["enlarged", "shrunk", "near the corner of a wide image"],
)
def test_labels_follow_the_pixels(name, wh, center, size_px):
    """Bright dots on four joints are found again where the label says."""
    points = scaled_hand(center, size_px)
    x, y = np.meshgrid(np.arange(wh[0]) + 0.5, np.arange(wh[1]) + 0.5)
    dots = [np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * (size_px / 40) ** 2)) for px, py in points[list(DOTS)]]
    image = np.rint(250 * np.sum(dots, axis=0)).astype(np.uint8)
    canvas, label = degrade(image, labelled(*wh, right(points)), name)

    assert canvas.shape == (480, 640) and canvas.dtype == np.uint8
    assert (label.width, label.height) == CANVAS_WH and len(label.hands) == 1 and label.ignore == ()
    x, y = np.meshgrid(np.arange(640) + 0.5, np.arange(480) + 0.5)
    for joint in DOTS:
        px, py = label.hands[0].keypoints_px[joint]
        near = np.where(np.hypot(x - px, y - py) < CONDITIONS[name].hand_px / 9, canvas, 0).astype(float)
        assert near.sum() > 100
        assert np.hypot((near * x).sum() / near.sum() - px, (near * y).sum() / near.sum() - py) < 0.15


@pytest.mark.parametrize("name", [name for name in GEOMETRIC if name != "turned_45"])
def test_hand_has_the_size_of_its_condition(scene, name):
    _, label = degrade(*scene, name)
    x0, y0, x1, y1 = label.hands[0].bounds()
    assert max(x1 - x0, y1 - y0) == pytest.approx(CONDITIONS[name].hand_px)


def test_turning_and_mirroring():
    """Clockwise on the screen; a mirrored hand is one of the other side."""
    scene = texture(), labelled(640, 480, right(scaled_hand((300, 250), 160)), LabelledHand(Side.LEFT, (9, 9, 50, 50)))
    clear, mirrored = (degrade(*scene, name)[1] for name in ("clear", "mirrored"))
    angle = box_around(clear.hands[0].keypoints_px).angle_rad
    for degrees in (45, 90, 180):
        turned = box_around(degrade(*scene, f"turned_{degrees}")[1].hands[0].keypoints_px).angle_rad
        assert np.cos(turned - angle - np.radians(degrees)) == pytest.approx(1)
    assert (clear.hands[0].side, mirrored.hands[0].side) == (Side.RIGHT, Side.LEFT)
    x, flipped = clear.hands[0].keypoints_px[:, 0], mirrored.hands[0].keypoints_px[:, 0]
    np.testing.assert_allclose(flipped - flipped.mean(), x.mean() - x)
    twice = degrade(texture(), replace(mirrored, file="b.png"), "mirrored")[1]
    assert twice.hands[0].side == Side.RIGHT


def test_what_cannot_be_judged_is_ignored():
    """Hands without keypoints, hands cut off by the canvas and ignored regions move along as regions."""
    image = np.zeros((480, 2000), np.uint8)
    boxed = LabelledHand(Side.LEFT, (900.0, 200.0, 1000.0, 300.0))
    ignored = (600.0, 0.0, 640.0, 40.0)
    far, cut = right(scaled_hand((1900, 240), 100)), right(scaled_hand((1015, 240), 100))
    label = labelled(2000, 480, right(scaled_hand((700, 240), 160)), boxed, far, cut, ignore=(ignored,))
    _, moved = degrade(image, label, "clear")
    shift = moved.hands[0].keypoints_px[0] - label.hands[0].keypoints_px[0]
    assert len(moved.hands) == 1
    regions = np.array(moved.ignore) - np.tile(shift, 2)
    np.testing.assert_allclose(regions[:2], [ignored, (900, 200, 1000, 300)], atol=1e-6)
    assert all(0 <= x0 < x1 <= 640 for x0, _, x1, _ in moved.ignore) and len(regions) == 3  # of the far one nothing
    json.dumps(label_to_record(moved), allow_nan=False)
    with pytest.raises(ValueError, match="no hand has keypoints"):
        degrade(image, labelled(2000, 480, boxed), "clear")


# Pixels


def test_everybody_gets_the_same_pixels(scene):
    """Chance hangs on the image's name and the condition; the scene on the name alone."""
    image, label = scene
    for name in CONDITIONS:
        once, again = degrade(image, label, name), degrade(image.copy(), label, name)
        assert np.array_equal(once[0], again[0])
        assert label_to_record(once[1]) == label_to_record(again[1])
    renamed = replace(label, file="b.png")
    assert not np.array_equal(degrade(image, label, "noise_15")[0], degrade(image, renamed, "noise_15")[0])
    places = {
        tuple(degrade(image, label, name)[1].hands[0].keypoints_px[0])
        for name, condition in CONDITIONS.items()
        if condition.hand_px == HAND_PX and not condition.turn_deg and not condition.mirrored
    }
    assert len(places) == 1
    dark, noisy = (degrade(image, label, name)[0].astype(float) for name in ("dark_noise", "noise_15"))
    clear = degrade(image, label, "clear")[0]
    assert abs(np.corrcoef((noisy - clear).ravel(), (dark - clear / 4).ravel())[0, 1]) < 0.02


@pytest.mark.parametrize("channels", [1, 3])
def test_light_noise_and_compression(scene, channels):
    image, label = scene
    if channels == 3:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    clear, dark, noisy, dark_noisy, jpeg, blurred = (
        degrade(image, label, name)[0]
        for name in ("clear", "brightness_25", "noise_15", "dark_noise", "jpeg_20", "motion_blur")
    )
    assert clear.shape == ((480, 640) if channels == 1 else (480, 640, 3))
    assert np.array_equal(dark, np.rint(clear * 0.25))
    error = noisy.astype(float) - clear
    assert abs(error.mean()) < 0.1 and error.std() == pytest.approx(15, rel=0.01)
    error = dark_noisy - clear * 0.25
    assert abs(error.mean()) < 0.1 and error.std() == pytest.approx(5, rel=0.02)
    coded = cv2.imdecode(cv2.imencode(".jpg", clear, [cv2.IMWRITE_JPEG_QUALITY, 20])[1], cv2.IMREAD_UNCHANGED)
    assert np.array_equal(jpeg, coded) and not np.array_equal(jpeg, clear)
    assert blurred.std() < clear.std() and blurred.mean() == pytest.approx(clear.mean(), abs=0.5)


@pytest.mark.parametrize("angle", [0.0, 0.7, np.pi / 2])
def test_motion_kernel_is_a_centred_line(angle):
    kernel = motion_kernel(24.0, angle)
    y, x = np.indices(kernel.shape) - kernel.shape[0] // 2
    along, across = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    assert (kernel * x).sum() == pytest.approx(0, abs=1e-5) and (kernel * y).sum() == pytest.approx(0, abs=1e-5)
    assert (kernel * along**2).sum() == pytest.approx(24**2 / 12, rel=0.01)  # a uniform line
    assert (kernel * across**2).sum() < 0.25


def test_around_the_image_its_edges_go_on_or_a_background(tmp_path):
    image = np.full((100, 100), 200, np.uint8)
    label = labelled(100, 100, right(scaled_hand((50, 50), 80)))
    assert (degrade(image, label, "hand_64px")[0] == 200).all()
    (tmp_path / "empty").mkdir()
    cv2.imwrite(str(tmp_path / "wall.png"), np.full((300, 200), 40, np.uint8))
    walls = load_backgrounds([tmp_path])
    assert [wall.shape for wall in walls] == [(300, 200, 3)]
    for pixels in (image, cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)):
        canvas, moved = degrade(pixels, label, "hand_64px", walls)
        x, y = moved.hands[0].keypoints_px.mean(axis=0).astype(int)
        assert (canvas[y - 20 : y + 20, x - 20 : x + 20] == 200).all()
        assert (canvas[:50] == 40).all() and (canvas[-50:] == 40).all()
    with pytest.raises(SourceError, match="no background images"):
        load_backgrounds([tmp_path / "empty"])


# Metrics


def a_hand(points, side=Side.RIGHT) -> Hand:
    return Hand(
        id=0,
        side=side,
        side_score=0.9,
        score=0.9,
        source=Source.DETECTED,
        box=box_around(points),
        keypoints_px=points,
        keypoint_scores=np.ones(21),
    )


def test_metrics_by_hand():
    """Four hands: close with the right side, 30 % off with the wrong one, a palm and a half off, not seen at all."""
    truth = [hand_at(100, 100), hand_at(300, 100), hand_at(100, 300), hand_at(500, 300)]
    labels = [
        labelled(640, 480, right(truth[0]), right(truth[1])),
        labelled(640, 480, right(truth[2]), right(truth[3]), ignore=((400.0, 0.0, 640.0, 100.0),)),
    ]
    found = [
        [a_hand(truth[0] + [0.1 * PALM, 0]), a_hand(truth[1] + [0, 0.3 * PALM], Side.LEFT)],
        [a_hand(truth[2] + [1.5 * PALM, 0]), a_hand(hand_at(500, 50))],
    ]
    metrics = robustness_metrics(labels, found)
    assert metrics == pytest.approx(
        {
            "hands": 4,
            "found": 0.5,
            "within_20_percent": 0.25,
            "mean_percent": 20.0,
            "pck20": 0.25,
            "side_accuracy": 0.5,
            "extra_per_image": 0.5,
        }
    )
    nothing = robustness_metrics([labelled(640, 480)], [[]])
    assert nothing["hands"] == 0 and np.isnan(nothing["found"]) and nothing["extra_per_image"] == 0


def test_sample_takes_even_distances_of_what_can_be_used():
    boxed = LabelledHand(Side.LEFT, (0.0, 0.0, 9.0, 9.0))
    labels = [labelled(640, 480, right(hand_at(100, 100)), name=str(i)) for i in range(9)] + [labelled(640, 480, boxed)]
    assert [label.file for label in sample(labels, 3)] == ["0", "4", "8"]
    assert len(sample(labels, None)) == len(sample(labels, 99)) == 9
    with pytest.raises(RecordError, match="none of the 1 labelled images has a hand with keypoints"):
        sample(labels[-1:], None)


# Commands

SHIPPED = pytest.mark.skipif(
    not all((models_directory() / f"{name}.yaml").is_file() for name in ("detnet", "keynet")),
    reason="the shipped networks are not in models/",
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    """Three colour frames of the shipped clip as images."""
    root = tmp_path_factory.mktemp("dataset")
    video = cv2.VideoCapture(str(demo_directory() / "demo_hands.mp4"))
    labels = []
    for label in read_labels(demo_directory())[:90]:
        image = video.read()[1]
        if label.frame % 40 == 0:
            cv2.imwrite(str(root / f"{label.frame}.png"), image)
            labels.append(replace(label, file=f"{label.frame}.png", video=None, frame=None))
    write_labels(root / "labels.jsonl", labels)
    return root


@SHIPPED
def test_command_measures_and_writes_what_it_measured(dataset, tmp_path, capsys):
    chosen = ["--conditions", "clear", "noise_15", "hand_64px", "mirrored"]
    out = tmp_path / "degraded"
    assert main(["evaluate", str(dataset), "--task", "robustness", "--json", "--write", str(out), *chosen]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["images"] == 3 and list(result["by_condition"]) == chosen[1:]
    assert result["by_condition"]["clear"]["found"] > 0.5
    assert sorted(path.name for path in out.iterdir()) == sorted(chosen[1:])

    source = read_labels(dataset)
    for name in chosen[1:]:
        written = read_labels(out / name)
        assert len(written) == 3
        for label, original in zip(written, source):
            mono = cv2.cvtColor(cv2.imread(str(dataset / original.file)), cv2.COLOR_BGR2GRAY)
            canvas, moved = degrade(mono, original, name)
            assert np.array_equal(cv2.imread(str(out / name / label.file), cv2.IMREAD_UNCHANGED), canvas)
            assert [hand.side for hand in label.hands] == [hand.side for hand in moved.hands]
            for hand, expected in zip(label.hands, moved.hands):
                np.testing.assert_allclose(hand.keypoints_px, expected.keypoints_px, atol=1e-3)

    assert main(["evaluate", str(dataset), "--task", "robustness", "--write", str(out), *chosen]) == 2
    assert "not empty" in capsys.readouterr().err


@SHIPPED
def test_command_on_a_video_prints_one_table(capsys):
    arguments = ["evaluate", str(demo_directory()), "--task", "robustness", "--limit", "2"]
    assert main([*arguments, "--conditions", "clear", "turned_90"]) == 0
    text = capsys.readouterr().out
    assert "images   2\n" in text
    assert [line.split()[0] for line in text.splitlines()[-2:]] == ["clear", "turned_90"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "detect", "--limit", "3"], "--limit belongs to --task robustness, not to detect"),
        (["--task", "robustness", "--limit", "0"], "--limit must be at least 1, got 0"),
        (["--task", "robustness", "--conditions", "fog"], "unknown condition 'fog'; known are clear, brightness_25"),
        (["--task", "robustness", "--backgrounds", "none.jpg"], "cannot read image none.jpg"),
    ],
)
def test_user_errors(dataset, arguments, message, capsys):
    assert main(["evaluate", str(dataset), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_side_by_side_table(dataset, tmp_path):
    """The benchmark judges MediaPipe's file like any tracker's hands; ours has no rows in colour."""
    path = Path(__file__).resolve().parents[1] / "benchmarks" / "robustness.py"
    spec = importlib.util.spec_from_file_location("benchmark_robustness", path)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)

    labels = [labelled(640, 480, right(hand_at(100, 100))), labelled(640, 480, right(hand_at(300, 100)), name="b.png")]
    write_labels(tmp_path / "labels.jsonl", labels)
    hands = [(a_hand(hand_at(100, 100) + [0.1 * PALM, 0]),), ()]
    with (tmp_path / "mediapipe.jsonl").open("w") as stream:
        write_tracks(stream, [TrackedFrame(i, float(i), 640, 480, found) for i, found in enumerate(hands)])
    peer = benchmark.judge(tmp_path)
    rows = {"clear, in colour": {"mediapipe": peer}, "hand_64px": {"mediapipe": peer, "ours": peer}}
    *_, colour, small = benchmark.table({"rows": rows}).splitlines()
    assert colour == "| clear, in colour | 2 | - | 50 % | - | 50 % | - | 10.0 % | - | 100 % | - | 0.00 |"
    assert small.startswith("| hand 64px | 2 | 50 % | 50 % | 50 % | 50 % | 10.0 % | 10.0 % |")
    (tmp_path / "mediapipe.jsonl").write_text("")
    with pytest.raises(SystemExit, match="does not answer every image"):
        benchmark.judge(tmp_path)
