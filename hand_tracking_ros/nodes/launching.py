"""What the launch files share. Needs ``launch`` and ``launch_ros``, which come with ROS only."""

from __future__ import annotations

from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable, Shutdown
from launch.conditions import IfCondition
from launch.substitutions import EnvironmentVariable, LaunchConfiguration
from launch_ros.actions import Node

from hand_tracking_ros.nodes import graph
from hand_tracking_ros.paths import PACKAGE, share_directory
from launch import LaunchContext, LaunchDescription

SWITCH = ("true", "false")


def describe_graph(nodes: tuple[str, ...]) -> LaunchDescription:
    """A launch description of ``nodes`` (executables of this package), with the arguments of the package."""
    return LaunchDescription([*_arguments(), _shared_memory(), OpaqueFunction(function=_start, args=(nodes,)), _rviz()])


def describe_rig() -> LaunchDescription:
    """A launch description of several cameras and their tracker."""
    rig = DeclareLaunchArgument("rig", description="rig file of the cameras (docs/cameras.md), or tf:left,right")
    sources = DeclareLaunchArgument(
        "sources",
        default_value="",
        description="source of each camera, in the order of the rig file, with ';' between them; empty: drivers of "
        "your own publish <camera's name>/image_raw",
    )
    start = OpaqueFunction(function=_start_rig)
    return LaunchDescription([rig, sources, *_arguments(("backend",)), _shared_memory(), start, _rviz()])


def _arguments(options: tuple[str, ...] = tuple(graph.OPTIONS)) -> list[DeclareLaunchArgument]:
    """Empty means: as the parameter file says."""
    own = [
        DeclareLaunchArgument(
            name,
            default_value="",
            description=f"{option.doc}; empty: as params_file says",
            choices=None if option.choices is None else ["", *option.choices],
        )
        for name, option in graph.OPTIONS.items()
        if name in options
    ]
    return [
        *own,
        DeclareLaunchArgument("params_file", default_value=graph.default_params_file(), description="parameter file"),
        DeclareLaunchArgument("namespace", default_value="", description="namespace of all nodes and topics"),
        DeclareLaunchArgument(
            "autostart", default_value="true", choices=SWITCH, description="configure and activate the nodes"
        ),
        DeclareLaunchArgument("rviz", default_value="false", choices=SWITCH, description="show the hands in rviz"),
    ]


def _shared_memory() -> SetEnvironmentVariable:
    variable = graph.DDS_PROFILE_VARIABLE
    return SetEnvironmentVariable(variable, EnvironmentVariable(variable, default_value=graph.dds_profile()))


def _start(context: LaunchContext, nodes: tuple[str, ...]) -> list[Node]:
    options = {name: _argument(context, name) for name in graph.OPTIONS}
    return [_node(context, graph.Start(node, "", graph.overrides(nodes, options))) for node in nodes]


def _start_rig(context: LaunchContext) -> list[Node]:
    sources = [source.strip() for source in _argument(context, "sources").split(";") if source.strip()]
    starts = graph.rig_starts(_argument(context, "rig"), sources, _argument(context, "backend"))
    return [_node(context, start) for start in starts]


def _node(context: LaunchContext, start: graph.Start) -> Node:
    namespace = "/".join(part for part in (_argument(context, "namespace").rstrip("/"), start.namespace) if part)
    own = {**start.parameters, "autostart": _argument(context, "autostart") == "true"}
    return Node(
        package=PACKAGE,
        executable=start.node,
        name=start.node,
        namespace=namespace,
        parameters=[_argument(context, "params_file"), own],
        output="screen",
        on_exit=Shutdown(reason=f"{start.node} has ended"),
    )


def _argument(context: LaunchContext, name: str) -> str:
    return LaunchConfiguration(name).perform(context)


def _rviz() -> Node:
    return Node(
        package="rviz2",
        executable="rviz2",
        namespace=LaunchConfiguration("namespace"),
        arguments=["-d", str(share_directory() / "rviz" / "hand_tracking.rviz")],
        condition=IfCondition(LaunchConfiguration("rviz")),
    )
