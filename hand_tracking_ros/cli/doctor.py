"""`hand-tracking doctor`: what is installed, which backend would run, what is missing and how to get it."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import importlib.util
import inspect
import json
import os
import platform
import re
import sys
from pathlib import Path
from typing import NamedTuple

from hand_tracking_ros.backends import available_backends, choose_backend, cuda
from hand_tracking_ros.cli.models import verify
from hand_tracking_ros.config import InferenceConfig
from hand_tracking_ros.errors import BackendError, HandTrackingError
from hand_tracking_ros.manifest import list_manifests
from hand_tracking_ros.paths import share_directory
from hand_tracking_ros.profiles import TUNED, fill_in

PROBLEM = 1
TEGRA_RELEASE = Path("/etc/nv_tegra_release")


class Item(NamedTuple):
    """One line of the report; ``state``: ok, missing (an option that is not there) or problem (to be put right)."""

    name: str
    state: str
    detail: str
    remedy: str = ""


# module, is it required, what it is for, how to get it
PACKAGES = (
    ("numpy", True, "arrays", "pip install numpy"),
    ("cv2", True, "images, optical flow", "pip install opencv-python-headless, or apt install python3-opencv"),
    ("onnxruntime", True, "inference on the CPU", "pip install onnxruntime"),
    ("yaml", True, "parameters and manifests", "pip install PyYAML"),
    ("filterpy", True, "design of the Kalman filter", "pip install filterpy"),
    (
        "rclpy",
        False,
        "the ROS 2 nodes",
        "source /opt/ros/<distro>/setup.bash; without an apt ROS: pip install '.[ros]'",
    ),
    ("cv_bridge", False, "image encodings beyond the common ones", "apt install ros-<distro>-cv-bridge"),
    ("launch_ros", False, "launch files ('hand-tracking up' works without)", "apt install ros-<distro>-launch-ros"),
    ("onnx", False, "TensorRT in fp16, export of models", "pip install onnx"),
    ("torch", False, "training", "pip install '.[train]'"),
)


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "doctor",
        help="show what is installed, what runs, and what is missing",
        description="Show what is installed, which backend would run and why, and how to get what is missing. "
        "The exit status is 0 when tracking on the CPU works.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 when nothing that tracking on the CPU needs is broken, else 1."""
    sections = examine()
    if args.json:
        report = {title: [item._asdict() for item in items] for title, items in sections.items()}
        print(json.dumps(report, indent=2))
    else:
        print("\n\n".join(_section(title, items) for title, items in sections.items()))
    broken = any(item.state == "problem" for items in sections.values() for item in items)
    if not args.json:
        print(f"\n{'Tracking on the CPU does not work yet: see the problems above.' if broken else 'Ready to track.'}")
    return PROBLEM if broken else 0


def examine() -> dict[str, list[Item]]:
    """Everything that the report shows, by section."""
    return {
        "machine": [_machine(), _gpu(), *_jetson()],
        "packages": [_package(*package) for package in PACKAGES] + [_messages()],
        "inference": _inference(),
        "models": _models(),
    }


def _machine() -> Item:
    detail = f"Python {platform.python_version()} ({sys.executable}), {platform.machine()}, {os.cpu_count()} CPUs"
    return Item("python", "ok", detail)


def _gpu() -> Item:
    try:
        gpu = cuda.first_gpu()
    except BackendError as error:
        return Item("gpu", "missing", str(error), "only needed for TensorRT")
    return Item("gpu", "ok", f"{gpu.name} ({gpu.architecture})")


def _jetson() -> list[Item]:
    """The L4T release on a Jetson; TensorRT 10 came with JetPack 6.1, which is L4T R36.4."""
    try:
        text = TEGRA_RELEASE.read_text()
    except OSError:
        return []
    found = re.search(r"R(\d+).*?REVISION:\s*(\d+)", text)
    release = (int(found[1]), int(found[2])) if found else (0, 0)
    if release >= (36, 4):
        return [Item("jetson", "ok", f"L4T R{release[0]}.{release[1]}")]
    detail = f"L4T R{release[0]}.{release[1]}: its TensorRT is older than 10"
    return [Item("jetson", "missing", detail, "update to JetPack 6.1 or newer; until then inference runs on the CPU")]


def _package(module: str, required: bool, purpose: str, remedy: str) -> Item:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:  # no origin: just a folder of that name in the working directory
        return Item(module, "problem" if required else "missing", f"not installed (for {purpose})", remedy)
    if not required:  # not imported: torch takes seconds
        return Item(module, "ok", _version(module))
    try:
        return Item(module, "ok", str(getattr(importlib.import_module(module), "__version__", "installed")))
    except Exception as error:  # whatever a broken package raises, the doctor reports it
        return Item(module, "problem", f"does not import: {type(error).__name__}: {error}", f"reinstall it: {remedy}")


def _version(module: str) -> str:
    try:
        return importlib.metadata.version(module)
    except importlib.metadata.PackageNotFoundError:
        return "installed"


def _messages() -> Item:
    name, remedy = "hand_tracking_ros.msg", "colcon build, or pip install '.[ros]'"
    try:
        from hand_tracking_ros.msg import HandArray
    except ImportError as error:
        return Item(name, "missing", f"the ROS messages are not built here ({error})", remedy)
    return Item(name, "ok", f"built, {Path(inspect.getfile(HandArray)).parent}")


def _inference() -> list[Item]:
    items = []
    for status in available_backends():
        state = "ok" if status.usable else "problem" if status.name == "onnxruntime" else "missing"
        version = f"{status.version}: " if status.version else ""
        items.append(Item(status.name, state, version + status.detail, status.remedy))
    try:
        choice = choose_backend(InferenceConfig())
        items.append(Item("backend: auto", "ok", f"runs {choice.names[0]} ({choice.reason})"))
    except BackendError as error:
        items.append(Item("backend: auto", "problem", str(error), "pip install onnxruntime"))
    return [*items, _profile()]


def _profile() -> Item:
    """The settings measured on this machine."""
    filled = fill_in({}, TUNED)
    if filled.note and not filled.ignored:
        return Item("profile", "ok", filled.note)
    return Item("profile", "missing", filled.note or "the defaults are used", "hand-tracking tune")


def _models() -> list[Item]:
    try:
        share_directory()
        paths = list_manifests()
    except HandTrackingError as error:
        return [Item("models", "problem", str(error), "reinstall the package")]
    if not paths:
        return [Item("models", "problem", "no models installed", "reinstall the package")]
    items = []
    for path in paths:
        result = verify(str(path))
        good = result["problem"] is None
        items.append(
            Item(result["name"], "ok" if good else "problem", f"verified, {path}" if good else result["problem"])
        )
    return items


def _section(title: str, items: list[Item]) -> str:
    width = max(len(item.name) for item in items)
    lines = [title.upper()]
    for item in items:
        lines.append(f"  {item.state:<8} {item.name:<{width}}  {item.detail}")
        if item.remedy and item.state != "ok":
            lines.append(f"  {'':<8} {'':<{width}}  -> {item.remedy}")
    return "\n".join(lines)
