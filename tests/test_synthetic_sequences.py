"""Synthetic sequences: smooth motions, rigs and fisheyes, exposure in time, ground truth that agrees with itself."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import pytest
import yaml

from hand_tracking_ros.cameras import Camera
from hand_tracking_ros.evaluation.datasets import labelled_images
from hand_tracking_ros.records import read_labels
from hand_tracking_ros.skeleton import EDGES, Side
from hand_tracking_ros.training.synthetic import photo, poses, scene

pytest.importorskip("moderngl", reason="rendering needs moderngl (the train extra)")

from hand_tracking_ros.errors import HandTrackingError
from hand_tracking_ros.training.synthetic import film, lenses, motion
from hand_tracking_ros.training.synthetic.__main__ import main
from hand_tracking_ros.training.synthetic.lenses import Lens, RigCamera
from hand_tracking_ros.training.synthetic.model import hand_model
from hand_tracking_ros.training.synthetic.render import Lights, Renderer, SceneHand, Solid
from hand_tracking_ros.training.synthetic.sequence import LEAST_GAP_M, SIZE_WH, Director, least_gap_m

SECONDS = 4.0
LIGHTS = Lights(np.array([0.0, -1.0, -1.0]))
PLAIN = photo.Shot(meter_hand=False, gamma=1.0, target_level=0.05)  # nothing saturates
# The package's keypoints lie a little beside the joints that the bones turn about, so these lengths give by some mm.
SOFT = ((1, 2), (2, 3), (5, 6), (9, 10), (13, 14), (17, 18))


@pytest.fixture(scope="module")
def renderer():
    try:
        renderer = Renderer(hand_model())
    except HandTrackingError as error:
        pytest.skip(str(error))
    yield renderer
    renderer.release()


@pytest.fixture(scope="module")
def director():
    return Director(seed=4, cameras=3, poses=60)


@pytest.fixture(scope="module")
def sequences(director):
    return [director.sequence(index, SECONDS) for index in range(7)]


@pytest.fixture(scope="module")
def written(renderer, tmp_path_factory):
    """A short sequence of two cameras, as the command writes it."""
    folder = tmp_path_factory.mktemp("sequences")
    assert main(["--kind", "sequence", "--count", "2", "--seed", "11", "--cameras", "2", "--seconds", "0.2", "--fps",
                 "10", "--poses", "40", "--output", str(folder)]) == 0  # fmt: skip
    return folder


def motions(sequences):
    return [one for sequence in sequences for one in sequence.motions]


def still_hand(place=(0.0, 0.0, 0.5), yaw=0.0) -> SceneHand:
    posed = hand_model().posed(9, poses.gesture("open", 0.2), Side.RIGHT, 0.088)
    rotation = scene.rotation_of(0, 0, yaw)
    return SceneHand(posed, rotation, np.array(place) - rotation @ posed.keypoints.mean(axis=0))


def shot_of(renderer, camera, at, exposure, times=(0.0,), background=0.0):
    image = np.full((camera.lens.size_wh[1], camera.lens.size_wh[0], 3), background, np.float32)
    frames = film.film(renderer, camera, at, LIGHTS, image, PLAIN, exposure, np.array(times), np.random.default_rng(0),
                       photo.MONO_WEIGHTS["luma"])  # fmt: skip
    return list(frames)


# Motions


def test_motions_are_smooth_and_as_fast_as_hands(sequences):
    times = np.arange(0, SECONDS, 1 / 300)
    fastest, accelerations = [], []
    for one in motions(sequences):
        points = one.points_m(times)[:, :21]
        velocity = np.diff(points, axis=0) * 300
        fastest.append(np.linalg.norm(velocity, axis=-1).max())
        accelerations.append(np.linalg.norm(np.diff(velocity, axis=0) * 300, axis=-1).max())
    assert max(accelerations) < 120 and max(fastest) < 8
    assert np.median(fastest) > 0.5


def test_motions_have_rests_and_fast_phases(sequences):
    times = np.arange(0, SECONDS, 1 / 30)
    speeds = [np.linalg.norm(np.diff(one.points_m(times)[:, 0], axis=0) * 30, axis=-1) for one in motions(sequences)]
    assert max(speed.max() for speed in speeds) > 0.8
    assert np.mean([(speed < 0.02).mean() for speed in speeds]) > 0.05


def test_bones_keep_their_length_through_a_motion(sequences):
    for one in motions(sequences)[:6]:
        points = one.points_m(np.arange(0, SECONDS, 0.1))[:, :21]
        for a, b in EDGES:
            lengths = np.linalg.norm(points[:, b] - points[:, a], axis=-1)
            assert np.ptp(lengths) < (0.01 if (a, b) in SOFT else 1e-5), (a, b)
        palm = np.linalg.norm(points[:, 9] - points[:, 0], axis=-1)
        np.testing.assert_allclose(palm, one.person.palm_m, rtol=0.04)  # the rest pose has palm_m


def test_points_of_a_motion_are_those_of_its_hand(sequences):
    for one in motions(sequences)[:4]:
        np.testing.assert_allclose(one.hand(1.37).keypoints_m(), one.points_m(np.array([1.37]))[0, :21], atol=1e-6)


def test_held_things_stay_in_the_hand(director):
    rng = np.random.default_rng(5)
    lens = lenses.random_lens("pinhole", rng, SIZE_WH, 70)
    person = director.scenes.person(rng)
    one = motion.random_motion(director.scenes, person, Side.LEFT, motion.Space(lens, 0.5), 2.0, rng, holds=True)
    places = []
    for time_s in (0.0, 0.7, 1.6):
        hand = one.hand(time_s)
        (held,) = one.solids(hand)
        places.append(hand.rotation.T @ (held.translation - hand.translation))
        assert np.linalg.norm(held.translation - hand.keypoints_m()[motion.PALM].mean(axis=0)) < 0.13
    np.testing.assert_allclose(places, [places[0]] * 3, atol=1e-6)


def test_sequences_differ_and_are_repeatable(director, sequences):
    times = np.arange(0, 1, 0.1)
    again = Director(seed=4, cameras=3, poses=60).sequence(3, SECONDS)
    np.testing.assert_array_equal(again.motions[0].points_m(times), sequences[3].motions[0].points_m(times))
    np.testing.assert_array_equal(again.rig[2].translation, sequences[3].rig[2].translation)
    shapes = [sequence.motions[0].person.shape for sequence in sequences]
    assert len(set(shapes)) == len(shapes)
    first = [sequence.motions[0].points_m(times) for sequence in sequences]
    assert min(np.abs(a - b).max() for a, b in pairwise(first)) > 0.05


def test_two_hands_come_close_in_the_picture_but_do_not_touch(sequences):
    pairs = [sequence for sequence in sequences if len(sequence.motions) == 2]
    assert 2 <= len(pairs) <= 6
    times = np.arange(0, SECONDS, 1 / 30)
    overlapping = []
    for sequence in pairs:
        first, second = (one.points_m(times) for one in sequence.motions)
        assert least_gap_m(first, second) > LEAST_GAP_M
        lens = sequence.rig[0].lens
        a, b = (lens.camera.project(p.reshape(-1, 3)).reshape(*p.shape[:2], 2) for p in (first, second))
        overlap = np.minimum(a.max(axis=1), b.max(axis=1)) > np.maximum(a.min(axis=1), b.min(axis=1))
        overlapping.append(overlap.all(axis=1).sum())
    assert max(overlapping) > 10, "frames in which one hand lies before the other, or nearly so"


@pytest.mark.parametrize("angle", [1e-9, 0.3, 2.0, np.pi - 1e-9, np.pi])
def test_rotation_vectors_and_rotations_agree(angle):
    rng = np.random.default_rng(0)
    for _ in range(10):
        vector = motion.unit(rng.normal(size=3)) * angle
        rotation = motion.rotations_by(vector[None])[0]
        np.testing.assert_allclose(motion.rotations_by(motion.rotation_vector(rotation)[None])[0], rotation, atol=1e-6)
        assert np.linalg.det(rotation) == pytest.approx(1)


# Lenses and rigs


def test_rigs_look_at_the_same_place_from_hand_widths_apart(director, sequences):
    for sequence in sequences:
        places = [-camera.rotation.T @ camera.translation for camera in sequence.rig]
        np.testing.assert_array_equal(places[0], np.zeros(3))
        for a, b in pairwise(places):
            assert 0.055 < np.linalg.norm(b - a) < 0.31
        times = np.arange(0, SECONDS, 0.2)
        for camera in sequence.rig:
            np.testing.assert_allclose(camera.rotation @ camera.rotation.T, np.eye(3), atol=1e-6)
            assert np.linalg.det(camera.rotation) == pytest.approx(1, abs=1e-6)
            points = camera.points(sequence.motions[0].points_m(times)[:, 9])
            assert camera.lens.inside(camera.lens.camera.project(points)).mean() > 0.2


def test_fisheye_pixels_show_what_projects_there(renderer):
    """Small bright balls all over the view: their pixels' centroids, and OpenCV's own projection of their places."""
    rng = np.random.default_rng(1)
    lens = lenses.random_lens("fisheye", rng, (320, 240), 150)
    c = lens.camera
    for off_deg, around_deg in ((0, 0), (20, 100), (44, 0), (46, 2), (60, 35), (72, 180), (55, 270), (80, 45.5)):
        off, around = np.radians([off_deg, around_deg])
        direction = np.array([np.sin(off) * np.cos(around), np.sin(off) * np.sin(around), np.cos(off)])
        ball = Solid("sphere", np.eye(3), 0.6 * direction, (0.012,) * 3, (1.0, 1.0, 1.0))
        _, distance = lenses.render(renderer, lens.scaled(4), [], LIGHTS, [ball])
        K = np.array([[c.fx, 0, c.cx - 0.5], [0, c.fy, c.cy - 0.5], [0, 0, 1]])  # OpenCV counts pixel centres
        place, _ = cv2.fisheye.projectPoints(
            0.6 * direction[None, None], np.zeros(3), np.zeros(3), K, np.array(c.distortion)
        )
        projected = c.project(0.6 * direction)
        np.testing.assert_allclose(projected, place.ravel() + 0.5, atol=1e-6)
        if not lens.inside(projected[None])[0]:
            assert not distance.any()
            continue
        rows, columns = np.nonzero(distance)
        centroid = (np.array([columns.mean(), rows.mean()]) + 0.5) / 4
        np.testing.assert_allclose(centroid, projected, atol=0.15)
        assert distance.max() < 0.6 and distance[distance > 0].min() == pytest.approx(0.588, abs=1e-3)


@pytest.mark.parametrize("place", [(0.0, 0.0, 0.4), (0.35, 0.1, 0.33), (-0.4, -0.25, 0.12)])
def test_fisheye_keypoints_lie_on_the_hand(renderer, place):
    from hand_tracking_ros.training.synthetic.dataset import label_of

    lens = lenses.random_lens("fisheye", np.random.default_rng(2), (320, 240), 150)
    hand = still_hand(place)
    light, distance = lenses.render(renderer, lens, [hand], LIGHTS)
    label = label_of(hand, lens, distance, 1.0)
    inside = lens.inside(label.keypoints_px)
    column, row = np.floor(label.keypoints_px[inside]).astype(int).T
    assert inside.sum() >= 15
    assert (distance[row, column] > 0).mean() > 0.95 and label.visible[inside].mean() > 0.3
    behind = lens.range_m(label.keypoints_m[inside]) - distance[row, column]
    assert np.median(behind) > 0 and behind[distance[row, column] > 0].min() > -0.003  # inside the flesh
    assert light[distance == 0].max() == 0


def test_fisheye_and_pinhole_see_the_same_scene(renderer):
    """Around the axis a fisheye without distortion is nearly a pinhole of the same focal length."""
    size = (160, 120)
    fisheye, pinhole = (
        Lens(Camera(600, 600, 80, 60, model, distortion), size)
        for model, distortion in (("fisheye", (0.0,) * 4), ("pinhole", ()))
    )
    (a, _), (b, _) = (lenses.render(renderer, lens, [still_hand()], LIGHTS) for lens in (fisheye, pinhole))
    assert np.abs(a - b).mean() < 0.01 and a.mean() > 0.05


# Exposure


@pytest.mark.parametrize("exposure", [film.Exposure(0.01), film.Exposure(0.01, 0.02), film.Exposure(0.001, 0.02)])
@pytest.mark.parametrize("steps", [1, 5, 7])
def test_rows_collect_all_their_light_around_their_own_time(exposure, steps):
    weights = exposure.weights(steps, 48)
    np.testing.assert_allclose(weights.sum(axis=0), 1, atol=1e-6)
    times = (np.arange(steps) + 0.5) / steps - 0.5
    means = exposure.span_s() * times @ weights
    expected = exposure.readout_s * ((np.arange(48) + 0.5) / 48 - 0.5)
    np.testing.assert_allclose(means, expected if steps > 1 else 0 * expected, atol=exposure.span_s() / (1.5 * steps))
    np.testing.assert_allclose(weights, weights[::-1, ::-1], atol=1e-6)


def moving_bar(speed_m_s: float):
    bar = Solid("box", np.eye(3), np.array([0.0, 0.0, 0.5]), (0.02, 0.4, 0.005), (0.8, 0.8, 0.8))
    return lambda time_s: ([], [replace(bar, translation=bar.translation + (speed_m_s * time_s, 0, 0))])


def bar_columns(image: np.ndarray) -> np.ndarray:
    """Centre of the bright bar in every row."""
    light = image.astype(float)
    return (light * (np.arange(image.shape[1]) + 0.5)).sum(axis=1) / light.sum(axis=1)


def test_rolling_shutter_leans_what_moves_and_keeps_the_middle_row(renderer):
    camera = RigCamera("cam0", Lens(Camera(200, 200, 80, 60), (160, 120)))
    ((image, _),) = shot_of(renderer, camera, moving_bar(2.0), film.Exposure(0.004, 0.02))
    columns = bar_columns(image)
    speed_px = 2.0 * 200 / 0.495  # of the bar's front
    assert columns[110] - columns[10] == pytest.approx(speed_px * 0.02 * 100 / 120, abs=1.5)
    assert columns[58:62].mean() == pytest.approx(80, abs=1.0)
    ((image, _),) = shot_of(renderer, camera, moving_bar(2.0), film.Exposure(0.004))
    assert np.ptp(bar_columns(image)[10:110]) < 0.5


def test_motion_blur_is_as_long_as_the_motion_and_centred(renderer):
    camera = RigCamera("cam0", Lens(Camera(200, 200, 80, 60), (160, 120)))
    (sharp, _), (later, _) = shot_of(renderer, camera, moving_bar(1.5), film.Exposure(0.0), times=(0.0, 0.02))
    ((blurred, _),) = shot_of(renderer, camera, moving_bar(1.5), film.Exposure(0.02))
    rows = slice(40, 80)
    assert bar_columns(blurred)[rows].mean() == pytest.approx(bar_columns(sharp)[rows].mean(), abs=0.4)
    moved = bar_columns(later)[rows].mean() - bar_columns(sharp)[rows].mean()

    def width(image):
        return (image[60] > 0.02 * image[60].max()).sum()

    assert width(blurred) - width(sharp) == pytest.approx(moved, abs=3)


def test_labels_are_those_of_the_frames_own_time(renderer):
    camera = RigCamera("cam0", Lens(Camera(300, 300, 160, 120), (320, 240)))

    def at(time_s):
        return [still_hand((0.8 * time_s, 0.0, 0.5))], []

    frames = shot_of(renderer, camera, at, film.Exposure(0.01, 0.01), times=(0.0, 0.1))
    for time_s, (image, (label,)) in zip((0.0, 0.1), frames, strict=True):
        hand = at(time_s)[0][0]
        np.testing.assert_allclose(label.keypoints_m, hand.keypoints_m(), atol=1e-6)
        np.testing.assert_allclose(label.keypoints_px, camera.lens.camera.project(hand.keypoints_m()), atol=1e-3)
        column, row = np.floor(label.keypoints_px).astype(int).T
        assert (image[row, column] > 0).all() and label.visible.all()


def test_rolled_pictures_keep_the_middle_row():
    image = np.zeros((100, 120), np.float32)
    image[:, 55:65] = 1.0
    rolled = photo.roll(image, (20.0, 0.0))
    columns = bar_columns(rolled)
    assert columns[99] - columns[0] == pytest.approx(20 * 0.99, abs=0.2)
    assert columns[49:51].mean() == pytest.approx(60, abs=0.1)
    assert photo.roll(image, (0.0, 0.0)) is image
    shot = photo.with_rolling_shutter(photo.Shot(motion_px=(6.0, 0.0)), np.random.default_rng(0), 160)
    assert 3 <= shot.rolling_px[0] <= 18 and shot.rolling_px[1] == 0


# Labels and files


def test_hidden_hands_and_those_out_of_the_picture_count_neither_way(renderer):
    camera = RigCamera("cam0", Lens(Camera(300, 300, 160, 120), (320, 240)))
    wall = Solid("box", np.eye(3), np.array([0.0, 0.0, 0.3]), (0.1, 0.1, 0.01), (0.5, 0.5, 0.5))
    scenes = {0.0: ([still_hand()], []), 1.0: ([still_hand()], [wall]), 2.0: ([still_hand((0.6, 0, 0.5))], []),
              3.0: ([still_hand((0.0, 0.0, -0.5))], []), 4.0: ([still_hand((0.23, 0, 0.5))], [])}  # fmt: skip
    frames = shot_of(renderer, camera, scenes.get, film.Exposure(), times=tuple(scenes))
    records = [film.labelled(k, labels, camera.lens, 10.0, "v.avi") for k, (_, labels) in enumerate(frames)]
    seen, hidden, outside, behind, cut = records
    assert len(seen.hands) == 1 and seen.hands[0].visible.all() and seen.ignore == ()
    assert hidden.hands == () and len(hidden.ignore) == 1
    assert outside.hands == () and outside.ignore == ()
    assert behind.hands == () and behind.ignore == ()
    (hand,) = cut.hands
    inside = (hand.keypoints_px[:, 0] < 320) & (hand.keypoints_px[:, 0] > 0)
    assert 8 <= inside.sum() < 21 and not hand.visible[~inside].any()
    assert cut.stamp_s == 0.4 and seen.hands[0].id == 1


def test_written_ground_truth_is_consistent_between_files_and_cameras(written):
    for name in ("0000", "0001"):
        folder = written / name
        rig = yaml.safe_load((folder / "cameras.yaml").read_text())["cameras"]
        assert [camera["name"] for camera in rig] == ["cam0", "cam1"]
        assert rig[0]["translation_m"] == [0, 0, 0] and rig[0]["rotation"] == np.eye(3).ravel().tolist()
        with np.load(folder / "truth.npz") as truth:
            assert truth["keypoints_m"].shape[1:] == (2, 21, 3) and truth["keypoints_px"].shape[0] == 2
            np.testing.assert_allclose(truth["times_s"], [0, 0.1])
            in_rig, pixels, sides = truth["keypoints_m"], truth["keypoints_px"], truth["side"]
        for number, entry in enumerate(rig):
            labels = read_labels(folder / entry["name"])
            assert [label.frame for label in labels] == [0, 1]
            assert [label.stamp_s for label in labels] == [0.0, 0.1]
            camera = Camera(*entry["K"], entry["model"], tuple(entry["D"]))
            rotation = np.array(entry["rotation"]).reshape(3, 3)
            for label in labels:
                assert label.camera == {key: entry[key] for key in ("model", "K", "D")}
                for hand in label.hands:
                    np.testing.assert_allclose(camera.project(hand.keypoints_m), hand.keypoints_px, atol=0.01)
                    expected = in_rig[hand.id - 1, label.frame] @ rotation.T + entry["translation_m"]
                    np.testing.assert_allclose(hand.keypoints_m, expected, atol=3e-6)
                    np.testing.assert_allclose(hand.keypoints_px, pixels[number, hand.id - 1, label.frame], atol=1e-3)
                    assert hand.side == sides[hand.id - 1]
                    low, high = hand.keypoints_px.min(axis=0), hand.keypoints_px.max(axis=0)
                    np.testing.assert_allclose(hand.box_px, (*low, *high), atol=1e-3)


def test_written_videos_are_what_the_package_reads(written):
    labels = read_labels(written)
    assert len(labels) == 2 * 2 * 2 and any(label.hands for label in labels)
    images = [image for _, image in labelled_images(written, labels)]
    assert len(images) == 8 and all(image.shape == (480, 640) and image.std() > 1 for image in images)
    pairs = [(a.video, a.frame) for a in labels]
    assert len(set(pairs)) == 8


def test_the_same_seed_writes_the_same_frames(written, renderer, tmp_path):
    assert main(["--kind", "sequence", "--start", "1", "--count", "1", "--seed", "11", "--cameras", "2", "--seconds",
                 "0.2", "--fps", "10", "--poses", "40", "--output", str(tmp_path)]) == 0  # fmt: skip
    for camera in ("cam0", "cam1"):
        first, again = (root / "0001" / camera for root in (written, tmp_path))
        assert (first / "labels.jsonl").read_text() == (again / "labels.jsonl").read_text()
        frames = [cv2.VideoCapture(str(folder / "video.avi")).read()[1] for folder in (first, again)]
        np.testing.assert_array_equal(*frames)


def test_fisheye_sequences_in_colour(renderer, tmp_path):
    assert main(["--kind", "sequence", "--count", "1", "--seed", "12", "--lens", "fisheye", "--rgb", "--seconds", "0.2",
                 "--fps", "10", "--poses", "40", "--output", str(tmp_path)]) == 0  # fmt: skip
    label = read_labels(tmp_path / "0000" / "cam0")[0]
    assert label.camera["model"] == "fisheye" and len(label.camera["D"]) == 4
    camera = Camera(*label.camera["K"], "fisheye", tuple(label.camera["D"]))
    for hand in label.hands:
        np.testing.assert_allclose(camera.project(hand.keypoints_m), hand.keypoints_px, atol=0.01)
    _, image = cv2.VideoCapture(str(tmp_path / "0000" / "cam0" / "video.avi")).read()
    assert np.ptp(image.reshape(-1, 3).astype(int), axis=1).max() > 3


def test_frames_through_a_fisheye_in_colour_with_rolling_shutter(renderer, tmp_path):
    output, sheet = tmp_path / "frames.npz", tmp_path / "sheet.png"
    assert main(["--kind", "frames", "--count", "4", "--seed", "3", "--poses", "20", "--lens", "fisheye", "--rgb",
                 "--rolling", "1.0", "--output", str(output), "--sheet", str(sheet)]) == 0  # fmt: skip
    with np.load(output) as pool:
        assert pool["images"].shape == (4, 240, 320, 3)
        keypoints, visible = pool["keypoints"], pool["visible"]
    assert np.isfinite(keypoints).all()
    outside = ((keypoints < 0) | (keypoints >= (320, 240))).any(axis=-1)
    assert not visible[outside].any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--kind", "crops", "--lens", "fisheye", "--output", "q.npz"], "parts of pinhole images"),
        (["--kind", "sequence", "--seconds", "0.01"], "fewer than two frames"),
        (["--kind", "sequence", "--seconds", "nan"], "seconds"),
    ],
)
def test_what_cannot_be_made_is_refused(arguments, message, tmp_path, capsys):
    assert main(["--count", "1", "--poses", "20", "--output", str(tmp_path / "out"), *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "message"), [
    ("--kind crops --output q.npz --count 0", "--count must be at least 1, got 0"),
    ("--kind crops --output q.npz --count -1", "--count must be at least 1, got -1"),
    ("--kind crops --output q.npz --poses 0", "--poses must be at least 1, got 0"),
    ("--kind crops --output q.npz --seed -1", "--seed must be at least 0, got -1"),
    ("--kind crops --output q.npz --faces 3", "--faces must be between 0 and 1, got 3"),
    ("--kind crops --output q.npz --seated 5", "--seated must be between 0 and 1, got 5"),
    ("--kind frames --output q.npz --rolling -2", "--rolling must be between 0 and 1, got -2"),
    ("--kind crops --output q.npz --holding nan", "--holding must be between 0 and 1, got nan"),
    ("--kind crops --output q.txt", "cannot write q.txt: the name must end in .npz"),
    ("--kind crops --output full.npz", "cannot write full.npz: it is a folder"),
    ("--kind crops --output q.npz --sheet s.txt", "cannot write s.txt: the name must end in .png"),
    ("--kind sequence --output full.npz/file.yaml", "file.yaml is a file; a sequence is written into a folder"),
    ("--kind demo --output full.npz/file.yaml", "file.yaml is a file; a demo is written into a folder"),
    ("--kind sequence --output full.npz", "full.npz is not empty; sequences are written into a folder of their own"),
])  # fmt: skip
def test_what_cannot_be_written_is_refused_before_it_is_made(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full.npz").mkdir()
    (tmp_path / "full.npz" / "file.yaml").touch()
    assert main(arguments.split()) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == ["full.npz", "file.yaml"]
