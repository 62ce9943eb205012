"""Is a world model fit to plan with? What a training loss does not tell.

Three measures. *Ranking*: does a smaller latent distance mean closer in truth, far from the goal
too? It is what a goal cost assumes. *Open loop*: how fast predictions go wrong, against the error
of predicting no change at all. *Success* in the true simulator. The true state serves here to
judge; no model is trained on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wm_mpc.core.errors import UserError
from wm_mpc.core.stats import spearman
from wm_mpc.data.store.store import Store
from wm_mpc.data.store.windows import Frames, Windows
from wm_mpc.evaluation.robot_validation import (
    posture_quantities,
    reached_in_imagination,
    time_correlation,
    verdict,
)
from wm_mpc.evaluation.rows import format_row
from wm_mpc.latents.encode import sample_ids
from wm_mpc.latents.frames import (
    frame_latents,
    frame_proprio,
    frame_rows,
    held_out_frames,
    held_out_windows,
)
from wm_mpc.latents.windows import model_actions, prediction_errors
from wm_mpc.models.world_model import WorldModel
from wm_mpc.planners.objective import GoalObjective, ObjectiveConfig
from wm_mpc.tasks.quantities import Quantity
from wm_mpc.tasks.registry import known_task

FEWEST_PAIRS = 30
"""Below this many pairs no correlation is reported."""


def frame_states(frames: Frames, ids: np.ndarray) -> np.ndarray:
    """True states ``(M, S)`` of frames of a store that recorded them."""
    assert frames.state is not None
    return frames.state[frame_rows(frames)[ids]]


def draw_pairs(
    quantity: Quantity, states: np.ndarray, episode: np.ndarray, count: int, seed: int
) -> np.ndarray:
    """Pairs of rows to compare, int ``(M, 2)``, at most ``count``.

    Half of them come from one episode each, as starts and goals do, half from anywhere. For a
    quantity to be compared at matched positions, all pairs that match, thinned to ``count``.
    """
    rng = np.random.default_rng(seed)
    n = len(states)
    if quantity.match:
        where = states[:, list(quantity.match)]
        near = np.linalg.norm(where[:, None] - where[None], axis=-1) < quantity.within
        pairs = np.argwhere(np.triu(near, 1))
        if len(pairs) > count:
            pairs = pairs[np.sort(rng.choice(len(pairs), count, replace=False))]
        return pairs
    anywhere = rng.integers(0, n, (count // 2, 2))
    first = rng.integers(0, n, count - count // 2)
    begin = np.searchsorted(episode, episode[first], side="left")
    end = np.searchsorted(episode, episode[first], side="right")
    together = np.stack([first, begin + (rng.random(len(first)) * (end - begin)).astype(int)], 1)
    pairs = np.concatenate([anywhere, together])
    return pairs[pairs[:, 0] != pairs[:, 1]]


def latent_distance(
    latents: Tensor, pairs: np.ndarray, objective: GoalObjective, chunk: int = 2000
) -> np.ndarray:
    """Goal-cost distance of pairs of latents, ``(M,)``."""
    first, second = torch.from_numpy(pairs.T)
    parts = []
    for some in torch.arange(len(first)).split(chunk):
        error = (latents[first[some]] - latents[second[some]]).square()
        weighed = error @ objective.channel_weights
        parts.append(weighed.mean(-1) if weighed.ndim == 2 else weighed)
    return torch.cat(parts).numpy() if parts else np.zeros(0)


def rank_correlations(
    model: WorldModel,
    frames: Frames,
    ids: np.ndarray,
    proprio_weight: float = 0.3,
    pairs: int = 20_000,
    seed: int = 0,
    progress: bool = False,
) -> list[dict[str, Any]]:
    """Rank correlation of latent with true distance, per quantity of the task and range.

    Args:
        model: world model with an encoder; its configuration names the task.
        frames: frames of a store with true states.
        ids: frames to compare, sorted.
        proprio_weight: weight of proprioception in the second of the two distances.
        pairs: most pairs per quantity.
        seed: of the pairs.
        progress: show a progress bar.

    Returns:
        Rows with ``quantity``, ``unit``, ``range``, ``pairs``, and ``visual`` and
        ``with_proprio``: the correlations, None for too few pairs.

    Raises:
        UserError: the task has no known quantities, or the store no states.
    """
    task = known_task(model.config.task)
    quantities = task.quantities if task is not None else ()
    if task is None and posture_quantities(model):  # a robot: what it reports stands for truth
        quantities, states = posture_quantities(model), frame_proprio(frames)[ids]
    elif not quantities or frames.state is None:
        what = "states" if frames.state is None else "known quantities"
        raise UserError(f"task: {model.config.task!r} has no {what}; distances cannot be ranked")
    else:
        states = frame_states(frames, ids)
    latents = frame_latents(model, frames, ids, exact=True, progress=progress)
    episode = np.searchsorted(frames.frame_start, ids, side="right") - 1
    layout = (model.visual_dim, model.proprio_width, "cpu", model.goal_weights)
    costs = {
        "visual": GoalObjective(ObjectiveConfig(proprio_weight=0.0), 1, *layout),
        "with_proprio": GoalObjective(ObjectiveConfig(proprio_weight=proprio_weight), 1, *layout),
    }
    rows = []
    for quantity in quantities:
        chosen = draw_pairs(quantity, states, episode, pairs, seed)
        true = quantity.distance(states[chosen[:, 0]], states[chosen[:, 1]])
        found = {name: latent_distance(latents, chosen, cost) for name, cost in costs.items()}
        for low, high in quantity.ranges:
            inside = (true >= low) & (true < high)
            row: dict[str, Any] = {
                "quantity": quantity.name, "unit": quantity.unit, "range": [low, high],
                "pairs": int(inside.sum()),
            }  # fmt: skip
            for name, distance in found.items():
                enough = inside.sum() >= FEWEST_PAIRS
                row[name] = spearman(distance[inside], true[inside]) if enough else None
            rows.append(row)
        rows[-len(quantity.ranges)]["curve"] = _deciles(true, found["visual"])
    return rows


def _deciles(true: np.ndarray, latent: np.ndarray, bins: int = 12) -> dict[str, list[float]]:
    """Quartiles of the latent distance in bins of equal count of the true one, for the picture."""
    curve: dict[str, list[float]] = {"true": [], "q25": [], "q50": [], "q75": []}
    if len(true) < FEWEST_PAIRS:
        return curve
    for some in np.array_split(np.argsort(true), bins):
        curve["true"].append(float(np.median(true[some])))
        for q in (25, 50, 75):
            curve[f"q{q}"].append(float(np.sqrt(np.percentile(latent[some], q))))
    return curve


def open_loop(
    model: WorldModel,
    frames: Frames,
    windows: Windows,
    most: int,
    seed: int,
    progress: bool = False,
) -> dict[str, Any]:
    """Error of open-loop predictions by horizon, from pictures.

    Args:
        model: world model with an encoder.
        frames: frames of the store.
        windows: candidates, all of the same length ``K``.
        most: most windows.
        seed: of the choice.
        progress: show a progress bar.

    Returns:
        ``steps`` 1..K; ``visual_rmse``, ``proprio_rmse`` in latent units; and the same of
        predicting no change (``still_...``).
    """
    chosen = windows.subset(sample_ids(len(windows), most, seed))
    ids, place = np.unique(chosen.frames, return_inverse=True)
    latents = frame_latents(model, frames, ids, exact=True, progress=progress)
    latents = latents[torch.from_numpy(place.reshape(len(chosen), -1))]
    true, still = latents[:, 1:], latents[:, :1]
    batch = latents[:, 0], model_actions(model, frames, chosen), true
    errors = {"": prediction_errors(model, batch, 64), "still_": still - true}
    found: dict[str, Any] = {"steps": list(range(1, true.shape[1] + 1)), "windows": len(chosen)}
    for name, error in errors.items():
        for kind, part in (("visual", error[..., : model.visual_dim]),
                           ("proprio", error[..., model.visual_dim :])):  # fmt: skip
            rmse = part.square().flatten(2).mean((0, 2)).sqrt()
            found[f"{name}{kind}_rmse"] = rmse.tolist() if part.shape[-1] else None
    return found


def validate(
    model: WorldModel,
    store: Store,
    *,
    held_out: float = 0.02,
    frames: int = 2000,
    windows: int = 400,
    steps: int = 5,
    proprio_weight: float = 0.3,
    seed: int = 0,
    progress: bool = False,
) -> dict[str, Any]:
    """Ranking and open-loop error of a model on the last episodes of a store.

    Args:
        model: world model with an encoder.
        store: recorded trajectories of its task.
        held_out: share of the episodes to use; the default is what training holds out.
        frames: most frames whose distances are ranked.
        windows: most windows predicted.
        steps: model steps per window.
        proprio_weight: weight of proprioception in the ranked goal cost.
        seed: of all choices.
        progress: show progress bars, with the time that is left.

    Returns:
        ``rank_correlation`` (rows, empty where the store has no states) and ``open_loop``; of a
        robot, whose posture stands for states, also ``time_correlation``,
        ``reached_in_imagination`` and ``verdict``.

    Raises:
        UserError: the store is of another interface, or has no episode long enough.
    """
    spec, config = store.spec, model.config
    for name in ("action_dim", "proprio_dim"):
        if getattr(spec, name) != getattr(config, name):
            raise UserError(
                f"{name}: the store has {getattr(spec, name)}; the model {getattr(config, name)}"
            )
    every = store.frames()
    rows: Sequence[dict[str, Any]] = []
    task = known_task(config.task)
    known = every.state is not None and task is not None and task.quantities
    robot = task is None and bool(posture_quantities(model))
    if known or robot:
        ids = held_out_frames(every, held_out, frames, seed)
        rows = rank_correlations(
            model, every, ids, proprio_weight, seed=seed, progress=progress
        )
    try:
        candidates = held_out_windows(store.windows(steps, config.frameskip), every, held_out)
    except ValueError as error:
        raise UserError(f"{store.path}: {error}") from error
    found = {
        "rank_correlation": list(rows),
        "open_loop": open_loop(model, every, candidates, windows, seed, progress),
    }
    if robot and len(model.latent_shape) == 1:
        found["time_correlation"] = time_correlation(model, every, candidates, windows, seed)
        found["reached_in_imagination"] = reached_in_imagination(
            model, every, candidates, seed=seed, progress=progress
        )
        found["verdict"] = verdict(found)
    return found


def lines(facts: dict) -> list[str]:
    """Return the figures for people, one line each."""
    said = [f"{facts['task']} {facts['model']}"]
    for row in facts["rank_correlation"]:
        low, high = row["range"]
        said.append(
            f"  rank correlation, {row['quantity']} {low:g} to {high:g} {row['unit']}: "
            f"visual {_number(row['visual'])}, with proprioception "
            f"{_number(row['with_proprio'])} ({row['pairs']} pairs)"
        )
    loop = facts["open_loop"]
    for kind in ("visual", "proprio"):
        if loop[f"{kind}_rmse"] is not None:
            pairs = zip(loop[f"{kind}_rmse"], loop[f"still_{kind}_rmse"], strict=True)
            text = ", ".join(f"{error:.3f} ({still:.3f})" for error, still in pairs)
            said.append(f"  open loop, {kind} RMSE (of no change) after each model step: {text}")
    if "verdict" in facts:
        reached = facts["reached_in_imagination"]
        said.append(
            f"  rank correlation with time: {_number(facts['time_correlation'])}; reached in "
            f"imagination: {'nothing moved' if reached is None else f'{reached:.0%}'}"
        )
        said.append(f"  verdict: {facts['verdict']}")
    if facts["closed_loop"] is not None:
        said.append(f"  {format_row(facts['closed_loop'])}")
    return said


def _number(value: float | None) -> str:
    return "too few pairs" if value is None else f"{value:.2f}"
