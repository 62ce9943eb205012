"""``ros2 launch wm_mpc planar_arm_sim.launch.py [key:=value ...]``; arguments: ``--show-args``."""

from launch import LaunchDescription

from wm_mpc.bringup.launch_adapter import launch_description


def generate_launch_description() -> LaunchDescription:
    """Describe the bringup ``planar_arm_sim`` of :mod:`wm_mpc.bringup.description`."""
    return launch_description("planar_arm_sim")
