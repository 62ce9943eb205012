"""Predictor training: it learns, it resumes exactly, it says what is wrong."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import tiny_model
from torch import Tensor
from training_data import equal_states, linear_windows

from wm_mpc.core.errors import UserError
from wm_mpc.models.world_model import WorldModel
from wm_mpc.training.dynamics.latent import (
    DynamicsConfig,
    open_loop_error,
    rollout_loss,
    train_dynamics,
)
from wm_mpc.training.optimise import loop
from wm_mpc.training.optimise.loop import Probe
from wm_mpc.training.optimise.resume import FILE

CONFIG = DynamicsConfig(steps=40, batch=16, save_every=10)


def trained(config: DynamicsConfig = CONFIG, **arguments: Any) -> tuple[WorldModel, dict]:
    model = tiny_model(None, predictor_args={"width": 32, "depth": 1})
    facts = train_dynamics(model, linear_windows(model), config, progress=False, **arguments)
    return model, facts


class KilledError(Exception):
    """The process ends here."""


def interrupted_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``fit`` die when its schedule is asked for ``step``."""
    rate, calls = loop.Schedule.rate, iter(range(10**9))

    def dying(self: loop.Schedule, share: float) -> float:
        if next(calls) == step:
            raise KilledError
        return rate(self, share)

    monkeypatch.setattr(loop.Schedule, "rate", dying)


def test_a_known_map_is_learned() -> None:
    model = tiny_model(None, predictor_args={"width": 32, "depth": 1})
    data = linear_windows(model, episodes=40)
    held = data.split(0.2)[1]
    before = open_loop_error(model, data, held)
    config = dataclasses.replace(CONFIG, steps=150, batch=32, lr=1e-2)
    facts = train_dynamics(model, data, config, progress=False)
    still = (data.latents[data.frames[held, 1]] - data.latents[data.frames[held, 0]]).square()
    assert facts["open_loop_rmse"][0] < 0.5 * min(before[0], float(still.mean().sqrt()))
    assert facts["steps"] == 150 and facts["curve"][-1][1] < facts["curve"][0][1]
    assert not model.predictor.training


