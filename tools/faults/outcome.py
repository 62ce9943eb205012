"""What a fault must lead to, and what it did lead to."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tools.faults.robot import PERIOD_S
from tools.faults.stage import Stage, periods_to_safe, stale_after

DEFAULT_SLACK = 0.5
"""[periods] for this harness to notice and for the scheduler, beside every limit."""

slack = {"periods": DEFAULT_SLACK}
"""What the command line chose: a busy machine in a test run needs more."""


@dataclass
class Outcome:
    """A row of the table.

    Attributes:
        expected: what must happen, one line.
        limit: control periods in which the robot must stand; inf: it need not.
        periods: control periods until it stood; nan: it need not and did not.
        stale: commands that moved the robot later than that.
        after: alive, restarted, or ended as it must.
        said: what diagnostics or a status said.
        wrong: what is not as expected; empty: the row is green.
    """

    expected: str
    limit: float = math.inf
    periods: float = math.nan
    stale: int = 0
    after: str = ""
    said: str = ""
    wrong: list[str] = field(default_factory=list)

    def must(self, holds: object, otherwise: str) -> None:
        """Note what is wrong unless it holds."""
        if not holds:
            self.wrong.append(otherwise)

    def safe(self) -> None:
        """Judge the times."""
        self.must(
            self.periods <= self.limit + slack["periods"], f"{self.periods:.1f} periods to safe"
        )
        self.must(not self.stale, f"{self.stale} stale commands")


@dataclass(frozen=True)
class Row:
    """A fault.

    Attributes:
        name: what happens, for people.
        group: rows of a group share the running nodes.
        run: makes it happen and judges.
        quick: part of ``make test``.
    """

    name: str
    group: str
    run: Callable[[Stage], Outcome]
    quick: bool = False


def stops(
    stage: Stage,
    inject: Callable[[], object],
    undo: Callable[[], object],
    limit: float,
    wait_s: float = 4.0,
    words: bool = True,
    recovers: bool = True,
    breaks: bool = False,
) -> Outcome:
    """The robot must stand within ``limit`` periods, with a reason, and drive again afterwards.

    Where the fault is one of code (``breaks``), its trace in a log is as it should be.
    """
    outcome = Outcome(f"stands within {limit:g} periods" + ", drives again" * recovers, limit)
    since = time.monotonic()
    inject()
    outcome.periods = periods_to_safe(stage, since, wait_s)
    outcome.stale = stale_after(stage, since, limit + slack["periods"])
    stage.wait(lambda: stage.said(since), 1.5)
    outcome.said = stage.said(since)
    undo()
    outcome.safe()
    outcome.must(outcome.said or not words, "no reason told")
    if recovers:
        back = time.monotonic()
        outcome.must(stage.drive(20.0), "does not drive again")
        outcome.after = f"drives again after {time.monotonic() - back:.1f} s"
    if not breaks:
        _alive(stage, outcome)
    return outcome


def goes_on(
    stage: Stage,
    inject: Callable[[], object],
    undo: Callable[[], object] = lambda: None,
    seconds: float = 2.0,
) -> Outcome:
    """The robot must go on driving, inside its limits."""
    outcome = Outcome("drives on")
    since = time.monotonic()
    inject()
    time.sleep(seconds)
    commands = stage.commands(since)
    moving = [abs(values).max() > 0.0 for _, values in commands]
    outcome.said = stage.said(since)
    undo()
    wanted = 0.7 * seconds / PERIOD_S
    outcome.must(sum(moving) >= wanted, f"{sum(moving)} moving commands of {wanted:.0f}")
    outcome.must(all(abs(v).max() <= 1.8 + 1e-9 for _, v in commands), "a limit is broken")
    outcome.must(stage.drive(20.0), "does not drive afterwards")
    outcome.after = "drives on"
    _alive(stage, outcome)
    return outcome


def _alive(stage: Stage, outcome: Outcome) -> None:
    dead = [name for name, child in stage.children.items() if not child.alive]
    outcome.must(not dead, f"ended: {', '.join(dead)}")
    trace = [n for n, child in stage.children.items() if "Traceback" in child.news]
    outcome.must(not trace, f"traceback of {', '.join(trace)}")


__all__ = ["DEFAULT_SLACK", "Outcome", "Row", "goes_on", "slack", "stops"]
