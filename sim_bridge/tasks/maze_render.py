"""PointMaze pictures: MuJoCo draws maze and ball once, then the ball is composited, fast.

The camera looks straight down with parallel projection, so the ball looks the same everywhere and
only walls, which are taller, can hide it. MuJoCo runs in a process of its own, which tries EGL and
then OSMesa (or what ``MUJOCO_GL`` names): a broken driver cannot take the caller down, and the
caller's own MuJoCo may use any backend.
"""

from __future__ import annotations

import functools
import math
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from sim_bridge.tasks.maze_model import MAX_PICTURE, MAZES, UMAZE, Maze, build_model

BALL_RADIUS = 0.2
"""Radius of the drawn ball [m]; the colliding one measures 0.1."""

_TIMEOUT_S = 120.0


def render_maze(position: np.ndarray, size: int, maze: Maze = UMAZE) -> np.ndarray:
    """Picture of the maze with the ball at ``position`` (2,) [m].

    Returns:
        uint8 ``(size, size, 3)`` RGB; +x is right, +y is up.

    Raises:
        RuntimeError: MuJoCo can render with neither EGL nor OSMesa here; names the apt packages.
    """
    sprites = _sprites(size, maze)
    picture = sprites.background.copy()
    fine = sprites.fine
    scale = size / maze.view
    centre = np.array([position[0] + maze.view / 2, maze.view / 2 - position[1]]) * scale
    reach = BALL_RADIUS * scale + 1.0
    x0, y0 = (max(0, math.floor(c - reach)) for c in centre)
    x1, y1 = (min(size, math.ceil(c + reach)) for c in centre)
    if x0 >= x1 or y0 >= y1:
        return picture
    columns = (np.arange(x0 * fine, x1 * fine) + 0.5) / fine - centre[0]
    rows = (np.arange(y0 * fine, y1 * fine) + 0.5) / fine - centre[1]
    distance = np.sqrt(rows[:, None] ** 2 + columns**2) / (BALL_RADIUS * scale)
    fine_box = np.s_[y0 * fine : y1 * fine, x0 * fine : x1 * fine]
    visible = (distance < 1.0) & sprites.floor[fine_box]
    shade = sprites.profile[
        np.minimum(distance * len(sprites.profile), len(sprites.profile) - 1).astype(np.intp)
    ]
    patch = np.where(visible[..., None], shade, sprites.fine_background[fine_box])
    picture[y0:y1, x0:x1] = cv2.resize(patch, (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA)
    return picture


def render_with_mujoco(positions: np.ndarray, size: int, maze: Maze = UMAZE) -> np.ndarray:
    """Pictures that MuJoCo itself draws, in a process of its own; slow to start.

    Args:
        positions: ball positions ``(n, 2)`` [m].
        size: height and width [px], at most 2048.
        maze: one of ``MAZES``.

    Returns:
        uint8 ``(n, size, size, 3)`` RGB.

    Raises:
        RuntimeError: no OpenGL backend works; names the apt packages.
    """
    if not 1 <= size <= MAX_PICTURE:
        raise ValueError(f"size: {size} px is outside [1, {MAX_PICTURE}]")
    wanted = os.environ.get("MUJOCO_GL", "").lower()
    backends = (wanted,) if wanted in ("egl", "osmesa", "glfw") else ("egl", "osmesa")
    failures = []
    with tempfile.TemporaryDirectory() as folder:
        request, answer = Path(folder) / "request.npz", Path(folder) / "answer.npy"
        places = np.asarray(positions, np.float64)
        np.savez(request, positions=places, size=size, maze=maze.name)
        root = str(Path(__file__).parents[2])
        search_path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        for backend in backends:
            environment = {**os.environ, "MUJOCO_GL": backend, "PYTHONPATH": search_path}
            environment.pop("PYOPENGL_PLATFORM", None)
            command = [sys.executable, "-m", __name__, str(request), str(answer)]
            try:
                run = subprocess.run(
                    command, env=environment, capture_output=True, text=True, timeout=_TIMEOUT_S
                )
            except subprocess.TimeoutExpired:
                failures.append(f"{backend}: no answer within {_TIMEOUT_S:.0f} s")
                continue
            if run.returncode == 0:
                return np.load(answer)
            last = (run.stderr.strip().splitlines() or [f"exit code {run.returncode}"])[-1]
            failures.append(f"{backend}: {last}")
    raise RuntimeError(
        "MuJoCo cannot render here; install one of: apt-get install libegl1 libgl1-mesa-dri, or "
        f"apt-get install libosmesa6 ({'; '.join(failures)})"
    )


@dataclass(frozen=True)
class _Sprites:
    """What compositing needs for one picture size."""

    fine: int  # fine pixels per picture pixel
    background: np.ndarray  # uint8 (size, size, 3), no ball
    fine_background: np.ndarray  # uint8 (size * fine, size * fine, 3)
    floor: np.ndarray  # bool (size * fine, size * fine), False under walls
    profile: np.ndarray  # uint8 (n, 3), colour of the ball from its centre to its rim


@functools.lru_cache(maxsize=4)
def _sprites(size: int, maze: Maze) -> _Sprites:
    # Fine enough to smooth edges and to measure the ball, within what MuJoCo's buffer takes.
    fine = max(1, min(MAX_PICTURE // size, max(2, math.ceil(384 / size))))
    n = size * fine
    empty, shown = render_with_mujoco(np.array([maze.hidden, maze.shown]), n, maze)
    return _Sprites(
        fine=fine,
        background=cv2.resize(empty, (size, size), interpolation=cv2.INTER_AREA),
        fine_background=empty,
        floor=_floor(n, maze),
        profile=_profile(shown, maze),
    )


def _profile(picture: np.ndarray, maze: Maze) -> np.ndarray:
    """Colour of the ball by distance from its centre, from a picture with it at ``shown``."""
    n, view = len(picture), maze.view
    pixels = (np.arange(n) + 0.5) * (view / n) - view / 2
    distance = np.hypot(pixels - maze.shown[0], pixels[:, None] + maze.shown[1]) / BALL_RADIUS
    # The rim is mixed with the floor in the picture; rings beyond take the last clean colour.
    rim = 1.0 - view / n / BALL_RADIUS
    samples = picture[distance < rim].astype(np.float64)
    radii = distance[distance < rim]
    rings = np.linspace(0.0, 1.0, 33)
    half_width = view / n / BALL_RADIUS  # every ring holds at least a few pixels
    near = np.abs(radii - np.minimum(0.5 * (rings[1:] + rings[:-1]), rim)[:, None]) < half_width
    return np.rint(near @ samples / near.sum(1, keepdims=True)).astype(np.uint8)


def _floor(n: int, maze: Maze) -> np.ndarray:
    """Pixels of an ``(n, n)`` picture whose centre lies in a free cell."""
    cell = np.floor((np.arange(n) + 0.5) * (maze.view / n) - maze.view / 2 + len(maze.cells) / 2)
    cell = cell.astype(int)
    return np.array(maze.cells)[np.ix_(cell, cell)] == 0


def _draw_request(request: Path, answer: Path) -> None:
    """Draw with this process's backend; the entry point of the process that owns OpenGL."""
    import mujoco

    loaded = np.load(request)
    size = int(loaded["size"])
    maze = MAZES[str(loaded["maze"])]
    model = build_model(maze)
    model.vis.global_.fovy = maze.view  # with parallel projection: the height of the view [m]
    data = mujoco.MjData(model)
    camera = mujoco.MjvCamera()
    camera.type = mujoco.mjtCamera.mjCAMERA_FREE
    camera.orthographic = 1
    camera.lookat[:] = 0.0
    camera.distance, camera.azimuth, camera.elevation = maze.view, 90.0, -90.0
    with mujoco.Renderer(model, size, size) as renderer:
        pictures = np.empty((len(loaded["positions"]), size, size, 3), np.uint8)
        for k, position in enumerate(loaded["positions"]):
            data.qpos[:] = position
            mujoco.mj_forward(model, data)
            renderer.update_scene(data, camera)
            flags = renderer.scene.flags
            flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
            flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
            pictures[k] = renderer.render()
    np.save(answer, pictures)


if __name__ == "__main__":
    _draw_request(Path(sys.argv[1]), Path(sys.argv[2]))
