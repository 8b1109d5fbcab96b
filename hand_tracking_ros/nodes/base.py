"""What all nodes share: lifecycle, parameters, diagnostics, and a loop that no bad frame can stop.

A node says what it does in six short methods (``configure`` ... ``apply``); this class turns errors in them into
transition failures, and errors in a callback into one skipped frame, logged and counted.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable
from functools import wraps

import cv2
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

from hand_tracking_ros.config import Config
from hand_tracking_ros.errors import HandTrackingError
from hand_tracking_ros.nodes.diagnostics import Statistics
from hand_tracking_ros.nodes.parameters import Parameters
from hand_tracking_ros.nodes.process import GarbageWatch, pin

LOG_PERIOD_S = 5.0  # of a warning that may come with every frame
DIAGNOSTICS_PERIOD_S = 1.0


def image_qos(depth: int = 1, reliable: bool = False) -> QoSProfile:
    """Sensor data: the newest image is worth more than every image."""
    reliability = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=reliability)


def result_qos() -> QoSProfile:
    """Small messages that a slow reader should still get."""
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=5, reliability=ReliabilityPolicy.RELIABLE)


def newest_qos() -> QoSProfile:
    """For readers of small messages of which only the newest is worth their time: older ones are dropped."""
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.RELIABLE)


def latched_qos() -> QoSProfile:
    """Static facts: whoever comes late gets the last one."""
    qos = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.RELIABLE)
    qos.durability = DurabilityPolicy.TRANSIENT_LOCAL
    return qos


class HandNode(LifecycleNode):
    """Base of the nodes. Subclasses override the methods below; all but ``configure`` may be left out."""

    def configure(self) -> None:
        """Load what ``self.config`` names, create publishers. Raises HandTrackingError when that fails."""

    def activate(self) -> None:
        """Subscribe, start."""

    def deactivate(self) -> None:
        """Forget the stream (subscriptions are already gone). Also called when activating has failed."""

    def cleanup(self) -> None:
        """Free what ``configure`` made (publishers are already gone). Also called when configuring has failed."""

    def apply(self) -> None:
        """Take over ``self.config`` after a parameter was set while configured."""

    def observe(self) -> None:
        """Bring ``statistics`` up to date: called before every report, while active."""

    # From here on: the machinery.

    def __init__(self, name: str, config_type: type[Config], **options) -> None:
        """``options`` as for rclpy's Node: namespace, context, parameter_overrides, ..."""
        super().__init__(name, **options)
        self.statistics = Statistics()
        self._declared = Parameters(self, config_type)
        self._subscriptions_of_stream: list = []
        self._publishers_of_node: list = []
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._reported_s = time.monotonic()
        self.steady_clock = Clock(clock_type=ClockType.STEADY_TIME)  # also ticks when use_sim_time stands still
        self.create_timer(DIAGNOSTICS_PERIOD_S, self._report, clock=self.steady_clock)
        self._state = "unconfigured"
        self.config: Config | None = None
        self.garbage: GarbageWatch | None = None  # where the node has a process of its own
        self._log_handler = _ForwardLog(self.get_logger())
        logging.getLogger("hand_tracking_ros").addHandler(self._log_handler)

    @property
    def autostart(self) -> bool:
        """Whether the node is to bring itself up."""
        return self.get_parameter("autostart").value

    def bring_up(self) -> bool:
        """Configure and activate; False when one of them failed (the cause is logged)."""
        success = TransitionCallbackReturn.SUCCESS
        return self.trigger_configure() == success and self.trigger_activate() == success

    def publish_to(self, message_type, topic: str, qos: QoSProfile):
        """A publisher that lives until cleanup and sends only while the node is active; its QoS can be overridden."""
        options = QoSOverridingOptions.with_default_policies()
        publisher = self.create_lifecycle_publisher(message_type, topic, qos, qos_overriding_options=options)
        self._publishers_of_node.append(publisher)
        return publisher

    def subscribe(self, message_type, topic: str, callback: Callable, qos: QoSProfile):
        """A subscription that lives until deactivation, with a callback that cannot stop the node."""
        options = QoSOverridingOptions.with_default_policies()
        subscription = self.create_subscription(
            message_type, topic, self.guarded(callback), qos, qos_overriding_options=options
        )
        self._subscriptions_of_stream.append(subscription)
        return subscription

    def unsubscribe(self, subscription) -> None:
        """End one subscription before deactivation."""
        self._subscriptions_of_stream.remove(subscription)
        self.destroy_subscription(subscription)

    def guarded(self, callback: Callable) -> Callable:
        """``callback``, applying changed parameters first, and turning every error into a skipped frame."""

        @wraps(callback)
        def run(*args):
            try:
                if self._declared.changed and self._state in ("inactive", "active"):
                    self._apply()
                callback(*args)
            except HandTrackingError as error:
                self.skip(str(error))
            except Exception as error:
                if not rclpy.ok(context=self.context):
                    return  # the process is being stopped: publishing fails, and nobody listens
                self.skip(f"internal error: {error!r}", traceback.format_exc())

        return run

    def _apply(self) -> None:
        """Take over the parameters as they stand; what cannot be applied leaves the old ones in force."""
        old, self.config = self.config, self._declared.read()
        try:
            self.apply()
        except Exception:
            self.config = old
            raise

    def skip(self, reason: str, details: str = "") -> None:
        """Count a frame that was not processed, and say so now and then."""
        self.statistics.skip(reason)
        text = f"frame skipped: {reason}" + (f"\n{details}" if details else "")
        self.get_logger().warning(text, throttle_duration_sec=LOG_PERIOD_S)

    def warn(self, text: str) -> None:
        """A warning that may come often."""
        self.get_logger().warning(text, throttle_duration_sec=LOG_PERIOD_S)

    def close(self) -> None:
        """Stop and free everything, in whatever state the node is."""
        self._leave_stream()
        self._free()
        logging.getLogger("hand_tracking_ros").removeHandler(self._log_handler)
        self.destroy_node()

    # Transitions

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._transition(
            "configure", self._configure, self._free, lambda: super(HandNode, self).on_configure(state)
        )

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        result = super().on_activate(state)  # publishers first: activating may already publish
        if result != TransitionCallbackReturn.SUCCESS:
            return result

        def undo() -> None:
            self._leave_stream()
            super(HandNode, self).on_deactivate(state)

        return self._transition("activate", self._activate, undo, lambda: result)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._leave_stream()
        self._state = "inactive"
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._free()
        self._state = "unconfigured"
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._leave_stream()
        self._free()
        self._state = "finalized"
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._leave_stream()
        self._free()
        self._state = "unconfigured"
        return TransitionCallbackReturn.SUCCESS

    def _transition(self, name: str, work: Callable, undo: Callable, finish: Callable) -> TransitionCallbackReturn:
        """Do ``work``; when it fails, log the cause, undo it, and fail the transition."""
        try:
            work()
        except HandTrackingError as error:
            return self._failed(name, str(error), undo)
        except Exception:
            return self._failed(name, f"internal error\n{traceback.format_exc()}", undo)
        self.statistics.problems.pop(name, None)
        self._state = {"configure": "inactive", "activate": "active"}[name]
        self.get_logger().info(f"{name}: done")
        return finish()

    def _failed(self, name: str, cause: str, undo: Callable) -> TransitionCallbackReturn:
        self.get_logger().error(f"{name} failed: {cause}")
        self.statistics.problems[name] = cause.splitlines()[0]
        undo()
        return TransitionCallbackReturn.FAILURE

    def _configure(self) -> None:
        self.config = self._declared.read()
        if self.config.process.cpus:
            pin(self.config.process.cpus)  # before networks are loaded: their threads inherit it
        self.configure()

    def _activate(self) -> None:
        if self.garbage is not None:
            self.garbage.settle()
        self.activate()

    def _leave_stream(self) -> None:
        for subscription in self._subscriptions_of_stream:
            self.destroy_subscription(subscription)
        self._subscriptions_of_stream.clear()
        self.statistics.loss.reset()
        self.deactivate()
        self.statistics.end_stream()

    def _free(self) -> None:
        for publisher in self._publishers_of_node:
            self.destroy_lifecycle_publisher(publisher)
        self._publishers_of_node.clear()
        self.cleanup()

    def _report(self) -> None:
        now_s = time.monotonic()
        period_s, self._reported_s = now_s - self._reported_s, now_s
        if self._state == "active":
            self.guarded(self.observe)()
        if self.garbage is not None:
            self.statistics.facts |= self.garbage.facts()
        stamp = self.get_clock().now().to_msg()
        name = self.get_fully_qualified_name().lstrip("/")
        self._diagnostics.publish(self.statistics.message(name, self._state, period_s, stamp))


