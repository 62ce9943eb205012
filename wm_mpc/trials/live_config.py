"""Settings of ``wm-mpc live``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Le
from tyro.conf import Positional

from wm_mpc.bringup.description import simulated_tasks
from wm_mpc.core.fields import Checked, Seed, one_of


@dataclass(frozen=True)
class Config(Checked):
    """Run a simulated task with live fine-tuning and report on it.

    Attributes:
        task: a task with a bringup of its own, TASK_sim.
        out: folder of everything this run writes; a new one.
        minutes: [min] of running after the first plan.
        model: start model; default: the bundled one of the task.
        action_scale: the start model is told that actions are this many times larger than they
            are; 1: it is not spoiled.
        replay: store of expert trajectories that is mixed in; default: none.
        episode_steps: control steps per episode.
        seed: of episodes, plans and training.
        window: episodes at begin and end that are compared.
        trainer: parameters of trainer_node, name=value.
        kill: kill trainer_node half-way and start it again.
        poison: at three quarters of the time, ask the controller to load poisoned models.
        learn: false: the same without trainer_node, for comparison.
        core: a core for mpc_node alone, everything else keeps to the others; -1: no such rule.
        report: JSON file to write, and a picture (PNG) beside it; default: live.json in ``out``.
    """

    task: Positional[str]
    out: Path
    minutes: Annotated[float, Ge(0.1), Le(1e4)] = 10.0
    model: Path | None = None
    action_scale: Annotated[float, Ge(1e-3), Le(1e3)] = 1.0
    replay: Path | None = None
    episode_steps: Annotated[int, Ge(5), Le(10_000)] = 60
    seed: Seed = 0
    window: Annotated[int, Ge(1), Le(10_000)] = 20
    trainer: tuple[str, ...] = ()
    kill: bool = True
    poison: bool = True
    learn: bool = True
    core: Annotated[int, Ge(-1), Le(4095)] = -1
    report: Path | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of(self, "task", simulated_tasks())
