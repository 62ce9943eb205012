"""Films of episodes: camera, goal, and the plan of every moment, as animated WebP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from wm_mpc.tasks.environments import make_env
from wm_mpc.trials.recording import Recording
from wm_mpc.viz.scene import GOAL, PAST, PLAN, Scene

NAME = "film.webp"
"""Film of an episode that reached its goal, if one did."""
FAILURE_NAME = "film_failure.webp"
"""Film of an episode that did not, if there is one beside it."""
STILL_NAME = "still.png"
"""One picture of the film."""

_MAIN, _SIDE, _GAP, _HEAD, _FOOT = 400, 176, 14, 44, 74
_WIDTH = _MAIN + _SIDE + 3 * _GAP
_HEIGHT = _HEAD + _MAIN + _FOOT
_LABEL = 18
_PAPER, _INK, _SOFT = (250, 250, 248), (28, 30, 34), (110, 114, 122)
_HOLD_S = 1.5  # the last picture stays


@dataclass(frozen=True)
class Film:
    """A film that was written.

    Attributes:
        path: file.
        episode: number of the episode, from 1.
        success: whether it reached its goal.
        steps: control steps it lasted.
    """

    path: Path
    episode: int
    success: bool
    steps: int


class Camera:
    """Draws the frames of one episode.

    Args:
        scene: of ``_MAIN`` pixels.
        recording: the episode.
        number: of the episode, from 1.
        steps: control-step budget.
        unit: of the headline error.
        period: control period [s].
    """

    def __init__(
        self,
        scene: Scene,
        recording: Recording,
        number: int,
        steps: int,
        unit: str,
        period: float,
    ) -> None:
        self.scene, self.recording, self.number = scene, recording, number
        self.steps, self.unit, self.period = steps, unit, period
        places = [scene.task.in_picture(moment.state) for moment in recording.moments]
        self.places = np.array(places)
        self.errors = [moment.errors["error"] for moment in recording.moments]

    def frame(self, index: int) -> Image.Image:
        """Frame of moment ``index``."""
        recording, moment = self.recording, self.recording.moments[index]
        plan = recording.plan_at(index)
        foreseen = None if plan is None else self.scene.foresee(moment.state, plan.actions)
        picture = self.scene.picture(
            moment.state, recording.goal_state, foreseen, self.places[: index + 1]
        )
        canvas = Image.new("RGB", (_WIDTH, _HEIGHT), _PAPER)
        draw = ImageDraw.Draw(canvas)
        canvas.paste(Image.fromarray(picture), (_GAP, _HEAD))
        right = _MAIN + 2 * _GAP
        self._side(canvas, draw, moment.image, (right, _HEAD), "camera")
        lower = _HEAD + _MAIN - _SIDE - _LABEL
        self._side(canvas, draw, recording.goal_image, (right, lower), "goal picture")
        self._head(draw, moment)
        self._foot(draw, index)
        return canvas

    def _side(
        self,
        canvas: Image.Image,
        draw: ImageDraw.ImageDraw,
        picture: np.ndarray | None,
        corner: tuple[int, int],
        label: str,
    ) -> None:
        """A picture as the controller gets it, enlarged without smoothing."""
        x, y = corner
        if picture is not None:
            large = cv2.resize(picture, (_SIDE, _SIDE), interpolation=cv2.INTER_NEAREST)
            canvas.paste(Image.fromarray(large), (x, y))
            label = f"{label}, {picture.shape[1]} x {picture.shape[0]} px"
        draw.rectangle((x, y, x + _SIDE - 1, y + _SIDE - 1), outline=(200, 200, 200))
        draw.text((x, y + _SIDE + 4), label, _SOFT, _font(12))

    def _head(self, draw: ImageDraw.ImageDraw, moment: Any) -> None:
        title = f"episode {self.number}, {moment.step * self.period:.1f} s"
        draw.text((_GAP, 13), title, _INK, _font(17))
        x = _GAP + 190
        for colour, label in ((PLAN, "plan"), (GOAL, "goal"), (PAST, "path so far")):
            draw.ellipse((x, 19, x + 9, 28), fill=colour)
            draw.text((x + 15, 16), label, _SOFT, _font(13))
            x += 27 + draw.textlength(label, _font(13))
        if moment.success:
            words = "goal reached"
            x = _WIDTH - _GAP - draw.textlength(words, _font(17))
            draw.text((x, 13), words, GOAL, _font(17))

    def _foot(self, draw: ImageDraw.ImageDraw, index: int) -> None:
        """Error over time, and what this tick cost."""
        top, bottom = _HEAD + _MAIN + 14, _HEIGHT - 12
        highest = max(self.errors) or 1.0
        x = np.linspace(_GAP, _GAP + _MAIN, self.steps + 1)
        y = bottom - (bottom - top) * np.array(self.errors) / highest
        points = [(x[min(k, self.steps)], y[k]) for k in range(len(y))]
        draw.line((_GAP, bottom, _GAP + _MAIN, bottom), fill=(215, 215, 212))
        if index:
            draw.line(points[: index + 1], fill=PLAN, width=2)
        px, py = points[index]
        draw.ellipse((px - 3, py - 3, px + 3, py + 3), fill=PLAN)
        right = _MAIN + 2 * _GAP
        lines = [f"error {self.errors[index]:.2f} {self.unit}"]
        tick = self.recording.tick_at(index)
        if tick is not None and tick.planned:
            lines.append(f"tick {tick.tick_ms:.0f} of {self.period * 1e3:.0f} ms")
            lines.append(f"planned {tick.plan_ms:.1f} of {tick.budget_ms:.1f} ms")
        for k, line in enumerate(lines):
            draw.text((right, top - 6 + 18 * k), line, _INK if k == 0 else _SOFT, _font(13))


def write(out: Path, measured: Any) -> list[Film]:
    """Write the films and a still of the first one.

    Args:
        out: folder.
        measured: ``wm_mpc.trials.demo_report.Measured``.

    Returns:
        The films, the first under :data:`NAME`.
    """
    task = make_env(measured.task).unwrapped
    scene = Scene(task, _MAIN)
    films = []
    for name, index in zip((NAME, FAILURE_NAME), choose(measured.recordings), strict=False):
        recording = measured.recordings[index]
        camera = Camera(
            scene,
            recording,
            index + 1,
            measured.steps,
            task.spec_task.error_unit,
            measured.period,
        )
        frames = [camera.frame(k) for k in range(len(recording.moments))]
        save(out / name, frames, measured.period)
        if not films:
            frames[telling(camera.errors)].save(out / STILL_NAME, optimize=True)
        films.append(Film(out / name, index + 1, recording.success, len(frames) - 1))
    return films


def choose(recordings: Sequence[Recording]) -> list[int]:
    """Which episodes are worth a film: the longest success, then the first failure."""
    order = range(len(recordings))
    successes = [k for k in order if recordings[k].success]
    failures = [k for k in order if not recordings[k].success]
    longest = max(successes, key=lambda k: len(recordings[k].moments), default=None)
    return ([] if longest is None else [longest]) + failures[:1]


def telling(errors: Sequence[float]) -> int:
    """Moment of an episode that says most in one picture: the error has begun to fall."""
    begun = (k for k, error in enumerate(errors) if error < 0.75 * errors[0])
    return next(begun, len(errors) // 3)


def save(path: Path, frames: Sequence[Image.Image], period: float) -> None:
    """Write an animated WebP that runs in real time and for ever.

    Args:
        path: file.
        frames: at least one.
        period: [s] between two frames.
    """
    durations = [round(period * 1e3)] * (len(frames) - 1) + [round(_HOLD_S * 1e3)]
    frames[0].save(
        path,
        save_all=True,
        append_images=list(frames[1:]),
        duration=durations,
        loop=0,
        quality=80,
        method=3,
    )


def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


__all__ = ["FAILURE_NAME", "NAME", "STILL_NAME", "Camera", "Film", "choose", "save", "write"]
