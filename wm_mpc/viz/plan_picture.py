"""One picture of a plan: camera, goal, and the plan by action; for whoever shows pictures only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wm_mpc.core.opencv import cv2
from wm_mpc.viz.scene import PLAN

COLOURS = ((31, 119, 180), (224, 123, 40), (42, 157, 92), (179, 38, 30), (123, 87, 179),
           (119, 119, 119), (194, 71, 143))  # fmt: skip
"""Of the actions, as on the live page."""
_PAPER, _INK, _SOFT, _LINE = (250, 250, 248), (28, 30, 34), (110, 114, 122), (215, 215, 212)
_GAP, _HEAD = 8, 40
_FONT = 0  # cv2.FONT_HERSHEY_SIMPLEX


@dataclass(frozen=True)
class PlanShown:
    """What is drawn of a plan.

    Attributes:
        actions: ``(T, action_dim)`` raw units.
        candidates: ``(n, T, action_dim)`` others that were compared, the cheapest first.
        period_s: [s] from one row to the next.
    """

    actions: np.ndarray
    candidates: np.ndarray
    period_s: float


def plan_picture(
    camera: np.ndarray | None,
    goal: np.ndarray | None,
    plan: PlanShown | None,
    head: tuple[str, str] = ("", ""),
    height: int = 240,
    path: np.ndarray | None = None,
) -> np.ndarray:
    """Draw what the controller sees, wants and plans, side by side.

    Args:
        camera: uint8 ``(H, W, 3)`` RGB; None: none came.
        goal: likewise.
        plan: None: there is none.
        head: two lines above the pictures.
        height: of the pictures [px]; two lines of text stand above.
        path: ``(n, 2)`` where the camera would show the robot, fractions of its sides.

    Returns:
        uint8 ``(height + 56, 3 * height + 32, 3)`` RGB, of that size whatever is missing.
    """
    canvas = np.full((height + _HEAD + 2 * _GAP, 3 * height + 4 * _GAP, 3), _PAPER, np.uint8)
    for row, (line, colour) in enumerate(zip(head, (_INK, _SOFT), strict=True)):
        place = (_GAP, 18 + 18 * row)
        # what its font does not have would be drawn as ???
        plain = line.encode("ascii", "replace").decode()
        cv2.putText(canvas, plain, place, _FONT, 0.45, colour, 1, cv2.LINE_AA)
    _put(canvas, camera, 0, height, path)
    _put(canvas, goal, 1, height, None)
    _chart(_field(canvas, 2, height), plan)
    return canvas


def _field(canvas: np.ndarray, column: int, height: int) -> np.ndarray:
    x = _GAP + column * (height + _GAP)
    top = _HEAD + _GAP
    return canvas[top : top + height, x : x + height]


def _put(
    canvas: np.ndarray,
    picture: np.ndarray | None,
    column: int,
    height: int,
    path: np.ndarray | None,
) -> None:
    """A picture as large as its field allows, its pixels as they are."""
    field = _field(canvas, column, height)
    if picture is None:
        field[:] = _LINE
        return
    rows, columns = picture.shape[:2]
    scale = height / max(rows, columns)
    size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    drawn = cv2.resize(picture, size, interpolation=cv2.INTER_NEAREST)
    if path is not None and len(path):
        points = np.rint(np.asarray(path) * size).astype(np.int32)
        cv2.polylines(drawn, [points], False, PLAN, 2, cv2.LINE_AA)
        for point in points[1:]:
            cv2.circle(drawn, point.tolist(), 3, PLAN, -1, cv2.LINE_AA)
    field[: size[1], : size[0]] = drawn


def _chart(field: np.ndarray, plan: PlanShown | None) -> None:
    """Actions over the plan's time; candidates thin behind it."""
    height, width = field.shape[:2]
    field[:] = (255, 255, 255)
    if plan is None or not plan.actions.size:
        return
    shown = [*plan.candidates, plan.actions]
    finite = np.concatenate([np.ravel(rows) for rows in shown])
    finite = finite[np.isfinite(finite)]
    if not len(finite):
        return
    low, high = float(finite.min()), float(finite.max())
    span = (high - low) or 1.0
    left, bottom, top = 34, height - 18, 8
    x = np.linspace(left, width - 6, len(plan.actions))

    def line(values: np.ndarray, colour: tuple[int, ...], thick: int) -> None:
        y = bottom - (bottom - top) * (values - low) / span
        points = np.stack([x, y], 1)[np.isfinite(values)]
        cv2.polylines(
            field, [np.rint(points).astype(np.int32)], False, colour, thick, cv2.LINE_AA
        )

    for rows in plan.candidates[::-1]:
        for j in range(rows.shape[1]):
            line(rows[:, j], tuple((3 * 255 + c) // 4 for c in COLOURS[j % len(COLOURS)]), 1)
    for j in range(plan.actions.shape[1]):
        line(plan.actions[:, j], COLOURS[j % len(COLOURS)], 2)
    for value, y in ((high, top + 6), (low, bottom)):
        cv2.putText(field, f"{value:.2g}", (2, y), _FONT, 0.35, _SOFT, 1, cv2.LINE_AA)
    ends = f"{plan.period_s * (len(plan.actions) - 1):.2g} s"
    cv2.putText(field, ends, (width - 40, height - 4), _FONT, 0.35, _SOFT, 1, cv2.LINE_AA)


__all__ = ["COLOURS", "PlanShown", "plan_picture"]
