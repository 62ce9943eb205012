"""Draw the pictures of the concept pages: ``python tools/concept_pictures.py [docs/images]``.

Boxes and arrows are told here as text, so that they can be reviewed as text. ``own_cost.svg`` is
drawn from what examples/own_cost.py really drives.
"""

from __future__ import annotations

import argparse
import runpy
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
INK, SOFT, GOAL, PLAN, BLUE, PAPER = (
    "#1c1e22", "#6e727a", "#22a054", "#e25822", "#3b6ea5", "#fafaf8",
)  # fmt: skip


class Drawing:
    """An SVG in the making.

    Args:
        width, height: [px] of the picture.
    """

    def __init__(self, width: int, height: int) -> None:
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" font-family="sans-serif" font-size="13">',
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
            f'markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" fill="{SOFT}"/></marker>'
            "</defs>",
            f'<rect width="{width}" height="{height}" fill="{PAPER}"/>',
        ]

    def text(
        self, x: float, y: float, words: str, fill: str = INK, size: int = 13,
        anchor: str = "start",
    ) -> None:  # fmt: skip
        """One line of text whose baseline begins (or is centred, or ends) at x, y."""
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" fill="{fill}" font-size="{size}" '
            f'text-anchor="{anchor}">{escape(words)}</text>'
        )

    def box(
        self, x: float, y: float, w: float, h: float, *lines: str, edge: str = INK,
        fill: str = "#ffffff",
    ) -> None:  # fmt: skip
        """A box with centred lines, the first in ink and the others soft."""
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="5" fill="{fill}" '
            f'stroke="{edge}" stroke-width="1.4"/>'
        )
        top = y + h / 2 - 8 * (len(lines) - 1) + 4.5
        for k, words in enumerate(lines):
            colour, size = (INK, 13) if k == 0 else (SOFT, 11)
            self.text(x + w / 2, top + 16 * k, words, colour, size, "middle")

    def arrow(self, *points: tuple[float, float], words: str = "", dash: bool = False) -> None:
        """A bent arrow, with a word beside the middle of its first piece."""
        way = " ".join(f"{x:g},{y:g}" for x, y in points)
        style = ' stroke-dasharray="5 4"' if dash else ""
        self.parts.append(
            f'<polyline points="{way}" fill="none" stroke="{SOFT}" stroke-width="1.4"'
            f'{style} marker-end="url(#tip)"/>'
        )
        if words:
            (a, b), (c, d) = points[0], points[1]
            self.text((a + c) / 2, (b + d) / 2 - 5, words, SOFT, 11, "middle")

    def line(
        self, points: list[tuple[float, float]], colour: str, width: float = 2.0,
        dash: str = "",
    ) -> None:  # fmt: skip
        """A plain line."""
        way = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        style = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(
            f'<polyline points="{way}" fill="none" stroke="{colour}" '
            f'stroke-width="{width:g}"{style}/>'
        )

    def dot(self, x: float, y: float, colour: str, radius: float = 5) -> None:
        """A filled circle."""
        self.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" fill="{colour}"/>')

    def svg(self) -> str:
        """The file."""
        return "\n".join([*self.parts, "</svg>\n"])


def world_model() -> str:
    """Picture to latent, latent and action to the next latent."""
    d = Drawing(760, 236)
    d.box(14, 30, 96, 56, "picture", "of the camera")
    d.box(150, 30, 104, 56, "encoder", "frozen DINOv2", edge=BLUE)
    d.box(294, 30, 104, 56, "projector", "tokens to numbers", edge=BLUE)
    d.box(438, 30, 96, 56, "latent", "z now", fill="#eef3f9")
    d.box(578, 30, 104, 56, "predictor", "one model step", edge=BLUE)
    d.box(578, 142, 104, 56, "latent", "z one step on", fill="#eef3f9")
    for a, b in ((110, 150), (254, 294), (398, 438), (534, 578)):
        d.arrow((a, 58), (b, 58))
    d.arrow((630, 86), (630, 142))
    d.arrow((578, 170), (486, 170), (486, 86), dash=True)
    d.text(480, 190, "again and again: a rollout", SOFT, 11, "middle")
    d.box(294, 142, 104, 56, "joints", "proprioception")
    d.arrow((398, 160), (456, 160), (456, 86))
    d.box(700, 142, 54, 56, "action")
    d.arrow((727, 142), (727, 58), (682, 58))
    d.text(14, 170, "world model = encoder,", SOFT)
    d.text(14, 188, "projector and predictor", SOFT)
    d.text(14, 224, "Trained on recordings of motion alone: no rewards, no goals.", SOFT, 12)
    return d.svg()


