"""The task of docs/tasks.md as a package of somebody else's: a folder with its metadata."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def own_package(folder: Path, entry_point: bool = True) -> Path:
    """Write the module and, as an installer would, what the distribution declares.

    Args:
        folder: created; belongs on the Python path.
        entry_point: whether it declares the task.
    """
    text = (ROOT / "docs" / "tasks.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (points,) = re.findall(r"```toml\n\[project.entry-points.*?\]\n(.*?)```", text, re.DOTALL)
    info = folder / "slider-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "slider.py").write_text(code)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: slider\nVersion: 1.0\n")
    if entry_point:
        declared = points.replace('"', "")
        (info / "entry_points.txt").write_text(f"[wm_mpc.tasks]\n{declared}")
    return folder
