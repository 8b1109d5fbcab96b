"""Labelled images in memory: mono pictures, and the hands on them.

Reads data sets in the format of docs/evaluation.md (``labels.jsonl``, from the teacher) beside their image folders, and
``boxes.jsonl`` for hands that the teacher did not see.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from hand_tracking_ros.errors import ConfigError, RecordError, SourceError
from hand_tracking_ros.geometry import Box, box_around, iou
from hand_tracking_ros.skeleton import NUM_JOINTS
from hand_tracking_ros.training.synthetic.photo import MONO_CHANCES, MONO_WEIGHTS


@dataclass(frozen=True)
class LabelledHand:
    """keypoints_px (21, 2), NaN where only the box is known; depth (21,) palm lengths or NaN; right 0, 1 or 0.5."""

    keypoints_px: np.ndarray
    depth: np.ndarray
    right: float
    box: Box

    @property
    def has_keypoints(self) -> bool:
        return bool(np.isfinite(self.keypoints_px).all())


@dataclass(frozen=True)
class LabelledImage:
    """mono (H, W) uint8, alpha (H, W) uint8 or None for cut-outs, and its hands. ``name``: relative path."""

    name: str
    mono: np.ndarray
    hands: tuple[LabelledHand, ...]
    alpha: np.ndarray | None = field(default=None)


def held_out(name: str, percent: float) -> bool:
    """Whether a file belongs to the held-out part: by a hash of its stem, so the same on every machine and run.

    The stem of a HaGRID crop is its photo's uuid, so both hands of a photo fall on the same side.
    """
    return int(hashlib.sha256(Path(name).stem.encode()).hexdigest()[:8], 16) % 10000 < percent * 100


def load_labelled(
    images: Path, labels: Path, *, keep=lambda name: True, boxes: Path | None = None, mixed: bool = False
) -> list[LabelledImage]:
    """Images below ``images`` that ``labels`` (labels.jsonl) names and ``keep(name)`` accepts, with their hands.

    ``boxes``: a boxes.jsonl whose boxes add hands that the labels lack (keypoints NaN). ``mixed``: colour images become
    grey as one mono sensor or another sees them, always the same for a file. Raises SourceError and RecordError.
    """
    records = dict(_records(labels, "hands", _hand_from_label))
    for file, boxed in _records(boxes, "boxes", _hand_from_box) if boxes is not None else ():
        hands = records.setdefault(file, [])
        hands += [h for h in boxed if all(iou(h.box, o.box) < 0.3 for o in hands)]
    loaded = []
    for name, hands in sorted(records.items()):
        if keep(name) and hands:
            loaded.append(_load_image(images, name, tuple(hands), mixed))
    return loaded


def _records(path: Path, key: str, hand_from: Callable[..., LabelledHand]) -> Iterator[tuple[str, list[LabelledHand]]]:
    """File and hands of every line. Raises RecordError."""
    with path.open() as lines:
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line)
                hands = [hand_from(hand) for hand in record[key]]
                yield record["file"], hands
            except (ValueError, KeyError, TypeError) as error:
                raise RecordError(
                    f"{path}, line {number} does not state 'file' and '{key}' as docs/evaluation.md describes them; "
                    "'hand-tracking label' writes such lines"
                ) from error


def _load_image(folder: Path, name: str, hands: tuple[LabelledHand, ...], mixed: bool) -> LabelledImage:
    image = cv2.imread(str(folder / name), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise SourceError(f"cannot read {folder / name}, named by the labels: wrong image folder?")
    has_alpha = image.ndim == 3 and image.shape[2] == 4
    alpha = cv2.erode(image[..., 3], np.ones((3, 3), np.uint8)) if has_alpha else None  # cut-outs have dark outlines
    mono = image if image.ndim == 2 else _as_grey(image[..., :3], name if mixed else None)
    mono = np.ascontiguousarray(mono) if alpha is None else _grown(mono, alpha)
    return LabelledImage(name, mono, hands, alpha)


def _as_grey(bgr: np.ndarray, name: str | None) -> np.ndarray:
    """(H, W) uint8 of an image (H, W, 3); the sensor is chosen by the ``name`` of its file, luma without one."""
    if name is None:
        return cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY)
    chance = np.random.default_rng(list(hashlib.sha256(name.encode()).digest()))
    red_green_blue = MONO_WEIGHTS[chance.choice(list(MONO_WEIGHTS), p=MONO_CHANCES)]
    return cv2.transform(bgr, np.array([red_green_blue[::-1]]))


def _grown(mono: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """A cut-out whose edges go on where it is transparent: else they get a rim when it is scaled and blended."""
    share = alpha.astype(np.float32) / 255
    weight = cv2.GaussianBlur(share, (0, 0), 3.0)
    around = cv2.GaussianBlur(mono * share, (0, 0), 3.0) / np.maximum(weight, 1e-3)
    return np.clip(mono * share + around * (1 - share) + 0.5, 0, 255).astype(np.uint8)


def _hand_from_label(label: dict) -> LabelledHand:
    if label.get("keypoints_px") is None:
        return _hand_from_box(label["box"])
    keypoints = np.array(label["keypoints_px"], np.float64)
    depth = np.array(label.get("relative_depth") or [np.nan] * NUM_JOINTS)
    right = {"right": 1.0, "left": 0.0}.get(label.get("side"), 0.5)
    return LabelledHand(keypoints, depth, right, box_around(keypoints))


def _hand_from_box(box: list[float]) -> LabelledHand:
    x0, y0, x1, y1 = box
    side = max(x1 - x0, y1 - y0, 1.0)
    unknown = np.full((NUM_JOINTS, 2), np.nan)
    return LabelledHand(unknown, unknown[:, 0], 0.5, Box(((x0 + x1) / 2, (y0 + y1) / 2), (side, side), 0.0))


def read_pool(path: Path, kind: str, names: Sequence[str]) -> list[np.ndarray]:
    """These arrays of a pool of synthetic images. Raises ConfigError when the file is none of that kind."""
    try:
        with np.load(path) as pool:
            return [pool[name] for name in names]
    except Exception as error:  # a file that is no npz raises whatever its bytes happen to mean
        what = error.strerror if isinstance(error, OSError) and error.strerror else f"no pool of synthetic {kind}"
        raise ConfigError(
            f"cannot read {path}: {what}; 'python -m hand_tracking_ros.training.synthetic --kind {kind}' writes one"
        ) from error


def load_backgrounds(folders: Iterable[Path], skip: Collection[str] = ()) -> list[np.ndarray]:
    """Mono background pictures: whole photos, and the tiles of texture sheets (webp) without captions.

    ``skip``: names of files that show hands after all. Photos are listed several times when they are fewer than tiles,
    so that a random pick is as likely one as the other. Raises SourceError when there is no picture.
    """
    photos, tiles = [], []
    for path in sorted(path for folder in folders for path in folder.iterdir()):
        if path.suffix.lower() not in (".jpg", ".jpeg", ".png", ".webp") or path.name in skip:
            continue
        picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        if picture is None:
            raise SourceError(f"cannot read background picture {path}")
        if path.suffix.lower() == ".webp":
            tiles += texture_tiles(picture)
        else:
            photos.append(picture)
    if not photos and not tiles:
        raise SourceError(f"no pictures in {', '.join(map(str, folders))}")
    return photos * max(1, round(len(tiles) / max(len(photos), 1))) + tiles


def texture_tiles(sheet: np.ndarray, least_px: int = 64) -> list[np.ndarray]:
    """Tiles of a contact sheet: regions that differ from its flat background colour, captions left out by size."""
    background = np.bincount(sheet.ravel(), minlength=256).argmax()
    mask = (np.abs(sheet.astype(np.int16) - int(background)) > 6).astype(np.uint8)
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8))
    count, _, stats, _ = cv2.connectedComponentsWithStats(mask)
    tiles = []
    for x, y, width, height, _ in stats[1:count]:
        if min(width, height) >= least_px:
            inset, caption = min(width, height) // 16, height // 5
            tiles.append(sheet[y + inset : y + height - caption, x + inset : x + width - inset])
    return tiles
