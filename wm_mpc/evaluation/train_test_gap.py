"""The train-test gap: how wrong a model is where its planner goes, against where experts went.

From the same held-out starts a model predicts, open loop, what expert actions do and what its own
plans do; simulator and encoder tell what they really did. Before fine-tuning the second error is
the larger one (arXiv 2512.09929); the difference is the gap. The planning loss around a plan,
drawn along two random directions of action space, shows why planners find bad plans.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge
from torch import Tensor

from wm_mpc.core.errors import UserError
from wm_mpc.core.fields import Checked, NonNegativeInt, PositiveFloat, PositiveInt
from wm_mpc.core.stats import Z95
from wm_mpc.evaluation.rollouts import plan_and_execute
from wm_mpc.evaluation.settings import parse_options
from wm_mpc.latents.expert import Expert
from wm_mpc.latents.replay import trajectory_chains
from wm_mpc.latents.windows import Batch, prediction_errors
from wm_mpc.models.identity import perception_hash
from wm_mpc.models.world_model import WorldModel
from wm_mpc.planners import PlanRequest
from wm_mpc.planners.objective import ObjectiveConfig, make_objective
from wm_mpc.planners.registry import make_planner, planner_config


@dataclass(frozen=True)
class GapConfig(Checked):
    """What is measured.

    Attributes:
        starts: held-out starts.
        distance: model steps from start to goal, and horizon of the plans.
        planner: registry name.
        options: fields of the planner's configuration, name=value; more search finds more of the
            places where a model errs.
        seed: of starts, plans, directions and resampling.
        grid: points per side of the landscape.
        span: the landscape reaches this far from the plan, normalised action units per entry.
    """

    starts: Annotated[int, Ge(2)] = 60
    distance: PositiveInt = 5
    planner: str = "adam"
    options: tuple[str, ...] = ()
    seed: NonNegativeInt = 0
    grid: Annotated[int, Ge(3)] = 31
    span: PositiveFloat = 1.0


def errors_per_step(model: WorldModel, batch: Batch) -> Tensor:
    """Root mean square latent error of each window after 1..U open-loop steps: ``(B, U)``."""
    return prediction_errors(model, batch).square().flatten(2).mean(2).sqrt()


def measure_gap(
    models: dict[str, WorldModel], env: Any, expert: Expert, config: GapConfig
) -> dict[str, Any]:
    """Errors of models on expert trajectories and on the planner trajectories of each of them.

    Args:
        models: by label, the first is the one the others are compared with; all perceive alike.
        env: simulator of the task.
        expert: held-out windows of at least ``config.distance`` model steps, with states.
        config: what is measured.

    Returns:
        ``errors``: a row per model, kind of trajectories and step, with mean and 95 % interval;
        ``gaps``: per model, error on its own planner's trajectories minus error on expert ones,
        averaged over the steps and after the last one, with bootstrap intervals over the starts,
        and the share of the first model's gap that is gone; ``promises``: per model, root mean
        square distance of the visual latent to the goal at the end of its plans, as the model
        predicts it and as it really came out, and the medians of both.

    Raises:
        UserError: models whose latents mean different things.
    """
    if len({perception_hash(model) for model in models.values()}) > 1:
        raise UserError("models: encoders or projectors differ; latents cannot be compared")
    ids = held_out_starts(expert, config)
    batches = {"expert": expert.data.batch(ids, config.distance)}
    for label, model in models.items():
        batches[label] = planner_windows(model, env, expert, ids, config)
    found = {
        (name, where): errors_per_step(model, batch)
        for name, model in models.items()
        for where, batch in batches.items()
    }
    rows = [
        {"model": name, "trajectories": where if where == "expert" else f"planner of {where}",
         "step": step + 1, **interval(errors[:, step])}
        for (name, where), errors in found.items()
        for step in range(errors.shape[1])
    ]  # fmt: skip
    first = next(iter(models))
    apart = {name: found[name, name] - found[name, "expert"] for name in models}
    gaps = [{"model": name, **gap_row(apart[name], apart[first], config.seed)} for name in models]
    return {
        "planner": config.planner,
        "starts": len(ids),
        "unit": "latent standard deviations",
        "errors": rows,
        "gaps": gaps,
        "promises": [
            {"model": name, **promise(model, batches[name], expert.latents(ids, config.distance))}
            for name, model in models.items()
        ],
    }


def promise(model: WorldModel, batch: Batch, goals: Tensor) -> dict[str, Any]:
    """How near to their goals ``(N, *L)`` plans end, by the model and in truth."""
    start, actions, targets = batch
    device = model.action_mean.device
    with torch.no_grad():
        predicted = model.rollout(start.to(device), actions.to(device))[:, -1].cpu()
    row: dict[str, Any] = {}
    for name, ends in (("promised", predicted), ("reached", targets[:, -1])):
        apart = (ends - goals)[..., : model.visual_dim].flatten(1).square().mean(1).sqrt()
        row[name] = interval(apart) | {"median": float(apart.median())}
    return row


def held_out_starts(expert: Expert, config: GapConfig) -> Tensor:
    """Held-out windows to start from, drawn without replacement."""
    generator = torch.Generator().manual_seed(config.seed)
    order = torch.randperm(len(expert.held), generator=generator)
    return expert.held[order[: config.starts]]


def planner_windows(
    model: WorldModel, env: Any, expert: Expert, ids: Tensor, config: GapConfig
) -> Batch:
    """What a model's plans from the starts of ``ids`` really did."""
    chains = [
        trajectory_chains(model, done.trajectory)[0]
        for done in plan_and_execute(
            model, env, expert, ids, config.distance, config.planner, config.options, config.seed
        )
    ]
    latents = torch.stack([c[0] for c in chains])
    return latents[:, 0], torch.stack([c[1] for c in chains]), latents[:, 1:]


