"""Configuration: frozen dataclasses that hold the only defaults. ROS parameters and YAML are derived from them.

Every field carries its description and its range or choices, so one definition serves validation, ROS parameter
descriptors and the documentation. Times are in seconds; shares and scores are 0..1.
"""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from hand_tracking_ros.errors import ConfigError


def param(default, doc: str, *, low=None, high=None, choices=None, read_only: bool = False):
    """A dataclass field with the facts a ROS parameter descriptor needs."""
    return field(
        default=default,
        metadata={"doc": doc, "low": low, "high": high, "choices": choices, "read_only": read_only},
    )


class Config:
    """Base of the config dataclasses: checks every value against its field when made."""

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            if "doc" in f.metadata:
                object.__setattr__(self, f.name, check_value(f.name, getattr(self, f.name), f))


def check_value(name: str, value: Any, f: dataclasses.Field) -> Any:
    """Return ``value`` as the type of field ``f``; raise ConfigError when type, range or choice is wrong."""
    kind = type(f.default)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not kind:
        raise ConfigError(f"parameter '{name}' must be {kind.__name__}, got {value!r} ({type(value).__name__})")
    low, high, choices = f.metadata["low"], f.metadata["high"], f.metadata["choices"]
    if kind is float and value != value:
        raise ConfigError(f"parameter '{name}' is NaN; give a number between {low} and {high}")
    if (low is not None and value < low) or (high is not None and value > high):
        raise ConfigError(f"parameter '{name}' must be between {low} and {high}, got {value}")
    if choices is not None and value not in choices:
        raise ConfigError(f"parameter '{name}' must be one of {', '.join(map(repr, choices))}; got {value!r}")
    return value


BACKENDS = ("auto", "onnxruntime", "openvino", "tensorrt", "onnxruntime_cuda")


@dataclass(frozen=True)
class InferenceConfig(Config):
    """Where and how the networks run."""

    backend: str = param(
        "auto", "Inference backend; auto takes the best one installed", choices=BACKENDS, read_only=True
    )
    precision: str = param(
        "auto",
        "Numeric precision; auto: int8 on a CPU where the model comes in int8, else fp32. fp16: TensorRT only",
        choices=("auto", "fp32", "fp16", "int8"),
        read_only=True,
    )
    threads: int = param(1, "CPU threads per network", low=1, high=64, read_only=True)
    profile: str = param(
        "auto",
        "What nodes and command line take where backend, precision, threads and models are not set: what "
        "'hand-tracking tune' measured (auto), that of another file, or the defaults (none)",
        read_only=True,
    )


@dataclass(frozen=True)
class DetectorConfig(Config):
    """DetNet: finding hands in a whole image."""

    model: str = param("detnet", "Model name in models/, or a path to a manifest .yaml", read_only=True)
    score_threshold: float = param(0.2, "Least score of a detection", low=0.01, high=1.0)
    nms_iou: float = param(0.4, "Detections that overlap a better one by more than this are dropped", low=0.0, high=1.0)


@dataclass(frozen=True)
class KeypointConfig(Config):
    """KeyNet: 21 keypoints of the hand in a box."""

    model: str = param("keynet", "Model name in models/, or a path to a manifest .yaml", read_only=True)
    crop_scale: float = param(1.4, "Side of the crop over the side of the hand's tight box", low=1.0, high=3.0)
    duplicate_share: float = param(
        0.35, "Hands whose keypoints are closer than this share of a palm are one hand", low=0.0, high=1.0
    )
    sure_score: float = param(
        0.3, "Mean keypoint score of a sure hand; a lower one lowers the presence in proportion", low=0.01, high=1.0
    )
    refine_new: bool = param(True, "Run KeyNet twice on a new detection: the second crop follows the first result")


