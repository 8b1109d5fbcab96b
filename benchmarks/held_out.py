"""Figures of the shipped networks on images that they were not trained on, as one table.

    python benchmarks/held_out.py --data ../shared/data --labels LABELS

``LABELS/<set>/labels.jsonl`` are the teacher's labels of the images in ``--data/<set>``, so errors are distances to
the teacher. KeyNet gets grey crops cut with perfect boxes, and their mirror images, as new hands do in the tracker;
held out are 6 % of HaGRID's photos, and sign_digits_218 as a whole. Cluttered: the same hands, cut out along their
keypoints, on photos and textures. DetNet gets whole grey frames of rooms and photos that were held out. Pictures
without hands go through the whole tracker, one by one. Needs the 'train' extra, which holds the code that cuts crops
and backgrounds.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np

from hand_tracking_ros.backends import create_backend
from hand_tracking_ros.cli.options import add_tracker_options, tracker_config
from hand_tracking_ros.commands import command
from hand_tracking_ros.config import DetectorConfig
from hand_tracking_ros.detection import HandDetector, load_task_manifest
from hand_tracking_ros.evaluation.detection import detection_metrics
from hand_tracking_ros.records import LabelledHand, LabelledImage
from hand_tracking_ros.skeleton import Side, palm_length
from hand_tracking_ros.sources import open_source
from hand_tracking_ros.tracker import HandTracker
from hand_tracking_ros.training import labelled
from hand_tracking_ros.training.augment import blend, hand_mask, random_patch
from hand_tracking_ros.training.recipe import Check, Data, load_recipe
from hand_tracking_ros.training.tasks import fixed_crops, look_both_ways
from hand_tracking_ros.types import Frame

CURLED = ("fist/", "like/", "dislike/", "0/")


def keypoint_rows(config, data: Data, limit: int) -> list[tuple[str, int, dict[str, float]]]:
    """(name, hands, metrics) per set of crops."""
    manifest = load_task_manifest(config.keypoints.model, "keypoints")
    backend = create_backend(manifest, config.inference, max_batch=manifest.max_batch)
    size = int(manifest.inputs["crop"].shape[2])
    hagrid = data.load(Check("hagrid_hand_crops", held_out_percent=6, most=limit))
    digits = data.load(Check("sign_digits_218", most=limit))
    sets = {"HaGRID, unseen people": hagrid, "sign_digits_218, unseen source": digits}
    sets["fists and curled fingers, unseen people"] = [i for i in hagrid + digits if i.name.startswith(CURLED)]
    rows = []
    for name, images in sets.items():
        crops, truth, right = fixed_crops(images, size)
        rows.append((name, len(crops), measured(backend, crops, truth, right)))
    recipe = load_recipe("keynet")
    backgrounds = labelled.load_backgrounds(data.background_folders(recipe), recipe.skip_backgrounds)
    crops, truth, right = fixed_crops(hagrid + digits, size)
    rng = np.random.default_rng(0)
    wh = (size, size)
    cluttered = [blend(c, random_patch(backgrounds, wh, rng), hand_mask(k, wh, rng)) for c, k in zip(crops, truth)]
    rows.append(("the same on cluttered backgrounds", len(crops), measured(backend, np.stack(cluttered), truth, right)))
    dark = np.stack([cv2.convertScaleAbs(crop, alpha=0.25) for crop in crops])
    rows.append(("the same at brightness 25 %", len(crops), measured(backend, dark, truth, right)))
    return rows


def measured(backend, crops, truth, right) -> dict[str, float]:
    """Error in % of the palm, PCK at 20 %, share of right sides, of crops (N, S, S)."""
    found, sides = look_both_ways(backend.run, crops)
    error = np.linalg.norm(found - truth, axis=-1) / palm_length(truth)[:, None]
    known = right != 0.5
    return {
        "error_percent": 100 * float(error.mean()),
        "pck20_percent": 100 * float((error < 0.2).mean()),
        "side_percent": 100 * float(((sides > 0.5) == (right > 0.5))[known].mean()),
    }


def detection_row(config, data: Data) -> dict[str, float]:
    """AP at IoU 0.5 of DetNet on frames of rooms and photos that were held out."""
    detector = HandDetector(DetectorConfig(model=config.detector.model, score_threshold=0.01), config.inference)
    labels, found = [], []
    for check in load_recipe("detnet").checks["frames"]:
        for image in data.load(check):
            height, width = image.mono.shape
            hands = tuple(
                LabelledHand(Side.UNKNOWN, hand.box.bounds(), hand.keypoints_px if hand.has_keypoints else None)
                for hand in image.hands
            )
            labels.append(LabelledImage(width=width, height=height, hands=hands, file=image.name))
            found.append(detector.detect(image.mono))
    metrics = detection_metrics(labels, found)
    return {"images": metrics["images"], "hands": metrics["hands"], **metrics["by_size"]["all"]}


def false_hands(config, data: Path) -> dict[str, tuple[int, int]]:
    """{pictures without hands: (frames, frames with a hand)}."""
    skip = load_recipe("keynet").skip_backgrounds
    tracker, counts = HandTracker(config), {}
    stills = {
        "offices": [p for p in labelled.load_backgrounds([data / "backgrounds_office"], skip)],
        "textures": labelled.load_backgrounds([data / "backgrounds_ambientcg"]),
    }
    for name, pictures in stills.items():
        wrong = 0
        for picture in pictures:
            tracker.reset()
            wrong += any(tracker.step(Frame(np.ascontiguousarray(picture), k / 30)) for k in range(2))
        counts[name] = (len(pictures), wrong)
    tracker.reset()
    with open_source(str(data / "videos" / "cars_no_hands.mp4"), pace="fast") as source:
        frames = wrong = 0
        while (item := source.read()) is not None:
            frames += 1
            wrong += bool(tracker.step(Frame(cv2.cvtColor(item.image, cv2.COLOR_BGR2GRAY), item.stamp_s)))
    counts["cars, video"] = (frames, wrong)
    return counts


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=10000, help="hands per set")
    parser.add_argument("--json", type=Path)
    add_tracker_options(parser)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    config = tracker_config(args)
    data = Data(args.data, args.labels)
    rows = keypoint_rows(config, data, args.limit)
    print("| KeyNet, grey crops | hands | error, % of the palm | PCK at 20 % | side |\n|---|---|---|---|---|")
    for name, count, m in rows:
        print(
            f"| {name} | {count} | {m['error_percent']:.2f} | {m['pck20_percent']:.1f} % | {m['side_percent']:.1f} % |"
        )
    found = detection_row(config, data)
    print("\nDetNet, unseen frames:", {k: round(v, 3) if isinstance(v, float) else v for k, v in found.items()})
    wrong = false_hands(config, args.data)
    frames, hands = (sum(values) for values in zip(*wrong.values()))
    print(f"Frames with a false hand: {wrong}; {1000 * hands / frames:.1f} of 1,000")
    if args.json:
        args.json.write_text(json.dumps({"keynet": rows, "detnet": found, "false": wrong}, indent=1))


if __name__ == "__main__":
    raise SystemExit(main())
