"""Strict JSON, one object per line: what is not finite is null; every complaint names its place.

A malformed file raises RecordError, which names file and line.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hand_tracking_ros.errors import RecordError


def dumps(record: Mapping[str, Any]) -> str:
    """One line of strict JSON, without the newline; values that are not finite become null."""
    return json.dumps(_finite(record), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


class JsonObject:
    """A JSON object that knows where it stands, so that every complaint names the place."""

    def __init__(self, values: Any, where: str) -> None:
        self.where = where
        if not isinstance(values, dict):
            self.fail(f"expected an object, got {values!r:.60}")
        self.values = values

    def fail(self, message: str) -> Any:
        raise RecordError(f"{self.where}: {message}; the format stands in docs/evaluation.md")

    def get(self, key: str, kinds: type | tuple[type, ...], *, optional: bool = False) -> Any:
        if key not in self.values and not optional:
            self.fail(f"'{key}' is missing")
        value = self.values.get(key)
        if value is None and optional:
            return None
        if not isinstance(value, kinds) or isinstance(value, bool):
            self.fail(f"'{key}' has the wrong type: {value!r:.60}")
        return value

    def choice(self, key: str, choices: Mapping[Any, Any]) -> Any:
        value = self.values.get(key)
        if not isinstance(value, str | None) or value not in choices:
            self.fail(f"'{key}' must be one of {', '.join(map(repr, choices))}, got {value!r:.60}")
        return choices[value]

    def array(self, key: str, *shape: int, optional: bool = False, finite: bool = False) -> np.ndarray | None:
        """Numbers of ``shape``, null as NaN."""
        value = self.get(key, list, optional=optional)
        if value is None:
            return None
        try:
            array = np.array(value, dtype=np.float64)
        except (TypeError, ValueError):
            array = np.empty(0)
        if array.shape != shape:
            self.fail(f"'{key}' must be {' x '.join(map(str, shape))} numbers")
        if finite and not np.isfinite(array).all():
            self.fail(f"'{key}' must not hold null")
        return array

    def children(self, key: str) -> Iterator[JsonObject]:
        for index, item in enumerate(self.get(key, list)):
            yield JsonObject(item, f"{self.where}: {key}[{index}]")


def objects(path: Path) -> Iterator[JsonObject]:
    """The objects of a file, one per line; empty lines are passed over."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON, write null")

    try:
        with path.open() as stream:
            for number, line in enumerate(stream, 1):
                if not line.strip():
                    continue
                try:
                    values = json.loads(line, parse_constant=refuse)
                except ValueError as error:
                    raise RecordError(f"{path}:{number}: not a JSON object: {error}") from error
                yield JsonObject(values, f"{path}:{number}")
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"cannot read {path}: {error}; expected a file as docs/evaluation.md describes") from error
