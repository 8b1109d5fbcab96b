"""The table of a device: measured milliseconds of every block at every place, and of the rest of the network.

Never FLOPs. A network's prediction is the sum over its places plus the rest (as FBNet's, Wu et al., CVPR 2019, section
3.2), and then the calibration: a line through measured whole networks, once ``--check`` has found it.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from hand_tracking_ros.config import InferenceConfig
from hand_tracking_ros.errors import ConfigError
from hand_tracking_ros.training.networks import CONFIGS, zoo
from hand_tracking_ros.training.networks.scaling import Scaling
from hand_tracking_ros.training.search import measure
from hand_tracking_ros.training.search.places import Place, names, places, with_names

ANYWHERE = ("block", "neck", "depth")  # what changes which blocks there are, but not the rest
EMPTY = ""  # the graph that does nothing


@dataclass(frozen=True)
class Table:
    """``blocks``: place to block to ms; ``rest``: ms by what is not the default in a configuration; ``line``: slope,
    and offset in ms, from sums to whole networks; ``check``: how well that holds. ``device``: see measure.device."""

    task: str
    device: Mapping[str, object]
    blocks: Mapping[str, Mapping[str, float]]
    rest: Mapping[str, float]
    line: tuple[float, float] = (1.0, 0.0)
    check: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Table:
        """Raises ConfigError when the file is not a table."""
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            return cls(**{**document, "line": tuple(document["line"])})
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ConfigError(
                f"{path} is not a latency table ({error}); make one with 'hand-tracking search TASK --measure'"
            ) from error

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n", encoding="utf-8")

    def inference(self) -> InferenceConfig:
        """How networks ran when the table was measured."""
        return InferenceConfig(**{key: self.device[key] for key in ("backend", "precision", "threads")})

    def is_of_this_machine(self) -> bool:
        """Whether this CPU is the table's: what is measured here can then be compared with it."""
        return self.device["machine"]["cpu"] == measure.machine()["cpu"]

    def candidates(self, place: Place) -> list[str]:
        """The blocks that were measured at a place. Raises ConfigError when none was."""
        if str(place) not in self.blocks:
            raise self._unknown(f"no block of {place}")
        return list(self.blocks[str(place)])

    def block_ms(self, place: Place, name: str) -> float:
        """Predicted share of a block in the network's milliseconds. Raises ConfigError when it was not measured."""
        if name not in self.candidates(place):
            raise self._unknown(f"no '{name}' of {place}")
        return self.line[0] * self.blocks[str(place)][name]

    def rest_ms(self, config: Scaling) -> float:
        """Predicted milliseconds of everything but the blocks. Raises ConfigError when it was not measured."""
        key = rest_key(config)
        if key not in self.rest:
            raise self._unknown(f"no rest of a network with {key}")
        return self.line[0] * self.rest[key] + self.line[1]

    def predict_ms(self, config: Scaling) -> float:
        """Predicted milliseconds of a whole network. Raises ConfigError when a part of it was not measured."""
        parts = zip(places(self.task, config), names(config))
        return self.rest_ms(config) + sum(self.block_ms(place, name) for place, name in parts)

    def covers(self, config: Scaling) -> bool:
        """Whether all parts of a network were measured."""
        try:
            self.predict_ms(config)
        except ConfigError:
            return False
        return True

    def _unknown(self, what: str) -> ConfigError:
        return ConfigError(
            f"the latency table has {what}; it has rests of {'; '.join(self.rest)}: measure again with the --blocks, "
            "--widths and --resolutions that are wanted"
        )


def rest_key(config: Scaling) -> str:
    """What is not the default in a configuration and changes the rest of the network, as text."""
    fields = [f for f in dataclasses.fields(config) if f.name not in ANYWHERE]
    changed = [f"{f.name}={getattr(config, f.name)}" for f in fields if getattr(config, f.name) != f.default]
    return ", ".join(changed) or "default"


