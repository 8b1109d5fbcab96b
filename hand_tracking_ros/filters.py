"""Temporal filters over arrays of points: none, one-euro, constant-velocity Kalman, behind one interface.

Conventions
- ``values`` (..., D): points with D coordinates each, any unit, e.g. (21, 2) px. Every number is a channel.
- Time is in seconds and comes from the caller; steps may vary. A filter keeps, per channel, the state at the channel's
  last measurement, so a missing measurement is nothing but a longer step.
- NaN (or infinity) is a missing measurement: that channel is extrapolated with its velocity for at most ``max_gap_s``,
  then NaN. After a longer gap a channel starts afresh; a stamp before the last one starts everything afresh; a
  repeated stamp changes nothing.
- ``unit`` is the palm length in the unit of ``values`` (a number, or an array that broadcasts against them): filter
  settings are in palm lengths, so one setting fits hands near and far.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from hand_tracking_ros.config import FilterConfig, TrackConfig

# Kalman: how fast a new hand may already move, palm lengths/s (standard deviation). About 1 m/s: it only has to be
# wide enough that the second measurement decides.
START_SPEED = 10.0

State = tuple[np.ndarray, ...]  # position, velocity, then what the filter needs; each broadcasts against the values


def make_filter(config: FilterConfig, max_gap_s: float = TrackConfig.max_gap_s) -> Filter:
    """The filter that ``config.kind`` names."""
    return _FILTERS[config.kind](config, max_gap_s)


class Filter:
    """Base: time, gaps and missing channels. On its own it passes values through (kind 'none').

    Subclasses say how a channel starts (``_start``) and what one measurement does to it (``_correct``).
    """

    def __init__(self, config: FilterConfig, max_gap_s: float = TrackConfig.max_gap_s) -> None:
        self._config = config
        self._max_gap_s = max_gap_s
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next update starts as on a new filter."""
        self._state: State | None = None
        self._stamp_s: float | None = None
        self._measured_s: float | np.ndarray = math.nan  # per channel once they differ

    def update(self, values: np.ndarray, stamp_s: float, unit: float | np.ndarray = 1.0) -> np.ndarray:
        """Take the measurement ``values`` (..., D) of time ``stamp_s`` and return the filtered values, same shape."""
        self.take(values, stamp_s, unit)
        return self.predict(stamp_s)

    def take(self, values: np.ndarray, stamp_s: float, unit: float | np.ndarray = 1.0) -> None:
        """``update``, for those who ask later what comes of it."""
        stamp_s = float(stamp_s)
        values = self._checked(values, stamp_s, unit)
        if self._stamp_s is not None and stamp_s < self._stamp_s:
            self.reset()
        if stamp_s != self._stamp_s:
            self._step(values, stamp_s, unit)
            self._stamp_s = stamp_s

    def predict(self, stamp_s: float) -> np.ndarray:
        """Values expected at ``stamp_s``, from the last measurements and velocities; the filter does not change."""
        position, velocity = self._known()[:2]
        elapsed_s = stamp_s - self._measured_s
        expected = position + velocity * elapsed_s
        recent = elapsed_s <= self._max_gap_s
        return expected if recent is True else np.where(recent, expected, np.nan)

    @property
    def velocity(self) -> np.ndarray:
        """Velocity of every channel per second, as of its last measurement; 0 after the first one."""
        return self._known()[1].copy()

    @property
    def position(self) -> np.ndarray | None:
        """The filtered values as of the last measurement; None before the first."""
        return None if self._state is None else self._state[0]

    def map_positions(self, move: Callable[[np.ndarray], np.ndarray], with_velocities: bool = False) -> None:
        """Express everything that is a position in other coordinates; velocities stay, where these are but another
        origin, or follow."""
        if self._state is None:
            return
        position, velocity = self._state[:2]
        moved = [move(part) if i in self._positions else part for i, part in enumerate(self._state)]
        if with_velocities:
            moved[1] = (move(position + 1e-4 * velocity) - moved[0]) / 1e-4
        self._state = tuple(moved)

    _positions = (0,)  # of the parts of the state, those that are positions

    def _step(self, values: np.ndarray, stamp_s: float, unit: float | np.ndarray) -> None:
        measured = np.isfinite(values)
        complete = measured.all()
        dt_s = stamp_s - self._measured_s
        going_on = dt_s <= self._max_gap_s  # False for NaN: never measured
        if complete and going_on is True:  # a plain bool while all channels share their times
            self._state = self._correct(self._state, values, dt_s, unit)
            self._measured_s = stamp_s
            return
        values = np.where(measured, values, np.nan)
        start = self._start(values)
        if self._state is None:
            self._state = start
        else:
            corrected = self._correct(self._state, values, dt_s, unit)
            going_on = [np.where(going_on, new, first) for new, first in zip(corrected, start, strict=True)]
            self._state = tuple(np.where(measured, new, old) for new, old in zip(going_on, self._state, strict=True))
        self._measured_s = stamp_s if complete else np.where(measured, stamp_s, self._measured_s)

    def _start(self, values: np.ndarray) -> State:
        return values, values * 0.0  # times 0 keeps NaN: what was never measured has no velocity either

    def _correct(self, state: State, values: np.ndarray, dt_s: float | np.ndarray, unit: float | np.ndarray) -> State:
        return values, (values - state[0]) / dt_s

    def _known(self) -> State:
        if self._state is None:
            raise RuntimeError("the filter has no measurement yet: call update() first")
        return self._state

    def _checked(self, values: np.ndarray, stamp_s: float, unit: float | np.ndarray) -> np.ndarray:
        values = np.array(values, dtype=np.float64)
        if values.ndim == 0:
            raise ValueError("values must have shape (..., D), got a single number")
        if self._state is not None and values.shape != self._state[0].shape:
            raise ValueError(f"values must keep shape {self._state[0].shape}, got {values.shape}; reset() to change it")
        if not math.isfinite(stamp_s):
            raise ValueError(f"stamp_s must be finite, got {stamp_s}")
        least, most = (unit, unit) if isinstance(unit, float) else (np.min(unit), np.max(unit))
        if not (least > 0 and most < math.inf):  # NaN is neither
            raise ValueError(f"unit (palm length) must be finite and positive, got {unit}")
        return values


