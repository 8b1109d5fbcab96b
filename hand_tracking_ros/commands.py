"""What the command `hand-tracking` and the scripts share: how they end, and what they check before they begin."""

from __future__ import annotations

import argparse
import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path

from hand_tracking_ros.errors import ConfigError, HandTrackingError

USER_ERROR = 2
INTERRUPTED = 130


def command(main: Callable[..., int | None], prefix: str = "") -> Callable[..., int]:
    """``main`` as a command that returns its exit status.

    What it returns, or 0; USER_ERROR after an error that a user can mend, which is printed on stderr as one line.
    """

    @functools.wraps(main)
    def run(*args, **kwargs) -> int:
        try:
            return main(*args, **kwargs) or 0
        except HandTrackingError as error:
            message = str(error)
        except BrokenPipeError:  # the reader of our output went away, as in `hand-tracking models | head`
            sys.stderr.close()
            return 0
        except OSError as error:
            if error.filename is None:
                raise
            message = f"{error.filename}: {error.strerror}"
        except KeyboardInterrupt:
            return INTERRUPTED
        print(f"{prefix}error: {message}", file=sys.stderr)
        return USER_ERROR

    return run


def at_least(args: argparse.Namespace, least: float, *names: str, most: float = sys.float_info.max) -> None:
    """Raise ConfigError unless these arguments, as far as they are given, are numbers from ``least`` to ``most``."""
    for name in names:
        value = getattr(args, name)
        for number in value if isinstance(value, list | tuple) else [] if value is None else [value]:
            if not least <= number <= most:
                wanted = f"at least {least}" if most == sys.float_info.max else f"between {least} and {most}"
                raise ConfigError(f"--{name.replace('_', '-')} must be {wanted}, got {number}")


def check_output(path: Path | None, *endings: str) -> None:
    """Raise HandTrackingError unless a file can be written to ``path``, whose name ends as one of ``endings``, if any.

    For work that takes long: its folder is made now, the file itself is left alone.
    """
    if path is None:
        return
    if endings and path.suffix.lower() not in endings:
        raise HandTrackingError(f"cannot write {path}: the name must end in {' or '.join(endings)}")
    if path.is_dir():
        raise HandTrackingError(f"cannot write {path}: it is a folder; give the name of a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HandTrackingError(f"cannot write {path}: cannot make {path.parent}: {error.strerror}") from error
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise HandTrackingError(f"cannot write {path}: no permission")
