from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_clock import FakeClock
from helpers import tiny_encoder, tiny_model
from torch import Tensor

from wm_mpc.control.controller import Controller, ControllerConfig
from wm_mpc.control.engine import Engine, EngineConfig
from wm_mpc.control.safety import SafetyLimits
from wm_mpc.control.thread_usage import Usage
from wm_mpc.control.tick import State
from wm_mpc.core.errors import UserError
from wm_mpc.models.identity import perception_hash
from wm_mpc.models.proposers import InitNetwork, save_proposer
from wm_mpc.models.world_model import WorldModel
from wm_mpc.planners import Plan, PlanRequest
from wm_mpc.planners.budget import CemReference
from wm_mpc.planners.objective import GoalObjective, ObjectiveConfig
from wm_mpc.planners.registry import PLANNERS, make_planner
from wm_mpc.planners.subgoals import save_graph
from wm_mpc.training.dynamics.subgoals import build_graph

PERIOD = 0.1
HORIZON = 3
REFERENCE = CemReference(0.5, 45000, 1, 30, 30, "cpu", 1)
PICTURE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
GOAL = PICTURE[::-1]
PROPRIO = np.array([250.0, 260.0, 1.0, -1.0], np.float32)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> object:
    return tiny_encoder(tmp_path_factory.mktemp("encoder"))


class ScriptedPlanner:
    """Returns what it is told, and remembers what it was asked."""

    name = "scripted"

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.requests: list[PlanRequest] = []
        self.takes_s = 0.01
        self.answer: Callable[[PlanRequest], Plan] = self.ramp

    def plan(self, request: PlanRequest) -> Plan:
        self.requests.append(request)
        self.clock.advance(self.takes_s)
        return self.answer(request)

    def warm_up(self) -> None:
        pass

    def ramp(self, request: PlanRequest) -> Plan:
        """Rows 0, 1, 2, ... so that a shift can be read off."""
        steps = torch.arange(HORIZON * 5, dtype=torch.float32) / 100
        return self.made(steps[:, None].expand(-1, 2).reshape(HORIZON, 10))

    def made(self, actions: torch.Tensor, cost: float = 1.0, stopped: str = "iterations") -> Plan:
        return Plan(actions, cost, math.nan, None, 3, 450, self.takes_s, stopped, self.name)


class Rig:
    """A controller whose clocks and planner are in the test's hands."""

    def __init__(self, encoder: object, **changes: object) -> None:
        self.clock = FakeClock()
        self.planner = ScriptedPlanner(self.clock)
        self.engine = self.make_engine(encoder, **changes)
        self.limits = SafetyLimits(max_image_age_s=0.3, max_plan_age_s=0.5)
        config = ControllerConfig(seed=5)
        self.controller = Controller(self.engine, config, self.limits, self.clock)
        self.now = 100.0

    def make_engine(self, encoder: object, seed: int = 0, **changes: object) -> Engine:
        model = tiny_model(encoder, seed, **changes)
        model.action_std.fill_(1.0)
        sizes = (HORIZON, model.visual_dim, model.proprio_width)
        objective = GoalObjective(ObjectiveConfig(), *sizes)
        config = EngineConfig(horizon=HORIZON, compile=False)
        return Engine(model, self.planner, objective, REFERENCE, config)

    def see(self, image: np.ndarray = PICTURE) -> None:
        self.controller.observe(image, PROPRIO, self.now)

    def tick(self, dt: float = PERIOD, see: bool = True) -> object:
        self.now += dt
        self.clock.advance(dt)
        if see:
            self.see()
        return self.controller.tick(self.now)


@pytest.fixture
def rig(encoder: object) -> Rig:
    rig = Rig(encoder)
    rig.controller.set_goal(GOAL, PROPRIO)
    return rig


def test_without_a_goal_there_is_no_command(encoder: object) -> None:
    rig = Rig(encoder)
    result = rig.tick()
    assert (result.state, result.command) == (State.IDLE, None)
    assert result.reason == "goal: none set" and not rig.planner.requests


def test_without_an_image_there_is_no_command(rig: Rig) -> None:
    result = rig.tick(see=False)
    assert (result.state, result.command) == (State.SAFE_STOP, None)
    assert result.reason == "image: none received"


