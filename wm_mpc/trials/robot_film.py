"""A film of a robot trial: the camera beside the goal picture, and the distance over time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw

from wm_mpc.data.goals import RobotGoal
from wm_mpc.trials.robot_trial import Attempt

_SIDE, _GAP, _FOOT = 240, 10, 70
_PAPER, _INK, _SOFT, _GOOD = (250, 250, 248), (28, 30, 34), (110, 114, 122), (40, 140, 90)


def write_film(
    path: Path, attempts: Sequence[Attempt], goals: Sequence[RobotGoal], tolerance: float
) -> Path:
    """Write the attempts one after another as an animated WebP."""
    frames = [
        frame(attempt, index, goals[attempt.number].image, tolerance)
        for attempt in attempts
        for index in range(0, len(attempt.images), 2)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100, loop=0, quality=70)
    return path


def frame(attempt: Attempt, index: int, goal: np.ndarray, tolerance: float) -> Image.Image:
    """One moment: camera, goal, and the course of the distance up to it."""
    width, height = 2 * _SIDE + 3 * _GAP, _SIDE + _FOOT + 3 * _GAP
    canvas = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(canvas)
    for place, picture in enumerate((attempt.images[index], goal)):
        large = cv2.resize(picture, (_SIDE, _SIDE), interpolation=cv2.INTER_NEAREST)
        canvas.paste(Image.fromarray(large), (_GAP + place * (_SIDE + _GAP), _GAP))
    now = attempt.times[-1] * (index + 1) / len(attempt.images)
    top, bottom = _SIDE + 2 * _GAP, height - _GAP
    most = max(*attempt.distances, tolerance, 1e-9)
    across = (width - 2 * _GAP) / attempt.times[-1]

    def at(seconds: float, distance: float) -> tuple[float, float]:
        return _GAP + seconds * across, bottom - (bottom - top) * distance / most

    draw.line([at(0, tolerance), at(attempt.times[-1], tolerance)], _GOOD)
    course = [
        at(seconds, distance)
        for seconds, distance in zip(attempt.times, attempt.distances, strict=True)
        if seconds <= now
    ]
    if len(course) > 1:
        draw.line(course, _INK, 2)
    draw.text((_GAP + 4, top), f"goal {attempt.number}, {now:.1f} s", _SOFT)
    return canvas
