"""Room: anytime planners through a latent world model. One file per algorithm, one table."""

from __future__ import annotations

from wm_mpc.models.protocol import Dynamics
from wm_mpc.planners.base import Plan, Planner, PlanRequest
from wm_mpc.planners.cem import CemConfig
from wm_mpc.planners.gradient import GradientConfig
from wm_mpc.planners.grasp import GraspConfig
from wm_mpc.planners.hybrid import HybridConfig
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
    "LatcoConfig",
    "MppiConfig",
    "Plan",
    "PlanRequest",
    "Planner",
    "PlannerEntry",
    "make_planner",
    "planner_config",
]
