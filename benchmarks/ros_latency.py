"""Latency and loss of hand_tracker_node at 60 Hz, seen by a subscriber in another process.

    python benchmarks/ros_latency.py                                  # the demo clip, two hands, 640x480, 60 s
    python benchmarks/ros_latency.py --calibrated                     # with camera_info: hands are fitted in metres
    python benchmarks/ros_latency.py --video clip.mp4 --seconds 20 --json latency.json
    python benchmarks/ros_latency.py --rig RIG/0000 --cameras 4 --rate 30  # rig_tracker_node, on a recording

This process publishes images and stamps them, a node tracks (with ``--stages`` one node per stage), another process
receives the hands. Latency is from the stamp of an image to the moment its HandArray is in the subscriber's callback.
An image is lost when no HandArray with its stamp arrives. The clip is played forth and back, so that nothing jumps.
Cameras of a rig are synchronised. The node gives nothing up to keep up (``budget.enabled`` is false) unless
``--budget``. benchmarks/ros_matrix.py runs many cases. Needs ROS 2.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from scaling import read_clip  # the neighbouring script

from hand_tracking_ros.cli.demo import CLIP, demo_directory
from hand_tracking_ros.commands import command
from hand_tracking_ros.machine import peak_memory_mb
from hand_tracking_ros.rig import Rig, load_rig, save_rig

WARM_UP_S = 3.0
DRAIN_S = 2.0
FOCAL_PX = 580.0  # of the demo clip, 640x480
NODES = {False: ["hand_tracker_node"], True: ["detector_node", "flow_node", "keypoint_node", "filter_node"]}


def read_frames(path: str | Path, size: tuple[int, int] | None, encoding: str, limit: int = 240) -> list[np.ndarray]:
    """Images in the order of playing forth and back, cropped in the middle and resized where there is a ``size``."""
    images = read_clip(path, limit)
    if size is not None:
        images = [fitted(image, size) for image in images]
    return images if encoding == "mono8" else [cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) for image in images]


def fitted(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The middle of ``image`` with the shape of ``size`` (width, height), resized to it."""
    height, width = image.shape
    share = min(width / size[0], height / size[1])
    w, h = round(size[0] * share), round(size[1] * share)
    x, y = (width - w) // 2, (height - h) // 2
    how = cv2.INTER_AREA if share > 1 else cv2.INTER_LINEAR
    return cv2.resize(image[y : y + h, x : x + w], size, interpolation=how)


def subscribe(output: str) -> None:
    """The subscriber's process: until SIGINT, then write [[stamp ns, latency ns, hands], ...]."""
    import rclpy
    from rclpy.executors import ExternalShutdownException

    from hand_tracking_ros.msg import HandArray
    from hand_tracking_ros.nodes.base import result_qos
    from hand_tracking_ros.nodes.conversions import stamp_ns

    received = []

    def take(message: HandArray) -> None:
        now = time.time_ns()
        stamp = stamp_ns(message.header.stamp)
        received.append((stamp, now - stamp, len(message.hands)))

    rclpy.init()
    node = rclpy.create_node("latency_subscriber")
    node.create_subscription(HandArray, "hands", take, result_qos())
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(node)
    Path(output).write_text(json.dumps(received))


