"""Latency and loss of hand_tracker_node at 60 Hz, seen by a subscriber in another process.

    python benchmarks/ros_latency.py                                  # the demo clip, two hands, 640x480, 60 s
    python benchmarks/ros_latency.py --calibrated                     # with camera_info: hands are fitted in metres
    python benchmarks/ros_latency.py --video clip.mp4 --seconds 20 --json latency.json

Three processes: this one publishes images and stamps them, a node tracks, a third receives the hands. Latency is from
the stamp of an image to the moment its HandArray is in the hands of the subscriber's callback. An image is lost when no
HandArray with its stamp arrives. The clip is played forth and back, so that nothing jumps. The node gives nothing up to
keep up (``budget.enabled`` is false) unless ``--budget``. Needs ROS 2.
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

from hand_tracking_ros.cli.demo import CLIP, demo_directory
from hand_tracking_ros.images import as_mono
from hand_tracking_ros.sources import open_source

WARM_UP_S = 3.0
DRAIN_S = 2.0
SIZE = (640, 480)
FOCAL_PX = 580.0  # of the demo clip


def read_frames(path: str, limit: int = 240) -> list[np.ndarray]:
    """Mono images of ``SIZE``, cropped in the middle to its shape, in the order of playing forth and back."""
    frames = []
    with open_source(path, pace="fast") as source:
        for item in source:
            frames.append(fitted(as_mono(item.image)))
            if len(frames) == limit:
                break
    return frames + frames[-2:0:-1]


def fitted(image: np.ndarray) -> np.ndarray:
    """The middle of ``image`` with the shape of ``SIZE``, resized to it."""
    height, width = image.shape
    share = min(width / SIZE[0], height / SIZE[1])
    w, h = round(SIZE[0] * share), round(SIZE[1] * share)
    x, y = (width - w) // 2, (height - h) // 2
    return cv2.resize(image[y : y + h, x : x + w], SIZE, interpolation=cv2.INTER_AREA)


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


def publish(frames: list[np.ndarray], rate_hz: float, seconds: float, calibrated: bool) -> list[int]:
    """Publish at a steady rate once the tracker listens; the stamps (ns) that count, without the warm-up."""
    import rclpy
    from sensor_msgs.msg import CameraInfo, Image
    from std_msgs.msg import Header

    from hand_tracking_ros.nodes.base import image_qos
    from hand_tracking_ros.nodes.conversions import image_to_message, time_from_ns

    rclpy.init()
    node = rclpy.create_node("latency_publisher")
    publisher = node.create_publisher(Image, "image_raw", image_qos())
    info_publisher = node.create_publisher(CameraInfo, "camera_info", image_qos())
    info = CameraInfo(width=SIZE[0], height=SIZE[1], distortion_model="plumb_bob", d=[0.0] * 5)
    info.k = [FOCAL_PX, 0.0, SIZE[0] / 2 - 0.5, 0.0, FOCAL_PX, SIZE[1] / 2 - 0.5, 0.0, 0.0, 1.0]
    deadline = time.monotonic() + 60
    while not publisher.get_subscription_count() or not node.count_subscribers("hands"):
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
        publisher.publish(image_to_message(frames[index % len(frames)], header))
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


def run(args: argparse.Namespace, received_file: Path) -> dict[str, object]:
    """Start the two other processes, publish, and compare what went out with what came back."""
    from hand_tracking_ros.cli.up import ros_arguments
    from hand_tracking_ros.nodes import graph

    os.environ.setdefault(graph.DDS_PROFILE_VARIABLE, graph.dds_profile())
    os.environ.update(ROS_DOMAIN_ID=str(random.randint(1, 99)), ROS_AUTOMATIC_DISCOVERY_RANGE="LOCALHOST")
    frames = read_frames(args.video)
    parameters = {"autostart": True, "inference.backend": args.backend, "budget.enabled": args.budget}
    arguments = ros_arguments(args.params_file or graph.default_params_file(), parameters)
    tracker = subprocess.Popen([sys.executable, "-m", "hand_tracking_ros.nodes.hand_tracker_node", *arguments])
    listener = subprocess.Popen([sys.executable, __file__, "--subscribe", str(received_file)])
    try:
        begin, used_s = time.monotonic(), 0.0
        stamps = publish(frames, args.rate, args.seconds, args.calibrated)
        if tracker.poll() is not None:
            raise SystemExit("the tracker has ended; its message stands above")
        used_s = cpu_s(tracker)
        elapsed_s = time.monotonic() - begin
    finally:
        for process in (tracker, listener):
            end(process)
    latencies = {stamp: (latency, hands) for stamp, latency, hands in json.loads(received_file.read_text())}
    answered = [latencies[stamp] for stamp in stamps if stamp in latencies]
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
    }


def facts(args: argparse.Namespace) -> dict[str, object]:
    """What was measured, on what, with which versions."""
    from stages import machine  # the neighbouring script

    git = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True)
    return {
        "command": f"ros_latency.py --rate {args.rate:g} --seconds {args.seconds:g} --backend {args.backend}",
        "video": Path(args.video).name,
        "commit": commit.stdout.strip() or "unknown",
        "ros": os.environ.get("ROS_DISTRO", "wheels"),
        "machine": machine(),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video", help="video or image folder (default: the demo clip of the package)")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to measure")
    parser.add_argument("--rate", type=float, default=60.0, help="images per second")
    parser.add_argument("--calibrated", action="store_true", help="publish camera_info as well")
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
        result = {**facts(args), **run(args, Path(folder) / "received.json")}
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
    main()
