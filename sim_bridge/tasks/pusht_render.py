"""Push-T pictures with OpenCV polygons: gym-pusht's look, thousands of frames a second, no display."""

from __future__ import annotations

import functools
import math

import cv2
import numpy as np

_ARENA = 512.0
_SHIFT = 4
_BACKGROUND = (255, 255, 255)
_WALL = (211, 211, 211)
_BLOCK_EDGE = (119, 136, 153)
_BLOCK_FILL = (142, 163, 183)
_AGENT_EDGE = (65, 105, 225)
_AGENT_FILL = (78, 126, 255)
_GOAL = (144, 238, 144)
_EDGE = 2.0
_AGENT_RADIUS, _AGENT_INNER = 15.0, 11.0
# Bar and stem of the T in the block's own frame [px].
_BAR = np.array([(-60.0, 0.0), (60.0, 0.0), (60.0, 30.0), (-60.0, 30.0)])
_STEM = np.array([(-15.0, 30.0), (15.0, 30.0), (15.0, 120.0), (-15.0, 120.0)])
_PARTS = np.stack([_BAR, _STEM])


def render_pusht(state: np.ndarray, size: int, goal: np.ndarray | None = None) -> np.ndarray:
    """Draw agent and block of ``state``, optionally over the green block of ``goal``.

    Args:
        state: ``(7,)`` or any vector that starts with agent x, y, block x, y, angle [px, rad].
        size: height and width of the picture [px].
        goal: state whose block is drawn in green underneath, or None.

    Returns:
        uint8 ``(size, size, 3)`` RGB, antialiased, so that motion far below one pixel still changes it.
    """
    supersampling = _supersampling(size)
    scale = size * supersampling / _ARENA
    canvas = _background(size).copy()
    ax, ay, bx, by, angle = (float(v) for v in state[:5])
    if goal is not None:
        gx, gy, goal_angle = (float(v) for v in goal[2:5])
        for part in _PARTS:
            _fill(canvas, _pose(part, gx, gy, goal_angle), scale, _GOAL)
    outer, inner = _outlines()
    for k in range(len(_PARTS)):
        _fill(canvas, _pose(outer[k], bx, by, angle), scale, _BLOCK_EDGE)
        _fill(canvas, _pose(inner[k], bx, by, angle), scale, _BLOCK_FILL)
    one = 1 << _SHIFT
    centre = _to_canvas(np.array([ax, ay]), scale)
    # Far outside the arena OpenCV's fixed-point coordinates would overflow, and nothing is visible anyway.
    if -_ARENA < ax < 2 * _ARENA and -_ARENA < ay < 2 * _ARENA:
        for radius, colour in ((_AGENT_RADIUS, _AGENT_EDGE), (_AGENT_INNER, _AGENT_FILL)):
            cv2.circle(
                canvas, centre, round(radius * scale * one), colour, -1, cv2.LINE_AA, _SHIFT
            )
    _draw_walls(canvas, scale)
    if supersampling == 1:
        return canvas
    return cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)


def _supersampling(size: int) -> int:
    """Canvas pixels per picture pixel; OpenCV's own edges are smooth enough for large pictures."""
    return max(1, math.ceil(256 / size))


@functools.lru_cache(maxsize=8)
def _background(size: int) -> np.ndarray:
    n = size * _supersampling(size)
    canvas = np.full((n, n, 3), _BACKGROUND, np.uint8)
    canvas.setflags(write=False)
    return canvas


@functools.lru_cache(maxsize=1)
def _outlines() -> tuple[np.ndarray, np.ndarray]:
    """Both rectangles grown and shrunk by half the outline's width; each ``(2, 4, 2)``."""
    centre = _PARTS.mean(axis=1, keepdims=True)
    grow = _EDGE * np.sign(_PARTS - centre)
    return _PARTS + grow, _PARTS - grow


def _pose(points: np.ndarray, x: float, y: float, angle: float) -> np.ndarray:
    c, s = math.cos(angle), math.sin(angle)
    return points @ np.array([[c, s], [-s, c]]) + (x, y)


def _to_canvas(points: np.ndarray, scale: float) -> np.ndarray:
    """Fixed-point canvas coordinates. gym-pusht's pixel i is centred on i, hence the half pixels."""
    fixed = ((points + 0.5) * scale - 0.5) * (1 << _SHIFT)
    return np.rint(fixed).astype(np.int32)


def _fill(
    canvas: np.ndarray, points: np.ndarray, scale: float, colour: tuple[int, int, int]
) -> None:
    cv2.fillConvexPoly(canvas, _to_canvas(points, scale), colour, cv2.LINE_AA, _SHIFT)


def _draw_walls(canvas: np.ndarray, scale: float) -> None:
    low, high = round(3 * scale), round(7 * scale)
    far_low, far_high = round(504 * scale), round(508 * scale)
    canvas[low:far_high, low:high] = _WALL
    canvas[low:far_high, far_low:far_high] = _WALL
    canvas[low:high, low:far_high] = _WALL
    canvas[far_low:far_high, low:far_high] = _WALL
