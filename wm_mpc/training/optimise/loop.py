"""The optimiser loop that every stage after the encoder shares.

Schedule, gradient clipping, bfloat16, several processes, resumable state, curves, and the
validation that keeps the best weights and may stop the run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LRScheduler
from tqdm import tqdm

from wm_mpc.core.errors import UserError
from wm_mpc.training.optimise.distributed import agree, check_same_step, rank, world
from wm_mpc.training.optimise.resume import (
    Progress,
    flat_state,
    load_flat_state,
    load_progress,
    save_progress,
    state_digest,
)

Draw = Callable[[torch.Generator, slice], tuple[Tensor, ...]]
"""Draws one global batch from the generator and returns the part of it that the slice names."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast.

    Attributes:
        steps: optimiser steps, >= 1.
        lr: peak learning rate, > 0: cosine, 2 % warm-up.
        weight_decay: AdamW's.
        clip: bound of the gradient norm, > 0.
        max_seconds: stop after this much training time [s], the schedule following the clock;
            0: no limit. Only runs without a limit are reproducible.
        save_every: optimiser steps between two resumable states, >= 1.
        bf16: bfloat16 arithmetic in the forward pass.
        seed: seed of batches and dropout.
        scheduler: makes a schedule of torch's that sets the rates instead.
    """

    steps: int
    lr: float
    weight_decay: float = 1e-4
    clip: float = 1.0
    max_seconds: float = 0.0
    save_every: int = 1000
    bf16: bool = False
    seed: int = 0
    scheduler: Callable[[torch.optim.Optimizer], LRScheduler] | None = None

    def rate(self, share: float) -> float:
        """Learning rate when ``share`` (0 to 1) of the run is over."""
        warm = min(1.0, share / 0.02 + 1e-2)
        return self.lr * warm * (0.5 + 0.5 * math.cos(math.pi * share)) + 1e-6


@dataclass(frozen=True)
class Probe:
    """Validation during training: the best weights are kept, not the last.

    Attributes:
        measure: returns the value, higher is better; called on the first rank only.
        every: optimiser steps between two measurements, >= 1; the last step is always followed by
            one.
        patience: stop after this many measurements without a new best; 0: never.
        about: JSON-able settings of ``measure``; a run that is measured otherwise does not resume.
    """

    measure: Callable[[], float]
    every: int
    patience: int = 0
    about: Mapping[str, Any] = field(default_factory=dict)

    def key(self) -> dict[str, Any]:
        """What must agree for a stored state to be used."""
        return {"every": self.every, "patience": self.patience, "about": dict(self.about)}


def fit(
    losses: nn.Module,
    trained: Mapping[str, nn.Module],
    draw: Draw,
    schedule: Schedule,
    *,
    key: Mapping[str, Any],
    name: str,
    folder: Path | None = None,
    probe: Probe | None = None,
    begin: Callable[[Progress], None] | None = None,
    before: Callable[[int, float], None] | None = None,
    alone: bool = False,
    progress: bool = True,
) -> Progress:
    """Minimise the sum of ``losses(*draw(...))`` over the parameters of ``trained``, in place.

    Resumes from ``folder`` when it holds a run with the same ``key`` and probe that began with
    the same weights: those tell of architecture, seed and every stage before. A run that was cut
    short and resumed ends with bit-equal weights (without ``max_seconds``, on the same machine):
    the generator's state is stored and torch's own, which dropout uses, is seeded anew at every
    stored step.

    Args:
        losses: returns named, weighted scalar losses for a batch.
        trained: modules by name, all of them within ``losses``; the rest of it stays as it is.
        draw: source of batches, already on the device of ``losses``.
        schedule: steps and rates.
        key: JSON-able settings that must agree for a stored state to be used.
        name: of the progress bar.
        folder: where the resumable state is kept; None: nowhere.
        probe: validation that picks the weights; None: the last weights are the result.
        begin: called once before the first step with how far the run has come; may add to what is
            stored with it.
        before: called before every optimiser step with its number and the share of the run that
            is over: curricula, and data that come while training goes on.
        alone: this process trains, whatever others do; the batch is not shared.
        progress: show a progress bar.

    Raises:
        UserError: the loss is not finite, or the processes do not find the same stored state.
    """
    run = _Run(losses, trained, draw, schedule, probe, alone)
    if folder is not None:
        run.resume(folder, key)
    state = run.state
    if begin is not None:
        begin(state)
    run.start()
    bar = tqdm(
        total=schedule.steps, initial=state.step, desc=name, mininterval=2.0,
        disable=not progress or run.rank > 0,
    )  # fmt: skip
    with bar:
        while state.step < schedule.steps and not _exhausted(state, probe):
            share = run.share()
            if share >= 1:
                break
            run.seed_dropout()
            if before is not None:
                before(state.step, share)
            run.step(share)
            bar.update()
            last = state.step == schedule.steps
            if probe is not None and (last or state.step % probe.every == 0):
                run.measure()
            if last or state.step % schedule.save_every == 0:
                run.save()
            bar.set_postfix(_shown(state) | run.time_left(), refresh=False)
    run.end()
    return state


class _Run:
    """What ``fit`` is at: modules, optimiser, generator and progress; arguments as there."""

    def __init__(
        self,
        losses: nn.Module,
        trained: Mapping[str, nn.Module],
        draw: Draw,
        schedule: Schedule,
        probe: Probe | None,
        alone: bool,
    ) -> None:
        self.trained, self.draw, self.schedule, self.probe = trained, draw, schedule, probe
        self.parameters = [p for module in trained.values() for p in module.parameters()]
        self.device = self.parameters[0].device
        self.rank, self.world = (0, 1) if alone else (rank(), world())
        self.frozen = _freeze_rest(losses, self.parameters)
        self.losses = losses
        if self.world > 1:
            self.losses = DistributedDataParallel(losses, broadcast_buffers=False)
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=schedule.lr, weight_decay=schedule.weight_decay
        )
        self.scheduler = schedule.scheduler and schedule.scheduler(self.optimizer)
        self.generator = torch.Generator().manual_seed(schedule.seed)
        self.state = Progress()
        self.folder: Path | None = None
        self.key: Mapping[str, Any] = {}

    def resume(self, folder: Path, key: Mapping[str, Any]) -> None:
        """Take up what lies in ``folder``, and keep the state there from now on."""
        measured = None if self.probe is None else self.probe.key()
        self.folder = folder
        self.key = {**key, "initial": state_digest(self.trained), "probe": measured}
        self.state = load_progress(
            folder, self.key, self.trained, self.optimizer, self.generator
        )
        check_same_step(self.state.step, folder, self.device)

    def start(self) -> None:
        """Start the clock; a schedule of torch's catches up."""
        self.started = time.perf_counter() - self.state.elapsed
        if self.scheduler is not None:
            for _ in range(self.state.step):
                self.scheduler.step()
        _set_mode(self.trained, True)

    def share(self) -> float:
        """Part of the run that is over, by steps or by the clock, the same on every rank."""
        done, limit = self.state.step / self.schedule.steps, self.schedule.max_seconds
        if not limit:
            return done
        return max(done, self.agree((time.perf_counter() - self.started) / limit))

    def time_left(self) -> dict[str, str]:
        """What a limit of time leaves, for the progress bar, whose own guess knows steps only."""
        limit = self.schedule.max_seconds
        if not limit:
            return {}
        left = max(0, round(limit - (time.perf_counter() - self.started)))
        return {"at_most": f"{left // 60}:{left % 60:02d}"}

    def agree(self, value: float) -> float:
        """The first rank's value, on every rank that trains."""
        return agree(value, self.device) if self.world > 1 else value

    def seed_dropout(self) -> None:
        """Seed torch's own generator where a state may have been stored."""
        step, schedule = self.state.step, self.schedule
        if step % schedule.save_every == 0:
            torch.manual_seed((schedule.seed * 1_000_003 + step) * self.world + self.rank)

    def step(self, share: float) -> None:
        """One optimiser step."""
        state, schedule, optimizer = self.state, self.schedule, self.optimizer
        if self.scheduler is None:
            for group in optimizer.param_groups:
                group["lr"] = schedule.rate(share)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=schedule.bf16):
            terms = self.losses(*self.draw(self.generator, slice(self.rank, None, self.world)))
        loss = torch.stack(list(terms.values())).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, schedule.clip)
        optimizer.step()
        if self.scheduler is not None:
            self.scheduler.step()
        if state.step % 100 == 0:
            _record(state, loss, terms, schedule.lr)
        state.step += 1

    def measure(self) -> None:
        """Ask the probe; the best weights so far are kept."""
        state, probe = self.state, self.probe
        assert probe is not None
        _set_mode(self.trained, False)
        best = max((value for _, value in state.probes), default=-math.inf)
        # Validation draws random numbers; training must not depend on whether it ran.
        with torch.random.fork_rng():
            measured = probe.measure() if self.rank == 0 else 0.0
        value = self.agree(measured)
        state.probes.append([state.step, value])
        if value > best:
            state.best = {k: v.detach().clone() for k, v in flat_state(self.trained).items()}
        _set_mode(self.trained, True)

    def save(self) -> None:
        """Store how far the run has come."""
        self.state.elapsed = time.perf_counter() - self.started
        if self.folder is not None and self.rank == 0:
            save_progress(
                self.folder, self.key, self.trained, self.optimizer, self.generator, self.state
            )

    def end(self) -> None:
        """Measure a run that the clock ended between two measurements; leave the best weights."""
        state = self.state
        if self.probe is not None and (not state.probes or state.probes[-1][0] < state.step):
            self.measure()
        state.elapsed = time.perf_counter() - self.started
        if state.best:
            load_flat_state(self.trained, state.best)
        _set_mode(self.trained, False)
        for parameter in self.frozen:
            parameter.requires_grad_(True)


