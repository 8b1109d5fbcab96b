"""What both launch files share. Needs ``launch`` and ``launch_ros``, which come with ROS only."""

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


def _arguments() -> list[DeclareLaunchArgument]:
    """Empty means: as the parameter file says."""
    own = [
        DeclareLaunchArgument(
            name,
            default_value="",
            description=f"{option.doc}; empty: as params_file says",
            choices=None if option.choices is None else ["", *option.choices],
        )
        for name, option in graph.OPTIONS.items()
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
    def argument(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    parameters = graph.overrides(nodes, {name: argument(name) for name in graph.OPTIONS})
    parameters["autostart"] = argument("autostart") == "true"
    return [
        Node(
            package=PACKAGE,
            executable=node,
            name=node,
            namespace=argument("namespace"),
            parameters=[argument("params_file"), parameters],
            output="screen",
            on_exit=Shutdown(reason=f"{node} has ended"),
        )
        for node in nodes
    ]


def _rviz() -> Node:
    return Node(
        package="rviz2",
        executable="rviz2",
        namespace=LaunchConfiguration("namespace"),
        arguments=["-d", str(share_directory() / "rviz" / "hand_tracking.rviz")],
        condition=IfCondition(LaunchConfiguration("rviz")),
    )
