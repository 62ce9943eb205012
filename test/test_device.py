"""Devices that are there and those that are not, and time that includes a GPU's work."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from wm_mpc.core.clock import device_clock, monotonic
from wm_mpc.core.device import usable_device
from wm_mpc.core.errors import UserError
from wm_mpc.models.world_model import WorldModel
from wm_mpc.training.encoder.dino import DinoConfig, train_dino
from wm_mpc.training.optimise.distributed import process_group

MISSING = "device: 'cuda'; this machine has no usable CUDA device"


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


def test_the_cpu_is_always_there(no_gpu: None) -> None:
    assert usable_device("cpu") == torch.device("cpu")


def test_a_gpu_that_is_not_there_is_told(no_gpu: None) -> None:
    with pytest.raises(UserError, match=MISSING):
        usable_device(torch.device("cuda"))


def test_gpus_are_counted(two_gpus: None) -> None:
    assert usable_device("cuda:1") == torch.device("cuda", 1)
    assert usable_device("cuda") == torch.device("cuda")
    with pytest.raises(UserError, match="device: 'cuda:2'; cuda:0 to cuda:1 expected"):
        usable_device("cuda:2")


def test_more_local_ranks_than_gpus_are_told(
    two_gpus: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "WORLD_SIZE", "3")
    monkeypatch.setitem(os.environ, "LOCAL_RANK", "2")
    with pytest.raises(UserError, match="device: 'cuda:2'"), process_group("cuda"):
        pass


@pytest.mark.parametrize("name", ["gpu", "cuda:x", ""])
def test_other_names_are_told(name: str) -> None:
    with pytest.raises(UserError, match=f"device: '{name}'; cpu, cuda or cuda:N expected"):
        usable_device(name)


def test_everything_that_takes_a_device_says_so(no_gpu: None, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=MISSING):
        WorldModel.load(tmp_path, device="cuda")
    with pytest.raises(UserError, match=MISSING):
        train_dino([np.zeros((9, 32, 32, 3), np.uint8)], tmp_path, DinoConfig(device="cuda"))
    with pytest.raises(UserError, match=MISSING), process_group("cuda"):
        pass
    assert not list(tmp_path.iterdir())


def test_time_on_a_gpu_includes_its_work(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    clock = device_clock(torch.device("cuda"))
    first, second = clock(), clock()
    assert first <= second and waited == [torch.device("cuda")] * 2
    assert device_clock(torch.device("cpu")) is monotonic
