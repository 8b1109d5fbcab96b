"""Recipes: which images a network is trained on and checked with, and how, as a YAML file.

``training/recipes/`` holds those of the shipped networks. Folders in a recipe are relative to ``data``; the labels of
a folder are ``labels/<folder>/labels.jsonl``, or without ``labels`` the labels.jsonl inside it (docs/training.md).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from hand_tracking_ros.errors import ConfigError
from hand_tracking_ros.training.labelled import LabelledImage, held_out, load_labelled

TASKS = ("keynet", "detnet")
KINDS = ("frame", "tight", "cutout", "synthetic")
RECIPES = Path(__file__).with_name("recipes")


@dataclass(frozen=True)
class Source:
    """Images to train on.

    ``kind``: 'frame' (whole pictures with all hands labelled), 'tight' (crops without a margin), 'cutout' (with
    alpha), or 'synthetic' (pools of training/synthetic, named on the command line). ``share`` of the samples, relative
    to the other sources. ``only`` and ``without``: starts of file names or paths; ``listed``: a text file beside the
    labels that names the files to take, one per line. Of the files that are left, ``held_out_percent`` by a hash of the
    name are kept for checks.
    """

    kind: str
    share: float = 1.0
    images: str = ""
    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    listed: str = ""
    held_out_percent: float = 0.0


@dataclass(frozen=True)
class Check:
    """Labelled images that are never trained on: at most so many of what the filters leave, or of its held-out part."""

    images: str
    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    listed: str = ""
    held_out_percent: float = 100.0
    most: int = 1500


@dataclass(frozen=True)
class Recipe:
    """What a training run needs to know. ``network``: fields of KeyNetConfig or DetNetConfig. ``loss``: weights of the
    parts of the loss by name, or ``learned: true`` (see losses.py). ``sampling``: keynet; ``absent``, ``degraded``,
    ``right``, ``mistaken``: shares of the samples, and fields of CropJitter (crops.py). ``mining``: how much more often
    hard images are drawn, see mining.py; 0 draws all alike. ``skip_backgrounds``: names of files that show hands.
    ``optimiser``: 'muon' or 'adamw', see optimisers.py. ``samples``: how long to train, whatever the machine; 0:
    ``minutes``. ``freeze_norms``: batch norms keep their statistics, for fine-tuning. ``only``: the parts of the
    network, by the start of their names, that are trained, while all others stay exactly as they are; default all.
    ``kept``: share of the weights at the start in those that come out (WiSE-FT), for fine-tuning with frozen norms."""

    task: str
    sources: tuple[Source, ...]
    checks: Mapping[str, tuple[Check, ...]] = field(default_factory=dict)
    backgrounds: tuple[str, ...] = ()
    skip_backgrounds: tuple[str, ...] = ()
    network: Mapping[str, Any] = field(default_factory=dict)
    loss: Mapping[str, Any] = field(default_factory=dict)
    sampling: Mapping[str, float] = field(default_factory=dict)
    mining: float = 0.0
    minutes: float = 60.0
    samples: int = 0
    batch: int = 64
    learning_rate: float = 2e-3
    optimiser: str = "muon"
    seed: int = 1
    freeze_norms: bool = False
    only: tuple[str, ...] = ()
    kept: float = 0.0

    def __post_init__(self):
        """Raises ConfigError for a training that would have no end, or no beginning."""
        for name, fine, least in (
            ("minutes", 0 < self.minutes < math.inf, "above 0"),
            ("samples", self.samples >= 0, "0 (as many as the minutes allow) or more"),
            ("batch", self.batch > 0, "above 0"),
            ("learning_rate", 0 < self.learning_rate < math.inf, "above 0"),
            ("seed", self.seed >= 0, "0 or more"),
            ("mining", 0 <= self.mining < math.inf, "0 (all images alike) or more"),
            ("kept", self.kept == 0 or (self.freeze_norms and 0 < self.kept < 1), "0, or with freeze_norms below 1"),
        ):
            if not fine:
                raise ConfigError(f"{name} of a training must be {least}, got {getattr(self, name)}")


def load_recipe(config: Path | str) -> Recipe:
    """A recipe from its YAML file, or a shipped one by its name. Raises ConfigError, which names file and key."""
    shipped = RECIPES / f"{config}.yaml"
    path = shipped if shipped.is_file() else Path(config)
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        names = ", ".join(sorted(shipped.stem for shipped in RECIPES.glob("*.yaml")))
        raise ConfigError(f"cannot read recipe {path}: {error}; shipped ones are {names}") from error
    if not isinstance(document, Mapping):
        raise ConfigError(f"recipe {path} must map keys to values, see docs/training.md")
    values = dict(document)
    values["sources"] = tuple(_part(Source, part, f"{path}: sources") for part in values.get("sources") or ())
    values["checks"] = {
        name: tuple(_part(Check, part, f"{path}: checks.{name}") for part in parts)
        for name, parts in (values.get("checks") or {}).items()
    }
    recipe = _part(Recipe, values, str(path))
    if recipe.task not in TASKS:
        raise ConfigError(f"{path}: task must be one of {', '.join(TASKS)}; got '{recipe.task}'")
    for source in recipe.sources:
        if source.kind not in KINDS:
            raise ConfigError(f"{path}: kind of a source must be one of {', '.join(KINDS)}; got '{source.kind}'")
        if (source.kind == "synthetic") == bool(source.images):
            raise ConfigError(
                f"{path}: a source of kind '{source.kind}' must {'not ' * bool(source.images)}have images"
            )
    return recipe


def _part(kind, values: Mapping[str, Any], where: str):
    """A dataclass from a mapping; lists become tuples, integers floats where the default is one."""
    fields = {f.name: f for f in dataclasses.fields(kind)}
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where}: must map keys to values, got {values!r}")
    if unknown := sorted(set(values) - set(fields)):
        raise ConfigError(f"{where}: unknown key(s) {', '.join(unknown)}; known: {', '.join(fields)}")
    taken = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    for key, value in taken.items():
        default = fields[key].default
        if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
            taken[key] = float(value)
        elif default is not dataclasses.MISSING and type(taken[key]) is not type(default):
            raise ConfigError(f"{where}: {key} must be {type(default).__name__}, got {value!r}")
    try:
        return kind(**taken)
    except TypeError as error:
        raise ConfigError(f"{where}: {error}") from error


def save_recipe(recipe: Recipe, path: Path, comment: str) -> None:
    """Write what ``load_recipe`` reads; defaults are left out, ``comment`` stands above."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            pairs = ((f, getattr(value, f.name)) for f in dataclasses.fields(value))
            return {f.name: plain(item) for f, item in pairs if item != f.default and item not in ((), {})}
        if isinstance(value, Mapping):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, tuple | list) else value

    text = yaml.safe_dump(plain(recipe), sort_keys=False, width=110, default_flow_style=None)
    path.write_text(f"# {comment}\n{text}", encoding="utf-8")


