"""Temporal filters: the same rules for all, one-euro against a scalar implementation, Kalman against filterpy."""

import math

import numpy as np
import pytest
from filterpy.common import Q_discrete_white_noise
from filterpy.kalman import KalmanFilter

from hand_tracking_ros.config import FilterConfig
from hand_tracking_ros.filters import START_SPEED, make_filter

KINDS = ("none", "one_euro", "kalman")
MAX_GAP_S = 0.5


def new_filter(kind, **settings):
    return make_filter(FilterConfig(kind=kind, **settings), MAX_GAP_S)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def run(temporal_filter, values, stamps, unit=1.0):
    return np.array([temporal_filter.update(v, t, unit) for v, t in zip(values, stamps, strict=True)])


def random_stamps(count, seed=1):
    return np.cumsum(np.random.default_rng(seed).uniform(0.004, 0.1, size=count))


@pytest.mark.parametrize("kind", KINDS)
class TestEveryFilter:
    def test_first_measurement_passes_unchanged_at_rest(self, kind):
        f = new_filter(kind)
        values = noise(21, 2)
        np.testing.assert_array_equal(f.update(values, 3.0), values)
        np.testing.assert_array_equal(f.velocity, np.zeros((21, 2)))

    def test_reset_equals_fresh(self, kind):
        f = new_filter(kind)
        values, stamps = noise(30, 21, 2), random_stamps(30)
        run(f, noise(30, 21, 2, seed=5), stamps)
        f.reset()
        np.testing.assert_array_equal(run(f, values, stamps), run(new_filter(kind), values, stamps))

    def test_constant_input_is_a_fixed_point(self, kind):
        f = new_filter(kind)
        values = np.full((21, 2), 123.456)
        out = run(f, [values] * 50, random_stamps(50), unit=80.0)
        np.testing.assert_allclose(out, 123.456, atol=1e-9)
        np.testing.assert_allclose(f.velocity, 0, atol=1e-9)

    def test_backward_time_starts_afresh(self, kind):
        f = new_filter(kind)
        run(f, noise(20, 21, 2), np.arange(20) * 0.03 + 100.0)
        values, stamps = noise(10, 21, 2, seed=3), np.arange(10) * 0.03
        np.testing.assert_array_equal(run(f, values, stamps), run(new_filter(kind), values, stamps))

    @pytest.mark.parametrize(("gap_s", "restarts"), [(MAX_GAP_S - 0.01, False), (MAX_GAP_S + 0.01, True)])
    def test_gap(self, kind, gap_s, restarts):
        f = new_filter(kind)
        run(f, np.linspace(0, 1, 20)[:, None] * [[1.0, 0.0]], np.arange(20) * 0.03)
        f.update(np.array([50.0, 0.0]), 19 * 0.03 + gap_s)
        assert (f.velocity[0] == 0) == restarts

    def test_repeated_stamp_changes_nothing(self, kind):
        f, once = new_filter(kind), new_filter(kind)
        values = noise(3, 21, 2)
        for step, stamp in enumerate((0.0, 0.1, 0.2)):
            expected = once.update(values[step], stamp)
            np.testing.assert_array_equal(f.update(values[step], stamp), expected)
            np.testing.assert_array_equal(f.update(values[step] + 9, stamp), expected)
        np.testing.assert_array_equal(f.velocity, once.velocity)

    def test_stamp_zero_is_a_time_like_any_other(self, kind):
        values, stamps = noise(20, 21, 2), np.arange(20) / 32  # exact in binary: shifting loses nothing
        from_zero = run(new_filter(kind), values, stamps)
        np.testing.assert_array_equal(from_zero, run(new_filter(kind), values, stamps + 64))
        np.testing.assert_array_equal(from_zero, run(new_filter(kind), values, stamps - 64))

    def test_missing_channels_are_extrapolated_and_poison_nothing(self, kind):
        values, stamps = np.cumsum(noise(40, 21, 2), axis=0), random_stamps(40)
        holed = values.copy()
        holed[10:13, 4] = np.nan
        holed[20, 7, 0] = np.inf
        f, whole = new_filter(kind), new_filter(kind)
        out, expected = run(f, holed, stamps), run(whole, values, stamps)
        assert np.isfinite(out).all() and np.isfinite(f.velocity).all()
        untouched = [joint for joint in range(21) if joint not in (4, 7)]
        np.testing.assert_array_equal(out[:, untouched], expected[:, untouched])
        np.testing.assert_array_equal(out[:10], expected[:10])

    def test_extrapolation_runs_with_the_last_velocity_until_the_gap_is_too_long(self, kind):
        f = new_filter(kind)
        out = run(f, np.arange(30)[:, None] * [[0.3, -0.1]], np.arange(30) * 0.03)
        last, velocity, end = out[-1], f.velocity, 29 * 0.03
        for ahead in (0.0, 0.1, 0.4):
            np.testing.assert_allclose(f.predict(end + ahead), last + velocity * ahead)
        np.testing.assert_allclose(f.update([np.nan, np.nan], end + 0.1), last + velocity * 0.1)
        assert np.isnan(f.predict(end + MAX_GAP_S + 0.01)).all()
        assert np.isnan(f.update([np.nan, np.nan], end + 0.2)).sum() == 0
        np.testing.assert_array_equal(f.update([7.0, 8.0], end + 2.0), [7.0, 8.0])

    def test_a_channel_that_was_never_measured_stays_nan_until_it_is(self, kind):
        f = new_filter(kind)
        for stamp in (0.0, 0.1, 0.2):
            np.testing.assert_array_equal(f.update([[1.0, np.nan]], stamp), [[1.0, np.nan]])
        np.testing.assert_array_equal(f.velocity, [[0.0, np.nan]])
        np.testing.assert_array_equal(f.update([[1.0, 5.0]], 0.3), [[1.0, 5.0]])
        np.testing.assert_array_equal(f.velocity, [[0.0, 0.0]])

    def test_all_missing_at_first(self, kind):
        f = new_filter(kind)
        assert np.isnan(f.update([np.nan, np.nan], 0.0)).all()
        np.testing.assert_array_equal(f.update([3.0, 4.0], 0.1), [3.0, 4.0])

    def test_constant_speed_is_measured_whatever_the_steps(self, kind):
        """On a ramp every filter ends with the true velocity, also with irregular steps; lag depends on the filter."""
        f = new_filter(kind)
        stamps = random_stamps(300)
        run(f, stamps[:, None] * [[100.0, -40.0]], stamps, unit=100.0)
        np.testing.assert_allclose(f.velocity, [100.0, -40.0], rtol=1e-6)

    def test_result_scales_with_the_unit(self, kind):
        values, stamps = noise(30, 21, 2), random_stamps(30)
        near = run(new_filter(kind), values * 250, stamps, unit=250.0)
        np.testing.assert_allclose(near, 250 * run(new_filter(kind), values, stamps), rtol=1e-9)

    def test_turning_the_camera_turns_the_result(self, kind):
        turn = np.array([[0.6, -0.8], [0.8, 0.6]])
        values, stamps = np.cumsum(noise(30, 21, 2), axis=0), random_stamps(30)
        turned = run(new_filter(kind), values @ turn.T, stamps)
        np.testing.assert_allclose(turned, run(new_filter(kind), values, stamps) @ turn.T, atol=1e-9)

    def test_unit_may_differ_per_channel(self, kind):
        """Pixels and palm lengths in one array, as x, y and depth of a keypoint are."""
        unit = np.array([200.0, 200.0, 1.0])
        values, stamps = noise(20, 21, 3), random_stamps(20)
        mixed = run(new_filter(kind), values * unit, stamps, unit)
        np.testing.assert_allclose(mixed, run(new_filter(kind), values, stamps) * unit, rtol=1e-9)

    def test_callers_arrays_and_results_are_not_tied_to_the_state(self, kind):
        f, clean = new_filter(kind), new_filter(kind)
        for step, stamp in enumerate((0.0, 0.1, 0.2)):
            values = noise(21, 2, seed=step)
            expected = clean.update(values.copy(), stamp)
            out = f.update(values, stamp)
            np.testing.assert_array_equal(out, expected)
            values[:], out[:], f.velocity[:] = np.nan, np.nan, np.nan

    @pytest.mark.parametrize(
        ("values", "stamp_s", "unit", "message"),
        [
            (1.0, 1.0, 1.0, "shape"),
            (np.zeros((3, 2)), 1.0, 1.0, r"keep shape \(2,\)"),
            (np.zeros(2), math.nan, 1.0, "stamp_s"),
            (np.zeros(2), math.inf, 1.0, "stamp_s"),
            (np.zeros(2), 1.0, 0.0, "palm length"),
            (np.zeros(2), 1.0, math.nan, "palm length"),
            (np.zeros(2), 1.0, np.array([1.0, -1.0]), "palm length"),
        ],
    )
    def test_bad_input_is_refused_and_leaves_the_filter_as_it_was(self, kind, values, stamp_s, unit, message):
        f, clean = new_filter(kind), new_filter(kind)
        for each in (f, clean):
            each.update(np.zeros(2), 0.9)
        with pytest.raises(ValueError, match=message):
            f.update(values, stamp_s, unit)
        np.testing.assert_array_equal(f.update(np.ones(2), 0.95), clean.update(np.ones(2), 0.95))

    def test_nothing_known_before_the_first_update(self, kind):
        f = new_filter(kind)
        with pytest.raises(RuntimeError, match="update"):
            f.predict(0.0)
        with pytest.raises(RuntimeError, match="update"):
            _ = f.velocity


