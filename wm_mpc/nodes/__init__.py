"""ROS 2 nodes: they convert messages, call the core and publish; no algorithm lives here."""
