"""Plan in ten lines: two pictures in, the commands that lead from one to the other out.

python examples/plan_in_ten_lines.py
"""

import gymnasium
import torch

from wm_mpc import PlanRequest, WorldModel, make_planner
from wm_mpc.core.locations import ASSETS
from wm_mpc.planners.objective import ObjectiveConfig, make_objective

task = gymnasium.make("sim_bridge:wm_mpc/Wall-v0", image_size=96).unwrapped
now, _ = task.reset(seed=7)
goal = task.observe(task.goal_state)

model = WorldModel.load(ASSETS / "wall")
planner = make_planner("adam", model, make_objective(model, ObjectiveConfig()))
with torch.no_grad():
    pictures = torch.stack([torch.from_numpy(seen["image"]) for seen in (now, goal)])
    joints = torch.stack([torch.from_numpy(seen["proprio"]) for seen in (now, goal)])
    start, target = model.encode(pictures, joints)
plan = planner.plan(PlanRequest(start, target))
commands = model.denormalize_actions(plan.actions)

print(f"cost {plan.cost:.3f} after {plan.iterations} iterations, {1e3 * plan.wall_s:.0f} ms")
for k, command in enumerate(commands[:5].tolist()):
    print(f"command {k}: {command[0]:+.2f} {command[1]:+.2f}")