def publish(streams: dict[str, list[np.ndarray]], rate_hz: float, seconds: float, calibrated: bool) -> list[int]:
    """Publish all ``streams`` (namespace: images) at a steady rate, with one stamp for all, once the tracker listens.

    The stamps (ns) that count, without the warm-up.
    """
    import rclpy
    from sensor_msgs.msg import CameraInfo, Image
    from std_msgs.msg import Header

    from hand_tracking_ros.nodes.base import image_qos
    from hand_tracking_ros.nodes.conversions import image_to_message, time_from_ns

    rclpy.init()
    node = rclpy.create_node("latency_publisher")
    publishers = {name: node.create_publisher(Image, f"{name}image_raw", image_qos()) for name in streams}
    info_publisher = node.create_publisher(CameraInfo, "camera_info", image_qos())
    height, width = next(iter(streams.values()))[0].shape[:2]
    info, focal = CameraInfo(width=width, height=height, distortion_model="plumb_bob"), FOCAL_PX * width / 640
    info.d = [0.0] * 5
    info.k = [focal, 0.0, width / 2 - 0.5, 0.0, focal, height / 2 - 0.5, 0.0, 0.0, 1.0]
    deadline = time.monotonic() + 60
    while not (all(p.get_subscription_count() for p in publishers.values()) and node.count_subscribers("hands")):
        if time.monotonic() > deadline:
            raise SystemExit("the tracker did not start within 60 s; its message stands above")
        time.sleep(0.1)
    stamps = []
    start = time.monotonic()
    for index in range(round((WARM_UP_S + seconds) * rate_hz)):
        time.sleep(max(0.0, start + index / rate_hz - time.monotonic()))
        stamp = time.time_ns()
        header = Header(stamp=time_from_ns(stamp), frame_id="camera_optical_frame")
        if calibrated:
            info.header = header
            info_publisher.publish(info)
        for name, frames in streams.items():
            publishers[name].publish(image_to_message(frames[index % len(frames)], header))
        if index >= WARM_UP_S * rate_hz:
            stamps.append(stamp)
    time.sleep(DRAIN_S)
    node.destroy_node()
    rclpy.shutdown()
    return stamps


def cpu_s(process: subprocess.Popen) -> float:
    """CPU seconds that a running process has used (Linux)."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def end(process: subprocess.Popen) -> None:
    """Ctrl-C, again where it must be: rclpy has been seen to miss one."""
    for _ in range(3):
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
    process.wait(1)


def streams_and_nodes(args: argparse.Namespace, folder: Path) -> tuple[dict[str, list[np.ndarray]], list[str], dict]:
    """What is published, below which namespace; the nodes that take it, and their own parameters."""
    parameters = {"track.max_hands": args.hands}
    if not args.rig:
        return {"": read_frames(args.video, args.size, args.encoding)}, NODES[args.stages], parameters
    rig = load_rig(args.rig / "cameras.yaml")
    cameras = rig.cameras[: args.cameras]
    save_rig(folder / "rig.yaml", Rig(cameras))
    videos = {f"{camera.name}/": next((args.rig / camera.name).glob("video.*")) for camera in cameras}
    streams = {name: read_frames(video, None, args.encoding) for name, video in videos.items()}
    return streams, ["rig_tracker_node"], parameters | {"rig.file": str(folder / "rig.yaml")}


def run(args: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Start the other processes, publish, and compare what went out with what came back."""
    from hand_tracking_ros.cli.up import ros_arguments
    from hand_tracking_ros.nodes import graph

    os.environ.setdefault(graph.DDS_PROFILE_VARIABLE, graph.dds_profile())
    os.environ.update(ROS_DOMAIN_ID=str(random.randint(1, 99)), ROS_AUTOMATIC_DISCOVERY_RANGE="LOCALHOST")
    streams, nodes, parameters = streams_and_nodes(args, folder)
    parameters |= {"autostart": True, "inference.backend": args.backend, "budget.enabled": args.budget}
    arguments = ros_arguments(args.params_file or graph.default_params_file(), parameters)
    python = [sys.executable, "-m"]
    trackers = [subprocess.Popen([*python, f"hand_tracking_ros.nodes.{node}", *arguments]) for node in nodes]
    received_file = folder / "received.json"
    listener = subprocess.Popen([sys.executable, __file__, "--subscribe", str(received_file)])
    try:
        begin = time.monotonic()
        stamps = publish(streams, args.rate, args.seconds, args.calibrated)
        if any(tracker.poll() is not None for tracker in trackers):
            raise SystemExit("the tracker has ended; its message stands above")
        used_s, memory_mb = sum(map(cpu_s, trackers)), sum(peak_memory_mb(tracker.pid) for tracker in trackers)
        elapsed_s = time.monotonic() - begin
    finally:
        for process in (*trackers, listener):
            end(process)
    latencies = {stamp: (latency, hands) for stamp, latency, hands in json.loads(received_file.read_text())}
    answered = [latencies[stamp] for stamp in stamps if stamp in latencies]
    if not answered:
        raise SystemExit("no image was answered; the messages of the nodes stand above")
    times = np.array([latency for latency, _ in answered]) * 1e-6
    hands = np.array([hands for _, hands in answered])
    gaps = np.diff(stamps) * 1e-6
    return {
        "published": len(stamps),
        "received": len(answered),
        "lost": len(stamps) - len(answered),
        "latency_ms": {f"p{p}": round(float(np.percentile(times, p)), 2) for p in (50, 90, 99, 100)},
        "publish_period_ms": {f"p{p}": round(float(np.percentile(gaps, p)), 2) for p in (50, 99)},
        "images_with_hands": {str(n): int((hands == n).sum()) for n in sorted(set(hands.tolist()))},
        "tracker_cpu_percent_with_start": round(100 * used_s / elapsed_s, 1),
        "tracker_peak_mb": round(memory_mb),
    }