@dataclass(frozen=True)
class FlowConfig(Config):
    """Box propagation by pyramidal Lucas-Kanade optical flow."""

    window_px: int = param(11, "Side of the flow window", low=5, high=61)
    levels: int = param(4, "Pyramid levels above full resolution", low=0, high=6)
    max_width_px: int = param(320, "Wider images are halved until they fit before flow", low=160, high=4096)
    max_backward_error_px: float = param(
        2.0, "A point that flows back further than this from its start is dropped", low=0.1, high=20.0
    )
    average: bool = param(True, "Average keypoints over frames, carried along by optical flow: steadier without lag")
    min_points: int = param(8, "With fewer surviving points the box moves by its last velocity", low=2, high=23)


@dataclass(frozen=True)
class TrackConfig(Config):
    """Life of a track, and the budget of the detector."""

    max_hands: int = param(2, "Hands tracked at once", low=1, high=16)
    search_interval_s: float = param(0.0, "Least time between detections while no hand is tracked", low=0.0, high=10.0)
    missing_interval_s: float = param(
        0.1, "Least time between detections while some wanted hand is missing", low=0.0, high=10.0
    )
    retry_interval_s: float = param(
        0.1, "A place where KeyNet saw no hand is not looked at again for this long", low=0.0, high=10.0
    )
    start_presence: float = param(0.7, "Least presence that starts a track", low=0.0, high=1.0)
    keep_presence: float = param(0.5, "Least presence that counts as seen; below it a track coasts", low=0.0, high=1.0)
    coast_s: float = param(0.15, "A track not seen for this long ends", low=0.0, high=5.0)
    max_gap_s: float = param(
        0.5, "A longer gap between frames, or a backward one, resets all tracks", low=0.01, high=60.0
    )
    one_person: bool = param(
        True, "Two hands in view belong to one person, one left, one right, unless both surely are of one side"
    )

    @property
    def least_presence(self) -> float:
        """With less no hand starts, and none is kept."""
        return min(self.start_presence, self.keep_presence)


@dataclass(frozen=True)
class FilterConfig(Config):
    """Temporal filter of the keypoints, and of the handedness."""

    kind: str = param("one_euro", "Temporal filter", choices=("none", "one_euro", "kalman"))
    min_cutoff_hz: float = param(1.0, "one_euro: cut-off at rest; lower is steadier", low=0.01, high=100.0)
    beta: float = param(
        4.0, "one_euro: Hz of cut-off per palm length/s of speed; higher lags less", low=0.0, high=1000.0
    )
    derivative_cutoff_hz: float = param(2.0, "one_euro: cut-off of the speed estimate", low=0.01, high=100.0)
    acceleration: float = param(
        15.0, "kalman: acceleration noise, palm lengths/s^2 (standard deviation)", low=0.01, high=10000.0
    )
    measurement: float = param(
        0.06, "kalman: measurement noise, palm lengths (standard deviation)", low=0.0001, high=1.0
    )
    side_memory_s: float = param(2.0, "Handedness is averaged over about this long", low=0.0, high=60.0)
    predict_s: float = param(
        0.0, "Hands are published as they will be this long after their image's stamp", low=0.0, high=0.2
    )


@dataclass(frozen=True)
class PoseConfig(Config):
    """The kinematic hand in metres; needs a calibrated camera."""

    enabled: bool = param(True, "Fit a kinematic hand where the camera is calibrated, instead of lifting points alone")
    palm_m: float = param(
        0.088, "Assumed length wrist to middle finger base, until it is calibrated", low=0.03, high=0.2
    )
    size_file: str = param(
        "",
        "File with the measured size of the user's hands ('hand-tracking size'); wins over palm_m",
        read_only=True,
    )
    iterations: int = param(4, "Most iterations of the fit per frame", low=1, high=100)
    lead: float = param(0.7, "Share of the last motion that the next pose is expected to repeat", low=0.0, high=1.0)
    drift: float = param(
        1.0, "How far a pose may leave what was expected; lower is steadier and lags more", low=0.01, high=100.0
    )
    preset: str = param(
        "balanced",
        "one_euro on the pose: teleop lags least, xr is steadiest; custom takes min_cutoff_hz and beta",
        choices=("teleop", "balanced", "xr", "custom"),
    )
    min_cutoff_hz: float = param(1.5, "preset custom: cut-off at rest; lower is steadier", low=0.01, high=100.0)
    beta: float = param(
        4.0, "preset custom: Hz of cut-off per palm length/s of speed; higher lags less", low=0.0, high=1000.0
    )


