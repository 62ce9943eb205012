"""Training tells what it is going to do, and what a limit of time leaves."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from test_optimiser_loop import Loss
from torch import Tensor

from wm_mpc.training.dynamics.latent import DynamicsConfig
from wm_mpc.training.optimise.loop import Schedule, fit
from wm_mpc.training.pipeline.config import RobotTraining, ValidationConfig, task_training
from wm_mpc.training.pipeline.outlook import outlook


def test_a_robots_training_is_bounded_and_says_so() -> None:
    config = RobotTraining(Path("data"), "bundled", Path("out"), task="arm")
    assert outlook(config, 30).startswith(
        "arm: 5 stages: encode 30 episodes, reader 1500 steps, projector 3000 steps or 15 min, "
        "dynamics 12000 steps or 7 min, validate; the limits of time make 22 min at most."
    )


def test_stages_that_are_off_are_not_told() -> None:
    config = task_training("wall")(
        Path("data"), "bundled", Path("out"), reader_steps=0, dynamics=DynamicsConfig(steps=50),
        validation=ValidationConfig(frames=0),
    )  # fmt: skip
    said = outlook(config, 2)
    assert re.match(
        r"wall: 3 stages: encode 2 episodes, landmarks \d+ steps, dynamics 50 steps\. B", said
    )


@pytest.mark.parametrize(("limit", "told"), [(90.0, "at_most=1:"), (0.0, "")])
def test_a_bar_tells_what_a_limit_of_time_leaves(
    limit: float, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def draw(generator: torch.Generator, part: slice) -> tuple[Tensor, ...]:
        return (torch.randn(4, 3, generator=generator)[part],)

    loss = Loss()
    fit(loss, {"layer": loss.layer}, draw, Schedule(3, 0.1, max_seconds=limit), key={}, name="x")
    said = capsys.readouterr().err
    assert "x: 100%" in said and told in said and ("at_most" in said) == bool(told)
