"""Room: how good is it? Closed loop in the true simulator, no ROS; models against data."""