@dataclass(frozen=True)
class GestureConfig(Config):
    """Pinch strength and gestures; each has an upper value where it switches on and a lower one where it ends."""

    pinch_near: float = param(0.25, "Gap between two fingertips, palm lengths, that is a full pinch", low=0.0, high=0.5)
    pinch_far: float = param(0.9, "Gap between two fingertips, palm lengths, that is no pinch", low=0.55, high=3.0)
    pinch_on: float = param(0.85, "Pinch strength that begins a pinch", low=0.5, high=1.0)
    pinch_off: float = param(0.5, "Pinch strength below which a pinch ends", low=0.0, high=0.5)
    bent: float = param(0.6, "Curl above which a finger is bent; 0 straight, 1 a tight fist", low=0.4, high=1.0)
    straight: float = param(0.4, "Curl below which a finger is straight", low=0.0, high=0.4)
    thumb_off: float = param(
        1.25, "Gap between thumb tip and base of the little finger, palm lengths, of a raised thumb", low=1.15, high=2.0
    )
    thumb_near: float = param(1.05, "That gap where the thumb is at the hand again", low=0.0, high=1.15)
    hold_s: float = param(0.1, "A gesture must last this long before it is named", low=0.0, high=5.0)


@dataclass(frozen=True)
class TrackerConfig(Config):
    """Everything the tracker needs; ``TrackerConfig()`` is the default."""

    inference: InferenceConfig = field(default_factory=InferenceConfig)
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    keypoints: KeypointConfig = field(default_factory=KeypointConfig)
    flow: FlowConfig = field(default_factory=FlowConfig)
    track: TrackConfig = field(default_factory=TrackConfig)
    filter: FilterConfig = field(default_factory=FilterConfig)
    pose: PoseConfig = field(default_factory=PoseConfig)


def flat_fields(config: type[Config] | Config, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field]]:
    """('track.max_hands', field) for every parameter of a config class, nested ones included."""
    hints = typing.get_type_hints(config if isinstance(config, type) else type(config))
    for f in dataclasses.fields(config):
        if "doc" in f.metadata:
            yield prefix + f.name, f
        else:
            yield from flat_fields(hints[f.name], f"{prefix}{f.name}.")


def to_flat(config: Config) -> dict[str, Any]:
    """{'track.max_hands': 2, ...}."""
    flat = {}
    for name, _ in flat_fields(config):
        value: Any = config
        for part in name.split("."):
            value = getattr(value, part)
        flat[name] = value
    return flat


def from_flat(config_type: type[Config], values: Mapping[str, Any]) -> Any:
    """A config from dotted names; what is not named keeps its default. Unknown names raise ConfigError."""
    known = dict(flat_fields(config_type))
    nested: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            raise ConfigError(unknown_parameter(name, known))
        check_value(name, value, known[name])
        *parents, leaf = name.split(".")
        target = nested
        for part in parents:
            target = target.setdefault(part, {})
        target[leaf] = value
    return _build(config_type, nested)


def unknown_parameter(name: str, known: Iterable[str]) -> str:
    """What to say of a name that is none of ``known``: the closest one, or all."""
    close = difflib.get_close_matches(name, sorted(known), n=1)
    return f"unknown parameter '{name}'; " + (
        f"did you mean '{close[0]}'?" if close else f"known: {', '.join(sorted(known))}"
    )


def from_nested(config_type: type[Config], values: Mapping[str, Any]) -> Any:
    """A config from nested mappings, as YAML gives them."""
    return from_flat(config_type, dict(_flatten(values)))


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:  # an empty section is no section: its name is checked as a parameter
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _build(config_type: type[Config], nested: Mapping[str, Any]) -> Any:
    hints = typing.get_type_hints(config_type)
    arguments = {}
    for name, value in nested.items():
        arguments[name] = _build(hints[name], value) if isinstance(value, Mapping) else value
    return config_type(**arguments)
