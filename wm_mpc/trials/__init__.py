"""Room: whole systems watched from outside. Start the nodes, follow them over ROS, report."""