def receding_horizon() -> str:
    """A plan, its first command, and the same plan shifted for the next tick."""
    d = Drawing(760, 250)
    for k in range(9):
        x = 200 + 60 * k
        d.line([(x, 22), (x, 216)], "#e3e3df", 1)
        d.text(x, 236, "now" if k == 1 else f"{k - 1:+d}", SOFT, 11, "middle")
    rows = (
        (50, 0, PLAN, "plan of the last tick"),
        (112, 1, PLAN, "shifted: the warm start"),
        (174, 1, GOAL, "improved until the deadline"),
    )
    for y, begin, colour, words in rows:
        d.text(190, y + 5, words, INK, 12, "end")
        for k in range(6):
            x = 200 + 60 * (begin + k)
            fresh = begin == 1 and k == 5
            height = 16 if not fresh else 8
            fill = "#f3d9cf" if colour == PLAN else "#cfe8d8"
            d.box(x + 3, y - height, 54, 2 * height, "", edge=colour,
                  fill="#ffffff" if fresh else fill)  # fmt: skip
    d.text(230, 54, "executed", INK, 11, "middle")
    d.text(290, 178, "this one", INK, 11, "middle")
    d.arrow((290, 192), (290, 214))
    d.text(745, 212, "sent to the filter; everything else may change in the next tick",
           SOFT, 11, "end")  # fmt: skip
    return d.svg()


def tick() -> str:
    """Where the time of a tick goes."""
    d = Drawing(760, 190)
    left, scale = 60, 6.4  # px per ms
    parts = (
        (0, 9, "encode", "#dfe8f2"), (9, 41, "plan: chunks of iterations", "#cfe8d8"),
        (41, 44, "filter", "#f3d9cf"),
    )  # fmt: skip
    for begin, end, words, fill in parts:
        x, w = left + scale * begin, scale * (end - begin)
        d.box(x, 60, w, 44, words if w > 30 else "", fill=fill, edge=SOFT)
    for k in range(1, 8):
        x = left + scale * (9 + 4 * k)
        d.line([(x, 64), (x, 100)], SOFT, 1)
    d.text(left + scale * 42.5, 122, "filter", SOFT, 11, "middle")
    for at, words, colour in ((0, "picture taken", INK), (41, "deadline of planning", PLAN),
                              (100, "next picture", INK)):  # fmt: skip
        x = left + scale * at
        d.line([(x, 44), (x, 118)], colour, 1.6, "" if colour == INK else "5 4")
        d.text(x, 36, words, colour, 12, "middle" if 0 < at < 100 else ("start", "end")[at > 0])
    d.line([(left, 140), (left + 100 * scale, 140)], SOFT, 1)
    d.text(left + 50 * scale, 158, "control period: 100 ms at 10 Hz", SOFT, 12, "middle")
    d.text(left, 180, "An iteration begins only if the pace so far says that it ends in time; "
           "what the tick does not use stays free.", SOFT, 11)  # fmt: skip
    return d.svg()


