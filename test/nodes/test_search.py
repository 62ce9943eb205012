"""What ``mpc_node`` tells about its search, over DDS, and when."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fake_clock import FakeClock
from helpers import tiny_checkpoint
from ros import START_S, NodeProcess, Probe
from test_integration import FAST, MPC, FakeRobot

from wm_mpc.models.world_model import WorldModel
from wm_mpc.msg import Plan
from wm_mpc.nodes.mpc.search import SearchTeller
from wm_mpc.planners.trace import SearchTrace


def test_a_plan_tells_its_search_where_that_is_asked_for(
    ros_domain: int, tmp_path: Path
) -> None:
    probe = Probe(ros_domain)
    probe.listen(Plan, "plan")
    robot = FakeRobot(probe)
    robot.set_goal()
    model = tiny_checkpoint(tmp_path / "model")
    log = tmp_path / "mpc.log"
    process = NodeProcess(MPC, log, model=model, publish_search=True, **FAST)
    try:
        told = lambda: [m for _, m in probe.heard["plan"] if m.candidates]  # noqa: E731
        plan = probe.wait(lambda: told()[-1] if len(told()) > 5 else None, START_S, "searches")
    finally:
        process.kill()
        robot.close()
        probe.close()
    history, costs = np.array(plan.cost_history), np.array(plan.candidate_costs)
    assert len(history) >= 1 and (np.diff(history) <= 0).all() and history[-1] >= plan.cost - 1e-6
    assert len(costs) == plan.candidates and (np.diff(costs) >= 0).all()
    assert costs[0] == pytest.approx(plan.cost, rel=1e-4)
    size = plan.horizon * plan.action_dim
    assert len(plan.candidate_actions) == plan.candidates * size
    best = np.array(plan.candidate_actions[:size])
    assert np.allclose(best, plan.actions, atol=1e-4)

    world = WorldModel.load(model)
    steps = plan.horizon // world.config.frameskip
    latents = np.array(plan.imagined, np.float32).reshape(steps + 1, *world.latent_shape)
    actions = world.normalize_actions(torch.tensor(best).reshape(1, -1, plan.action_dim).float())
    with torch.no_grad():
        following = world.rollout(torch.from_numpy(latents[:1]), actions)[0]
    assert np.allclose(following.numpy(), latents[1:], atol=1e-3)


class _Search:
    """Three plans, and a clock that goes on while somebody looks."""

    def __init__(self, clock: FakeClock, seconds: float) -> None:
        self.clock, self.seconds = clock, seconds

    def candidates(self) -> tuple[torch.Tensor, torch.Tensor]:
        self.clock.advance(self.seconds)
        return torch.zeros(3, 2, 4), torch.tensor([3.0, math.nan, 1.0])


def test_a_search_is_told_only_where_there_is_time() -> None:
    clock, sent = FakeClock(), []
    teller = SearchTeller(sent.append, clock)
    search = _Search(clock, 0.02)
    trace = SearchTrace((torch.tensor(1.0),), search)
    model = SimpleNamespace(denormalize_actions=lambda actions: actions)
    result = SimpleNamespace(
        plan=SimpleNamespace(trace=trace, latents=None), latent=None,
        engine=SimpleNamespace(model=model),
    )  # fmt: skip

    def candidates(left: float) -> int:
        teller.take(Plan(), result)
        assert len(sent) == 0
        teller.tell(clock() + left)
        return sent.pop().candidates

    assert candidates(0.05) == 2  # the one without a cost is none
    assert candidates(0.01) == 0  # it took 0.02 s before
    assert candidates(0.05) == 2
    search.seconds = 10.0
    assert candidates(0.05) == 2  # nobody could know
    assert candidates(0.05) == 0
    search.seconds = 0.02
    tried = [candidates(0.05) for _ in range(60)]
    assert 0 < sum(tried) and tried[0] == 0 and tried[-1] == 2  # a stall is forgotten

    teller.take(Plan(), SimpleNamespace(plan=SimpleNamespace(trace=None)))
    assert len(sent) == 1