class _ForwardLog(logging.Handler):
    """Hands what the core logs to the log of the node."""

    def __init__(self, logger) -> None:
        super().__init__(logging.INFO)
        self._logger = logger
        logging.getLogger("hand_tracking_ros").setLevel(logging.INFO)

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.levelno >= logging.ERROR:
            self._logger.error(text)
        elif record.levelno >= logging.WARNING:
            self._logger.warning(text)
        else:
            self._logger.info(text)


def run(node_type: Callable[[], HandNode], args: list[str] | None = None) -> int:
    """Spin a node until Ctrl-C, SIGTERM or shutdown. Exit status 1: it was to bring itself up, and could not."""
    cv2.setNumThreads(1)  # the small images of flow gain nothing from more, and the other processes need the cores
    rclpy.init(args=args)
    node, garbage = None, GarbageWatch()
    try:
        node = node_type()
        executor = SingleThreadedExecutor()  # before the node says that it is there, and may be told to end
        node.garbage = garbage
        if node.autostart and not node.bring_up():
            return 1
        if not node.autostart:
            node.get_logger().info("waiting for a lifecycle manager; '-p autostart:=true' starts the node on its own")
        executor.add_node(node)
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except Exception:
        if rclpy.ok():
            raise  # otherwise a signal came in the middle of starting, and everything fails
    finally:
        if node is not None:
            node.close()
        garbage.close()
        rclpy.try_shutdown()
    return 0
