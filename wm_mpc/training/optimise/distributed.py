"""Several processes, GPUs or machines: what ``torchrun`` sets up, and nothing where it did not.

Every rank draws the same batch from the same generator and works on its own share of it. Gradients
are averaged over the ranks, so a loss that is a mean over the batch gives, but for rounding, what
one process gets. A loss over the statistics of a batch sees those of each share instead, and
dropout differs from rank to rank. All ranks read and write the same folders.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn

from wm_mpc.core.device import usable_device
from wm_mpc.core.errors import UserError


@contextlib.contextmanager
def process_group(device: str) -> Iterator[torch.device]:
    """Join the group that ``torchrun`` describes in the environment; yields this rank's device.

    Args:
        device: ``cpu`` or ``cuda``; ``cuda`` becomes this rank's own GPU.

    Raises:
        UserError: CUDA is asked for and absent, or has fewer devices than local ranks.
    """
    own = usable_device(device)
    if "WORLD_SIZE" not in os.environ:
        yield own
        return
    cuda = own.type == "cuda"
    if cuda:
        own = usable_device(f"cuda:{os.environ['LOCAL_RANK']}")
    if cuda:
        torch.cuda.set_device(own)
    # The first rank encodes the whole store while the others wait.
    dist.init_process_group("nccl" if cuda else "gloo", timeout=timedelta(hours=6))
    try:
        yield own
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """This process's number; 0 without a group."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """Number of processes; 1 without a group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def barrier() -> None:
    """Wait for all ranks."""
    if dist.is_initialized():
        dist.barrier()


def agree(value: float, device: torch.device) -> float:
    """The first rank's ``value``, on every rank."""
    if not dist.is_initialized():
        return value
    box = torch.tensor([value], dtype=torch.float64, device=device)
    dist.broadcast(box, 0)
    return float(box)


def check_batch(name: str, batch: int) -> None:
    """Refuse a batch that the ranks cannot share evenly.

    Raises:
        UserError: ``batch`` is no multiple of the number of processes.
    """
    if batch % world():
        raise UserError(f"{name}: {batch} is no multiple of {world()} processes")


def check_same_step(step: int, folder: object, device: torch.device) -> None:
    """Refuse to go on when the ranks are to resume at different steps: they would hang.

    Args:
        step: optimiser steps that this rank has found done.
        folder: where it looked for them.
        device: of the collective call.

    Raises:
        UserError: the steps differ; on every rank.
    """
    if not dist.is_initialized():
        return
    bounds = torch.tensor([step, -step], device=device)
    dist.all_reduce(bounds, dist.ReduceOp.MAX)
    last, first = int(bounds[0]), -int(bounds[1])
    if first != last:
        raise UserError(
            f"{folder}: the processes found a state at step {first} and one at step {last}; "
            "one folder that all of them see expected"
        )


def share_state(module: nn.Module) -> None:
    """Give every rank the first rank's parameters and buffers."""
    if dist.is_initialized():
        for value in module.state_dict().values():
            dist.broadcast(value, 0)
