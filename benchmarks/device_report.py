"""Everything about this device in one file: what is installed, which settings are fastest, where the time goes.

    python benchmarks/device_report.py --output report          # writes report/report.md, plots and JSON beside it

For owners of a Jetson, or of any machine that docs/benchmarks.md does not know: run it while nothing else runs and
open an issue with the folder. About 20 minutes; on the first run TensorRT builds its engines, which takes minutes more.
A part that fails is named in the report with its last words, and the others go on.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

BENCHMARKS = Path(__file__).resolve().parent
CLI = (sys.executable, "-m", "hand_tracking_ros.cli")


class Part(NamedTuple):
    """A command, and the pictures that it makes."""

    title: str
    command: tuple[str, ...]
    plots: tuple[str, ...] = ()


def parts(quick: bool) -> list[Part]:
    """What is run, in this order, in the folder of the report."""
    frames, rounds, seconds = ("30", "30", "3") if quick else ("300", "300", "15")
    tune = ("tune", "--dry-run", "--json", "tune.json", "--plot", "tune.png")
    script = {
        name: (sys.executable, str(BENCHMARKS / f"{name}.py"))
        for name in ("stages", "startup", "scaling", "ros_matrix")
    }
    found = [Part("What is installed", (*CLI, "doctor"))]
    if not quick:
        found.append(Part("Fastest settings", (*CLI, *tune), ("tune.png",)))
    found += [
        Part("Stages", (*script["stages"], "--rounds", rounds, "--json", "stages.json")),
        Part("Starting", (*script["startup"], "--json", "startup.json")),
        Part("Scaling", (*script["scaling"], "--frames", frames, "--json", "scaling.json")),
    ]
    if importlib.util.find_spec("rclpy"):
        found.append(Part("Through ROS", (*script["ros_matrix"], "--seconds", seconds, "--json", "ros.json")))
    return found


def run(part: Part, folder: Path) -> str:
    """The section of the report."""
    print(f"{part.title} ...", flush=True)
    done = subprocess.run(part.command, capture_output=True, text=True, cwd=folder)
    command = " ".join(Path(word).name if index == 0 else word for index, word in enumerate(part.command))
    text = (
        f"## {part.title}\n\n`{command.replace(str(BENCHMARKS), 'benchmarks')}`\n\n```\n{done.stdout.rstrip()}\n```\n"
    )
    if done.returncode:
        text += f"\nIt failed with exit status {done.returncode}:\n\n```\n{done.stderr.strip()[-2000:]}\n```\n"
    return text + "".join(f"\n![{part.title}]({plot})\n" for plot in part.plots if (folder / plot).is_file())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("device_report"), help="folder to write")
    parser.add_argument("--quick", action="store_true", help="a try: few frames, without the search for settings")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    report = args.output / "report.md"
    sections = ["# Report of a device\n"]
    for part in parts(args.quick):
        sections.append(run(part, args.output))
        report.write_text("\n".join(sections))  # after every part: what was measured is kept
    print(f"written: {report}")


if __name__ == "__main__":
    main()
