"""Room: the ROS 2 nodes. They convert a message, call the core and publish."""
