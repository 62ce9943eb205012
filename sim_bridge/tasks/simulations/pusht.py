"""Push-T: constants and behaviour policies; ``sim_bridge.tasks.pusht`` simulates it."""

from __future__ import annotations

from sim_bridge.tasks.base import TaskSpec
from sim_bridge.tasks.contact_policy import PushTContact
from sim_bridge.tasks.simulation import Simulation
from sim_bridge.tasks.walks import PiecewiseUniform, RandomWalk

SPEC = TaskSpec(
    name="pusht",
    env_id="wm_mpc/PushT-v0",
    control_period=0.1,
    frameskip=5,
    action_low=(-1.0, -1.0),
    action_high=(1.0, 1.0),
    proprio_names=("agent_x", "agent_y"),
    proprio_dim=4,
    state_dim=7,
    goal_offset=25,
    episode_steps=50,
    error_unit="px",
)

SIMULATION = Simulation(
    spec=SPEC,
    environment="sim_bridge.tasks.pusht:PushTEnv",
    policies={"contact": PushTContact, "random": RandomWalk, "box": PiecewiseUniform},
)
