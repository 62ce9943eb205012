"""Parameters of ``mpc_node`` beside those of the engine, the controller and the safety limits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Le

from wm_mpc.core.fields import Checked
from wm_mpc.core.live import Live
from wm_mpc.core.locations import ASSETS


@dataclass(frozen=True)
class MpcNodeConfig(Checked):
    """What the node reads and writes.

    Attributes:
        task: task the model was trained for.
        model: world-model folder; empty: the bundled model of the task.
        device: torch device: cpu, cuda or cuda:N.
        threads: torch and planner threads; more help from about 8 starts on, where the cores are
            free.
        joint_names: joints of the proprioception in the model's order; empty: as they come.
        stamp_source: header: pictures and joints are as old as their stamps say; arrival: as their
            arrival says, for cameras that count from their own start.
        max_proprio_offset_s: [s] largest distance in time of image and proprioception.
        command_type: float64_multi_array, twist_stamped or joint_trajectory.
        command_names: what each action dimension is: linear.x ... angular.z, or joints.
        publish_search: true: the plan tells its search too (costs, candidates, imagined latents),
            after the command has left, where time is left.
        autostart: true: configure and activate at start; false: wait for a lifecycle manager.
        exit_on_failed_start: true: a start that fails ends the process with code 1, which brings a
            launch down; false: the node waits for load_model with a better model.
        fifo_priority: SCHED_FIFO priority of the control thread, which must be permitted; 0: a
            normal thread.
        nice: niceness of the control thread, where it may choose: below 0 it goes before pages,
            recorders and other normal processes.
        cores: cores the process is kept on; empty: any.
    """

    task: str = "pusht"
    model: str = ""
    device: str = "cpu"
    threads: Annotated[int, Ge(1), Le(256)] = 1
    joint_names: tuple[str, ...] = ()
    stamp_source: Literal["header", "arrival"] = "header"
    max_proprio_offset_s: Annotated[float, Ge(0.0), Le(10.0)] = 0.05
    command_type: str = "float64_multi_array"
    command_names: tuple[str, ...] = ()
    publish_search: Annotated[bool, Live()] = False
    autostart: bool = True
    exit_on_failed_start: bool = False
    fifo_priority: Annotated[int, Ge(0), Le(99)] = 0
    nice: Annotated[int, Ge(-20), Le(19)] = -5
    cores: tuple[int, ...] = ()

    @property
    def model_path(self) -> Path:
        """Folder of the model."""
        return Path(self.model).expanduser() if self.model else ASSETS / self.task


__all__ = ["MpcNodeConfig"]
