"""What every backend checks alike: the model's tensors against its manifest at load, and the arrays of each call."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hand_tracking_ros.errors import BackendError, ModelError
from hand_tracking_ros.manifest import ModelManifest, TensorSpec


def check_specs(manifest: ModelManifest, inputs: Mapping[str, TensorSpec], outputs: Mapping[str, TensorSpec]) -> None:
    """Raise ModelError unless the tensors that the model file really has are those of its manifest.

    ``inputs``, ``outputs``: what the runtime read from the file; a free dimension is any string. Outputs whose size the
    file leaves open (string) may be fixed in the manifest, inputs may not.
    """
    problems = _compare("input", manifest.inputs, inputs, open_allowed=False)
    problems += _compare("output", manifest.outputs, outputs, open_allowed=True)
    if problems:
        raise ModelError(
            f"model '{manifest.name}': {manifest.file} does not fit its manifest {manifest.path}: {'; '.join(problems)}"
            "; export the model and its manifest together again, or restore both from the same release"
        )


def _compare(
    kind: str, wanted: Mapping[str, TensorSpec], actual: Mapping[str, TensorSpec], open_allowed: bool
) -> list[str]:
    problems = []
    if set(wanted) != set(actual):
        problems.append(f"{kind}s are {', '.join(actual)}, the manifest says {', '.join(wanted)}")
    for name in wanted.keys() & actual.keys():
        if not _fits(wanted[name], actual[name], open_allowed):
            problems.append(f"{kind} '{name}' is {actual[name]}, the manifest says {wanted[name]}")
    return problems


def _fits(wanted: TensorSpec, actual: TensorSpec, open_allowed: bool) -> bool:
    if wanted.dtype != actual.dtype or len(wanted.shape) != len(actual.shape):
        return False
    for size, real in zip(wanted.shape, actual.shape, strict=True):
        if isinstance(real, str):
            if isinstance(size, int) and not open_allowed:
                return False
        elif size != real:
            return False
    return True


def check_feeds(inputs: Mapping[str, TensorSpec], feeds: Mapping[str, np.ndarray], max_batch: int) -> None:
    """Raise BackendError unless ``feeds`` has exactly the arrays of ``inputs``, free dimensions in 1..max_batch."""
    if feeds.keys() != inputs.keys():
        raise BackendError(f"the model takes the inputs {', '.join(inputs)}; got {', '.join(feeds) or 'none'}")
    for name, spec in inputs.items():
        array = feeds[name]
        if array.dtype != spec.dtype or not _shape_fits(array.shape, spec.shape, max_batch):
            raise BackendError(
                f"input '{name}' must be {spec} with free dimensions in 1..{max_batch}; "
                f"got {array.dtype} {list(array.shape)}"
            )


def _shape_fits(shape: tuple[int, ...], wanted: tuple[int | str, ...], max_batch: int) -> bool:
    if len(shape) != len(wanted):
        return False
    for size, want in zip(shape, wanted, strict=True):
        if isinstance(want, str):
            if not 1 <= size <= max_batch:
                return False
        elif size != want:
            return False
    return True
