"""The keypoint stage: KeyNet finds 21 keypoints in the crop around every box, all hands in one batch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from hand_tracking_ros.backends import create_backend
from hand_tracking_ros.config import InferenceConfig, KeypointConfig
from hand_tracking_ros.detection import load_task_manifest
from hand_tracking_ros.fusion import averaged
from hand_tracking_ros.geometry import box_around
from hand_tracking_ros.skeleton import NUM_JOINTS, palm_length
from hand_tracking_ros.types import NO_HAND, Camera, HandBox, HandKeypoints, Source
from hand_tracking_ros.views import CutOut, VirtualCamera, look_at

STRANGE, CLEAR = 0.5, 0.8  # how much a view looks like one of a right hand: too little, and enough to start afresh
PATIENCE = 10  # strange looks at a hand for one from scratch, which takes three


class KeypointEstimator:
    """Loads KeyNet, runs it on all boxes of an image at once. Raises ModelError or BackendError when it cannot.

    ``max_hands``: the most looks in a batch, until more boxes come; never more than the network takes.
    """

    def __init__(
        self,
        config: KeypointConfig = KeypointConfig(),
        inference: InferenceConfig = InferenceConfig(),
        max_hands: int = 2,
    ):
        self.config = config
        manifest = load_task_manifest(config.model, "keypoints", inference)
        self._max_batch = min(max_hands, manifest.max_batch)
        self.backend = create_backend(manifest, inference)
        self.manifest = self.backend.manifest
        self._size = int(self.manifest.inputs["crop"].shape[2])
        self._waits: dict[int, int] = {}  # strange looks until a hand may be read afresh again, by id

    @property
    def takes_prior(self) -> bool:
        """Whether the network is a KeyNet-F, told where keypoints are expected (``HandBox.expected_px``)."""
        return "prior" in self.manifest.inputs

    def estimate(
        self,
        mono: np.ndarray,
        boxes: Sequence[HandBox],
        camera: Camera | None = None,
        least_presence: float = NO_HAND,
        known: Sequence[HandKeypoints] = (),
    ) -> list[HandKeypoints]:
        """Keypoints for every box, in the same order, in px of the image (H, W) uint8 that ``camera`` took.

        Smeared keypoints are no hand, whatever the network's presence says: see ``sure_score``. Hands that are believed
        to be left are seen in a mirror; of new hands, and where nothing is known of the side, both views are tried,
        and their presence is that of the less convincing one. Keypoints are averaged with those that the box expects,
        where it says how sure these are (fusion.py). New detections are looked at once more when ``refine_new``: that
        crop follows the first result. What has less than ``least_presence`` is not looked at again: presence only falls
        (``TrackConfig.least_presence``). Of two results on the same hand, one of which may be ``known`` from an earlier
        look at this image, the one with the higher id gets presence 0.
        """
        self._max_batch = min(max(self._max_batch, len(boxes)), self.manifest.max_batch)
        looks = [_Look(hand_box, hand_box.right_score < 0.5) for hand_box in boxes]
        results = self._run(mono, looks, camera)
        unsure = [i for i, box in enumerate(boxes) if _is_unsure(box) and results[i].presence >= least_presence]
        others = self._run(mono, [_Look(boxes[i], not looks[i].mirror) for i in unsure], camera)
        for i, other in zip(unsure, others):
            presence = min(results[i].presence, other.presence)  # a hand is one in the mirror as well
            if _as_right(other, not looks[i].mirror) > _as_right(results[i], looks[i].mirror):
                results[i], looks[i] = other, _Look(boxes[i], not looks[i].mirror)
            results[i] = replace(results[i], presence=presence)
        if self.config.refine_new:
            new = [
                i for i, b in enumerate(boxes) if b.source == Source.DETECTED and results[i].presence >= least_presence
            ]
            closer = [looks[i]._replace(box=replace(boxes[i], box=box_around(results[i].keypoints_px))) for i in new]
            for i, refined in zip(new, self._run(mono, closer, camera)):
                presence = min(results[i].presence, refined.presence)
                results[i] = replace(refined, box=boxes[i].box, presence=presence)
        for i, box in enumerate(boxes):
            if box.expected_variance is not None and not self.takes_prior:  # a KeyNet-F has learned to do so
                seen, scores = results[i].keypoints_px, results[i].keypoint_scores
                points = averaged(box.expected_px, box.expected_variance, seen, scores)
                results[i] = replace(results[i], keypoints_px=points)
        return suppress_duplicates([*known, *results], self.config.duplicate_share)[len(known) :]

    def read_afresh(
        self,
        mono: np.ndarray,
        boxes: Sequence[HandBox],
        results: Sequence[HandKeypoints],
        camera: Camera | None = None,
        least_presence: float = NO_HAND,
    ) -> list[HandKeypoints]:
        """What is better to believe than one of the ``results`` that ``estimate`` had for ``boxes``: one hand, or none.

        A crop is turned by the last keypoints, so a hand that was read the wrong way round is read so again. Now and
        then a tracked hand that does not look like one of the side that it is believed to be is therefore looked at
        upright, in both views and with nothing expected, like a new one; what is clear then counts. That takes as long
        as two hands, so it is one hand per image, at most one in ``PATIENCE``: ids are remembered from image to image.
        """
        looks = [_Look(hand_box, hand_box.right_score < 0.5) for hand_box in boxes]
        strange = {
            seen.id: look for look, seen in zip(looks, results, strict=True)
            if not _is_unsure(look.box) and seen.presence >= least_presence and _as_right(seen, look.mirror) < STRANGE
        }  # fmt: skip
        due = self._due(strange)
        if due is None:
            return []
        box, source = strange[due].box.box, strange[due].box.source
        upright = HandBox(replace(box, angle_rad=0.0), 1.0, 0.5, due, source)
        views = [_Look(upright, mirror) for mirror in (False, True)]
        seen = self._run(mono, views, camera)
        right = [_as_right(hand, view.mirror) for hand, view in zip(seen, views)]
        best = int(np.argmax(right))
        closer = views[best]._replace(box=replace(upright, box=box_around(seen[best].keypoints_px)))
        (again,) = self._run(mono, [closer], camera)
        clear = min(right[best], _as_right(again, closer.mirror)) > CLEAR and again.presence >= least_presence
        return [replace(again, box=box)] if clear else []

    def _due(self, strange: Collection[int]) -> int | None:
        """Which of the ids that look ``strange`` is to be read afresh: the first whose wait is over."""
        if len(self._waits) > 8 * self._max_batch:
            self._waits.clear()
        due = next((i for i in strange if not self._waits.get(i)), None)
        for i in strange:
            self._waits[i] = PATIENCE - 1 if i == due else max(self._waits.get(i, 0) - 1, 0)
        return due

    def _run(self, mono: np.ndarray, looks: Sequence[_Look], camera: Camera | None) -> list[HandKeypoints]:
        results: list[HandKeypoints] = []
        for start in range(0, len(looks), self._max_batch):
            results += self._run_batch(mono, looks[start : start + self._max_batch], camera)
        return results

    def _run_batch(self, mono: np.ndarray, looks: Sequence[_Look], camera: Camera | None) -> list[HandKeypoints]:
        scale, size = self.config.crop_scale, self._size
        views = [look_at(look.box.box.scaled(scale), size, camera, look.mirror) for look in looks]
        feeds = {"crop": np.stack([view.crop(mono) for view in views])[:, None]}
        if self.takes_prior:
            feeds |= _expectations([look.box for look in looks], views)
        outputs = {name: values.astype(np.float64) for name, values in self.backend.run(feeds).items()}
        presence = outputs["presence"] * np.minimum(outputs["scores"].mean(axis=1) / self.config.sure_score, 1.0)
        results = []
        for i, ((hand_box, mirror), view) in enumerate(zip(looks, views)):
            keypoints_px, depth_rel = view.to_image(outputs["keypoints"][i], outputs["depth"][i])
            right = float(outputs["right"][i])
            results.append(
                HandKeypoints(
                    id=hand_box.id,
                    box=hand_box.box,
                    source=hand_box.source,
                    keypoints_px=keypoints_px,
                    keypoint_scores=outputs["scores"][i],
                    depth_rel=depth_rel,
                    presence=float(presence[i]),
                    right_score=1.0 - right if mirror else right,
                )
            )
        return results


class _Look(NamedTuple):
    """A box to look at, and whether in a mirror."""

    box: HandBox
    mirror: bool


def _is_unsure(hand_box: HandBox) -> bool:
    """Whether nothing is known of the side yet."""
    return hand_box.source == Source.DETECTED or hand_box.right_score == 0.5


def _as_right(seen: HandKeypoints, mirror: bool) -> float:
    """How much the view, mirrored or not, looked like one of a right hand, 0..1."""
    return 1.0 - seen.right_score if mirror else seen.right_score


def _expectations(boxes: Sequence[HandBox], views: Sequence[CutOut | VirtualCamera]) -> dict[str, np.ndarray]:
    """What KeyNet-F is told: keypoints in px of the crops, and 1 where they are known, else 0."""
    prior = np.zeros((len(boxes), NUM_JOINTS, 2), np.float32)
    scores = np.zeros((len(boxes), NUM_JOINTS), np.float32)
    for i, (hand_box, view) in enumerate(zip(boxes, views)):
        if hand_box.expected_px is not None:
            expected = view.to_crop(hand_box.expected_px)
            known = np.isfinite(expected).all(axis=1)
            prior[i, known], scores[i, known] = expected[known], 1.0
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
