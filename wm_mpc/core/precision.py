"""Lower precision where the processor gains from it."""

from __future__ import annotations

import functools

import torch

NATIVE_BF16 = ("avx512_bf16", "amx_bf16", "bf16")
"""Processor capabilities, any of which makes bfloat16 products faster than single precision."""


@functools.cache
def fast_bf16(device_type: str) -> bool:
    """True where bfloat16 is the faster arithmetic: GPUs, and CPUs with instructions for it.

    On a CPU without them it is emulated: a ViT forward pass took 6.5 times longer with AVX2.
    """
    if device_type != "cpu":
        return True
    # absent before torch 2.9
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name, False) for name in NATIVE_BF16)


def autocast(device: torch.device) -> torch.autocast:
    """Context in which products are bfloat16 where that is faster, and float32 elsewhere."""
    return torch.autocast(device.type, torch.bfloat16, enabled=fast_bf16(device.type))
