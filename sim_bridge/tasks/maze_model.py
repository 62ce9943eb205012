"""The MuJoCo models of gymnasium-robotics' PointMaze: the ball, the floor and the walls."""

from __future__ import annotations

import importlib.util
import math
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import mujoco


@dataclass(frozen=True)
class Maze:
    """Walls and floor.

    Attributes:
        name: key of ``MAZES``.
        cells: rows from +y to -y, columns from -x to +x, cells of 1 m; the middle is the origin,
            1 is a wall.
        view: width and height of pictures [m]: all that the ball can reach, and 0.3 m of the walls
            around.
        hidden: a position (x, y) inside a wall, where the ball cannot be seen.
        shown: the middle of a free cell.
    """

    name: str
    cells: tuple[tuple[int, ...], ...]
    view: float
    hidden: tuple[float, float]
    shown: tuple[float, float]

    def cell_of(self, x: float, y: float) -> tuple[int, int]:
        """Row and column that a position [m] lies in; outside of the maze beyond its cells."""
        half = len(self.cells) / 2
        return math.floor(half - y), math.floor(x + half)

    def middle(self, row: int, column: int) -> tuple[float, float]:
        """Position (x, y) of a cell's middle [m]."""
        half = len(self.cells) / 2
        return column + 0.5 - half, half - row - 0.5

    def is_free(self, row: int, column: int) -> bool:
        """Whether a cell is inside of the maze and no wall."""
        size = len(self.cells)
        return 0 <= row < size and 0 <= column < size and not self.cells[row][column]

    def free_cells(self) -> list[tuple[int, int]]:
        """All cells that are no walls, row by row."""
        size = range(len(self.cells))
        return [(i, j) for i in size for j in size if not self.cells[i][j]]


UMAZE = Maze(
    "umaze",
    ((1, 1, 1, 1, 1), (1, 0, 0, 0, 1), (1, 1, 1, 0, 1), (1, 0, 0, 0, 1), (1, 1, 1, 1, 1)),
    view=3.6,
    hidden=(-1.0, 0.0),
    shown=(1.0, 0.0),
)
MEDIUM = Maze(
    "medium",
    (
        (1, 1, 1, 1, 1, 1, 1, 1),
        (1, 0, 0, 1, 1, 0, 0, 1),
        (1, 0, 0, 1, 0, 0, 0, 1),
        (1, 1, 0, 0, 0, 1, 1, 1),
        (1, 0, 0, 1, 0, 0, 0, 1),
        (1, 0, 1, 0, 0, 1, 0, 1),
        (1, 0, 0, 0, 1, 0, 0, 1),
        (1, 1, 1, 1, 1, 1, 1, 1),
    ),
    view=6.6,
    hidden=(0.0, 2.5),
    shown=(-0.5, 0.5),
)
MAZES = {maze.name: maze for maze in (UMAZE, MEDIUM)}

WALL_HEIGHT = 0.4
"""[m]"""
MAX_PICTURE = 2048
"""Largest picture the model's off-screen buffer takes [px]."""


def build_model(maze: Maze = UMAZE) -> mujoco.MjModel:
    """Compile a maze from the ball's description in the installed gymnasium-robotics.

    Raises:
        ModuleNotFoundError: mujoco or gymnasium-robotics is missing.
    """
    import mujoco

    # Finding the package instead of importing it saves a second and its notices.
    package = importlib.util.find_spec("gymnasium_robotics")
    if package is None or package.origin is None:
        raise ModuleNotFoundError(
            "gymnasium-robotics is missing; PointMaze needs it: pip install 'wm-mpc[sim]'"
        )
    tree = ElementTree.parse(Path(package.origin).parent / "envs/assets/point/point.xml")
    world = tree.find(".//worldbody")
    visual = tree.find(".//visual")
    assert world is not None and visual is not None, "point.xml has neither world nor visuals"
    half_height = WALL_HEIGHT / 2
    for i, row in enumerate(maze.cells):
        for j, cell in enumerate(row):
            if cell:
                x, y = maze.middle(i, j)
                ElementTree.SubElement(
                    world,
                    "geom",
                    name=f"block_{i}_{j}",
                    pos=f"{x:g} {y:g} {half_height}",
                    size=f"0.5 0.5 {half_height}",
                    type="box",
                    contype="1",
                    conaffinity="1",
                    rgba="0.7 0.5 0.3 1.0",
                )
    ElementTree.SubElement(visual, "global", offwidth=str(MAX_PICTURE), offheight=str(MAX_PICTURE))
    return mujoco.MjModel.from_xml_string(ElementTree.tostring(tree.getroot(), "unicode"))