def test_none_passes_values_through_and_differentiates_them():
    f = new_filter("none")
    values, stamps = noise(10, 21, 2), random_stamps(10)
    np.testing.assert_array_equal(run(f, values, stamps), values)
    np.testing.assert_allclose(f.velocity, (values[-1] - values[-2]) / (stamps[-1] - stamps[-2]))


def scalar_one_euro(points, stamps, min_cutoff, beta, d_cutoff, unit):
    """One point of one-euro filter in plain Python, after Casiez et al. 2012, with time constants as in the paper."""

    def alpha(cutoff, dt):
        tau = 1.0 / (2.0 * math.pi * cutoff)
        return 1.0 / (1.0 + tau / dt)

    filtered, speed = list(points[0]), [0.0] * len(points[0])
    results = [list(filtered)]
    for step in range(1, len(points)):
        dt = stamps[step] - stamps[step - 1]
        for axis in range(len(filtered)):
            raw = (points[step][axis] - points[step - 1][axis]) / dt
            speed[axis] = alpha(d_cutoff, dt) * raw + (1 - alpha(d_cutoff, dt)) * speed[axis]
        cutoff = min_cutoff + beta * math.sqrt(sum(v * v for v in speed)) / unit
        for axis in range(len(filtered)):
            a = alpha(cutoff, dt)
            filtered[axis] = a * points[step][axis] + (1 - a) * filtered[axis]
        results.append(list(filtered))
    return results


