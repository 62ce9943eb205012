"""From the description of a bringup to ROS 2 ``launch``: imported by the launch files only."""

from __future__ import annotations

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from wm_mpc.bringup.description import Bringup, ResolvedNode, find, resolve
from wm_mpc.core.locations import PACKAGE


def launch_description(name: str) -> LaunchDescription:
    """Describe a bringup: its arguments, then the nodes that they resolve to."""
    bringup = find(name)
    arguments = [
        DeclareLaunchArgument(
            argument.name,
            default_value=argument.default,
            description=argument.description,
            # None means any; an empty list would refuse every value
            choices=list(argument.choices) or None,
        )
        for argument in bringup.arguments
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=_nodes, args=[bringup])])


def _nodes(context: LaunchContext, bringup: Bringup) -> list[Node]:
    values = {
        argument.name: LaunchConfiguration(argument.name).perform(context)
        for argument in bringup.arguments
    }
    return [_node(node) for node in resolve(bringup, values)]


def _node(node: ResolvedNode) -> Node:
    return Node(
        package=PACKAGE,
        executable=node.executable,
        name=node.name,
        namespace=node.namespace or None,
        parameters=[str(node.params_file), *([dict(node.overrides)] if node.overrides else [])],
        remappings=list(node.remappings),
        ros_arguments=[
            "--log-level",
            node.log_level,
            *(["--enclave", node.enclave] if node.enclave else []),
        ],
        output="screen",
        emulate_tty=True,
        on_exit=_end_all(node.name) if node.required else None,
    )


def _end_all(name: str):  # noqa: ANN202  (a launch event handler)
    def on_exit(event, context: LaunchContext) -> list[Shutdown] | None:  # noqa: ANN001
        # a second shutdown while Ctrl-C is being handled would be an error
        return None if context.is_shutdown else [Shutdown(reason=f"{name} ended")]

    return on_exit
