"""Crops behind lenses that distort: what the virtual pinhole camera sees, the way back, and 3D points behind them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from hand_tracking_ros.cameras import Camera
from hand_tracking_ros.config import KeypointConfig
from hand_tracking_ros.geometry import Box, box_around, crop_from_image, warp
from hand_tracking_ros.keypoints import KeypointEstimator
from hand_tracking_ros.lifting import depth_along_z, facing, lift, palm_length_px, palm_length_seen
from hand_tracking_ros.types import HandBox, HandKeypoints, Scale, Source
from hand_tracking_ros.views import CutOut, VirtualCamera, look_at

SIZE = 96
PINHOLE = Camera(500, 500, 320, 240)
LENSES = {
    "plumb_bob": Camera(430, 437, 305, 244, "plumb_bob", (-0.3, 0.08, 0.001, 0.0005)),
    "rational": Camera(
        400, 405, 320, 240, "rational_polynomial", (0.4, -0.1, 1e-3, -5e-4, 0.02, 0.7, 0.05, 0.01)
    ),
    "fisheye": Camera(200, 201, 321, 239, "fisheye", (0.02, -0.01, 0.003, -0.0005)),
}  # fmt: skip
# A flat right hand in palm lengths, y towards the wrist: the proportions of lifting.PALM_RATIOS hold.
FLAT = np.array([(0, 0), (-0.25, -0.2), (-0.5, -0.45), (-0.65, -0.7), (-0.75, -0.95), (-0.3, -0.998), (-0.33, -1.4),
                 (-0.34, -1.65), (-0.35, -1.85), (0, -1), (0, -1.45), (0, -1.7), (0, -1.95), (0.2, -0.94),
                 (0.23, -1.35), (0.25, -1.6), (0.26, -1.8), (0.35, -0.86), (0.42, -1.15),
                 (0.46, -1.35), (0.5, -1.5)])  # fmt: skip
PALM_M = 0.09


def direction(off_axis_deg: float, around_deg: float) -> np.ndarray:
    off, around = np.radians([off_axis_deg, around_deg])
    return np.array([np.sin(off) * np.cos(around), np.sin(off) * np.sin(around), np.cos(off)])


def hand_points(towards: np.ndarray, distance_m: float, tilt_deg: float = 0.0, roll_deg: float = 0.0) -> np.ndarray:
    """(21, 3) m: the flat hand at ``distance_m`` in the direction ``towards``, facing the camera, tilted, rolled."""
    tilt, roll = np.radians([tilt_deg, roll_deg])
    points = np.column_stack([FLAT, np.zeros(21)]) - [0, -1, 0]
    points = points @ np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]]).T
    points = points @ np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]]).T
    axes = facing(towards, np.array([0.0, 1.0, 0.0]))
    return (points * PALM_M + [0, 0, distance_m]) @ axes


def dots(camera: Camera, points_px: np.ndarray, size_wh=(640, 480)) -> np.ndarray:
    """A grey image with a smooth bright dot around every point, of constant size in the image."""
    x, y = np.meshgrid(np.arange(size_wh[0]) + 0.5, np.arange(size_wh[1]) + 0.5)
    image = np.zeros(x.shape)
    for px in points_px:
        image = np.maximum(image, np.exp(-((x - px[0]) ** 2 + (y - px[1]) ** 2) / (2 * 1.5**2)))
    return (255 * image).astype(np.uint8)


def centroids(crop: np.ndarray, near_px: np.ndarray, reach: int = 3) -> np.ndarray:
    """Weighted means of the brightness around each point: where the dots really are."""
    found = []
    for point in near_px:
        column, row = np.floor(point).astype(int)
        window = crop[row - reach : row + reach + 1, column - reach : column + reach + 1].astype(float)
        xs, ys = np.arange(column - reach, column + reach + 1) + 0.5, np.arange(row - reach, row + reach + 1) + 0.5
        found.append(((window.sum(0) * xs).sum() / window.sum(), (window.sum(1) * ys).sum() / window.sum()))
    return np.array(found)


@pytest.mark.parametrize("camera", [None, PINHOLE], ids=["no camera", "pinhole"])
def test_without_distortion_the_box_is_cut_out(camera):
    box = Box((300.0, 200.0), (150.0, 150.0), 0.4)
    view = look_at(box, SIZE, camera)
    assert isinstance(view, CutOut)
    image = np.random.default_rng(0).integers(0, 255, (480, 640), dtype=np.uint8)
    expected = warp(image, crop_from_image(box, (SIZE, SIZE)), (SIZE, SIZE), border_value=None)
    np.testing.assert_array_equal(view.crop(image), expected)


@pytest.mark.parametrize("off_axis_deg", [0, 40, 70])
def test_behind_a_fisheye_the_crop_shows_what_a_pinhole_camera_would_see(off_axis_deg):
    camera = LENSES["fisheye"]
    grid = np.stack(np.meshgrid(np.linspace(-0.32, 0.32, 7), (-0.3, 0.0, 0.3)), axis=-1).reshape(-1, 2)
    axes = facing(direction(off_axis_deg, 160), np.array([0.0, 1.0, 0.0]))
    points = np.column_stack([grid, np.ones(21)]) @ axes  # a flat pattern that faces the camera
    pixels = camera.project(points)
    image = dots(camera, pixels)
    view = look_at(box_around(pixels, 0.0).scaled(1.4), SIZE, camera)
    assert isinstance(view, VirtualCamera)
    seen = points @ view.turn.T
    where_a_pinhole_has_them = view.focal_px * seen[:, :2] / seen[:, 2:] + SIZE / 2
    assert (np.abs(where_a_pinhole_has_them - SIZE / 2) < SIZE / 2).all()
    np.testing.assert_allclose(view.to_crop(pixels), where_a_pinhole_has_them, atol=1e-6)
    found = centroids(view.crop(image), where_a_pinhole_has_them)
    np.testing.assert_allclose(found, where_a_pinhole_has_them, atol=0.15)
    assert np.linalg.norm(found - where_a_pinhole_has_them, axis=1).mean() < 0.06
    back, _ = view.to_image(where_a_pinhole_has_them, np.zeros(21))
    np.testing.assert_allclose(back, pixels, atol=1e-6)


def test_the_lines_of_a_board_are_straight_in_the_crop_and_bent_in_the_image():
    camera = LENSES["fisheye"]
    line = np.column_stack([np.linspace(-0.5, 0.5, 11), np.full(11, 0.4), np.ones(11)])
    pixels = camera.project(line @ facing(direction(50, 30), np.array([0.0, 1.0, 0.0])))
    crop = look_at(box_around(pixels, 0.0), SIZE, camera).to_crop(pixels)

    def sag(points):
        chord = (points[-1] - points[0]) / np.linalg.norm(points[-1] - points[0])
        return np.abs((points - points[0]) @ [-chord[1], chord[0]]).max() / np.linalg.norm(points[-1] - points[0])

    assert sag(pixels) > 0.02 and sag(crop) < 1e-9


@pytest.mark.parametrize("camera", LENSES.values(), ids=LENSES.keys())
@pytest.mark.parametrize("angle_rad", [0.0, 1.2, -2.5])
def test_the_crop_is_upright_centred_and_full(camera, angle_rad):
    box = Box((480.0, 150.0), (110.0, 110.0), angle_rad)
    view = look_at(box, SIZE, camera)
    centre, top = np.array(box.center_px), box.corners()[:2].mean(axis=0)
    third = (top - centre) / 3
    middle, up, down = view.to_crop(np.array([centre, centre + third, centre - third]))
    np.testing.assert_allclose(middle, SIZE / 2, atol=1e-9)
    assert np.hypot(*(down - up)) == pytest.approx(SIZE / 3)
    np.testing.assert_allclose(down - up, (0, SIZE / 3), atol=0.5)
    corners = view.to_crop(box.corners())
    assert 0.75 * SIZE**2 < cv2.contourArea(corners.astype(np.float32)) < 1.3 * SIZE**2


@pytest.mark.parametrize("camera", LENSES.values(), ids=LENSES.keys())
def test_the_interpolated_map_is_exact(camera):
    view = look_at(Box((540.0, 120.0), (240.0, 240.0), 0.5), SIZE, camera)
    pixels = np.stack(np.meshgrid(np.arange(SIZE) + 0.5, np.arange(SIZE) + 0.5), axis=-1)
    exact = np.array([view.to_image(row, np.zeros(SIZE))[0] for row in pixels])
    np.testing.assert_allclose(view.maps(), exact, atol=0.01)


@pytest.mark.parametrize("camera", [PINHOLE, *LENSES.values()])
def test_a_mirrored_view_is_the_same_one_in_a_mirror(camera):
    box, points = Box((250, 200), (120, 120), 0.4), np.array([(250.0, 200.0), (230.0, 160.0), (281.0, 214.0)])
    image = cv2.GaussianBlur(np.random.default_rng(1).integers(0, 256, (480, 640), dtype=np.uint8), (0, 0), 3)
    plain, mirror = look_at(box, SIZE, camera), look_at(box, SIZE, camera, mirror=True)
    assert type(plain) is type(mirror)
    np.testing.assert_allclose(mirror.to_crop(points), plain.to_crop(points) * [-1, 1] + [SIZE, 0], atol=1e-6)
    assert np.abs(mirror.crop(image)[:, ::-1].astype(int) - plain.crop(image)).max() <= 2
    hand = np.column_stack([np.linspace(20, 80, 21), np.linspace(70, 15, 21)])
    depth = np.linspace(-0.3, 0.3, 21)
    for seen, other in zip(mirror.to_image(hand * [-1, 1] + [SIZE, 0], depth), plain.to_image(hand, depth)):
        np.testing.assert_allclose(seen, other, atol=1e-6)


def test_a_large_box_is_averaged_not_sampled():
    """Stripes one pixel wide, in a crop that shrinks by more than two, become grey."""
    image = np.zeros((960, 1280), np.uint8)
    image[:, ::2] = 200
    camera = Camera(700, 700, 640, 480, "plumb_bob", (-0.05, 0.01, 0, 0))
    crop = look_at(Box((640.0, 480.0), (480.0, 480.0)), SIZE, camera).crop(image)
    assert crop.shape == (SIZE, SIZE) and np.abs(crop[5:-5, 5:-5].astype(int) - 100).max() < 25


@pytest.mark.parametrize("box", [
    pytest.param(Box((5.0, 240.0), (300.0, 300.0), 0.3), id="reaches out of the image"),
    pytest.param(Box((-150.0, 600.0), (200.0, 200.0)), id="outside the image"),
    pytest.param(Box((320.0, 240.0), (3000.0, 3000.0)), id="larger than the image"),
    pytest.param(Box((320.0, 240.0), (1.0, 1.0)), id="tiny"),
    pytest.param(Box((1e6, -1e6), (100.0, 100.0)), id="far away"),
])  # fmt: skip
@pytest.mark.parametrize("camera", LENSES.values(), ids=LENSES.keys())
def test_any_box_gives_a_crop_and_finite_keypoints(camera, box):
    view = look_at(box, SIZE, camera)
    assert view.crop(np.full((480, 640), 77, np.uint8)).mean() == pytest.approx(77)
    pixels, depth = view.to_image(np.random.default_rng(0).uniform(-20, SIZE + 20, (21, 2)), np.linspace(-1, 1, 21))
    assert np.isfinite(pixels).all() and np.isfinite(depth).all()


def test_keynet_f_behind_a_fisheye_is_told_and_answers_in_image_pixels(tmp_path):
    """The network here answers what it is told: the way through the virtual camera and back must be exact."""
    pytest.importorskip("onnx", reason="the test network is made with onnx: pip install onnx")
    from tiny_models import keynet_f_manifest

    model = str(keynet_f_manifest(tmp_path).path)
    estimator = KeypointEstimator(KeypointConfig(model=model, sure_score=0.01))
    expected = LENSES["fisheye"].project(hand_points(direction(55, 200), 0.4))
    told = HandBox(box_around(expected), 0.9, id=1, source=Source.PROPAGATED, expected_px=expected)
    image = np.random.default_rng(1).integers(0, 255, (480, 640), dtype=np.uint8)
    (answer,) = estimator.estimate(image, [told], LENSES["fisheye"])
    np.testing.assert_allclose(answer.keypoints_px, expected, atol=1e-3)
    assert answer.keypoint_scores.min() == 1.0


def seen_by_a_perfect_network(camera: Camera, points_m: np.ndarray) -> HandKeypoints:
    """What KeyNet would say if it made no error: depth along the axis of its crop."""
    pixels = camera.project(points_m)
    view = look_at(box_around(pixels).scaled(1.5), SIZE, camera)
    if isinstance(view, VirtualCamera):
        depth = (points_m - points_m[9]) @ view.turn[2] / PALM_M
    else:
        depth = (points_m[:, 2] - points_m[9, 2]) / PALM_M
    pixels, depth = view.to_image(view.to_crop(pixels), depth)
    return HandKeypoints(1, box_around(pixels), Source.PROPAGATED, pixels, np.ones(21), depth, 0.95, 0.9)


PLACES = pytest.mark.parametrize("place", [
    ("plumb_bob", 0, 0), ("plumb_bob", 25, 160), ("rational", 30, -60),
    ("fisheye", 0, 0), ("fisheye", 45, 30), ("fisheye", 70, 190), ("fisheye", 88, 75), ("fisheye", 95, 0),
], ids=lambda place: f"{place[0]} {place[1]} deg")  # fmt: skip


@PLACES
@pytest.mark.parametrize("tilt_deg", [0, 35])
def test_depth_is_turned_to_the_ray_of_joint_9_and_to_z(place, tilt_deg):
    name, off_axis_deg, around_deg = place
    points = hand_points(direction(off_axis_deg, around_deg), 0.45, tilt_deg, roll_deg=20)
    hand = seen_by_a_perfect_network(LENSES[name], points)
    ray = points[9] / np.linalg.norm(points[9])
    np.testing.assert_allclose(hand.depth_rel, (points - points[9]) @ ray / PALM_M, atol=0.03)
    along_z = depth_along_z(hand.keypoints_px, hand.depth_rel, LENSES[name])
    np.testing.assert_allclose(along_z, (points[:, 2] - points[9, 2]) / PALM_M, atol=0.08)


def channels(hand: HandKeypoints, camera: Camera) -> np.ndarray:
    """As HandFilter keeps them: x, y and depth of each joint in px, then the palm length."""
    palm_px = palm_length_seen(hand.keypoints_px, hand.depth_rel, camera)
    return np.vstack([np.column_stack([hand.keypoints_px, hand.depth_rel * palm_px]), [palm_px, 0, 0]])


@PLACES
@pytest.mark.parametrize("tilt_deg", [0, 35])
def test_points_behind_a_lens_are_those_that_a_pinhole_camera_would_give(place, tilt_deg):
    """Wherever the lens sees the hand: as if a pinhole camera looked straight at it, and the result were turned."""
    name, off_axis_deg, around_deg = place
    camera, towards = LENSES[name], direction(off_axis_deg, around_deg)
    before, after = (hand_points(towards, distance, tilt_deg, roll_deg=20) for distance in (0.45, 0.46))  # at 0.3 m/s
    first, last = (channels(seen_by_a_perfect_network(camera, points), camera) for points in (before, after))
    scale, points, velocities = lift(last, (last - first) * 30, camera, PALM_M)
    assert scale == Scale.ASSUMED
    np.testing.assert_allclose(camera.project(points), last[:-1, :2], atol=1e-6)
    turn = facing(after[9], np.array([0.0, 1.0, 0.0]))
    straight = channels(seen_by_a_perfect_network(PINHOLE, after @ turn.T), PINHOLE)
    _, expected, _ = lift(straight, np.zeros((22, 3)), PINHOLE, PALM_M)
    np.testing.assert_allclose(points, expected @ turn, atol=0.004)
    np.testing.assert_allclose(points, after, atol=0.01 if tilt_deg == 0 else 0.05)  # weak perspective
    np.testing.assert_allclose(velocities[9], 0.3 * towards, atol=0.04)


def test_a_pinhole_lifts_as_ever():
    """x and y over the focal length times the depth that the palm's length gives: nothing else, to the last digit."""
    camera = Camera(600, 610, 320, 240)
    hand = seen_by_a_perfect_network(camera, hand_points(direction(20, 30), 0.5, 25))
    palm_px = palm_length_px(hand.keypoints_px, hand.depth_rel)
    assert palm_length_seen(hand.keypoints_px, hand.depth_rel, camera) == palm_px
    np.testing.assert_array_equal(depth_along_z(hand.keypoints_px, hand.depth_rel, camera), hand.depth_rel)
    z = (np.sqrt(600 * 610) / palm_px + hand.depth_rel) * PALM_M
    flat = (hand.keypoints_px - (320, 240)) / (600, 610)
    _, points, _ = lift(channels(hand, camera), np.zeros((22, 3)), camera, PALM_M)
    np.testing.assert_allclose(points, np.column_stack([flat * z[:, None], z]), rtol=1e-9)


def test_pixels_without_a_ray_have_no_3d_point():
    camera = Camera(400, 400, 320, 240, "plumb_bob", (-0.4, 0, 0, 0))  # ends 243 px from the middle
    hand = seen_by_a_perfect_network(camera, hand_points(direction(15, 0), 0.5))
    moved = channels(hand, camera)
    moved[8, :2] = 620, 240
    _, points, velocities = lift(moved, np.zeros((22, 3)), camera, PALM_M)
    assert np.isnan(points[8]).all() and np.isfinite(np.delete(points, 8, axis=0)).all()
    assert np.isnan(velocities[8]).all()
