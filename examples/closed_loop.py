"""The controller without ROS: your own loop hands over pictures and gets commands.

    python examples/closed_loop.py

Put your robot in the place of the simulated one: a picture, joint positions, and a way to command.
"""

from __future__ import annotations

import gymnasium

from wm_mpc import Controller, Engine, WorldModel
from wm_mpc.control.controller import ControllerConfig
from wm_mpc.control.engine import EngineConfig
from wm_mpc.control.safety import CommandFilter, SafetyLimits
from wm_mpc.core.locations import ASSETS

SEED = 7


def main() -> None:
    """Drive one episode of Wall."""
    robot = gymnasium.make("sim_bridge:wm_mpc/Wall-v0", image_size=96).unwrapped
    seen, _ = robot.reset(seed=SEED)

    # Model, planner and budget; this times CEM 300 x 30, whose tenth a tick may use.
    model = WorldModel.load(ASSETS / "wall")
    config = model.config
    period = config.control_period
    engine = Engine.build(model, EngineConfig(planner="adam", control_rate_hz=1 / period))

    limits = SafetyLimits().for_period(period)
    controller = Controller(engine, ControllerConfig(seed=SEED), limits)
    # A simulator waits, so its clock moves with its steps; on a robot it is that of the stamps.
    now = 0.0
    safe = CommandFilter(limits, config.action_low, config.action_high, period, lambda: now)

    controller.set_goal(robot.observe(robot.goal_state)["image"])
    for step in range(100):
        controller.observe(seen["image"], seen["proprio"], stamp=now)
        tick = controller.tick(now)
        command = safe.step(tick.command, tick.image_age_s, tick.plan_age_s, tick.reason)
        seen, _, done, _, info = robot.step(command.values)
        now += period
        if step % 10 == 0 or done:
            print(f"step {step}: {tick.state.name}, distance {tick.distance:.2f}, "
                  f"planned {1e3 * tick.plan_s:.0f} ms, error {info['error']:.1f} px")  # fmt: skip
        if done:
            break
    print("goal reached" if info["success"] else "goal missed")


if __name__ == "__main__":
    main()