def test_a_tick_commands_the_first_raw_action_and_reports(rig: Rig) -> None:
    result = rig.tick()
    assert result.state is State.RUNNING and result.reason == ""
    assert result.command.tolist() == [0.0, 0.0] and result.actions.shape == (15, 2)
    assert result.actions[3].tolist() == pytest.approx([0.03, 0.03])
    assert result.plan_s == pytest.approx(0.01)
    assert result.ratio_wall == pytest.approx(0.02)
    assert result.ratio_transitions == pytest.approx(0.01)
    assert result.distance > 0 and result.image_age_s == 0 and result.plan_age_s == 0


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_warm_start_is_shifted_by_whole_control_steps(rig: Rig, steps: int) -> None:
    rig.tick()
    rig.tick(steps * PERIOD + 0.004)
    warm = rig.planner.requests[-1].warm_start.reshape(-1, 2)[:, 0].numpy()
    expected = np.r_[np.arange(steps, 15) / 100, np.zeros(steps)]
    assert warm == pytest.approx(expected, abs=1e-6)


def test_warm_start_interpolates_between_steps(rig: Rig) -> None:
    rig.tick()
    rig.tick(1.5 * PERIOD)
    warm = rig.planner.requests[-1].warm_start.reshape(-1, 2)[:, 0].numpy()
    assert warm[:12] == pytest.approx(np.arange(1.5, 13) / 100, abs=1e-6)


def test_every_tick_draws_anew_and_every_run_alike(encoder: object) -> None:
    seeds = []
    for _ in range(2):
        rig = Rig(encoder)
        rig.controller.set_goal(GOAL, PROPRIO)
        rig.tick()
        rig.tick()
        seeds.append([request.seed for request in rig.planner.requests])
    assert seeds[0] == seeds[1] and len(set(seeds[0])) == 2


def test_a_new_goal_starts_cold(rig: Rig) -> None:
    rig.tick()
    rig.controller.set_goal(PICTURE, PROPRIO)
    rig.tick()
    before, after = rig.planner.requests
    assert after.warm_start is None
    assert not torch.equal(before.goal, after.goal)


def test_the_deadline_is_the_smaller_of_budget_and_period(rig: Rig) -> None:
    rig.tick()
    assert rig.planner.requests[-1].deadline - rig.clock() == pytest.approx(0.05 - 0.01)
    slow = dataclasses.replace(REFERENCE, seconds=60.0)
    config = rig.engine.config
    engine = Engine(rig.engine.model, rig.planner, rig.engine.objective, slow, config)
    rig.controller.swap_model(engine)
    rig.tick()
    assert rig.planner.requests[-1].deadline - rig.clock() == pytest.approx(0.07 - 0.01)


def test_a_late_planner_is_counted_and_asked_earlier(rig: Rig) -> None:
    # It ends 4 ms after whatever deadline it is given, as one with a closing evaluation does.
    def late(request: PlanRequest) -> Plan:
        rig.clock.now = request.deadline + 0.004
        return rig.planner.ramp(request)

    rig.planner.answer = late
    missed = [rig.tick().deadline_missed for _ in range(10)]
    assert missed == [True, True] + [False] * 8
    # two steps of a twentieth of the budget, of which eight ticks gave a little back
    assert rig.controller._reserve == pytest.approx(2 * 0.0025 - 8 * 0.00000625)


def test_one_hiccup_costs_little_time_and_is_forgotten(rig: Rig) -> None:
    rig.planner.takes_s = 10.0
    assert rig.tick().deadline_missed
    rig.planner.takes_s = 0.01
    assert rig.controller._reserve <= 0.05 * 0.05 + 1e-9
    for _ in range(101):
        assert not rig.tick().deadline_missed
    assert rig.controller._reserve == 0.0


def test_a_tick_tells_how_late_it_was_and_what_held_it_up(rig: Rig) -> None:
    # at the start, after encoding, after planning: what counts begins with the bound that binds
    readings = [Usage(1.0, 0.5, 2.0), Usage(1.002, 0.6, 2.002), Usage(1.012, 0.62, 2.052)]
    rig.controller.meter = iter(readings * 2).__next__
    rig.planner.takes_s = 0.06
    result = rig.tick()
    assert result.deadline_missed and result.late_s == pytest.approx(0.01)
    assert dataclasses.astuple(result.stall) == pytest.approx((0.02, 0.03, 0.04))
    slow = dataclasses.replace(REFERENCE, seconds=60.0)
    objective, config = rig.engine.objective, rig.engine.config
    rig.controller.swap_model(Engine(rig.engine.model, rig.planner, objective, slow, config))
    result = rig.tick()
    assert not result.deadline_missed and result.late_s == pytest.approx(-0.01)
    assert dataclasses.astuple(result.stall) == pytest.approx((0.12, 0.0, 0.04))


