"""Unfinished training on disk, so that a run cut short goes on as if nothing had happened."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from wm_mpc.core.files import remove_leftovers, write_atomically
from wm_mpc.models.identity import tensor_digest

FILE = "resume.safetensors"


@dataclass
class Progress:
    """How far a run has come.

    Attributes:
        step: optimiser steps done.
        elapsed: training time so far [s].
        names: what the columns of ``curve`` are, after the step.
        curve: rows ``[optimiser step, *losses]``.
        probes: rows ``[optimiser step, value]`` of the validation that may stop the run.
        best: state of the trained modules at the best probe, keys as ``flat_state`` gives them.
        extra: further tensors that the run needs to go on as it began.
    """

    step: int = 0
    elapsed: float = 0.0
    names: list[str] = field(default_factory=lambda: ["loss"])
    curve: list[list[float]] = field(default_factory=list)
    probes: list[list[float]] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    extra: dict[str, Tensor] = field(default_factory=dict)


def flat_state(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """States of named modules under ``name.key``."""
    return {f"{n}.{k}": v for n, m in modules.items() for k, v in m.state_dict().items()}


def load_flat_state(modules: Mapping[str, nn.Module], state: Mapping[str, Tensor]) -> None:
    """Undo ``flat_state``; entries of other modules are ignored."""
    for name, module in modules.items():
        start = f"{name}."
        module.load_state_dict(
            {k.removeprefix(start): v for k, v in state.items() if k.startswith(start)}
        )


def state_digest(modules: Mapping[str, nn.Module]) -> str:
    """What the states of named modules are, 24 hex digits."""
    return tensor_digest(flat_state(modules), typed=True)[:24]


def save_progress(
    folder: Path,
    key: Mapping[str, Any],
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    progress: Progress,
) -> None:
    """Write the state atomically.

    Args:
        folder: created if needed.
        key: JSON-able settings of the run; a run with others does not resume from this state.
        modules: trained modules by name.
        optimizer: its moments are kept.
        generator: source of the batches.
        progress: step, time, curves, best weights, further tensors.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = {f"module.{k}": v for k, v in flat_state(modules).items()}
    for i, moments in optimizer.state_dict()["state"].items():
        state |= {f"optimizer.{i}.{k}": v for k, v in moments.items()}
    state |= {f"best.{k}": v for k, v in progress.best.items()}
    state |= {f"extra.{k}": v for k, v in progress.extra.items()}
    state["generator"] = generator.get_state()
    about = {"key": key, "step": progress.step, "elapsed": progress.elapsed}
    about |= {"names": progress.names, "curve": progress.curve, "probes": progress.probes}
    tensors = {k: v.detach().cpu().contiguous() for k, v in state.items()}
    write_atomically(folder / FILE, save(tensors, {"progress": json.dumps(about)}))


def load_progress(
    folder: Path,
    key: Mapping[str, Any],
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
) -> Progress:
    """Restore what ``save_progress`` wrote, in place.

    Returns:
        How far the run had come; a fresh ``Progress`` where nothing (usable) is stored. A state of
        other settings, or a damaged one, is told on stdout and left to be overwritten.
    """
    file = folder / FILE
    remove_leftovers(folder)
    if not file.is_file():
        return Progress()
    try:
        with safe_open(file, "pt") as stored:
            about = json.loads((stored.metadata() or {}).get("progress", "{}"))
            if about.get("key") != json.loads(json.dumps(dict(key))):
                print(f"{file}: of a run with other settings; training starts anew")
                return Progress()
            state = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    except (SafetensorError, json.JSONDecodeError) as error:
        print(f"{file}: damaged ({error}); training starts anew")
        return Progress()
    load_flat_state(modules, _part(state, "module."))
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in _part(state, "optimizer.").items():
        index, _, kind = name.partition(".")
        moments.setdefault(int(index), {})[kind] = value
    optimizer.load_state_dict(optimizer.state_dict() | {"state": moments})
    generator.set_state(state["generator"])
    about.pop("key")
    return Progress(**about, best=_part(state, "best."), extra=_part(state, "extra."))


def _part(state: Mapping[str, Tensor], start: str) -> dict[str, Tensor]:
    return {k.removeprefix(start): v for k, v in state.items() if k.startswith(start)}
