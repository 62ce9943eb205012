"""Success in the true simulator, closed or open loop, with intervals and costs."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from wm_mpc.budget import Budget, CemReference
from wm_mpc.episodes import (
    ConstantPolicy,
    Episode,
    PlanningPolicy,
    Policy,
    RandomPolicy,
    ReplayPolicy,
    run_episode,
)
from wm_mpc.errors import UserError
from wm_mpc.objective import GoalObjective, ObjectiveConfig
from wm_mpc.planners import PLANNERS, make_planner, planner_config
from wm_mpc.report import write_report
from wm_mpc.stats import percentile, summary_ms, wilson
from wm_mpc.world_model import WorldModel

TASK_IDS = {
    "pusht": "sim_bridge:wm_mpc/PushT-v0",
    "point_maze": "sim_bridge:wm_mpc/PointMaze-v0",
    "wall": "sim_bridge:wm_mpc/Wall-v0",
}
BASELINES = ("none", "random", "replay")
ASSETS = Path(__file__).parent / "assets"


@dataclass(frozen=True)
class EvalSettings:
    """One measured row: what is evaluated and how.

    Attributes:
        task: key of ``TASK_IDS``, or any gymnasium id whose environment keeps the tasks' contract.
        planner: key of ``PLANNERS``, or a baseline: ``none``, ``random``, ``replay``.
        goals: number of episodes, each with its own start and goal.
        seed: starts, goals and all of the planner's draws derive from it.
        mode: ``mpc`` (closed loop) or ``open_loop`` (one plan, executed to its end).
        replan_every: control steps between two plans in closed loop.
        steps: control-step budget; 0: the task's own (closed loop), the plan's length (open loop).
        goal_offset: control steps between start and goal; 0: the task's own.
        horizon: model steps of a plan; 0: 5 in closed loop, the goal's distance in open loop.
        objective: goal cost.
        options: fields of the planner's configuration, ``name=value``.
        budget_fraction: planning time per tick as a share of the CEM reference's; 0: no deadline.
        compile: use compiled code where that is faster.
    """

    task: str
    planner: str
    goals: int = 50
    seed: int = 0
    mode: str = "mpc"
    replan_every: int = 1
    steps: int = 0
    goal_offset: int = 0
    horizon: int = 0
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    options: tuple[str, ...] = ()
    budget_fraction: float = 0.0
    compile: bool = True

    def __post_init__(self) -> None:
        if self.task not in TASK_IDS and "/" not in self.task:
            known = ", ".join(TASK_IDS)
            raise UserError(f"task: {self.task!r} unknown; {known} or a gymnasium id expected")
        if self.planner not in PLANNERS and self.planner not in BASELINES:
            known = ", ".join([*PLANNERS, *BASELINES])
            raise UserError(f"planner: {self.planner!r} unknown; one of {known} expected")
        if self.mode not in ("mpc", "open_loop"):
            raise UserError(f"mode: {self.mode!r}; mpc or open_loop expected")
        lowest = {"goals": 1, "seed": 0, "replan_every": 1, "steps": 0, "goal_offset": 0}
        for name, bound in (lowest | {"horizon": 0, "budget_fraction": 0}).items():
            if not getattr(self, name) >= bound:
                raise UserError(f"{name}: {getattr(self, name)}; at least {bound} expected")

    @property
    def plans(self) -> bool:
        """True unless the planner is a baseline that needs no model."""
        return self.planner not in BASELINES


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
        for episode in _episodes(model, spec, reference, workers):
            episodes.append(episode)
            done = sum(e.success for e in episodes)
            bar.set_postfix(success=f"{done}/{len(episodes)}")
            bar.update()
    episodes.sort(key=lambda e: e.seed)
    return summarise(spec, episodes, reference, label, workers, make_env(spec).unwrapped)


def _episodes(
    model: WorldModel | str | Path | None,
    spec: EvalSettings,
    reference: CemReference | None,
    workers: int,
) -> Iterator[Episode]:
    """Yield episodes as they end, in this process or from several."""
    seeds = [episode_seed(spec.seed, i) for i in range(spec.goals)]
    if workers <= 1:
        yield from evaluate_seeds(model, spec, reference, seeds)
        return
    path = model.path if isinstance(model, WorldModel) else model
    if spec.plans and path is None:
        raise UserError(f"workers: {workers} processes need a model folder, not an unsaved model")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_single_thread) as pool:
        shares = [seeds[i :: workers * 4] for i in range(workers * 4)]
        jobs = [
            pool.submit(_evaluate_share, path, spec, reference, share) for share in shares if share
        ]
        for job in as_completed(jobs):
            yield from job.result()


def _single_thread() -> None:
    torch.set_num_threads(1)


def _evaluate_share(
    path: Path | None, spec: EvalSettings, reference: CemReference | None, seeds: list[int]
) -> list[Episode]:
    return list(evaluate_seeds(path, spec, reference, seeds))


def evaluate_seeds(
    model: WorldModel | str | Path | None,
    spec: EvalSettings,
    reference: CemReference | None,
    seeds: list[int],
) -> Iterator[Episode]:
    """Run the episodes of some environment seeds in this process."""
    if isinstance(model, (str, Path)):
        model = WorldModel.load(model)
    size = model.encoder.image_size if model is not None and model.encoder is not None else None
    env = make_env(spec, size)
    try:
        policy, steps = make_policy(spec, model, reference, env.unwrapped.spec_task)
        options = {"goal_offset": spec.goal_offset} if spec.goal_offset else None
        for seed in seeds:
            yield run_episode(env, policy, seed, steps, options)
    finally:
        env.close()


def make_env(spec: EvalSettings, image_size: int | None = None) -> Any:
    """Build the task's environment by its gymnasium id; the step budget is kept by the caller."""
    import gymnasium

    size = {} if image_size is None else {"image_size": image_size}
    name = TASK_IDS.get(spec.task, spec.task)
    return gymnasium.make(name, disable_env_checker=True, max_episode_steps=10**9, **size)


