"""The arguments that training and searching share, and the recipe that they make."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from hand_tracking_ros.errors import ConfigError
from hand_tracking_ros.training import tasks
from hand_tracking_ros.training.networks import zoo
from hand_tracking_ros.training.optimisers import OPTIMISERS
from hand_tracking_ros.training.recipe import Check, Data, Recipe, Source, load_recipe
from hand_tracking_ros.training.weights import options_of_model


def add_recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """What to train, on what, and how."""
    parser.add_argument("task", choices=sorted(tasks.TASKS))
    parser.add_argument("--config", help="recipe: a file, or the name of a shipped one (default: that of the task)")
    parser.add_argument("--data", type=Path, help="folder that holds the recipe's image folders")
    parser.add_argument(
        "--labels", type=Path, help="folder with <image folder>/labels.jsonl (default: beside the images)"
    )
    parser.add_argument(
        "--images", type=Path, nargs="+", default=[],
        help="fine-tune the shipped network on these folders of labelled images instead",
    )  # fmt: skip
    parser.add_argument("--kind", choices=("frame", "tight", "cutout"), default="frame", help="of --images")
    parser.add_argument("--synthetic", type=Path, nargs="*", default=[], help="pools of training/synthetic")
    parser.add_argument("--negatives", type=Path, nargs="*", default=[], help="keynet: pools of synthetic frames")
    parser.add_argument("--block", help=f"what the network is built of: {', '.join(zoo.BLOCKS)}")
    parser.add_argument("--neck", help="another block for the pyramid")
    parser.add_argument("--width", type=float, help="multiplies the channels")
    parser.add_argument("--depth", type=float, help="multiplies the blocks per stage")
    parser.add_argument("--resolution", type=float, help="multiplies the input's size")
    parser.add_argument("--temporal", action="store_true", default=None, help="keynet: train KeyNet-F")
    parser.add_argument("--samples", type=int, help="train on so many, instead of the recipe's minutes")
    parser.add_argument("--kept", type=float, help="share of the start in the weights that come out (--images: 0.5)")
    for name, kind in (("minutes", float), ("batch", int), ("learning_rate", float), ("seed", int), ("mining", float)):
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, help=f"instead of the recipe's {name}")
    parser.add_argument("--optimiser", choices=OPTIMISERS, help="instead of the recipe's optimiser")
    parser.add_argument("--threads", type=int, default=1, help="per process")
    parser.add_argument("--workers", type=int, default=1, help="processes that prepare images")


def data_of(args: argparse.Namespace) -> Data:
    """Where the images of a command line lie."""
    return Data(args.data or Path(), args.labels, tuple(args.synthetic), tuple(args.negatives))


def recipe_of(args: argparse.Namespace) -> Recipe:
    """The recipe of a command line: the file's, or one to fine-tune on --images, with what the arguments override."""
    own = bool(args.images)
    others = ("config", "data", "labels", "synthetic")
    if own and (given := [f"--{name}" for name in others if getattr(args, name)]):
        raise ConfigError(f"--images trains on those images alone: leave out {' and '.join(given)}, or --images")
    recipe = fine_tuning(args.task, args.kind, args.images) if own else load_recipe(args.config or args.task)
    if recipe.task != args.task:
        raise ConfigError(f"{args.config} is a recipe for {recipe.task}, not for {args.task}")
    if not args.synthetic and not args.config:
        rest = tuple(source for source in recipe.sources if source.kind != "synthetic")
        recipe = dataclasses.replace(recipe, sources=rest)
    names = ("minutes", "samples", "batch", "learning_rate", "seed", "mining", "kept", "optimiser")
    changes = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if "minutes" in changes:
        changes = {"samples": 0} | changes
    scaling = ("block", "neck", "width", "depth", "resolution", "temporal")
    network = {name: getattr(args, name) for name in scaling if getattr(args, name) is not None}
    return dataclasses.replace(recipe, **changes, network={**recipe.network, **network})


def fine_tuning(task: str, kind: str, folders: list[Path]) -> Recipe:
    """A short, careful run on a few images: small steps, norms as they are, half of what they change, a tenth of the
    images held out. Crops are off by as much as the shipped network was trained with. Raises ConfigError."""
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"--images: {folder} is not a folder; give folders of labelled images")
        if not (folder / "labels.jsonl").is_file():
            raise ConfigError(f"--images: {folder} has no labels.jsonl: 'hand-tracking label {folder}' writes it")
    sources = tuple(Source(kind, images=str(folder.resolve()), held_out_percent=10) for folder in folders)
    checks = tuple(Check(str(folder.resolve()), held_out_percent=10) for folder in folders)
    return Recipe(
        task, sources, {"held_out": checks}, minutes=10, batch=32 if task == "keynet" else 8,
        learning_rate=2e-4, freeze_norms=True, kept=0.5, network=options_of_model(task, task),
        sampling={key: value for key, value in load_recipe(task).sampling.items() if key != "mistaken"},
    )  # fmt: skip
