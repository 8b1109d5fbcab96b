"""The detection stage: DetNet finds every hand in a whole mono image."""

from __future__ import annotations

import numpy as np

from hand_tracking_ros.backends import check_precision, create_backend
from hand_tracking_ros.config import DetectorConfig, InferenceConfig
from hand_tracking_ros.errors import ModelError
from hand_tracking_ros.geometry import Box, averaged, iou, warp
from hand_tracking_ros.manifest import ModelManifest, load_manifest
from hand_tracking_ros.types import HandBox, Source


class HandDetector:
    """Loads DetNet and runs it. Raises ModelError or BackendError when it cannot."""

    def __init__(self, config: DetectorConfig = DetectorConfig(), inference: InferenceConfig = InferenceConfig()):
        self.config = config
        self.backend = create_backend(load_task_manifest(config.model, "detect", inference), inference, max_batch=1)
        self.manifest = self.backend.manifest
        _, _, self._height, self._width = self.manifest.inputs["image"].shape

    def detect(self, mono: np.ndarray) -> list[HandBox]:
        """Hands in an image (H, W) uint8, best first: tight square boxes in the hand's own direction, in image px."""
        height, width = mono.shape
        shrink = max(width / self._width, height / self._height)
        outputs = self.backend.run({"image": letterboxed(mono, shrink, (self._width, self._height))[None, None]})
        found = decode(outputs["scores"][0], outputs["boxes"][0], self.config.score_threshold, 1 / shrink)
        return suppress([hand for hand in found if _centred_inside(hand.box, width, height)], self.config.nms_iou)


def letterboxed(mono: np.ndarray, shrink: float, wh: tuple[int, int]) -> np.ndarray:
    """The image (H, W) uint8, ``shrink`` times smaller, at the top left of a black one of ``wh`` px."""
    height, width = mono.shape
    if shrink % 1 or height % shrink or width % shrink:
        return warp(mono, np.eye(2, 3) / shrink, wh)
    height, width = round(height / shrink), round(width / shrink)
    image = np.zeros(wh[::-1], np.uint8)  # ``warp`` does the same in ten times as long
    image[:height, :width] = averaged(mono, (width, height))
    return image


def _centred_inside(box: Box, width: int, height: int) -> bool:
    """False for what DetNet sees in the margin that the letterbox adds."""
    x, y = box.center_px
    return 0 <= x < width and 0 <= y < height


def decode(scores: np.ndarray, boxes: np.ndarray, threshold: float, scale: float) -> list[HandBox]:
    """Peaks of ``scores`` (h, w) of at least ``threshold`` as boxes in image px, best first.

    ``boxes`` (6, h, w): see docs/architecture.md; ``scale``: network pixels per image pixel.
    """
    rows, columns = np.nonzero((scores >= threshold) & (boxes[2] > 0))  # a box without a size is none
    order = np.argsort(-scores[rows, columns], kind="stable")
    found = []
    for row, column in zip(rows[order], columns[order]):
        x, y, side, cos, sin, right = (float(v) for v in boxes[:, row, column])
        box = Box((x / scale, y / scale), (side / scale, side / scale), float(np.arctan2(sin, cos)))
        found.append(HandBox(box, float(scores[row, column]), right, source=Source.DETECTED))
    return found


def suppress(found: list[HandBox], most_iou: float) -> list[HandBox]:
    """Non-maximum suppression: drop what overlaps a better one by more than ``most_iou``."""
    kept: list[HandBox] = []
    for candidate in found:
        if all(iou(candidate.box, better.box) <= most_iou for better in kept):
            kept.append(candidate)
    return kept


def load_task_manifest(model: str, task: str, inference: InferenceConfig = InferenceConfig()) -> ModelManifest:
    """The manifest of ``model`` (a name or a path).

    ModelError when it is for another task, BackendError when ``inference`` asks for another precision than it has.
    """
    manifest = load_manifest(model)
    if manifest.task != task:
        raise ModelError(
            f"model '{model}' is for task '{manifest.task}', needed is one for '{task}': choose another model"
        )
    check_precision(manifest, inference)
    return manifest
