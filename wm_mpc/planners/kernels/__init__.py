"""Cost and gradient of a plan: in C, compiled, or by autograd; all of them agree."""
