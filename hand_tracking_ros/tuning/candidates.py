"""What can run on this machine: every pair of networks of a size on every backend, precision and number of threads."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hand_tracking_ros.backends import ON_GPU, PRECISIONS, available_backends
from hand_tracking_ros.errors import BackendError
from hand_tracking_ros.machine import usable_cores
from hand_tracking_ros.manifest import ModelManifest, list_manifests, load_manifest

MOST_THREADS = 8  # networks this small gain nothing from more


class Candidate(NamedTuple):
    """A configuration to measure; ``detector`` and ``keypoints`` are names of models or paths of their manifests."""

    detector: str
    keypoints: str
    backend: str
    precision: str
    threads: int

    def parameters(self) -> dict[str, Any]:
        """As the parameters that a profile holds."""
        return {
            "inference.backend": self.backend,
            "inference.precision": self.precision,
            "inference.threads": self.threads,
            "detector.model": self.detector,
            "keypoints.model": self.keypoints,
        }

    def reference(self) -> Candidate:
        """The same networks in fp32 on ONNX Runtime: what their outputs should be."""
        return self._replace(backend="onnxruntime", precision="fp32", threads=1)

    def __str__(self) -> str:
        names = f"{Path(self.detector).stem} + {Path(self.keypoints).stem}"
        return f"{names}, {self.backend} {self.precision}, {self.threads} thread{'s' * (self.threads > 1)}"


def usable_backends(wanted: Sequence[str] = ()) -> list[str]:
    """The backends that can run here, or those of ``wanted``. BackendError when one of these cannot, or none can."""
    statuses = {status.name: status for status in available_backends()}
    for name in wanted:
        if not statuses[name].usable:
            raise BackendError(f"backend '{name}' cannot run: {statuses[name].detail}; {statuses[name].remedy}")
    found = list(wanted) or [name for name, status in statuses.items() if status.usable]
    if not found:
        raise BackendError("no inference backend can run: 'hand-tracking doctor' says how to get one")
    return found


def thread_counts() -> list[int]:
    """1, 2, 4, ... up to the cores that this process may use."""
    most = min(usable_cores(), MOST_THREADS)
    return [2**k for k in range(most.bit_length()) if 2**k <= most]


def list_candidates(
    backends: Sequence[str], threads: Sequence[int], directory: Path | None = None, licence: str | None = None
) -> list[Candidate]:
    """Everything to measure; ``directory``: another folder of manifests than the installed models/; ``licence``: of the
    weights of both networks, None: any. Raises ModelError.

    int8 is tried where both networks come in int8; networks of one size go together.
    """
    pairs = itertools.product(networks("detect", directory), networks("keypoints", directory))
    found = []
    for (detector, detector_model), (keypoints, keypoints_model) in pairs:
        if licence is not None and {detector_model.licence, keypoints_model.licence} != {licence}:
            continue
        if detector_model.size != keypoints_model.size:
            continue
        in_int8 = bool(detector_model.quantised() and keypoints_model.quantised())
        for backend in backends:
            precisions = [precision for precision in PRECISIONS[backend] if precision != "int8" or in_int8]
            counts = (1,) if backend in ON_GPU else tuple(threads)  # a GPU takes no CPU threads
            found += [Candidate(detector, keypoints, backend, p, n) for p, n in itertools.product(precisions, counts)]
    return found


def networks(task: str, directory: Path | None = None) -> list[tuple[str, ModelManifest]]:
    """Name and manifest of the networks for a task; an int8 version is no network of its own, but a precision."""
    paths = list_manifests(directory)
    versions = {path.with_name(f"{path.stem}_int8.yaml") for path in paths}
    own = [(path, load_manifest(path)) for path in paths if path not in versions]
    return [(path.stem if directory is None else str(path), found) for path, found in own if found.task == task]
