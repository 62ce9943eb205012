#!/usr/bin/env python3
"""Draw docs/images/architecture.svg from the imports themselves.

Rooms with their lines of code, and the arrows between them; an arrow that a longer way implies
is left out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import grimp
import matplotlib
import tomllib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "docs" / "images" / "architecture.svg"
# floors of the picture, top to bottom; the law itself is the layers contract in pyproject.toml
FLOORS = (
    ("cli", "sim_bridge"),
    ("trials",),
    ("nodes",),
    ("training",),
    ("evaluation",),
    ("control",),
    ("planners", "tasks", "latents"),
    ("models", "data"),
    ("viz", "bringup"),
    ("core",),
)
WIDTH, HEIGHT = 2.6, 0.62


def law() -> list[str]:
    """Rooms in the order of the contract, top to bottom."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    return next(c["layers"] for c in contracts["contracts"] if c["type"] == "layers")


def lines_of(room: str) -> int:
    """Lines of Python in a room."""
    folder = ROOT / room if room == "sim_bridge" else ROOT / "wm_mpc" / room
    return sum(len(path.read_text().splitlines()) for path in folder.rglob("*.py"))


def arrows(rooms: list[str]) -> set[tuple[str, str]]:
    """Pairs (importing room, imported room)."""
    graph = grimp.build_graph("wm_mpc", "sim_bridge")
    home = {}
    for room in rooms:
        root = room if room == "sim_bridge" else f"wm_mpc.{room}"
        home.update(dict.fromkeys({root, *graph.find_descendants(root)}, room))
    return {
        (home[module], home[target])
        for module in home
        for target in graph.find_modules_directly_imported_by(module)
        if target in home and home[target] != home[module]
    }


def shortest(pairs: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Arrows that no longer way implies: ``a -> c`` goes where ``a -> b -> ... -> c`` exists."""

    def below(room: str) -> set[str]:
        direct = {b for a, b in pairs if a == room}
        return direct.union(*(below(b) for b in direct))

    return {
        (a, c)
        for a, c in pairs
        if not any(c in below(b) for x, b in pairs if x == a and b != c)
    }


def draw(out: Path) -> None:
    """Write the picture."""
    rooms = [*law(), "sim_bridge"]
    if sorted(rooms) != sorted(room for floor in FLOORS for room in floor):
        raise SystemExit(f"rooms: {rooms} of the contract; FLOORS of this file has others")
    places = {
        room: (3.6 * (i - (len(floor) - 1) / 2), -1.15 * level)
        for level, floor in enumerate(FLOORS)
        for i, room in enumerate(floor)
    }
    figure, axes = plt.subplots(figsize=(9, 9.5))
    for above, below in sorted(shortest(arrows(rooms))):
        (x0, y0), (x1, y1) = places[above], places[below]
        bend = 0.0 if abs(y0 - y1) < 1.5 else 0.22 if (x0 + x1) >= 0 else -0.22
        axes.add_patch(
            FancyArrowPatch(
                (x0, y0 - HEIGHT / 2), (x1, y1 + HEIGHT / 2), arrowstyle="-|>", mutation_scale=9,
                connectionstyle=f"arc3,rad={bend}", color="#5b6b80", linewidth=1.0, zorder=1,
            )
        )  # fmt: skip
    for room, (x, y) in places.items():
        box = (x - WIDTH / 2, y - HEIGHT / 2)
        colour = "#e8f0e4" if room == "sim_bridge" else "#eaf1fb"
        axes.add_patch(
            FancyBboxPatch(
                box, WIDTH, HEIGHT, boxstyle="round,pad=0.02,rounding_size=0.12",
                facecolor=colour, edgecolor="#30507a", zorder=2,
            )
        )  # fmt: skip
        text = f"{room}\n{lines_of(room):,} lines"
        axes.text(x, y, text, ha="center", va="center", fontsize=9, zorder=3)
    axes.set_xlim(-5.6, 5.6)
    axes.set_ylim(-1.15 * (len(FLOORS) - 1) - 0.7, 0.7)
    axes.axis("off")
    plt.rcParams["svg.hashsalt"] = "wm_mpc"
    figure.savefig(out, bbox_inches="tight", metadata={"Date": None})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT, help="SVG file to write")
    draw(parser.parse_args().out)
