"""What an observer of the topics saw of one episode. Knows no ROS: messages come as fields."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np

from wm_mpc.control.tick import State
from wm_mpc.evaluation.episodes import Episode


@dataclass(frozen=True)
class Tick:
    """One planning tick, as ``wm_mpc/msg/PlannerStatus`` told it; names and units are its own.

    Attributes:
        stamp: [s] node clock, when the tick ended.
    """

    stamp: float
    state: int
    reason: str
    planner: str
    model_hash: str
    tick_ms: float
    encode_ms: float
    plan_ms: float
    budget_ms: float
    cem_reference_ms: float
    cem_ratio_wall: float
    cem_ratio_transitions: float
    iterations: int
    transitions: int
    transitions_reference: int
    image_age_ms: float
    latent_distance: float
    deadline_missed: bool

    @classmethod
    def read(cls, stamp: float, message: Any) -> Tick:
        """Take the fields of a status message."""
        names = [item.name for item in fields(cls) if item.name != "stamp"]
        return cls(stamp, **{name: getattr(message, name) for name in names})

    @property
    def picture_stamp(self) -> float:
        """[s] node clock, about when the picture was taken that the tick looked at."""
        spent = (self.tick_ms, self.image_age_ms)
        return self.stamp - sum(value for value in spent if math.isfinite(value)) / 1e3

    @property
    def planned(self) -> bool:
        """Whether a planner ran in this tick."""
        return math.isfinite(self.plan_ms)


@dataclass(frozen=True)
class Plan:
    """Actions that the controller believed in.

    Attributes:
        stamp: [s] node clock.
        actions: ``(T, action_dim)`` raw units, one row per control step.
    """

    stamp: float
    actions: np.ndarray


@dataclass(frozen=True)
class Command:
    """A command on its way over DDS; instants of the wall clock.

    Attributes:
        left: [s] when its publisher sent it; when it came, where the middleware does not tell.
        came: [s] when it reached the observer's process.
        values: ``(action_dim,)`` raw units.
    """

    left: float
    came: float
    values: tuple[float, ...]


@dataclass(frozen=True)
class Moment:
    """The world after one control step.

    Attributes:
        stamp: [s] node clock.
        step: control steps since the start.
        state: ``(S,)`` simulator snapshot.
        errors: distances to the goal by name; ``error`` is the headline.
        success: the task's criterion holds.
        image: uint8 ``(H, W, 3)`` RGB, what the camera showed; None when the picture was lost.
    """

    stamp: float
    step: int
    state: np.ndarray
    errors: Mapping[str, float]
    success: bool
    image: np.ndarray | None = None


@dataclass(frozen=True)
class Recording:
    """One episode.

    Attributes:
        seed: seed of start and goal.
        goal_state: ``(S,)`` snapshot that the goal picture shows.
        goal_image: uint8 ``(H, W, 3)`` RGB, or None when it was lost.
        moments: by step, the first is the start.
        ticks, plans: by time.
        requests: what the controller asked the gate for, by time.
        commands: what the robot was told, by time.
    """

    seed: int
    goal_state: np.ndarray
    goal_image: np.ndarray | None
    moments: tuple[Moment, ...]
    ticks: tuple[Tick, ...] = field(default=())
    plans: tuple[Plan, ...] = field(default=())
    requests: tuple[Command, ...] = field(default=())
    commands: tuple[Command, ...] = field(default=())

    @property
    def success(self) -> bool:
        """The criterion held after some control step."""
        return any(moment.success for moment in self.moments[1:])

    def tick_at(self, index: int) -> Tick | None:
        """Tick that thought about moment ``index``; None when there was none."""
        return self._ticks_by_moment.get(index)

    def plan_at(self, index: int) -> Plan | None:
        """Plan that came of moment ``index``; None when there was none."""
        tick = self.tick_at(index)
        return None if tick is None else self._plans_by_stamp.get(tick.stamp)

    @cached_property
    def _ticks_by_moment(self) -> dict[int, Tick]:
        """Each tick belongs to the moment nearest to its picture, if that is near."""
        stamps = np.array([moment.stamp for moment in self.moments])
        if len(stamps) < 2:
            return {}
        reach = 0.5 * float(np.median(np.diff(stamps)))
        found = {}
        for tick in self.ticks:
            distances = np.abs(stamps - tick.picture_stamp)
            nearest = int(distances.argmin())
            if distances[nearest] < reach:
                found[nearest] = tick
        return found

    @cached_property
    def _plans_by_stamp(self) -> dict[float, Plan]:
        """The controller stamps plan and status of a tick alike."""
        return {plan.stamp: plan for plan in self.plans}

    def thinking(self) -> list[tuple[int, Tick]]:
        """Planning ticks of the episode's steps, each with the step it looked at."""
        found = []
        for index, moment in enumerate(self.moments[:-1]):
            tick = self.tick_at(index)
            if tick is not None and tick.planned:
                found.append((moment.step, tick))
        return found

    def reactions(self) -> list[float]:
        """[s] from a picture's stamp to the arrival of the robot's command, per planning tick.

        A tick's request is the one sent between its stamp and the next tick's; its command is the
        first with the same numbers that the gate sent within two control periods, which is how old
        a request may be. nan: there is no such command; the gate changed or refused it, or one of
        the two was not heard. Stamps must be of the wall clock.
        """
        found = []
        for index, moment in enumerate(self.moments[:-1]):
            tick = self.tick_at(index)
            if tick is not None and tick.planned:
                found.append(self._command_came(tick) - moment.stamp)
        return found

    def _command_came(self, tick: Tick) -> float:
        later = min((t.stamp for t in self.ticks if t.stamp > tick.stamp), default=math.inf)
        asked = next(
            (r for r in self.requests if tick.stamp - _SLACK_S <= r.left < later - _SLACK_S), None
        )
        if asked is None:
            return math.nan
        end = asked.left + 2 * float(np.median(np.diff([m.stamp for m in self.moments])))
        return next(
            (
                command.came for command in self.commands
                if asked.left - _SLACK_S <= command.left <= end
                and np.allclose(command.values, asked.values, rtol=0, atol=1e-9)
            ),
            math.nan,
        )  # fmt: skip

    def stops(self) -> list[str]:
        """Reasons of the ticks in which the controller did not run."""
        ticks = (self.tick_at(index) for index in range(len(self.moments) - 1))
        return [tick.reason for tick in ticks if tick is not None and tick.state not in _ACTIVE]

    def episode(self) -> Episode:
        """The same in the terms of ``wm_mpc.evaluation.rows``.

        ``late`` counts the deadlines that the controller reported as missed.
        """
        after = self.moments[1:] or self.moments
        ticks = [tick for _, tick in self.thinking()]
        return Episode(
            seed=self.seed,
            success=self.success,
            final_success=after[-1].success,
            steps=after[-1].step,
            final_error=after[-1].errors["error"],
            min_error=min(moment.errors["error"] for moment in self.moments),
            info=dict(after[-1].errors),
            tick_ms=[tick.tick_ms for tick in ticks],
            plan_ms=[tick.plan_ms for tick in ticks],
            transitions=[tick.transitions for tick in ticks],
            iterations=[tick.iterations for tick in ticks],
            over_budget=sum(tick.plan_ms > tick.budget_ms for tick in ticks),
            late=sum(tick.deadline_missed for tick in ticks),
        )


_ACTIVE = (State.RUNNING, State.REACHED)
_SLACK_S = 1e-4  # stamps of ROS and of the middleware are rounded differently

__all__ = ["Command", "Moment", "Plan", "Recording", "Tick"]
