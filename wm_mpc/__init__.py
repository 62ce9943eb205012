"""World-model MPC: camera image in, robot command out, every control tick, on time."""

__version__ = "0.1.0"
