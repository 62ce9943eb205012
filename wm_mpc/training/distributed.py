"""Several processes, GPUs or machines: what ``torchrun`` sets up, and nothing where it did not.

Every rank draws the same batch from the same generator and works on its own share of it, so that
the number of ranks changes the speed of a run and, but for rounding, not its result.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn

from wm_mpc.errors import UserError


@contextlib.contextmanager
def process_group(device: str) -> Iterator[torch.device]:
    """Join the group that ``torchrun`` describes in the environment; yields this rank's device.

    Args:
        device: ``cpu`` or ``cuda``; ``cuda`` becomes this rank's own GPU.

    Raises:
        UserError: CUDA is asked for and absent.
    """
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device: {device!r}; this machine has no usable CUDA device")
    if "WORLD_SIZE" not in os.environ:
        yield torch.device(device)
        return
    cuda = torch.device(device).type == "cuda"
    own = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device(device)
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


def share_state(module: nn.Module) -> None:
    """Give every rank the first rank's parameters and buffers."""
    if dist.is_initialized():
        for value in module.state_dict().values():
            dist.broadcast(value, 0)
