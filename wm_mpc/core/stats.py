"""Small statistics that every report uses."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Z95 = 1.959963984540054


def wilson(successes: int, n: int, z: float = Z95) -> tuple[float, float]:
    """Wilson score interval of a success rate (Wilson 1927; Brown, Cai and DasGupta 2001).

    Unlike the normal interval it stays inside [0, 1] and is honest at 0 and n successes.

    Args:
        successes: 0 to n.
        n: trials, at least 1.
        z: normal quantile; the default gives 95 %.

    Returns:
        Lower and upper bound.

    Raises:
        ValueError: n below 1, or successes outside [0, n].

    >>> low, high = wilson(8, 10)
    >>> f"{low:.3f} {high:.3f}"
    '0.490 0.943'
    >>> wilson(0, 10)[0]
    0.0
    """
    if n < 1:
        raise ValueError(f"n: {n}; at least 1 expected")
    if not 0 <= successes <= n:
        raise ValueError(f"successes: {successes}; a value in [0, {n}] expected")
    rate = successes / n
    scale = 1 / (1 + z * z / n)
    centre = scale * (rate + z * z / (2 * n))
    half = scale * z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    # the bounds are exactly 0 and 1 at the ends; rounding must not move them
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return low, high


def percentile(values: Sequence[float], q: float) -> float:
    """Linear-interpolated percentile; nan for no values.

    Args:
        values: any order.
        q: [%], 0 to 100.

    Raises:
        ValueError: q outside [0, 100].

    >>> percentile([1.0, 2.0, 3.0, 4.0], 50)
    2.5
    """
    if not 0 <= q <= 100:
        raise ValueError(f"q: {q}; a value in [0, 100] expected")
    if not len(values):
        return math.nan
    return float(np.percentile(values, q))


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """Interval of the median that holds it with at least 95 % (Conover 1999, section 3.2).

    It takes two order statistics and assumes nothing about the distribution; below 6 values no
    pair reaches 95 %, and the range is all there is to say.

    Args:
        values: any order, at least one.

    Raises:
        ValueError: no values.

    >>> median_interval([5.0, 1.0, 3.0])
    (1.0, 5.0)
    >>> median_interval([float(v) for v in range(1, 11)])
    (2.0, 9.0)
    """
    n = len(values)
    if n < 1:
        raise ValueError(f"values: {n}; at least 1 expected")
    ordered = sorted(values)
    below, tail = 0, 2.0**-n
    # `tail` is the chance that at most `below` values lie under the median
    while below + 1 < n - below - 1:
        log_ways = math.lgamma(n + 1) - math.lgamma(below + 2) - math.lgamma(n - below)
        more = tail + math.exp(log_ways - n * math.log(2))
        if more > 0.025:
            break
        below, tail = below + 1, more
    return ordered[below], ordered[n - 1 - below]


def summary_ms(values: Sequence[float]) -> dict[str, float | int]:
    """The row ``tick_ms`` of a report: p50, p95, p99, max [ms] and n."""
    row: dict[str, float | int] = {f"p{q}": percentile(values, q) for q in (50, 95, 99)}
    return row | {"max": max(values, default=math.nan), "n": len(values)}


def difference_interval(
    successes: int, n: int, other_successes: int, other_n: int
) -> tuple[float, float]:
    """95 % interval of the difference of two success rates, first minus second (Newcombe 1998).

    Newcombe's method 10 joins the two Wilson intervals; it takes the samples as independent,
    which is conservative when both saw the same goals.

    Args:
        successes: of the first, 0 to ``n``.
        n: trials of the first, at least 1.
        other_successes: of the second, 0 to ``other_n``.
        other_n: trials of the second, at least 1.

    >>> low, high = difference_interval(56, 70, 48, 80)
    >>> f"{low:.4f} {high:.4f}"
    '0.0524 0.3339'
    """
    first, second = successes / n, other_successes / other_n
    low, high = wilson(successes, n)
    other_low, other_high = wilson(other_successes, other_n)
    down = math.hypot(first - low, other_high - second)
    up = math.hypot(high - first, second - other_low)
    return first - second - down, first - second + up


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's rank correlation, equal values sharing their mean rank; nan for a constant.

    >>> round(spearman(np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 8.0, 27.0, 9.0])), 3)
    0.8
    """
    first, second = _ranks(x), _ranks(y)
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(np.corrcoef(first, second)[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[place]
