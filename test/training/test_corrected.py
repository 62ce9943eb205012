"""Windows of corrected data are pieces of true motion, and batches keep the stated ratio."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from wm_mpc.core.errors import UserError
from wm_mpc.latents.replay import LatentBuffer, Replay, chains
from wm_mpc.latents.windows import LatentWindows

WIDTH, ACTION = 3, 2


def chain(name: int, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents and actions that say which chain and which step they are."""
    at = torch.arange(steps + 1.0)
    latents = torch.stack([torch.full((steps + 1,), float(name)), at, -at], 1)
    return latents, torch.stack([torch.full((steps,), float(name)), at[:-1]], 1)


def filled(*lengths: int, limit: int = 0) -> LatentBuffer:
    buffer = LatentBuffer(limit)
    for name, steps in enumerate(lengths):
        buffer.add(*chain(name, steps))
    return buffer


@pytest.mark.parametrize("frameskip", [1, 2, 5])
def test_chains_hold_every_frame_once_one_model_step_apart(frameskip: int) -> None:
    rng = np.random.default_rng(frameskip)
    for _ in range(20):
        steps = np.flatnonzero(rng.random(40) < 0.7)
        found = chains(steps, frameskip)
        assert sorted(np.concatenate(found).tolist()) == list(range(len(steps)))
        for run in found:
            assert all(steps[b] - steps[a] == frameskip for a, b in pairwise(run))


@pytest.mark.parametrize("length", [1, 2, 4])
def test_no_window_straddles_two_chains(length: int) -> None:
    buffer = filled(4, 1, 3, 7)
    rows = buffer.starts(length)
    assert len(rows) == sum(max(0, n - length + 1) for n in (4, 1, 3, 7))
    start, actions, targets = buffer.windows(rows, length)
    latents = torch.cat([start[:, None], targets], 1)
    assert bool((latents[..., 0] == latents[:, :1, 0]).all())
    assert bool((actions[..., 0] == latents[:, :1, 0]).all())
    steps = latents[:, :1, 1] + torch.arange(length + 1.0)
    torch.testing.assert_close(latents[..., 1], steps)
    torch.testing.assert_close(actions[..., 1], steps[:, :-1])


def test_the_oldest_chains_go_first() -> None:
    buffer = filled(3, 3, 3, 3, limit=7)
    assert len(buffer) == 6
    assert set(buffer.windows(buffer.starts(1), 1)[0][:, 0].tolist()) == {2.0, 3.0}


def test_bad_chains_are_refused_and_leave_no_trace() -> None:
    buffer = filled(2)
    latents, actions = chain(9, 3)
    with pytest.raises(ValueError, match="actions: 2 for 4 latents"):
        buffer.add(latents, actions[:2])
    latents[1, 1] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        buffer.add(latents, actions)
    assert len(buffer) == 2
    with pytest.raises(UserError, match="rollout: 1 model steps"):
        LatentBuffer().draw(4, 1, torch.Generator())
    with pytest.raises(UserError, match="rollout: 3 model steps"):
        buffer.draw(4, 3, torch.Generator())


def expert(count: int = 5) -> LatentWindows:
    """Windows whose latents are all 100."""
    frames = torch.arange(3).repeat(count, 1)
    return LatentWindows(
        torch.full((3, WIDTH), 100.0), frames, torch.zeros(count, 2, ACTION), torch.arange(count)
    )


@pytest.mark.parametrize("ratio", [(7, 3), (1, 1), (0, 1), (1, 0)])
def test_batches_keep_the_ratio(ratio: tuple[int, int]) -> None:
    replay = Replay(expert(), torch.arange(5), filled(4, 4), ratio, 40, length=2)
    start, actions, targets = replay(torch.Generator().manual_seed(0))
    assert (len(start), actions.shape, targets.shape) == (40, (40, 2, ACTION), (40, 2, WIDTH))
    assert int((start[:, 0] == 100).sum()) == 40 * ratio[0] / sum(ratio)


def test_batches_go_to_the_device_of_the_model() -> None:
    replay = Replay(expert(), torch.arange(5), filled(4, 4), (1, 1), 8, device="meta")
    batch = replay(torch.Generator().manual_seed(0), slice(0, None, 2))
    assert [part.device.type for part in batch] == ["meta"] * 3 and len(batch[0]) == 4
    stays = Replay(expert(), torch.arange(5), filled(4, 4), (1, 1), 8)
    assert stays(torch.Generator())[0].device.type == "cpu"


def test_without_one_kind_batches_are_of_the_other() -> None:
    generator = torch.Generator().manual_seed(0)
    only_expert = Replay(expert(), torch.arange(5), LatentBuffer(), (7, 3), 8)
    assert bool((only_expert(generator)[0][:, 0] == 100).all())
    too_short = Replay(expert(), torch.arange(5), filled(1, 1), (7, 3), 8, length=2)
    assert bool((too_short(generator)[0][:, 0] == 100).all())
    only_corrected = Replay(None, None, filled(4), (7, 3), 8)
    assert bool((only_corrected(generator)[0][:, 0] == 0).all())
    part = only_corrected(generator, slice(0, None, 2))
    assert len(part[0]) == 4