def _freeze_rest(losses: nn.Module, trained: list[nn.Parameter]) -> list[nn.Parameter]:
    """Switch the gradients of all other parameters off; returns those that had one."""
    keep = {id(p) for p in trained}
    frozen = [p for p in losses.parameters() if p.requires_grad and id(p) not in keep]
    for parameter in frozen:
        parameter.requires_grad_(False)
    return frozen


def _set_mode(modules: Mapping[str, nn.Module], training: bool) -> None:
    for module in modules.values():
        module.train(training)


def _record(state: Progress, loss: Tensor, terms: dict[str, Tensor], lr: float) -> None:
    value = float(loss.detach())
    if not math.isfinite(value):
        raise UserError(f"loss: not finite at step {state.step}; lower lr {lr}")
    parts = {k: float(v.detach()) for k, v in terms.items()} if len(terms) > 1 else {}
    state.names = ["loss", *parts]
    state.curve.append([state.step, value, *parts.values()])


def _shown(state: Progress) -> dict[str, str]:
    """Last recorded losses and the last measured success, for the progress bar."""
    shown = {}
    if state.curve:
        losses = zip(state.names, state.curve[-1][1:], strict=True)
        shown = {name: f"{value:.4f}" for name, value in losses}
    if state.probes:
        shown["success"] = f"{state.probes[-1][1]:.2f}"
    return shown


def _exhausted(state: Progress, probe: Probe | None) -> bool:
    """True when the last ``patience`` measurements brought no new best."""
    if probe is None or not probe.patience or not state.probes:
        return False
    values = [value for _, value in state.probes]
    return len(values) - 1 - values.index(max(values)) >= probe.patience
