"""KeyNet and DetNet from every block of the zoo: size, measured latency, and accuracy after the same short training.

    python benchmarks/zoo.py --markdown zoo.md --json zoo.json                 # cost only, a few minutes
    python benchmarks/zoo.py --blocks residual mobilenet_v2 --width 0.5        # some, narrower
    python benchmarks/zoo.py --train-samples 50000 --runs runs/zoo --data DATA --labels LABELS --synthetic POOL.npz

Latency is CPU time per image on one thread, the median over rounds. Each round runs every network in every backend
once, after one run that is not timed, so a busy moment of the machine hits all of them alike. What this script does
not know goes to `hand-tracking train`, which resumes: an interrupted benchmark goes on where it was. A network that is
not trained has random weights, which cost the same; FBNet's searchable one is left out then, it has not chosen yet.
Needs the 'train' extra.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import cv2
import torch
from torch import nn

from hand_tracking_ros.backends import available_backends
from hand_tracking_ros.commands import command
from hand_tracking_ros.config import InferenceConfig
from hand_tracking_ros.training import train
from hand_tracking_ros.training.networks import CONFIGS, NETWORKS, input_hw
from hand_tracking_ros.training.networks.blocks import count_macs, count_parameters
from hand_tracking_ros.training.networks.zoo import BLOCKS, finalise
from hand_tracking_ros.training.search.measure import export_network, loaded, machine, median_ms, settled_network
from hand_tracking_ros.training.weights import load_checkpoint


def trained(task: str, scaling: list[str], folder: Path, samples: int, rest: list[str]) -> tuple[nn.Module, dict]:
    """The network after a training in ``folder``, and the last report of the training."""
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    arguments = [task, "--run", str(folder), "--init", "none", "--samples", str(samples), *scaling, *rest]
    train.run(parser.parse_args(arguments))
    report = json.loads((folder / "log.jsonl").read_text().splitlines()[-1])
    return load_checkpoint(task, folder / "checkpoint.pt").eval(), report


def compare(task: str, names: list[str], backends: list[str], args: argparse.Namespace, rest: list[str]) -> list[dict]:
    """One row per block."""
    rows, runs = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            scaling = {"block": name, "width": args.width, "depth": args.depth, "resolution": args.resolution}
            row = {"task": task, "block": name}
            if args.train_samples:
                options = [part for key, value in scaling.items() for part in (f"--{key}", str(value))]
                where = args.runs / f"{task}_{name}"
                network, report = trained(task, options, where, args.train_samples, rest)
                row["training"] = report
            else:
                network = settled_network(task, CONFIGS[task](**scaling))
            network = finalise(network)
            image = torch.zeros(1, 1, *input_hw(network))
            row |= {"parameters": count_parameters(network), "macs": count_macs(network, image)}
            manifest = export_network(task, network, Path(folder), f"{task}_{name}")
            runs |= {(name, key): loaded(manifest, InferenceConfig(backend=key, threads=1)) for key in backends}
            rows.append(row)
            print(f"{task} {name}: {row['parameters']} parameters, {row['macs']} MACs", flush=True)
        latency = median_ms(runs, args.rounds, "onnxruntime")  # on the CPU, as all backends here
    for row in rows:
        row["cpu_ms"] = {key: round(latency[row["block"], key], 3) for key in backends}
    return rows


def checks_of(rows: list[dict]) -> list[str]:
    """Names of the held-out figures in the trainings' reports."""
    reports = [row["training"] for row in rows if "training" in row]
    return [key for key in reports[0] if key.endswith(("_percent", "_per_frame"))] if reports else []


def markdown(task: str, rows: list[dict], backends: list[str]) -> str:
    """The rows of a task as a table."""
    checks = checks_of(rows)
    head = ["block", "parameters (k)", "MMAC", *(f"{key} (CPU ms)" for key in backends), *checks]
    lines = [f"| {' | '.join(head)} |", "|---" + "|--:" * (len(head) - 1) + "|"]
    for row in rows:
        cells = [row["block"], f"{row['parameters'] / 1e3:.0f}", f"{row['macs'] / 1e6:.1f}"]
        cells += [f"{row['cpu_ms'][key]:.2f}" for key in backends]
        cells += [str(row["training"].get(key, "")) for key in checks]
        lines.append(f"| {' | '.join(cells)} |")
    return f"### {NETWORKS[task].__name__}\n\n" + "\n".join(lines) + "\n"


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--tasks", nargs="+", choices=sorted(NETWORKS), default=sorted(NETWORKS, reverse=True))
    parser.add_argument("--blocks", nargs="+", choices=sorted(set(BLOCKS) - {"fbnet_skip"}), help="default: all")
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--depth", type=float, default=1.0)
    parser.add_argument("--resolution", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--train-samples", type=int, default=0, help="train each network on so many (default: not)")
    parser.add_argument("--runs", type=Path, default=Path("runs/zoo"), help="folder of the trainings")
    parser.add_argument("--json", type=Path, help="write machine and rows to this file")
    parser.add_argument("--markdown", type=Path, help="write the tables to this file")
    args, rest = parser.parse_known_args()
    if rest and not args.train_samples:
        parser.error(f"unknown: {' '.join(rest)} (arguments of a training need --train-samples)")

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    left_out = {"fbnet_skip"} if args.train_samples else {"fbnet_skip", "fbnet"}
    names = args.blocks or [name for name in BLOCKS if name not in left_out]
    backends = [s.name for s in available_backends() if s.usable and s.name in ("onnxruntime", "openvino")]
    rows = {task: compare(task, names, backends, args, rest) for task in args.tasks}
    tables = "\n".join(markdown(task, rows[task], backends) for task in args.tasks)
    versions = {status.name: status.version for status in available_backends() if status.usable}
    facts = machine() | {
        "backends": versions,
        "rounds": args.rounds,
        "scaling": [args.width, args.depth, args.resolution],
    }
    print("\n".join(f"{key}: {value}" for key, value in facts.items()), f"\n{tables}")
    if args.json:
        args.json.write_text(
            json.dumps({"machine": facts, "rows": [row for task in args.tasks for row in rows[task]]}, indent=1) + "\n"
        )
    if args.markdown:
        args.markdown.write_text(tables)


if __name__ == "__main__":
    raise SystemExit(main())
