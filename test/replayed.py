"""Recordings without ROS: the actions that made the goal, replayed in the simulator."""

from __future__ import annotations

import numpy as np

from sim_bridge.tasks import make_task
from wm_mpc.control.tick import State
from wm_mpc.trials.recording import Moment, Plan, Recording, Tick

PERIOD = 0.1


def tick(stamp: float, **changes: object) -> Tick:
    """A healthy tick of 20 ms that ended at ``stamp``."""
    fields = {
        "state": int(State.RUNNING), "reason": "", "planner": "adam", "model_hash": "0" * 12,
        "tick_ms": 20.0, "encode_ms": 5.0, "plan_ms": 12.0, "budget_ms": 14.0,
        "cem_reference_ms": 200.0, "cem_ratio_wall": 0.06, "cem_ratio_transitions": 0.05,
        "iterations": 10, "transitions": 2250, "transitions_reference": 45_000,
        "image_age_ms": 5.0, "latent_distance": 1.0, "deadline_missed": False,
    }  # fmt: skip
    return Tick(stamp, **{**fields, **changes})


def replay(seed: int, steps: int = 25, size: int = 48) -> Recording:
    """One Push-T episode; with 25 steps it reaches its goal, with fewer it does not."""
    task = make_task("pusht", image_size=size)
    observation, info = task.reset(seed=seed)
    actions, begin = task.goal_actions, 1000.0 * (seed % 1000)
    moments, ticks, plans = [], [], []
    for step in range(steps + 1):
        if step:
            observation, _, _, _, info = task.step(actions[step - 1])
        stamp = begin + step * PERIOD
        errors = {name: float(value) for name, value in info.items() if name != "success"}
        moments.append(
            Moment(
                stamp, step, observation["state"], errors, bool(info["success"]),
                observation["image"],
            )
        )  # fmt: skip
        if info["success"] and step:
            break
        if step < min(steps, len(actions)):
            ticks.append(tick(stamp + 0.025))
            plans.append(Plan(stamp + 0.025, np.asarray(actions[step:])))
    return Recording(
        seed, task.goal_state, task.render_state(task.goal_state), tuple(moments), tuple(ticks),
        tuple(plans),
    )  # fmt: skip