@pytest.mark.parametrize("died_at", [3, 10, 25])
@pytest.mark.parametrize("kind", ["mlp", "gru", "vit"])
def test_interrupted_and_resumed_equals_uninterrupted(
    kind: str, died_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = {"width": 16, "depth": 1}
    if kind == "vit":  # with dropout, whose random numbers must be the same too
        arguments |= {"heads": 2, "head_dim": 8, "dropout": 0.2}

    def run() -> WorldModel:
        model = tiny_model(None, predictor=kind, predictor_args=arguments)
        config = dataclasses.replace(CONFIG, noise=0.1)
        train_dynamics(model, linear_windows(model), config, tmp_path, progress=False)
        return model

    with monkeypatch.context() as patch:
        interrupted_at(died_at, patch)
        with pytest.raises(KilledError):
            run()
    assert (tmp_path / FILE).exists() == (died_at >= CONFIG.save_every)
    torch.rand(7)  # another process has another history of random numbers
    resumed = run()
    (tmp_path / FILE).unlink()
    whole = run()
    assert equal_states(resumed.state_dict(), whole.state_dict())


def test_a_finished_run_is_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, facts = trained(folder=tmp_path)
    interrupted_at(0, monkeypatch)  # not one step more
    again, facts_again = trained(folder=tmp_path)
    assert equal_states(first.state_dict(), again.state_dict())
    assert facts_again["curve"] == facts["curve"]


@pytest.mark.parametrize(
    "change", [{"steps": 50}, {"lr": 1e-3}, {"seed": 1}, {"rollout": 2}, {"noise": 0.1}]
)
def test_other_settings_start_anew(
    change: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    trained(folder=tmp_path)
    config = dataclasses.replace(CONFIG, **change)
    fresh, _ = trained(config)
    beside, _ = trained(config, folder=tmp_path)
    assert "other settings; training starts anew" in capsys.readouterr().out
    assert equal_states(fresh.state_dict(), beside.state_dict())


def test_other_latents_start_anew(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    model, again = tiny_model(None), tiny_model(None)
    data = linear_windows(model)
    train_dynamics(model, data, CONFIG, tmp_path, progress=False)
    moved = dataclasses.replace(data, latents=data.latents + 0.01)
    train_dynamics(again, moved, CONFIG, tmp_path, progress=False)
    assert "starts anew" in capsys.readouterr().out


@pytest.mark.parametrize("change", [{"width": 24}, {"depth": 2}, {"width": 32}])
def test_another_predictor_starts_anew(
    change: dict[str, int], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    def run(folder: Path | None, seed: int = 0, **arguments: int) -> WorldModel:
        size = {"width": 32, "depth": 1} | arguments
        model = tiny_model(None, seed, predictor_args=size)
        train_dynamics(model, linear_windows(model), CONFIG, folder, progress=False)
        return model

    seed = 1 if change == {"width": 32} else 0  # the same size, other initial weights
    run(tmp_path)
    fresh, beside = run(None, seed, **change), run(tmp_path, seed, **change)
    assert "other settings; training starts anew" in capsys.readouterr().out
    assert equal_states(fresh.state_dict(), beside.state_dict())


def test_a_finished_run_is_measured_when_that_is_asked_for(tmp_path: Path) -> None:
    trained(folder=tmp_path)
    asked: list[int] = []

    def measure() -> float:
        asked.append(len(asked))
        return -float(len(asked))  # the first measurement is the best

    _, facts = trained(folder=tmp_path, probe=Probe(measure, 10, about={"goals": 3}))
    assert facts["probes"] == [[10, -1.0], [20, -2.0], [30, -3.0], [40, -4.0]]
    # the same measurement is not repeated
    _, facts = trained(folder=tmp_path, probe=Probe(measure, 10, about={"goals": 3}))
    assert len(asked) == 4 and len(facts["probes"]) == 4


@pytest.mark.parametrize(
    "change",
    [{"every": 20}, {"patience": 9}, {"about": {"goals": 4}}],
    ids=lambda c: next(iter(c)),
)
def test_another_measurement_starts_anew(
    change: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    probe = Probe(lambda: 0.0, 10, about={"goals": 3})
    trained(folder=tmp_path, probe=probe)
    assert "starts anew" not in capsys.readouterr().out
    trained(folder=tmp_path, probe=dataclasses.replace(probe, **change))
    assert "other settings; training starts anew" in capsys.readouterr().out


def test_the_bar_shows_losses_and_success(capsys: pytest.CaptureFixture) -> None:
    model = tiny_model(None)
    probe = Probe(lambda: 0.75, 10)
    train_dynamics(model, linear_windows(model), CONFIG, probe=probe)
    shown = capsys.readouterr().err.splitlines()[-1]
    assert "loss=" in shown and "success=0.75" in shown


def test_a_damaged_state_starts_anew(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    fresh, _ = trained(folder=tmp_path)
    file = tmp_path / FILE
    file.write_bytes(file.read_bytes()[:200])
    again, _ = trained(folder=tmp_path)
    assert "damaged" in capsys.readouterr().out
    assert equal_states(fresh.state_dict(), again.state_dict())


def test_same_seed_same_weights() -> None:
    first, again = trained()[0], trained()[0]
    other = trained(dataclasses.replace(CONFIG, seed=1))[0]
    assert equal_states(first.state_dict(), again.state_dict())
    assert not equal_states(first.state_dict(), other.state_dict())


def test_only_the_predictor_changes() -> None:
    before = tiny_model(None, predictor_args={"width": 32, "depth": 1})
    after, _ = trained()
    assert equal_states(before.projector.state_dict(), after.projector.state_dict())
    assert not equal_states(before.predictor.state_dict(), after.predictor.state_dict())
    assert all(p.requires_grad for p in after.projector.parameters())


def test_time_ends_a_run() -> None:
    _, facts = trained(dataclasses.replace(CONFIG, steps=10**9, max_seconds=0.3))
    assert 0 < facts["steps"] < 10**9


def test_whole_episodes_are_held_out() -> None:
    data = linear_windows(tiny_model(None), episodes=20)
    train, held = data.split(0.1)
    assert data.episode[held].tolist() == [18, 19]
    assert not set(data.episode[train].tolist()) & {18, 19}


def test_augmentation_sees_every_batch() -> None:
    shapes = []

    def mirror(
        latents: Tensor, actions: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        shapes.append((latents.shape, actions.shape))
        return -latents, -actions

    trained(augment=mirror)
    assert shapes == [((16, CONFIG.rollout + 1, 10), (16, CONFIG.rollout, 10))] * 40


def test_success_picks_the_weights_and_ends_the_run() -> None:
    values = iter([0.2, 0.6, 0.5, 0.6, 0.1])
    seen: list[dict[str, Tensor]] = []
    model = tiny_model(None)

    def measure() -> float:
        assert not model.predictor.training
        torch.rand(3)
        seen.append({k: v.clone() for k, v in model.predictor.state_dict().items()})
        return next(values)

    config = dataclasses.replace(CONFIG, steps=100)
    probe = Probe(measure, 7, 2)
    facts = train_dynamics(model, linear_windows(model), config, progress=False, probe=probe)
    # an equal value is no new best: the two after the second measurement exhaust the patience
    assert facts["probes"] == [[7, 0.2], [14, 0.6], [21, 0.5], [28, 0.6]]
    assert facts["steps"] == 28
    assert equal_states(model.predictor.state_dict(), seen[1])


def test_measuring_does_not_change_the_training() -> None:
    silent, _ = trained()
    rising = iter([0.1, 0.2, 0.3, 0.4])
    measured, _ = trained(probe=Probe(lambda: next(rising) + 0 * float(torch.rand(())), 10))
    assert equal_states(silent.state_dict(), measured.state_dict())


@pytest.mark.parametrize("huber", [0.0, 0.2])
def test_rollout_loss_is_zero_for_a_true_model_only(huber: float) -> None:
    model = tiny_model(None)
    start, actions = torch.randn(4, 10), torch.randn(4, 3, 10)
    truth = model.rollout(start, actions)
    assert rollout_loss(model, start, actions, truth, huber) == 0
    assert rollout_loss(model, start, actions, truth + 0.1, huber) > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rollout": 0}, "rollout: 0; at least 1"),
        ({"steps": 0}, "steps: 0; at least 1"),
    ],
)
def test_settings_name_field_value_and_bound(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        DynamicsConfig(**change)


def test_windows_shorter_than_the_rollout_are_refused() -> None:
    with pytest.raises(UserError, match="rollout: 9 steps; the windows have 6"):
        trained(dataclasses.replace(CONFIG, rollout=9))


def test_a_loss_that_is_not_finite_ends_the_run() -> None:
    model = tiny_model(None)
    data = linear_windows(model)
    data.latents[:] = float("nan")
    with pytest.raises(UserError, match="loss: not finite at step 0"):
        train_dynamics(model, data, CONFIG, progress=False)