@dataclass(frozen=True)
class Data:
    """Where the folders of a recipe lie, and the pools of synthetic images. Loads them."""

    images: Path = Path()
    labels: Path | None = None
    pools: tuple[Path, ...] = ()
    negatives: tuple[Path, ...] = ()

    def load(self, part: Source | Check) -> list[LabelledImage]:
        """The images of a source without its held-out part, or those of a check. Raises ConfigError."""
        checking = isinstance(part, Check)
        folder = self.images / part.images
        beside = self.labels / part.images if self.labels else folder
        labels, listed = beside / "labels.jsonl", beside / part.listed if part.listed else None
        for path in (folder, labels, *[listed] * bool(listed)):
            if not path.exists():
                raise ConfigError(
                    f"{path} does not exist: --data must name the folder that holds '{part.images}', --labels the one "
                    f"with {part.images}/labels.jsonl ('hand-tracking label' writes it) and what 'listed' names"
                )
        names = set(listed.read_text().splitlines()) if listed else None

        def wanted(name: str) -> bool:
            if (part.only and not _starts(name, part.only)) or _starts(name, part.without):
                return False
            if names is not None and name not in names:
                return False
            return held_out(name, part.held_out_percent) == checking

        boxes = folder / "boxes.jsonl"
        found = load_labelled(folder, labels, keep=wanted, boxes=boxes if boxes.exists() else None, mixed=not checking)
        if not found:
            left = "held out for the checks" if checking else "left to train on"
            raise ConfigError(
                f"no labelled image of {folder} is {left}: give more images, or see only, without, listed and "
                "held_out_percent of the recipe"
            )
        return spread(found, part.most) if checking else found

    def background_folders(self, recipe: Recipe) -> list[Path]:
        """The folders of background pictures. Raises ConfigError when one is missing."""
        folders = [self.images / name for name in recipe.backgrounds]
        for folder in folders:
            if not folder.is_dir():
                raise ConfigError(f"{folder} is not there: backgrounds of the recipe are folders below --data")
        return folders


def spread(images: list, most: int) -> list:
    """At most so many, evenly from the whole list: folders are sorted by name, so the first ones may be all alike."""
    return images if len(images) <= most else [images[len(images) * k // most] for k in range(most)]


def _starts(name: str, starts: tuple[str, ...]) -> bool:
    return name.startswith(starts) or Path(name).name.startswith(starts)
