"""A task of your own, from the picture to what counts as success: a dot on a table.

    python examples/slider.py                     # drives it about, shows that snapshots are exact
    export PYTHONPATH=examples                    # then as with every other task
    wm-mpc collect slider:TASK --episodes 500 --out data/slider
    wm-mpc train slider:TASK --data data/slider --encoder wm_mpc/assets/encoder --out models/slider
    wm-mpc eval --task slider:TASK --model models/slider --planner adam --goals 50

docs/tasks.md shows the same code and how an installed package declares it.
"""

import numpy as np

from sim_bridge.tasks.base import TaskEnv, TaskSpec
from sim_bridge.tasks.simulation import Simulation
from sim_bridge.tasks.walks import RandomWalk
from wm_mpc.tasks.presets import TaskPreset
from wm_mpc.tasks.quantities import Quantity
from wm_mpc.tasks.task import Task

SPEC = TaskSpec(
    name="slider", env_id="slider/Slider-v0", control_period=0.1, frameskip=2,
    action_low=(-1.0, -1.0), action_high=(1.0, 1.0), proprio_names=("x", "y"), proprio_dim=2,
    state_dim=2, goal_offset=10, episode_steps=40, error_unit="m",
)


class SliderEnv(TaskEnv):
    """The state is the dot's position [m] on a table of 1 m; a command of 1 moves it by 3 cm."""

    spec_task = SPEC
    position = np.full(2, 0.5)

    def snapshot(self):
        return self.position.copy()

    def restore(self, snapshot):
        self.position = self.check_state(snapshot)

    def advance(self, action):
        self.position = np.clip(self.position + 0.03 * self.check_action(action), 0.1, 0.9)
        return self.snapshot()

    def proprio(self, state):
        return np.asarray(state, np.float32)

    def in_picture(self, state):
        return np.asarray(state)

    def render_state(self, state, size=None):
        size = size or self.image_size
        y, x = (np.mgrid[:size, :size] + 0.5) / size
        picture = np.where((x * 8).astype(int) + (y * 8).astype(int) & 1, 190, 150)
        picture = np.repeat(picture[..., None], 3, 2).astype(np.uint8)
        picture[np.hypot(x - state[0], y - state[1]) < 0.1] = (220, 30, 30)
        return picture

    def errors(self, state, goal):
        return {"error": float(np.linalg.norm(np.subtract(state, goal)))}

    def success(self, state, goal):
        return self.errors(state, goal)["error"] < 0.05

    def draw_state(self, rng):
        return rng.uniform(0.1, 0.9, 2)

    def _draw_problem(self, options):
        start = options.get("start", self.draw_state(self.np_random))
        return start, options.get("goal", self.draw_state(self.np_random)), None


TASK = Task(
    name="slider",
    title="Slider",
    simulation=Simulation(SPEC, SliderEnv, {"random": RandomWalk}),
    preset=TaskPreset.of(SPEC, rest_at_zero=True),
    quantities=(Quantity("position", "m", (0, 1), ((0, float("inf")),)),),
)


if __name__ == "__main__":
    simulator = TASK.simulator()
    env = simulator.make(image_size=96)
    env.reset(seed=3)
    policy = simulator.policy("random", np.random.default_rng(3))
    before = env.snapshot()
    actions = []
    for _ in range(20):
        actions.append(policy.act(env.snapshot()))
        env.advance(actions[-1])
    end = env.snapshot()
    env.restore(before)
    for action in actions:
        env.advance(action)
    again = bool((env.snapshot() == end).all())
    print(f"from {before.round(3)} to {end.round(3)}; the same again: {again}")
    print(f"picture {env.render_state(end).shape}, error {env.errors(end, env.goal_state)}")
