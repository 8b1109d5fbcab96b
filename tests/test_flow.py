"""Optical-flow propagation on textured images whose motion is known exactly."""

import itertools
import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from hand_tracking_ros import geometry
from hand_tracking_ros.config import FlowConfig
from hand_tracking_ros.errors import ImageError
from hand_tracking_ros.flow import FlowPropagator, moved_onto
from hand_tracking_ros.geometry import Box, box_around

WIDTH, HEIGHT = 640, 480
FULL = FlowConfig(max_width_px=640, window_px=21, levels=4)  # its own settings: tests do not follow the defaults
HALF = FlowConfig(max_width_px=320, window_px=15, levels=3)
DATA = Path(os.environ.get("HAND_TRACKING_DATA", Path(__file__).resolve().parents[1] / ".." / "shared" / "data"))
CLIP = DATA / "videos" / "hand_640x360.mp4"


def textured(width=WIDTH, height=HEIGHT, seed=0):
    """Noise with structure at several sizes, as skin and rooms have it."""
    rng = np.random.default_rng(seed)
    image = np.zeros((height, width), np.float32)
    for sigma in (1.5, 4, 12, 40):
        layer = cv2.GaussianBlur(rng.normal(size=(height, width)).astype(np.float32), (0, 0), sigma)
        image += layer / layer.std() * sigma**0.3
    return np.clip(128 + 30 * image, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def scene():
    return textured()


def hand_points(center=(250, 220), palm=60.0):
    """An open upright hand: wrist below, five fingers of four joints fanned out."""
    points = [(0.0, 0.9)]
    for angle in np.radians([-60, -25, -5, 15, 38]):
        direction = np.array([np.sin(angle), -np.cos(angle)])
        points += [tuple(np.array([0.0, 0.6]) + direction * reach) for reach in (0.7, 1.1, 1.4, 1.7)]
    return np.array(points) * palm + center


def similarity(shift=(0.0, 0.0), scale=1.0, turn_deg=0.0, about=(250, 220)):
    """2x3 matrix now_from_before: scale and turn about a point, then shift."""
    linear = scale * geometry.rotation(np.radians(turn_deg))
    return np.column_stack([linear, np.array(about) + shift - linear @ np.array(about)])


def moved(image, now_from_before):
    return geometry.warp(image, now_from_before, image.shape[::-1], border_value=None)


def propagate(before, now, points, config=FULL):
    flow = FlowPropagator(config)
    return flow.propagate(flow.prepare(before), flow.prepare(now), points, box_around(points))


def assert_follows(motion, now_from_before, points, tolerance_px, keypoint_tolerance_px=None):
    """The box to ``tolerance_px``; single keypoints, each with its own flow, to their own (default: the same)."""
    box = box_around(points)
    linear = now_from_before[:, :2]
    scale = np.sqrt(np.linalg.det(linear))
    assert motion.enough
    center = geometry.apply(now_from_before, np.array(box.center_px))
    np.testing.assert_allclose(motion.box.center_px, center, atol=tolerance_px)
    np.testing.assert_allclose(motion.box.size_px, np.array(box.size_px) * scale, atol=tolerance_px)
    turn = motion.box.angle_rad - box.angle_rad - np.arctan2(linear[1, 0], linear[0, 0])
    assert abs(geometry.wrap_angle(turn)) * max(box.size_px) / 2 < tolerance_px
    errors = np.linalg.norm(motion.keypoints_px - geometry.apply(now_from_before, points), axis=1)
    assert errors.max() < (keypoint_tolerance_px or tolerance_px)


@pytest.mark.parametrize("config", [FULL, HALF], ids=["full", "half"])
@pytest.mark.parametrize("direction_deg", [0, 130, 250])
@pytest.mark.parametrize("step_px", [0, 0.25, 1, 3.7, 10, 25, 40, 60])
def test_translation_up_to_60_px_per_frame(scene, step_px, direction_deg, config):
    angle = np.radians(direction_deg)
    motion_matrix = similarity(shift=step_px * np.array([np.cos(angle), np.sin(angle)]))
    motion = propagate(scene, moved(scene, motion_matrix), hand_points(), config)
    assert motion.points >= 22
    assert_follows(motion, motion_matrix, hand_points(), tolerance_px=0.1, keypoint_tolerance_px=0.3)


@pytest.mark.parametrize(("scale", "turn_deg"), [(1.0, 3), (1.0, -15), (1.05, 0), (0.92, 0), (1.15, 10), (0.9, -12)])
def test_rotation_and_scale(scene, scale, turn_deg):
    motion_matrix = similarity((12.0, -7.5), scale, turn_deg)
    motion = propagate(scene, moved(scene, motion_matrix), hand_points())
    assert_follows(motion, motion_matrix, hand_points(), tolerance_px=0.5, keypoint_tolerance_px=2.0)


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (1001, 751), (2560, 1440)], ids=str)
def test_wider_images_are_halved_and_results_stay_in_full_pixels(width, height):
    image = cv2.resize(textured(), (width, height), interpolation=cv2.INTER_CUBIC)
    factor = width / WIDTH
    points = hand_points(center=(0.4 * width, 0.5 * height), palm=60 * factor)
    motion_matrix = similarity((20.3 * factor, -11.1 * factor), 1.04, 4, about=points.mean(axis=0))
    prepared = FlowPropagator(FULL).prepare(image)
    assert prepared.mono.shape[1] <= 640 < 2 * prepared.mono.shape[1] + 1
    motion = propagate(image, moved(image, motion_matrix), points)
    assert_follows(motion, motion_matrix, points, tolerance_px=0.3 * factor, keypoint_tolerance_px=0.8 * factor)


