"""World-model MPC: camera image in, robot command out, inside a hard deadline every control tick."""

__version__ = "0.1.0"
