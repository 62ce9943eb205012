"""Simulated arms, reached only by what a real arm offers: controllers, joint states, a camera.

Calls: wm_mpc.core. Called by: launch files, tests, examples.
Words: *arm* (physics and camera), *controller* (what turns commands into joint motion, as the
controllers of ros2_control do), *tip* (the point that reaches).
"""