class OneEuroFilter(Filter):
    """One-euro filter (Casiez et al., CHI 2012): a low-pass whose cut-off rises with speed.

    Two choices where the paper leaves or invites one:
    - The speed that opens the filter is that of the point (norm over the last axis), not of each coordinate. With one
      cut-off per coordinate a hand moving along x would have its y smoothed harder, and the result would depend on how
      the camera is rolled.
    - The derivative is taken between raw measurements. Against the last filtered value, as in the paper's listing,
      the filter's own lag counts as speed, and the published velocity would be several times too high.
    """

    _positions = (0, 2)

    def _start(self, values: np.ndarray) -> State:
        return values, values * 0.0, values

    def _correct(self, state: State, values: np.ndarray, dt_s: float | np.ndarray, unit: float | np.ndarray) -> State:
        position, velocity, raw = state
        config = self._config
        velocity = velocity + _low_pass(config.derivative_cutoff_hz, dt_s) * ((values - raw) / dt_s - velocity)
        squares = np.square(velocity / unit)
        speed = np.sqrt(np.sum(squares, axis=-1, keepdims=True, where=squares == squares))  # without missing channels
        cutoff_hz = config.min_cutoff_hz + config.beta * speed
        return position + _low_pass(cutoff_hz, dt_s) * (values - position), velocity, values


def _low_pass(cutoff_hz: float | np.ndarray, dt_s: float | np.ndarray) -> float | np.ndarray:
    """Weight of the newest value in a first-order low-pass."""
    angle = 2 * np.pi * cutoff_hz * dt_s
    return angle / (1 + angle)


class ConstantVelocityKalman(Filter):
    """Kalman filter per channel: constant velocity, acceleration noise constant within a step (discrete white noise).

    Equals ``filterpy.kalman.KalmanFilter`` with the same matrices; filterpy designs the noise, numpy runs the update
    for all channels at once. Noises and covariance are in palm lengths. Both noises scale with ``unit``, which
    therefore cancels from the gain: the covariance is one scalar for all channels until some lack a measurement.
    """

    def __init__(self, config: FilterConfig, max_gap_s: float = TrackConfig.max_gap_s) -> None:
        super().__init__(config, max_gap_s)
        from filterpy.common import Q_discrete_white_noise  # imports scipy: only for those who use it

        self._noise = Q_discrete_white_noise(dim=2, dt=1.0, var=config.acceleration**2)  # scaled by powers of dt
        self._measurement_variance = config.measurement**2

    def _start(self, values: np.ndarray) -> State:
        variances = (self._measurement_variance, 0.0, START_SPEED**2)
        return values, values * 0.0, *map(np.float64, variances)

    def _correct(self, state: State, values: np.ndarray, dt_s: float | np.ndarray, unit: float | np.ndarray) -> State:
        position, velocity, var_p, cov, var_v = state
        (noise_p, noise_pv), (_, noise_v) = self._noise
        var_p = var_p + dt_s * (2 * cov + dt_s * var_v) + noise_p * dt_s**4
        cov = cov + dt_s * var_v + noise_pv * dt_s**3
        var_v = var_v + noise_v * dt_s**2
        innovation = values - (position + velocity * dt_s)
        gain_p = var_p / (var_p + self._measurement_variance)
        gain_v = cov / (var_p + self._measurement_variance)
        position = position + velocity * dt_s + gain_p * innovation
        velocity = velocity + gain_v * innovation
        return position, velocity, (1 - gain_p) * var_p, (1 - gain_p) * cov, var_v - gain_v * cov


_FILTERS = {"none": Filter, "one_euro": OneEuroFilter, "kalman": ConstantVelocityKalman}
