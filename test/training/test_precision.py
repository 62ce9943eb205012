"""bfloat16 is used where the processor has instructions for it, and only there."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from wm_mpc.core.locations import ASSETS
from wm_mpc.core.precision import autocast, fast_bf16
from wm_mpc.latents.encode import encode_pictures
from wm_mpc.models.world_model import WorldModel


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


@pytest.mark.parametrize("task", ["pusht", "wall", "point_maze"])
@pytest.mark.parametrize("native", [True, False])
def test_training_sees_nearly_what_the_node_sees(
    task: str, native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ``latents/encode`` says of half precision, on frames of every bundled model's task."""
    from sim_bridge.collect import generate

    monkeypatch.setattr(
        torch.cpu, "get_capabilities", lambda: {"avx512_bf16": native}, raising=False
    )
    model = WorldModel.load(ASSETS / task)
    (trajectory,) = generate(task, 1, seed=6, steps=60, frame_stride=5)
    own = trajectory.proprio[trajectory.image_steps]
    seen = encode_pictures(model, np.array(trajectory.images), own, exact=True)
    with torch.no_grad():
        images, joints = torch.from_numpy(np.array(trajectory.images)), torch.from_numpy(own)
        assert torch.equal(seen, model.encode(images, joints))
    error = encode_pictures(model, np.array(trajectory.images), own) - seen
    visual = error[:, : model.visual_dim]
    assert 0 < float(visual.square().mean().sqrt()) < (1e-2 if native else 3e-4)
