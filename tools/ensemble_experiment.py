"""Whether the disagreement of several predictors tells where a world model errs, on Push-T.

    python -m tools.ensemble_experiment --members A B C --goals 60 --seed 21 --report FILE

Members are folders of models with the bundled model's latents (``wm-mpc train pusht
--latents-from``), trained from different seeds. For every goal 25 steps ahead the bundled model
plans from many starts; each start's best plan is executed in the true simulator. Printed are the
rank correlation of the members' disagreement, and of the promised cost, with the prediction's
error, and what is reached when the plan to execute is chosen by the cost alone, or with
disagreement charged.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sim_bridge.tasks import make_task
from tools.grasp_experiment import executed, problems
from wm_mpc.core.locations import ASSETS
from wm_mpc.core.stats import spearman, wilson
from wm_mpc.models.world_model import WorldModel
from wm_mpc.planners import PlanRequest, make_planner, planner_config
from wm_mpc.planners.objective import ObjectiveConfig, make_objective

WEIGHTS = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0)


def truth(env: object, model: WorldModel, start: np.ndarray, actions: np.ndarray) -> Tensor:
    """Latents ``(T, D)`` of what a plan really does, a model step apart."""
    env.restore(start)
    images, proprio = [], []
    for step, action in enumerate(actions, 1):
        state = env.advance(np.clip(action, -1, 1).astype(np.float32))
        if step % model.config.frameskip == 0:
            images.append(env.render_state(state))
            proprio.append(env.proprio(state))
    with torch.no_grad():
        return model.encode(
            torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(proprio))
        )


def main() -> None:
    """Plan, execute, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--members", nargs="+", type=Path, required=True)
    parser.add_argument("--goals", type=int, default=60)
    parser.add_argument("--seed", type=int, default=21)
    parser.add_argument("--starts", type=int, default=12)
    parser.add_argument("--iterations", type=int, default=60)
    parser.add_argument("--report", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = WorldModel.load(ASSETS / "pusht")
    members = [WorldModel.load(path, with_encoder=False) for path in args.members]
    env, split = make_task("pusht"), model.visual_dim
    objective = make_objective(model, ObjectiveConfig())
    config = planner_config("adam", iterations=args.iterations, starts=args.starts)
    planner = make_planner("adam", model, objective, config)
    costs, doubts, errors, reached = [], [], [], []
    for k, problem in enumerate(problems(model, args.seed, args.goals, 25)):
        start, goal = problem["latents"]
        generator = torch.Generator().manual_seed(args.seed + k)
        search = planner.begin(PlanRequest(start, goal, seed=args.seed + k), generator)
        search.advance(args.iterations)
        search.finish()
        plans = search.kept.actions
        with torch.no_grad():
            own = model.rollout(start.expand(len(plans), -1), plans)
            views = torch.stack([m.rollout(start.expand(len(plans), -1), plans) for m in members])
        doubt = views[..., :split].std(0).mean((1, 2))
        error, hits = [], []
        for plan, predicted in zip(plans, own, strict=True):
            raw = model.denormalize_actions(plan).numpy()
            real = truth(env, model, problem["start"], raw)
            error.append(float((predicted - real)[:, :split].square().mean().sqrt()))
            hits.append(executed(env, problem, raw)[0])
        costs.append(search.kept.costs)
        doubts.append(doubt)
        errors.append(torch.tensor(error))
        reached.append(hits)
    cost, doubt, error = torch.stack(costs), torch.stack(doubts), torch.stack(errors)
    flat = [x.flatten().numpy() for x in (cost, doubt, error)]
    within = [
        (spearman(d, e), spearman(c, e))
        for c, d, e in zip(cost.numpy(), doubt.numpy(), error.numpy(), strict=True)
    ]
    result = {
        "plans": len(flat[0]),
        "disagreement_with_error": spearman(flat[1], flat[2]),
        "cost_with_error": spearman(flat[0], flat[2]),
        "disagreement_with_error_within_a_goal": float(np.nanmean([w[0] for w in within])),
        "cost_with_error_within_a_goal": float(np.nanmean([w[1] for w in within])),
        "chosen": {},
    }
    scale = float(cost.median() / doubt.median())
    for weight in WEIGHTS:
        best = (cost + weight * scale * doubt).argmin(1)
        hits = sum(bool(reached[i][int(row)]) for i, row in enumerate(best))
        low, high = wilson(hits, len(best))
        chosen = error[torch.arange(len(best)), best]
        result["chosen"][str(weight)] = {
            "success": hits, "n": len(best), "ci95": [low, high],
            "error": float(chosen.median()),
        }  # fmt: skip
    result["any_start"] = sum(any(hits) for hits in reached)
    print(json.dumps(result, indent=1))
    args.report.write_text(json.dumps({"arguments": vars(args), **result}, default=str))


if __name__ == "__main__":
    main()
