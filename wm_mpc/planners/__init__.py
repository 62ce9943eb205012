"""Room: anytime planners through a latent world model. One file per algorithm, one table.

``base`` says what a planner is asked and answers, ``anytime`` is the loop that stops at a
deadline, ``registry`` names them; ``objective`` is the goal cost, ``starts`` the warm start,
``budget`` the CEM reference and the share of its time; ``kernels`` evaluate cost and gradient.

| name | algorithm | file |
|---|---|---|
| ``cem`` | cross-entropy method, the reference | ``cem`` |
| ``mppi`` | model predictive path integral | ``mppi`` |
| ``gd``, ``adam`` | gradient descent on actions (2512.09929) | ``gradient`` |
| ``ilqr`` | Gauss-Newton on latent residuals, with limits | ``ilqr`` |
| ``grasp`` | parallel stochastic descent on states and actions (2602.00475) | ``grasp`` |
| ``latco`` | latent collocation | ``latco`` |
| ``hybrid`` | CEM whose samples take gradient steps | ``hybrid`` |

Calls: models, core. Called by: control, evaluation, training.
Words: *plan*, *horizon* (model steps), *warm start*, *iterate*, *transition* (one model step of
one candidate), *budget*.
"""

from __future__ import annotations

from wm_mpc.models.protocol import Dynamics
from wm_mpc.planners.base import Plan, Planner, PlanRequest
from wm_mpc.planners.cem import CemConfig
from wm_mpc.planners.gradient import GradientConfig
from wm_mpc.planners.grasp import GraspConfig
from wm_mpc.planners.hybrid import HybridConfig
from wm_mpc.planners.ilqr import IlqrConfig
from wm_mpc.planners.latco import LatcoConfig
from wm_mpc.planners.mppi import MppiConfig
from wm_mpc.planners.registry import PLANNERS, PlannerEntry, make_planner, planner_config

__all__ = [
    "PLANNERS",
    "CemConfig",
    "Dynamics",
    "GradientConfig",
    "GraspConfig",
    "HybridConfig",
    "IlqrConfig",
    "LatcoConfig",
    "MppiConfig",
    "Plan",
    "PlanRequest",
    "Planner",
    "PlannerEntry",
    "make_planner",
    "planner_config",
]
