"""The optimiser loop, stages kept and taken up again, several processes."""
