"""Steady metric hand poses from camera images.

The public API: ``HandTracker(TrackerConfig()).step(Frame(image, stamp_s)) -> list[Hand]``, and what docs/python.md has
besides. Everything else may change.
"""

from __future__ import annotations

import importlib

# Loaded when first asked for, so that the generated messages and the command line start fast.
_PUBLIC = {
    "HandTracker": "tracker",
    "RigTracker": "rig_tracker",
    "TrackerConfig": "config",
    "Box": "geometry",
    "Camera": "types",
    "Frame": "types",
    "Hand": "types",
    "Scale": "types",
    "Source": "types",
    "Joint": "skeleton",
    "Side": "skeleton",
    "HandTrackingError": "errors",
    "load_camera_yaml": "calibration",
    "load_rig": "rig",
}
__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str):
    if name in _PUBLIC:
        return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    if name == "__version__":
        from hand_tracking_ros.paths import version

        return version()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
