"""Episodes of one measured row: what is evaluated, and where it runs."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wm_mpc.core.clock import device_clock
from wm_mpc.core.errors import UserError
from wm_mpc.evaluation.episodes import (
    ConstantPolicy,
    Episode,
    PlanningPolicy,
    Policy,
    RandomPolicy,
    ReplayPolicy,
    run_episode,
)
from wm_mpc.models.identity import perception_hash
from wm_mpc.models.proposers import load_proposer
from wm_mpc.models.world_model import WorldModel
from wm_mpc.planners.budget import Budget, CemReference
from wm_mpc.planners.objective import ObjectiveConfig, make_objective
from wm_mpc.planners.registry import PLANNERS, make_planner, planner_config
from wm_mpc.tasks.environments import TASK_IDS, make_env

BASELINES = ("none", "random", "replay")


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
        proposals: file of a learned proposer, whose guess is one more start of every search.
        compile: use compiled code where that is faster.
        device: ``cpu``, ``cuda`` or ``cuda:N``, where a model is loaded to and planned with; one
            that is handed over loaded stays where it is.
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
    proposals: Path | None = None
    compile: bool = True
    device: str = "cpu"

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


def run_episodes(
    model: WorldModel | str | Path | None,
    spec: EvalSettings,
    reference: CemReference | None,
    workers: int,
    ray: bool,
) -> Iterator[Episode]:
    """Yield episodes as they end, in this process or from several.

    Args:
        model: world model or its folder, None for baselines; several processes need a folder.
        spec: settings.
        reference: CEM reference, for the budget.
        workers: processes.
        ray: use a Ray cluster instead of local processes.

    Raises:
        UserError: several processes and no folder, or Ray without its package.
    """
    seeds = [episode_seed(spec.seed, i) for i in range(spec.goals)]
    if workers <= 1 and not ray:
        yield from evaluate_seeds(model, spec, reference, seeds)
        return
    path = model.path if isinstance(model, WorldModel) else model
    if spec.plans and path is None:
        raise UserError(f"workers: {workers} processes need a model folder, not an unsaved model")
    # Several shares per worker even out how long episodes take.
    count = min(len(seeds), 4 * max(workers, 1) if not ray else len(seeds))
    shares = [seeds[i::count] for i in range(count)]
    run_shares = _on_ray if ray else _on_processes
    yield from run_shares(workers, [(path, spec, reference, share) for share in shares])


def _on_processes(workers: int, jobs: list[tuple]) -> Iterator[Episode]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context) as pool:
        for job in as_completed([pool.submit(evaluate_share, *job) for job in jobs]):
            yield from job.result()


def _on_ray(workers: int, jobs: list[tuple]) -> Iterator[Episode]:
    """Use the cluster that RAY_ADDRESS names, or a local one of ``workers`` processes."""
    try:
        import ray
    except ImportError as error:
        raise UserError("ray: not installed; pip install 'wm-mpc[ray]'") from error
    own = not ray.is_initialized()
    if own:
        local = {} if "RAY_ADDRESS" in os.environ else {"num_cpus": max(workers, 1)}
        ray.init(log_to_driver=False, **local)
    try:
        # Ray hides GPUs from who does not ask for one; a share of one lets workers share it.
        gpus = 1 / max(workers, 1) if any(job[1].device.startswith("cuda") for job in jobs) else 0
        remote = ray.remote(num_cpus=1, num_gpus=gpus)(evaluate_share)
        waiting = [remote.remote(*job) for job in jobs]
        while waiting:
            ended, waiting = ray.wait(waiting)
            yield from ray.get(ended[0])
    finally:
        if own:
            ray.shutdown()


def evaluate_share(
    path: Path | None, spec: EvalSettings, reference: CemReference | None, seeds: list[int]
) -> list[Episode]:
    """Run some episodes in a worker process, which has one core."""
    torch.set_num_threads(1)
    return list(evaluate_seeds(path, spec, reference, seeds))


def evaluate_seeds(
    model: WorldModel | str | Path | None,
    spec: EvalSettings,
    reference: CemReference | None,
    seeds: list[int],
) -> Iterator[Episode]:
    """Run the episodes of some environment seeds in this process."""
    if isinstance(model, (str, Path)):
        model = WorldModel.load(model, device=spec.device)
    size = model.encoder.image_size if model is not None and model.encoder is not None else None
    env = make_env(spec.task, size)
    try:
        policy, steps = make_policy(spec, model, reference, env.unwrapped.spec_task)
        options = {"goal_offset": spec.goal_offset} if spec.goal_offset else None
        for seed in seeds:
            yield run_episode(env, policy, seed, steps, options)
    finally:
        env.close()


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
    device = model.action_mean.device
    clock = device_clock(device)
    frameskip = model.config.frameskip
    horizon = spec.horizon or 5
    if spec.mode == "open_loop":
        horizon = spec.horizon or -(-(spec.goal_offset or task.goal_offset) // frameskip)
        steps = spec.steps or horizon * frameskip
    objective = make_objective(model, spec.objective, horizon)
    budget = None
    if spec.budget_fraction:
        if reference is None:
            reference = CemReference.calibrate(model, objective, clock, spec.compile)
        # In closed loop the period bounds a tick; an open-loop plan is made before the motion.
        period = model.config.control_period if spec.mode == "mpc" else float("inf")
        budget = Budget(spec.budget_fraction, reference.seconds, period)
    try:
        config = planner_config(spec.planner, **parse_options(spec.planner, spec.options))
    except ValueError as error:
        raise UserError(f"options: {error}") from error
    planner = make_planner(spec.planner, model, objective, config, clock, spec.compile)
    planner.warm_up()
    every = spec.replan_every if spec.mode == "mpc" else 0
    proposer = None
    if spec.proposals is not None:
        proposer = load_proposer(
            spec.proposals, model.latent_shape, model.action_width, perception_hash(model)
        ).to(device)
        if proposer.horizon != horizon:
            raise UserError(f"proposals: horizon {proposer.horizon}; {horizon} expected")
    return PlanningPolicy(model, planner, every, budget, clock, proposer), steps


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
