"""Room: which nodes run, with which parameters; started by ``ros2 launch`` or by us.

``description`` is the one list of bringups, ``start`` and ``supervisor`` run them as processes,
``launch_adapter`` hands them to ``launch``, ``ros_env`` finds rclpy.
Calls: core. Called by: launch files, cli, trials.
Words: *bringup* (a set of nodes), *launch argument*, *required node*.
"""
