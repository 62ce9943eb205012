"""Charts are valid SVG and put numbers where they belong."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import pytest

from wm_mpc.viz import charts

SVG = "{http://www.w3.org/2000/svg}"


def parts(svg: str, kind: str) -> list[tuple[list[float], list[float]]]:
    """The x and the y of every path and every marker in groups of a kind."""
    found = []
    for group in ElementTree.fromstring(svg).iter(f"{SVG}g"):
        if group.get("class") != kind:
            continue
        marks = list(group.iter(f"{SVG}use"))
        if marks:
            found.append(tuple([float(m.get(axis, "")) for m in marks] for axis in "xy"))
            continue
        (path,) = group.iter(f"{SVG}path")
        numbers = [float(word) for word in re.findall(r"-?[\d.]+", path.get("d", ""))]
        found.append((numbers[::2], numbers[1::2]))
    return found


def width(svg: str) -> float:
    return float(ElementTree.fromstring(svg).get("viewBox", "").split()[2])


def test_intervals_lie_on_one_axis() -> None:
    svg = charts.intervals([("a <b>", 0.5, 0.25, 0.75), ("c", 0.0, 0.0, 0.1)])
    ((low, high), _), ((middle,), _) = parts(svg, "main")
    assert middle == pytest.approx((low + high) / 2, abs=0.2)
    grid = [x[0] for x, _ in parts(svg, "grid")]
    assert low == pytest.approx(grid[1], abs=0.2) and high == pytest.approx(grid[3], abs=0.2)
    other, _ = parts(svg, "other")
    assert other[0][0] == pytest.approx(grid[0], abs=0.2)


def test_a_histogram_counts_every_value_and_marks_the_budget() -> None:
    values = [1.0] * 30 + [9.0]
    svg = charts.histogram(values, [(5.0, "budget")], "ms", bins=10)
    bars = parts(svg, "bar")
    assert len(bars) == 2
    left, right = (min(x) for x, _ in bars)
    ((mark, _),) = parts(svg, "mark")
    assert left < mark[0] < right
    titles = [e.text for e in ElementTree.fromstring(svg).iter(f"{SVG}title")]
    assert sum(int(title.rsplit(" ", 1)[1]) for title in titles) == 31


@pytest.mark.parametrize("values", [[0.0, 0.0], [0.001], [99.0, 100.0], [7.4e5]])
def test_any_scale_fits(values: list[float]) -> None:
    svg = charts.histogram(values, [(values[0], "x")], "ms")
    assert max(max(x) for x, _ in parts(svg, "bar")) <= width(svg)


def test_a_sparkline_ends_low_when_the_error_does() -> None:
    svg = charts.sparkline([10.0, 5.0, 0.0], steps=4)
    (_, ys), (x, y) = parts(svg, "course")
    assert ys == sorted(ys) and y == [ys[-1]]
    assert x[0] < width(svg) * 0.6
