"""A window that shows the running episode, where there is a display."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from wm_mpc.core.errors import UserError

if TYPE_CHECKING:
    from wm_mpc.trials.observer import Observer

_SIZE = 480
_TITLE = "wm_mpc"


def has_display() -> bool:
    """Whether a window can be opened here."""
    if sys.platform != "linux":
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


class LiveView:
    """Shows state, goal and plan of an observed episode; redraws only what is new.

    Args:
        task: task name.

    Raises:
        UserError: there is no display.
    """

    def __init__(self, task: str) -> None:
        if not has_display():
            raise UserError("window: no display ($DISPLAY is not set); leave --window out")
        from wm_mpc.tasks.environments import make_env
        from wm_mpc.viz.scene import Scene

        self._scene = Scene(make_env(task).unwrapped, _SIZE)
        self._shown = -1.0

    def update(self, observer: Observer) -> None:
        """Draw the newest moment; call it from one thread, which owns the window."""
        import cv2

        newest = observer.newest()
        if newest is not None and newest.stamp != self._shown:
            self._shown = newest.stamp
            recording = observer.recording()
            # the plan of the newest picture is still being made; the one before is complete
            before = len(recording.moments) - 2
            plan = recording.plan_at(before) if before >= 0 else None
            foreseen = plan and self._scene.foresee(newest.state, plan.actions[1:])
            picture = self._scene.picture(newest.state, recording.goal_state, foreseen)
            cv2.imshow(_TITLE, picture[:, :, ::-1])
        cv2.waitKey(1)

    def close(self) -> None:
        """Close the window."""
        import cv2

        cv2.destroyAllWindows()


__all__ = ["LiveView", "has_display"]
