"""Cost and gradient of a plan: in C, compiled, recorded, or by autograd; all of them agree.

| kernel | models | file |
|---|---|---|
| C | residual MLPs on the CPU | ``native`` |
| compiled | every other predictor (TorchInductor) | ``compiled`` |
| graph | every predictor on a GPU, recorded in CUDA graphs; opt-in | ``graphs`` |
| autograd | any differentiable model; the reference | ``autograd`` |

``make_kernel`` chooses. A kernel that compiles is checked against autograd before it is used.
"""

from wm_mpc.planners.kernels.choice import make_kernel

__all__ = ["make_kernel"]
