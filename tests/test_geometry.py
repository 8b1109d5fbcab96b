"""Geometry: pixel conventions, boxes, and crops that are exact to a fraction of a pixel."""

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hand_tracking_ros import geometry
from hand_tracking_ros.geometry import Box, apply, box_around, crop_from_image, hand_angle, invert, iou, warp

WIDTH, HEIGHT = 320, 240


def number(low, high):
    return st.floats(low, high, allow_nan=False)


angles = number(-np.pi, np.pi)
sides = number(20, 900)
boxes = st.builds(
    lambda x, y, w, h, angle: Box((x, y), (w, h), angle), number(-50, 370), number(-50, 290), sides, sides, angles
)


def blob(point, sigma):
    """Image of a Gaussian whose centre lies at ``point`` in corner-origin pixels."""
    x = np.arange(WIDTH) + 0.5 - point[0]
    y = np.arange(HEIGHT)[:, None] + 0.5 - point[1]
    return (200 * np.exp(-(x**2 + y**2) / (2 * sigma**2))).astype(np.float32)


def centroid(image):
    """Centre of mass in corner-origin pixels."""
    ys, xs = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
    return np.array([(image * xs).sum(), (image * ys).sum()]) / image.sum()


class TestCrop:
    @pytest.mark.parametrize("fast", [False, True], ids=["", "fast"])
    @settings(max_examples=60, deadline=None)
    @given(
        st.tuples(number(130, 190), number(115, 125)), number(0.4, 0.6), number(0.4, 0.6), number(25, 800), angles,
        st.sampled_from([64, 96, 97, 224]),
    )  # fmt: skip
    @example((160.5, 120.5), 0.5, 0.5, 96.0, 0.0, 96)  # no resampling
    @example((160.6, 120.3), 0.45, 0.55, 48.0, 0.0, 96)  # enlarging by two
    @example((160.6, 120.3), 0.45, 0.55, 288.0, 0.0, 96)  # shrinking by three: area average
    @example((160.6, 120.3), 0.45, 0.55, 191.9, np.pi / 2, 96)  # just short of the area average
    @example((160.6, 120.3), 0.5, 0.5, 800.0, 0.7, 64)  # shrinking by twelve, past every border
    def test_a_blob_lands_where_the_matrix_says(self, fast, point, u, v, box_side, angle, side):
        """The centroid of a Gaussian blob in the crop against the mapped centre: half-pixel errors would show."""
        away = geometry.rotation(angle) @ (np.array([0.5 - u, 0.5 - v]) * box_side)
        box = Box((point[0] + away[0], point[1] + away[1]), (box_side, box_side), angle)
        matrix = crop_from_image(box, (side, side))
        np.testing.assert_allclose(apply(matrix, np.array(point)), np.array([u, v]) * side, atol=1e-9)
        crop = warp(blob(point, sigma=min(box_side / 13, 23)), matrix, (side, side), fast=fast)
        np.testing.assert_allclose(centroid(crop), np.array([u, v]) * side, atol=0.05)

    @pytest.mark.parametrize("side", [60, 150, 200, 300, 400, 500, 640, 700])
    @pytest.mark.parametrize("size", [(640, 480), (641, 479), (3, 5)], ids=str)
    def test_the_fast_way_differs_by_a_grey_level_but_at_the_edges_of_the_image(self, size, side):
        """There it may leave out less than a pixel of the crop, which the nearest one replaces."""
        smooth = np.random.default_rng(1).integers(0, 256, (size[1] // 64 + 1, size[0] // 64 + 1)).astype(np.uint8)
        image = cv2.resize(smooth, size, interpolation=cv2.INTER_CUBIC)
        for angle, center in ((0.0, (0.5, 0.5)), (0.4, (0.45, 0.55)), (2.0, (0.9, 0.2))):
            box = Box((center[0] * size[0], center[1] * size[1]), (side, side), angle)
            matrix = crop_from_image(box, (96, 96))
            slow, fast = (warp(image, matrix, (96, 96), None, fast=fast).astype(float) for fast in (False, True))
            gaps = np.abs(fast - slow)
            columns, rows = np.meshgrid(np.arange(96) + 0.5, np.arange(96) + 0.5)
            shown = apply(invert(matrix), np.stack([columns, rows], axis=-1))
            far = 2 * max(side / 96, 1)
            inner = ((shown > far) & (shown < np.array(size) - far)).all(axis=-1)
            assert gaps[inner].max(initial=0.0) <= 2.0
            assert gaps.mean() < 1.0

    @pytest.mark.parametrize("factor", [2, 4, 1.5, 0.75, 0.5, 0.25])
    def test_scaling_maps_p_to_s_times_p(self, factor):
        """No half-pixel terms: in a ramp that shows each pixel's own x, the scaled ramp shows x / s."""
        ramp = np.tile(np.arange(64, dtype=np.float32) + 0.5, (48, 1))
        size = (int(64 * factor), int(48 * factor))
        out = warp(ramp, np.array([[factor, 0, 0], [0, factor, 0.0]]), size, border_value=None)
        inner = slice(int(2 * factor), -int(2 * factor) or None)  # replicated edges are flat
        expected = (np.arange(size[0]) + 0.5) / factor
        np.testing.assert_allclose(out[0, inner], expected[inner], atol=0.02)

    def test_identity_and_whole_pixel_shifts_copy_pixels(self):
        source = np.random.default_rng(0).integers(0, 256, (48, 64), np.uint8)
        crop = warp(source, crop_from_image(Box((30.0, 20.0), (16.0, 16.0)), (16, 16)), (16, 16))
        np.testing.assert_array_equal(crop, source[12:28, 22:38])

    @pytest.mark.parametrize(("quarter_turns", "rotated"), [(1, 1), (2, 2), (-1, 3)])
    def test_quarter_turns_turn_the_crop_back_upright(self, quarter_turns, rotated):
        """A box turned clockwise shows its content turned anticlockwise, so that the hand comes out upright."""
        source = np.random.default_rng(0).integers(0, 256, (40, 40), np.uint8)
        matrix = crop_from_image(Box((20.0, 20.0), (40.0, 40.0), quarter_turns * np.pi / 2), (40, 40))
        np.testing.assert_array_equal(warp(source, matrix, (40, 40), border_value=None), np.rot90(source, rotated))

    @given(boxes, st.tuples(st.integers(1, 300), st.integers(1, 300)), number(-500, 500), number(-500, 500))
    def test_uncrop_inverts_crop(self, box, crop_wh, x, y):
        matrix = crop_from_image(box, crop_wh)
        np.testing.assert_allclose(apply(invert(matrix), apply(matrix, np.array([x, y]))), [x, y], atol=1e-6)

    @given(boxes, st.tuples(st.integers(1, 300), st.integers(1, 300)))
    def test_the_box_fills_the_crop_corner_to_corner(self, box, crop_wh):
        width, height = crop_wh
        corners = apply(crop_from_image(box, crop_wh), box.corners())
        np.testing.assert_allclose(corners, [(0, 0), (width, 0), (width, height), (0, height)], atol=1e-6)

    @pytest.mark.parametrize("side", [30.0, 400.0], ids=["enlarging", "shrinking"])
    @pytest.mark.parametrize("center", [(-500.0, 100.0), (100.0, 900.0), (2000.0, -2000.0)])
    def test_a_crop_outside_the_image_is_all_border(self, center, side):
        image = np.full((HEIGHT, WIDTH), 200, np.uint8)
        matrix = crop_from_image(Box(center, (side, side), 0.3), (96, 96))
        assert (warp(image, matrix, (96, 96), border_value=7) == 7).all()
        assert (warp(image, matrix, (96, 96), border_value=None) == 200).all()

    def test_shrinking_averages_instead_of_aliasing(self):
        stripes = np.tile(np.array([0, 255], np.uint8), (HEIGHT, WIDTH // 2))
        crop = warp(stripes, crop_from_image(Box((160.0, 120.0), (200.0, 200.0)), (50, 50)), (50, 50))
        np.testing.assert_allclose(crop.astype(float), 127.5, atol=1)

    def test_colour_images_keep_their_channels(self):
        image = np.zeros((HEIGHT, WIDTH, 3), np.uint8) + np.array([10, 20, 30], np.uint8)
        for side in (50.0, 220.0):
            crop = warp(image, crop_from_image(Box((160.0, 120.0), (side, side)), (32, 32)), (32, 32))
            assert crop.shape == (32, 32, 3) and (crop == [10, 20, 30]).all()


class TestBox:
    @pytest.mark.parametrize(
        "values",
        [((np.nan, 0), (1, 1), 0.0), ((0, 0), (np.inf, 1), 0.0), ((0, 0), (0, 1), 0.0), ((0, 0), (1, -1), 0.0)],
    )
    def test_impossible_boxes_are_refused(self, values):
        with pytest.raises(ValueError, match="box"):
            Box(*values)

    def test_corners_and_bounds_of_a_quarter_turn(self):
        box = Box((10.0, 20.0), (4.0, 8.0), np.pi / 2)
        np.testing.assert_allclose(box.corners(), [(14, 18), (14, 22), (6, 22), (6, 18)])
        np.testing.assert_allclose(box.bounds(), (6, 18, 14, 22))

    def test_scaled_keeps_centre_and_angle(self):
        assert Box((1.0, 2.0), (4.0, 6.0), 0.5).scaled(1.5) == Box((1.0, 2.0), (6.0, 9.0), 0.5)

    @pytest.mark.parametrize(
        ("center", "share"), [((50, 50), 1.0), ((0, 50), 0.5), ((0, 0), 0.25), ((-5, 50), 0.25), ((-50, 50), 0.0)]
    )
    def test_area_inside(self, center, share):
        assert Box(center, (20.0, 20.0)).area_inside(100, 100) == pytest.approx(share)


class TestIou:
    @pytest.mark.parametrize(
        ("other", "expected", "reason"),
        [
            (Box((10.0, 10.0), (10.0, 10.0)), 1.0, "the same"),
            (Box((15.0, 10.0), (10.0, 10.0)), 1 / 3, "half shifted"),
            (Box((20.0, 10.0), (10.0, 10.0)), 0.0, "touching"),
            (Box((99.0, 10.0), (10.0, 10.0)), 0.0, "apart"),
            (Box((10.0, 10.0), (5.0, 5.0)), 0.25, "inside"),
            (Box((10.0, 10.0), (10.0, 10.0), np.pi / 2), 1.0, "a square turned by a quarter"),
            (Box((10.0, 10.0), (10.0, 10.0), np.pi / 4), 0.5, "bounds of a diamond are twice as large"),
        ],
    )
    def test_values(self, other, expected, reason):
        assert iou(Box((10.0, 10.0), (10.0, 10.0)), other) == pytest.approx(expected), reason

    @given(boxes, boxes)
    def test_symmetric_and_between_0_and_1(self, a, b):
        assert iou(a, b) == pytest.approx(iou(b, a))
        assert 0.0 <= iou(a, b) <= 1.0 + 1e-12
        assert iou(a, a) == pytest.approx(1.0)


def upright_hand():
    """Fingers up: wrist at the bottom, each finger straight above its base."""
    points = [(0.0, 100.0)] + [(-60.0 + 10 * k, 70.0 - 20 * k) for k in range(4)]
    points += [(-30.0 + 20 * finger, 10.0 - 25 * k) for finger in range(4) for k in range(4)]
    return np.array(points)


class TestHandBox:
    @pytest.mark.parametrize(
        ("turn_deg", "reason"), [(0, "up"), (90, "right"), (-90, "left"), (37, "tilted"), (179, "down")]
    )
    def test_angle_is_clockwise_from_up(self, turn_deg, reason):
        points = upright_hand()
        points[[5, 9, 13]] -= points[[5, 9, 13]].mean(axis=0) * [1, 0]  # knuckles exactly above the wrist
        turned = points @ geometry.rotation(np.radians(turn_deg)).T
        assert hand_angle(turned) == pytest.approx(np.radians(turn_deg)), reason

    def test_a_palm_without_direction_has_angle_0(self):
        assert hand_angle(np.full((21, 2), 5.0)) == 0.0

    @given(angles, number(-300, 300), number(-300, 300), number(0.1, 10))
    def test_box_moves_with_the_hand(self, turn, x, y, scale):
        """Translate, turn and scale the hand: its box does the same (and so does what KeyNet sees in it)."""
        points = upright_hand()
        box = box_around(points)
        moved = scale * points @ geometry.rotation(turn).T + [x, y]
        moved_box = box_around(moved)
        expected = scale * geometry.rotation(turn) @ np.array(box.center_px) + [x, y]
        np.testing.assert_allclose(moved_box.center_px, expected, atol=1e-6)
        np.testing.assert_allclose(moved_box.size_px, np.array(box.size_px) * scale, rtol=1e-9)
        assert abs(geometry.wrap_angle(moved_box.angle_rad - box.angle_rad - turn)) < 1e-9
        assert -np.pi <= moved_box.angle_rad < np.pi

    @given(angles)
    def test_box_is_tight_and_square(self, angle):
        points = upright_hand()
        box = box_around(points, angle)
        local = apply(crop_from_image(box, (1, 1)), points)
        assert box.size_px[0] == box.size_px[1]
        assert local.min() > -1e-9 and local.max() < 1 + 1e-9
        assert np.ptp(local, axis=0).max() == pytest.approx(1.0)
        np.testing.assert_allclose(local.min(axis=0) + local.max(axis=0), 1.0)  # centred on both axes

    def test_a_single_point_still_has_a_box(self):
        assert box_around(np.full((21, 2), 7.0)) == Box((7.0, 7.0), (1.0, 1.0), 0.0)


@given(number(-100, 100))
def test_wrap_angle(angle):
    wrapped = geometry.wrap_angle(angle)
    assert -np.pi <= wrapped < np.pi + 1e-12
    assert np.cos(wrapped) == pytest.approx(np.cos(angle), abs=1e-9)
    assert np.sin(wrapped) == pytest.approx(np.sin(angle), abs=1e-9)


@given(angles, number(-9, 9), number(-9, 9))
def test_invert_and_rotation(angle, x, y):
    matrix = np.column_stack([2.5 * geometry.rotation(angle), (x, y)])
    whole = np.vstack([matrix, (0, 0, 1)])
    np.testing.assert_allclose(np.vstack([invert(matrix), (0, 0, 1)]) @ whole, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(geometry.rotation(np.pi / 2) @ [1, 0], [0, 1], atol=1e-12)  # from x towards y
