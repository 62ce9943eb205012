"""Charts are valid SVG and put numbers where they belong."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from wm_mpc.viz import charts


def parts(svg: str, tag: str, kind: str) -> list[dict[str, str]]:
    root = ElementTree.fromstring(svg)
    return [e.attrib for e in root.iter(tag) if e.get("class") == kind]


def test_intervals_lie_on_one_axis() -> None:
    svg = charts.intervals([("a <b>", 0.5, 0.25, 0.75), ("c", 0.0, 0.0, 0.1)])
    (main,), (dot,) = parts(svg, "line", "main"), parts(svg, "circle", "main")
    low, high, middle = float(main["x1"]), float(main["x2"]), float(dot["cx"])
    assert middle == pytest.approx((low + high) / 2, abs=0.2)
    grid = [float(line["x1"]) for line in parts(svg, "line", "grid")]
    assert low == pytest.approx(grid[1], abs=0.2) and high == pytest.approx(grid[3], abs=0.2)
    (other,) = parts(svg, "line", "other")
    assert float(other["x1"]) == pytest.approx(grid[0], abs=0.2)


def test_a_histogram_counts_every_value_and_marks_the_budget() -> None:
    values = [1.0] * 30 + [9.0]
    svg = charts.histogram(values, [(5.0, "budget")], "ms", bins=10)
    bars = parts(svg, "rect", "bar")
    assert len(bars) == 2
    left, right = (float(bar["x"]) for bar in bars)
    (mark,) = parts(svg, "line", "mark")
    assert left < float(mark["x1"]) < right
    titles = [e.text for e in ElementTree.fromstring(svg).iter() if e.tag == "title"]
    assert sum(int(title.rsplit(" ", 1)[1]) for title in titles) == 31


@pytest.mark.parametrize("values", [[0.0, 0.0], [0.001], [99.0, 100.0], [7.4e5]])
def test_any_scale_fits(values: list[float]) -> None:
    svg = charts.histogram(values, [(values[0], "x")], "ms")
    right = max(float(b["x"]) + float(b["width"]) for b in parts(svg, "rect", "bar"))
    assert right <= 560


def test_a_sparkline_ends_low_when_the_error_does() -> None:
    svg = charts.sparkline([10.0, 5.0, 0.0], steps=4)
    (dot,), (line,) = parts(svg, "circle", "course"), parts(svg, "polyline", "course")
    ys = [float(point.split(",")[1]) for point in line["points"].split()]
    assert ys == sorted(ys) and float(dot["cy"]) == ys[-1]
    assert float(dot["cx"]) < 112 * 0.6
