"""``wm-mpc eval``: closed-loop success in the true simulator, with intervals."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import torch

from wm_mpc.core.clock import device_clock
from wm_mpc.core.locations import ASSETS
from wm_mpc.core.provenance import write_report
from wm_mpc.evaluation.jobs import EvalSettings
from wm_mpc.evaluation.rows import evaluate, format_row
from wm_mpc.models.world_model import WorldModel
from wm_mpc.planners.budget import CemReference
from wm_mpc.planners.objective import ObjectiveConfig, make_objective


@dataclass(frozen=True)
class Config:
    """Evaluate one planner on one task in the true simulator.

    Attributes:
        task: pusht, point_maze, wall, or a gymnasium id.
        planner: cem, mppi, gd, adam, grasp, latco, hybrid, or a baseline: none, random, replay.
        goals: number of episodes.
        seed: starts, goals and all draws derive from it.
        model: world-model folder; empty: the bundled one of the task.
        label: name of the model in the report.
        mode: mpc (closed loop) or open_loop.
        replan_every: control steps between two plans in closed loop.
        steps: control-step budget; 0: the task's own.
        goal_offset: control steps between start and goal; 0: the task's own.
        horizon: model steps of a plan; 0: 5 in closed loop, the goal's distance in open loop.
        objective: goal cost.
        options: fields of the planner's configuration, name=value.
        budget_fraction: planning time per tick as a share of the CEM reference's; 0: no deadline.
            Unset: 0.1, and no deadline for cem, which is the reference itself.
        proposals: file of a learned proposer, whose guess is one more start of every search.
        compile: use compiled code where that is faster.
        device: cpu, cuda or cuda:N: where encoder and planner run.
        threads: threads of torch; 0: torch's own choice.
        workers: processes; timings, and budgets in time, mean something with 1 only.
        ray: share the episodes on a Ray cluster (RAY_ADDRESS, or a local one of ``workers``).
        report: JSON file to write.
    """

    task: str = "pusht"
    planner: str = "adam"
    goals: int = 50
    seed: int = 0
    model: Path | None = None
    label: str = "base"
    mode: str = "mpc"
    replan_every: int = 1
    steps: int = 0
    goal_offset: int = 0
    horizon: int = 0
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    options: tuple[str, ...] = ()
    budget_fraction: float | None = None
    proposals: Path | None = None
    compile: bool = True
    device: str = "cpu"
    threads: int = 0
    workers: int = 1
    ray: bool = False
    report: Path | None = None


def run(config: Config) -> int:
    """Evaluate, print the row and write the report; the exit code."""
    if config.threads:
        torch.set_num_threads(config.threads)
    fraction = config.budget_fraction
    if fraction is None:
        fraction = 0.0 if config.planner == "cem" else 0.1
    names = {f.name for f in fields(EvalSettings)}
    values = {f.name: getattr(config, f.name) for f in fields(config) if f.name in names}
    spec = EvalSettings(**(values | {"budget_fraction": fraction}))
    if not spec.plans:
        spec = replace(spec, budget_fraction=0.0, options=())
    model = reference = None
    if spec.plans:
        model = WorldModel.load(config.model or ASSETS / spec.task, device=spec.device)
        objective = make_objective(model, spec.objective)
        clock = device_clock(model.action_mean.device)
        reference = CemReference.calibrate(model, objective, clock, spec.compile)
    settings = {name: getattr(spec, name) for name in names}
    row = evaluate(
        model,
        **settings,
        reference=reference,
        workers=config.workers,
        label=config.label,
        ray=config.ray,
    )
    print(format_row(row))
    if config.report is not None:
        facts = None if reference is None else reference.as_dict()
        write_report(config.report, None, config.seed, [row], cem_reference=facts)
    return 0
