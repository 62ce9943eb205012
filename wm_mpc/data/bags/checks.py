"""What speaks against a bag although every message of it is sound: rates, clocks, units."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from wm_mpc.data.bags.clocks import Clock
from wm_mpc.data.bags.config import AlignConfig
from wm_mpc.data.bags.import_report import RunningStatistics
from wm_mpc.data.bags.parts import NEEDED, BagParts

_UNITS = ((57.29578, "degrees and radians"), (1000.0, "millimetres and metres"))
_LEAST_ROWS = 20
_LEAST_GAP_S = 1.0


def rate_misfit(found_s: float, period_s: float, stride: int, tolerance: float) -> str:
    """Why frames cannot be one every ``stride`` steps; empty: they can.

    A camera that is a whole number of times as fast is thinned out.

    Args:
        found_s: [s] from one frame to the next.
        period_s: [s] control period.
        stride: [steps] from one frame to the next, as asked for.
        tolerance: [share of the period] by which a step may differ.

    >>> rate_misfit(1 / 30, 0.1, 1, 0.1)
    ''
    >>> rate_misfit(1 / 12, 0.1, 1, 0.1)
    'frames come at 12.00 Hz, steps of 100 ms differ from theirs by 17 %; --rate 12 fits'
    """
    wanted = period_s * stride
    times = max(1, round(wanted / found_s))
    share = abs(times * found_s - wanted) / wanted
    if share <= tolerance:
        return ""
    rates = [1 / (k * found_s) * stride for k in (times, times + 1, times - 1) if k > 0]
    fits = " or ".join(f"--rate {rate:.4g}" for rate in rates[: 1 if times == 1 else 3])
    rarer = round(found_s / period_s)
    words = f"frames come at {1 / found_s:.2f} Hz, steps of {period_s * 1e3:.0f} ms differ from "
    if rarer > stride and abs(found_s - rarer * period_s) <= tolerance * period_s:
        return f"{words}theirs: they are rarer; --frame-stride {rarer} or {fits} fits"
    return f"{words}theirs by {share:.0%}; {fits} fits".replace("%;", " %;")


def camera_ends_early(parts: BagParts, align: AlignConfig) -> str:
    """What the last frame leaves without pictures, in words; empty: no more than a gap may be."""
    clocks = {part: clock for part in NEEDED if (clock := parts.clock(part)) and len(clock.stamps)}
    image = clocks.pop("image", None)
    if image is None or not clocks:
        return ""
    ends = {part: _last(clock) for part, clock in clocks.items()}
    seconds = (min(ends.values()) - _last(image)) / 1e9
    stride = parts.frame_stride or align.frame_stride
    if seconds <= max(_LEAST_GAP_S, (align.max_missing + 1) * stride * align.period_s):
        return ""
    return f"image: ends {seconds:.1f} s before {' and '.join(ends)}"


def _last(clock: Clock) -> int:
    """Newest stamp [ns] of the last time the clock was set."""
    kept = ~clock.dropped & (clock.segment == clock.segment.max())
    return int(clock.stamps[kept].max()) if kept.any() else int(clock.stamps.max())


def find_borders(parts: BagParts) -> list[tuple[int, str]]:
    """Instants [ns] at which the clock that dates a needed topic was set, with words."""
    found = []
    for part in NEEDED:
        clock = parts.clock(part)
        if clock is None:
            continue
        for at, seconds in clock.jumps:
            found.append((at, f"{part}: a clock was set by {seconds:+.3f} s"))
    found.sort()
    return [item for i, item in enumerate(found) if not i or item[0] - found[i - 1][0] > 10**9]


def unit_doubts(
    name: str, mine: RunningStatistics, theirs: RunningStatistics
) -> Iterator[str]:
    """Numbers whose spread is that of the store's in a common other unit, one line each."""
    if min(mine.count, theirs.count) < _LEAST_ROWS:
        return
    here, there = np.array(mine.row()["std"]), np.array(theirs.row()["std"])
    for place, (a, b) in enumerate(zip(here, there, strict=True)):
        if min(a, b) <= 1e-9:
            continue
        for factor, units in _UNITS:
            if max(a / b, b / a) > factor / 2 and max(a / b, b / a) < factor * 2:
                yield (
                    f"{name} {place}: spread {a:.3g}, that of the store {b:.3g}: {units} mixed?"
                )
                break
