"""bfloat16 is used where the processor has instructions for it, and only there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from wm_mpc.core.precision import autocast, fast_bf16


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    fast_bf16.cache_clear()
    yield
    fast_bf16.cache_clear()


@pytest.mark.parametrize(
    ("capabilities", "dtype"),
    [
        ({"avx2": True, "avx512_bf16": False}, torch.float32),
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
        ({}, torch.float32),
    ],
)
def test_products_on_a_cpu(
    capabilities: dict[str, bool], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    with autocast(torch.device("cpu")):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype is dtype


def test_older_torch_stays_in_single_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not fast_bf16("cpu")


def test_gpus_use_it() -> None:
    assert fast_bf16("cuda")
