"""Push-T's behaviour policy: seek the block and push it about."""

from __future__ import annotations

import math

import numpy as np

from sim_bridge.tasks.base import TaskSpec
from sim_bridge.tasks.walks import RandomWalk


class PushTContact:
    """Seeks points on the T's outline and pushes through them, with free motion in between.

    A run is a chain of segments: approach a point just outside the outline, push along a direction
    near the inward normal, or (rarely) move to a free point or wander. Speed, depth, skew and
    noise are drawn per segment.
    """

    # Corners of the T's outline in the block's frame [px], clockwise, and the outward normals of
    # its edges.
    _OUTLINE = np.array(
        [
            (-60.0, 0.0),
            (60.0, 0.0),
            (60.0, 30.0),
            (15.0, 30.0),
            (15.0, 120.0),
            (-15.0, 120.0),
            (-15.0, 30.0),
            (-60.0, 30.0),
        ]
    )
    _CENTRE = np.array([0.0, 45.0])
    _REACH = 77.0  # largest distance of the outline from the centre of gravity
    _FREE, _WANDER, _SLOPPY = 0.10, 0.06, 0.15
    _AGENT_LOW, _AGENT_HIGH = 22.0, 490.0
    _BLOCK_LOW, _BLOCK_HIGH = 100.0, 412.0
    _WALL_LOW, _WALL_HIGH = 62.0, 450.0

    def __init__(self, spec: TaskSpec, rng: np.random.Generator) -> None:
        """Create the policy for one trajectory; ``rng`` is owned by the caller."""
        self._rng = rng
        self._walk = RandomWalk(spec, rng, std=0.22)
        self._edges = np.roll(self._OUTLINE, -1, axis=0) - self._OUTLINE
        lengths = np.linalg.norm(self._edges, axis=1)
        self._normals = np.stack([self._edges[:, 1], -self._edges[:, 0]], 1) / lengths[:, None]
        self._weights = np.cumsum(lengths) / lengths.sum()
        self._steps_left = 0
        self._phase = "idle"

    def act(self, state: np.ndarray) -> np.ndarray:
        """Relative action for ``state`` ``(7,)``."""
        agent = state[:2]
        if self._steps_left <= 0 or self._finished(agent, state):
            self._next_segment(state)
        self._steps_left -= 1
        if self._phase == "wander":
            action = self._walk.act(state)
        else:
            offset = self._waypoint(agent, state) - agent
            distance = math.hypot(offset[0], offset[1])
            offset = offset * min(1.0, self._speed / max(distance, 1e-9))
            action = offset / 100.0 + self._noise * self._rng.standard_normal(2)
        action = self._spare_walls(action, state)
        # Keep the target, and so the agent, inside the arena.
        low, high = (self._AGENT_LOW - agent) / 100.0, (self._AGENT_HIGH - agent) / 100.0
        return np.clip(np.clip(action, low, high), -1.0, 1.0).astype(np.float32)

    def _spare_walls(self, action: np.ndarray, state: np.ndarray) -> np.ndarray:
        """Do not squeeze the block into a wall: the agent is stronger than any wall."""
        centre = _to_world(self._CENTRE, state)
        behind = state[:2] - centre
        if math.hypot(behind[0], behind[1]) > self._REACH + 50.0:
            return action
        squeezes = ((centre < self._WALL_LOW) & (action < 0) & (behind > 0)) | (
            (centre > self._WALL_HIGH) & (action > 0) & (behind < 0)
        )
        return np.where(squeezes, 0.0, action)

    def _destination(self, state: np.ndarray) -> np.ndarray:
        if self._phase == "approach":
            return _to_world(self._contact + self._clearance * self._normal, state)
        return self._target

    def _waypoint(self, agent: np.ndarray, state: np.ndarray) -> np.ndarray:
        """The destination, or a point beside the block where it stands in the way."""
        goal = self._destination(state)
        if self._phase == "push" or self._sloppy:
            return goal
        centre = _to_world(self._CENTRE, state)
        way, to_block = goal - agent, centre - agent
        length = math.hypot(way[0], way[1])
        along = float(to_block @ way) / max(length, 1e-9)
        side = (way[0] * to_block[1] - way[1] * to_block[0]) / max(length, 1e-9)
        if not 0 < along < length or abs(side) > self._REACH:
            return goal
        # Circle the block on the nearer side, a little outside its reach.
        radial = -to_block / max(math.hypot(to_block[0], to_block[1]), 1e-9)
        turn = 0.7 if side > 0 else -0.7
        return centre + (self._REACH + 30.0) * _rotate(radial, turn)

    def _finished(self, agent: np.ndarray, state: np.ndarray) -> bool:
        if self._phase == "wander":
            return False
        offset = self._destination(state) - agent
        if math.hypot(offset[0], offset[1]) < 12.0:
            return True
        return self._phase == "push" and self._near_wall(state, offset)

    def _near_wall(self, state: np.ndarray, direction: np.ndarray) -> bool:
        """Whether the block lies in the margin by a wall and ``direction`` points outwards."""
        centre = _to_world(self._CENTRE, state)
        outwards = ((centre < self._BLOCK_LOW) & (direction < 0)) | (
            (centre > self._BLOCK_HIGH) & (direction > 0)
        )
        return bool(outwards.any())

    def _next_segment(self, state: np.ndarray) -> None:
        rng = self._rng
        self._noise = float(rng.choice([0.02, 0.06, 0.12]))
        self._speed = float(rng.uniform(20, 60))
        self._sloppy = bool(rng.random() < self._SLOPPY)
        if self._phase == "approach":
            self._phase, self._steps_left = "push", int(rng.integers(5, 15))
            self._target = _to_world(self._contact, state) + self._depth * self._direction(state)
            return
        draw = rng.random()
        if draw < self._FREE:
            self._phase, self._steps_left = "free", 10
            self._target = rng.uniform(40, 472, 2)
        elif draw < self._FREE + self._WANDER:
            self._phase, self._steps_left = "wander", int(rng.integers(4, 10))
        else:
            self._choose_contact(state)
            self._phase, self._steps_left = "approach", 16

    def _choose_contact(self, state: np.ndarray) -> None:
        """Draw contact points until one can be reached and pushes away from the walls."""
        rng = self._rng
        centre = _to_world(self._CENTRE, state)
        for _ in range(16):
            edge = int(np.searchsorted(self._weights, rng.random()))
            self._contact = self._OUTLINE[edge] + rng.random() * self._edges[edge]
            self._normal = self._normals[edge]
            self._clearance = float(rng.uniform(17, 40))
            self._skew = float(rng.normal(0.0, 0.35))
            self._depth = float(rng.uniform(25, 120))
            outside = _to_world(self._contact + self._clearance * self._normal, state)
            pushed = centre + 0.7 * self._depth * self._direction(state)
            reachable = self._AGENT_LOW < outside.min() and outside.max() < self._AGENT_HIGH
            inside = self._BLOCK_LOW < pushed.min() and pushed.max() < self._BLOCK_HIGH
            if reachable and (inside or not self._near_wall(state, pushed - centre)):
                return

    def _direction(self, state: np.ndarray) -> np.ndarray:
        return _rotate(-self._normal, float(state[4]) + self._skew)


def _rotate(vector: np.ndarray, angle: float) -> np.ndarray:
    c, s = math.cos(angle), math.sin(angle)
    return np.array([c * vector[0] - s * vector[1], s * vector[0] + c * vector[1]])


def _to_world(point: np.ndarray, state: np.ndarray) -> np.ndarray:
    return state[2:4] + _rotate(point, float(state[4]))
