"""Messages in the words of the page: plain dictionaries that JSON can hold."""

from __future__ import annotations

import math
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray

from wm_mpc.core.clock import stamp_seconds
from wm_mpc.msg import GateStatus, Plan, PlannerStatus, TaskState

STATES = ("UNCONFIGURED", "IDLE", "RUNNING", "REACHED", "SAFE_STOP", "E_STOP", "FAULT")
GATE_STATES = ("WAITING", "PASSING", "RAMPING", "RESTING", "E_STOP")
LEVELS = ("ok", "warning", "error", "stale")
_MOST = 64
"""Candidates and entries that the page draws at most."""


def number(value: float) -> float | None:
    """JSON knows neither nan nor infinity."""
    return value if math.isfinite(value) else None


def numbers(values: Any) -> list[float | None]:
    """The same for a sequence."""
    return [number(float(value)) for value in values]


def status_words(message: PlannerStatus) -> dict[str, Any]:
    """``PlannerStatus`` by field name, with the state in words."""
    words: dict[str, Any] = {}
    for name in message.get_fields_and_field_types():
        value = getattr(message, name)
        if isinstance(value, float):
            words[name] = number(value)
        elif isinstance(value, bool | int | str):
            words[name] = value
    words["state"] = STATES[message.state] if message.state < len(STATES) else "?"
    words["stamp"] = stamp_seconds(message.header.stamp)
    return words


def gate_words(message: GateStatus) -> dict[str, Any]:
    """What the gate lets through."""
    return {
        "state": GATE_STATES[message.state] if message.state < len(GATE_STATES) else "?",
        "reason": message.reason,
        "limited": message.limited,
        "command": numbers(message.command),
        "request_age_s": number(message.request_age_s),
        "latency_p99_ms": number(message.latency_p99_ms),
        "refused": message.refused,
        "stops": message.stops,
        "e_stop": message.e_stop,
    }


def plan_words(message: Plan) -> dict[str, Any]:
    """The plan, its search, and the best of the candidates."""
    rows, columns = message.horizon, message.action_dim

    def table(flat: Any, start: int = 0) -> list[list[float | None]]:
        return [
            numbers(flat[start + i * columns : start + (i + 1) * columns]) for i in range(rows)
        ]

    count = min(message.candidates, _MOST)
    return {
        "dt": message.dt,
        "actions": table(message.actions),
        "cost": number(message.cost),
        "warm_cost": number(message.warm_cost),
        "history": numbers(message.cost_history),
        "candidate_costs": numbers(message.candidate_costs[:count]),
        "candidates": [
            table(message.candidate_actions, i * rows * columns) for i in range(min(count, 8))
        ],
    }


def task_words(message: TaskState) -> dict[str, Any]:
    """How a simulated episode stands."""
    return {
        "task": message.task,
        "seed": message.seed,
        "episode": message.episode,
        "step": message.step,
        "error": number(message.error),
        "unit": message.error_unit,
        "success": message.success,
    }


def diagnostics_words(message: DiagnosticArray) -> list[dict[str, Any]]:
    """One entry a component: level in words, message, key and value."""
    entries = []
    for entry in message.status:
        level = entry.level[0] if isinstance(entry.level, bytes) else int(entry.level)
        entries.append(
            {
                "name": entry.name,
                "level": LEVELS[level] if level < len(LEVELS) else "error",
                "message": entry.message,
                "values": [[pair.key, pair.value] for pair in entry.values[:_MOST]],
            }
        )
    return entries


__all__ = [
    "diagnostics_words",
    "gate_words",
    "number",
    "numbers",
    "plan_words",
    "status_words",
    "task_words",
]
