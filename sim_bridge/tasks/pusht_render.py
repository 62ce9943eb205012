"""Push-T pictures with OpenCV polygons: gym-pusht's look, fast, without a display."""

from __future__ import annotations

import functools
import math

import cv2
import numpy as np

_ARENA = 512.0
_SHIFT = 6  # fractional bits of OpenCV's fixed-point coordinates
_BACKGROUND = (255, 255, 255)
_WALL = (211, 211, 211)
_BLOCK_EDGE = (119, 136, 153)
_BLOCK_FILL = (142, 163, 183)
_AGENT_EDGE = (65, 105, 225)
_AGENT_FILL = (78, 126, 255)
_GOAL = (144, 238, 144)
_AGENT_RADIUS, _AGENT_INNER = 15.0, 11.0
_OUTLINE = 2.0  # half the width of the block's outline [px]
# Bar and stem of the T in the block's own frame [px].
_PARTS = np.array(
    [
        [(-60.0, 0.0), (60.0, 0.0), (60.0, 30.0), (-60.0, 30.0)],
        [(-15.0, 30.0), (15.0, 30.0), (15.0, 120.0), (-15.0, 120.0)],
    ]
)
_SIGNS = np.sign(_PARTS - _PARTS.mean(axis=1, keepdims=True))
# OpenCV's antialiased fill reaches this far beyond the outline [canvas px]; shapes are shrunk by
# as much.
_FILL_EXCESS = 0.5

_Shape = tuple[np.ndarray, tuple[int, int, int]]


def render_pusht(state: np.ndarray, size: int, goal: np.ndarray | None = None) -> np.ndarray:
    """Draw agent and block of ``state``, optionally over the green block of ``goal``.

    Only the surroundings of what moves are drawn, on a finer canvas that is then averaged down.

    Args:
        state: ``(7,)`` or any vector that starts with agent x, y, block x, y, angle [px, rad].
        size: height and width of the picture [px].
        goal: state whose block is drawn in green underneath, or None.

    Returns:
        uint8 ``(size, size, 3)`` RGB, antialiased, so that motion far below one pixel still
        changes it.
    """
    fine = _supersampling(size)
    scale = size * fine / _ARENA  # canvas px per arena px
    excess = _FILL_EXCESS / scale
    polygons: list[_Shape] = []
    regions = []
    if goal is not None:
        target = _place(_PARTS - excess * _SIGNS, goal[2:5])
        polygons += [(part, _GOAL) for part in target]
        regions.append(target)
    outer = _place(_PARTS + (_OUTLINE - excess) * _SIGNS, state[2:5])
    inner = _place(_PARTS - (_OUTLINE + excess) * _SIGNS, state[2:5])
    for k in range(len(_PARTS)):
        polygons += [(outer[k], _BLOCK_EDGE), (inner[k], _BLOCK_FILL)]
    agent = np.array([float(state[0]), float(state[1])])
    regions += [outer, agent + np.array([[-_AGENT_RADIUS], [_AGENT_RADIUS]])]
    picture = _background(size).copy()
    for region in regions:
        corners = region.reshape(-1, 2)
        low = np.floor((corners.min(axis=0) - 2.0) * (scale / fine)).clip(0, size)
        high = np.ceil((corners.max(axis=0) + 2.0) * (scale / fine)).clip(0, size)
        box = (int(low[0]), int(low[1]), int(high[0]), int(high[1]))
        if box[0] < box[2] and box[1] < box[3]:
            _redraw(picture, box, polygons, agent, fine, scale)
    return picture


def _redraw(
    picture: np.ndarray,
    box: tuple[int, int, int, int],
    polygons: list[_Shape],
    agent: np.ndarray,
    fine: int,
    scale: float,
) -> None:
    """Draw what lies in ``box`` (x0, y0, x1, y1) [picture px], polygons from back to front."""
    x0, y0, x1, y1 = box
    canvas = np.full(((y1 - y0) * fine, (x1 - x0) * fine, 3), 255, np.uint8)
    one = 1 << _SHIFT
    # gym-pusht's pixel i is centred on coordinate i, hence the half pixels.
    shift = 0.5 * scale - 0.5 - np.array([x0 * fine, y0 * fine])
    for points, colour in polygons:
        fixed = np.rint((points * scale + shift) * one).astype(np.int32)
        cv2.fillConvexPoly(canvas, fixed, colour, cv2.LINE_AA, _SHIFT)
    centre = np.rint((agent * scale + shift) * one).astype(int).tolist()
    for radius, colour in ((_AGENT_RADIUS, _AGENT_EDGE), (_AGENT_INNER, _AGENT_FILL)):
        reach = round((radius * scale - _FILL_EXCESS) * one)
        cv2.circle(canvas, centre, reach, colour, -1, cv2.LINE_AA, _SHIFT)
    patch = canvas
    if fine > 1:
        patch = cv2.resize(canvas, (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA)
    edge = math.ceil(8 * scale / fine)
    if min(box) < edge or max(box) > len(picture) - edge:
        # The walls lie on top of everything, as in gym-pusht.
        cover = _wall_cover(len(picture))[y0:y1, x0:x1]
        patch = np.rint(patch + cover * (np.array(_WALL) - patch))
    picture[y0:y1, x0:x1] = patch


def _supersampling(size: int) -> int:
    """Canvas pixels per picture pixel: the canvas is about as fine as the arena's own 512 px."""
    return max(1, min(4, round(512 / size)))


@functools.lru_cache(maxsize=8)
def _background(size: int) -> np.ndarray:
    """The empty arena."""
    cover = _wall_cover(size)
    picture = np.array(_BACKGROUND) + cover * (np.array(_WALL) - np.array(_BACKGROUND))
    return np.rint(picture).astype(np.uint8)


@functools.lru_cache(maxsize=8)
def _wall_cover(size: int) -> np.ndarray:
    """Fraction of each pixel that the walls (4 px wide) cover, ``(size, size, 1)``."""
    full = np.zeros((512, 512), np.float32)
    full[3:508, 3:508] = 1.0
    full[7:504, 7:504] = 0.0
    interpolation = cv2.INTER_AREA if size <= 512 else cv2.INTER_LINEAR
    return cv2.resize(full, (size, size), interpolation=interpolation)[..., None]


def _place(points: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Body points ``(..., 2)`` at ``pose`` (x, y, angle)."""
    x, y, angle = (float(v) for v in pose)
    c, s = math.cos(angle), math.sin(angle)
    return points @ np.array([[c, s], [-s, c]]) + np.array([x, y])
