"""Delay from picture to effect: found by the model's predictions, and predicted over."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from point_task import ENV_ID, SPEC, SPEED, PointEnv, PointModel

from wm_mpc.control.controller import ControllerConfig
from wm_mpc.control.delay import MEASURED, LookAhead, SentCommands
from wm_mpc.core.errors import UserError
from wm_mpc.evaluation.episodes import Delayed, Episode
from wm_mpc.evaluation.loop import make_loop
from wm_mpc.evaluation.rows import evaluate
from wm_mpc.evaluation.settings import EvalSettings

PERIOD, FINE = 0.1, 0.002
THINKS = 0.03  # [s] from the begin of a tick to its command


def test_mean_commands_hold_until_the_next() -> None:
    sent = SentCommands(1)
    for when, value in ((10.0, 1.0), (10.2, 3.0), (10.4, -1.0)):
        sent.add(np.array([value]), when)
    edges = np.array([[10.0, 10.2, 10.3], [10.1, 10.3, 10.7]])
    means = sent.means(edges)[..., 0]
    assert means.tolist() == [pytest.approx([1.0, 3.0]), pytest.approx([2.0, 0.0])]
    sent.add(np.array([5.0]), 3.0)
    assert sent.since == 3.0, "a clock that is set back forgets what was"


def test_thousands_of_commands_take_no_more_room() -> None:
    sent, rng = SentCommands(2), np.random.default_rng(0)
    values = rng.standard_normal((3000, 2))
    for i, value in enumerate(values):
        sent.add(value, 0.1 * i)
    edges = 0.1 * np.arange(2900, 2911)
    assert sent.means(edges) == pytest.approx(values[2900:2910])
    assert sent.since > 150.0


class Robot:
    """A point whose commands act late: held, and ``delay`` [s] after they were sent."""

    def __init__(self, delay: float) -> None:
        self.delay = delay
        self.times, self.values = [-10.0], [np.zeros(2)]

    def send(self, command: np.ndarray, when: float) -> None:
        self.times.append(when)
        self.values.append(command)

    def place(self, when: float) -> np.ndarray:
        at = np.arange(FINE / 2, when, FINE)
        in_force = np.searchsorted(np.add(self.times, self.delay), at, side="right") - 1
        return SPEED / PERIOD * FINE * np.array(self.values)[in_force].sum(0)


def drive(delay: float, given_ms: float, ticks: int = 60) -> tuple[LookAhead, list[float], float]:
    """Random commands; the last lead, and errors of what was foreseen of the last ticks."""
    robot, rng = Robot(delay), np.random.default_rng(3)
    engine: Any = SimpleNamespace(model=PointModel())
    look = LookAhead(engine, given_ms)
    foreseen, lead = [], 0.0
    for tick in range(ticks):
        stamp = PERIOD * tick
        latent = torch.tensor([0.0, *robot.place(stamp)], dtype=torch.float32)
        there, lead = look.ahead(engine, latent, stamp, stamp)
        foreseen.append((stamp + lead, there[1:].numpy()))
        command = rng.uniform(-1, 1, 2)
        robot.send(command, stamp + THINKS)
        look.sent(command, stamp + THINKS)
        look.see(engine, latent, stamp)
    late = [robot.place(when) - place for when, place in foreseen[-20:]]
    return look, [float(np.abs(miss).max()) for miss in late], lead


@pytest.mark.parametrize("delay_ms", [0, 40, 100, 150, 200])
def test_the_delay_is_found_while_driving(delay_ms: int) -> None:
    look, errors, lead = drive(delay_ms / 1e3, MEASURED)
    assert look.watch.delay_s == pytest.approx(delay_ms / 1e3, abs=0.012)
    assert lead == pytest.approx(THINKS + delay_ms / 1e3, abs=0.02)
    assert max(errors) < 0.15 * SPEED, "of the way of one period"


def test_a_given_delay_is_taken_as_it_is() -> None:
    look, errors, lead = drive(0.1, 130.0)
    assert look.watch.delay_s is None and lead == pytest.approx(0.13)
    assert max(errors) < 0.05 * SPEED


def test_without_a_delay_nothing_is_predicted() -> None:
    _, errors, lead = drive(0.1, 0.0)
    assert lead == 0 and max(errors) < 1e-6, "the plan starts at what was seen"


def test_a_robot_at_rest_tells_nothing() -> None:
    engine: Any = SimpleNamespace(model=PointModel())
    look = LookAhead(engine, MEASURED)
    for tick in range(100):
        look.sent(np.zeros(2), PERIOD * tick)
        look.see(engine, torch.zeros(3), PERIOD * tick)
    assert look.watch.delay_s is None and look.watch.steps == 0


def swings(added_ms: float, delay_ms: float) -> float:
    """Largest distance from the goal in the last second, mean over some goals [m]."""
    settings = EvalSettings(ENV_ID, "adam", goals=1, added_delay_ms=added_ms, delay_ms=delay_ms)
    controller, _ = make_loop(settings, PointModel(), None, SPEC)
    late = round(added_ms / 100)
    policy = Delayed(controller, late, 2) if late else controller
    env, worst = PointEnv(), []
    for seed in range(4):
        observation, _ = env.reset(seed=seed, options={"goal_offset": 6})
        policy.reset(env.observe(env.goal_state), seed, None)
        episode, away = Episode(seed), []
        while episode.steps < 25:
            observation, _, _, _, info = env.step(policy.act(observation, episode))
            episode.steps += 1
            away.append(info["error"])
        worst.append(max(away[-10:]))
    return float(np.mean(worst))


def test_a_robot_whose_commands_act_late_swings_about_its_goal_unless_that_is_foreseen() -> None:
    calm = swings(0.0, 0.0)
    assert swings(200.0, 0.0) > 3 * calm + 0.1
    for added in (100.0, 200.0):
        assert swings(added, added) < 1.5 * calm + 0.02


def test_a_delay_between_two_control_steps_is_refused() -> None:
    with pytest.raises(UserError, match=r"added_delay_ms: 50 ms; a multiple of .* 100 ms"):
        evaluate(PointModel(), ENV_ID, "adam", 1, progress=False, added_delay_ms=50.0)
    with pytest.raises(ValueError, match="delay_ms"):
        ControllerConfig(delay_ms=-0.5)
    assert math.isclose(ControllerConfig(delay_ms=MEASURED).delay_ms, -1)
