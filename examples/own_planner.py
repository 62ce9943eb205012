"""A planner of your own: random local search, in forty lines.

    python examples/own_planner.py
    PYTHONPATH=examples wm-mpc eval --task wall --planner own_planner:PLANNER --goals 20
    PYTHONPATH=examples wm-mpc launch wall_sim planner:=own_planner:PLANNER

The base class keeps the promises of every planner: it stops at its deadline, stays inside the
bounds, counts model transitions and never returns less than the warm start. A search of another
kind implements ``wm_mpc.planners.anytime.Search``.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import torch
from torch import Tensor

from wm_mpc.core.fields import Checked, PositiveFloat, PositiveInt, Share
from wm_mpc.planners import PlannerEntry, PlanRequest
from wm_mpc.planners.sampling import SamplingPlanner, SamplingSearch


@dataclass(frozen=True)
class ClimbConfig(Checked):
    """Random local search.

    Attributes:
        samples: plans per iteration.
        iterations: moves.
        std: spread of the samples in the first iteration, normalised action units.
        decay: factor on the spread after each iteration.
        chunk: iterations between two looks at the clock.
    """

    samples: PositiveInt = 64
    iterations: PositiveInt = 20
    std: PositiveFloat = 1.0
    decay: Share = 0.85
    chunk: PositiveInt = 1


class ClimbPlanner(SamplingPlanner):
    """Sample around the best plan so far, ever more closely."""

    def begin(self, request: PlanRequest, generator: torch.Generator) -> ClimbSearch:
        """Begin at the warm start."""
        return ClimbSearch(self, request, generator)


class ClimbSearch(SamplingSearch):
    """One call: the samples are drawn, evaluated and compared by the base class."""

    def refit(self, x: Tensor, cost: Tensor) -> None:
        """Move to the best plan seen."""
        self.mean = self.best_actions
        self.std = self.std * self.config.decay


PLANNER = PlannerEntry(ClimbPlanner, ClimbConfig())


if __name__ == "__main__":
    from wm_mpc.cli.main import main

    words = "bench --task wall --planners adam,own_planner:PLANNER --goals 5 --seed 1".split()
    sys.exit(main([*words, "--replan-every", "5", *sys.argv[1:]]))