def fail(_: PlanRequest) -> Plan:
    raise RuntimeError("the device is gone\nand more")


def test_a_budget_too_short_for_anything_is_overdrawn_and_told(rig: Rig) -> None:
    def hurried(request: PlanRequest) -> Plan:
        left = request.deadline - rig.clock()
        if left < 0.045:
            nothing = rig.planner.made(torch.zeros(HORIZON, 10), math.inf, "deadline")
            return dataclasses.replace(nothing, iterations=0)
        rig.clock.advance(0.045)
        return rig.planner.ramp(request)

    rig.planner.answer = hurried
    results = [rig.tick() for _ in range(6)]
    assert results[0].state is State.SAFE_STOP and "nothing evaluated" in results[0].reason
    assert [result.state for result in results[1:]] == [State.RUNNING] * 5
    assert [result.deadline_missed for result in results] == [False, True] * 3


def test_posture_weights_come_back_as_they_were(encoder: object) -> None:
    relative = torch.tensor([2.0, 1.0, 0.0, 1.0])
    objective = GoalObjective(ObjectiveConfig(), HORIZON, 6, 4, proprio_weights=relative)
    before = objective.channel_weights.clone()
    objective.use_proprio(False)
    assert not objective.channel_weights[6:].any()
    assert torch.equal(objective.channel_weights[:6], before[:6])
    objective.use_proprio(True)
    assert torch.equal(objective.channel_weights, before)


@pytest.mark.parametrize("how", ["raises", "nothing"])
def test_a_failing_planner_plays_the_previous_plan_then_stops(rig: Rig, how: str) -> None:
    rig.tick()
    rig.planner.answer = {
        "raises": fail,
        "nothing": lambda q: rig.planner.made(q.warm_start, math.inf, "deadline"),
    }[how]
    for step in range(1, 6):
        result = rig.tick()
        assert result.state is State.RUNNING and result.reason
        assert "\n" not in result.reason
        assert result.command[0] == pytest.approx(step / 100, abs=1e-6)
        assert result.plan_age_s == pytest.approx(step * PERIOD)
    result = rig.tick()
    assert (result.state, result.command) == (State.SAFE_STOP, None)
    rig.planner.answer = rig.planner.ramp
    assert rig.tick().state is State.RUNNING


@pytest.mark.parametrize("how", ["plan", "cost", "latent"])
def test_what_is_not_finite_stops_at_once_and_is_forgotten_with_the_first_good_tick(
    rig: Rig, how: str
) -> None:
    rig.tick()
    if how == "latent":
        sound, rig.engine.look = rig.engine.look, lambda *a: [x * math.nan for x in sound(*a)]
    else:
        bad = torch.full((HORIZON, 10), math.nan)
        rig.planner.answer = {
            "plan": lambda _: rig.planner.made(bad),
            "cost": lambda q: rig.planner.made(q.warm_start, math.inf, "non_finite"),
        }[how]
    result = rig.tick()
    assert (result.state, result.command) == (State.SAFE_STOP, None)
    assert "finite" in result.reason or "nan" in result.reason
    assert rig.tick(see=False).state is State.SAFE_STOP
    rig.planner.answer = rig.planner.ramp
    if how == "latent":
        rig.engine.look = sound
    assert rig.tick().state is State.RUNNING


def test_a_distrusted_input_stops_at_once_until_a_good_one_comes(rig: Rig) -> None:
    rig.tick()
    rig.controller.distrust("proprio", "proprio.position: nan at joint 'a'")
    result = rig.tick(see=False)
    assert (result.state, result.command) == (State.SAFE_STOP, None)
    assert "proprio.position: nan" in result.reason
    assert rig.tick().state is State.RUNNING


def test_a_planner_that_fails_at_once_commands_nothing(rig: Rig) -> None:
    rig.planner.answer = fail
    result = rig.tick()
    assert (result.state, result.command) == (State.SAFE_STOP, None)
    assert "the device is gone" in result.reason


