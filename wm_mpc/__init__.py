"""World-model MPC: camera image in, robot command out, every control tick, on time.

    from wm_mpc import Controller, Engine, PlanRequest, Store, WorldModel, make_planner

Each name is imported when it is first asked for: ``import wm_mpc`` alone loads no torch.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "Controller": "wm_mpc.control.controller",
    "Engine": "wm_mpc.control.engine",
    "PlanRequest": "wm_mpc.planners.base",
    "Store": "wm_mpc.data.store.store",
    "WorldModel": "wm_mpc.models.world_model",
    "make_planner": "wm_mpc.planners.registry",
}

__all__ = ["Controller", "Engine", "PlanRequest", "Store", "WorldModel", "make_planner"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
