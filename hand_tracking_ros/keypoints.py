"""The keypoint stage: KeyNet finds 21 keypoints in the crop around every box, all hands in one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hand_tracking_ros.backends import create_backend
from hand_tracking_ros.config import InferenceConfig, KeypointConfig
from hand_tracking_ros.detection import load_task_manifest
from hand_tracking_ros.geometry import apply, box_around, crop_from_image, invert, warp
from hand_tracking_ros.skeleton import NUM_JOINTS, palm_length
from hand_tracking_ros.types import HandBox, HandKeypoints, Source


class KeypointEstimator:
    """Loads KeyNet, runs it on up to ``max_hands`` boxes at once. Raises ModelError or BackendError when it cannot."""

    def __init__(
        self,
        config: KeypointConfig = KeypointConfig(),
        inference: InferenceConfig = InferenceConfig(),
        max_hands: int = 2,
    ):
        self.config = config
        manifest = load_task_manifest(config.model, "keypoints")
        self._max_batch = min(max_hands, manifest.max_batch)
        self.backend = create_backend(manifest, inference, max_batch=self._max_batch)
        self.manifest = self.backend.manifest
        self._size = int(self.manifest.inputs["crop"].shape[2])

    def estimate(self, mono: np.ndarray, boxes: Sequence[HandBox]) -> list[HandKeypoints]:
        """Keypoints for every box, in the same order, in px of the image (H, W) uint8.

        Smeared keypoints are no hand, whatever the network's presence says: see ``sure_score``.
        New detections are looked at twice when ``refine_new``: the second crop follows the first result. Of two results
        on the same hand the one with the higher id gets presence 0.
        """
        results = self._run(mono, boxes)
        if self.config.refine_new:
            new = [
                i
                for i, hand_box in enumerate(boxes)
                if hand_box.source == Source.DETECTED and results[i].presence > 0.1
            ]
            closer = [replace(boxes[i], box=box_around(results[i].keypoints_px)) for i in new]
            for i, refined in zip(new, self._run(mono, closer)):
                results[i] = replace(refined, box=boxes[i].box)
        return suppress_duplicates(results, self.config.duplicate_share)

    def _run(self, mono: np.ndarray, boxes: Sequence[HandBox]) -> list[HandKeypoints]:
        results: list[HandKeypoints] = []
        for start in range(0, len(boxes), self._max_batch):
            results += self._run_batch(mono, boxes[start : start + self._max_batch])
        return results

    def _run_batch(self, mono: np.ndarray, boxes: Sequence[HandBox]) -> list[HandKeypoints]:
        wh = (self._size, self._size)
        matrices = [crop_from_image(hand_box.box.scaled(self.config.crop_scale), wh) for hand_box in boxes]
        crops = np.stack([warp(mono, matrix, wh, border_value=None) for matrix in matrices])[:, None]
        feeds = {"crop": crops}
        if "prior" in self.manifest.inputs:
            feeds |= _expectations(boxes, matrices)
        outputs = self.backend.run(feeds)
        return [
            HandKeypoints(
                id=hand_box.id,
                box=hand_box.box,
                source=hand_box.source,
                keypoints_px=apply(invert(matrix), outputs["keypoints"][i].astype(np.float64)),
                keypoint_scores=outputs["scores"][i].astype(np.float64),
                depth_rel=outputs["depth"][i].astype(np.float64),
                presence=float(outputs["presence"][i]) * min(1.0, outputs["scores"][i].mean() / self.config.sure_score),
                right_score=float(outputs["right"][i]),
            )
            for i, (hand_box, matrix) in enumerate(zip(boxes, matrices))
        ]


def _expectations(boxes: Sequence[HandBox], matrices: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """What KeyNet-F is told: keypoints in px of the crops, and 1 where they are known, else 0."""
    prior = np.zeros((len(boxes), NUM_JOINTS, 2), np.float32)
    scores = np.zeros((len(boxes), NUM_JOINTS), np.float32)
    for i, (hand_box, matrix) in enumerate(zip(boxes, matrices)):
        if hand_box.expected_px is not None:
            known = np.isfinite(hand_box.expected_px).all(axis=1)
            prior[i, known] = apply(matrix, hand_box.expected_px[known])
            scores[i, known] = 1.0
    return {"prior": prior, "prior_scores": scores}


def suppress_duplicates(hands: list[HandKeypoints], share: float) -> list[HandKeypoints]:
    """Set presence to 0 for hands that lie on another one: mean keypoint distance under ``share`` of the palm.

    The hand with the lower id, tracked for longer, stays, unless only the other one is really there.
    """
    kept = list(hands)
    for i in range(len(kept)):
        for j in range(i + 1, len(kept)):
            gap = np.linalg.norm(kept[i].keypoints_px - kept[j].keypoints_px, axis=1).mean()
            if gap < share * max(palm_length(kept[i].keypoints_px), palm_length(kept[j].keypoints_px)):
                weaker = i if kept[i].presence < 0.5 * kept[j].presence else j
                kept[weaker] = replace(kept[weaker], presence=0.0)
    return kept
