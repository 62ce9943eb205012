"""Where ``wm_mpc.bringup.ros_env`` used to lie; scripts that people wrote import it from here."""

from wm_mpc.bringup.ros_env import prepare, rclpy_source

__all__ = ["prepare", "rclpy_source"]
