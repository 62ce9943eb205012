"""How the commands inside one model step are described: raw, held, in blocks, or by a spline.

A model step spans several control steps. Where only their sum moves a robot, a model that takes
every command leaves each of them undetermined, and the first is the one that is executed. Fewer
numbers per model step leave nothing undetermined: a *basis* ``(frameskip, K)`` turns ``K``
coefficients per action dimension into ``frameskip`` commands, and its pseudo-inverse turns
recorded commands into the nearest coefficients.
"""

from __future__ import annotations

import torch
from torch import Tensor

KINDS = ("raw", "held", "blocks", "spline")


def knots_of(kind: str, frameskip: int, knots: int) -> int:
    """Coefficients per action dimension and model step.

    Args:
        kind: one of ``KINDS``.
        frameskip: control steps per model step.
        knots: coefficients of ``blocks`` and ``spline``; 0 for the other kinds.

    Raises:
        ValueError: an unknown kind, or a number of knots it cannot have.
    """
    if kind not in KINDS:
        raise ValueError(f"action_basis: {kind!r}; one of {', '.join(KINDS)} expected")
    if kind in ("raw", "held"):
        if knots:
            raise ValueError(f"action_knots: {knots}; 0 expected with action_basis {kind}")
        return frameskip if kind == "raw" else 1
    low = 1 if kind == "blocks" else 2
    if not low <= knots <= frameskip:
        raise ValueError(f"action_knots: {knots}; in [{low}, {frameskip}] expected for {kind}")
    if kind == "blocks" and frameskip % knots:
        raise ValueError(f"action_knots: {knots}; a divisor of frameskip, {frameskip}, expected")
    return knots


def action_basis(kind: str, frameskip: int, knots: int = 0) -> Tensor:
    """Basis ``(frameskip, K)``, each row of which sums to 1, so that bounds carry over.

    ``spline`` is linear between knots at the first and the last command of the model step.

    >>> action_basis("spline", 3, 2).tolist()
    [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]
    """
    count = knots_of(kind, frameskip, knots)
    if kind in ("raw", "blocks"):
        return torch.eye(count).repeat_interleave(frameskip // count, 0)
    if kind == "held":
        return torch.ones(frameskip, 1)
    where = torch.linspace(0, count - 1, frameskip)[:, None]
    return (1 - (where - torch.arange(count)).abs()).clamp(min=0)
