"""Where the package's data lies: models/, config/, launch/ and msg/ in a checkout, a venv or a colcon install."""

from __future__ import annotations

import os
import sys
import xml.etree.ElementTree as ElementTree
from functools import lru_cache
from pathlib import Path

from hand_tracking_ros.errors import HandTrackingError

PACKAGE = "hand_tracking_ros"


@lru_cache(maxsize=1)
def share_directory() -> Path:
    """The folder with package.xml, models/ and config/: the checkout itself, or <prefix>/share/hand_tracking_ros.

    pip and colcon both install to <prefix>/share, so the first parent of this file that has one of the two is right.
    Raises HandTrackingError when neither is found (a broken or partial install).
    """
    here = Path(__file__).resolve()
    checkout = here.parents[1]
    if (checkout / "package.xml").is_file() and (checkout / "models").is_dir():
        return checkout
    for parent in here.parents:
        share = parent / "share" / PACKAGE
        if (share / "package.xml").is_file():
            return share
    raise HandTrackingError(
        f"cannot find share/{PACKAGE}/package.xml above {here}: the install is incomplete, reinstall with "
        "'pip install .' or 'colcon build'"
    )


def models_directory() -> Path:
    """The folder with model manifests and weights."""
    return share_directory() / "models"


def config_directory() -> Path:
    """The folder with parameter files and the DDS profile."""
    return share_directory() / "config"


def cache_directory() -> Path:
    """$XDG_CACHE_HOME/hand_tracking_ros, by default ~/.cache/hand_tracking_ros: what can be made again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / PACKAGE


def profile_file() -> Path:
    """Where 'hand-tracking tune' leaves what it measured on this machine, and where nodes and command line look."""
    return cache_directory() / "profile.yaml"


def version() -> str:
    """The version of the package, from its package.xml."""
    return ElementTree.parse(share_directory() / "package.xml").findtext("version")


def set_ament_prefix() -> None:
    """Let the ament index find this Python's prefix where no ROS is sourced: ROS from wheels sets nothing up."""
    os.environ.setdefault("AMENT_PREFIX_PATH", sys.prefix)
