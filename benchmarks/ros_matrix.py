"""ROS end to end: latency, loss, CPU and memory over rates, hands, encodings, graphs, image sizes and cameras.

    python benchmarks/ros_matrix.py --output ros.md --json ros.json --plot ros.png
    python -m hand_tracking_ros.training.synthetic --kind sequence --count 1 --seed 910 --cameras 4 --output RIG
    python benchmarks/ros_matrix.py --rig RIG/0000                  # with two and four cameras as well

Every case is one run of benchmarks/ros_latency.py. CPU is that of the tracker's processes, loading included, in shares
of one core. Needs ROS 2.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from stages import markdown  # the neighbouring script

from hand_tracking_ros.cli.options import text_table
from hand_tracking_ros.commands import command

CASES = {
    "30 Hz, two hands": ["--rate", "30"],
    "60 Hz, two hands": [],
    "120 Hz, one hand": ["--rate", "120", "--hands", "1"],
    "120 Hz, two hands": ["--rate", "120"],
    "60 Hz, in metres": ["--calibrated"],
    "60 Hz, bgr8": ["--encoding", "bgr8"],
    "30 Hz, one node per stage": ["--rate", "30", "--stages"],
    "30 Hz, 1280x720": ["--rate", "30", "--size", "1280x720"],
    "30 Hz, 1920x1080": ["--rate", "30", "--size", "1920x1080"],
    "30 Hz, 1920x1080, bgr8": ["--rate", "30", "--size", "1920x1080", "--encoding", "bgr8"],
}
RIG_CASES = {f"30 Hz, {count} cameras, in metres": ["--rate", "30", "--cameras", str(count)] for count in (2, 4)}
COLUMNS = ("case", "published", "lost", "p50 ms", "p99 ms", "worst ms", "CPU %", "peak MB", "images by hands")


def run(arguments: list[str]) -> dict:
    """The result of one run of ros_latency.py."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "result.json"
        script = Path(__file__).with_name("ros_latency.py")
        subprocess.run([sys.executable, str(script), *arguments, "--json", str(file)], check=True, capture_output=True)
        return json.loads(file.read_text())


def row(name: str, result: dict) -> tuple[str, ...]:
    """One line of the table."""
    latency, hands = result["latency_ms"], result["images_with_hands"]
    figures = (result["published"], result["lost"], latency["p50"], latency["p99"], latency["p100"])
    cpu, memory = result["tracker_cpu_percent_with_start"], result["tracker_peak_mb"]
    return (name, *map(str, figures), str(cpu), str(memory), ", ".join(f"{n}: {k}" for n, k in hands.items()))


def plot(path: Path, results: dict[str, dict]) -> None:
    """Median and 99th percentile of the latency, a bar per case."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 0.42 * len(results) + 1))
    names = list(results)[::-1]
    for key, alpha in (("p99", 0.35), ("p50", 1.0)):
        axes.barh(names, [results[name]["latency_ms"][key] for name in names], color="C0", alpha=alpha, label=key)
    axes.set_xlabel("stamp to hands, ms")
    axes.legend()
    axes.grid(alpha=0.3, axis="x")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15.0, help="per case")
    parser.add_argument("--rig", type=Path, help="a synthetic sequence recorded by four cameras")
    parser.add_argument("--backend", default="auto", help="inference backend")
    parser.add_argument("--output", type=Path, help="also write the table here, as markdown")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    cases = CASES | ({name: [*case, "--rig", str(args.rig)] for name, case in RIG_CASES.items()} if args.rig else {})
    results = {}
    for name, case in cases.items():
        try:
            results[name] = run([*case, "--seconds", str(args.seconds), "--backend", args.backend])
        except subprocess.CalledProcessError as error:
            print(f"{name}: failed\n{error.stderr.decode()[-2000:]}", file=sys.stderr)
            continue
        print(*row(name, results[name]), sep="  ", flush=True)
    rows = [row(name, result) for name, result in results.items()]
    print(text_table(rows, COLUMNS))
    if args.output:
        args.output.write_text(markdown(COLUMNS, rows))
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")
    if args.plot:
        plot(args.plot, results)
    if len(results) < len(cases):
        raise SystemExit(1)


if __name__ == "__main__":
    raise SystemExit(main())
