"""Room: recorded trajectories. The training store, and the rosbags they come from and go to."""
