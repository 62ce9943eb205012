"""Push-T with gym-pusht's physics and DINO-WM's definition of action, state, goal and success.

Physics: pymunk bodies from gym-pusht 0.1 (a kinematic disc of radius 15 px under PD control, kp
100, kv 20, ten substeps of 10 ms; a T of scale 30 without friction; 512 px arena). Definition:
Zhou et al. 2024, "DINO-WM", arXiv:2411.04983: relative action (target = agent position + 100 px x
action), agent velocity in the state, goals reached states 25 control steps ahead, success by joint
agent and block position and block angle.

Snapshots. Between two control steps gym-pusht keeps more than pose and agent velocity: the block's
pending velocity and penetration correction (both consumed by the next position update, then damped
to zero) and the solver's cached impulses. Here every control step ends in a canonical form: the
pending motion is applied at once, and the shapes are entered anew so that no impulse or search
tree survives. Seven numbers are then the whole state. The agent's path is bit-equal to an
uninterrupted gym-pusht. The block's is equal to rounding wherever the solver converges without its
cached impulses, which is nearly always; a block jammed against a wall can deviate by pixels.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any, ClassVar

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")

import numpy as np
import pymunk
from pymunk._chipmunk_cffi import lib as chipmunk

from sim_bridge.tasks.base import TaskEnv
from sim_bridge.tasks.policies import make_policy
from sim_bridge.tasks.pusht_render import render_pusht
from sim_bridge.tasks.simulations.pusht import SPEC

ARENA = 512.0
"""Width and height of the arena [px]."""
AGENT_RADIUS = 15.0
"""[px]"""
ACTION_SCALE = 100.0
"""Target offset for an action of 1 [px]."""
POSITION_TOLERANCE = 20.0
"""Success bound on position [px]."""
ANGLE_TOLERANCE = math.pi / 9
"""Success bound on the block angle [rad]."""

_SUBSTEPS, _DT, _KP, _KV = 10, 0.01, 100.0, 20.0
_MAX_DRAWS = 400
_BURN_IN_STEPS = 25


class PushTWorld:
    """The pymunk world of gym-pusht with an exact seven-number state."""

    def __init__(self) -> None:
        """Build space, walls, agent and block in gym-pusht's order."""
        from gym_pusht.envs.pusht import PushTEnv as GymPushT

        self.space = pymunk.Space()
        self.space.gravity = 0, 0
        self.space.damping = 0.0
        corners = ((5, 506), (5, 5), (506, 5), (506, 506))
        pairs = ((0, 1), (1, 2), (2, 3), (0, 3))
        self.space.add(
            *(GymPushT.add_segment(self.space, corners[a], corners[b], 2) for a, b in pairs)
        )
        self.agent = GymPushT.add_circle(self.space, (256, 400), AGENT_RADIUS)
        self.block, block_shapes = GymPushT.add_tee(self.space, (256, 300), 0)
        self._shapes = (*self.agent.shapes, *block_shapes)
        self._first_id = chipmunk.cpSpaceGetShapeIDCounter(self.space._space) - len(self._shapes)
        self.set_state(np.array([256.0, 400.0, 256.0, 300.0, 0.0, 0.0, 0.0]))

    def set_state(self, state: np.ndarray) -> None:
        """Enter ``state`` (7,) in canonical form; the angle is wrapped to [0, 2 pi)."""
        state = np.array(state, np.float64)
        state[4] %= 2 * math.pi
        if state[4] >= 2 * math.pi:  # a tiny negative angle rounds up to the period itself
            state[4] = 0.0
        ax, ay, bx, by, angle, vx, vy = state.tolist()
        # The angle turns the block about its centre of gravity, so it must come before the
        # position.
        self.block.angle = angle
        self.block.position = bx, by
        self.block.velocity = 0.0, 0.0
        self.block.angular_velocity = 0.0
        self.agent.position = ax, ay
        self.agent.velocity = vx, vy
        # Entering the shapes anew, under their first identifiers, forgets cached impulses and
        # gives the search tree, and with it the order of contacts, a canonical form.
        self.space.remove(*self._shapes)
        chipmunk.cpSpaceSetShapeIDCounter(self.space._space, self._first_id)
        self.space.add(*self._shapes)
        self.state = state

    def step(self, target: tuple[float, float]) -> np.ndarray:
        """One control step towards the absolute ``target`` [px]; returns the new state."""
        tx, ty = target
        agent, space = self.agent, self.space
        for _ in range(_SUBSTEPS):
            px, py = agent.position
            vx, vy = agent.velocity
            agent.velocity = (
                vx + (_KP * (tx - px) + _KV * (0 - vx)) * _DT,
                vy + (_KP * (ty - py) + _KV * (0 - vy)) * _DT,
            )
            space.step(_DT)
        # Apply the block's pending motion, which is what the next substep would begin with.
        pymunk.Body.update_position(self.block, _DT)
        position, velocity = agent.position, agent.velocity
        block = self.block.position
        self.set_state(np.array([*position, *block, self.block.angle, *velocity]))
        return self.state

    def agent_overlap(self) -> float:
        """Depth by which agent and block overlap [px]; negative is clearance."""
        position = self.agent.position
        distance = min(shape.point_query(position).distance for shape in self.block.shapes)
        return AGENT_RADIUS - distance