def measured_table(
    task: str, configs: Sequence[Scaling], blocks: Sequence[str], inference: InferenceConfig, rounds: int
) -> Table:
    """Measure ``blocks`` wherever they fit in networks of ``configs``, and the rests of these.

    What a call costs by itself is measured with an empty graph for every place, and taken off the blocks. Raises
    ConfigError for a block that fits nowhere.
    """
    found = dict.fromkeys(place for config in configs for place in places(task, config))
    for name in blocks:
        if name == "fbnet" or not any(place.takes(name) for place in found):
            raise ConfigError(
                f"no place takes the block '{name}'; known: {', '.join(zoo.BLOCKS)}, residual:N, N up to "
                f"{max(place.outputs for place in found)} channels; fbnet is made of others"
            )
    wanted = [(place, name) for place in found for name in (EMPTY, *blocks) if not name or place.takes(name)]
    runs: dict[tuple[str, str], measure.Run] = {}
    with tempfile.TemporaryDirectory() as folder:
        for place, name in tqdm(wanted, desc="exporting blocks", unit=""):
            manifest = measure.export_block(name, place, Path(folder) / str(len(runs)))
            runs[str(place), name] = measure.loaded(manifest, inference)
        for config in configs:
            manifest = measure.export_rest(task, config, Path(folder) / str(len(runs)))
            runs["", rest_key(config)] = measure.loaded(manifest, inference)
        times = measure.median_ms(runs, rounds, inference.backend)
    rows: dict[str, dict[str, float]] = {str(place): {} for place in found}
    for (place, name), ms in times.items():
        if place and name:
            rows[place][name] = round(max(0.0, ms - times[place, EMPTY]), 5)
    rests = {key: round(ms, 5) for (place, key), ms in times.items() if not place}
    return Table(task, {**measure.device(inference), "rounds": rounds}, rows, rests)


def random_config(table: Table, base: Scaling, rng: np.random.Generator) -> Scaling:
    """``base`` with a random measured block at every place."""
    return with_names(base, [str(rng.choice(table.candidates(place))) for place in places(table.task, base)])


def bases(table: Table) -> list[Scaling]:
    """The configurations whose rests the table has."""
    config = CONFIGS[table.task]
    kinds = {f.name: type(f.default) for f in dataclasses.fields(config)}
    found = []
    for key in table.rest:
        pairs = [part.split("=") for part in key.split(", ") if "=" in part]
        found.append(config(**{name: kinds[name](text) for name, text in pairs}))
    return found


def checked(table: Table, count: int, rounds: int, seed: int = 0) -> Table:
    """The table with its line and check from ``count`` random whole networks, measured here and now.

    Raises ConfigError on another machine than the table's, or for fewer than 3 networks.
    """
    if not table.is_of_this_machine():
        raise ConfigError(f"the table was measured on '{table.device['machine']['cpu']}': check it there")
    if count < 3:
        raise ConfigError(f"a line through {count} networks says nothing: check with 3 or more, better 20")
    rng = np.random.default_rng(seed)
    starts = bases(table)
    configs = [random_config(table, starts[index % len(starts)], rng) for index in range(count)]
    plain = dataclasses.replace(table, line=(1.0, 0.0))
    sums = np.array([plain.predict_ms(config) for config in configs])
    real = measure.network_ms(table.task, configs, table.inference(), rounds)
    return dataclasses.replace(table, **agreement(sums, np.array(real)))


def agreement(sums: np.ndarray, real: np.ndarray) -> dict[str, object]:
    """Line and check of predicted and measured milliseconds, both (N,).

    The error after calibration is that of each network by a line through all the others.
    """
    lines = [np.polyfit(np.delete(sums, i), np.delete(real, i), 1) for i in range(len(sums))]
    by_others = np.array([np.polyval(line, ms) for line, ms in zip(lines, sums)])

    def error_percent(predicted: np.ndarray) -> float:
        return round(100 * float(np.median(np.abs(predicted - real) / real)), 2)

    slope, offset = (round(float(value), 5) for value in np.polyfit(sums, real, 1))
    check = {
        "networks": len(sums),
        "fastest_ms": round(float(real.min()), 4),
        "slowest_ms": round(float(real.max()), 4),
        "spearman": round(spearman(sums, real), 4),
        "median_error_percent": error_percent(sums),
        "median_error_percent_calibrated": error_percent(by_others),
    }
    return {"line": (slope, offset), "check": check}


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation of two (N,); equal values share the mean of their ranks."""

    def ranks(values: np.ndarray) -> np.ndarray:
        _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
        return (np.cumsum(counts) - (counts - 1) / 2)[inverse]

    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])
