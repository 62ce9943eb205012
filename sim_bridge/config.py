"""Parameters of ``sim_bridge``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le

from wm_mpc.core.fields import Checked, Seed
from wm_mpc.tasks.registry import find_task


@dataclass(frozen=True)
class SimBridgeConfig(Checked):
    """Parameters of ``sim_bridge``.

    Attributes:
        task: a task's name, or module:TASK.
        control_rate_hz: [Hz] control steps per second of simulated time; the task's own.
        real_time_factor: simulated over wall time; other than 1 only with use_sim_time, when this
            node is the source of /clock.
        image_size: [px] height and width of the pictures.
        seed: seed of the first episode; the next one has the next seed.
        episode_steps: control steps until an episode ends; 0: only success ends it.
        auto_reset: true: the next episode follows; false: the world goes on until reset is called.
        command_timeout_s: [s] an older command is not applied: the agent gets the zero action.
        command_delay_s: [s] of simulated time from a command's arrival to its effect.
        command_type: float64_multi_array, twist_stamped or joint_trajectory.
        command_names: what each action dimension is in a twist_stamped or joint_trajectory.
        publish_goal: true: publish goal_image and goal_proprio at every reset.
    """

    task: str = "pusht"
    control_rate_hz: Annotated[float, Ge(0.1), Le(1000.0)] = 10.0
    real_time_factor: Annotated[float, Ge(0.01), Le(100.0)] = 1.0
    image_size: Annotated[int, Ge(16), Le(2048)] = 96
    seed: Seed = 0
    episode_steps: Annotated[int, Ge(0), Le(10**9)] = 300
    auto_reset: bool = True
    command_timeout_s: Annotated[float, Ge(0.001), Le(60.0)] = 0.3
    command_delay_s: Annotated[float, Ge(0.0), Le(2.0)] = 0.0
    command_type: str = "float64_multi_array"
    command_names: tuple[str, ...] = ()
    publish_goal: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        own = 1 / find_task(self.task).simulator().spec.control_period
        if abs(self.control_rate_hz / own - 1) > 0.01:
            rate = f"{self.control_rate_hz:g} Hz; {own:g} Hz expected"
            raise ValueError(f"control_rate_hz: {rate} for task {self.task}")


__all__ = ["SimBridgeConfig"]
