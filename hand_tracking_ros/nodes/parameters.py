"""ROS parameters from a config class: names, types, ranges and descriptions are stated there and nowhere else."""

from __future__ import annotations

import dataclasses
import difflib
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node

from hand_tracking_ros.config import Config, check_value, flat_fields, from_flat, unknown_parameter
from hand_tracking_ros.errors import ConfigError
from hand_tracking_ros.nodes.settings import known_names
from hand_tracking_ros.profiles import SWITCH, fill_in

SIMILAR = 0.85  # names that are as like each other are the same, one of them misspelt


class Parameters:
    """The parameters of one node, declared from ``config_type`` and read back as an instance of it.

    A start value that does not fit (command line, YAML) does not stop the node: it keeps the default, and ``read``
    raises ConfigError, so that the configure transition fails with the cause. Setting a good value mends it.
    """

    def __init__(self, node: Node, config_type: type[Config]) -> None:
        self._node = node
        self._type = config_type
        self._fields = dict(flat_fields(config_type))
        # rclpy offers no public way to see the start values before they are declared.
        start_values = {name: parameter.value for name, parameter in node._parameter_overrides.items()}
        self._problems = _unknown_names(start_values)
        for warning in _like_ours(start_values):
            node.get_logger().warning(warning)
        start_values = self._with_profile(start_values)
        for name, f in self._fields.items():
            self._declare(name, f, start_values.get(name, f.default))
        self.changed = False
        node.add_on_set_parameters_callback(self._validate)

    def read(self) -> Any:
        """The parameters as they stand. Raises ConfigError when a start value was wrong."""
        self.changed = False
        if self._problems:
            raise ConfigError("; ".join(self._problems.values()))
        return self._built({})

    def _built(self, changes: dict[str, Any]) -> Any:
        """The parameters as they stand, with some changes. Raises ConfigError where they do not go together."""
        values = {name: self._node.get_parameter(name).value for name in self._fields}
        return from_flat(self._type, values | {name: value for name, value in changes.items() if name in values})

    def _with_profile(self, start_values: dict[str, Any]) -> dict[str, Any]:
        """What is not set is what the machine's profile says; the log names the profile."""
        try:
            filled = fill_in(start_values, self._fields)
        except ConfigError as error:
            self._problems[SWITCH] = str(error)
            return start_values
        if filled.note:
            log = self._node.get_logger()
            (log.warning if filled.ignored else log.info)(filled.note)
        return filled.values

    def _declare(self, name: str, f: dataclasses.Field, value: Any) -> None:
        if type(f.default) is str and type(value) is int:
            value = str(value)  # -p camera.source:=0
        try:
            value = check_value(name, value, f)
        except ConfigError as error:
            self._problems[name] = str(error)
            value = f.default
        self._node.declare_parameter(name, value, descriptor(f), ignore_override=True)

    def _validate(self, parameters) -> SetParametersResult:
        """Accept or refuse. What is accepted is applied later: the node reads again before its next frame."""
        for parameter in parameters:
            if parameter.name in self._fields:
                try:
                    check_value(parameter.name, parameter.value, self._fields[parameter.name])
                except ConfigError as error:
                    return SetParametersResult(successful=False, reason=str(error))
        try:
            self._built({parameter.name: parameter.value for parameter in parameters})
        except ConfigError as error:
            return SetParametersResult(successful=False, reason=str(error))
        for parameter in parameters:
            self._problems.pop(parameter.name, None)
        self.changed = True
        return SetParametersResult(successful=True)


def descriptor(f: dataclasses.Field) -> ParameterDescriptor:
    """The descriptor of a config field: description, range, choices, read_only."""
    facts = f.metadata
    result = ParameterDescriptor(description=facts["doc"], read_only=facts["read_only"])
    if facts["choices"] is not None:
        result.additional_constraints = f"one of: {', '.join(facts['choices'])}"
    if facts["low"] is not None and type(f.default) is int:
        result.integer_range = [IntegerRange(from_value=facts["low"], to_value=facts["high"], step=1)]
    if facts["low"] is not None and type(f.default) is float:
        result.floating_point_range = [
            FloatingPointRange(from_value=float(facts["low"]), to_value=float(facts["high"]))
        ]
    return result


def _unknown_names(start_values) -> dict[str, str]:
    """Names in one of our groups that no node of this package has: misspelt, and otherwise silently without effect.

    A name of another of our nodes is fine (all share one YAML), and so is one of somebody else's.
    """
    known = known_names()
    groups = {name.split(".")[0] for name in known if "." in name}
    unknown = [name for name in sorted(set(start_values) - known) if name.split(".")[0] in groups]
    return {name: unknown_parameter(name, known) for name in unknown}


def _like_ours(start_values) -> list[str]:
    """What to say of names outside of our groups that are nearly one of ours; they may be somebody else's."""
    known = sorted(known_names())
    groups = {name.split(".")[0] for name in known if "." in name}
    warnings = []
    for name in sorted(set(start_values) - set(known)):
        close = [ours for ours in known if ours.endswith(f".{name}")]
        close = close or difflib.get_close_matches(name, known, n=1, cutoff=SIMILAR)
        if close and name.split(".")[0] not in groups:
            warnings.append(f"parameter '{name}' has no effect on this node; did you mean '{close[0]}'?")
    return warnings
