"""Learning while the robot drives: data as it comes, a training process, models handed over."""
