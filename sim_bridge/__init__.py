"""Simulators that stand in for the robot, and the bridge that puts them on ROS 2.

``gymnasium.make("sim_bridge:wm_mpc/PushT-v0")`` imports this and finds the tasks registered.
"""

import importlib.util

# The ROS bridge's description can be read where gymnasium is not installed; the tasks cannot.
if importlib.util.find_spec("gymnasium") is not None:
    from sim_bridge import tasks as tasks
