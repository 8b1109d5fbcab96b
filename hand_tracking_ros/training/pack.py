"""A small grey copy of labelled images, to take to the machine that trains.

    python -m hand_tracking_ros.training.pack --data DATA --labels LABELS --config RECIPE.yaml --output pack

Holds what the recipe trains and checks on: the labelled images of its folders, and its backgrounds, in the same
layout, so ``--data pack`` (without ``--labels``) trains on it. Images are grey JPEG (cut-outs PNG with alpha), scaled
down where their long side exceeds what a crop or DetNet's input can use; labels are scaled along. KeyNet's crop shows a
hand in 64 of its 96 px.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from hand_tracking_ros.commands import command
from hand_tracking_ros.errors import ConfigError
from hand_tracking_ros.training.recipe import Recipe, load_recipe

LONG_SIDES_PX = {"tight": 104, "cutout": 160, "frame": 320}
PHOTO_PX = 480  # backgrounds


def smaller(image: np.ndarray, long_side_px: int) -> np.ndarray:
    """The image with its long side at most so long; never enlarged."""
    share = long_side_px / max(image.shape[:2])
    if share >= 1:
        return image
    height, width = image.shape[:2]
    size = max(1, round(width * share)), max(1, round(height * share))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def grey(image: np.ndarray) -> np.ndarray:
    """Grey (H, W), or grey three times with alpha (H, W, 4)."""
    if image.ndim == 2:
        return image
    mono = cv2.cvtColor(image[..., :3], cv2.COLOR_BGR2GRAY)
    return np.dstack([mono, mono, mono, image[..., 3]]) if image.shape[2] == 4 else mono


def scaled(label: dict[str, Any], wh: tuple[int, int]) -> dict[str, Any]:
    """The label of an image that is now ``wh`` pixels large."""
    share = np.array(wh) / (label["width"], label["height"])
    hands = []
    for hand in label["hands"]:
        points = (np.array(hand["keypoints_px"]) * share).round(2)
        box = (np.array(hand["box"]).reshape(2, 2) * share).round(2)
        hands.append({**hand, "keypoints_px": points.tolist(), "box": box.ravel().tolist()})
    return {**label, "width": wh[0], "height": wh[1], "hands": hands}


def scaled_boxes(record: dict[str, Any], wh: tuple[int, int]) -> dict[str, Any]:
    """The same for a line of boxes.jsonl."""
    share = np.array(wh) / (record["w"], record["h"])
    boxes = (np.array(record["boxes"], float).reshape(-1, 2, 2) * share).round(2).reshape(-1, 4)
    return {**record, "w": wh[0], "h": wh[1], "boxes": boxes.tolist()}


def pack_folder(images: Path, labels: Path, output: Path, long_side_px: int, quality: int) -> int:
    """Copy the images of one folder that have hands, with labels and boxes; returns how many. Raises ConfigError."""
    output.mkdir(parents=True, exist_ok=True)
    sizes: dict[str, tuple[int, int]] = {}

    def copied(name: str) -> tuple[int, int]:
        if name not in sizes:
            image = cv2.imread(str(images / name), cv2.IMREAD_UNCHANGED)
            if image is None:
                raise ConfigError(f"cannot read {images / name}, named by the labels: wrong image folder?")
            image = smaller(grey(image), long_side_px)
            (output / name).parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(output / name), image, [cv2.IMWRITE_JPEG_QUALITY, quality])
            sizes[name] = image.shape[1::-1]
        return sizes[name]

    labelled = [record for record in _lines(labels / "labels.jsonl") if record["hands"]]
    _write(output / "labels.jsonl", [scaled(r, copied(r["file"])) for r in tqdm(labelled, output.name)])
    if (images / "boxes.jsonl").is_file():
        boxed = [record for record in _lines(images / "boxes.jsonl") if record["boxes"]]
        _write(output / "boxes.jsonl", [scaled_boxes(r, copied(r["file"])) for r in boxed])
    if (labels / "hard.txt").is_file():
        shutil.copy(labels / "hard.txt", output)
    return len(sizes)


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _write(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def pack_backgrounds(images: Path, output: Path, quality: int, skip: tuple[str, ...]) -> None:
    """Copy background pictures: photos smaller, texture sheets as they are, for their tiles are small."""
    output.mkdir(parents=True, exist_ok=True)
    for path in sorted(images.iterdir()):
        if path.name in skip or path.suffix.lower() not in (".jpg", ".jpeg", ".png", ".webp"):
            continue
        image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        long_side = max(image.shape) if path.suffix.lower() == ".webp" else PHOTO_PX
        flags = {".webp": cv2.IMWRITE_WEBP_QUALITY, ".png": cv2.IMWRITE_PNG_COMPRESSION}
        flag = flags.get(path.suffix.lower(), cv2.IMWRITE_JPEG_QUALITY)
        cv2.imwrite(str(output / path.name), smaller(image, long_side), [flag, 9 if path.suffix == ".png" else quality])


def pack(recipe: Recipe, data: Path, labels: Path | None, output: Path, quality: int = 80) -> dict[str, int]:
    """Copy all that a recipe names; returns the number of images per folder. Raises ConfigError."""
    kinds = {source.images: source.kind for source in recipe.sources if source.images}
    checks = {check.images for checks in recipe.checks.values() for check in checks}
    kinds |= {images: "tight" for images in sorted(checks - set(kinds))}
    counts = {}
    for name, kind in kinds.items():
        beside = (labels or data) / name
        if not (beside / "labels.jsonl").is_file():
            raise ConfigError(
                f"{beside / 'labels.jsonl'} does not exist: 'hand-tracking label {data / name}' writes it"
            )
        counts[name] = pack_folder(data / name, beside, output / name, LONG_SIDES_PX[kind], quality)
    for name in recipe.backgrounds:
        pack_backgrounds(data / name, output / name, quality, recipe.skip_backgrounds)
    return counts


@command
def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument(
        "--labels", type=Path, help="folder of <image folder>/labels.jsonl (default: beside the images)"
    )
    parser.add_argument("--config", default="keynet", help="recipe: a file, or the name of a shipped one")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--quality", type=int, default=80, help="of JPEG, 1 to 100")
    args = parser.parse_args(arguments)
    counts = pack(load_recipe(args.config), args.data, args.labels, args.output, args.quality)
    size = sum(path.stat().st_size for path in args.output.rglob("*") if path.is_file())
    print(f"{args.output}: {', '.join(f'{name} {count}' for name, count in counts.items())}; {size / 2**20:.0f} MiB")


if __name__ == "__main__":
    raise SystemExit(main())