def facts(args: argparse.Namespace) -> dict[str, object]:
    """What was measured, on what, with which versions."""
    from stages import machine  # the neighbouring script

    git = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True)
    return {
        "command": " ".join(["ros_latency.py", *sys.argv[1:]]),
        "video": (args.rig or Path(args.video)).name,
        "commit": commit.stdout.strip() or "unknown",
        "ros": os.environ.get("ROS_DISTRO", "wheels"),
        "machine": machine(),
    }


def size(text: str) -> tuple[int, int]:
    """(640, 480) from '640x480'."""
    width, _, height = text.partition("x")
    return int(width), int(height)


@command
def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video", help="video or image folder (default: the demo clip of the package)")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to measure")
    parser.add_argument("--rate", type=float, default=60.0, help="images per second")
    parser.add_argument("--calibrated", action="store_true", help="publish camera_info as well")
    parser.add_argument("--hands", type=int, default=2, help="track.max_hands")
    parser.add_argument("--encoding", choices=("mono8", "bgr8"), default="mono8")
    parser.add_argument("--size", type=size, default=(640, 480), metavar="WxH", help="of the images; not of a rig's")
    parser.add_argument("--stages", action="store_true", help="one node per stage")
    parser.add_argument("--rig", type=Path, help="a synthetic sequence recorded by several cameras, with cameras.yaml")
    parser.add_argument("--cameras", type=int, default=2, help="of the rig, how many of the first ones")
    parser.add_argument("--budget", action="store_true", help="let the node give something up where it cannot keep up")
    parser.add_argument("--backend", default="auto", help="inference backend")
    parser.add_argument("--params-file", help="parameter file")
    parser.add_argument("--json", help="write the result here as well")
    parser.add_argument("--subscribe", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.subscribe:
        subscribe(args.subscribe)
        return
    args.video = args.video or str(demo_directory() / CLIP)
    with tempfile.TemporaryDirectory() as folder:
        result = {**facts(args), **run(args, Path(folder))}
    latency = result["latency_ms"]
    print(f"\n{'published':>10}{'received':>10}{'lost':>6}{'p50 ms':>9}{'p99 ms':>9}{'max ms':>9}{'CPU %':>7}")
    print(
        f"{result['published']:>10}{result['received']:>10}{result['lost']:>6}{latency['p50']:>9}{latency['p99']:>9}"
        f"{latency['p100']:>9}{result['tracker_cpu_percent_with_start']:>7}"
    )
    print(json.dumps(result, indent=2))
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
