"""A folder of labelled pictures, and the recipe and data to train on them within seconds."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from hand_tracking_ros.training.recipe import Check, Data, Recipe, Source

HAND = np.array([(50, 90), (38, 80), (30, 70), (25, 60), (22, 50), (40, 55), (39, 40), (38, 30), (37, 22), (50, 53),
                 (50, 38), (50, 28), (50, 20), (59, 55), (61, 42), (62, 33), (63, 25), (67, 60), (70, 50), (72, 43),
                 (74, 37)], float)  # fmt: skip


def pictures(folder: Path, count: int = 12) -> Path:
    """Grey pictures of 140 x 140 px with a bright dot at every keypoint, and their labels.jsonl."""
    folder.mkdir()
    rng, lines = np.random.default_rng(0), []
    for index in range(count):
        points = HAND * rng.uniform(0.9, 1.1) + rng.uniform(0, 20, 2)
        image = np.full((140, 140), 40, np.uint8)
        for x, y in points:
            cv2.circle(image, (int(x), int(y)), 2, 230, -1)
        cv2.imwrite(str(folder / f"{index}.png"), image)
        hand = {"side": "left", "keypoints_px": points.tolist(), "relative_depth": [0.1] * 21}
        lines.append(json.dumps({"file": f"{index}.png", "hands": [hand]}))
    (folder / "labels.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def recipe(folder: Path, **changes) -> tuple[Recipe, Data]:
    """KeyNet on ``pictures``, a part of them held out; small and short."""
    source, check = Source("frame", images=folder.name, held_out_percent=40), Check(folder.name, held_out_percent=40)
    values = {"network": {"width": 0.25, "resolution": 0.5}, "batch": 4, "minutes": 0.01, "optimiser": "adamw"}
    values["checks"] = {"own": (check,)}
    return Recipe("keynet", (source,), **{**values, **changes}), Data(folder.parent)
