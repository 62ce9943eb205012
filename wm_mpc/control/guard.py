"""Distrust of new models: what an update predicted against what really happened, live.

Every control tick leaves a latent and the command that was sent. ``frameskip`` control steps later
another latent tells what these commands did: one true model step, on which any model that sees
alike can be judged, whether it drove or not. So an update is judged three times:

1. before it drives, on the model steps remembered from the last minutes; one that predicts them
   worse than the running model is refused;
2. while it drives its first model steps, beside the model it replaced; one that predicts worse is
   replaced by that model again, between two ticks;
3. after that it is the model that the next update is compared with.

Models that see differently (another encoder or projector) are another matter: somebody chose them,
and their latents cannot be compared.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Le
from torch import Tensor

from wm_mpc.control.engine import Engine
from wm_mpc.control.tick import TickResult
from wm_mpc.core.fields import Checked
from wm_mpc.models.world_model import WorldModel

EARLY = 5
"""Model steps after which a clearly worse update is rolled back without waiting for more."""


@dataclass(frozen=True)
class GuardConfig(Checked):
    """When an update is refused or rolled back.

    Attributes:
        guard_ratio: root mean square prediction error of an update over that of the model it
            replaces, above which it is refused or rolled back; 0: never.
        guard_steps: model steps that an update is watched for once it drives.
        guard_memory: model steps remembered to judge updates before they drive.
    """

    guard_ratio: Annotated[float, Ge(0.0), Le(1e6)] = 1.5
    guard_steps: Annotated[int, Ge(1), Le(10_000)] = 20
    guard_memory: Annotated[int, Ge(1), Le(100_000)] = 300


@dataclass(frozen=True)
class ModelStep:
    """One true model step.

    Attributes:
        before: latent ``L``.
        actions: commands sent meanwhile, float32 ``(frameskip, action_dim)`` raw units.
        after: latent ``L``.
    """

    before: Tensor
    actions: Tensor
    after: Tensor


@dataclass(frozen=True)
class Verdict:
    """What the guard decided.

    Attributes:
        engine: engine to drive from the next tick on.
        reason: one line.
    """

    engine: Engine
    reason: str


@dataclass(frozen=True)
class _Moment:
    """One tick: when [s, node clock], what was seen, what was sent, for which goal."""

    stamp: float
    latent: Tensor
    command: np.ndarray
    goal: object


class UpdateGuard:
    """Watches the ticks of one control loop.

    ``observe`` belongs to the control thread; ``refuses`` may be called from another one.

    Args:
        config: see ``GuardConfig``.
        period_s: control period [s].
    """

    def __init__(self, config: GuardConfig, period_s: float) -> None:
        self.config = config
        self.period_s = period_s
        self.error = math.nan
        self._steps: deque[ModelStep] = deque(maxlen=config.guard_memory)
        self._moments: deque[_Moment] = deque()
        self._engine: Engine | None = None
        self._trusted: Engine | None = None
        self._sums = [0.0, 0.0]
        self._count = 0

    @property
    def on_trial(self) -> bool:
        """Whether the running model is being watched."""
        return self._trusted is not None

    def refuses(self, engine: Engine) -> str:
        """Why an update must not drive, or nothing.

        Args:
            engine: complete engine; one that sees differently is not judged.
        """
        running = self._trusted or self._engine
        steps = list(self._steps)
        if not self._comparable(running, engine) or len(steps) < EARLY:
            return ""
        assert running is not None
        ours, theirs = (rms_error(e.model, steps) for e in (running, engine))
        if theirs <= self.config.guard_ratio * ours:
            return ""
        return (
            f"model {engine.model.hash}: predicts the last {len(steps)} model steps with error "
            f"{theirs:.3g}, the running model with {ours:.3g}; at most "
            f"{self.config.guard_ratio:g} times that allowed (guard_ratio)"
        )

    def observe(
        self, result: TickResult, command: np.ndarray | None, now: float
    ) -> Verdict | None:
        """Take in one tick.

        Args:
            result: what the tick found out.
            command: what was sent, ``(action_dim,)`` raw units; None: nothing.
            now: [s] node clock at the tick.

        Returns:
            A verdict when the running model must be replaced.
        """
        if result.engine is not None and result.engine is not self._engine:
            self._changed(result.engine)
        if result.latent is None or command is None or self._engine is None:
            # A step without picture or command: what follows is not one piece of known motion.
            self._moments.clear()
            return None
        moment = _Moment(now - result.image_age_s, result.latent, command, result.goal)
        step = self._complete(moment)
        if step is None:
            return None
        self._steps.append(step)
        return self._judge(step)

    def _changed(self, engine: Engine) -> None:
        """Another engine drives: put it on trial, end a trial, or begin anew."""
        same = self._engine is not None and engine.model is self._engine.model
        before, self._engine = self._trusted or self._engine, engine
        if same:  # under other settings
            return
        if engine is before:
            self._trusted = None
        elif self._comparable(before, engine):
            self._trusted = before
        else:
            self._trusted = None
            self._moments.clear()
            self._steps.clear()
        self._sums, self._count, self.error = [0.0, 0.0], 0, math.nan

    def _comparable(self, running: Engine | None, engine: Engine) -> bool:
        if running is None or not self.config.guard_ratio:
            return False
        return engine.sees_like(running)

    def _complete(self, moment: _Moment) -> ModelStep | None:
        """Append a tick; the model step that ends with it, when there is one."""
        moments = self._moments
        if moments:
            gap = moment.stamp - moments[-1].stamp
            if abs(gap / self.period_s - 1) > 0.3 or moment.goal is not moments[-1].goal:
                moments.clear()
        moments.append(moment)
        assert self._engine is not None
        frameskip = self._engine.model.config.frameskip
        while len(moments) > frameskip + 1:
            moments.popleft()
        if len(moments) <= frameskip:
            return None
        commands = np.stack([m.command for m in list(moments)[:-1]])
        return ModelStep(
            moments[0].latent, torch.from_numpy(commands.astype(np.float32)), moment.latent
        )

    def _judge(self, step: ModelStep) -> Verdict | None:
        """Errors of the running model and, during a trial, of the one it replaced."""
        assert self._engine is not None
        mine = squared_error(self._engine.model, [step])
        self._count += 1
        self._sums[0] += mine
        self.error = math.sqrt(self._sums[0] / self._count)
        if self._trusted is None:
            if self._count >= 2 * self.config.guard_steps:
                # Forget slowly, so that the error told is that of the last minutes.
                self._sums[0] /= 2
                self._count //= 2
            return None
        self._sums[1] += squared_error(self._trusted.model, [step])
        allowed = self.config.guard_ratio**2 * self._sums[1]
        if not self._sums[0] <= allowed and self._count >= min(EARLY, self.config.guard_steps):
            errors = [math.sqrt(total / self._count) for total in self._sums]
            return Verdict(
                self._trusted,
                f"model {self._engine.model.hash} rolled back to {self._trusted.model.hash}: "
                f"prediction error {errors[0]:.3g} over {self._count} model steps, "
                f"{errors[1]:.3g} before",
            )
        if self._count >= self.config.guard_steps:
            self._trusted = None
        return None


def squared_error(model: WorldModel, steps: list[ModelStep]) -> float:
    """Mean square error of a model's predictions of model steps; inf where one is not finite."""
    device = model.action_mean.device
    before, actions, after = (
        torch.stack([getattr(step, name) for step in steps]).to(device)
        for name in ("before", "actions", "after")
    )
    with torch.no_grad():
        predicted = model.step(before, model.normalize_actions(actions)[:, 0])
        value = float((predicted - after).square().mean())
    return value if math.isfinite(value) else math.inf


def rms_error(model: WorldModel, steps: list[ModelStep]) -> float:
    """Root mean square error of a model's predictions of model steps."""
    return math.sqrt(squared_error(model, steps))


__all__ = ["GuardConfig", "ModelStep", "UpdateGuard", "Verdict", "rms_error", "squared_error"]
