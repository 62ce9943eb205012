"""Checks of the CUDA kernels against autograd, and the latency rows of one GPU.

Usage: python tools/gpu_check.py OUT_FOLDER [--device cuda] [--seconds 270]

Writes ``checks.json``, ``latency_*.json`` and prints what it does. Needs torch, numpy, einops,
safetensors, transformers and annotated-types.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch  # noqa: E402

from wm_mpc.cli.latency import Latency, run_latency  # noqa: E402
from wm_mpc.evaluation.latency import compact_model, full_size_model  # noqa: E402
from wm_mpc.planners import PlanRequest  # noqa: E402
from wm_mpc.planners.objective import ObjectiveConfig, make_objective  # noqa: E402
from wm_mpc.planners.registry import make_planner, planner_config  # noqa: E402


def check_plans(name: str, model: object, planner: str, options: dict) -> dict:
    """Plan with the fastest kernel and with autograd; how far apart they are."""
    objective = make_objective(model, ObjectiveConfig())
    config = planner_config(planner, **options)
    device = model.action_mean.device
    generator = torch.Generator().manual_seed(1)
    latent, goal = (
        torch.randn(model.latent_shape, generator=generator).to(device) for _ in range(2)
    )
    plans, kernels = [], []
    for compile in (True, False):
        made = make_planner(planner, model, objective, config, compile=compile)
        begun = time.monotonic()
        made.warm_up()
        warm_s = time.monotonic() - begun
        warm = torch.full(made.shape, 0.1, device=device)
        plans.append(made.plan(PlanRequest(latent, goal, warm_start=warm, seed=3)))
        kernels.append(made.kernel.name)
    fast, plain = plans
    # each plan under the exact model, so that lower precision shows
    costs = [float(made.kernel.cost(latent, goal, p.actions[None])[0]) for p in plans]
    row = {
        "model": name, "planner": planner, "kernel": kernels[0], "warm_up_s": warm_s,
        "actions_apart": float((fast.actions - plain.actions).abs().max()),
        "cost_fast": costs[0], "cost_plain": costs[1], "warm_cost": plain.warm_cost,
        "same": abs(costs[0] - costs[1]) <= 0.02 * abs(plain.warm_cost) + 1e-6,
    }  # fmt: skip
    print(row, flush=True)
    return row


def main() -> int:
    """Run checks, then rows; exit code 0 when every check held."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=270.0)
    parser.add_argument("--quick", action="store_true", help="few ticks, small models")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + asked.seconds
    print(torch.__version__, asked.device, flush=True)
    checks = []
    full = None if asked.quick else full_size_model(asked.device)
    small = {"action_noise": 0.0}
    for name, planner, options in (
        ("gru", "adam", {**small, "iterations": 13}),
        ("vit", "grasp", {"iterations": 6, "sync_every": 3, "state_noise": 0.0}),
        ("full", "adam", {**small, "iterations": 5, "chunk": 5, "starts": 4}),
    ):
        if name == "full" and full is None:
            continue
        try:
            model = full if name == "full" else compact_model(name, asked.device)
            checks.append(check_plans(name, model, planner, options))
        except Exception:
            checks.append({"model": name, "error": traceback.format_exc(), "same": False})
            print(checks[-1]["error"], flush=True)
        (asked.out / "checks.json").write_text(json.dumps(checks, indent=1))
    del full
    ticks = 30 if asked.quick else 3000
    device = asked.device
    plans = {
        "full": Latency("full", "auto", "adam", "4,8", ticks=ticks, seconds=15, cem_seconds=6),
        "full_eager": Latency(
            "full", "eager,compiled", "adam", "4", ticks=ticks, seconds=8, cem_seconds=4
        ),
        "full_grasp": Latency("full", "auto", "grasp", "2", ticks=ticks, seconds=8, cem_seconds=2),
        "small": Latency(
            "pusht,gru,vit",
            "auto,eager",
            "adam",
            "0",
            ticks=ticks,
            seconds=8,
            cem_seconds=3,
        ),
        "full_one": Latency("full", "auto", "adam", "1", ticks=ticks, seconds=10, cem_seconds=2),
    }
    if asked.quick:
        plans = {"small": Latency("gru", "auto,eager", "adam,grasp", "2", ticks=ticks,
                                  seconds=5, cem_seconds=1)}  # fmt: skip
    for name, plan in plans.items():
        if time.monotonic() < until:
            print(f"---- {name}, {until - time.monotonic():.0f} s left", flush=True)
            run_latency(plan, device, asked.out / f"latency_{name}.json", until)
    return 0 if all(check["same"] for check in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
