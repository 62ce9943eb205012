"""Parameters of ``trainer_node`` beside those of the rounds of training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Le

from wm_mpc.core.fields import Checked, Seed
from wm_mpc.core.locations import ASSETS


@dataclass(frozen=True)
class TrainerConfig(Checked):
    """What the node collects and how it trains.

    Attributes:
        task: task of the bundled model.
        model: folder of the start model; empty: the bundled model of the task.
        out: working folder, taken up again after a restart; empty: TASK_live in the working
            directory.
        device: torch device of the training process: cpu, cuda or cuda:N.
        seed: seed of every random draw.
        source: rollout: ask the simulator what plans do; robot: piece together what the robot did;
            both.
        rollout_period_s: [s] between two questions to the simulator.
        max_steps: control steps after which a pieced-together trajectory is cut.
        joint_names: joints of the proprioception in the model's order; empty: as they come.
        command_type: float64_multi_array, twist_stamped or joint_trajectory.
        command_names: what each action dimension is: linear.x ... angular.z, or joints.
        nice: niceness of the training process, 0 (as this one) to 19 (only when nobody else).
        threads: torch threads of the training process.
    """

    task: str = "pusht"
    model: str = ""
    out: str = ""
    device: str = "cpu"
    seed: Seed = 0
    source: Literal["both", "rollout", "robot"] = "both"
    rollout_period_s: Annotated[float, Ge(0.05), Le(3600.0)] = 2.0
    max_steps: Annotated[int, Ge(5), Le(10_000)] = 50
    joint_names: tuple[str, ...] = ()
    command_type: str = "float64_multi_array"
    command_names: tuple[str, ...] = ()
    nice: Annotated[int, Ge(0), Le(19)] = 10
    threads: Annotated[int, Ge(1), Le(256)] = 1

    @property
    def model_path(self) -> Path:
        """Folder of the start model."""
        return Path(self.model).expanduser() if self.model else ASSETS / self.task

    @property
    def out_path(self) -> Path:
        """Working folder."""
        return Path(self.out).expanduser() if self.out else Path(f"{self.task}_live")


__all__ = ["TrainerConfig"]
