"""Parameters of ``markers``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le

from wm_mpc.core.errors import UserError
from wm_mpc.core.fields import Checked, PositiveFloat


@dataclass(frozen=True)
class MarkersConfig(Checked):
    """What of a plan is drawn, and where.

    Attributes:
        task: simulated task: its simulation plays the plan from the true state, which gives the
            robot's path; empty: a robot.
        command_names: what each action dimension is; where linear.x, linear.y or linear.z are
            among them the path is that of the tip, from ``tip_pose`` on.
        frame_id: frame of the markers; those of a tip's path lie in the frame of ``tip_pose``.
        size_m: [m] side of what has no size of its own: the picture plane of a simulated task,
            and the chart of the actions where no path is known.
        candidates: most plans beside the chosen one that are drawn.
        picture_px: [px] height of camera and goal in the plan's picture.
    """

    task: str = ""
    command_names: tuple[str, ...] = ()
    frame_id: str = "world"
    size_m: PositiveFloat = 1.0
    candidates: Annotated[int, Ge(0), Le(64)] = 8
    picture_px: Annotated[int, Ge(64), Le(1024)] = 240

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.frame_id:
            raise UserError("frame_id: empty; the name of a frame expected")


__all__ = ["MarkersConfig"]
