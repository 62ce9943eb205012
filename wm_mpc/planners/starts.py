"""Where a search begins: shifted previous plan, proposals and random draws in one batch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

TAILS = ("zeros", "last")


def interpolate_rows(rows: Tensor, shift: float, tail: Tensor) -> Tensor:
    """Advance ``rows`` ``(N, ...)`` by ``shift`` rows, linearly, continued by the row ``tail``.

    >>> interpolate_rows(torch.tensor([0.0, 1.0, 2.0]), 0.5, torch.tensor(9.0)).tolist()
    [0.5, 1.5, 5.5]
    """
    whole = math.floor(shift)
    fraction = shift - whole
    count = len(rows)
    if whole >= count:
        return tail.expand_as(rows).clone()
    padded = torch.cat([rows[whole:], tail.expand(whole + 1, *rows.shape[1:])])
    return torch.lerp(padded[:count], padded[1:], fraction)


def shift_plan(
    actions: Tensor,
    elapsed_s: float,
    control_period: float,
    frameskip: int,
    action_dim: int,
    tail: str = "zeros",
    basis: Tensor | None = None,
) -> Tensor:
    """Advance a plan by the time that really passed, at the resolution of control steps.

    Commands hold for one control period, so the mean command over a period that straddles two of
    them is their linear interpolation: a fraction of a period interpolates.

    Args:
        actions: previous plan in model actions, ``(T, A)`` with ``A = frameskip * action_dim``, or
            ``K * action_dim`` with a basis.
        elapsed_s: time between the previous plan's first command and now [s], at least 0.
        control_period: seconds per control step.
        frameskip: control steps per model step.
        action_dim: raw action width.
        tail: what follows the plan's end: ``zeros`` (the mean action) or ``last`` (hold the
            last command).
        basis: ``(frameskip, K)``, how a model action describes its commands; None: it is them.

    Returns:
        The shifted plan, ``(T, A)``.

    Raises:
        ValueError: a negative or non-finite time, a width that does not match, an unknown tail.
    """
    if not (math.isfinite(elapsed_s) and elapsed_s >= 0):
        raise ValueError(f"elapsed_s: {elapsed_s} s; a finite time of at least 0 expected")
    if not control_period > 0:
        raise ValueError(f"control_period: {control_period} s; more than 0 expected")
    knots = frameskip if basis is None else basis.shape[1]
    if actions.shape[-1] != knots * action_dim:
        raise ValueError(f"actions: width {actions.shape[-1]}; {knots} x {action_dim} expected")
    if tail not in TAILS:
        raise ValueError(f"tail: {tail!r}; one of {', '.join(TAILS)} expected")
    steps = actions.reshape(-1, knots, action_dim)
    steps = (steps if basis is None else basis @ steps).reshape(-1, action_dim)
    end = torch.zeros_like(steps[-1]) if tail == "zeros" else steps[-1]
    moved = interpolate_rows(steps, elapsed_s / control_period, end)
    if basis is not None:
        moved = torch.linalg.pinv(basis) @ moved.reshape(-1, frameskip, action_dim)
    return moved.reshape(actions.shape)


def shift_states(states: Tensor, elapsed_s: float, model_period: float, goal: Tensor) -> Tensor:
    """Advance virtual states by the time that passed; beyond the horizon they are the goal.

    Args:
        states: ``(T - 1, *L)``, the states after model steps 1 .. T-1.
        elapsed_s: time that passed [s], at least 0.
        model_period: seconds per model step.
        goal: latent that follows the last virtual state, ``L``.

    Returns:
        ``(T - 1, *L)``.
    """
    if not (math.isfinite(elapsed_s) and elapsed_s >= 0):
        raise ValueError(f"elapsed_s: {elapsed_s} s; a finite time of at least 0 expected")
    if len(states) == 0:
        return states.clone()
    return interpolate_rows(states, elapsed_s / model_period, goal)


def start_batch(
    count: int,
    shape: tuple[int, int],
    warm: Tensor | None,
    proposals: Tensor | None,
    init: str,
    init_std: float,
    warm_std: float,
    generator: torch.Generator,
    persistence: float = 0.0,
    action_dim: int = 0,
) -> Tensor:
    """Starting points of a multi-start search, ``(count, T, A)``.

    Row 0 is the warm start if there is one. Proposals follow. Of the rows left, every second one
    is the warm start with noise of ``warm_std`` and the others are fresh draws of ``init_std``
    around zero. Without a warm start, ``init="zero"`` puts zeros into the first free row and a
    batch of several starts always has a zero row.

    Args:
        count: number of starts, at least 1.
        shape: ``(T, A)``.
        warm: ``(T, A)`` or None.
        proposals: ``(P, T, A)`` or None; those beyond ``count`` are dropped.
        init: ``random`` or ``zero``.
        init_std: standard deviation of fresh draws, normalised action units.
        warm_std: standard deviation around the warm start, normalised action units.
        generator: source of every draw; its device is the result's.
        persistence: share of a fresh draw's variance that is one direction held over the whole
            plan, in [0, 1]. Independent noise in every control step cancels out: it goes nowhere
            and finds no way around an obstacle.
        action_dim: width of one control step's action; 0: that of a model step.
    """
    starts = torch.randn(count, *shape, generator=generator, device=generator.device) * init_std
    if persistence:
        width = action_dim or shape[1]
        held = torch.randn(count, 1, width, generator=generator, device=generator.device)
        held = held.repeat(1, shape[0], shape[1] // width) * init_std
        fresh = math.sqrt(persistence) * held + math.sqrt(1 - persistence) * starts
        # Starts around the warm start keep their independent noise.
        if warm is None:
            starts = fresh
        else:
            offset = min(count, 1 + (0 if proposals is None else len(proposals))) + 1
            starts[offset::2] = fresh[offset::2]
    given = [] if warm is None else [warm[None]]
    if proposals is not None:
        given.append(proposals)
    if warm is None and (init == "zero" or count > 1):
        given.append(torch.zeros(1, *shape, device=generator.device))
    used = 0
    if given:
        rows = torch.cat(given).to(starts)[:count]
        used = len(rows)
        noise = starts[used::2] * (warm_std / init_std if init_std else 0.0)
        if warm is not None and used < count:
            starts[used::2] = rows[0] + noise
        starts[:used] = rows
    return starts
