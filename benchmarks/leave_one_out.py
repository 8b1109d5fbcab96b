"""KeyNet on whole sources that it never saw: each source of the recipe left out of a training of its own, in turn.

    python benchmarks/leave_one_out.py --data DATA --labels LABELS --synthetic POOL.npz ... --minutes 20 --runs runs/loo

Each training starts from random weights, for shipped ones have seen the sources, and resumes where its run stands;
``--together`` leaves all of them out of a single one, which is harder and takes a third of the time. Further arguments
go to ``hand-tracking train``. Cut-outs are measured on real backgrounds. sign_digits_218 is in no
recipe: every row has its figures too. Prints a markdown table. Needs the 'train' extra.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import yaml
from held_out import measured

from hand_tracking_ros.commands import command
from hand_tracking_ros.training import labelled, train
from hand_tracking_ros.training.augment import blend, random_patch
from hand_tracking_ros.training.labelled import LabelledImage
from hand_tracking_ros.training.recipe import Check, Data, Recipe, load_recipe
from hand_tracking_ros.training.tasks import fixed_crops, torch_run
from hand_tracking_ros.training.weights import load_checkpoint

SOURCES = ("slp_3dhands_cutouts", "asl_letters_davidlee", "subhih_hands")


def without(recipe: Recipe, sources: Sequence[str]) -> dict:
    """The recipe's YAML without some of its sources, checked on all of them."""
    document = {key: value for key, value in dataclasses.asdict(recipe).items() if value}
    document["sources"] = [
        {k: v for k, v in part.items() if v} for part in document["sources"] if part["images"] not in sources
    ]
    digits = {"images": "sign_digits_218"}
    document["checks"] = {"left_out": [{"images": source} for source in sources], "digits": [digits]}
    return json.loads(json.dumps(document))  # tuples become lists


def on_backgrounds(images: list[LabelledImage], backgrounds: list[np.ndarray]) -> list[LabelledImage]:
    """Cut-outs pasted on photos and textures; other images as they are."""
    rng, pasted = np.random.default_rng(0), []
    for image in images:
        if image.alpha is not None:
            size = image.mono.shape[::-1]
            mono = blend(image.mono, random_patch(backgrounds, size, rng), image.alpha.astype(np.float32) / 255.0)
            image = dataclasses.replace(image, mono=mono, alpha=None)
        pasted.append(image)
    return pasted


def figures(recipe: Recipe, data: Data, run: Path, source: str) -> dict[str, float]:
    """What the network of a finished training reaches on the source that it never saw, and on the digits."""
    network = load_checkpoint("keynet", run / "checkpoint.pt")
    backend = SimpleNamespace(run=torch_run(network))
    backgrounds = labelled.load_backgrounds(data.background_folders(recipe), recipe.skip_backgrounds)
    row: dict[str, float] = {}
    for name, images in (("left_out", source), ("digits", "sign_digits_218")):
        hands = on_backgrounds(data.load(Check(images, most=10**6)), backgrounds)
        crops, truth, right = fixed_crops(hands, network.config.size)
        row[f"{name}_hands"] = len(crops)
        row |= {f"{name}_{key}": round(value, 2) for key, value in measured(backend, crops, truth, right).items()}
    return row


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--config", default="keynet", help="recipe to leave sources out of")
    parser.add_argument("--only", nargs="+", choices=SOURCES, default=SOURCES, help="sources to leave out")
    parser.add_argument("--together", action="store_true", help="leave them all out of one training")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the trainings")
    parser.add_argument("--json", type=Path)
    args, rest = parser.parse_known_args()

    cv2.setNumThreads(1)
    recipe, data, rows = load_recipe(args.config), Data(args.data, args.labels), {}
    options = argparse.ArgumentParser()
    train.add_arguments(options)
    for sources in [args.only] if args.together else [[source] for source in args.only]:
        run = args.runs / "+".join(sources)
        run.mkdir(parents=True, exist_ok=True)
        (run / "recipe.yaml").write_text(yaml.safe_dump(without(recipe, sources)))
        common = ["--data", str(args.data), "--labels", str(args.labels), "--config", str(run / "recipe.yaml")]
        train.run(options.parse_args(["keynet", "--run", str(run), "--init", "none", *common, *rest]))
        rows |= {source: figures(recipe, data, run, source) for source in sources}
    names = list(next(iter(rows.values())))
    print(f"| left out | {' | '.join(names)} |\n{'|---' * (1 + len(names))}|")
    for source, row in rows.items():
        print(f"| {source} | {' | '.join(str(row[name]) for name in names)} |")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
