"""Room: pictures of numbers and of plans; matplotlib and OpenCV, no ROS.

Calls: core. Called by: trials, nodes, cli, evaluation. Words: *scene* (a task drawn
large), *chart*, *plot*.
"""
