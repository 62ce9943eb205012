"""Is a robot's model fit to plan with? What its own recordings can tell, and a verdict in words.

A robot has no true state beside its recordings, but it reports its posture. *Ranking*: does the
distance of two pictures grow with that of the postures, and with the time between them? *Reached
in imagination*: does a plan, as the model foresees it, arrive where the robot really was a few
model steps later? Together with the open-loop error they say what to record more of.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from wm_mpc.core.stats import spearman
from wm_mpc.data.store.windows import Frames, Windows
from wm_mpc.latents.encode import sample_ids
from wm_mpc.latents.frames import frame_latents
from wm_mpc.models.world_model import WorldModel
from wm_mpc.planners import PlanRequest
from wm_mpc.planners.objective import ObjectiveConfig, make_objective
from wm_mpc.planners.registry import make_planner, planner_config
from wm_mpc.tasks.quantities import Quantity

GOOD_RANK, GOOD_ERROR, GOOD_REACHED = 0.5, 0.35, 0.8
"""What models that drove a planar arm and a UR5e to their goals had to spare: docs/your_arm.md.

The UR5e held 97 of 100 goals by picture with a rank correlation of 0.58: of its six joints some
hardly show, or hardly move."""
REACHED = 0.1
"""Share of the way that may be left of a plan that arrived."""


def posture_quantities(model: WorldModel) -> tuple[Quantity, ...]:
    """Distance of postures, over the channels that count in a goal; none without any."""
    config = model.config
    weights = config.goal_weights or (1.0,) * config.proprio_dim
    columns = tuple(i for i, weight in enumerate(weights) if weight > 0)
    if not columns:
        return ()
    ranges = ((0.0, math.inf), (0.0, 0.25), (0.25, 1.0), (1.0, math.inf))
    return (Quantity("posture", "rad or m", columns, ranges),)


def time_correlation(
    model: WorldModel, frames: Frames, windows: Windows, most: int, seed: int
) -> float | None:
    """Rank correlation of the distance of pictures with the model steps between them.

    None where it is undefined.
    """
    latents = window_latents(model, frames, windows, most, seed)[..., : model.visual_dim]
    away = (latents - latents[:, :1]).flatten(2).norm(dim=-1)[:, 1:]
    steps = torch.arange(1, away.shape[1] + 1).expand_as(away)
    return spearman(away.flatten().numpy(), steps.flatten().numpy().astype(float))


def window_latents(
    model: WorldModel, frames: Frames, windows: Windows, most: int, seed: int
) -> Tensor:
    """Latents ``(W, K + 1, *L)`` of a sample of windows."""
    chosen = windows.subset(sample_ids(len(windows), most, seed))
    ids, place = np.unique(chosen.frames, return_inverse=True)
    latents = frame_latents(model, frames, ids, exact=True)
    return latents[torch.from_numpy(place.reshape(len(chosen), -1))]


def reached_in_imagination(
    model: WorldModel,
    frames: Frames,
    windows: Windows,
    most: int = 30,
    seed: int = 0,
    progress: bool = False,
) -> float | None:
    """Share of recorded ways whose end a plan reaches, as the model foresees it; None: none moved.

    A way counts when its ends differ by more than the median. It is reached when less than
    ``REACHED`` of the squared distance is left.
    """
    latents = window_latents(model, frames, windows, 2 * most, seed)
    start, goal = latents[:, 0], latents[:, -1]
    cost = make_objective(
        model, ObjectiveConfig("terminal", proprio_weight=1.0), latents.shape[1] - 1
    )
    cost.channel_weights = cost.channel_weights.to("cpu")
    away = torch.stack([cost.distance(a, b) for a, b in zip(start, goal, strict=True)])
    far = away >= away.median()
    if not float(away.max()) > 0:
        return None
    planner = make_planner(
        "adam", model, cost, planner_config("adam", iterations=40), compile=False
    )
    arrived = []
    ways = list(zip(start[far], goal[far], away[far], strict=True))
    for a, b, way in tqdm(ways, desc="plans", disable=not progress):
        plan = planner.plan(PlanRequest(a, b, seed=seed))
        arrived.append(float(plan.cost) < REACHED * float(way))
    return float(np.mean(arrived))


def verdict(facts: dict[str, Any]) -> str:
    """One line: fit to plan with, or what is wrong and what to record more of."""
    wrong = []
    loop = facts["open_loop"]
    error, still = loop["visual_rmse"], loop["still_visual_rmse"]
    share = error[-1] / max(still[-1], 1e-9)
    if share > GOOD_ERROR:
        wrong.append(
            f"predictions are off by {share:.0%} of the way after {len(error)} model steps (at "
            f"most {GOOD_ERROR:.0%} expected): record longer, and all of the box"
        )
    rank = next((row["visual"] for row in facts["rank_correlation"]), None)
    if rank is not None and rank < GOOD_RANK:
        wrong.append(
            f"pictures that look alike are not postures that are near ({rank:.2f}; at least "
            f"{GOOD_RANK} expected): a camera that shows every joint, or an encoder of its own "
            "frames"
        )
    reached = facts.get("reached_in_imagination")
    if reached is not None and reached < GOOD_REACHED:
        wrong.append(
            f"plans arrive in {reached:.0%} of imagined ways (at least {GOOD_REACHED:.0%} "
            "expected): record faster motion, with every command in use"
        )
    return "fit to plan with" if not wrong else "not fit to plan with: " + "; ".join(wrong)
