"""``hand-tracking up``: camera and tracker as separate processes, like the launch files but without ``launch``."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hand_tracking_ros.cli.options import load_parameter_file
from hand_tracking_ros.errors import HandTrackingError
from hand_tracking_ros.nodes import graph
from hand_tracking_ros.profiles import SWITCH

STOP_S = 10.0  # a node that has not ended this long after Ctrl-C is killed
POLL_S = 0.2
NAMESPACE = re.compile(r"[A-Za-z_]\w*(/[A-Za-z_]\w*)*", re.ASCII)


def add_parser(subparsers) -> None:
    """Declare the command and its options."""
    parser = subparsers.add_parser(
        "up",
        help="start camera and tracker as ROS 2 nodes",
        description="Start the ROS 2 graph, each node in its own process, until Ctrl-C. What no option says, the "
        "parameter file says. When one node ends, all end.",
    )
    for name, option in graph.OPTIONS.items():
        action = "append" if name == "source" else "store"
        parser.add_argument(f"--{name}", action=action, choices=option.choices, help=option.doc)
    parser.add_argument(
        "--rig",
        metavar="YAML",
        help="several cameras and one tracker: give --source once per camera, in the order of this rig file; without "
        "--source, images come from <camera's name>/image_raw. 'tf:left,right' instead of a file names cameras whose "
        "lenses come from <name>/camera_info and whose places from tf",
    )
    parser.add_argument("--loop", action="store_true", help="start a video or folder again at its end")
    parser.add_argument("--no-profile", action="store_true", help="leave out what 'hand-tracking tune' measured here")
    parser.add_argument("--stages", action="store_true", help="one node per stage instead of one tracker node")
    parser.add_argument("--params-file", help="parameter file (default: config/hand_tracking.yaml of the package)")
    parser.add_argument("--namespace", default="", help="namespace of all nodes and topics")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Start the nodes and watch them; the exit status: 1 when a node ended by itself. Raises HandTrackingError."""
    _check_ros()
    params_file, starts = Path(args.params_file or graph.default_params_file()), _starts(args)
    _check_params_file(params_file)
    commands = {}
    for start in starts:
        namespace = "/".join(part for part in (args.namespace.strip("/"), start.namespace) if part)
        if namespace and (not NAMESPACE.fullmatch(namespace) or "__" in namespace):
            raise HandTrackingError(
                f"'{namespace}' is no namespace of ROS: it takes letters, digits and single _, no digit first, with / "
                "between names; change --namespace, or the camera's name in the rig file"
            )
        arguments = ros_arguments(str(params_file), start.parameters, namespace)
        name = f"{start.namespace}/{start.node}".lstrip("/")
        commands[name] = [sys.executable, "-m", f"hand_tracking_ros.nodes.{start.node}", *arguments]
    return supervise(commands)


def _check_params_file(path: Path) -> None:
    """Raises HandTrackingError where the nodes could not read it."""
    from hand_tracking_ros.nodes.params_file import check_params_file

    if not path.exists():
        raise HandTrackingError(f"--params-file {path} does not exist; copy {graph.default_params_file()}")
    load_parameter_file(path)
    check_params_file(path)


def _starts(args: argparse.Namespace) -> list[graph.Start]:
    """The nodes that the options ask for. Raises HandTrackingError."""
    sources = args.source or []
    if args.rig:
        if args.stages or args.calibration:
            raise HandTrackingError("--rig goes without --stages and --calibration: the rig has the lenses")
        starts = graph.rig_starts(args.rig, sources, args.backend or "")
    else:
        if len(sources) > 1:
            raise HandTrackingError("several --source need --rig, the file that says where their cameras stand")
        nodes = graph.STAGES_GRAPH if args.stages else graph.TRACKER_GRAPH
        options = {"source": (sources or [None])[0], "calibration": args.calibration, "backend": args.backend}
        starts = [graph.Start(node, "", graph.overrides(nodes, options)) for node in nodes]
    if args.loop:
        for start in starts:
            start.parameters["camera.loop"] = True
    if args.no_profile:
        for start in starts:
            start.parameters[SWITCH] = "none"
    return starts


def ros_arguments(params_file: str, parameters: Mapping[str, Any], namespace: str = "") -> list[str]:
    """What a node is told on its command line."""
    arguments = ["--ros-args", "--params-file", params_file]
    if namespace.strip("/"):
        arguments += ["-r", f"__ns:=/{namespace.strip('/')}"]
    for name, value in parameters.items():
        arguments += ["-p", f"{name}:={json.dumps(value)}"]
    return arguments


def supervise(commands: Mapping[str, list[str]]) -> int:
    """Run ``commands`` (name: argv) until SIGINT, SIGTERM or SIGHUP (status 0), or until one ends (status 1)."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    environment = {graph.DDS_PROFILE_VARIABLE: graph.dds_profile(), **os.environ}
    children: dict[str, subprocess.Popen] = {}
    try:
        for name, command in commands.items():
            # Its own session: Ctrl-C in the terminal must reach a node once, from here.
            children[name] = subprocess.Popen(command, env=environment, start_new_session=True)
        print(f"started {', '.join(commands)}; Ctrl-C stops them", flush=True)
        while not stop.wait(POLL_S):
            ended = {name: child.returncode for name, child in children.items() if child.poll() is not None}
            if ended:
                for name, status in ended.items():
                    print(f"{name} has ended ({_meaning(status)}); stopping all", file=sys.stderr, flush=True)
                return 1
        return 0
    finally:
        _stop(children)


def _stop(children: Mapping[str, subprocess.Popen]) -> None:
    for child in children.values():
        if child.poll() is None:
            child.send_signal(signal.SIGINT)
    for name, child in children.items():
        try:
            child.wait(STOP_S)
        except subprocess.TimeoutExpired:
            print(f"{name} did not end within {STOP_S:.0f} s; killing it", file=sys.stderr, flush=True)
            child.kill()
            child.wait()


def _meaning(status: int) -> str:
    """An exit status in words."""
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return f"exit status {status}; its own message stands above" if status else "exit status 0"


def _check_ros() -> None:
    """Raises HandTrackingError when nodes cannot run here."""
    if importlib.util.find_spec("rclpy") is None:
        raise HandTrackingError(
            "ROS 2 is not here (no rclpy): pip install '.[ros]' in the checkout, in a venv, or source your ROS 2 "
            "and build with colcon; 'hand-tracking doctor' says more"
        )
    if importlib.util.find_spec("hand_tracking_ros.msg") is None:
        raise HandTrackingError(
            "the package was installed without its ROS messages: install it again where ROS wheels are available, or "
            "build it with colcon; 'hand-tracking doctor' says more"
        )
