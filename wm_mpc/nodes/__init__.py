"""Room: the ROS 2 nodes. They convert a message, call the core and publish.

``mpc`` drives the robot, ``trainer`` learns while it drives, ``recording`` writes and plays
bags, ``view`` and ``markers`` show, ``common`` is what they share. No algorithm lives in a node,
and this room alone imports rclpy in earnest.
Calls: control, training, data, planners, models, tasks, viz. Called by: executables, trials,
``sim_bridge.node``.
Words: *node*, *topic*, *QoS*, *lifecycle state*, *mailbox* (the newest message, never a queue).
"""
