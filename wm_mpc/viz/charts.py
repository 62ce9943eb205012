"""Small charts as inline SVG: they need no script and take their colours from the page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np


def intervals(rows: Sequence[tuple[str, float, float, float]], width: int = 560) -> str:
    """Rates with their intervals on a common axis from 0 to 100 %.

    Args:
        rows: (label, rate, low, high), each within [0, 1].
        width: [px].
    """
    left, right, pitch = 170, 60, 34
    span, height = width - left - right, pitch * len(rows) + 26
    parts = []
    for percent in (0, 25, 50, 75, 100):
        x = left + span * percent / 100
        parts.append(f'<line class="grid" x1="{x:.1f}" y1="4" x2="{x:.1f}" y2="{height - 20}"/>')
        parts.append(_text(x, height - 6, f"{percent} %", "tick", "middle"))
    for k, (label, rate, low, high) in enumerate(rows):
        y = 4 + pitch * (k + 0.5)
        kind = "main" if k == 0 else "other"
        x, x0, x1 = (left + span * value for value in (rate, low, high))
        parts.append(_text(left - 12, y + 4, label, "label", "end"))
        parts.append(f'<line class="{kind}" x1="{x0:.1f}" y1="{y}" x2="{x1:.1f}" y2="{y}"/>')
        parts.append(f'<circle class="{kind}" cx="{x:.1f}" cy="{y}" r="5"/>')
        parts.append(_text(width - right + 12, y + 4, f"{100 * rate:.0f} %", "label", "start"))
    return _svg(width, height, parts, "Success rates with 95 % intervals")


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
    left, right, top, bottom, height = 44, 16, 38, 30, 220
    span, tall = width - left - right, height - top - bottom
    limit = _round_up(1.04 * max(*values, *(value for value, _ in marks)))
    counts, edges = np.histogram(values, bins=bins, range=(0.0, limit))
    highest = max(int(counts.max()), 1)
    parts = []
    for count, x0, x1 in zip(counts, edges[:-1], edges[1:], strict=True):
        if count:
            # one tick in a thousand must still be seen
            h = max(2.0, tall * count / highest)
            x, w = left + span * x0 / limit, span * (x1 - x0) / limit - 1
            place = f'x="{x:.1f}" y="{height - bottom - h:.1f}" width="{w:.1f}" height="{h:.1f}"'
            title = f"<title>{x0:.2g} to {x1:.2g} {escape(unit)}: {count}</title>"
            parts.append(f'<rect class="bar" {place}>{title}</rect>')
    base = height - bottom
    parts.append(f'<line class="axis" x1="{left}" y1="{base}" x2="{left + span}" y2="{base}"/>')
    for value in np.linspace(0, limit, 6):
        x = left + span * value / limit
        parts.append(_text(x, height - 10, f"{value:.3g}", "tick", "middle"))
    parts.append(_text(left - 8, top + 8, str(highest), "tick", "end"))
    parts.append(_text(left - 8, base, "0", "tick", "end"))
    for k, (value, label) in enumerate(sorted(marks)):
        x = left + span * value / limit
        anchor = "end" if value > 0.6 * limit else "start"
        parts.append(f'<line class="mark" x1="{x:.1f}" y1="{top - 6}" x2="{x:.1f}" y2="{base}"/>')
        offset = -5 if anchor == "end" else 5
        parts.append(_text(x + offset, 12 + 14 * (k % 2), label, "label", anchor))
    return _svg(width, height, parts, f"Distribution in {unit}")


def sparkline(values: Sequence[float], steps: int, width: int = 112, height: int = 30) -> str:
    """Course of an error over an episode.

    Args:
        values: one per moment, all >= 0.
        steps: control steps that the whole width stands for.
        width: [px].
        height: [px].
    """
    highest = max(max(values), 1e-9)
    points = [
        (3 + (width - 6) * k / max(steps, 1), 3 + (height - 6) * (1 - value / highest))
        for k, value in enumerate(values)
    ]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    x, y = points[-1]
    parts = [
        f'<line class="grid" x1="3" y1="{height - 3}" x2="{width - 3}" y2="{height - 3}"/>',
        f'<polyline class="course" points="{path}"/>',
        f'<circle class="course" cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>',
    ]
    return _svg(width, height, parts, "Error over the episode")


def _round_up(value: float) -> float:
    """Next number of the form (1, 1.5, 2, 3, 5, 7.5) x power of ten."""
    if value <= 0:
        return 1.0
    scale = 10.0 ** np.floor(np.log10(value))
    steps = (float(step * scale) for step in (1, 1.5, 2, 3, 5, 7.5, 10))
    return next(step for step in steps if step >= value)


def _text(x: float, y: float, words: str, kind: str, anchor: str) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text class="{kind}" {place}>{escape(words)}</text>'


def _svg(width: int, height: int, parts: Sequence[str], title: str) -> str:
    head = f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img"'
    return f'{head} aria-label="{escape(title)}">{"".join(parts)}</svg>'


__all__ = ["histogram", "intervals", "sparkline"]
