"""Model manifests: ``models/<name>.yaml`` says what a model file is, and is checked when the model is loaded.

A manifest names the ONNX file beside it and its sha256, the tensors (names, dtypes, shapes), how the image is
prepared, which data trained it under which licences, and how accurate it measured. docs/models.md describes every key.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hand_tracking_ros.errors import ModelError
from hand_tracking_ros.paths import models_directory

TASKS = ("detect", "keypoints")
SIZES = ("base", "small", "nano")  # a name ends with _small or _nano, that of the base with neither
DTYPES = ("uint8", "int32", "int64", "float16", "float32")
REPAIR = (
    "fetch the model files again ('git lfs pull' or a new checkout, then reinstall the package) "
    "and check them with 'hand-tracking models verify'"
)


@dataclass(frozen=True)
class TensorSpec:
    """One named tensor: ``dtype`` as numpy names it, ``shape`` of positive ints and names of free dimensions ('N')."""

    dtype: str
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.dtype} [{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class ModelManifest:
    """What ``models/<name>.yaml`` holds. ``file`` and ``path`` (of the manifest itself) are absolute."""

    name: str
    task: str  # one of TASKS
    file: Path
    sha256: str
    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]
    max_batch: int  # largest value of the free dimension N; 1 when the batch is fixed
    preprocessing: str
    keypoint_order: str
    architecture: Mapping[str, Any]  # network name, options, parameters, macs
    opset: int
    precision: str
    licence: str
    training: Mapping[str, Any]  # data: [{name, licence, images, people}], command, seed, hours, notes
    accuracy: Mapping[str, Any]
    path: Path

    @property
    def size(self) -> str:
        """One of SIZES, by the end of the name."""
        end = self.path.stem.rpartition("_")[2]
        return end if end in SIZES[1:] else SIZES[0]

    def quantised(self) -> ModelManifest | None:
        """The int8 version of this model, ``<name>_int8.yaml`` beside it; None when there is none."""
        return self._beside(f"{self.path.stem}_int8")

    def smaller(self) -> ModelManifest | None:
        """The faster, less accurate version of this model beside it, ``<name>_small.yaml``, and of that one
        ``<name>_nano.yaml``; None when there is none."""
        sizes = SIZES[SIZES.index(self.size) + 1 :]
        return self._beside(f"{self.path.stem.removesuffix(f'_{self.size}')}_{sizes[0]}") if sizes else None

    def _beside(self, stem: str) -> ModelManifest | None:
        path = self.path.with_name(f"{stem}.yaml")
        return load_manifest(path) if path.is_file() else None

    def verify(self) -> None:
        """Raise ModelError unless the model file exists and has the sha256 that the manifest states."""
        if not self.file.is_file():
            raise ModelError(f"model '{self.name}': {self.file} is missing (named by {self.path}); {REPAIR}")
        actual = file_sha256(self.file)
        if actual != self.sha256:
            size = self.file.stat().st_size
            raise ModelError(
                f"model '{self.name}': {self.file} ({size} bytes) is damaged or not the file that {self.path} describes"
                f": sha256 is {actual}, expected {self.sha256}; {REPAIR}"
            )


REQUIRED = tuple(f.name for f in dataclasses.fields(ModelManifest) if f.name != "path")  # the keys, in file order
_TEXT = ("name", "task", "file", "sha256", "preprocessing", "keypoint_order", "precision", "licence")
_MAPPINGS = ("inputs", "outputs", "architecture", "training", "accuracy")
_TRAINING_KEYS = ("data", "command", "seed", "hours", "notes")
_DATA_KEYS = ("name", "licence", "images", "people")


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def list_manifests(directory: Path | None = None) -> list[Path]:
    """Paths of all manifests in ``directory`` (default: the installed models/), sorted by name."""
    directory = models_directory() if directory is None else Path(directory)
    return sorted(directory.glob("*.yaml"))


def find_manifest(name_or_path: str | Path) -> Path:
    """The manifest file of a model name, or the given path to a .yaml. ModelError names the known models otherwise."""
    text = str(name_or_path)
    if text.endswith((".yaml", ".yml")):
        path = Path(text).expanduser().absolute()
        if not path.is_file():
            raise ModelError(f"model manifest {path} does not exist; give a model name or the path of a manifest .yaml")
        return path
    path = models_directory() / f"{text}.yaml"
    if "/" in text or not path.is_file():
        known = ", ".join(p.stem for p in list_manifests()) or "none"
        raise ModelError(
            f"unknown model '{text}': no {text}.yaml in {models_directory()} (models there: {known}); "
            "give one of those names or the path of a manifest .yaml"
        )
    return path


def load_manifest(name_or_path: str | Path) -> ModelManifest:
    """Read and check a manifest (not the model file: see ``ModelManifest.verify``).

    ``name_or_path``: a name in models/ ('keynet') or a path that ends in .yaml. Raises ModelError on a missing
    manifest, on malformed YAML, and on missing, unknown or ill-typed keys.
    """
    path = find_manifest(name_or_path)
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} is not valid YAML: {error}; {REPAIR}") from error
    return parse_manifest(document, path)


def parse_manifest(document: Any, path: Path) -> ModelManifest:
    """A manifest from the mapping that its YAML holds; ``path`` is where the YAML lies (or will lie)."""
    _check_keys(document, path)
    values = dict(document)
    for key in ("inputs", "outputs"):
        values[key] = {name: _parse_spec(spec, f"{path}: {key}.{name}") for name, spec in document[key].items()}
    values["file"] = path.parent / document["file"]
    manifest = ModelManifest(path=path, **values)
    free = any(isinstance(size, str) for spec in manifest.inputs.values() for size in spec.shape)
    if not free and manifest.max_batch != 1:
        raise ModelError(f"{path}: max_batch is {manifest.max_batch}, but no input has a free dimension; set it to 1")
    return manifest


def _check_keys(document: Any, path: Path) -> None:
    if not isinstance(document, Mapping):
        raise ModelError(
            f"{path} must hold a mapping of manifest keys (see docs/models.md), got {type(document).__name__}"
        )
    _check_names(document, REQUIRED, f"{path}")
    for key in _TEXT:
        _require(
            isinstance(document[key], str) and document[key] != "",
            f"{path}: '{key}' must be text, got {document[key]!r}",
        )
    for key in _MAPPINGS:
        _require(isinstance(document[key], Mapping), f"{path}: '{key}' must be a mapping, got {document[key]!r}")
    for key in ("max_batch", "opset"):
        good = type(document[key]) is int and document[key] >= 1
        _require(good, f"{path}: '{key}' must be a positive integer, got {document[key]!r}")
    _require(document["task"] in TASKS, f"{path}: 'task' must be one of {', '.join(TASKS)}; got {document['task']!r}")
    digest = document["sha256"]
    _require(
        len(digest) == 64 and set(digest) <= set("0123456789abcdef"),
        f"{path}: 'sha256' must be 64 lower-case hex digits, got {digest!r}",
    )
    for key in ("inputs", "outputs"):
        _require(len(document[key]) > 0, f"{path}: '{key}' must name at least one tensor")
    training = document["training"]
    _check_names(training, _TRAINING_KEYS, f"{path}: training")
    _require(isinstance(training["data"], list), f"{path}: 'training.data' must be a list of data sets")
    for index, entry in enumerate(training["data"]):
        where = f"{path}: training.data[{index}]"
        _require(isinstance(entry, Mapping), f"{where} must be a mapping with {', '.join(_DATA_KEYS)}; got {entry!r}")
        _check_names(entry, _DATA_KEYS, where)


def _check_names(mapping: Mapping[str, Any], wanted: tuple[str, ...], where: str) -> None:
    missing = [key for key in wanted if key not in mapping]
    unknown = [str(key) for key in mapping if key not in wanted]
    _require(not missing, f"{where} lacks the key(s) {', '.join(missing)}; docs/models.md describes them")
    _require(not unknown, f"{where} has unknown key(s) {', '.join(unknown)}; known: {', '.join(wanted)}")


def _parse_spec(spec: Any, where: str) -> TensorSpec:
    """``spec``: {dtype: uint8, shape: [N, 1, 96, 96]}."""
    _require(isinstance(spec, Mapping), f"{where} must be a mapping with dtype and shape, got {spec!r}")
    _check_names(spec, ("dtype", "shape"), where)
    dtype, shape = spec["dtype"], spec["shape"]
    _require(dtype in DTYPES, f"{where}: dtype must be one of {', '.join(DTYPES)}; got {dtype!r}")
    good = isinstance(shape, list | tuple) and all(
        (type(size) is int and size > 0) or (isinstance(size, str) and size.isidentifier()) for size in shape
    )
    _require(good, f"{where}: shape must be a list of positive integers and names of free dimensions, got {shape!r}")
    return TensorSpec(dtype, tuple(shape))


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ModelError(message)


def write_manifest(path: str | Path, **values: Any) -> ModelManifest:
    """Write ``path`` as YAML in a fixed key order, and return the manifest as ``load_manifest`` reads it.

    ``values``: every key of the manifest except ``sha256``, which is computed from ``file``. ``file`` must lie in the
    folder of ``path``; specs may be TensorSpec or {'dtype':, 'shape':}. ModelError, and nothing written, when a
    value is wrong.
    """
    path = Path(path).absolute()
    file = path.parent / values["file"] if "file" in values else None
    if file is None or not file.is_file() or file.parent != path.parent:
        raise ModelError(f"cannot write {path}: 'file' must be a file in {path.parent}, got {values.get('file')!r}")
    values = {**values, "file": file.name, "sha256": file_sha256(file)}
    for key in ("inputs", "outputs"):
        values[key] = {name: _spec_document(spec) for name, spec in values.get(key, {}).items()}
    manifest = parse_manifest(values, path)
    document = {key: _plain(values[key]) for key in REQUIRED}
    text = yaml.dump(document, Dumper=_ManifestDumper, sort_keys=False, allow_unicode=True, width=110)
    path.write_text(text, encoding="utf-8")
    return manifest


def _spec_document(spec: TensorSpec | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(spec, TensorSpec):
        return {"dtype": spec.dtype, "shape": list(spec.shape)}
    return dict(spec)


def _plain(value: Any) -> Any:
    """``value`` with numpy scalars, tuples and paths as what YAML can hold."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value.item() if hasattr(value, "item") else value


class _ManifestDumper(yaml.SafeDumper):
    """Block style, but short lists of scalars (shapes) on one line."""


def _represent_list(dumper: yaml.SafeDumper, items: list) -> yaml.Node:
    flat = all(isinstance(item, int | float | str) for item in items) and len(items) <= 8
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=flat)


_ManifestDumper.add_representer(list, _represent_list)