@pytest.mark.parametrize("config", [FULL, HALF], ids=["full", "half"])
def test_a_hand_that_moves_on_a_resting_textured_background(config):
    """The usual case: only the hand moves, and its outline mixes hand and background in one flow window."""
    points = hand_points()
    outline = cv2.convexHull(points.astype(np.float32)).astype(int)
    mask = cv2.dilate(cv2.fillConvexPoly(np.zeros((HEIGHT, WIDTH), np.uint8), outline, 255), np.ones((15, 15)))
    background, skin = textured(seed=7), textured(seed=8)
    motion_matrix = similarity((18.0, 9.0), 1.03, 5, about=points.mean(axis=0))

    def compose(matrix):
        return np.where(moved(mask, matrix) > 127, moved(skin, matrix), background)

    motion = propagate(compose(similarity()), compose(motion_matrix), points, config)
    assert_follows(motion, motion_matrix, points, tolerance_px=1.5)


def test_motion_of_the_majority_wins_over_outliers(scene):
    """A third of the hand is covered by something that stands still: the box follows the rest."""
    motion_matrix = similarity((15.0, 0.0))
    points = hand_points()
    now = moved(scene, motion_matrix)
    covered = slice(int(points[:, 1].min()) - 40, int(np.percentile(points[:, 1], 30)))
    now[covered] = scene[covered]
    motion = propagate(scene, now, points)
    np.testing.assert_allclose(np.subtract(motion.box.center_px, box_around(points).center_px), [15, 0], atol=1.0)
    np.testing.assert_allclose(motion.box.size_px, box_around(points).size_px, rtol=0.02)


def test_keypoints_follow_a_finger_that_bends(scene):
    """Within reach of the hand's motion a joint keeps its own flow, so the predicted points deform with the hand."""
    points = hand_points()
    tip = slice(7, 9)  # index dip and tip
    x0, y0 = (points[tip].min(axis=0) - 25).astype(int)
    x1, y1 = (points[tip].max(axis=0) + 25).astype(int)
    now = scene.copy()
    now[y0:y1, x0 + 6 : x1 + 6] = scene[y0:y1, x0:x1]
    motion = propagate(scene, now, points)
    np.testing.assert_allclose(motion.box.center_px, box_around(points).center_px, atol=1.5)
    np.testing.assert_allclose(motion.keypoints_px[tip], points[tip] + [6, 0], atol=0.6)
    np.testing.assert_allclose(motion.keypoints_px[17:], points[17:], atol=0.3)


def test_flat_region_is_not_enough_and_moves_nothing(scene):
    points = hand_points()
    hidden = scene.copy()
    x0, y0, x1, y1 = (int(v) for v in box_around(points).scaled(2.0).bounds())
    hidden[max(y0, 0) : y1, max(x0, 0) : x1] = 128
    for before, now in ((scene, hidden), (hidden, hidden)):
        motion = propagate(before, now, points)
        assert not motion.enough and motion.points < FULL.min_points and not motion.followed.any()
        assert motion.box == box_around(points)
        np.testing.assert_array_equal(motion.keypoints_px, points)


