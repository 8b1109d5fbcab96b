"""`hand-tracking models`: list the models, and verify their files."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from hand_tracking_ros.config import InferenceConfig
from hand_tracking_ros.errors import BackendError, ModelError
from hand_tracking_ros.manifest import ModelManifest, list_manifests, load_manifest
from hand_tracking_ros.paths import models_directory

PROBLEM = 1


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "models",
        help="list and verify the models",
        description="List the models, or verify them: sha256, does the file load, does it fit its manifest.",
    )
    parser.add_argument("action", nargs="?", choices=("list", "verify"), default="list")
    parser.add_argument("models", nargs="*", metavar="MODEL", help="name, or path of a manifest .yaml (default: all)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0; 1 when a model cannot be listed or does not verify."""
    names = args.models or [str(path) for path in list_manifests()]
    if not names:
        raise ModelError(f"no models in {models_directory()}; reinstall the package, or train and export some")
    results = [(describe if args.action == "list" else verify)(name) for name in names]
    if args.json:
        print(json.dumps(results, indent=2))
    else:
        print(_list_table(results) if args.action == "list" else _verify_lines(results))
    return PROBLEM if any(result["problem"] for result in results) else 0


def describe(name: str) -> dict[str, Any]:
    """The facts of one model; 'problem' says why they cannot be read, else it is None."""
    try:
        manifest = load_manifest(name)
    except ModelError as error:
        return {"name": Path(name).stem, "problem": str(error)}
    return {
        "name": manifest.name,
        "task": manifest.task,
        "file": str(manifest.file),
        "bytes": manifest.file.stat().st_size if manifest.file.is_file() else None,
        "macs": manifest.architecture.get("macs"),
        "licence": manifest.licence,
        "accuracy": dict(manifest.accuracy),
        "problem": None if manifest.file.is_file() else f"{manifest.file} is missing",
    }


def verify(name: str) -> dict[str, Any]:
    """Check one model by its sha256 and by loading it; 'problem' is None when all is well."""
    result: dict[str, Any] = {"name": Path(name).stem, "sha256": None, "problem": None}
    try:
        manifest = load_manifest(name)
        result.update(name=manifest.name, file=str(manifest.file), sha256=manifest.sha256)
        load_and_close(manifest)
    except (ModelError, BackendError) as error:
        result["problem"] = str(error)
    return result


def load_and_close(manifest: ModelManifest) -> None:
    """Raise ModelError unless the file is the one the manifest describes and loads in ONNX Runtime."""
    from hand_tracking_ros.backends import create_backend

    create_backend(manifest, InferenceConfig(backend="onnxruntime", precision="fp32")).close()


def _list_table(results: list[dict[str, Any]]) -> str:
    from hand_tracking_ros.cli.options import text_table

    good = [result for result in results if not result["problem"]]
    rows = [
        (r["name"], r["task"], f"{r['bytes'] / 1e6:.2f} MB", _mega(r["macs"]), r["licence"], _accuracy(r["accuracy"]))
        for r in good
    ]
    header = ("model", "task", "size", "MMAC", "licence", "accuracy")
    lines = [text_table(rows, header)] if rows else []
    return "\n".join(lines + [f"{r['name']}: {r['problem']}" for r in results if r["problem"]])


def _verify_lines(results: list[dict[str, Any]]) -> str:
    return "\n".join(
        f"{r['name']}: FAILED: {r['problem']}" if r["problem"] else f"{r['name']}: ok, sha256 {r['sha256'][:16]}"
        for r in results
    )


def _mega(macs: Any) -> str:
    return f"{macs / 1e6:.1f}" if isinstance(macs, int | float) else "-"


def _accuracy(accuracy: dict[str, Any]) -> str:
    """The scalars of the accuracy mapping in one line."""
    facts = [f"{key} {value}" for key, value in accuracy.items() if isinstance(value, int | float | str)]
    return ", ".join(facts) or "-"
