"""One self-contained HTML page per report: no script, no network; pictures lie in the file.

A command describes its page in plain parts; ``report.html`` is the template, ``page.css`` the
style. Command, machine, commit and versions are taken from the JSON report that it belongs to.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wm_mpc.core.files import write_atomically
from wm_mpc.core.opencv import cv2

Cells = Sequence[Any]
Table = tuple[Sequence[str], Sequence[Cells]]
"""Heads and rows."""


@dataclass(frozen=True)
class Strip:
    """Pictures of one episode, left to right; rows show the same moments.

    Attributes:
        words: what became of it.
        heads: one per moment.
        rows: label, and one uint8 ``(H, W, 3)`` RGB picture per moment; None leaves a gap.
    """

    words: str
    heads: Sequence[str]
    rows: Sequence[tuple[str, Sequence[np.ndarray | None]]]


@dataclass(frozen=True)
class Section:
    """One part of a page; what is empty is left out.

    Attributes:
        title: heading.
        charts: drawings with captions: inline SVG, or a picture file.
        tables: heads and rows.
        strips: film strips.
        note: what a reader must know of them.
    """

    title: str
    charts: Sequence[tuple[str | Path, str]] = ()
    tables: Sequence[Table] = ()
    strips: Sequence[Strip] = ()
    note: str = ""


@dataclass(frozen=True)
class ReportPage:
    """A page.

    Attributes:
        title: the result in one line.
        lead: what was measured, in a sentence or two.
        tiles: (value, label) of the figures that matter.
        sections: top to bottom.
    """

    title: str
    lead: str = ""
    tiles: Sequence[tuple[Any, str]] = ()
    sections: Sequence[Section] = ()


def write_page(report: Path, describe: Callable[[], ReportPage]) -> Path | None:
    """Write a page beside a JSON report, under the same name with ``.html``.

    Args:
        report: file that ``wm_mpc.core.provenance.write_report`` wrote.
        describe: tells what the page shows; may import matplotlib for its charts.

    Returns:
        The page; None, with a word about it, where a package of the extra ``viz`` is missing.
    """
    try:
        template = environment().get_template("report.html")
        page = describe()
    except ImportError as error:
        print(f"page not written: {error.name} is missing (pip install 'wm-mpc[viz]')")
        return None
    path = report.with_suffix(".html")
    facts = json.loads(report.read_text())
    write_atomically(path, template.render(page=page, origin=origin(facts)))
    print(f"page: {path}")
    return path


def environment(*folders: Path) -> Any:
    """Jinja2's environment over the templates here and in ``folders``.

    Raises:
        ImportError: jinja2 is not installed.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader([*folders, Path(__file__).parent])
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    made.filters |= {"png": png, "drawing": _drawing}
    return made


def origin(facts: dict[str, Any]) -> dict[str, Any]:
    """Command and circumstances of a report."""
    machine = facts["machine"]
    versions = ", ".join(f"{name} {value}" for name, value in facts["versions"].items())
    return {
        "command": facts["command"],
        "facts": {
            "seed": "none" if facts["seed"] is None else facts["seed"],
            "started": facts["started"],
            "commit": facts["commit"] or "none",
            "machine": f"{machine['cpu']}, {machine['cores']} cores, "
            f"{machine['gpu'] or 'no GPU'}",
            "versions": versions,
        },
    }


def png(picture: np.ndarray) -> str:
    """An RGB picture as a data URI."""
    _, data = cv2.imencode(".png", picture[:, :, ::-1])
    return data_uri(data.tobytes(), "image/png")


def data_uri(data: bytes, kind: str) -> str:
    """Bytes as a data URI of a media type."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _drawing(drawing: str | Path) -> Any:
    from markupsafe import Markup

    if isinstance(drawing, str):  # SVG of ours, whose texts are escaped
        return Markup(drawing)
    kind = f"image/{drawing.suffix[1:]}"
    return Markup('<img src="{}" alt="{}">').format(
        data_uri(drawing.read_bytes(), kind), drawing.stem
    )


__all__ = ["ReportPage", "Section", "Strip", "data_uri", "environment", "origin", "png",
           "write_page"]  # fmt: skip
