"""Drawing hands on an image: skeleton, box and label."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np

from hand_tracking_ros.skeleton import EDGES, FINGERS, Side
from hand_tracking_ros.types import Hand, Source

# BGR. Fingers by hue, so that a joint on the wrong finger is seen at once; the palm is neutral.
FINGER_COLORS = {
    "thumb": (80, 80, 255),
    "index": (60, 190, 255),
    "middle": (90, 220, 110),
    "ring": (255, 180, 60),
    "little": (240, 110, 220),
}
PALM_COLOR = (235, 235, 235)
SIDE_COLORS = {Side.LEFT: (200, 120, 30), Side.RIGHT: (40, 90, 200), Side.UNKNOWN: (110, 110, 110)}
SHADOW = (20, 20, 20)
LOW_SCORE = 0.3  # a joint with less is drawn hollow

_JOINT_COLORS = {joint: FINGER_COLORS[name] for name, chain in FINGERS.items() for joint in chain} | {0: PALM_COLOR}
# The base of each finger belongs to the palm: an edge has a finger's colour when both ends lie on that finger.
_EDGE_COLORS = [
    next((FINGER_COLORS[name] for name, chain in FINGERS.items() if a in chain and b in chain), PALM_COLOR)
    for a, b in EDGES
]
_SHIFT = 4  # fractional bits of OpenCV's drawing coordinates


def draw_hands(image_bgr: np.ndarray, hands: Iterable[Hand]) -> np.ndarray:
    """A copy of ``image_bgr`` (H, W, 3), or of a mono image in grey, with the hands drawn on it that it shows."""
    canvas = cv2.cvtColor(image_bgr, cv2.COLOR_GRAY2BGR) if image_bgr.ndim == 2 else image_bgr.copy()
    hands = [hand for hand in hands if np.isfinite(hand.keypoints_px).any()]
    unit = max(canvas.shape[:2]) / 640
    if hands:
        _draw_boxes(canvas, hands, unit)
    for hand in hands:
        _draw_skeleton(canvas, hand, unit)
    for hand in hands:
        _draw_label(canvas, hand, unit)
    return canvas


def _draw_boxes(canvas: np.ndarray, hands: list[Hand], unit: float) -> None:
    """Faint outlines; dim where the box is only extrapolated."""
    faint = canvas.copy()
    for hand in hands:
        color = (150, 150, 150) if hand.source == Source.PREDICTED else (255, 255, 255)
        cv2.polylines(faint, [_fixed(hand.box.corners())], True, color, _width(1, unit), cv2.LINE_AA, _SHIFT)
    cv2.addWeighted(faint, 0.4, canvas, 0.6, 0, dst=canvas)


def _draw_skeleton(canvas: np.ndarray, hand: Hand, unit: float) -> None:
    """Bones over a dark outline, joints on top. Small hands get finer lines, so that fingers stay apart."""
    unit *= float(np.clip(min(hand.box.size_px) / (110 * unit), 0.45, 1.3))
    known = np.isfinite(hand.keypoints_px).all(axis=1)
    points = _fixed(np.where(known[:, None], hand.keypoints_px, 0.0))
    edges = [(edge, color) for edge, color in zip(EDGES, _EDGE_COLORS, strict=True) if known[list(edge)].all()]
    for layer_width, layer_color in ((4, SHADOW), (2, None)):
        for (a, b), color in edges:
            start, end = tuple(points[a].tolist()), tuple(points[b].tolist())
            cv2.line(canvas, start, end, layer_color or color, _width(layer_width, unit), cv2.LINE_AA, _SHIFT)
    for joint in np.flatnonzero(known):
        center, radius = tuple(points[joint].tolist()), round(3.0 * unit * 2**_SHIFT)
        hollow = hand.keypoint_scores[joint] < LOW_SCORE
        color = _JOINT_COLORS[int(joint)]
        cv2.circle(canvas, center, radius, SHADOW if hollow else color, -1, cv2.LINE_AA, _SHIFT)
        cv2.circle(canvas, center, radius, color if hollow else SHADOW, _width(1, unit), cv2.LINE_AA, _SHIFT)


def _draw_label(canvas: np.ndarray, hand: Hand, unit: float) -> None:
    """'right 3  0.97' on a plate of the side's colour, above the hand where there is room."""
    name = "hand" if hand.side == Side.UNKNOWN else hand.side.name.lower()
    text = f"{name} {hand.id}  {hand.score:.2f}"
    font, size, width = cv2.FONT_HERSHEY_SIMPLEX, max(0.4, 0.42 * unit), _width(1, unit)
    (text_width, text_height), baseline = cv2.getTextSize(text, font, size, width)
    pad = round(3 * unit) + 1
    plate_width, plate_height = text_width + 2 * pad, text_height + baseline + pad
    x0, y0, _, y1 = hand.box.bounds()
    height, width_px = canvas.shape[:2]
    left = int(np.clip(x0, 0, max(width_px - plate_width, 0)))
    top = int(y0) - plate_height if y0 >= plate_height else int(y1)
    top = int(np.clip(top, 0, max(height - plate_height, 0)))
    plate = canvas[top : top + plate_height, left : left + plate_width]
    color = np.array(SIDE_COLORS[hand.side])
    plate[:] = (0.25 * plate + 0.75 * color).astype(np.uint8)
    origin = (left + pad, top + text_height + pad)
    cv2.putText(canvas, text, origin, font, size, (255, 255, 255), width, cv2.LINE_AA)


def _fixed(points_px: np.ndarray) -> np.ndarray:
    """Corner-origin pixels as OpenCV's fixed-point drawing coordinates, which count pixel centres."""
    return np.round((np.clip(points_px, -1e4, 1e5) - 0.5) * 2**_SHIFT).astype(np.int32)


def _width(pixels: float, unit: float) -> int:
    return max(1, round(pixels * unit))
