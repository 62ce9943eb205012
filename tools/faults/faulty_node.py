"""``mpc_node`` with a planner that fails as the file ``$WM_MPC_FAULT`` says: once, then it works.

The product knows nothing of it: the planner is registered from outside, as anybody's could be.
"""

from __future__ import annotations

import ctypes
import dataclasses
import os
import sys
import time
from pathlib import Path

import torch

from wm_mpc.bringup.ros_env import prepare

prepare()

from wm_mpc.nodes.mpc.node import main  # noqa: E402
from wm_mpc.planners.base import Plan, PlanRequest  # noqa: E402
from wm_mpc.planners.gradient import GradientConfig, GradientPlanner  # noqa: E402
from wm_mpc.planners.registry import PLANNERS, PlannerEntry  # noqa: E402

HANG_S = 3


class FaultyPlanner(GradientPlanner):
    """Adam, until the file has a word in it."""

    def plan(self, request: PlanRequest) -> Plan:
        """Plan, or do what the file says."""
        path = Path(os.environ["WM_MPC_FAULT"])
        word, _, lasting = (path.read_text() if path.exists() else "").partition(" ")
        if word and not lasting:
            path.write_text("")
        if word == "raise":
            raise RuntimeError("a fault that was asked for")
        if word == "exit":
            raise SystemExit("a fault that was asked for")
        if word == "hang":
            time.sleep(HANG_S)
        if word == "hang_with_lock":
            ctypes.PyDLL(None).sleep(HANG_S)  # PyDLL keeps the interpreter's lock
        plan = super().plan(request)
        if word in ("nan", "huge"):
            value = float("nan") if word == "nan" else 1e6
            return dataclasses.replace(plan, actions=torch.full_like(plan.actions, value))
        return plan


PLANNERS["faulty"] = PlannerEntry(FaultyPlanner, GradientConfig())

if __name__ == "__main__":
    sys.exit(main())
