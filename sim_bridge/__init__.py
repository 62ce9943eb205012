"""Simulators that stand in for the robot: ``gymnasium.make("sim_bridge:wm_mpc/PushT-v0")`` and a ROS 2 bridge."""

import importlib.util

# The ROS bridge's description can be read where gymnasium is not installed; the tasks cannot.
if importlib.util.find_spec("gymnasium") is not None:
    from sim_bridge import tasks as tasks
