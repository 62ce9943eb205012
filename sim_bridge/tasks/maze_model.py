"""The MuJoCo model of gymnasium-robotics' PointMaze_UMaze: its ball, its floor and its walls."""

from __future__ import annotations

import importlib.util
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import mujoco

# Rows from +y to -y, columns from -x to +x, cells of 1 m centred on the origin; 1 is a wall.
CELLS = ((1, 1, 1, 1, 1), (1, 0, 0, 0, 1), (1, 1, 1, 0, 1), (1, 0, 0, 0, 1), (1, 1, 1, 1, 1))
VIEW = 3.6
"""Width and height of pictures [m]: all that the ball can reach, and 0.3 m of the walls around."""
WALL_HEIGHT = 0.4
"""[m]"""
MAX_PICTURE = 2048
"""Largest picture the model's off-screen buffer takes [px]."""


def build_model() -> mujoco.MjModel:
    """Compile the maze from the ball's description in the installed gymnasium-robotics.

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
    for i, row in enumerate(CELLS):
        for j, cell in enumerate(row):
            if cell:
                ElementTree.SubElement(
                    world,
                    "geom",
                    name=f"block_{i}_{j}",
                    pos=f"{j - 2} {2 - i} {half_height}",
                    size=f"0.5 0.5 {half_height}",
                    type="box",
                    contype="1",
                    conaffinity="1",
                    rgba="0.7 0.5 0.3 1.0",
                )
    ElementTree.SubElement(visual, "global", offwidth=str(MAX_PICTURE), offheight=str(MAX_PICTURE))
    return mujoco.MjModel.from_xml_string(ElementTree.tostring(tree.getroot(), "unicode"))
