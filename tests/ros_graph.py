"""Real nodes for the tests: in this process, where a test looks at one node, and in processes of their own."""

from __future__ import annotations

import copy
import importlib
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
pytest.importorskip("hand_tracking_ros.msg", reason="the package was installed without its ROS messages")
pytest.importorskip("onnx", reason="needs onnx to write the small test networks")

from blob_models import draw, write_models  # noqa: E402
from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402

from hand_tracking_ros.nodes.base import HandNode, image_qos, result_qos  # noqa: E402
from hand_tracking_ros.nodes.graph import DDS_PROFILE_VARIABLE, dds_profile  # noqa: E402

TIMEOUT_S = 180.0  # the machine may be busy; a test that passes does not wait for it
DOMAIN = str(random.randint(1, 99))
ENVIRONMENT = {
    "ROS_DOMAIN_ID": DOMAIN,
    "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
    DDS_PROFILE_VARIABLE: dds_profile(),  # as users start the graph; without it large images get lost
}
CLASSES = {
    "camera_node": "CameraNode",
    "hand_tracker_node": "HandTrackerNode",
    "rig_tracker_node": "RigTrackerNode",
    "detector_node": "DetectorNode",
    "flow_node": "FlowNode",
    "keypoint_node": "KeypointNode",
    "filter_node": "FilterNode",
    "arm_teleop_node": "ArmTeleopNode",
    "retarget_node": "RetargetNode",
}


class Ros:
    """One ROS context of this process, with an observer node, and the nodes that a test adds."""

    def __init__(self) -> None:
        os.environ.update(ENVIRONMENT)
        rclpy.init()
        self.executor = SingleThreadedExecutor()
        self.observer = rclpy.create_node("observer")
        self.executor.add_node(self.observer)
        self._nodes: list[HandNode] = []
        self._ends: list = []  # the observer's publishers and subscriptions

    def close(self) -> None:
        """End everything."""
        self.remove_nodes()
        self.observer.destroy_node()
        rclpy.try_shutdown()

    def node(self, name: str, namespace: str, **parameters) -> HandNode:
        """A node of the package in this process; '__' in a keyword stands for '.'."""
        module = importlib.import_module(f"hand_tracking_ros.nodes.{name}")
        overrides = [Parameter(key.replace("__", "."), value=value) for key, value in parameters.items()]
        node = getattr(module, CLASSES[name])(namespace=namespace, parameter_overrides=overrides)
        self._nodes.append(node)
        self.executor.add_node(node)
        return node

    def remove_nodes(self) -> None:
        """End the nodes that the test added, and what it listened and published to."""
        for node in self._nodes:
            self.executor.remove_node(node)
            node.close()
        self._nodes.clear()
        for end in self._ends:
            is_publisher = end in list(self.observer.publishers)
            (self.observer.destroy_publisher if is_publisher else self.observer.destroy_subscription)(end)
        self._ends.clear()

    def listen(self, message_type, topic: str, qos=None) -> list:
        """A list that fills with the messages of a topic."""
        received: list = []
        end = self.observer.create_subscription(message_type, topic, received.append, qos or result_qos())
        self._ends.append(end)
        return received

    def stop_listening(self, received: list) -> None:
        """End what ``listen`` began."""
        (end,) = [end for end in self._ends if getattr(end, "callback", None) == received.append]
        self._ends.remove(end)
        self.observer.destroy_subscription(end)

    def publisher(self, message_type, topic: str, qos=None):
        """A publisher that has already met its subscriber; best effort unless ``qos`` says otherwise."""
        publisher = self.observer.create_publisher(message_type, topic, qos or image_qos(10))
        self._ends.append(publisher)
        self.until(lambda: publisher.get_subscription_count() > 0, f"a subscriber of {topic}")
        self.spin(0.2)
        return publisher

    def spin(self, seconds: float) -> None:
        """Run callbacks for a while."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.executor.spin_once(timeout_sec=left)

    def until(self, condition: Callable[[], bool], what: str, timeout_s: float = TIMEOUT_S) -> None:
        """Run callbacks until ``condition`` holds."""
        end = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < end, f"waited {timeout_s} s for {what}"
            self.executor.spin_once(timeout_sec=0.1)

    def call(self, service_type, name: str, request):
        """The response of a service."""
        client = self.observer.create_client(service_type, name)
        self.until(client.service_is_ready, f"service {name}")
        future = client.call_async(request)
        self.until(future.done, f"an answer of {name}")
        self.observer.destroy_client(client)
        return future.result()


def diagnostics(node: HandNode) -> dict[str, str]:
    """What the node would report now, and under 'message' and 'level' its verdict."""
    statistics = copy.copy(node.statistics)  # so that looking does not count as reporting
    message: DiagnosticArray = statistics.message("node", node._state, 1.0, node.get_clock().now().to_msg())
    status = message.status[0]
    return {value.key: value.value for value in status.values} | {
        "message": status.message,
        "level": str(status.level[0]),
    }


@contextmanager
def process(command: list[str], log: Path, environment: dict[str, str] | None = None) -> Iterator[subprocess.Popen]:
    """A process of its own, ended with SIGINT; its output goes to ``log`` and is shown when the test fails."""
    with open(log, "wb") as stream:
        child = subprocess.Popen(
            command, stdout=stream, stderr=subprocess.STDOUT, env={**os.environ, **ENVIRONMENT, **(environment or {})}
        )
    try:
        yield child
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGINT)
        try:
            child.wait(60)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        print(f"--- {log.stem}\n{log.read_text(errors='replace')}")


def node_command(name: str, namespace: str, parameters: dict) -> list[str]:
    """How to start a node of the package."""
    from hand_tracking_ros.cli.up import ros_arguments
    from hand_tracking_ros.nodes.graph import default_params_file

    arguments = ros_arguments(default_params_file(), parameters, namespace)
    return [sys.executable, "-m", f"hand_tracking_ros.nodes.{name}", *arguments]


def write_clip(folder: Path, count: int = 60) -> list[tuple[float, float]]:
    """Images of a disc (a hand to the blob networks) on an ellipse, slowly, once around; returns its centres."""
    folder.mkdir()
    angles = [2 * math.pi * i / max(count, 30) for i in range(count)]
    centers = [(320 + 32 * math.cos(angle), 240 + 20 * math.sin(angle)) for angle in angles]
    for i, center in enumerate(centers):
        cv2.imwrite(str(folder / f"{i:04d}.png"), draw(center))
    return centers


def write_blob_models(folder: Path) -> dict[str, str]:
    """The test networks; parameters that choose them."""
    return {**write_models(folder), "inference.backend": "onnxruntime"}
