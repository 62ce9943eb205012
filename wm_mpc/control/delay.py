"""Delay from a picture to the effect of the command it leads to: measured, and predicted over.

A command that is computed from a picture acts later than the picture shows: the camera, planning,
the network and the robot's own controller take their time. Meanwhile the robot goes on doing what
it was told before. What was told is known, so the model predicts the state at which the new
command will act, and the plan starts there (the scheme of Smith, 1957, with a learned model).

The delay between sending a command and its effect is found by asking the model: a model step that
was seen is predicted with the commands of every delay in question, and the delay whose predictions
come nearest, over all that moved lately, is the one. It is therefore relative to the recordings
that the model was trained on: 0 where commands act as promptly as they did there.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np
import torch
from torch import Tensor

from wm_mpc.control.engine import Engine

MEASURED = -1.0
"""Value of ``delay_ms`` that asks for a measured delay."""
CANDIDATES = 26
"""Delays that are compared."""
LONGEST_S, LONGEST_PERIODS = 0.4, 4.0
"""The longest of them: this many seconds or control periods, whichever is more."""
LEAST_SPREAD = 0.05
"""Share of their range by which commands of different delays must differ for a step to tell
anything."""
LEAST_STEPS = 20
"""Model steps that told something, before the first word."""
FORGET = 0.995
"""Weight of a step relative to the next one that tells something."""
CLEAR = 1.02
"""The present delay must predict this much worse than the best one to be replaced by it."""
ROOM = 512
"""Commands remembered, at least."""


class SentCommands:
    """What was sent and when; a command is in force until the next one is sent.

    Args:
        dim: width of a command.
    """

    def __init__(self, dim: int) -> None:
        self._times = np.zeros(2 * ROOM)
        self._values = np.zeros((2 * ROOM, dim))
        self._sums = np.zeros((2 * ROOM, dim))
        self._count = 0

    def add(self, values: np.ndarray, when: float) -> None:
        """Note a command ``(dim,)`` sent at ``when`` [s]; a clock set back forgets all before."""
        n = self._count
        if n and when < self._times[n - 1]:
            n = 0
        if n == len(self._times):
            for rows in (self._times, self._values, self._sums):
                rows[:ROOM] = rows[ROOM:]
            n = ROOM
        self._times[n], self._values[n] = when, values
        if n:
            self._sums[n] = self._sums[n - 1] + self._values[n - 1] * (when - self._times[n - 1])
        else:
            self._sums[n] = 0.0
        self._count = n + 1

    @property
    def since(self) -> float:
        """Time of the oldest command known [s]; inf without any."""
        return float(self._times[0]) if self._count else math.inf

    def means(self, edges: np.ndarray) -> np.ndarray:
        """Mean command between neighbouring edges, ``(..., E)`` [s] -> ``(..., E - 1, dim)``.

        The newest command lasts beyond the last edge, the oldest one was always there.
        """
        n = self._count
        place = np.clip(np.searchsorted(self._times[:n], edges, side="right") - 1, 0, None)
        sums = self._sums[place]
        sums += self._values[place] * (edges - self._times[place])[..., None]
        return np.diff(sums, axis=-2) / np.diff(edges)[..., None]


class DelayWatch:
    """Measures the delay of commands by the model's own predictions.

    Args:
        engine: model it asks; its control period and model step.

    Attributes:
        delay_s: [s] from sending a command to its effect, relative to the training data; None:
            not known yet.
        steps: model steps that told something.
    """

    def __init__(self, engine: Engine) -> None:
        config = engine.model.config
        self._period, self._skip = config.control_period, config.frameskip
        self._least = LEAST_SPREAD * np.subtract(config.action_high, config.action_low)
        longest = max(LONGEST_S, LONGEST_PERIODS * self._period)
        self.delays = np.linspace(-self._period, longest, CANDIDATES)
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self.delay_s: float | None = None
        self.steps = 0
        self._seen: deque[tuple[float, Tensor]] = deque(maxlen=3 * self._skip + 3)
        self._errors: Tensor | None = None

    def see(self, engine: Engine, latent: Tensor, stamp: float, sent: SentCommands) -> None:
        """Take in an observation.

        Args:
            engine: engine that saw it.
            latent: ``L``.
            stamp: [s] node clock.
            sent: commands until now.
        """
        if self._seen and not 0 < stamp - self._seen[-1][0] < 3 * self._period:
            self._seen.clear()
        self._seen.append((stamp, latent))
        before = self._step_before(stamp)
        if before is None:
            return
        begin, start = before
        if begin - self.delays[-1] < sent.since:
            return
        slots = np.linspace(begin, stamp, self._skip + 1)
        raw = sent.means(slots - self.delays[:, None])
        if (np.ptp(raw.mean(1), axis=0) < self._least).all():
            return
        model = engine.model
        with torch.no_grad():
            rows = torch.from_numpy(raw.astype(np.float32)).to(latent.device)
            actions = model.normalize_actions(rows)[:, 0]
            found = model.step(start.expand(len(actions), *start.shape), actions)
            errors = (found - latent).square().flatten(1).mean(1)
            self._errors = errors if self._errors is None else self._errors * FORGET + errors
        self.steps += 1
        if self.steps >= LEAST_STEPS and self.steps % self._skip == 0:
            self._judge()

    def _step_before(self, stamp: float) -> tuple[float, Tensor] | None:
        """The observation one model step before ``stamp``, to a quarter of a control period."""
        wanted = stamp - self._skip * self._period
        near = min(self._seen, key=lambda seen: abs(seen[0] - wanted))
        return near if abs(near[0] - wanted) <= 0.25 * self._period else None

    def _judge(self) -> None:
        """Believe the delay that predicts best, where it is clearly better than the present."""
        errors = self._errors.cpu().double().numpy()
        if not np.isfinite(errors).all():
            self._errors = None
            return
        best = int(errors.argmin())
        if self.delay_s is not None:
            present = np.interp(self.delay_s, self.delays, errors)
            if present <= CLEAR * errors[best]:
                return
        elif errors.max() <= CLEAR * errors[best]:
            return
        self.delay_s = float(self.delays[best])
        if 0 < best < len(errors) - 1:  # the vertex of the parabola through its neighbours
            low, mid, high = errors[best - 1 : best + 2]
            bend = low - 2 * mid + high
            if bend > 0:
                width = self.delays[1] - self.delays[0]
                self.delay_s += float(0.5 * (low - high) / bend * width)


class LookAhead:
    """Predicts the state at which the command of this tick will act.

    ``sent`` and ``ahead`` belong to one thread.

    Args:
        engine: the first engine.
        delay_ms: [ms] from picture to effect; ``MEASURED``: measured; 0: nothing is predicted.
    """

    def __init__(self, engine: Engine, delay_ms: float) -> None:
        self._given_s = delay_ms / 1e3
        self._measure = delay_ms == MEASURED
        self.on = delay_ms != 0
        self._commands = SentCommands(engine.model.config.action_dim)
        self.watch = DelayWatch(engine)
        self._thinking_s = 0.0
        self._asked_at = -math.inf

    def sent(self, values: np.ndarray, when: float) -> None:
        """Note that a command left: ``(action_dim,)`` raw units, ``when`` [s] node clock."""
        if not self.on:
            return
        self._commands.add(values, when)
        took = when - self._asked_at
        if 0 <= took < 1.0:  # what a tick takes, as an average over about ten
            self._thinking_s += 0.1 * (took - self._thinking_s)
        self._asked_at = -math.inf

    def see(self, engine: Engine, latent: Tensor, stamp: float) -> None:
        """Learn of the delay from an observation ``L``, once its command has left."""
        if self._measure:
            self.watch.see(engine, latent, stamp, self._commands)

    def changed(self, engine: Engine, same_latents: bool) -> None:
        """Another engine drives; what was learned holds only for the same latents."""
        if not same_latents:
            self.watch = DelayWatch(engine)

    def ahead(
        self, engine: Engine, latent: Tensor, stamp: float, now: float
    ) -> tuple[Tensor, float]:
        """State at which the command of a tick acts.

        Args:
            engine: predicts.
            latent: what was seen, ``L``.
            stamp: [s] when, node clock.
            now: [s] begin of the tick, node clock.

        Returns:
            Predicted latent ``L``, and how far ahead of ``stamp`` it lies [s].
        """
        self._asked_at = now
        commands = self._commands
        if not self.on or commands.since > now:
            return latent, 0.0
        leaves = now + self._thinking_s
        if self._measure:
            if self.watch.delay_s is None:
                return latent, 0.0
            lead = leaves - stamp + self.watch.delay_s
        else:
            lead = self._given_s
        config = engine.model.config
        lead = min(max(lead, 0.0), LONGEST_S + LONGEST_PERIODS * config.control_period)
        if lead < 0.05 * config.control_period:
            return latent, 0.0
        return self._predict(engine, latent, leaves - lead, lead), lead

    def _predict(self, engine: Engine, latent: Tensor, begin: float, lead: float) -> Tensor:
        """Predict ``lead`` [s] ahead with what was sent from ``begin`` on.

        Of a part of a model step that part of its change is taken.
        """
        model, config = engine.model, engine.model.config
        length = config.control_period * config.frameskip
        steps = lead / length
        whole = math.floor(steps + 1e-6)
        left = steps - whole
        edges = begin + config.control_period * np.arange(whole * config.frameskip + 1)
        rows = self._commands.means(edges) if whole else np.zeros((0, config.action_dim))
        if left > 1e-6:
            rest = self._commands.means(np.array([edges[-1], begin + lead]))
            rows = np.concatenate([rows, rest.repeat(config.frameskip, 0)])
        device = latent.device
        with torch.no_grad():
            raw = torch.from_numpy(rows.astype(np.float32)).to(device, non_blocking=True)
            actions = model.normalize_actions(raw)
            for action in actions[:whole]:
                latent = model.step(latent[None], action[None])[0]
            if left > 1e-6:
                then = model.step(latent[None], actions[whole][None])[0]
                latent = torch.lerp(latent, then, left)
        return latent


__all__ = ["MEASURED", "DelayWatch", "LookAhead", "SentCommands"]
