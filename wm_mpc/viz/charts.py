"""Small charts as inline SVG, drawn by matplotlib; they take their colours from the page.

Parts that a page may style or a reader may point at are ``<g class="...">``: ``main`` and
``other`` series, ``bar``, ``mark``, ``course``.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from html import escape
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

_INK = {"ink": "#010101", "soft": "#020202", "line": "#030303", "main": "#040404",
        "other": "#050505"}  # fmt: skip
"""What is drawn in place of the page's CSS variables of these names."""

_STYLE = {
    "svg.fonttype": "none", "font.size": 9, "text.color": _INK["ink"],
    "axes.edgecolor": _INK["line"], "xtick.color": _INK["line"], "ytick.color": _INK["line"],
    "xtick.labelcolor": _INK["soft"], "ytick.labelcolor": _INK["soft"], "grid.color": _INK["line"],
}  # fmt: skip
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


def intervals(rows: Sequence[tuple[str, float, float, float]], width: int = 560) -> str:
    """Rates with their intervals on a common axis from 0 to 100 %.

    Args:
        rows: (label, rate, low, high), each within [0, 1].
        width: [px].
    """
    figure, axes = _axes(width, 34 * len(rows) + 26, left=190, right=60, bottom=20, top=4)
    for k, (label, rate, low, high) in enumerate(rows):
        kind = "main" if k == 0 else "other"
        axes.plot([low, high], [k, k], color=_INK[kind], lw=2.2, gid=kind, clip_on=False)
        axes.plot(rate, k, "o", color=_INK[kind], ms=7, gid=kind, clip_on=False)
        place = {"va": "center", "transform": axes.get_yaxis_transform()}
        axes.text(-0.035, k, label, ha="right", **place)
        axes.text(1.035, k, f"{100 * rate:.0f} %", **place)
    axes.set(xlim=(0, 1), ylim=(len(rows) - 0.5, -0.5), xticks=[0, 0.25, 0.5, 0.75, 1], yticks=[])
    axes.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    axes.grid(axis="x", gid="grid", clip_on=False)
    axes.spines[:].set_visible(False)
    return _svg(figure, "Success rates with 95 % intervals")


def histogram(
    values: Sequence[float],
    marks: Sequence[tuple[float, str]],
    unit: str,
    width: int = 560,
    bins: int = 48,
) -> str:
    """Distribution of a duration, with vertical lines at what it must be compared with.

    Args:
        values: at least one finite value, all >= 0.
        marks: (value, label) of each line.
        unit: of the values.
        width: [px].
        bins: bars.
    """
    figure, axes = _axes(width, 220, left=44, right=16, bottom=30, top=38)
    limit = 1.04 * max(*values, *(value for value, _ in marks)) or 1.0
    counts, edges = np.histogram(values, bins=bins, range=(0.0, limit))
    highest = int(counts.max())
    for count, low, high in zip(counts, edges[:-1], edges[1:], strict=True):
        if count:
            # one tick in a thousand must still be seen
            tall = max(count, 0.015 * highest)
            told = f"bar|{low:.2g} to {high:.2g} {unit}: {count}"
            span = {"width": 0.9 * (high - low), "align": "edge"}
            axes.bar(low, tall, color=_INK["main"], gid=told, clip_on=False, **span)
    for k, (value, label) in enumerate(sorted(marks)):
        axes.plot([value] * 2, [0, 1.03 * highest], "--", color=_INK["ink"], lw=1, gid="mark",
                  clip_on=False)  # fmt: skip
        side = "right" if value > 0.6 * limit else "left"
        axes.annotate(label, (value, highest), (-4 if side == "right" else 4, 8 + 11 * (k % 2)),
                      textcoords="offset points", ha=side)  # fmt: skip
    axes.set(xlim=(0, limit), ylim=(0, highest), yticks=[0, highest])
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.spines[["left", "right", "top"]].set_visible(False)
    return _svg(figure, f"Distribution in {unit}")


def sparkline(values: Sequence[float], steps: int, width: int = 112, height: int = 30) -> str:
    """Course of an error over an episode.

    Args:
        values: one per moment, all >= 0.
        steps: control steps that the whole width stands for.
        width: [px].
        height: [px].
    """
    figure, axes = _axes(width, height, left=3, right=3, bottom=3, top=3)
    axes.plot(values, color=_INK["main"], lw=1.2, gid="course", clip_on=False)
    axes.plot(len(values) - 1, values[-1], "o", color=_INK["main"], ms=3.5, gid="course",
              clip_on=False)  # fmt: skip
    axes.set(xlim=(0, max(steps, 1)), ylim=(0, max(*values, 1e-9)), xticks=[], yticks=[])
    axes.spines[["left", "right", "top"]].set_visible(False)
    return _svg(figure, "Error over the episode")


def _axes(
    width: int, height: int, left: int, right: int, bottom: int, top: int
) -> tuple[Figure, Any]:
    """Figure of a size [px], axes within margins [px], in the page's colours."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure((width / 96, height / 96))
        place = (left / width, bottom / height, 1 - (left + right) / width,
                 1 - (bottom + top) / height)  # fmt: skip
        axes = figure.add_axes(place)
        axes.patch.set_visible(False)
        axes.tick_params(length=0)
    return figure, axes


def _svg(figure: Figure, title: str) -> str:
    """The figure without what clashes with others in one page: ids, styles, metadata."""
    stream = io.StringIO()
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": title}):
        figure.savefig(stream, format="svg", transparent=True, metadata=_NO_METADATA)
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<style.*?</style>|<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.S)
    text = re.sub(r"font-family: [^;]*; ", "", text)
    text = re.sub(r'<g id="([^"]*)"(/?>)', _group, text)
    for name, colour in _INK.items():
        text = text.replace(colour, f"var(--{name})")
    return text.replace("<svg ", f'<svg role="img" aria-label="{escape(title)}" ', 1)


def _group(found: re.Match[str]) -> str:
    """Our groups get a class, and a title that a pointer shows; matplotlib's own names go."""
    kind, _, told = found[1].partition("|")
    if kind not in ("main", "other", "grid", "bar", "mark", "course"):
        return f"<g{found[2]}"
    return f'<g class="{kind}"{found[2]}' + (f"<title>{told}</title>" if told else "")


__all__ = ["histogram", "intervals", "sparkline"]