def make_policy(
    spec: EvalSettings, model: WorldModel | None, reference: CemReference | None, task: Any
) -> tuple[Policy, int]:
    """Policy and control-step budget of one row.

    Args:
        spec: settings.
        model: world model, or None for baselines.
        reference: CEM reference, for the budget.
        task: the environment's constants (``TaskSpec``).
    """
    steps = spec.steps or task.episode_steps
    if spec.planner == "none":
        return ConstantPolicy(task.action_dim), steps
    if spec.planner == "random":
        return RandomPolicy(np.array(task.action_low), np.array(task.action_high)), steps
    if spec.planner == "replay":
        return ReplayPolicy(task.action_dim), steps
    assert model is not None
    frameskip = model.config.frameskip
    horizon = spec.horizon or 5
    if spec.mode == "open_loop":
        horizon = spec.horizon or -(-(spec.goal_offset or task.goal_offset) // frameskip)
        steps = spec.steps or horizon * frameskip
    device = model.action_mean.device
    objective = GoalObjective(
        spec.objective, horizon, model.visual_dim, model.proprio_width, device
    )
    budget = None
    if spec.budget_fraction:
        if reference is None:
            reference = CemReference.calibrate(model, objective, compile=spec.compile)
        # In closed loop the period bounds a tick; an open-loop plan is made before the motion.
        period = model.config.control_period if spec.mode == "mpc" else float("inf")
        budget = Budget(spec.budget_fraction, reference.seconds, period)
    try:
        config = planner_config(spec.planner, **parse_options(spec.planner, spec.options))
    except ValueError as error:
        raise UserError(f"options: {error}") from error
    planner = make_planner(spec.planner, model, objective, config, compile=spec.compile)
    planner.warm_up()
    every = spec.replan_every if spec.mode == "mpc" else 0
    return PlanningPolicy(model, planner, every, budget), steps


def summarise(
    spec: EvalSettings,
    episodes: list[Episode],
    reference: CemReference | None,
    label: str,
    workers: int,
    task: Any,
) -> dict[str, Any]:
    """Row of the report from its episodes."""
    n, successes = len(episodes), sum(e.success for e in episodes)
    errors = [e.final_error for e in episodes]
    plan_ms = [ms for e in episodes for ms in e.plan_ms]
    transitions = [t for e in episodes for t in e.transitions]
    row: dict[str, Any] = {
        "task": spec.task,
        "planner": spec.planner,
        "model": label if spec.plans else None,
        "mode": spec.mode,
        "n": n,
        "seed": spec.seed,
        "successes": successes,
        "success_rate": successes / n,
        "success_ci95": list(wilson(successes, n)),
        "final_success_rate": mean(e.final_success for e in episodes),
        "final_error": {
            "median": median(errors), "p90": percentile(errors, 90),
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


def episode_seed(seed: int, index: int) -> int:
    """Environment seed of episode ``index``; more goals leave the first ones as they are."""
    return int(np.random.SeedSequence([seed, index]).generate_state(1)[0])


def parse_options(planner: str, options: tuple[str, ...]) -> dict[str, Any]:
    """Turn ``name=value`` into fields of a planner's configuration.

    >>> parse_options("adam", ("starts=4", "learning_rate=0.1"))
    {'starts': 4, 'learning_rate': 0.1}

    Raises:
        UserError: no ``=``, an unknown field, or a value of another type.
    """
    default = PLANNERS[planner].config
    defaults = {f.name: getattr(default, f.name) for f in fields(default)}
    parsed: dict[str, Any] = {}
    for option in options:
        name, found, text = option.partition("=")
        if not found or name not in defaults:
            known = ", ".join(defaults)
            raise UserError(f"{option!r}; name=value with one of {known} expected")
        kind = type(defaults[name])
        try:
            parsed[name] = text.lower() in ("1", "true", "yes") if kind is bool else kind(text)
        except ValueError as error:
            raise UserError(f"{name}: {text!r} is no {kind.__name__}") from error
    return parsed


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
        compile: use compiled code where that is faster.
        threads: threads of torch; 0: torch's own choice.
        workers: processes; timings, and budgets in time, mean something with 1 only.
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
    compile: bool = True
    threads: int = 0
    workers: int = 1
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
        model = WorldModel.load(config.model or ASSETS / spec.task)
        objective = GoalObjective(spec.objective, 5, model.visual_dim, model.proprio_width)
        reference = CemReference.calibrate(model, objective, compile=spec.compile)
    settings = {name: getattr(spec, name) for name in names}
    row = evaluate(
        model, **settings, reference=reference, workers=config.workers, label=config.label
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
