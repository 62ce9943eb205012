"""Pictures of a task with what is wanted and what is planned.

Nothing here knows a task: outlines come from the difference between the task's own pictures and
its empty background, places from ``in_picture``, and what a plan leads to from playing it in the
simulator from the true state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from wm_mpc.core.opencv import cv2

GOAL = (34, 160, 84)
PLAN = (226, 88, 34)
PAST = (120, 120, 130)
_SHIFT = 4  # fractional bits of OpenCV's fixed-point coordinates
_DIFFERENT = 40  # summed over the channels, of 765
_DRAWS = 25


@dataclass(frozen=True)
class Foreseen:
    """What a plan leads to.

    Attributes:
        path: ``(T + 1, 2)`` where pictures show the robot, fractions of the side.
        end: ``(S,)`` state after the last action.
    """

    path: np.ndarray
    end: np.ndarray


def foresee(task: Any, state: np.ndarray, actions: np.ndarray) -> Foreseen:
    """Play actions ``(T, action_dim)`` in a task's simulator (``TaskEnv``), from ``state``."""
    task.restore(state)
    states = [np.asarray(state), *(task.advance(action) for action in actions)]
    path = np.array([task.in_picture(entry) for entry in states])
    return Foreseen(path, states[-1])


class Scene:
    """Draws one task at one size.

    Args:
        task: environment of the task (``TaskEnv``); its simulation is moved at will.
        size: height and width of pictures [px].
    """

    def __init__(self, task: Any, size: int) -> None:
        self.task, self.size = task, size
        rng = np.random.default_rng(0)
        views = [task.render_state(task.draw_state(rng), size) for _ in range(_DRAWS)]
        # Whatever moves is elsewhere in most pictures.
        self.background = np.median(views, axis=0).astype(np.uint8)

    def foresee(self, state: np.ndarray, actions: np.ndarray) -> Foreseen:
        """Play actions ``(T, action_dim)`` in the simulator."""
        return foresee(self.task, state, actions)

    def outlines(self, state: np.ndarray) -> list[np.ndarray]:
        """Outlines of all that moves in ``state``, each ``(n, 2)`` [px]."""
        picture = self.task.render_state(state, self.size).astype(int)
        mask = (np.abs(picture - self.background).sum(-1) > _DIFFERENT).astype(np.uint8)
        found, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        return [contour[:, 0] for contour in found if len(contour) > 8]

    def picture(
        self,
        state: np.ndarray,
        goal: np.ndarray | None = None,
        plan: Foreseen | None = None,
        past: np.ndarray | None = None,
    ) -> np.ndarray:
        """Draw a state.

        Args:
            state: ``(S,)`` what the camera shows.
            goal: state whose outlines are drawn in green.
            plan: drawn in orange: the robot's path as dots, and how things lie at its end.
            past: ``(n, 2)`` places where the robot was, fractions of the side; a grey line.

        Returns:
            uint8 ``(size, size, 3)`` RGB.
        """
        canvas = np.ascontiguousarray(self.task.render_state(state, self.size))
        thin = max(1, round(self.size / 256))
        if goal is not None:
            self._dim(canvas, goal, GOAL)
            self._outline(canvas, goal, GOAL, 2 * thin)
        if past is not None and len(past) > 1:
            cv2.polylines(canvas, [self._fixed(past)], False, PAST, thin, cv2.LINE_AA, _SHIFT)
        if plan is not None:
            self._outline(canvas, plan.end, PLAN, thin)
            self._dots(canvas, plan.path)
        return canvas

    def _dim(self, canvas: np.ndarray, state: np.ndarray, colour: tuple[int, int, int]) -> None:
        """Fill the outlines of a state, so that what is drawn underneath stays visible."""
        layer = canvas.copy()
        cv2.fillPoly(layer, self.outlines(state), colour)
        cv2.addWeighted(layer, 0.18, canvas, 0.82, 0, dst=canvas)

    def _outline(
        self, canvas: np.ndarray, state: np.ndarray, colour: tuple[int, int, int], width: int
    ) -> None:
        cv2.polylines(canvas, self.outlines(state), True, colour, width, cv2.LINE_AA)

    def _dots(self, canvas: np.ndarray, path: np.ndarray) -> None:
        one = 1 << _SHIFT
        points = self._fixed(path)
        thin = max(1, round(self.size / 256))
        cv2.polylines(canvas, [points], False, PLAN, thin, cv2.LINE_AA, _SHIFT)
        for k, point in enumerate(points[1:], 1):
            # later steps are smaller: the plan will be made anew before they come
            radius = self.size * (0.011 - 0.006 * k / len(path))
            cv2.circle(
                canvas, point.tolist(), round(radius * one), PLAN, -1, cv2.LINE_AA, _SHIFT
            )

    def _fixed(self, places: np.ndarray) -> np.ndarray:
        """Fractions of the side as OpenCV's fixed-point coordinates."""
        pixels = np.asarray(places) * self.size - 0.5
        return np.rint(pixels * (1 << _SHIFT)).astype(np.int32)


__all__ = ["GOAL", "PAST", "PLAN", "Foreseen", "Scene", "foresee"]
