"""GRASP against shooting: success under the model and in the true simulator, and why.

    python tools/grasp_experiment.py plans --goals 40 --seed 21 --steps 40,80 --report FILE
    python tools/grasp_experiment.py contact --goals 200 --seed 21 --report FILE

``plans`` makes one open-loop plan per goal of Push-T with every method below, with fixed
iterations and no deadline, so that a busy machine changes nothing but times; ``--methods``
chooses, ``--add`` adds, for a sweep on other goals. ``contact`` measures how far an action can
move the block under the model, with the robot near it, away from it, and half-way on the line to
the goal, where GRASP begins.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sim_bridge.tasks import make_task
from wm_mpc.core.locations import ASSETS
from wm_mpc.core.provenance import write_report
from wm_mpc.core.stats import wilson
from wm_mpc.evaluation.settings import parse_options
from wm_mpc.models.world_model import WorldModel
from wm_mpc.planners import PlanRequest, make_planner, planner_config
from wm_mpc.planners.objective import ObjectiveConfig, make_objective

METHODS = {
    "cem": "cem,samples=200,iterations=15",
    "gd": "gd,iterations=150",
    "adam": "adam,iterations=100",
    "ilqr": "ilqr,iterations=20",
    "grasp": "grasp,iterations=200",
    "grasp, states from rollout": "grasp,iterations=200,states=rollout",
    "grasp, CEM sync": "grasp,iterations=200,sync=cem",
    "grasp, two long syncs": "grasp,iterations=200,sync_every=100,sync_steps=60",
}
REACH_PX, TURN = 20.0, math.pi / 9


class Judge:
    """Push-T's criterion on predicted latents: landmarks are matched rigidly."""

    def __init__(self, model: WorldModel, latents: Tensor, states: np.ndarray) -> None:
        self.model = model
        points = self.points(latents).mean(1).numpy()
        shift = points - points.mean(0)
        blocks = states[:, 2:4] - states[:, 2:4].mean(0)
        # px per unit of the picture; the landmarks' middle is not the block's origin
        self.scale = float((np.abs(shift) * np.abs(blocks)).sum() / (shift**2).sum())

    def points(self, latents: Tensor) -> Tensor:
        """Landmarks ``(N, K, 2)`` in picture units."""
        model = self.model
        visual = latents[:, : model.visual_dim] * model.visual_std + model.visual_mean
        return visual.unflatten(1, (-1, 2))

    def success(self, predicted: Tensor, goal: Tensor) -> bool:
        """Whether any of the predicted latents ``(T, D)`` is at the goal ``(D,)``."""
        own, wanted = self.points(predicted), self.points(goal[None])
        moved = (own.mean(1) - wanted.mean(1)).norm(dim=1) * self.scale
        a, b = own - own.mean(1, keepdim=True), wanted - wanted.mean(1, keepdim=True)
        cross = (a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]).sum(1)
        turned = torch.atan2(cross, (a * b).sum((1, 2))).abs()
        split, std = self.model.visual_dim, self.model.proprio_std[:2]
        robot = ((predicted - goal)[:, split : split + 2] * std).norm(dim=1)
        return bool(((torch.hypot(moved, robot) < REACH_PX) & (turned < TURN)).any())


def problems(model: WorldModel, seed: int, goals: int, offset: int) -> list[dict[str, Any]]:
    """Start and goal of every episode, as latents and as states."""
    env, found = make_task("pusht"), []
    for k in range(goals):
        observation, _ = env.reset(seed=seed + k, options={"goal_offset": offset})
        images = np.stack([observation["image"], env.render_state(env.goal_state)])
        proprio = np.stack([observation["proprio"], env.proprio(env.goal_state)])
        with torch.no_grad():
            latents = model.encode(torch.from_numpy(images), torch.from_numpy(proprio))
        found.append({"latents": latents, "start": env.snapshot(), "goal": env.goal_state.copy()})
    return found


def executed(env: Any, problem: dict[str, Any], actions: np.ndarray) -> tuple[bool, float]:
    """Success at any step of a plan in the true simulator, and the block's error at the end."""
    env.restore(problem["start"])
    reached, state = False, problem["start"]
    for action in actions:
        state = env.advance(np.clip(action, -1, 1).astype(np.float32))
        reached |= bool(env.success(state, problem["goal"]))
    return reached, float(np.hypot(*(state[2:4] - problem["goal"][2:4])))