def test_one_euro_equals_a_scalar_implementation():
    values, stamps = np.cumsum(noise(200, 4, 3), axis=0), random_stamps(200)
    f = new_filter("one_euro", min_cutoff_hz=1.3, beta=0.7, derivative_cutoff_hz=2.5)
    out = run(f, values, stamps, unit=3.0)
    for point in range(4):
        expected = scalar_one_euro(values[:, point].tolist(), stamps.tolist(), 1.3, 0.7, 2.5, 3.0)
        np.testing.assert_allclose(out[:, point], expected, rtol=1e-12, atol=1e-12)


def test_one_euro_with_beta_zero_is_a_first_order_low_pass():
    """Step response of a low-pass in irregular steps: what is left of the step is the product of 1 / (1 + dt / tau)."""
    f = new_filter("one_euro", min_cutoff_hz=2.0, beta=0.0)
    stamps = random_stamps(30)
    out = run(f, [[0.0]] + [[1.0]] * 29, stamps)[:, 0]
    tau = 1 / (2 * math.pi * 2.0)
    np.testing.assert_allclose(1 - out[1:], np.cumprod(1 / (1 + np.diff(stamps) / tau)), atol=1e-12)


def filterpy_reference(config, values, stamps, unit):
    """One channel through filterpy.kalman.KalmanFilter; a NaN is a missing measurement, i.e. a longer step."""
    kf = KalmanFilter(dim_x=2, dim_z=1)
    kf.H, kf.R = np.array([[1.0, 0.0]]), np.array([[(config.measurement * unit) ** 2]])
    results, last = [], None
    for value, stamp in zip(values, stamps, strict=True):
        if np.isnan(value):
            results.append(kf.x[0, 0] + kf.x[1, 0] * (stamp - last))
            continue
        if last is None:
            kf.x, kf.P = np.array([[value], [0.0]]), np.diag([kf.R[0, 0], (START_SPEED * unit) ** 2])
        else:
            dt = stamp - last
            noise_matrix = Q_discrete_white_noise(dim=2, dt=dt, var=(config.acceleration * unit) ** 2)
            kf.predict(F=np.array([[1.0, dt], [0.0, 1.0]]), Q=noise_matrix)
            kf.update(value)
        last = stamp
        results.append(kf.x[0, 0])
    return np.array(results), kf.x[1, 0]


