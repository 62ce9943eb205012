"""``ros2 launch wm_mpc sim.launch.py task:=NAME [key:=value ...]``; arguments: ``--show-args``."""

from launch import LaunchDescription

from wm_mpc.bringup.launch_adapter import launch_description


def generate_launch_description() -> LaunchDescription:
    """Describe the bringup ``sim`` of :mod:`wm_mpc.bringup.description`."""
    return launch_description("sim")
