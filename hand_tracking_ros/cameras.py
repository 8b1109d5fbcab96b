"""Camera models: from 3D points to pixels, and from pixels to the rays on which the points lie.

Pixels are corner-origin (geometry.py): ``cx``, ``cy`` are 0.5 px more than in OpenCV, and in camera_info and
calibration files of ROS, which count pixel centres as integers; calibration.py adds it. 3D is the camera's optical
frame (x right, y down, z forward). The distortion models are those of OpenCV, with its order of coefficients.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hand_tracking_ros.errors import CalibrationError

# How many distortion coefficients each model may have.
MODELS = {"pinhole": (0,), "plumb_bob": (4, 5), "rational_polynomial": (8, 12, 14), "fisheye": (4,)}
TABLE = 256  # radii from which the search for an undistorted one starts
FARTHEST = 100.0  # radius, 89.4 degrees off axis, up to which a lens that is no fisheye is believed
ITERATIONS = 30  # near the limit Newton's method takes many steps; elsewhere four or five
SETTLED, EXACT = 1e-14, 1e-11  # residuals, in focal lengths: no need to go on; good enough for a solution


@dataclass(frozen=True)
class Camera:
    """Intrinsics in corner-origin pixels, and the lens: a key of MODELS with its ``distortion`` coefficients.

    - ``pinhole``: no distortion, or a rectified image. Polynomials that are all 0 become one.
    - ``plumb_bob``: k1, k2, p1, p2[, k3]; ``rational_polynomial``: k1, k2, p1, p2, k3, k4, k5, k6[, s1..s4[, tx, ty]].
    - ``fisheye`` (ROS: equidistant): k1..k4; sees more than 90 degrees off axis where its polynomial allows.

    Raises CalibrationError on values that are not finite, focal lengths that are not positive, an unknown model and
    a wrong number of coefficients.
    """

    fx: float
    fy: float
    cx: float
    cy: float
    model: str = "pinhole"
    distortion: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        distortion = tuple(float(value) for value in self.distortion)
        if self.model not in MODELS:
            raise CalibrationError(f"unknown camera model '{self.model}'; known: {', '.join(MODELS)}")
        if len(distortion) not in MODELS[self.model]:
            wanted = " or ".join(map(str, MODELS[self.model]))
            raise CalibrationError(
                f"camera model '{self.model}' has {wanted} distortion coefficients, got {len(distortion)}"
            )
        if not np.all(np.isfinite([self.fx, self.fy, self.cx, self.cy])) or self.fx <= 0 or self.fy <= 0:
            raise CalibrationError(
                f"camera needs finite intrinsics and positive focal lengths, got fx={self.fx} fy={self.fy} "
                f"cx={self.cx} cy={self.cy}: calibrate the camera or leave camera_info out"
            )
        if not np.all(np.isfinite(distortion)):
            raise CalibrationError(f"camera has distortion coefficients that are not finite: {distortion}")
        if self.model != "fisheye" and not any(distortion):
            object.__setattr__(self, "model", "pinhole")
            distortion = ()
        object.__setattr__(self, "distortion", distortion)

    @property
    def focal_px(self) -> float:
        """One focal length for both directions: their geometric mean."""
        return math.sqrt(self.fx * self.fy)

    def project(self, points_m: np.ndarray) -> np.ndarray:
        """Pixels (..., 2) of points (..., 3) in the camera's frame, in any unit.

        NaN where the lens has no image of a point: not in front of it (fisheye: not before its limit), or where the
        distortion polynomial has stopped to grow, beyond the part of the image that was calibrated.
        """
        points = np.asarray(points_m, np.float64)
        if self.model == "fisheye":
            flat = self._lens.distort(points)
        else:
            depth = points[..., 2:]
            flat = points[..., :2] / np.where(depth > 0, depth, np.nan)
            if self.model != "pinhole":
                flat = self._lens.distort(flat)
        return flat * (self.fx, self.fy) + (self.cx, self.cy)

    def rays(self, points_px: np.ndarray) -> np.ndarray:
        """Unit vectors (..., 3) from the camera through pixels (..., 2): the inverse of ``project``.

        NaN for pixels to which the lens maps no point.
        """
        flat = (np.asarray(points_px, np.float64) - (self.cx, self.cy)) / (self.fx, self.fy)
        if self.model == "fisheye":
            return self._lens.undistort(flat)
        if self.model != "pinhole":
            flat = self._lens.undistort(flat)
        rays = np.ones((*flat.shape[:-1], 3))
        rays[..., :2] = flat
        return rays / np.sqrt((rays * rays).sum(axis=-1, keepdims=True))

    @cached_property
    def _lens(self) -> _Fisheye | _Polynomial:
        return _Fisheye(self.distortion) if self.model == "fisheye" else _Polynomial(self.distortion)


class _Polynomial:
    """Brown's radial and tangential distortion, as a ratio of polynomials, with thin prism and tilted sensor.

    A point of the plane z = 1 is the complex number x + iy: that takes half the terms.
    """

    def __init__(self, distortion: tuple[float, ...]) -> None:
        k1, k2, p1, p2, k3, k4, k5, k6, *prism = np.pad(distortion, (0, 14 - len(distortion))).tolist()
        self._above, self._below = (1.0, k1, k2, k3), (1.0, k4, k5, k6)
        self._tangential = complex(p2, p1)
        self._prism = complex(prism[0], prism[2]), complex(prism[1], prism[3])  # of r^2, of r^4
        self._tilt = _tilt(*prism[4:]) if any(prism[4:]) else None
        self._limit = min(FARTHEST, math.sqrt(_radius_limit(self._above, self._below)))
        radii = np.geomspace(1e-3 * self._limit, self._limit, TABLE)
        self._radii = np.concatenate([[0.0], radii])
        self._distorted = self._radii * self._radial(self._radii**2)[0]

    def distort(self, flat: np.ndarray) -> np.ndarray:
        """(..., 2) on the plane z = 1; NaN beyond the limit."""
        z = _complex(flat)
        r2 = z.real**2 + z.imag**2
        bent = _pairs(np.where(r2 <= self._limit**2, self._bend(z, r2, self._radial(r2)[0]), complex(np.nan, np.nan)))
        return bent if self._tilt is None else _homography(self._tilt, bent)

    @np.errstate(divide="ignore", invalid="ignore")
    def undistort(self, flat: np.ndarray) -> np.ndarray:
        """The inverse, by Newton's method; NaN where there is none."""
        wanted = _complex(flat if self._tilt is None else _homography(np.linalg.inv(self._tilt), flat))
        radius = np.abs(wanted)
        z = wanted * (np.interp(radius, self._distorted, self._radii) / np.maximum(radius, 1e-12))
        for _ in range(ITERATIONS):
            r2 = z.real**2 + z.imag**2
            radial, slope = self._radial(r2)
            off = self._bend(z, r2, radial) - wanted
            error = np.abs(off)
            if not (error > SETTLED).any():
                break
            by_z, by_conjugate = self._derivatives(z, r2, radial, slope)
            area = np.abs(by_z) ** 2 - np.abs(by_conjugate) ** 2
            z = z + (by_conjugate * off.conj() - by_z.conj() * off) / area
            z = z * np.minimum(1.0, self._limit / np.maximum(np.abs(z), 1e-12))
        return _pairs(np.where(error <= EXACT, z, complex(np.nan, np.nan)))

    def _bend(self, z, r2, radial):
        """Distorted ``z``, without tilt."""
        q, (s, t) = self._tangential, self._prism
        bent = z * radial + r2 * (2 * q) + q.conjugate() * z * z
        return bent + r2 * (s + t * r2) if s or t else bent

    def _derivatives(self, z, r2, radial, slope):
        """Those of ``_bend``, by z and by its conjugate."""
        q, (s, t) = self._tangential, self._prism
        by_r2 = z * slope + 2 * q + s + 2 * t * r2
        return radial + 2 * q.conjugate() * z + by_r2 * z.conj(), by_r2 * z

    def _radial(self, r2):
        """The radial factor at squared radii, and its derivative by them."""
        (_, k1, k2, k3), (_, k4, k5, k6) = self._above, self._below
        above, above_slope = 1 + r2 * (k1 + r2 * (k2 + r2 * k3)), k1 + r2 * (2 * k2 + r2 * 3 * k3)
        if not any(self._below[1:]):
            return above, above_slope
        below, below_slope = 1 + r2 * (k4 + r2 * (k5 + r2 * k6)), k4 + r2 * (2 * k5 + r2 * 3 * k6)
        return above / below, (above_slope * below - above * below_slope) / (below * below)


