"""Episodes of one measured row: where they run, in one process or in many."""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wm_mpc.core.errors import UserError
from wm_mpc.evaluation.episodes import (
    ConstantPolicy,
    Delayed,
    Episode,
    Policy,
    RandomPolicy,
    ReplayPolicy,
    run_episode,
)
from wm_mpc.evaluation.loop import make_loop
from wm_mpc.evaluation.settings import EvalSettings
from wm_mpc.models.world_model import WorldModel
from wm_mpc.planners.budget import CemReference
from wm_mpc.tasks.environments import make_env

KEEP_EVERY = 5
"""Control steps between kept pictures where no model tells how long its steps are."""

log = logging.getLogger(__name__)
ATTEMPTS = 3
"""Pools of workers in a row that die before anything is done."""


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


def _on_processes(
    workers: int, jobs: list[tuple], share: Callable[..., list[Episode]] | None = None
) -> Iterator[Episode]:
    """Shares in worker processes; those of a worker that was killed are done again.

    Raises:
        UserError: workers die again and again, and nothing is done.
    """
    context = multiprocessing.get_context("spawn")
    left, fruitless = dict(enumerate(jobs)), 0
    while left:
        before = len(left)
        with ProcessPoolExecutor(workers, context) as pool:
            running = {pool.submit(share or evaluate_share, *job): n for n, job in left.items()}
            try:
                for future in as_completed(running):
                    found = future.result()
                    del left[running[future]]
                    yield from found
            except BrokenProcessPool:
                log.warning("a worker process died; its episodes are run again")
        fruitless = fruitless + 1 if len(left) == before else 0
        if fruitless == ATTEMPTS:
            raise UserError(
                f"workers: {workers} processes die again and again; too little memory for so many?"
            )


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
        task = env.unwrapped.spec_task
        policy, steps = make_policy(spec, model, reference, task)
        if spec.added_delay_ms:
            late = delay_steps(spec.added_delay_ms, task.control_period)
            policy = Delayed(policy, late, task.action_dim)
        options = {"goal_offset": spec.goal_offset} if spec.goal_offset else None
        keep = KEEP_EVERY if model is None else model.config.frameskip
        for seed in seeds:
            yield run_episode(env, policy, seed, steps, options, keep)
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
    if spec.planner == "none":
        return ConstantPolicy(task.action_dim), spec.steps or task.episode_steps
    if spec.planner == "random":
        low, high = np.array(task.action_low), np.array(task.action_high)
        return RandomPolicy(low, high), spec.steps or task.episode_steps
    if spec.planner == "replay":
        return ReplayPolicy(task.action_dim), spec.steps or task.episode_steps
    assert model is not None
    return make_loop(spec, model, reference, task)


def delay_steps(added_ms: float, period_s: float) -> int:
    """Control steps of a delay.

    Raises:
        UserError: it is not a whole number of them; the simulator knows no other instants.
    """
    steps = added_ms / 1e3 / period_s
    if abs(steps - round(steps)) > 1e-6:
        bound = f"a multiple of the control period, {period_s * 1e3:g} ms, expected"
        raise UserError(f"added_delay_ms: {added_ms:g} ms; {bound}")
    return round(steps)


def episode_seed(seed: int, index: int) -> int:
    """Environment seed of episode ``index``; more goals leave the first ones as they are."""
    return int(np.random.SeedSequence([seed, index]).generate_state(1)[0])
