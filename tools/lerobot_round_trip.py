#!/usr/bin/env python3
"""Wall trajectories as LeRobot datasets, imported, trained on and driven; the store itself beside.

Every arm trains a world model by the same recipe: from the store that was collected, and from what
LeRobot datasets of version 2.1 and 3.0 made of it. The import is compared with the store first.
The models then drive in the true simulator, from the same starts to the same goals.

    python tools/lerobot_round_trip.py --out out/lerobot --report out/lerobot.json
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from wm_mpc.cli.main import main as wm_mpc
from wm_mpc.core.fields import Checked, PositiveInt, Seed
from wm_mpc.core.locations import ASSETS
from wm_mpc.core.provenance import write_report
from wm_mpc.data.store.store import Store

QUICK = ("--landmarks.compositions", "64", "--landmarks.steps", "2", "--landmarks.batch", "8",
         "--reader-steps", "2", "--dynamics.steps", "4", "--dynamics.batch", "8")  # fmt: skip
WHOLE = ("--landmarks.compositions", "4000", "--landmarks.steps", "600", "--reader-steps", "300",
         "--dynamics.steps", "6000")  # fmt: skip


@dataclass(frozen=True)
class Config(Checked):
    """How much of it."""

    out: Path
    """Folder for everything; what is there already is taken as it is."""

    arms: tuple[Literal["store", "v2.1", "v3.0"], ...] = ("store", "v2.1", "v3.0")
    """store, v2.1, v3.0."""

    pictures: Literal["video", "image"] = "video"
    """As the datasets keep them: video, or image: PNG, lossless."""

    episodes: PositiveInt = 300
    """Of 50 steps, with a picture at each."""

    goals: PositiveInt = 50
    """Drives per arm."""

    seed: Seed = 21
    """Of the goals; another than that of the episodes, which is 1."""

    quick: bool = False
    """A few optimiser steps: that it works, not how well."""

    report: Path | None = None
    """JSON report."""


def call(*words: object) -> None:
    """Run a command of ``wm-mpc``.

    Raises:
        RuntimeError: it ended with another code than 0.
    """
    code = wm_mpc([str(word) for word in words])
    if code:
        raise RuntimeError(f"wm-mpc {' '.join(map(str, words))}: ended with {code}")


def collected(config: Config) -> Path:
    """The store that the datasets are made of."""
    store = config.out / "store"
    if not store.exists():
        call("collect", "wall", "--episodes", config.episodes, "--episode-steps", 50, "--seed", 1,
             "--out", store)  # fmt: skip
    return store


def dataset(config: Config, version: str) -> Path:
    """The store as a LeRobot dataset."""
    path = config.out / f"lerobot_{version}_{config.pictures}"
    if not path.exists():
        call("bag", "export", collected(config), "--format", "lerobot", "--lerobot-version",
             version, "--lerobot-pictures", config.pictures, "--out", path)  # fmt: skip
    return path


def differences(config: Config, imported: Path) -> dict[str, Any]:
    """What the way there and back changed.

    Returns:
        ``numbers_equal``: actions, proprioception and their steps, but for each episode's last
        one; ``pictures_mean`` and ``pictures_max``: differences of pixels, 0 to 255.
    """
    equal, mean, most = True, [], 0
    for one, other in zip(Store.open(collected(config)), Store.open(imported), strict=True):
        steps = len(one) - 1
        equal &= np.array_equal(one.actions[:steps], other.actions)
        equal &= np.array_equal(one.proprio[: steps + 1], other.proprio)
        apart = np.abs(one.images[: steps + 1].astype(np.int16) - other.images)
        mean.append(float(apart.mean()))
        most = max(most, int(apart.max()))
    return {
        "numbers_equal": bool(equal), "pictures_mean": float(np.mean(mean)), "pictures_max": most
    }  # fmt: skip


def arm(config: Config, name: str) -> dict[str, Any]:
    """Train and drive one arm; its row of the report."""
    row: dict[str, Any] = {"arm": name, "episodes": config.episodes}
    data = collected(config)
    if name != "store":
        source, data = dataset(config, name), config.out / f"imported_{name}_{config.pictures}"
        if not data.exists():
            call("bag", "import", source, "--out", data, "--task", "wall")
        row |= {"pictures": config.pictures} | differences(config, data)
    model, report = config.out / f"model_{data.name}", config.out / f"eval_{data.name}.json"
    recipe = QUICK if config.quick else WHOLE
    if not (model / "world_model.json").exists():
        call("train", "wall", "--data", data, "--encoder", ASSETS / "encoder", "--out", model,
             "--dynamics.threads", 1, *recipe)  # fmt: skip
    call("eval", "--task", "wall", "--planner", "adam", "--model", model, "--label", name,
         "--goals", config.goals, "--seed", config.seed, "--budget-fraction", 0, "--options",
         "iterations=20", "starts=8", "--replan-every", 5, "--threads", 1,
         "--report", report)  # fmt: skip
    (driven,) = json.loads(report.read_text())["results"]
    return row | {
        key: driven[key] for key in ("n", "successes", "success_rate", "success_ci95",
                                     "final_error")
    }  # fmt: skip


def main(config: Config) -> int:
    """All arms, one after another."""
    config.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in config.arms:
        rows.append(arm(config, name))
        print(json.dumps(rows[-1]), flush=True)
    if config.report:
        write_report(config.report, config.seed, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config)))
