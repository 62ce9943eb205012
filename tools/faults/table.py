"""The fault table: JSON with its provenance, and Markdown between two marks of a page."""

from __future__ import annotations

import math
import os
import re
import tempfile
from pathlib import Path
from typing import Any

from tools.faults.runner import Result
from wm_mpc.core.files import write_atomically
from wm_mpc.core.provenance import write_report

MOST = 160
"""Characters of what was said, in the table."""
BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"


def as_row(result: Result) -> dict[str, Any]:
    """One row of the report."""
    outcome = result.outcome
    return {
        "fault": result.row.name,
        "group": result.row.group,
        "expected": outcome.expected,
        "limit_periods": _finite(outcome.limit),
        "periods_to_safe": _finite(outcome.periods),
        "stale_commands": outcome.stale,
        "after": outcome.after,
        "said": words(outcome.said),
        "green": not outcome.wrong,
        "wrong": outcome.wrong,
        "seconds": round(result.seconds, 1),
    }


def write_json(path: Path, results: list[Result]) -> None:
    """Write the report."""
    write_report(path, None, [as_row(result) for result in results], load=os.getloadavg()[0])


def write_page(path: Path, results: list[Result]) -> None:
    """Write the table between the marks of a page."""
    text = path.read_text()
    before, _, rest = text.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError(f"{path}: {BEGIN} and {END} expected")
    write_atomically(path, f"{before}{BEGIN}\n{markdown(results)}{END}{after}")


def markdown(results: list[Result]) -> str:
    """The table."""
    lines = [
        "| fault | expected | periods to safe | stale commands | afterwards | said | |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results:
        outcome = result.outcome
        periods = "-" if math.isnan(outcome.periods) else f"{outcome.periods:.1f}"
        wrong = "red: " + "; ".join(outcome.wrong) if outcome.wrong else "green"
        cells = (
            result.row.name, outcome.expected, periods, str(outcome.stale),
            outcome.after, words(outcome.said), wrong,
        )  # fmt: skip
        lines.append("| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def words(said: str) -> str:
    """What was said, without what differs from run to run: stamps of logs, folders of the run."""
    said = re.sub(r"\[[A-Z]+\] \[[0-9.]+\] \[(\w+)\]:", r"\1:", said)
    said = re.sub(re.escape(tempfile.gettempdir()) + r"/[^/\s:]+", "FOLDER", said)
    return said if len(said) <= MOST else said[:MOST].rsplit(" ", 1)[0] + " ..."


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


__all__ = ["BEGIN", "END", "as_row", "markdown", "words", "write_json", "write_page"]
