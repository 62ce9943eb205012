"""Clocks, deadlines and the CEM reference that budgets are measured against."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from annotated_types import Gt, Le

from wm_mpc.core.clock import Clock, monotonic
from wm_mpc.core.fields import Checked, NonNegativeFloat, PositiveFloat
from wm_mpc.core.usage import Meter, thread_usage

if TYPE_CHECKING:
    from wm_mpc.models.protocol import Dynamics
    from wm_mpc.planners.base import Planner
    from wm_mpc.planners.objective import GoalObjective


@dataclass(frozen=True)
class CemReference:
    """Cost of the reference planner with one model on one device.

    The reference is CEM with 300 samples, 30 elites, 30 iterations and horizon 5.

    Attributes:
        seconds: time of one full plan [s], warm-up excluded, best of ``repeats``; what other
            processes took in the meantime is not counted on a CPU.
        transitions: model transitions of one full plan (45,000 for the reference size).
        repeats: timed runs behind ``seconds``.
        measured_iterations: iterations actually timed per run; fewer than ``iterations`` when
            the model is slow, ``seconds`` is then scaled up linearly.
        iterations: iterations of the reference.
        device: torch device type it was measured on.
        threads: torch threads it was measured with.
    """

    seconds: float
    transitions: int
    repeats: int
    measured_iterations: int
    iterations: int
    device: str
    threads: int

    def as_dict(self) -> dict[str, float | int | str | bool]:
        """All fields, for a report."""
        return dataclasses.asdict(self) | {"scaled": self.scaled}

    @property
    def scaled(self) -> bool:
        """True when only part of the iterations was timed."""
        return self.measured_iterations < self.iterations

    @classmethod
    def calibrate(
        cls,
        model: Dynamics,
        objective: GoalObjective,
        clock: Clock = monotonic,
        compile: bool = True,
        repeats: int = 3,
        max_seconds: float = 20.0,
        meter: Meter = thread_usage,
    ) -> CemReference:
        """Time the reference planner on the same compiled, batched path that every planner uses.

        Nothing is cached: the caller keeps the result as long as model and device stay.

        Args:
            model: dynamics.
            objective: goal cost; its horizon is replaced by the reference's 5.
            clock: monotonic clock.
            compile: as for the planners compared with it.
            repeats: timed runs, at least 1.
            max_seconds: bound on the time the calibration should take [s], warm-up excluded; a
                model slower than that is timed on fewer iterations (at least one).
            meter: what the calling thread was given.
        """
        # Late import: planners build on this module's clock.
        import torch

        from wm_mpc.planners import PlanRequest
        from wm_mpc.planners.registry import make_planner, planner_config

        if repeats < 1:
            raise ValueError(f"repeats: {repeats}; at least 1 expected")
        full = planner_config("cem")

        def reference(iterations: int) -> Planner:
            config = planner_config("cem", iterations=iterations)
            return make_planner("cem", model, objective, config, clock, compile)

        objective = objective.with_horizon(REFERENCE_HORIZON)
        zero = torch.zeros(model.latent_shape, device=objective.time_weights.device)
        request = PlanRequest(zero, torch.ones_like(zero))
        one = reference(1)
        one.warm_up()
        single = one.plan(request).wall_s
        affordable = int(max_seconds / repeats / max(single, 1e-9))
        count = max(1, min(full.iterations, affordable))
        planner = reference(count)
        planner.prepare()
        planner.plan(request)
        device = zero.device.type
        times = [
            given(lambda: planner.plan(request), clock, meter, device) for _ in range(repeats)
        ]
        return cls(
            seconds=min(times) * full.iterations / count,
            transitions=full.samples * full.iterations * REFERENCE_HORIZON,
            repeats=repeats,
            measured_iterations=count,
            iterations=full.iterations,
            device=device,
            threads=torch.get_num_threads(),
        )


REFERENCE_HORIZON = 5


def given(work: Callable[[], object], clock: Clock, meter: Meter, device: str) -> float:
    """Time that a piece of work took the calling thread [s], without what others took from it.

    On a CPU this is the time on a core where one thread does the work; where several do, it waits
    for the others, and only its time in the queue for a core is left out. Elsewhere, and by a
    clock that is not the system's, it is what the clock says.

    Args:
        work: what to do.
        clock: monotonic clock.
        meter: what the calling thread was given.
        device: torch device type that the work is done on.
    """
    import torch

    before, began = meter(), clock()
    work()
    wall, after = clock() - began, meter()
    if device != "cpu" or clock is not monotonic:
        return wall
    cpu, queued = after.cpu_s - before.cpu_s, after.queued_s - before.queued_s
    if torch.get_num_threads() == 1:
        return min(wall, cpu)
    return max(min(wall, cpu), wall - queued)


@dataclass(frozen=True)
class Budget(Checked):
    """How much time one tick may plan.

    Attributes:
        fraction: share of the reference planner's time, > 0.
        reference_s: the reference planner's time [s], > 0; ``inf`` leaves only the control
            period as bound.
        period_s: control period [s], > 0; ``inf`` where nothing runs in real time.
        margin_s: part of the period kept free for everything but planning [s], 0 .. ``period_s``.
    """

    fraction: PositiveFloat
    reference_s: Annotated[float, Gt(0), Le(math.inf)]
    period_s: Annotated[float, Gt(0), Le(math.inf)] = math.inf
    margin_s: NonNegativeFloat = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.margin_s < self.period_s:
            bound = f"0 to below the period {self.period_s} s"
            raise ValueError(f"margin_s: {self.margin_s} s; {bound} expected")

    @property
    def seconds(self) -> float:
        """Planning time of one tick [s].

        >>> Budget(0.1, 0.2, 0.1, 0.03).seconds, Budget(0.1, 2.0, 0.1, 0.03).seconds
        (0.02..., 0.07...)
        """
        return min(self.fraction * self.reference_s, self.period_s - self.margin_s)

    def deadline(self, now: float) -> float:
        """Instant [s] at which planning that begins at ``now`` must end."""
        return now + self.seconds
