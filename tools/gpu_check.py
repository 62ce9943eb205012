"""Checks of the CUDA kernels against autograd, and the latency rows of one GPU.

Usage: python tools/gpu_check.py OUT_FOLDER [--device cuda] [--seconds 170]

Writes ``checks.json``, ``latency_*.json`` and prints what it does. Needs torch, numpy, einops,
safetensors and transformers.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
import types
from collections.abc import Iterator
from dataclasses import dataclass, make_dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

try:
    import annotated_types  # noqa: F401
except ImportError:
    # A bare machine with CUDA's torch has no other reason to fail: bounds are checked elsewhere.
    bare = types.ModuleType("annotated_types")
    for name, field in (("Ge", "ge"), ("Gt", "gt"), ("Le", "le"), ("Lt", "lt"), ("Unit", "unit"),
                        ("Predicate", "func")):  # fmt: skip
        setattr(bare, name, make_dataclass(name, [field], frozen=True))
    bare.GroupedMetadata = type("GroupedMetadata", (), {})
    sys.modules["annotated_types"] = bare

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


@dataclass(frozen=True)
class Check:
    """A comparison of the fastest kernel with autograd."""

    model: str
    planner: str
    options: dict

    def run(self, device: str) -> dict:
        """Compare; a failure is a row too."""
        try:
            full = self.model == "full"
            model = full_size_model(device) if full else compact_model(self.model, device)
            return check_plans(self.model, model, self.planner, self.options)
        except Exception:
            row = {"model": self.model, "error": traceback.format_exc(), "same": False}
            print(row["error"], flush=True)
            return row


def work_of(device: str, quick: bool) -> Iterator[Check | tuple[str, Latency]]:
    """What is done, the most important first: time may run out."""
    still = {"action_noise": 0.0}
    if quick:
        yield Check("gru", "adam", {**still, "iterations": 13})
        yield "small", Latency("gru", "auto,eager", "adam", "2", ticks=30, cem_seconds=0.5)
        return

    def rows(models: str, kernels: str, planner: str, starts: str, seconds: float) -> Latency:
        return Latency(models, kernels, planner, starts, seconds=seconds, cem_seconds=3.0)

    yield Check("full", "adam", {**still, "iterations": 5, "chunk": 5, "starts": 4})
    yield "full_4", rows("full", "auto", "adam", "4", 10.0)
    yield "full_4_eager", rows("full", "eager", "adam", "4", 8.0)
    yield "pusht", rows("pusht", "auto,eager", "adam", "0", 6.0)
    yield "full_grasp", rows("full", "auto", "grasp", "2", 6.0)
    yield "full_8", rows("full", "auto", "adam", "8", 8.0)
    yield Check("gru", "adam", {**still, "iterations": 13})
    yield Check("vit", "grasp", {"iterations": 6, "sync_every": 3, "state_noise": 0.0})
    yield "small", rows("gru,vit", "auto,eager", "adam", "0", 5.0)
    yield "full_1", rows("full", "auto,compiled", "adam", "1", 6.0)


def main() -> int:
    """Run checks, then rows; exit code 0 when every check held."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=170.0)
    parser.add_argument("--quick", action="store_true", help="few ticks, small models")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + asked.seconds
    print(torch.__version__, asked.device, flush=True)
    checks: list[dict] = []
    for work in work_of(asked.device, asked.quick):
        left = until - time.monotonic()
        if left < 0:
            print("no time left", flush=True)
            break
        print(f"---- {work}, {left:.0f} s left", flush=True)
        if isinstance(work, Check):
            checks.append(work.run(asked.device))
            (asked.out / "checks.json").write_text(json.dumps(checks, indent=1))
        else:
            name, plan = work
            run_latency(plan, asked.device, asked.out / f"latency_{name}.json", until)
    return 0 if all(check["same"] for check in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
