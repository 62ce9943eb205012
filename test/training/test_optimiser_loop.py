"""The optimiser loop with a schedule of torch's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from wm_mpc.training.optimise.loop import Schedule, fit


class Loss(nn.Module):
    """Squared output of a linear layer; ends the run by a signal after some calls."""

    def __init__(self, calls: int = 10**6) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.calls = nn.Linear(3, 2), calls

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        self.calls -= 1
        if self.calls < 0:
            raise KeyboardInterrupt
        return {"loss": self.layer(x).square().mean()}


def run(loss: Loss, folder: Path | None, steps: int = 8) -> list[float]:
    """Train, and tell the rates that were set."""
    rates: list[float] = []
    optimizers: list[torch.optim.Optimizer] = []

    def scheduler(optimizer: torch.optim.Optimizer) -> LambdaLR:
        optimizers.append(optimizer)
        return LambdaLR(optimizer, lambda step: 1 / (1 + step))

    def draw(generator: torch.Generator, part: slice) -> tuple[Tensor, ...]:
        rates.append(optimizers[0].param_groups[0]["lr"])
        return (torch.randn(4, 3, generator=generator)[part],)

    schedule = Schedule(steps, 0.5, save_every=2, scheduler=scheduler)
    fit(loss, {"layer": loss.layer}, draw, schedule, key={}, name="test", folder=folder,
        progress=False)  # fmt: skip
    return rates


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
def test_a_run_that_was_cut_short_goes_on_with_its_schedule(tmp_path: Path) -> None:
    whole = Loss()
    rates = run(whole, None)
    assert rates == pytest.approx([0.5 / (1 + step) for step in range(8)])
    cut = Loss(calls=5)
    with pytest.raises(KeyboardInterrupt):
        run(cut, tmp_path)
    resumed = Loss()
    assert run(resumed, tmp_path) == pytest.approx(rates[4:])
    assert torch.equal(resumed.layer.weight, whole.layer.weight)
