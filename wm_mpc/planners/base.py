"""The contract every planner keeps: a request in, a finite bounded plan out, on time.

Shapes used throughout the planners:

- ``L``: the latent shape of one frame, ``(D,)`` for compact models and ``(N, D)`` for patch
  tokens.
- ``T``: horizon in *model steps*; one model step is ``frameskip`` control steps.
- ``A``: model action width, ``frameskip * action_dim``, normalised units.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from wm_mpc.core.pauses import Pause, no_pause
from wm_mpc.planners.trace import SearchTrace


@dataclass(frozen=True)
class PlanRequest:
    """Everything one planning call depends on.

    Attributes:
        latent: current latent, shape ``L``.
        goal: goal latent, shape ``L``.
        warm_start: previous plan shifted by the elapsed time, ``(T, A)``, or None on a first call.
        proposals: more starting points, ``(P, T, A)``, from an init network or inverse dynamics.
        warm_states: previous virtual states shifted alike, ``(T - 1, *L)`` (GRASP, LatCo).
        deadline: instant of the injected clock [s] after which no new iteration may begin;
            None: no limit.
        max_transitions: upper bound on model transitions (one transition = one sample, one
            model step).
        seed: every random draw of the call derives from it; same request, same plan (without a
            deadline).
        trace: keep what ``Plan.trace`` tells; a copy of one number per chunk.
    """

    latent: Tensor
    goal: Tensor
    warm_start: Tensor | None = None
    proposals: Tensor | None = None
    warm_states: Tensor | None = None
    deadline: float | None = None
    max_transitions: int | None = None
    seed: int = 0
    trace: bool = False


@dataclass(frozen=True)
class Plan:
    """The best finite iterate found.

    Attributes:
        actions: ``(T, A)``, normalised, inside the planner's bounds, always finite.
        cost: objective of ``actions`` under the model (``inf`` if nothing could be evaluated).
        warm_cost: objective of the request's warm start, ``nan`` when there was none or no
            time to evaluate it.
        latents: predicted latents of ``actions``, ``(T, *L)``, or None when there was no time.
        iterations: completed optimiser iterations.
        transitions: model transitions spent, forward-equivalents of samples x model steps
            (a forward and its backward count as one transition, as in the published comparisons).
        wall_s: wall time spent [s], by the injected clock.
        stopped: ``"iterations"``, ``"deadline"``, ``"transitions"`` or ``"non_finite"``.
        planner: name in the registry.
        virtual_states: lifted states of GRASP / LatCo, ``(T - 1, *L)``, to be shifted and
            handed back.
        trace: how the search went, where the request asked for it.
    """

    actions: Tensor
    cost: float
    warm_cost: float
    latents: Tensor | None
    iterations: int
    transitions: int
    wall_s: float
    stopped: str
    planner: str
    virtual_states: Tensor | None = None
    trace: SearchTrace | None = None


class Planner(Protocol):
    """Built once per model and reused; holds compiled code and scratch memory, no plan state."""

    name: str

    def plan(self, request: PlanRequest) -> Plan:
        """Return the best finite plan found in time; without any time, the warm start."""
        ...

    def prepare(self) -> None:
        """Compile what plans will need, where anything is compiled."""
        ...

    def warm_up(self, seconds: float | None = None, pause: Pause = no_pause) -> None:
        """Compile and touch every code path, so that the first tick costs what the others do.

        Args:
            seconds: [s] that a piece of it takes, about; None: as long as whole plans take.
            pause: called before every piece.
        """
        ...


__all__ = ["Plan", "PlanRequest", "Planner"]