class _Fisheye:
    """Equidistant projection with a polynomial in the angle off axis (Kannala and Brandt)."""

    def __init__(self, distortion: tuple[float, ...]) -> None:
        self._powers = np.array([1.0, *distortion])
        limit = _first_root(self._powers * [1, 3, 5, 7, 9])  # where the derivative, in squared angles, ends growing
        self._limit = min(math.pi, math.sqrt(limit))
        self._angles = np.linspace(0.0, self._limit, TABLE)
        self._radii = self._radius(self._angles)[0]

    def distort(self, points: np.ndarray) -> np.ndarray:
        """(..., 2) in focal lengths, of points (..., 3); NaN beyond the limit."""
        across = np.hypot(points[..., 0], points[..., 1])
        angle = np.arctan2(across, points[..., 2])
        seen = (angle <= self._limit) & ((across > 0) | (points[..., 2] > 0))
        stretch = np.where(across > 0, self._radius(angle)[0] / np.where(across > 0, across, 1.0), 0.0)
        return points[..., :2] * np.where(seen, stretch, np.nan)[..., None]

    def undistort(self, flat: np.ndarray) -> np.ndarray:
        """Unit vectors (..., 3), by Newton's method on the angle; NaN where there is none."""
        radius = np.hypot(flat[..., 0], flat[..., 1])
        angle = np.interp(radius, self._radii, self._angles)
        for _ in range(ITERATIONS):
            value, slope = self._radius(angle)
            off = value - radius
            if not (np.abs(off) > SETTLED).any():
                break
            angle = np.clip(angle - off / np.maximum(slope, 1e-12), 0.0, self._limit)
        angle = np.where(np.abs(off) <= EXACT, angle, np.nan)
        across = flat * (np.sin(angle) / np.where(radius > 0, radius, 1.0))[..., None]
        return np.concatenate([across, np.cos(angle)[..., None]], axis=-1)

    def _radius(self, angle):
        """Distance from the principal point in focal lengths, and its derivative."""
        (_, k1, k2, k3, k4), square = self._powers.tolist(), angle * angle
        value = angle * (1 + square * (k1 + square * (k2 + square * (k3 + square * k4))))
        return value, 1 + square * (3 * k1 + square * (5 * k2 + square * (7 * k3 + square * 9 * k4)))


