"""Write the parameter reference: ``python tools/parameter_docs.py > docs/parameters.md``."""

from __future__ import annotations

import dataclasses
import sys
import typing
from typing import Any

from sim_bridge.config import SimBridgeConfig
from wm_mpc.control.controller import ControllerConfig
from wm_mpc.control.engine import EngineConfig
from wm_mpc.control.gate import GateConfig
from wm_mpc.control.guard import GuardConfig
from wm_mpc.control.safety import CommandLimits, SafetyLimits
from wm_mpc.core.fields import field_docs, field_rules
from wm_mpc.core.live import live_fields
from wm_mpc.nodes.gate.config import GateNodeConfig
from wm_mpc.nodes.markers.config import MarkersConfig
from wm_mpc.nodes.mpc.config import MpcNodeConfig
from wm_mpc.nodes.trainer.config import TrainerConfig
from wm_mpc.nodes.view.config import ViewConfig
from wm_mpc.planners.objective import ObjectiveConfig
from wm_mpc.training.live.config import LiveConfig

INTRODUCTION = """# Node parameters

Written by `python tools/parameter_docs.py > docs/parameters.md` from the dataclasses that define
them. An unknown name or a value out of range ends the node with exit code 2 and one line. Whole
numbers may stand for real ones. An empty list is written by leaving the parameter out. The options
of the chosen planner are parameters too, with `planner_options.` before their names; planners.md
tells them.

What `mpc_node` marks as live can change while it runs: `ros2 param set /mpc_node tolerance 0.1` or
any other client of the parameter services. Every value is checked as at the start, all of one call
are used or none, and the loop follows between two ticks; budget, goal cost and all
`planner_options.` follow when a planner has been built for them in the pauses of the loop, some
ticks later. Live, downward (upward): a limit, which may become narrower than at the start, and
never wider. While unconfigured: it can be set while the lifecycle has the node unconfigured, and
counts from the next configuration on; another planner brings the options that it has by default,
and that of the start those of the start. Everything else needs a restart, and setting it is
refused with that reason; all parameters of the other nodes are read-only while they run.
"""


def table(defaults: Any, prefix: str = "", live: bool = False) -> str:
    """Markdown table of a configuration dataclass: parameter, type, default, range, meaning.

    Args:
        defaults: instance.
        prefix: put before each name.
        live: tell which may change while the node runs.
    """
    cls = type(defaults)
    hints, words, rules = typing.get_type_hints(cls), field_docs(cls), field_rules(cls)
    rows = ["| parameter | type | default | range | meaning |", "|---|---|---|---|---|"]
    if live:
        rows = [row.replace("| meaning", "| change | meaning") for row in rows[:1]]
        rows.append("|---|---|---|---|---|---|")
    marks = live_fields(cls)
    for item in dataclasses.fields(cls):
        cells = (
            f"`{prefix}{item.name}`",
            _kind(hints[item.name]),
            _default(getattr(defaults, item.name)),
            str(rules.get(item.name, "")),
            *([str(marks.get(item.name, "restart"))] if live else []),
            words.get(item.name, ""),
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def page() -> str:
    """The whole page."""
    parts = [INTRODUCTION, "## mpc_node\n"]
    for title, defaults, prefix in (
        ("Interface", MpcNodeConfig(), ""),
        ("Planner and budget", EngineConfig(), ""),
        ("Loop", ControllerConfig(), ""),
        ("Safety", SafetyLimits(), ""),
        ("Updates of the model", GuardConfig(), ""),
        ("Goal cost", ObjectiveConfig(), "objective."),
    ):
        parts += [f"### {title}\n", table(defaults, prefix, live=True)]
    parts += ["## command_gate\n"]
    for title, defaults in (
        ("Interface", GateNodeConfig()),
        ("Watchdogs", GateConfig()),
        ("Limits", CommandLimits()),
    ):
        parts += [f"### {title}\n", table(defaults)]
    parts += ["## sim_bridge\n", table(SimBridgeConfig())]
    parts += ["## trainer_node\n", "### Collecting\n", table(TrainerConfig())]
    parts += ["### Rounds of training\n", table(LiveConfig())]
    parts += ["## view\n", table(ViewConfig())]
    parts += ["## markers\n", table(MarkersConfig())]
    return "\n".join(parts)


def _kind(kind: Any) -> str:
    if typing.get_origin(kind) is tuple:
        return f"list of {_kind(typing.get_args(kind)[0])}"
    if typing.get_origin(kind) is typing.Literal:
        return "text"
    return {float: "real", int: "whole", bool: "bool", str: "text"}.get(kind, str(kind))


def _default(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return str(list(value)) if value else "empty"
    return "empty" if value == "" else f"{value:g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.stdout.write(page())
