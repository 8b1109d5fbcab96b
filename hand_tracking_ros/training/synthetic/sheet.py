"""Contact sheets of pools: look at hundreds of samples before training on them."""

from __future__ import annotations

import cv2
import numpy as np

from hand_tracking_ros.skeleton import EDGES, Side

COLORS = {Side.LEFT: (80, 200, 255), Side.RIGHT: (120, 255, 120)}  # BGR


def contact_sheet(arrays: dict[str, np.ndarray], columns: int = 12, rows: int = 10, labels: bool = True) -> np.ndarray:
    """BGR image of the first samples of a pool (dataset.py), every second one with its keypoints drawn."""
    images = arrays["images"][: columns * rows]
    owner = arrays.get("hand_image_index", np.arange(len(arrays["keypoints"])))
    cells = []
    for index, image in enumerate(images):
        cell = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR if image.ndim == 2 else cv2.COLOR_RGB2BGR)
        if labels and index % 2:
            for hand in np.flatnonzero(owner == index):
                draw(cell, arrays["keypoints"][hand], arrays["visible"][hand], Side(int(arrays["side"][hand])))
        cells.append(cell)
    while len(cells) % columns:
        cells.append(np.zeros_like(cells[0]))
    return np.concatenate([np.concatenate(cells[k : k + columns], axis=1) for k in range(0, len(cells), columns)])


def draw(image: np.ndarray, keypoints: np.ndarray, visible: np.ndarray, side: Side) -> None:
    """Bones in the colour of the side, hidden joints in red."""
    places = [tuple(round(float(v - 0.5) * 8) for v in point) for point in keypoints]  # corner to centre origin, 1/8 px
    for a, b in EDGES:
        cv2.line(image, places[a], places[b], COLORS[side], 1, cv2.LINE_AA, 3)
    for place, seen in zip(places, visible, strict=True):
        cv2.circle(image, place, 10, COLORS[side] if seen else (0, 0, 255), -1, cv2.LINE_AA, 3)