def _radius_limit(above: tuple[float, ...], below: tuple[float, ...]) -> float:
    """Squared radius up to which r * above(r^2) / below(r^2) grows."""
    n, d = np.polynomial.Polynomial(above), np.polynomial.Polynomial(below)
    u = np.polynomial.Polynomial([0.0, 1.0])
    growth = (n + 2 * u * n.deriv()) * d - 2 * u * n * d.deriv()  # times d^2
    return min(_first_root(growth.coef), _first_root(np.array(below)) * (1 - 1e-6))  # short of a pole


def _first_root(coefficients: np.ndarray) -> float:
    """Smallest positive root of a polynomial, lowest power first; infinite when there is none."""
    small = np.abs(coefficients) < 1e-12  # too small to matter, yet they upset the search
    roots = np.polynomial.polynomial.polyroots(np.trim_zeros(np.where(small, 0.0, coefficients), "b"))
    real = roots.real[(np.abs(roots.imag) < 1e-9 * np.maximum(1.0, np.abs(roots))) & (roots.real > 0)]
    return float(real.min()) if len(real) else math.inf


def _tilt(x_rad: float, y_rad: float) -> np.ndarray:
    """Homography (3, 3) of a sensor that is tilted about its x, then its y axis."""
    cx, sx, cy, sy = math.cos(x_rad), math.sin(x_rad), math.cos(y_rad), math.sin(y_rad)
    turn = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]]) @ np.array([[1, 0, 0], [0, cx, sx], [0, -sx, cx]])
    return np.array([[turn[2, 2], 0, -turn[0, 2]], [0, turn[2, 2], -turn[1, 2]], [0, 0, 1]]) @ turn


def _complex(pairs: np.ndarray) -> np.ndarray:
    """(..., 2) as complex numbers (...)."""
    return np.ascontiguousarray(pairs, np.float64).view(np.complex128)[..., 0]


def _pairs(numbers: np.ndarray) -> np.ndarray:
    """The inverse of ``_complex``."""
    return np.asarray(numbers)[..., None].view(np.float64)


def _homography(matrix: np.ndarray, flat: np.ndarray) -> np.ndarray:
    mapped = flat @ matrix[:, :2].T + matrix[:, 2]
    return mapped[..., :2] / mapped[..., 2:]
