"""`hand-tracking tune`: measures what runs on this machine, and keeps the fastest settings that are accurate enough."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2

from hand_tracking_ros.commands import at_least, check_output
from hand_tracking_ros.config import BACKENDS, DetectorConfig
from hand_tracking_ros.errors import ConfigError, HandTrackingError
from hand_tracking_ros.machine import this_machine, usable_cores
from hand_tracking_ros.manifest import load_manifest
from hand_tracking_ros.paths import profile_file, version

if TYPE_CHECKING:
    from hand_tracking_ros.tuning.choice import Limits, Result

FRAMES, PASSES = 180, 3


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "tune",
        help="measure what is fastest on this machine, and use it from now on",
        description="Run the shipped clip through every installed backend, precision, number of threads and network, "
        "each in a process of its own, and write the fastest that is accurate enough to a profile. Nodes and command "
        "line take it where a parameter is not set. Measure while nothing else runs.",
    )
    limits = parser.add_argument_group("what must be met")
    limits.add_argument("--hands", type=int, choices=(1, 2), default=2, help="be fast for so many hands (default 2)")
    limits.add_argument(
        "--accuracy-floor",
        type=float,
        metavar="PERCENT",
        help="least share of held-out joints that are found and right (default: two points below the best)",
    )
    limits.add_argument("--latency-ms", type=float, metavar="MS", help="most latency, image in to hands out, p99")
    limits.add_argument("--cpu-percent", type=float, metavar="PERCENT", help="most CPU time, of one core, at --rate")
    limits.add_argument("--rate", type=float, default=30.0, metavar="HZ", help="images per second (default 30)")
    tried = parser.add_argument_group("what is tried")
    tried.add_argument("--backends", nargs="+", choices=BACKENDS[1:], default=[], help="default: all that run here")
    tried.add_argument("--threads", nargs="+", type=int, metavar="N", help="default: 1, 2, 4, 8 as there are cores")
    tried.add_argument("--licence", help="of the weights (default: that of the default networks)")
    tried.add_argument("--frames", type=int, default=FRAMES, help=f"timed frames per pass (default {FRAMES})")
    tried.add_argument("--passes", type=int, default=PASSES, help=f"passes over all candidates (default {PASSES})")
    parser.add_argument("--output", type=Path, metavar="YAML", help=f"the profile (default: {profile_file()})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all figures (default: beside the profile)")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="accuracy over latency (default: beside the profile)")
    parser.add_argument("--dry-run", action="store_true", help="measure and report, but leave the profile as it is")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from hand_tracking_ros.profiles import profile_of, save_profile
    from hand_tracking_ros.tuning.choice import Limits, choose, verdicts
    from hand_tracking_ros.tuning.report import figures, table

    _check(args)
    limits = Limits(args.hands, args.accuracy_floor, args.latency_ms, args.cpu_percent, args.rate)
    output = args.output or profile_file()
    args.json, args.plot = args.json or output.with_suffix(".json"), args.plot or output.with_suffix(".png")
    for path in (output, args.json, args.plot):
        check_output(path)
    facts = _facts(args)
    results = measure(args)
    said, best = verdicts(results, limits), choose(results, limits)
    print(table(results, ["chosen" if result is best else verdict for result, verdict in zip(results, said)], limits))
    _write_report(args, facts, results, limits)
    if best is None:
        raise HandTrackingError(
            f"no candidate meets the limits, the last column says why; {output} is left as it is. Lower "
            "--accuracy-floor, or raise --latency-ms or --cpu-percent"
        )
    print(f"fastest: {best.candidate}")
    if args.dry_run:
        print(f"{output} is left as it is (--dry-run)")
        return 0
    measured = {**figures(best), **{name: facts[name] for name in ("when", "load", "frames")}}
    save_profile(output, profile_of(best.candidate.parameters(), measured))
    print(f"wrote {output}")
    return 0


def _write_report(args: argparse.Namespace, facts: dict[str, Any], results: Sequence[Result], limits: Limits) -> None:
    """The JSON file and the plot."""
    from hand_tracking_ros.tuning.choice import choose, verdicts
    from hand_tracking_ros.tuning.plot import draw
    from hand_tracking_ros.tuning.report import figures

    best = choose(results, limits)
    rows = [
        {**result.candidate.parameters(), **figures(result), "verdict": verdict, "chosen": result is best}
        for result, verdict in zip(results, verdicts(results, limits))
    ]
    report = {"measured": facts, "limits": asdict(limits), "candidates": rows}
    _write(args.json, (json.dumps(report, indent=1) + "\n").encode())
    image = draw(results, limits, f"{facts['machine']['cpu']}, {limits.hands} hand{'s' * (limits.hands > 1)}")
    _write(args.plot, cv2.imencode(".png", image)[1].tobytes())


def _check(args: argparse.Namespace) -> None:
    """Raises ConfigError on numbers that make no sense."""
    at_least(args, 1, "frames", "passes", "threads")
    at_least(args, 0, "accuracy_floor", most=100)
    for name in ("rate", "latency_ms", "cpu_percent"):
        if (value := getattr(args, name)) is not None and not value > 0:
            raise ConfigError(f"--{name.replace('_', '-')} must be greater than 0, got {value}")


def measure(args: argparse.Namespace) -> list[Result]:
    """Every candidate that the arguments leave, measured. Raises HandTrackingError when there is none."""
    from tqdm import tqdm

    from hand_tracking_ros.tuning.candidates import list_candidates, thread_counts, usable_backends
    from hand_tracking_ros.tuning.choice import summarise
    from hand_tracking_ros.tuning.measure import measure_all, write_clip

    licence = args.licence or load_manifest(DetectorConfig().model).licence
    found = list_candidates(usable_backends(args.backends), args.threads or thread_counts(), licence=licence)
    if not found:
        raise ConfigError(f"--licence {licence}: no two networks have it; 'hand-tracking models' shows what there is")
    pairs = {candidate.reference() for candidate in found}
    with (
        tempfile.TemporaryDirectory(prefix="hand_tracking_tune_") as folder,
        tqdm(total=len(pairs) + args.passes * len(found), unit=" runs", disable=not sys.stderr.isatty()) as bar,
    ):
        clip = write_clip(Path(folder))
        measurements, references = measure_all(found, clip, args.frames, args.passes, bar.update)
        return [summarise(m, references[m.candidate.reference()], clip) for m in measurements]


def _facts(args: argparse.Namespace) -> dict[str, Any]:
    """When and on what; a warning on stderr when the machine is busy."""
    load, cores = os.getloadavg()[0], usable_cores()
    if load > 0.5 * cores:
        print(
            f"hand-tracking: this machine is busy (load {load:.1f} on {cores} cores): figures will be too high, and "
            "the choice may be wrong; tune again when it is idle",
            file=sys.stderr,
        )
    return {
        "when": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "version": version(),
        "machine": this_machine(),
        "load": round(load, 2),
        "frames": args.frames * args.passes,
    }


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    print(f"wrote {path}")
