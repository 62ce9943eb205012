# %% [markdown]
# # Drive a robot from a notebook, or from a script, over ROS 2
#
# In another terminal `wm-mpc launch wall_sim`, or your robot's nodes; then
# `python examples/drive_a_robot.py`. Editors and Jupyter (with jupytext) open this file as a
# notebook: a `# %%` begins a cell. Both sides must agree on `ROS_DOMAIN_ID`.

# %% Connect
import time

from wm_mpc.bringup.ros_env import prepare

prepare()  # where ROS comes from wheels, nothing else tells it where its plugins are

import rclpy  # noqa: E402
from rclpy.action import ActionClient  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402

from wm_mpc.action import ReachGoal  # noqa: E402
from wm_mpc.msg import PlannerStatus  # noqa: E402

rclpy.init()
node = rclpy.create_node("notebook")
latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
pictures: dict[str, Image] = {}
statuses: list[PlannerStatus] = []
node.create_subscription(Image, "goal_image", lambda m: pictures.update(goal=m), latched)
node.create_subscription(Image, "image", lambda m: pictures.update(camera=m), 1)
node.create_subscription(PlannerStatus, "status", statuses.append, 10)


def spin_until(done, timeout_s=60.0):
    """Let messages come until ``done()`` is true."""
    end = time.monotonic() + timeout_s
    while not done():
        rclpy.spin_once(node, timeout_sec=0.1)
        if time.monotonic() > end:
            raise TimeoutError("nothing came; do both sides have one ROS_DOMAIN_ID?")


# The simulator publishes a goal of its own: let the controller hear that one first.
spin_until(lambda: {"camera", "goal"} <= set(pictures)
           and statuses and statuses[-1].state == PlannerStatus.RUNNING)  # fmt: skip
camera = pictures["camera"]
print(f"camera {camera.width} x {camera.height} px, planner {statuses[-1].planner}")

# %% Ask for a goal: a picture of how it should look. Here the simulator's own; on a robot one that
# `wm-mpc goal snap` kept, or `pictures["camera"]` of a moment ago.
client = ActionClient(node, ReachGoal, "reach_goal")
client.wait_for_server(timeout_sec=10.0)
wanted = ReachGoal.Goal(goal_image=pictures["goal"], tolerance=0.2, timeout_s=15.0)


def told(message):
    """Each tick while the robot moves."""
    status = message.feedback.status
    if status.ticks % 10 == 0:
        print(f"tick {status.ticks}: distance {status.latent_distance:.2f}, "
              f"planned {status.plan_ms:.0f} of {status.budget_ms:.0f} ms")  # fmt: skip


sent = client.send_goal_async(wanted, feedback_callback=told)
spin_until(sent.done)
answer = sent.result().get_result_async()
spin_until(answer.done)
result = answer.result().result
print(f"{result.reason}: distance {result.final_distance:.2f} after {result.elapsed_s:.1f} s")

# %% Let go
rclpy.shutdown()