class PushTEnv(TaskEnv):
    """Push-T as a task; see the module for the definition.

    State: ``(agent x, agent y, block x, block y, block angle, agent vx, agent vy)``, float64, px,
    rad in [0, 2 pi), px/s. Proprioception: ``(agent x, agent y, vx, vy)``. Reset option
    ``min_block_motion`` [px]: the goal's block position lies at least that far from the start's,
    so that standing still never succeeds.
    """

    spec_task = SPEC
    reset_options: ClassVar[tuple[str, ...]] = (*TaskEnv.reset_options, "min_block_motion")

    def __init__(self, image_size: int = 96, render_mode: str | None = "rgb_array") -> None:
        """Create the environment; arguments as in ``TaskEnv``."""
        super().__init__(image_size, render_mode)
        self._world = PushTWorld()
        self.goal_state = self._world.state.copy()

    def snapshot(self) -> np.ndarray:
        """Return the whole simulator state, float64 ``(7,)``."""
        return self._world.state.copy()

    def restore(self, snapshot: np.ndarray) -> None:
        """Put the simulator into ``snapshot`` exactly."""
        self._world.set_state(self.check_state(snapshot))

    def advance(self, action: np.ndarray) -> np.ndarray:
        """One control step of the relative ``action`` (2,)."""
        a = self.check_action(action)
        state = self._world.state
        return self._world.step(
            (float(state[0] + ACTION_SCALE * a[0]), float(state[1] + ACTION_SCALE * a[1]))
        ).copy()

    def proprio(self, state: np.ndarray) -> np.ndarray:
        """Agent position [px] and velocity [px/s], float32 ``(4,)``."""
        return np.asarray(state, np.float64)[[0, 1, 5, 6]].astype(np.float32)

    def render_state(
        self, state: np.ndarray, size: int | None = None, goal: np.ndarray | None = None
    ) -> np.ndarray:
        """Picture of ``state``; ``goal`` also draws that state's block in green underneath."""
        return render_pusht(state, size or self.image_size, goal)

    def in_picture(self, state: np.ndarray) -> np.ndarray:
        """Centre of the agent; see ``TaskEnv``."""
        return (np.asarray(state, np.float64)[:2] + 0.5) / ARENA

    def errors(self, state: np.ndarray, goal: np.ndarray) -> dict[str, float]:
        """Position distances [px], wrapped angle distance [rad] and block-only success."""
        diff = np.asarray(state, np.float64) - np.asarray(goal, np.float64)
        angle = abs((diff[4] + math.pi) % (2 * math.pi) - math.pi)
        block = math.hypot(diff[2], diff[3])
        return {
            "error": block,
            "block_px": block,
            "agent_px": math.hypot(diff[0], diff[1]),
            "joint_px": float(np.linalg.norm(diff[:4])),
            "angle_rad": float(angle),
            "block_success": float(block < POSITION_TOLERANCE and angle < ANGLE_TOLERANCE),
        }

    def success(self, state: np.ndarray, goal: np.ndarray) -> bool:
        """DINO-WM: agent and block jointly within 20 px, block angle within pi / 9."""
        errors = self.errors(state, goal)
        return errors["joint_px"] < POSITION_TOLERANCE and errors["angle_rad"] < ANGLE_TOLERANCE

    def draw_state(self, rng: np.random.Generator) -> np.ndarray:
        """gym-pusht's start distribution, at rest, without agent and block overlapping."""
        saved = self.snapshot()
        while True:
            state = np.zeros(7)
            state[:2] = rng.uniform(50, 450, 2)
            state[2:4] = rng.uniform(100, 400, 2)
            state[4] = rng.uniform(0, 2 * math.pi)
            self._world.set_state(state)
            if self._world.agent_overlap() < -1.0:
                break
        self._world.set_state(saved)
        return state

    def _draw_problem(
        self, options: Mapping[str, Any]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        offset = int(options["goal_offset"])
        motion = float(options.get("min_block_motion", POSITION_TOLERANCE))
        if not 0 <= motion <= 200:
            raise ValueError(f"min_block_motion: {motion} px is outside [0, 200]")
        if "goal" in options:
            start = options.get("start", self.draw_state(self.np_random))
            return start, options["goal"], None
        for _ in range(_MAX_DRAWS):
            policy = make_policy(self.spec_task, "contact", self.np_random)
            if "start" in options:
                self.restore(options["start"])
            else:
                self.restore(self.draw_state(self.np_random))
                for _ in range(int(self.np_random.integers(_BURN_IN_STEPS))):
                    self.advance(policy.act(self._world.state))
            start = self.snapshot()
            actions = np.empty((offset, 2), np.float32)
            for t in range(offset):
                actions[t] = policy.act(self._world.state)
                self.advance(actions[t])
            goal = self.snapshot()
            if math.hypot(*(goal - start)[2:4]) > motion and not self.success(start, goal):
                return start, goal, actions
        raise ValueError(
            f"min_block_motion: no policy run moved the block {motion} px within "
            f"{offset} steps in {_MAX_DRAWS} draws"
        )
