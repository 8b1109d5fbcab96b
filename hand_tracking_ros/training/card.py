"""Cards: what the manifest of an exported network says that its graph does not (docs/training.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from hand_tracking_ros.errors import ModelError
from hand_tracking_ros.manifest import ModelManifest

CARD = "card.yaml"  # in the folder of a run
KEYS = ("preprocessing", "keypoint_order", "precision", "licence", "training", "accuracy")


def read_card(path: Path) -> dict[str, Any]:
    """A card from its YAML file. Raises ModelError when it is missing or lacks a key."""
    where = "docs/training.md shows one"
    if path.name == CARD and not path.exists():
        where = f"only fine-tuning of a model on --images writes it: give --card FILE; {where}"
    try:
        card = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"cannot read the card {path}: {error.strerror}; {where}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ModelError(f"the card {path} is not valid YAML: {' '.join(str(error).split())}") from error
    if missing := [key for key in KEYS if not isinstance(card, Mapping) or key not in card]:
        raise ModelError(f"the card {path} lacks the key(s) {', '.join(missing)}; {where}")
    return dict(card)


def write_card(
    path: Path, base: ModelManifest, images: Sequence[tuple[str, int]], accuracy: Mapping[str, float], **training: Any
) -> None:
    """The card of a network that was fine-tuned from the model ``base`` on own ``images`` (name, count).

    ``accuracy``: what was measured on those of them that were held out; ``training``: command, seed, hours and notes.
    """
    own = [{"name": name, "licence": "not stated", "images": n, "people": "not counted"} for name, n in images]
    card = {
        "preprocessing": base.preprocessing,
        "keypoint_order": base.keypoint_order,
        "precision": "fp32",
        "licence": base.licence,
        "training": {"data": [*base.training["data"], *own], **training},
        "accuracy": {**accuracy, "measured_on": {"how": "own images that were held out, by their labels"}},
    }
    path.write_text(yaml.safe_dump(card, sort_keys=False, allow_unicode=True, width=110), encoding="utf-8")
