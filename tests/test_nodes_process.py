"""The process of a node: cores, and pauses of the garbage collector."""

from __future__ import annotations

import gc
import os
import subprocess
import sys

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.lifecycle import TransitionCallbackReturn
from ros_graph import node_command, process

from hand_tracking_ros.errors import ConfigError
from hand_tracking_ros.nodes.process import GarbageWatch, parse_cpus

needs_affinity = pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs the affinity of Linux")


@pytest.mark.parametrize(
    ("text", "cpus"), [("0", {0}), ("2,3", {2, 3}), ("0-3", {0, 1, 2, 3}), (" 1, 4 - 5 ,4", {1, 4, 5}), ("7-7", {7})]
)
def test_lists_of_cores(text, cpus):
    assert parse_cpus(text) == cpus


@pytest.mark.parametrize(
    ("text", "says"),
    [("all", "like '2,3' or '0-3', got 'all'"), ("1,", "got '1,'"), ("-1", "got '-1'"), ("3-1", "no range, write 1-3")],
)
def test_what_is_no_list_of_cores_is_refused(text, says):
    with pytest.raises(ConfigError, match="process.cpus") as error:
        parse_cpus(text)
    assert says in str(error.value)


PIN = """
import os, threading
from hand_tracking_ros.nodes.process import pin
stop = threading.Event()
threading.Thread(target=stop.wait).start()
pin("{core}")
threading.Thread(target=stop.wait).start()
print(sorted({{tuple(os.sched_getaffinity(int(t))) for t in os.listdir("/proc/self/task")}}), threading.active_count())
stop.set()
"""


@needs_affinity
def test_all_threads_keep_to_the_cores_also_those_that_come_later():
    core = max(os.sched_getaffinity(0))
    command = [sys.executable, "-c", PIN.format(core=core)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == f"[({core},)] 3"


@needs_affinity
def test_cores_that_are_not_there_fail_the_configure_transition_and_change_nothing(ros, capfd):
    before = os.sched_getaffinity(0)
    for namespace, text in (("/none", "1000"), ("/some", f"{min(before)},1000")):
        node = ros.node("filter_node", f"/cores{namespace}", process__cpus=text)
        assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
        allowed = ",".join(map(str, sorted(before)))
        assert f"'{text}', but this process may use the cores {allowed} only" in capfd.readouterr().err
    assert os.sched_getaffinity(0) == before


@needs_affinity
def test_a_node_of_its_own_keeps_to_its_cores_and_reports_its_garbage(ros, tmp_path):
    core, reports = min(os.sched_getaffinity(0)), ros.listen(DiagnosticArray, "/diagnostics")
    command = node_command("filter_node", "/pinned", {"autostart": True, "process.cpus": str(core)})
    with process(command, tmp_path / "filter.log") as child:

        def values() -> dict[str, str]:
            own = [m.status[0] for m in reports if m.status[0].name == "pinned/filter_node"]
            return {value.key: value.value for value in own[-1].values} if own else {}

        ros.until(lambda: values().get("state") == "active", "the node")
        threads = [int(thread) for thread in os.listdir(f"/proc/{child.pid}/task")]
        assert len(threads) > 1 and {tuple(os.sched_getaffinity(thread)) for thread in threads} == {(core,)}
        assert {"gc_pauses", "gc_pause_ms_max"} <= values().keys()
    assert child.returncode == 0


def test_pauses_of_the_collector_are_measured_and_what_is_loaded_is_out_of_its_way():
    watch = GarbageWatch()
    gc.disable()
    try:
        gc.collect()
        gc.collect()
        facts = watch.facts()
        assert facts["gc_pauses"] == 2 and 0 < facts["gc_pause_ms_max"] < 60_000
        assert watch.facts() == {"gc_pauses": 0, "gc_pause_ms_max": 0.0}
        watch.settle()
        assert gc.get_freeze_count() > 1000 and len(gc.get_objects()) < 1000
        assert watch.facts()["gc_pauses"] == 0  # settling holds up no frame
    finally:
        gc.unfreeze()
        gc.enable()
        watch.close()
    gc.collect()
    assert watch.facts()["gc_pauses"] == 0