def test_the_same_image_plays_on_without_thinking(rig: Rig) -> None:
    rig.tick()
    result = rig.tick(see=False)
    assert len(rig.planner.requests) == 1 and math.isnan(result.plan_s)
    assert result.command[0] == pytest.approx(0.01)


def test_stale_images_stop_and_fresh_ones_resume(rig: Rig) -> None:
    rig.tick()
    states = [rig.tick(see=False).state for _ in range(4)]
    assert states == [State.RUNNING] * 3 + [State.SAFE_STOP]
    assert "old; at most 0.3 s" in rig.tick(see=False).reason
    assert rig.tick().state is State.RUNNING


def test_bad_inputs_are_told_until_a_good_one_comes(rig: Rig) -> None:
    rig.tick()
    rig.controller.reject("image", "image.encoding: 'x'; rgb8 expected")
    assert "image.encoding" in rig.tick(see=False).reason
    assert rig.tick().reason == ""


@pytest.mark.parametrize(
    ("image", "proprio", "error"),
    [
        (PICTURE.astype(np.float32), PROPRIO, "image: float32"),
        (PICTURE[:, :, 0], PROPRIO, r"image: uint8 \(32, 32\)"),
        (PICTURE[:8], PROPRIO, "image: 8 x 32 px; at least 16 x 16 expected"),
        (PICTURE, PROPRIO[:3], r"proprio: shape \(3,\); \(4,\) expected"),
        (PICTURE, None, "proprio: none"),
        (PICTURE, PROPRIO * np.float32(np.nan), "proprio: .* not finite"),
    ],
)
def test_bad_observations_are_refused(
    rig: Rig, image: np.ndarray, proprio: np.ndarray, error: str
) -> None:
    with pytest.raises(ValueError, match=error):
        rig.controller.observe(image, proprio, rig.now)
    assert rig.tick(see=False).command is None


def test_pictures_of_another_size_are_refused_where_one_is_configured(rig: Rig) -> None:
    config = ControllerConfig(image_shape=(32, 48))
    controller = Controller(rig.engine, config, rig.limits, rig.clock)
    with pytest.raises(ValueError, match="image: 32 x 32 px; 32 x 48 px expected"):
        controller.observe(PICTURE, PROPRIO, 0.0)
    with pytest.raises(ValueError, match="goal_image: 32 x 32 px; 32 x 48 px expected"):
        controller.set_goal(PICTURE)


def test_a_picture_of_the_goal_size_may_differ(rig: Rig) -> None:
    rig.controller.set_goal(np.zeros((64, 64, 3), np.uint8))
    assert rig.tick().state is State.RUNNING


def test_reached_holds_and_leaves_with_hysteresis(rig: Rig) -> None:
    rig.tick()
    distance = rig.tick().distance
    rig.controller.set_goal(GOAL, PROPRIO, tolerance=distance * 1.01)
    result = rig.tick()
    assert (result.state, result.command) == (State.REACHED, None)
    rig.controller.set_goal(GOAL, PROPRIO, tolerance=distance * 0.99)
    assert rig.tick().state is State.RUNNING


def test_clearing_the_goal_ends_the_commands(rig: Rig) -> None:
    rig.tick()
    rig.controller.clear_goal()
    assert rig.tick().state is State.IDLE


def test_distance_ignores_an_unknown_goal_posture(rig: Rig) -> None:
    known = rig.tick().distance
    rig.controller.set_goal(GOAL, PROPRIO + 400)
    far = rig.tick().distance
    rig.controller.set_goal(GOAL, None)
    assert known < far
    alone = rig.tick().distance
    visual = rig.engine.model.visual_dim
    # The posture agreed before, so its channels only diluted the same visual difference.
    assert alone == pytest.approx(known * math.sqrt((visual + 4) / visual), rel=1e-4)


# Lifted planners place states between now and the goal: there the posture counts as a guess.
@pytest.mark.parametrize("name", [name for name in PLANNERS if name not in ("grasp", "latco")])
@pytest.mark.parametrize("compile", [False, True])
def test_no_planner_heeds_an_unknown_goal_posture(
    encoder: object, name: str, compile: bool
) -> None:
    model = tiny_model(encoder)
    objective = GoalObjective(ObjectiveConfig(), HORIZON, model.visual_dim, model.proprio_width)
    planner = make_planner(name, model, objective, compile=compile)
    latent, goal = torch.randn(2, 10, generator=torch.Generator().manual_seed(0))
    other = goal.clone()
    other[model.visual_dim :] += 3.0
    plans = {}
    for used in (True, False):
        objective.use_proprio(used)
        budget = {"max_transitions": 4000}
        costs = [planner.plan(PlanRequest(latent, to, **budget)).cost for to in (goal, other)]
        plans[used] = costs
    assert plans[True][0] != pytest.approx(plans[True][1], rel=1e-6)
    assert plans[False][0] == pytest.approx(plans[False][1], rel=1e-6)


