"""``trainer_node``: collects on-policy data, trains beside the robot, hands better models over."""