def test_a_scene_cut_is_not_enough(scene):
    motion = propagate(scene, textured(seed=99), hand_points())
    assert not motion.enough, f"{motion.points} points survived"


def test_points_that_leave_the_image_are_dropped_but_extrapolated(scene):
    points = hand_points(center=(WIDTH - 70, 220))
    motion_matrix = similarity((40.0, 0.0))
    motion = propagate(scene, moved(scene, motion_matrix), points)
    assert motion.enough and motion.points < 23
    np.testing.assert_allclose(motion.keypoints_px, np.add(points, [40, 0]), atol=1.0)
    assert motion.keypoints_px[:, 0].max() > WIDTH
    np.testing.assert_array_equal(motion.followed, points[:, 0] + 40 < WIDTH)


def test_hand_outside_the_image_is_not_enough(scene):
    motion = propagate(scene, scene, hand_points(center=(WIDTH + 300, 220)))
    assert not motion.enough and motion.points == 0


def test_missing_keypoints_are_not_tracked_but_predicted(scene):
    points = hand_points()
    box = box_around(points)
    points[[3, 8, 12]] = np.nan
    flow = FlowPropagator(FULL)
    now = moved(scene, similarity((9.0, 4.0)))
    motion = flow.propagate(flow.prepare(scene), flow.prepare(now), points, box)
    assert motion.enough and motion.points == 23 - 3  # no midpoint depends on these three
    assert np.flatnonzero(~motion.followed).tolist() == [3, 8, 12]
    np.testing.assert_allclose(np.subtract(motion.box.center_px, box.center_px), [9, 4], atol=0.1)


def test_min_points_decides_what_is_enough(scene):
    points = hand_points()
    points[8:] = np.nan
    flow_box = Box((250.0, 220.0), (120.0, 120.0))
    for min_points, enough in ((23, False), (4, True)):
        flow = FlowPropagator(replace(FULL, min_points=min_points))
        image = flow.prepare(scene)
        assert flow.propagate(image, image, points, flow_box).enough is enough


def test_few_points_move_the_box_without_turning_it(scene):
    points = np.full((21, 2), np.nan)
    points[[0, 1, 5]] = hand_points()[[0, 1, 5]]  # and the middle of 0 and 5
    box = box_around(hand_points())
    flow = FlowPropagator(replace(FULL, min_points=3))
    now = moved(scene, similarity((10.0, 0.0), turn_deg=4))
    motion = flow.propagate(flow.prepare(scene), flow.prepare(now), points, box)
    assert motion.points == 4 and motion.enough
    assert motion.box.size_px == box.size_px and motion.box.angle_rad == box.angle_rad


@pytest.mark.parametrize(("scale", "turn_deg"), [(1.0, 170), (2.5, 0), (0.3, 0)])
def test_one_frame_never_scales_or_turns_a_box_beyond_the_limits(scene, scale, turn_deg):
    points = hand_points()
    motion = propagate(scene, moved(scene, similarity(scale=scale, turn_deg=turn_deg)), points)
    box = box_around(points)
    assert 0.7 <= motion.box.size_px[0] / box.size_px[0] <= 1.4
    assert abs(geometry.wrap_angle(motion.box.angle_rad - box.angle_rad)) <= np.pi / 4 + 1e-9


def test_many_hands_in_one_call_equal_each_alone(scene):
    flow = FlowPropagator(FULL)
    before, now = flow.prepare(scene), flow.prepare(moved(scene, similarity((11.0, 6.0), 1.02, 3)))
    hands = [hand_points(), hand_points((450, 300), 40), hand_points((120, 120), 45)]
    hands = [(points, box_around(points)) for points in hands]
    together = flow.propagate_many(before, now, hands)
    for motion, (points, box) in zip(together, hands, strict=True):
        alone = flow.propagate(before, now, points, box)
        assert motion.box == alone.box and motion.points == alone.points
        np.testing.assert_array_equal(motion.keypoints_px, alone.keypoints_px)
    assert flow.propagate_many(before, now, []) == []


@pytest.mark.parametrize(
    ("first", "second"),
    [((640, 480), (320, 240)), ((1280, 720), (640, 360))],
    ids=["other size", "same after halving"],
)
def test_images_of_different_size_are_refused(first, second):
    flow = FlowPropagator(FULL)
    images = [flow.prepare(np.zeros(size[::-1], np.uint8)) for size in (first, second)]
    with pytest.raises(ImageError, match=f"{first[0]}x{first[1]} and then {second[0]}x{second[1]}.*reset"):
        flow.propagate(*images, hand_points(), box_around(hand_points()))


