"""How often do the watches for unknown and frozen pictures stop a healthy robot? And a sick one?

    python tools/false_stops.py --goals 100 --report benchmarks/results/false_stops.json

Closed-loop episodes of the bundled models as ``wm-mpc eval`` drives them, each tick's novelty
kept; then pictures and proprioception that no training saw, laid over one real observation.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from wm_mpc.control.controller import Controller
from wm_mpc.control.tick import TickResult
from wm_mpc.core.locations import ASSETS
from wm_mpc.core.provenance import write_report
from wm_mpc.evaluation.rows import evaluate
from wm_mpc.models.world_model import WorldModel

TASKS = ("pusht", "wall", "point_maze")


class Recorded(Controller):
    """A controller that keeps what its ticks found, for all of its kind."""

    ticks_of_all: list[TickResult] = []
    seen: tuple[np.ndarray, np.ndarray] | None = None

    def observe(self, image: np.ndarray, proprio: np.ndarray | None, stamp: float) -> None:
        """Keep the observation too."""
        super().observe(image, proprio, stamp)
        Recorded.seen = (image, proprio)

    def tick(self, now: float) -> TickResult:
        """Keep the result."""
        result = super().tick(now)
        Recorded.ticks_of_all.append(result)
        return result


def strange(image: np.ndarray, proprio: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Observations that must be refused."""
    noise = np.random.default_rng(0).integers(0, 256, image.shape, dtype=np.uint8)
    return {
        "noise": (noise, proprio), "black": (np.zeros_like(image), proprio),
        "white": (np.full_like(image, 255), proprio),
        "proprio 1e6": (image, np.full_like(proprio, 1e6)),
        "proprio 1e20": (image, np.full_like(proprio, 1e20)),
    }  # fmt: skip


def measure(task: str, goals: int, seed: int) -> dict:
    """One row."""
    import wm_mpc.evaluation.loop as loop

    loop.Controller, Recorded.ticks_of_all = Recorded, []
    model = WorldModel.load(ASSETS / task)
    row = evaluate(
        model, task, "adam", goals, seed, options=("iterations=20", "starts=16"),
        budget_fraction=0.0,
    )  # fmt: skip
    ticks = Recorded.ticks_of_all
    known = np.array([tick.novelty for tick in ticks if np.isfinite(tick.novelty)])
    image, proprio = Recorded.seen
    found = {}
    for name, (picture, joints) in strange(image, proprio).items():
        tokens = model.encoder(torch.from_numpy(picture[None].copy()))
        found[name] = float(model.novelty(tokens, torch.from_numpy(joints[None])))
    return {
        "task": task, "model": model.hash, "goals": goals, "n": len(ticks),
        "success_rate": row["success_rate"],
        "novelty_max": float(known.max()), "novelty_p999": float(np.quantile(known, 0.999)),
        "above_1": int((known > 1).sum()),
        "stops_novelty": sum(tick.reason.startswith("novelty:") for tick in ticks),
        "stops_frozen": sum("frozen" in tick.reason for tick in ticks),
        "strange": found,
    }  # fmt: skip


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--goals", type=int, default=100)
    parser.add_argument("--seed", type=int, default=71)
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--report", type=Path)
    config = parser.parse_args()
    rows = []
    for task in config.tasks:
        rows.append(measure(task, config.goals, config.seed))
        print(rows[-1], flush=True)
    if config.report is not None:
        write_report(config.report, config.seed, rows)


if __name__ == "__main__":
    main()
