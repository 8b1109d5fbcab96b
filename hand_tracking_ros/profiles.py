"""The profile of a machine: the settings that `hand-tracking tune` measured to be the fastest there.

Nodes and command line take them where a parameter was not set, see ``fill_in``; ``HandTracker`` itself reads none. A
profile holds for the machine, the package's version, the backend's version and the model files that it was measured
with; anywhere else it is ignored, and the note says so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from hand_tracking_ros.backends import backend_status, version_for
from hand_tracking_ros.config import TrackerConfig, from_flat
from hand_tracking_ros.errors import ConfigError, HandTrackingError
from hand_tracking_ros.machine import this_machine
from hand_tracking_ros.manifest import load_manifest
from hand_tracking_ros.paths import profile_file, version

SWITCH = "inference.profile"
MODELS = ("detector.model", "keypoints.model")
TUNED = ("inference.backend", "inference.precision", "inference.threads", *MODELS)
AGAIN = "'hand-tracking tune' measures anew"
HEAD = (
    "# Written by 'hand-tracking tune'. Nodes and command line take these parameters where none is set;\n"
    "# 'inference.profile: none' or --no-profile leaves them out.\n"
)


@dataclass(frozen=True)
class Profile:
    """``parameters``: a value for each of TUNED; ``models``: sha256 of the file that runs for each of MODELS."""

    parameters: Mapping[str, Any]
    version: str
    machine: Mapping[str, Any]
    backend_version: str
    models: Mapping[str, str]
    measured: Mapping[str, Any]  # for people: latencies and accuracy


class Filled(NamedTuple):
    """Settings with what a profile adds; ``note``: which profile, or why it is ``ignored``; empty without one."""

    values: dict[str, Any]
    note: str = ""
    ignored: bool = False


def profile_of(parameters: Mapping[str, Any], measured: Mapping[str, Any]) -> Profile:
    """The profile that sets ``parameters`` on this machine. Raises ModelError when their models are not there."""
    backend_version = backend_status(parameters["inference.backend"]).version
    return Profile(
        dict(parameters), version(), this_machine(), str(backend_version), _sha256(parameters), dict(measured)
    )


def save_profile(path: Path, profile: Profile) -> None:
    """Write the profile; the folder is made where it is missing. Raises ConfigError."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(HEAD + yaml.safe_dump(dataclasses.asdict(profile), sort_keys=False, allow_unicode=True))
        unfinished.replace(path)  # a node that starts now reads the old one or the new one
    except OSError as error:
        raise ConfigError(f"cannot write profile {path}: {error.strerror}") from error


def load_profile(path: Path) -> Profile:
    """Read what ``save_profile`` wrote. Raises ConfigError."""
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read profile {path}: {error}; {AGAIN}") from error
    names = {f.name for f in dataclasses.fields(Profile)}
    if not isinstance(content, dict) or set(content) != names:
        raise ConfigError(f"profile {path} must have the keys {', '.join(sorted(names))}, and no others; {AGAIN}")
    for name, keys in (("parameters", TUNED), ("models", MODELS)):
        if not isinstance(content[name], dict) or set(content[name]) != set(keys):
            raise ConfigError(f"profile {path}: {name} must have the keys {', '.join(keys)}; {AGAIN}")
    try:
        from_flat(TrackerConfig, content["parameters"])
    except ConfigError as error:
        raise ConfigError(f"profile {path}: {error}; {AGAIN}") from error
    return Profile(**content)


def misfit(profile: Profile) -> str:
    """Why the profile does not hold here; empty when it does."""
    here = this_machine()
    if profile.machine != here:
        return f"it was measured on another machine ({_text(profile.machine)}; this is {_text(here)})"
    if profile.version != version():
        return f"it was measured with version {profile.version} of this package, which is now {version()}"
    backend = backend_status(profile.parameters["inference.backend"])
    if not backend.usable:
        return f"its backend {backend.name} cannot run: {backend.detail}"
    if profile.backend_version != str(backend.version):
        return f"it was measured with {backend.name} {profile.backend_version}, which is now {backend.version}"
    try:
        models = _sha256(profile.parameters)
    except HandTrackingError as error:
        return str(error)
    changed = [str(profile.parameters[name]) for name in MODELS if models[name] != profile.models[name]]
    return f"model {' and '.join(changed)} has changed since (another sha256)" if changed else ""


def fill_in(explicit: Mapping[str, Any], names: Collection[str]) -> Filled:
    """``explicit`` settings, and what the profile says about those of ``names`` that are not set.

    ``explicit['inference.profile']``: 'auto' (default) reads the profile of this user where there is one, 'none' reads
    none, anything else is a file. ConfigError when that file cannot be read; a broken one of 'auto' is ignored.
    """
    chosen = str(explicit.get(SWITCH, "auto"))
    path = profile_file() if chosen == "auto" else Path(chosen).expanduser()
    if chosen == "none" or not set(TUNED) & set(names) or (chosen == "auto" and not path.is_file()):
        return Filled(dict(explicit))
    try:
        profile = load_profile(path)
    except ConfigError as error:
        if chosen == "auto":
            return Filled(dict(explicit), f"ignored: {error}", ignored=True)
        raise
    problem = misfit(profile)
    if problem:
        return Filled(dict(explicit), f"ignored profile {path}: {problem}; {AGAIN}", ignored=True)
    taken = {name: value for name, value in _open(profile, explicit).items() if name in names}
    says = ", ".join(f"{name} {value}" for name, value in taken.items()) or "nothing, all of it is set explicitly"
    return Filled({**taken, **explicit}, f"from profile {path}: {says}")


def _open(profile: Profile, explicit: Mapping[str, Any]) -> dict[str, Any]:
    """The profile's parameters that are not set, without those that might not run with the ones that are.

    A precision was measured for its backend and its models: others may not have it.
    """
    other = {name for name in TUNED if explicit.get(name, profile.parameters[name]) != profile.parameters[name]}
    left = {name: value for name, value in profile.parameters.items() if name not in explicit}
    if other & {"inference.backend", *MODELS}:
        left.pop("inference.precision", None)
    if "inference.precision" in other:
        left.pop("inference.backend", None)
    return left


def _sha256(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Of the model files that run with these parameters."""
    backend, precision = parameters["inference.backend"], parameters["inference.precision"]
    return {name: version_for(backend, load_manifest(parameters[name]), precision).sha256 for name in MODELS}


def _text(machine: Mapping[str, Any]) -> str:
    return ", ".join(f"{value} cores" if name == "cores" else str(value) for name, value in machine.items())