@pytest.mark.parametrize(
    "image", [np.zeros((480, 640, 3), np.uint8), np.zeros((480, 640), np.float32), np.zeros((0, 640), np.uint8)]
)
def test_only_mono_uint8_is_accepted(image):
    with pytest.raises(ImageError, match="mono"):
        FlowPropagator(FULL).prepare(image)


def test_keypoints_of_wrong_shape_are_refused(scene):
    flow = FlowPropagator(FULL)
    image = flow.prepare(scene)
    with pytest.raises(ValueError, match=r"\(21, 2\).*\(20, 2\)"):
        flow.propagate(image, image, np.zeros((20, 2)), Box((10.0, 10.0), (5.0, 5.0)))


@pytest.mark.skipif(not CLIP.is_file(), reason=f"needs the shared video {CLIP.name} (HAND_TRACKING_DATA)")
def test_there_and_back_through_a_real_video():
    """On real frames, forward over a stretch and back again returns the box to its start."""
    video = cv2.VideoCapture(str(CLIP))
    monos = [cv2.cvtColor(video.read()[1], cv2.COLOR_BGR2GRAY) for _ in range(12)]
    flow = FlowPropagator(FULL)
    images = [flow.prepare(mono) for mono in monos]
    corners = cv2.goodFeaturesToTrack(monos[0], 100, 0.05, 8).reshape(-1, 2) + 0.5
    center = np.median(corners, axis=0)
    points = corners[np.argsort(np.linalg.norm(corners - center, axis=1))[:21]].astype(float)
    box = start = box_around(points, 0.0)
    path = images + images[-2::-1]
    for before, now in itertools.pairwise(path):
        motion = flow.propagate(before, now, points, box)
        assert motion.enough
        points, box = motion.keypoints_px, motion.box
    np.testing.assert_allclose(box.center_px, start.center_px, atol=1.5)
    np.testing.assert_allclose(box.size_px, start.size_px, rtol=0.03)


def test_another_opinion_is_moved_onto_what_flow_found():
    rng = np.random.default_rng(3)
    flow = rng.uniform(100, 200, (21, 2))
    turn = 1.3 * np.array([[np.cos(0.5), -np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]])
    other = flow @ turn.T + [40.0, -30.0]
    other[6] = np.nan
    followed = np.ones(21, bool)
    followed[[2, 9]] = False
    wrong = flow.copy()
    wrong[[2, 9]] += 50.0  # where flow lost joints it has nothing to say
    moved = moved_onto(other, wrong, followed)
    np.testing.assert_allclose(np.delete(moved, 6, axis=0), np.delete(flow, 6, axis=0), atol=1e-9)
    assert np.isnan(moved[6]).all()
    few = np.arange(21) < 3  # too few to tell a turn: all count
    np.testing.assert_allclose(
        np.delete(moved_onto(other, flow, few), 6, axis=0), np.delete(flow, 6, axis=0), atol=1e-9
    )
    assert np.isnan(moved_onto(np.full((21, 2), np.nan), flow, followed)).all()


@pytest.mark.parametrize("gain", [0.7, 0.9, 1.1, 1.3])
def test_lamps_that_flicker_do_not_stop_the_flow(scene, gain):
    """LED lamps and exposure control change the brightness of a whole image from one frame to the next."""
    points, shift = hand_points(), similarity(shift=(5.0, -3.0))
    dim = np.clip(0.75 * scene, 0, 255)  # so that nothing is saturated in the brighter image
    now = np.clip(gain * moved(dim.astype(np.uint8), shift), 0, 255).astype(np.uint8)
    motion = propagate(dim.astype(np.uint8), now, points)
    assert motion.enough and motion.followed.sum() >= 18
    assert np.linalg.norm(motion.keypoints_px - points - (5, -3), axis=1).max() < 0.5


def test_what_comes_into_view_is_not_taken_for_other_light(scene):
    """A dark sleeve over a third of the image changes its mean, not the light."""
    points, shift = hand_points(), similarity(shift=(2.0, 1.0))
    now = moved(scene, shift)
    now[:, 430:] //= 3
    motion = propagate(scene, now, points)
    assert motion.enough
    assert np.linalg.norm(motion.keypoints_px - points - (2, 1), axis=1).max() < 0.5
