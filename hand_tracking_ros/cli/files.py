"""Files that commands write: checked before the work begins."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import TextIO

from hand_tracking_ros.commands import check_output
from hand_tracking_ros.errors import HandTrackingError
from hand_tracking_ros.sources import IMAGE_SUFFIXES

READ_FROM_FOLDERS = (*IMAGE_SUFFIXES, ".dat")  # what commands read of a folder that they are given


def check_outputs(outputs: Mapping[str, Path | None], inputs: Sequence[tuple[str, str | Path | None]]) -> None:
    """Refuse outputs, by option, that are an input (option and path), that are one file, or that cannot be written.

    Their folders are made. Raises HandTrackingError.
    """
    given = [(option, path) for option, path in outputs.items() if path is not None]
    for option, path in given:
        for name, source in inputs:
            if source is not None and _is_read(path, str(source)):
                raise HandTrackingError(f"{option} {path} would overwrite {name}, which is read: name another file")
        check_output(path)
    for (option, path), (other, same) in combinations(given, 2):
        if path.resolve() == same.resolve() or _same(path, same):
            raise HandTrackingError(f"{option} {path} and {other} {same} are one file: name two")


def create(path: Path) -> TextIO:
    """The file, open to be written. Raises HandTrackingError."""
    try:
        return path.open("w")
    except OSError as error:
        raise HandTrackingError(f"cannot write {path}: {error.strerror}") from error


def _is_read(output: Path, source: str) -> bool:
    file = os.path.expanduser(source.removeprefix("file://"))
    if os.path.isdir(file):
        return output.suffix.lower() in READ_FROM_FOLDERS and output.exists() and _same(output.parent, file)
    return _same(output, file)


def _same(one: str | Path, other: str | Path) -> bool:
    return os.path.exists(one) and os.path.exists(other) and os.path.samefile(one, other)
