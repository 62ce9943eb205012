"""Room: the receding-horizon controller. Observation in, command out, every tick, on time."""