def test_a_swapped_model_takes_over_between_ticks_with_the_running_plan(
    rig: Rig, encoder: object
) -> None:
    rig.tick()
    other = rig.make_engine(encoder, seed=1)
    other.model.action_std.fill_(0.5)
    rig.controller.swap_model(other)
    result = rig.tick()
    assert result.engine is other
    warm = rig.planner.requests[-1].warm_start.reshape(-1, 2)[:, 0].numpy()
    # The same raw commands in the other model's units.
    assert warm[:14] == pytest.approx(np.arange(1, 15) / 100 / 0.5, abs=1e-6)


def test_a_swapped_model_of_another_pace_starts_cold(rig: Rig, encoder: object) -> None:
    rig.tick()
    planner = rig.planner
    planner.answer = lambda _: planner.made(torch.zeros(HORIZON, 4))
    rig.controller.swap_model(rig.make_engine(encoder, frameskip=2))
    assert rig.tick().state is State.RUNNING
    assert planner.requests[-1].warm_start is None


def test_a_model_of_another_robot_is_refused(rig: Rig, encoder: object) -> None:
    other = rig.make_engine(encoder, proprio_dim=2)
    with pytest.raises(ValueError, match="proprio_dim: 2; 4 expected"):
        rig.controller.swap_model(other)
    assert rig.tick().engine is rig.engine


def test_an_engine_is_built_calibrated_and_keeps_its_budget(encoder: object) -> None:
    model = tiny_model(encoder)
    config = EngineConfig(compile=False, horizon=HORIZON)
    engine = Engine.build(model, config)
    assert engine.reference.transitions == 45000 and engine.reference.seconds > 0
    assert engine.budget.seconds == pytest.approx(min(0.1 * engine.reference.seconds, 0.07))
    assert engine.same_shape(tiny_model(encoder, 1))
    assert not engine.same_shape(tiny_model(encoder, 1, visual_dim=7))


@pytest.mark.parametrize(
    ("changes", "error"),
    [({"control_rate_hz": 50.0, "margin_s": 0.001}, "50 Hz; the model was trained for 10"),
     ({"planner": "magic"}, "planner: 'magic' unknown")],
)  # fmt: skip
def test_engines_that_cannot_work_are_refused(
    encoder: object, changes: dict, error: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=error):
        Engine.build(tiny_model(encoder), EngineConfig(**changes), reference=REFERENCE)