def gap() -> str:
    """Why a model is wrong where the planner goes, and what closes it."""
    d = Drawing(760, 236)
    d.box(20, 26, 200, 60, "recordings", "a behaviour that knows no goals")
    d.box(280, 26, 200, 60, "world model", "right where the data were", edge=BLUE)
    d.box(540, 26, 200, 60, "planner", "looks for the cheapest prediction")
    d.arrow((220, 56), (280, 56), words="train")
    d.arrow((480, 56), (540, 56), words="ask")
    d.box(540, 140, 200, 60, "plan", "where the model errs in its favour", edge=PLAN)
    d.arrow((640, 86), (640, 140))
    d.box(280, 140, 200, 60, "what really happened", "simulator or robot", edge=GOAL)
    d.arrow((540, 170), (480, 170), words="execute")
    d.arrow((380, 140), (380, 86), words="")
    d.text(392, 118, "train again: the train-test gap closes", GOAL, 12)
    d.text(20, 170, "Plans that only the model believes in", SOFT, 12)
    d.text(20, 188, "are found, executed and learned from.", SOFT, 12)
    d.text(20, 224, "online fine-tuning (wm-mpc finetune --method online, trainer_node)", SOFT, 12)
    return d.svg()


def own_planner() -> str:
    """What the base class of planners does, and what is left to write."""
    d = Drawing(760, 200)
    d.box(14, 20, 732, 166, "", fill="#f4f6f8", edge=SOFT)
    d.text(28, 42, "AnytimePlanner: deadline, pace, transitions, bounds, best finite plan", SOFT)
    d.box(30, 70, 130, 60, "begin", "warm start, draws", edge=PLAN)
    d.box(230, 70, 150, 60, "advance(n)", "n iterations, no waiting", edge=PLAN)
    d.box(450, 70, 120, 60, "in time?", "by the pace seen")
    d.box(620, 70, 110, 60, "best", "plan and cost", edge=PLAN)
    for a, b in ((160, 230), (380, 450), (570, 620)):
        d.arrow((a, 100), (b, 100), words="no" if a == 570 else "")
    d.arrow((510, 130), (510, 160), (305, 160), (305, 130))
    d.text(408, 154, "yes", SOFT, 11, "middle")
    d.text(28, 178, "orange: what you write; kernels give cost and gradient", PLAN, 12)
    return d.svg()


def own_cost() -> str:
    """The two ways that examples/own_cost.py drives."""
    example = runpy.run_path(str(ROOT / "examples" / "own_cost.py"))
    d = Drawing(560, 300)
    scale, left, top = 4.2, 30, 12

    def at(x: float, y: float) -> tuple[float, float]:
        return left + scale * x, top + scale * y

    d.box(left, top, 65 * scale, 65 * scale, "", edge=SOFT)
    x, y = at(*example["PLACE"])
    d.dot(x, y, "#f3d9cf", scale * example["RADIUS"])
    for own, colour, words in ((False, SOFT, "goal cost"), (True, PLAN, "with the charge")):
        way, _ = example["drive"](own)
        d.line([at(*point) for point in way], colour, 2.5)
        for point in way:
            d.dot(*at(*point), colour, 3)
        d.line([(330, 60 + 30 * own), (360, 60 + 30 * own)], colour, 2.5)
        d.text(370, 64 + 30 * own, words)
    for place, colour, words in (
        (example["START"], BLUE, "start"), (example["GOAL"], GOAL, "goal"),
    ):  # fmt: skip
        d.dot(*at(*place), colour, 6)
        d.text(at(*place)[0] + 12, at(*place)[1] + 4, words, colour, 12)
    d.text(330, 130, "left room of Wall, seen from above;", SOFT, 12)
    d.text(330, 148, "dots: control steps", SOFT, 12)
    return d.svg()


PICTURES = {
    "world_model.svg": world_model,
    "receding_horizon.svg": receding_horizon,
    "tick.svg": tick,
    "gap_idea.svg": gap,
    "own_planner.svg": own_planner,
}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, nargs="?", default=ROOT / "docs" / "images")
    folder = parser.parse_args().out
    for name, draw in {**PICTURES, "own_cost.svg": own_cost}.items():
        (folder / name).write_text(draw())
