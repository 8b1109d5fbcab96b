"""Camera models against OpenCV, and against themselves: pixel to ray and back."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hand_tracking_ros.cameras import MODELS, Camera
from hand_tracking_ros.errors import CalibrationError

WIDTH, HEIGHT = 640, 480
HALF = 0.5  # OpenCV counts pixel centres as integers; ours are at half pixels
LENSES = {
    "pinhole": Camera(500, 510, 322, 238),
    "plumb_bob 4": Camera(430, 437, 305, 244, "plumb_bob", (-0.36, 0.11, 0.001, 0.0005)),
    "plumb_bob 5": Camera(926, 925, 356, 355, "plumb_bob", (-0.014, 0.5, -0.0035, -0.0036, -0.4)),
    "rational 8": Camera(500, 505, 320, 240, "rational_polynomial", (0.4, -0.1, 1e-3, -5e-4, 0.02, 0.7, 0.05, 0.01)),
    "rational 12": Camera(
        500, 505, 310, 250, "rational_polynomial",
        (0.4, -0.1, 1e-3, -5e-4, 0.02, 0.7, 0.05, 0.01, 3e-3, -1e-3, 2e-3, 5e-4),
    ),
    "rational 14": Camera(
        500, 505, 310, 250, "rational_polynomial",
        (0.4, -0.1, 1e-3, -5e-4, 0.02, 0.7, 0.05, 0.01, 3e-3, -1e-3, 2e-3, 5e-4, 0.02, -0.03),
    ),
    "fisheye": Camera(200, 201, 321, 239, "fisheye", (0.02, -0.01, 0.003, -0.0005)),
    "equidistant": Camera(200, 200, 320, 240, "fisheye", (0, 0, 0, 0)),
}  # fmt: skip
LENS = pytest.mark.parametrize("camera", LENSES.values(), ids=LENSES.keys())


def opencv_matrix(camera: Camera) -> np.ndarray:
    return np.array([[camera.fx, 0, camera.cx - HALF], [0, camera.fy, camera.cy - HALF], [0, 0, 1.0]])


def image_grid() -> np.ndarray:
    x, y = np.meshgrid(np.linspace(0, WIDTH, 33), np.linspace(0, HEIGHT, 25))
    return np.stack([x, y], axis=-1)


def points_in_view() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.column_stack([rng.uniform(-0.5, 0.5, (200, 2)), rng.uniform(0.9, 3.0, 200)])


@LENS
def test_projects_as_opencv(camera):
    points = points_in_view()
    matrix, distortion = opencv_matrix(camera), np.array(camera.distortion)
    if camera.model == "fisheye":
        theirs, _ = cv2.fisheye.projectPoints(points[:, None], np.zeros(3), np.zeros(3), matrix, distortion)
    else:
        theirs, _ = cv2.projectPoints(points[:, None], np.zeros(3), np.zeros(3), matrix, distortion)
    np.testing.assert_allclose(camera.project(points), theirs[:, 0] + HALF, atol=1e-8)


@LENS
def test_rays_as_opencv_undistorts(camera):
    pixels = camera.project(points_in_view())
    assert np.isfinite(pixels).all()
    matrix, distortion = opencv_matrix(camera), np.array(camera.distortion)
    if camera.model == "fisheye":
        exact = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 100, 1e-14)
        theirs = cv2.fisheye.undistortPoints(pixels[:, None] - HALF, matrix, distortion, criteria=exact)
    else:
        exact = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 500, 1e-14)
        theirs = cv2.undistortPoints(
            pixels[:, None] - HALF, matrix, distortion if len(distortion) else None, None, None, None, exact
        )
    rays = camera.rays(pixels)
    np.testing.assert_allclose(rays[:, :2] / rays[:, 2:], theirs[:, 0], atol=1e-7)
    np.testing.assert_allclose(np.linalg.norm(rays, axis=1), 1)


@LENS
def test_every_pixel_comes_back_and_the_shape_is_kept(camera):
    pixels = image_grid()
    rays = camera.rays(pixels)
    assert rays.shape == (25, 33, 3) and np.isfinite(rays).all()
    np.testing.assert_allclose(camera.project(rays), pixels, atol=1e-6)
    np.testing.assert_allclose(camera.project(3.7 * rays), pixels, atol=1e-6)  # distance does not matter
    assert camera.project(rays[3, 4]).shape == (2,) and camera.rays(pixels[3, 4]).shape == (3,)


@given(
    k=st.lists(st.floats(-0.5, 0.5), min_size=6, max_size=6),
    p=st.lists(st.floats(-0.01, 0.01), min_size=2, max_size=2),
    pixel=st.tuples(st.floats(0, WIDTH), st.floats(0, HEIGHT)),
    model=st.sampled_from(["plumb_bob", "rational_polynomial", "fisheye"]),
)
@settings(max_examples=200, deadline=None)
def test_pixel_to_ray_and_back(k, p, pixel, model):
    """Whatever the coefficients: a ray that exists leads back to its pixel, one that does not is NaN."""
    k1, k2, k3, k4, k5, k6 = k
    distortion = {
        "plumb_bob": (k1, k2, *p, k3),
        "rational_polynomial": (k1, k2, *p, k3, k4, k5, k6),
        "fisheye": tuple(0.2 * v for v in (k1, k2, k3, k4)),
    }[model]
    camera = Camera(400, 410, 322, 241, model, distortion)
    ray = camera.rays(np.array(pixel))
    assert np.isfinite(ray).all() or np.isnan(ray).all()
    if np.isfinite(ray).all():
        np.testing.assert_allclose(camera.project(ray), pixel, atol=1e-6)


def test_the_middle_of_the_image_always_has_rays():
    """No lens above may hide behind NaN: within a third of the image around its middle there is always a ray."""
    rng = np.random.default_rng(1)
    for _ in range(50):
        camera = Camera(600, 600, 320, 240, "plumb_bob", (*rng.uniform(-0.3, 0.3, 2), *rng.uniform(-5e-3, 5e-3, 2)))
        assert np.isfinite(camera.rays(image_grid()[8:17, 11:22])).all()


@pytest.mark.parametrize("degrees", [0, 30, 60, 89, 90, 91, 100, 110])
def test_a_fisheye_sees_beyond_90_degrees(degrees):
    angle, around = np.radians(degrees), np.linspace(0, 2 * np.pi, 13)
    rays = np.column_stack([np.sin(angle) * np.cos(around), np.sin(angle) * np.sin(around), 0 * around + np.cos(angle)])
    for camera in (LENSES["fisheye"], LENSES["equidistant"]):
        pixels = camera.project(rays)
        assert np.isfinite(pixels).all()
        np.testing.assert_allclose(camera.rays(pixels), rays, atol=1e-9)
    radius = np.linalg.norm(LENSES["equidistant"].project(rays) - (320, 240), axis=1)
    np.testing.assert_allclose(radius, 200 * angle, atol=1e-9)


@pytest.mark.parametrize("name", ["pinhole", "plumb_bob 4", "rational 14"])
def test_what_is_behind_has_no_image(name):
    points = np.array([(0.1, 0.1, -1.0), (0.1, 0.1, 0.0), (0.1, 0.1, 1.0), (np.nan, np.nan, 1.0)])
    assert np.isnan(LENSES[name].project(points)).all(axis=1).tolist() == [True, True, False, True]
    assert np.isnan(LENSES[name].rays(np.array([np.nan, 100.0]))).any()


def test_beyond_the_turning_point_of_the_polynomial_there_is_no_image():
    """r (1 - r^2 / 3) grows up to r = 1: what lies further out would fold back into the image."""
    camera = Camera(100, 100, 0, 0, "plumb_bob", (-1 / 3, 0, 0, 0))
    pixels = camera.project(np.array([(0.5, 0, 1), (0.999, 0, 1), (1.001, 0, 1), (1.7, 0, 1)]))
    np.testing.assert_allclose(pixels[:2, 0], [45.8333, 66.6666], atol=1e-3)
    assert np.isnan(pixels[2:]).all()
    assert np.isfinite(camera.rays(np.array([66.66, 0]))).all() and np.isnan(camera.rays(np.array([66.7, 0]))).all()
    fisheye = Camera(100, 100, 0, 0, "fisheye", (-1 / 3, 0, 0, 0))  # the same in the angle: up to 1 rad
    assert np.isfinite(fisheye.project(np.array([np.sin(0.99), 0, np.cos(0.99)]))).all()
    assert np.isnan(fisheye.project(np.array([np.sin(1.01), 0, np.cos(1.01)]))).all()
    assert np.isnan(fisheye.rays(np.array([66.7, 0]))).all()


def test_polynomials_without_distortion_are_pinholes_but_a_fisheye_is_not():
    pinhole = Camera(500, 500, 320, 240)
    assert Camera(500, 500, 320, 240, "plumb_bob", (0, 0, 0, 0, 0)) == pinhole
    assert Camera(500, 500, 320, 240, "rational_polynomial", (0,) * 8) == pinhole
    assert hash(Camera(500, 500, 320, 240)) == hash(pinhole)
    assert Camera(500, 500, 320, 240, "fisheye", (0, 0, 0, 0)).model == "fisheye"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"fx": float("nan")}, "finite intrinsics"),
        ({"fy": 0.0}, "positive focal lengths"),
        ({"model": "magic"}, "unknown camera model 'magic'; known: pinhole"),
        ({"model": "plumb_bob", "distortion": (0.1, 0.1, 0.1)}, "4 or 5 distortion coefficients, got 3"),
        ({"model": "fisheye"}, "4 distortion coefficients, got 0"),
        ({"distortion": (0.1,)}, "0 distortion coefficients, got 1"),
        ({"model": "fisheye", "distortion": (0.1, float("inf"), 0, 0)}, "not finite"),
    ],
)
def test_bad_cameras(values, message):
    with pytest.raises(CalibrationError, match=message):
        Camera(**{"fx": 500.0, "fy": 500.0, "cx": 320.0, "cy": 240.0, **values})
    assert set(MODELS) == {"pinhole", "plumb_bob", "rational_polynomial", "fisheye"}