@pytest.mark.parametrize(
    ("changes", "error"),
    [({"margin_s": 0.1}, "margin_s: 0.1 s; less than"), ({"horizon": 0}, "horizon: 0; 1 to 100"),
     ({"control_rate_hz": math.nan}, "control_rate_hz: nan")],
)  # fmt: skip
def test_bad_configurations_are_named(changes: dict, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        EngineConfig(**changes)


def saved_proposer(model: WorldModel, folder: Path, horizon: int, latents: str = "") -> str:
    network = InitNetwork(model.latent_shape, model.action_width, horizon, width=8)
    return str(save_proposer(network, folder, latents or perception_hash(model)))


def test_learned_proposals_reach_the_planner(encoder: object, tmp_path: Path) -> None:
    model = tiny_model(encoder)
    path = saved_proposer(model, tmp_path, HORIZON)
    config = EngineConfig(compile=False, horizon=HORIZON, proposals=path)
    engine = Engine.build(model, config, reference=REFERENCE)
    asked: list[PlanRequest] = []
    plan = engine.planner.plan
    engine.planner.plan = lambda request: asked.append(request) or plan(request)
    controller = Controller(engine, ControllerConfig(), SafetyLimits())
    controller.set_goal(GOAL, PROPRIO)
    controller.observe(PICTURE, PROPRIO, 0.0)
    result = controller.tick(0.0)
    assert result.state is State.RUNNING
    (request,) = asked
    assert torch.equal(request.proposals, engine.propose(request.latent, request.goal))
    assert request.proposals.shape == (1, HORIZON, 10) and request.proposals.any()


@pytest.mark.parametrize(
    ("horizon", "latents", "error"),
    [(HORIZON + 1, "", "proposals: horizon 4; 3 expected"),
     (HORIZON, "0123", "made for latents 0123, not")],
)  # fmt: skip
def test_proposals_for_something_else_are_refused(
    encoder: object, tmp_path: Path, horizon: int, latents: str, error: str
) -> None:
    model = tiny_model(encoder)
    path = saved_proposer(model, tmp_path, horizon, latents)
    config = EngineConfig(compile=False, horizon=HORIZON, proposals=path)
    with pytest.raises(UserError, match=error):
        Engine.build(model, config, reference=REFERENCE)


def saved_subgoals(model: WorldModel, folder: Path, start: Tensor, latents: str = "") -> str:
    """A straight way of ten recorded steps from ``start`` to nowhere in particular."""
    way = start + torch.linspace(0, 5, 11)[:, None] * torch.ones(len(start))
    scale = torch.full((len(start),), 2.0 / len(start) ** 0.5)
    graph = build_graph(way, np.zeros(11), scale, model.visual_dim)
    return str(save_graph(graph, folder, latents or perception_hash(model)))


def test_a_far_goal_is_approached_through_recorded_latents(
    encoder: object, tmp_path: Path
) -> None:
    """The planner is given what lies three steps along the way; reached is the goal itself."""
    model = tiny_model(encoder)
    pair = torch.from_numpy(PICTURE[None]), torch.from_numpy(PROPRIO[None])
    here = model.encode(*pair)[0].detach()
    path = saved_subgoals(model, tmp_path, here)
    config = EngineConfig(compile=False, horizon=HORIZON, subgoals=path, lookahead=3.0)
    engine = Engine.build(model, config, reference=REFERENCE)
    nodes = engine.subgoals.nodes
    asked: list[PlanRequest] = []
    plan = engine.planner.plan
    engine.planner.plan = lambda request: asked.append(request) or plan(request)
    controller = Controller(engine, ControllerConfig(), SafetyLimits())
    controller.set_goal(PICTURE, PROPRIO)
    # what the goal's picture shows, put at the end of the way
    controller.observe(PICTURE, PROPRIO, 0.0)
    assert controller.tick(0.0).state is State.RUNNING
    assert asked[-1].goal is controller._goal_latent
    controller._goal_latent = nodes[-1] + 0.01
    controller.observe(PICTURE, PROPRIO, 0.1)
    result = controller.tick(0.1)
    assert result.state is State.RUNNING
    assert torch.equal(asked[-1].goal, nodes[3])
    assert result.distance == pytest.approx(
        float(engine.distance(here, nodes[-1] + 0.01)), rel=1e-4
    )


def test_subgoals_for_something_else_are_refused(encoder: object, tmp_path: Path) -> None:
    model = tiny_model(encoder)
    start = torch.zeros(model.latent_shape)
    for latents, path in (("0123", None), ("", "none.safetensors")):
        saved = saved_subgoals(model, tmp_path, start, latents)
        config = EngineConfig(compile=False, horizon=HORIZON, subgoals=path or saved)
        with pytest.raises(UserError, match="made for latents 0123, not|not a usable graph"):
            Engine.build(model, config, reference=REFERENCE)


def test_a_restart_repeats_what_happened_and_keeps_what_the_machine_taught(rig: Rig) -> None:
    def late(request: PlanRequest) -> Plan:
        rig.clock.now = request.deadline + 0.004
        return rig.planner.ramp(request)

    rig.planner.answer = late
    rig.tick()
    reserve = rig.controller._reserve
    rig.controller.restart(seed=5)
    assert rig.controller._reserve == reserve > 0
    assert rig.controller.goal is None and rig.tick(see=False).reason == "goal: none set"
    rig.controller.restart(seed=5)
    rig.controller.set_goal(GOAL, PROPRIO)
    assert rig.tick(see=False).reason == "image: none received"
    rig.controller.restart(seed=5)
    rig.controller.set_goal(GOAL, PROPRIO)
    rig.tick()
    first, again = rig.planner.requests
    assert again.warm_start is None and again.seed == first.seed