@pytest.mark.parametrize("missing", [0.0, 0.3], ids=["complete", "some missing"])
@pytest.mark.parametrize("steps", ["regular", "irregular"])
def test_kalman_equals_filterpy(missing, steps):
    config, unit, count = FilterConfig(kind="kalman"), 90.0, 300
    values = 320 + np.cumsum(noise(count, 2, 2) * 4, axis=0)
    stamps = np.arange(count) / 30 if steps == "regular" else random_stamps(count)
    values[1:][np.random.default_rng(2).random((count - 1, 2, 2)) < missing] = np.nan
    f = make_filter(config, max_gap_s=100.0)
    out = run(f, values, stamps, unit)
    for point in range(2):
        for axis in range(2):
            expected, velocity = filterpy_reference(config, values[:, point, axis], stamps, unit)
            np.testing.assert_allclose(out[:, point, axis], expected, rtol=0, atol=1e-9)
            np.testing.assert_allclose(f.velocity[point, axis], velocity, rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    ("kind", "settings", "most_noise_left", "most_lag_s"),
    [
        ("one_euro", {"min_cutoff_hz": 2.0, "beta": 6.0, "derivative_cutoff_hz": 4.0}, 0.45, 0.007),
        ("kalman", {"acceleration": 40.0, "measurement": 0.03}, 0.72, 0.001),
    ],
)
def test_noise_falls_at_rest_and_lag_stays_small_in_motion(kind, settings, most_noise_left, most_lag_s):
    """Noise of 1 % of the palm at 60 Hz; then a sweep at 4 palm lengths/s."""
    stamps = np.arange(600) / 60
    still = noise(600, 21, 2) * 0.01
    left = run(new_filter(kind, **settings), still, stamps)[60:].std() / still[60:].std()
    assert left < most_noise_left
    sweep = run(new_filter(kind, **settings), stamps[:, None] * [[4.0, 0.0]], stamps)
    lag_s = (stamps[-1] * 4.0 - sweep[-1, 0]) / 4.0
    assert lag_s < most_lag_s
