"""Parameters of ``command_gate`` beside its limits and watchdogs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Le

from wm_mpc.core.fields import Checked


@dataclass(frozen=True)
class GateNodeConfig(Checked):
    """How commands read, and what is remembered.

    Attributes:
        command_type: float64_multi_array, twist_stamped or joint_trajectory.
        command_names: what each action dimension is: linear.x ... angular.z, or joints.
        action_dim: numbers in a command; 0: as many as the limits and names say, else as many as
            the first request has.
        e_stop_file: file that remembers a pressed emergency stop over a restart; empty: one below
            ~/.ros/wm_mpc, by ROS domain and node name.
        nice: niceness of the process, where it may choose: below 0 it answers on a busy machine.
    """

    command_type: str = "float64_multi_array"
    command_names: tuple[str, ...] = ()
    action_dim: Annotated[int, Ge(0), Le(1000)] = 0
    e_stop_file: str = ""
    nice: Annotated[int, Ge(-20), Le(19)] = -10

    def e_stop_path(self, domain: str, full_name: str) -> Path:
        """File that remembers a pressed emergency stop.

        Args:
            domain: ROS domain.
            full_name: node name with its namespace.
        """
        if self.e_stop_file:
            return Path(self.e_stop_file).expanduser()
        name = full_name.strip("/").replace("/", ".")
        return Path.home() / ".ros" / "wm_mpc" / f"{domain}.{name}.e_stop"


__all__ = ["GateNodeConfig"]