def plans(args: argparse.Namespace, model: WorldModel) -> list[dict[str, Any]]:
    """Rows of all methods and distances."""
    methods = dict(METHODS)
    for extra in args.add:
        name, _, text = extra.partition("=")
        methods[name] = text
    chosen = args.methods.split(";") if args.methods else list(methods)
    env, rows = make_task("pusht"), []
    for offset in (int(text) for text in args.steps.split(",")):
        given = problems(model, args.seed, args.goals, offset)
        latents = torch.cat([p["latents"] for p in given])
        states = np.concatenate([np.stack([p["start"], p["goal"]]) for p in given])
        judge = Judge(model, latents, states)
        horizon = -(-offset // model.config.frameskip)
        objective = make_objective(model, ObjectiveConfig(mode=args.mode), horizon)
        for name in chosen:
            kind, *options = methods[name].split(",")
            config = planner_config(kind, **parse_options(kind, tuple(options)))
            planner = make_planner(kind, model, objective, config)
            row: dict[str, Any] = {"steps": offset, "method": name, "planner": methods[name]}
            believed, real, errors, promised, transitions = [], [], [], [], []
            for k, problem in enumerate(given):
                start, goal = problem["latents"]
                plan = planner.plan(PlanRequest(start, goal, seed=args.seed + k))
                believed.append(plan.latents is not None and judge.success(plan.latents, goal))
                raw = model.denormalize_actions(plan.actions).numpy()
                reached, error = executed(env, problem, raw)
                real.append(reached)
                errors.append(error)
                promised.append(plan.cost)
                transitions.append(plan.transitions)
            row |= {
                "n": len(given),
                "model": rate(believed),
                "simulator": rate(real),
                "both": rate([m and r for m, r in zip(believed, real, strict=True)]),
                "block_error_px": float(np.median(errors)),
                "cost": float(np.median(promised)),
                "transitions": int(np.median(transitions)),
            }
            rows.append(row)
            print(line(row), flush=True)
    return rows


def rate(hits: list[bool]) -> dict[str, Any]:
    """Count and interval of a success rate."""
    return {"successes": sum(hits), "ci95": wilson(sum(hits), len(hits))}


def line(row: dict[str, Any]) -> str:
    """One row of the table."""
    cells = [str(row["steps"]), row["method"]]
    for key in ("model", "simulator"):
        hits, (low, high) = row[key]["successes"], row[key]["ci95"]
        share = f"{hits}/{row['n']} = {100 * hits / row['n']:.0f} %"
        cells.append(f"{share} [{100 * low:.0f}, {100 * high:.0f}]")
    cells += [f"{row['block_error_px']:.0f} px", f"{row['cost']:.3f}", str(row["transitions"])]
    return "| " + " | ".join(cells) + " |"


def contact(args: argparse.Namespace, model: WorldModel) -> dict[str, Any]:
    """Gradient of the block's landmarks by the action, by the robot's distance to the block."""
    given = problems(model, args.seed, args.goals, 40)
    starts = torch.stack([p["latents"][0] for p in given])
    goals = torch.stack([p["latents"][1] for p in given])
    split = model.visual_dim
    judge = Judge(
        model,
        torch.cat([starts, goals]),
        np.stack([p[k] for k in ("start", "goal") for p in given]),
    )
    found: dict[str, Any] = {"n": len(given)}
    states = np.stack([p["start"] for p in given])
    apart = np.hypot(*(states[:, :2] - states[:, 2:4]).T)
    middle = (states + np.stack([p["goal"] for p in given])) / 2
    between = np.hypot(*(middle[:, :2] - middle[:, 2:4]).T)
    half = (starts + goals) / 2
    groups = {
        "robot within 70 px of the block": starts[torch.from_numpy(apart < 70)],
        "robot 70 to 120 px away": starts[torch.from_numpy((apart >= 70) & (apart < 120))],
        "robot further away": starts[torch.from_numpy(apart >= 120)],
        "half-way on the line to the goal (first virtual states)": half,
        "half-way, robot within 70 px of the block": half[torch.from_numpy(between < 70)],
        "half-way, robot 120 px away or more": half[torch.from_numpy(between >= 120)],
    }
    for name, latents in groups.items():
        sizes = torch.stack([_block_gradient(model, z, split, judge.scale) for z in latents])
        found[name] = {
            "n": len(latents),
            "median_px_per_action": float(sizes.median()) if len(sizes) else None,
            "share_below_2_px": float((sizes < 2).float().mean()) if len(sizes) else None,
        }
        print(name, found[name], flush=True)
    return found


def _block_gradient(model: WorldModel, latent: Tensor, split: int, scale: float) -> Tensor:
    """Largest motion of a landmark [px] by one unit of the action, linearised at no motion."""
    weights = model.visual_std[:split]
    jacobian = torch.autograd.functional.jacobian(
        lambda a: model.step(latent[None], a[None])[0, :split] * weights,
        torch.zeros(model.action_width),
    )
    points = jacobian.unflatten(0, (-1, 2)) * scale
    return torch.linalg.matrix_norm(points, 2).max()


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("plans", "contact"))
    parser.add_argument("--goals", type=int, default=40)
    parser.add_argument("--seed", type=int, default=21)
    parser.add_argument("--steps", default="40,80")
    parser.add_argument("--mode", default="running", help="mode of the goal cost")
    parser.add_argument("--methods", default="", help="names, separated by ;")
    parser.add_argument("--add", nargs="*", default=[], help="NAME=planner,option=value,...")
    parser.add_argument("--report", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = WorldModel.load(ASSETS / "pusht")
    result = plans(args, model) if args.part == "plans" else contact(args, model)
    rows = result if isinstance(result, list) else [result]
    write_report(args.report, args.seed, rows, model=model.hash)


if __name__ == "__main__":
    main()
