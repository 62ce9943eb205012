"""Recorded trajectories: the training store, and the rosbags they come from and go to."""
