"""Where tensors live: a device that is really there, and a clock that waits for its work."""

from __future__ import annotations

import torch

from wm_mpc.core.errors import UserError


def usable_device(device: str | torch.device) -> torch.device:
    """Torch device of that name, if this machine has it.

    Args:
        device: ``cpu``, ``cuda``, or ``cuda:N``.

    Raises:
        UserError: no device has that name, or this machine has no such CUDA device.
    """
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise UserError(f"device: {str(device)!r}; cpu, cuda or cuda:N expected") from error
    if found.type != "cuda":
        return found
    if not torch.cuda.is_available():
        raise UserError(f"device: {str(device)!r}; this machine has no usable CUDA device")
    count = torch.cuda.device_count()
    if (found.index or 0) >= count:
        raise UserError(f"device: {str(device)!r}; cuda:0 to cuda:{count - 1} expected")
    return found