def interval(values: Tensor) -> dict[str, Any]:
    """Mean of ``(N,)`` with its normal 95 % interval."""
    mean = float(values.mean())
    half = Z95 * float(values.std()) / len(values) ** 0.5
    return {"n": len(values), "error": mean, "error_ci95": [mean - half, mean + half]}


def gap_row(own: Tensor, first: Tensor, seed: int, draws: int = 2000) -> dict[str, Any]:
    """Gap of one model, and how much of the first model's is gone.

    Args:
        own: error on planner minus error on expert trajectories, ``(N, U)``.
        first: the same of the first model, from the same starts.
        seed: of the resampling.
        draws: bootstrap samples of the starts.
    """
    rng = np.random.default_rng(seed)
    picks = torch.from_numpy(rng.integers(0, len(own), (draws, len(own))))
    row: dict[str, Any] = {}
    for name, mine, theirs in (
        ("mean", own.mean(1), first.mean(1)),
        ("last_step", own[:, -1], first[:, -1]),
    ):
        sampled, reference = mine[picks].mean(1), theirs[picks].mean(1)
        row[f"gap_{name}"] = float(mine.mean())
        row[f"gap_{name}_ci95"] = quantiles(sampled)
        row[f"gone_{name}"] = float(1 - mine.mean() / theirs.mean())
        row[f"gone_{name}_ci95"] = quantiles(1 - sampled / reference)
    return row


def quantiles(values: Tensor) -> list[float]:
    """The 2.5 % and 97.5 % quantiles of ``(N,)``."""
    return [float(values.quantile(q)) for q in (0.025, 0.975)]


def landscape(
    models: dict[str, WorldModel], expert: Expert, config: GapConfig
) -> dict[str, dict[str, Any]]:
    """Planning loss around each model's own plan along the same two random directions.

    The directions are drawn from a normal distribution, made orthogonal, and scaled so that one
    unit moves the entries of the plan by one normalised action unit in the root mean square.

    Returns:
        Per label: ``axis`` ``(G,)`` and ``cost`` ``(G, G)``, first direction along the columns.
    """
    start_id = held_out_starts(expert, config)[:1]
    axis = torch.linspace(-config.span, config.span, config.grid)
    pictures = {}
    for label, model in models.items():
        cost = make_objective(model, ObjectiveConfig(), config.distance)
        search = make_planner(
            config.planner,
            model,
            cost,
            planner_config(config.planner, **parse_options(config.planner, config.options)),
        )
        start, goal = (expert.latents(start_id, step)[0] for step in (0, config.distance))
        plan = search.plan(PlanRequest(start, goal, seed=config.seed)).actions
        first, second = directions(plan.shape, config.seed)
        moved = axis[None, :, None, None] * first + axis[:, None, None, None] * second
        plans = (plan + moved).flatten(0, 1)
        with torch.no_grad():
            values = cost(
                model.rollout(start.expand(len(plans), *start.shape), plans), plans, goal
            )
        pictures[label] = {"axis": axis.tolist(), "cost": values.view(len(axis), -1).tolist()}
    return pictures


def directions(shape: torch.Size, seed: int) -> tuple[Tensor, Tensor]:
    """Two orthogonal random directions of ``shape``, each of root mean square 1."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(2, shape.numel(), generator=generator)
    basis = torch.linalg.qr(drawn.T)[0].T * shape.numel() ** 0.5
    return basis[0].view(shape), basis[1].view(shape)


def print_gap(found: dict[str, Any]) -> None:
    """The table for people."""
    steps = max(row["step"] for row in found["errors"])
    print(f"latent error after 1..{steps} model steps, open loop, {found['starts']} starts")
    for name, where in dict.fromkeys((r["model"], r["trajectories"]) for r in found["errors"]):
        cells = [
            f"{row['error']:7.3f}"
            for row in found["errors"]
            if (row["model"], row["trajectories"]) == (name, where)
        ]
        print(f"  {name:<14} {where:<26}" + " ".join(cells))
    for row in found["gaps"]:
        low, high = row["gap_mean_ci95"]
        print(
            f"  {row['model']:<14} gap {row['gap_mean']:.4f} [{low:.4f}, {high:.4f}], "
            f"{100 * row['gone_mean']:.0f} % of the first gone"
        )
    for row in found["promises"]:
        promised, reached = row["promised"]["median"], row["reached"]["median"]
        print(
            f"  {row['model']:<14} plans end {promised:.3f} from the goal by the model, "
            f"{reached:.3f} in truth (medians)"
        )


__all__ = ["GapConfig", "errors_per_step", "landscape", "measure_gap", "print_gap"]
