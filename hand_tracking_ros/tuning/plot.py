"""Accuracy over latency of the measured candidates, with the Pareto front, drawn with OpenCV."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor, isnan, log10

import cv2
import numpy as np

from hand_tracking_ros.tuning.choice import Limits, Result, accuracy_floor, choose, pareto_front

WIDTH, HEIGHT = 960, 600
LEFT, RIGHT, TOP, BOTTOM = 90, 930, 60, 520  # px of the area that is drawn in
BLACK, GREY, LIGHT, RED = (30, 30, 30), (140, 140, 140), (225, 225, 225), (0, 0, 220)
COLOURS = {
    "onnxruntime": (200, 120, 40),
    "openvino": (60, 150, 40),
    "tensorrt": (40, 60, 210),
    "onnxruntime_cuda": (160, 60, 160),
}  # BGR
MARKERS = {"int8": cv2.MARKER_DIAMOND, "fp32": cv2.MARKER_SQUARE, "fp16": cv2.MARKER_TRIANGLE_UP}


class Axes:
    """From (latency ms, accuracy %) to pixels, over the range of the points and the floor, with room around it."""

    def __init__(self, points: Sequence[tuple[float, float]], least: float) -> None:
        xs, ys = np.array(points).T
        low, high = min(float(ys.min()), least), max(float(ys.max()), least)
        room = max(0.15 * (high - low), 0.2)
        self.x0, self.x1 = 0.0, 1.1 * float(xs.max())
        self.y0, self.y1 = low - room, high + room

    def pixel(self, x: float, y: float) -> tuple[int, int]:
        """(column, row) of a point."""
        column = LEFT + (RIGHT - LEFT) * (x - self.x0) / (self.x1 - self.x0)
        return round(column), round(BOTTOM - (BOTTOM - TOP) * (y - self.y0) / (self.y1 - self.y0))


def ticks(low: float, high: float) -> list[float]:
    """About five round values between ``low`` and ``high``."""
    rough = (high - low) / 5
    power = 10.0 ** floor(log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough)
    return [k * step for k in range(int(np.ceil(low / step - 1e-9)), int(np.floor(high / step + 1e-9)) + 1)]


def draw(results: Sequence[Result], limits: Limits, title: str) -> np.ndarray:
    """(600, 960, 3) uint8 BGR; candidates that failed or state no accuracy are left out."""
    shown = [result for result in results if not result.failure and not isnan(result.accuracy_percent)]
    image = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    _text(image, title, (LEFT, 34), 0.55)
    if not shown:
        _text(image, "no candidate that ran states an accuracy", (LEFT, HEIGHT // 2), 0.6)
        return image
    points = [(result.p50_ms(limits), result.accuracy_percent) for result in shown]
    least = accuracy_floor(results, limits)
    axes, front, chosen = Axes(points, least), pareto_front(points), choose(results, limits)
    _frame(image, axes, least)
    cv2.polylines(image, [_stairs([axes.pixel(*points[index]) for index in front])], False, BLACK, 1)
    for index, (result, point) in enumerate(zip(shown, points)):
        at, candidate = axes.pixel(*point), result.candidate
        cv2.drawMarker(image, at, COLOURS[candidate.backend], MARKERS[candidate.precision], 12, 2, cv2.LINE_AA)
        if index in front:
            cv2.circle(image, at, 9, BLACK, 1, cv2.LINE_AA)
        if result is chosen:
            cv2.circle(image, at, 14, RED, 2, cv2.LINE_AA)
        _text(image, str(candidate.threads), (at[0] - 4, at[1] + (-18 if index % 2 else 28)), 0.4, GREY)
    _legend(image, shown)
    return image


def _stairs(front: Sequence[tuple[int, int]]) -> np.ndarray:
    """The edge of what the front leaves to the others: from each point to the right, then up to the next."""
    nexts = [*(column for column, _ in front[1:]), RIGHT]
    return np.array([corner for (column, row), end in zip(front, nexts) for corner in ((column, row), (end, row))])


def _frame(image: np.ndarray, axes: Axes, least: float) -> None:
    for x in ticks(axes.x0, axes.x1):
        column = axes.pixel(x, 0)[0]
        cv2.line(image, (column, TOP), (column, BOTTOM), LIGHT, 1)
        _text(image, f"{x:g}", (column - 8, BOTTOM + 20), 0.42)
    for y in ticks(axes.y0, axes.y1):
        row = axes.pixel(0, y)[1]
        cv2.line(image, (LEFT, row), (RIGHT, row), LIGHT, 1)
        _text(image, f"{y:.5g}", (LEFT - 45, row + 4), 0.42)
    cv2.rectangle(image, (LEFT, TOP), (RIGHT, BOTTOM), BLACK, 1)
    row = axes.pixel(0, least)[1]
    cv2.line(image, (LEFT, row), (RIGHT, row), RED, 1)
    _text(image, "accuracy floor", (RIGHT - 110, row - 6), 0.42, RED)
    _text(image, "median latency, ms", ((LEFT + RIGHT) // 2 - 60, BOTTOM + 42), 0.48)
    _text(image, "accuracy, %", (8, TOP - 14), 0.48)


def _legend(image: np.ndarray, shown: Sequence[Result]) -> None:
    column = LEFT
    kinds = dict.fromkeys((result.candidate.backend, result.candidate.precision) for result in shown)
    for backend, precision in kinds:
        cv2.drawMarker(image, (column, HEIGHT - 20), COLOURS[backend], MARKERS[precision], 10, 2, cv2.LINE_AA)
        _text(image, f"{backend} {precision}", (column + 12, HEIGHT - 16), 0.42)
        column += 150
    _text(image, "number: threads; ring: Pareto front; red: chosen", (max(column, 600), HEIGHT - 16), 0.42)


def _text(image: np.ndarray, text: str, at: tuple[int, int], scale: float, colour=BLACK) -> None:
    cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, 1, cv2.LINE_AA)
