"""Rows in their groups: nodes are started once a group, and again where a row broke them."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from tools.faults import rows_gate, rows_machine, rows_mpc, rows_process
from tools.faults.outcome import Outcome, Row
from tools.faults.stage import Stage


@dataclass
class Group:
    """Rows that share nodes.

    Attributes:
        begin: starts them and returns when the robot drives.
        stage: builds the stage; None: the ordinary one.
    """

    begin: Callable[[Stage], None]
    stage: Callable[[Path, int], Stage] = Stage


GROUPS: dict[str, Group] = {
    "gate": Group(rows_gate.begin),
    "loop": Group(rows_mpc.begin),
    "process": Group(rows_mpc.begin),
    "planner": Group(rows_process.begin_faulty),
    "clock": Group(rows_mpc.begin, rows_machine.clock_stage),
    "machine": Group(rows_mpc.begin),
}
ROWS: list[Row] = [
    *rows_gate.ROWS,
    *rows_mpc.ROWS,
    *rows_process.ROWS,
    *rows_machine.ROWS,
]


@dataclass
class Result:
    """A row and its outcome."""

    row: Row
    outcome: Outcome
    seconds: float

    @property
    def wrong(self) -> list[str]:
        """What is not as expected."""
        return self.outcome.wrong


def chosen(quick: bool, only: str) -> list[Row]:
    """Rows that the command line asks for."""
    return [
        row
        for row in ROWS
        if (row.quick or not quick) and (only in row.name or only == row.group)
    ]


def run(rows: list[Row], folder: Path, domains: Iterator[int]) -> list[Result]:
    """Run rows, each group in ROS domains of its own."""
    results: list[Result] = []
    for name, members in groupby(rows, key=lambda row: row.group):
        stage: Stage | None = None
        for row in members:
            began = time.monotonic()
            try:
                if stage is None:
                    where = folder / f"{name}{len(results)}"
                    stage = GROUPS[name].stage(where, next(domains))
                    stage.robot.start()
                    GROUPS[name].begin(stage)
                stage.begin_row()
                outcome = row.run(stage)
            except Exception as error:  # a row that cannot be run is a red row
                outcome = Outcome("the row runs", wrong=[f"harness: {error}"])
                traceback.print_exc()
            results.append(Result(row, outcome, time.monotonic() - began))
            _tell(results[-1])
            if outcome.wrong and stage is not None and not stage.sound():
                stage.close()
                stage = None
        if stage is not None:
            stage.close()
    return results


def _tell(result: Result) -> None:
    outcome = result.outcome
    colour = "RED  " if outcome.wrong else "green"
    wrong = f": {'; '.join(outcome.wrong)}" if outcome.wrong else ""
    print(
        f"{colour} {result.row.group}: {result.row.name} "
        f"({outcome.periods:.1f} periods, {result.seconds:.0f} s){wrong} [{outcome.said}]",
        flush=True,
    )


__all__ = ["GROUPS", "ROWS", "Group", "Result", "chosen", "run"]
