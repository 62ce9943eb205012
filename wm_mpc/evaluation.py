"""Success in the true simulator, closed or open loop, with intervals and costs."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from tqdm import tqdm

from wm_mpc.budget import CemReference
from wm_mpc.checkpoint import recorded_hash
from wm_mpc.device import device_clock
from wm_mpc.episodes import Episode
from wm_mpc.errors import UserError
from wm_mpc.eval_jobs import EvalSettings, make_env, make_objective, run_episodes
from wm_mpc.locations import ASSETS
from wm_mpc.objective import ObjectiveConfig
from wm_mpc.report import write_report
from wm_mpc.stats import percentile, summary_ms, wilson
from wm_mpc.world_model import WorldModel


def evaluate(
    model: WorldModel | str | Path | None,
    task: str,
    planner: str,
    goals: int = 50,
    seed: int = 0,
    *,
    reference: CemReference | None = None,
    workers: int = 1,
    progress: bool = True,
    label: str = "base",
    ray: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """Measure one row.

    Args:
        model: world model, or the folder of one; None for baselines. Several workers need a
            folder.
        task: see ``EvalSettings``, as are the further settings.
        planner: see ``EvalSettings``.
        goals: see ``EvalSettings``.
        seed: see ``EvalSettings``.
        reference: cost of the CEM reference; needed for a budget and for ratios, calibrated
            when a budget asks for it.
        workers: processes that share the episodes; timings mean something with 1 only.
        progress: show a bar with the running success.
        label: what the row calls the model.
        ray: share the episodes on a Ray cluster instead of local processes.
        settings: further fields of ``EvalSettings``.

    Returns:
        The row of the report, see docs/benchmarks.md.

    Raises:
        UserError: a setting out of its bounds, or no model where one is needed.
    """
    spec = EvalSettings(task, planner, goals, seed, **settings)
    if spec.plans and model is None:
        raise UserError(f"model: none given; planner {planner} needs one")
    episodes: list[Episode] = []
    bar = tqdm(total=goals, desc=f"{task} {planner}", disable=not progress, unit="ep")
    with bar:
        for episode in run_episodes(model, spec, reference, workers, ray):
            episodes.append(episode)
            done = sum(e.success for e in episodes)
            bar.set_postfix(success=f"{done}/{len(episodes)}")
            bar.update()
    episodes.sort(key=lambda e: e.seed)
    digest = model_hash(model) if spec.plans else None
    env = make_env(spec).unwrapped
    return summarise(spec, episodes, reference, label, workers, env, digest)


def model_hash(model: WorldModel | str | Path | None) -> str | None:
    """Hash of a world model or of the one in a folder; None without one that was ever saved.

    First 12 hex digits of the SHA-256 of the weights file that was last loaded or saved: weights
    in training are not in it.
    """
    if isinstance(model, (str, Path)):
        return recorded_hash(Path(model))
    return (model.hash or None) if model is not None else None


def summarise(
    spec: EvalSettings,
    episodes: list[Episode],
    reference: CemReference | None,
    label: str,
    workers: int,
    task: Any,
    digest: str | None = None,
) -> dict[str, Any]:
    """Row of the report from its episodes; ``digest``: see ``model_hash``."""
    n, successes = len(episodes), sum(e.success for e in episodes)
    errors = [e.final_error for e in episodes]
    plan_ms = [ms for e in episodes for ms in e.plan_ms]
    transitions = [t for e in episodes for t in e.transitions]
    row: dict[str, Any] = {
        "task": spec.task,
        "planner": spec.planner,
        "model": label if spec.plans else None,
        "model_hash": digest,
        "mode": spec.mode,
        "n": n,
        "seed": spec.seed,
        "successes": successes,
        "success_rate": successes / n,
        "success_ci95": list(wilson(successes, n)),
        "final_success_rate": mean(e.final_success for e in episodes),
        "final_error": {
            "median": median(errors),
            "p90": percentile(errors, 90),
            "unit": task.spec_task.error_unit,
        },
        "tick_ms": summary_ms([ms for e in episodes for ms in e.tick_ms]),
        "plan_ms": summary_ms(plan_ms),
        "deadline_misses": sum(e.late for e in episodes),
        "over_budget": sum(e.over_budget for e in episodes),
        "transitions_per_tick": mean(transitions) if transitions else 0,
        "iterations_per_tick": mean([i for e in episodes for i in e.iterations] or [0]),
        "transitions_per_s": sum(transitions) / (sum(plan_ms) / 1e3) if plan_ms else 0,
        "cem_ratio_wall": None,
        "cem_ratio_transitions": None,
        "env_steps": max(e.steps for e in episodes),
        "replan_every": spec.replan_every if spec.mode == "mpc" else None,
        "goal_offset": spec.goal_offset or task.spec_task.goal_offset,
        "budget_fraction": spec.budget_fraction or None,
        "workers": workers,
        "success_by_episode": [int(e.success) for e in episodes],
    }
    if all("block_success" in e.info for e in episodes):
        row["block_success_rate"] = mean(e.info["block_success"] for e in episodes)
    if reference is not None and plan_ms:
        row["cem_ratio_wall"] = median(plan_ms) / 1e3 / reference.seconds
        row["cem_ratio_transitions"] = mean(transitions) / reference.transitions
        row["cem_reference_ms"] = reference.seconds * 1e3
    return row


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


def format_row(row: dict[str, Any]) -> str:
    """Return one line for people."""
    low, high = row["success_ci95"]
    text = (
        f"{row['task']} {row['planner']} ({row['mode']}): success {row['successes']}/{row['n']} "
        f"= {100 * row['success_rate']:.0f} % [{100 * low:.0f}, {100 * high:.0f}], "
        f"final error median {row['final_error']['median']:.3g} {row['final_error']['unit']}"
    )
    if row["plan_ms"]["n"]:
        text += (
            f"; tick p50 {row['tick_ms']['p50']:.1f} ms, p99 {row['tick_ms']['p99']:.1f} ms, "
            f"{row['transitions_per_tick']:.0f} transitions"
        )
    if row["cem_ratio_wall"] is not None:
        text += (
            f"; of CEM: {100 * row['cem_ratio_wall']:.1f} % time, "
            f"{100 * row['cem_ratio_transitions']:.1f} % transitions"
        )
    return text
