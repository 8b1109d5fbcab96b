"""Options that several commands share: the tracker's parameters, and plain tables."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from hand_tracking_ros.config import TrackerConfig, flat_fields, from_flat
from hand_tracking_ros.errors import ConfigError
from hand_tracking_ros.nodes.settings import known_names
from hand_tracking_ros.profiles import SWITCH, fill_in

NODE = "hand_tracker_node"  # whose section of a ROS parameter file holds the tracker's parameters
SIZE_FILE = "pose.size_file"
MAX_SIDE_PX = 16384
_NUMBER = re.compile(r"[+-]?\.?\d|-?$")  # how a cell with a number begins; '-' and '' stand for one that is not there


def add_tracker_options(parser: argparse.ArgumentParser) -> None:
    """--params, --set and --no-profile: the same parameters as the ROS nodes have."""
    parser.add_argument("--params", type=Path, metavar="YAML", help="parameter file, as the ROS nodes read it")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="one parameter, e.g. track.max_hands=1; wins over --params; may be repeated",
    )
    parser.add_argument(
        "--no-profile",
        action="store_true",
        help=f"defaults, not what 'hand-tracking tune' measured here (--set {SWITCH}=none)",
    )


def tracker_config(
    args: argparse.Namespace, config_type: type[TrackerConfig] = TrackerConfig, **overrides: Any
) -> TrackerConfig:
    """The tracker's configuration from --params and --set, the rest from the machine's profile. Raises ConfigError.

    ``config_type``: with the parameters that a command has beside the tracker's.
    """
    values = read_parameters(args.params, config_type) if args.params else {}
    own = [name for name, _ in flat_fields(config_type)]
    for assignment in args.set:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise ConfigError(f"--set needs NAME=VALUE, got '{assignment}'")
        name = name.strip()
        if name not in own and name in known_names():
            raise ConfigError(f"--set {name}: a parameter of nodes, without effect here")
        values[name] = _parsed(text, f"--set {assignment}")
    values |= overrides | ({SWITCH: "none"} if args.no_profile else {})
    filled = fill_in(values, own)
    if filled.note:
        print(f"hand-tracking: {filled.note}", file=sys.stderr)
    return from_flat(config_type, filled.values)


def parameter_files(args: argparse.Namespace, config: TrackerConfig) -> list[tuple[str, str | Path | None]]:
    """The files that --params and the parameters name, by option; some parameters are names instead."""
    return [
        ("--params", args.params),
        (SIZE_FILE, config.pose.size_file),
        (SWITCH, config.inference.profile),
        ("detector.model", config.detector.model),
        ("keypoints.model", config.keypoints.model),
    ]


def read_parameters(path: Path, config_type: type[TrackerConfig] = TrackerConfig) -> dict[str, Any]:
    """{'track.max_hands': 2, ...} from a parameter file, as ROS writes it (node name, ros__parameters) or without.

    Parameters of other nodes are passed over; names that no node knows raise ConfigError when the config is made.
    """
    content = load_parameter_file(path)
    flat: dict[str, Any] = {}
    sections = {str(key): value for key, value in content.items() if isinstance(value, Mapping)}
    if any("ros__parameters" in section for section in sections.values()):
        for node, section in sections.items():
            if node.strip("/*") in ("", NODE):
                parameters = section.get("ros__parameters") or {}
                if not isinstance(parameters, Mapping):
                    raise ConfigError(f"parameter file {path}: ros__parameters must map names to values")
                flat |= _flatten(parameters)
    else:
        flat = _flatten(content)
    own = {name for name, _ in flat_fields(config_type)}
    return {name: value for name, value in flat.items() if name in own or name not in known_names()}


def load_parameter_file(path: Path) -> Mapping[str, Any]:
    """What a parameter file holds. Raises ConfigError."""
    try:
        content = _parsed(path.read_text(encoding="utf-8"), f"parameter file {path}") or {}
    except OSError as error:
        raise ConfigError(f"cannot read parameter file {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"parameter file {path} is no text (UTF-8): {error}") from error
    if not isinstance(content, Mapping):
        raise ConfigError(f"parameter file {path} must map names to values")
    return content


class _Loader(yaml.SafeLoader):
    """YAML 1.1, in which 1e-3 is a word, with the numbers that ROS reads."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def _parsed(text: str, where: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where} is not valid YAML: {error}") from error


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def image_size(text: str) -> tuple[int, int]:
    """(640, 480) of '640x480', as --size has it. Raises ConfigError."""
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise ConfigError(f"--size must be WIDTHxHEIGHT, e.g. 640x480; got '{text}'")
    if not all(1 <= int(side) <= MAX_SIDE_PX for side in (width, height)):
        raise ConfigError(f"--size: width and height must be between 1 and {MAX_SIDE_PX}, got {text}")
    return int(width), int(height)


def text_table(rows: Sequence[Sequence[Any]], header: Sequence[str] | None = None) -> str:
    """Columns aligned with spaces: the first and words to the left, numbers (with their units) to the right."""
    cells = [[str(cell) for cell in row] for row in ([header] if header else []) + list(rows)]
    columns = list(zip(*cells, strict=True))
    numbers = [i > 0 and all(map(_NUMBER.match, column[bool(header) :])) for i, column in enumerate(columns)]
    widths = [max(map(len, column)) for column in columns]
    lines = []
    for row in cells:
        padded = (c.rjust(w) if number else c.ljust(w) for c, w, number in zip(row, widths, numbers, strict=True))
        lines.append("  ".join(padded).rstrip())
    if header:
        lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines)
