"""Intervals and percentiles."""

from __future__ import annotations

import math

import numpy as np
import pytest

from wm_mpc.core.stats import median_interval, percentile, summary_ms, wilson


@pytest.mark.parametrize("n", [1, 2, 7, 50, 1000])
def test_wilson_holds_the_rate_stays_inside_and_is_symmetric(n: int) -> None:
    for successes in range(0, n + 1, max(1, n // 10)):
        low, high = wilson(successes, n)
        assert 0 <= low <= successes / n <= high <= 1
        mirrored = wilson(n - successes, n)
        assert (low, high) == pytest.approx((1 - mirrored[1], 1 - mirrored[0]))


def test_wilson_bounds_solve_the_score_equation() -> None:
    # the definition: |rate - p| = z sqrt(p (1 - p) / n) at both bounds
    successes, n, z = 13, 40, 1.96
    for bound in wilson(successes, n, z):
        left = abs(successes / n - bound)
        assert left == pytest.approx(z * math.sqrt(bound * (1 - bound) / n))


def test_wilson_narrows_with_n() -> None:
    widths = [np.diff(wilson(n // 2, n))[0] for n in (10, 100, 1000)]
    assert widths == sorted(widths, reverse=True)


def test_wilson_covers_at_about_its_level() -> None:
    rng = np.random.default_rng(0)
    draws = rng.binomial(50, 0.3, size=2000)
    covered = sum(low <= 0.3 <= high for low, high in (wilson(int(k), 50) for k in draws))
    assert 0.93 < covered / 2000 < 0.97


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (-1, 5), (6, 5)])
def test_wilson_refuses(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="expected"):
        wilson(successes, n)


@pytest.mark.parametrize("q", [0, 5, 50, 95, 99, 100])
def test_percentile_agrees_with_numpy(q: float) -> None:
    values = np.random.default_rng(1).normal(size=37).tolist()
    assert percentile(values, q) == pytest.approx(np.percentile(values, q))


def test_percentile_of_nothing_is_nan_and_of_one_is_that() -> None:
    assert math.isnan(percentile([], 50))
    assert percentile([3.0], 99) == 3.0
    with pytest.raises(ValueError, match="q: 101"):
        percentile([1.0], 101)


def test_summary_has_the_keys_of_a_report() -> None:
    row = summary_ms([3.0, 1.0, 2.0])
    assert set(row) == {"p50", "p95", "p99", "max", "n"}
    assert (row["p50"], row["max"], row["n"]) == (2.0, 3.0, 3)
    assert math.isnan(summary_ms([])["max"]) and summary_ms([])["n"] == 0


@pytest.mark.parametrize("n", [6, 11, 50, 3000])
def test_the_interval_of_the_median_holds_it_as_often_as_promised(n: int) -> None:
    low, high = median_interval([float(k) for k in range(1, n + 1)])
    assert low + high == n + 1
    # exact coverage: fewer than `low` or at least `high` of n fair coins fall under the median
    ways = [math.comb(n, k) for k in range(n + 1)]
    outside = sum(ways[: int(low)])
    assert 1 - 2 * outside / 2**n >= 0.95
    assert 1 - 2 * (outside + ways[int(low)]) / 2**n < 0.95


def test_the_interval_of_the_median_needs_a_value() -> None:
    assert median_interval([2.0]) == (2.0, 2.0)
    with pytest.raises(ValueError, match="values: 0"):
        median_interval([])
