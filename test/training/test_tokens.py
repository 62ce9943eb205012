"""The token cache: equal to encoding, resumed where it stopped, never of another encoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import tiny_encoder
from training_data import dot_store

from wm_mpc.data.store import Store
from wm_mpc.data.windows import Frames
from wm_mpc.encoder import DinoEncoder
from wm_mpc.training import tokens as module
from wm_mpc.training.tokens import PROGRESS, cache_tokens, encode_images, fingerprint


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[DinoEncoder, Frames]:
    folder = tmp_path_factory.mktemp("tokens")
    frames = Store.open(dot_store(folder / "store", episodes=4, steps=9)).frames()
    return tiny_encoder(folder / "encoder"), frames


def cache(world: tuple[DinoEncoder, Frames], folder: Path, **arguments: Any) -> np.ndarray:
    return cache_tokens(*world, folder, **{"batch": 7, "progress": False} | arguments)


def test_every_frame_is_encoded_in_order(world: tuple, tmp_path: Path) -> None:
    encoder, frames = world
    found = cache(world, tmp_path)
    assert found.shape == (40, 16, 16) and found.dtype == np.float16
    expected = encode_images(encoder, frames.gather(np.arange(40)))
    assert np.abs(found - expected.astype(np.float32)).max() < 0.02
    assert isinstance(found, np.memmap)


def test_half_precision_is_close_to_full(world: tuple) -> None:
    import torch

    encoder, frames = world
    images = frames.gather(np.arange(5))
    full = encoder(torch.from_numpy(images)).numpy()
    assert np.abs(encode_images(encoder, images) - full).max() < 0.05 * np.abs(full).max()


def test_an_interrupted_cache_goes_on(
    world: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = np.array(cache(world, tmp_path / "whole"))
    calls: list[int] = []

    def encode(encoder: DinoEncoder, images: np.ndarray) -> np.ndarray:
        calls.append(len(images))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return encode_images(encoder, images)

    monkeypatch.setattr(module, "encode_images", encode)
    monkeypatch.setattr(module, "FLUSH_EVERY", 2)
    with pytest.raises(KeyboardInterrupt):
        cache(world, tmp_path / "part")
    assert json.loads((tmp_path / "part" / PROGRESS).read_text())["done"] == 14
    calls[:] = [0] * 10
    resumed = cache(world, tmp_path / "part")
    assert sum(calls[10:]) == 40 - 14
    assert np.array_equal(resumed, whole)


def test_a_finished_cache_is_only_opened(
    world: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = np.array(cache(world, tmp_path))
    monkeypatch.setattr(module, "encode_images", lambda *_: pytest.fail("encoded again"))
    assert np.array_equal(cache(world, tmp_path), first)


def test_another_encoder_makes_a_new_cache(world: tuple, tmp_path: Path) -> None:
    first = np.array(cache(world, tmp_path / "cache"))
    other = tiny_encoder(tmp_path / "other", seed=1)
    assert fingerprint(other) != fingerprint(world[0])
    again = cache((other, world[1]), tmp_path / "cache")
    assert not np.array_equal(first, again)
    assert np.array_equal(again, cache((other, world[1]), tmp_path / "fresh"))
