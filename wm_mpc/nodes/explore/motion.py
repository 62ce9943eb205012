"""Motion that teaches a model of a robot: random paths and sums of sines inside a box.

A path is laid out for positions, seeded and smooth, and followed by velocities, so that limits
hold by construction and the robot comes back to where it began. Bouts of random waypoints, at
speeds from a crawl to the limit with rests between them, alternate with bouts of sines, which
move every joint at once and at every phase to the others. Waypoints are chosen where the robot was
least: random ones lead through the middle of the box again and again and leave its border, and a
model knows nothing of what it never saw.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from wm_mpc.core.errors import UserError

CANDIDATES = 32
"""Places drawn for a waypoint; the one that was visited least is taken."""
SLOW = 0.25
"""Share of the waypoints that may be approached at a crawl."""


@dataclass(frozen=True)
class MotionConfig:
    """What is moved, how far and how fast.

    Attributes:
        low, high: the box, one number per coordinate (joint positions, or way of the tip).
        speed: largest speed of each coordinate, in its unit per second.
        minutes: how long to move [min], the way back included.
        bout_s: length of a bout of one kind of motion [s].
        gain: how hard the path is followed [1/s].
        wander: standard deviation of the disturbance added to a velocity, as a share of the
            speed: commands must differ from what the path alone would ask for.
        seed: of everything random.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    speed: tuple[float, ...]
    minutes: float = 15.0
    bout_s: float = 30.0
    gain: float = 1.5
    wander: float = 0.25
    seed: int = 0

    def __post_init__(self) -> None:
        if not len(self.low) == len(self.high) == len(self.speed):
            raise UserError(
                f"speed: {len(self.low)}, {len(self.high)} and {len(self.speed)} numbers for low, "
                "high and speed; as many expected"
            )
        for i, (low, high, speed) in enumerate(zip(self.low, self.high, self.speed, strict=True)):
            if not low < high:
                raise UserError(f"low[{i}]: {low:g}; below high[{i}], {high:g}, expected")
            if not 0 < speed < math.inf:
                raise UserError(f"speed[{i}]: {speed:g}; more than 0 expected")
        for name, below in (("minutes", 0.0), ("bout_s", 1.0), ("gain", 0.0)):
            if not below < getattr(self, name) < math.inf:
                raise UserError(f"{name}: {getattr(self, name)}; more than {below:g} expected")
        if not 0 <= self.wander <= 1:
            raise UserError(f"wander: {self.wander}; in [0, 1] expected")


class Motion:
    """Velocities, step by step, for a robot whose position is told.

    Args:
        config: what is moved.
        start: where the robot is, ``(D,)``; it ends there again.
        period: seconds between two steps.
    """

    def __init__(self, config: MotionConfig, start: np.ndarray, period: float) -> None:
        self.config, self.period = config, period
        self.start = np.asarray(start, float)
        self.low, self.high = np.asarray(config.low, float), np.asarray(config.high, float)
        self.speed = np.asarray(config.speed, float)
        self._rng = np.random.default_rng(config.seed)
        self._time, self._wander = 0.0, np.zeros(len(self.low))
        self._where = self.start.copy()  # of the path
        self._bout_end, self._sines = 0.0, False
        self._target, self._pace, self._rest = self.start.copy(), 1.0, 0.0
        self._waves: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None = None
        self.coverage = Coverage(self.low, self.high)

    @property
    def ends_at(self) -> float:
        """Length of the motion [s]."""
        return 60.0 * self.config.minutes

    @property
    def elapsed(self) -> float:
        """Time since the start [s]."""
        return self._time

    @property
    def done(self) -> bool:
        """Whether the time is over."""
        return self._time >= self.ends_at

    @property
    def returning(self) -> bool:
        """Whether it is time to go back to the start."""
        way = np.abs(self._where - self.start) / self.speed
        return self._time + 1.5 * float(way.max()) + 2.0 >= self.ends_at

    def step(self, position: np.ndarray) -> np.ndarray:
        """Velocities ``(D,)`` for the next period, given where the robot is, ``(D,)``."""
        before = self._where.copy()
        self.coverage.add(position)
        self._advance()
        self._time += self.period
        drift = (self._where - before) / self.period
        self._wander += self._kick()
        velocity = drift + self.config.gain * (self._where - position)
        if not self.returning:
            velocity = velocity + self._wander * self._pace
        velocity = np.clip(velocity, -self.speed, self.speed)
        # Never out of the box, and back into it from outside.
        to_low, to_high = self.low - position, self.high - position
        return np.clip(velocity, np.minimum(to_low, self.speed), np.maximum(to_high, -self.speed))

    def _kick(self) -> np.ndarray:
        """Change of a disturbance that forgets itself within a second."""
        keep, size = math.exp(-self.period), self.config.wander * self.speed
        fresh = self._rng.standard_normal(len(self.speed)) * size * math.sqrt(1 - keep * keep)
        return (keep - 1) * self._wander + fresh

    def _advance(self) -> None:
        """Move the path by one period."""
        if self.returning:
            self._pace, self._rest, self._target = 1.0, 0.0, self.start
            self._approach()
            return
        if self._time >= self._bout_end:
            self._bout_end = self._time + self.config.bout_s
            self._sines = not self._sines
            if self._sines:
                self._choose_waves()
            else:
                self._choose_target()
        if self._sines and self._waves is not None:
            rates, phases, sizes, centre = self._waves
            angle = np.sin(rates * self._time + phases)
            self._target = np.clip(centre + (sizes * angle).sum(0), self.low, self.high)
            self._approach()
        elif self._rest > 0:
            self._rest -= self.period
        elif self._approach():
            self._rest = float(self._rng.choice([0.0, 0.0, self._rng.uniform(0.2, 1.5)]))
            self._choose_target()

    def _approach(self) -> bool:
        """Go towards the target, all coordinates arriving together; True once it is there."""
        way = self._target - self._where
        longest = float((np.abs(way) / (self.speed * self._pace * self.period)).max())
        self._where = self._where + way / max(longest, 1.0)
        return longest <= 1.0

    def _choose_target(self) -> None:
        drawn = self._rng.uniform(self.low, self.high, (CANDIDATES, len(self.low)))
        self._target = drawn[np.argmin([self.coverage.visits(place) for place in drawn])]
        slow = self._rng.random() < SLOW
        self._pace = float(np.exp(self._rng.uniform(math.log(0.1 if slow else 0.4), 0.0)))

    def _choose_waves(self) -> None:
        """Two sines per coordinate within speed, about a place where the robot was little.

        What leads out of the box is cut off at its border, which is thereby visited too.
        """
        shape = (2, len(self.low))
        self._choose_target()
        centre, self._pace = self._target, 1.0
        share = self._rng.dirichlet(np.ones(2), size=shape[1]).T
        sizes = share * (self.high - self.low) * self._rng.uniform(0.1, 0.4, shape[1])
        fastest = self.speed / np.maximum(sizes.sum(0), 1e-9)
        rates = fastest * self._rng.uniform(0.4, 1.0, shape)
        self._waves = rates, self._rng.uniform(0, 2 * math.pi, shape), sizes, centre


class Coverage:
    """How much of a box has been visited how often, in cells of each pair of coordinates.

    Args:
        low, high: the box.
        cells: cells along each coordinate.
    """

    def __init__(self, low: np.ndarray, high: np.ndarray, cells: int = 10) -> None:
        self.low, self.high = np.asarray(low, float), np.asarray(high, float)
        self.cells, dims = cells, len(self.low)
        self._pairs = [(i, j) for i in range(dims) for j in range(i + 1, dims)] or [(0, 0)]
        self._count = np.zeros((len(self._pairs), cells, cells), int)

    def add(self, position: np.ndarray) -> None:
        """Count a position ``(D,)``; outside the box it counts for the nearest cell."""
        cell = self._cell(position)
        for k, (i, j) in enumerate(self._pairs):
            self._count[k, cell[i], cell[j]] += 1

    def visits(self, position: np.ndarray) -> int:
        """How often the robot was where a position ``(D,)`` lies, summed over pairs."""
        cell = self._cell(position)
        return sum(int(self._count[k, cell[i], cell[j]]) for k, (i, j) in enumerate(self._pairs))

    def _cell(self, position: np.ndarray) -> np.ndarray:
        share = (np.asarray(position) - self.low) / (self.high - self.low)
        return np.clip((share * self.cells).astype(int), 0, self.cells - 1)

    @property
    def share(self) -> float:
        """Share of the cells that were visited, in [0, 1]."""
        if self._pairs == [(0, 0)]:
            return float((self._count[0].diagonal() > 0).mean())
        return float((self._count > 0).mean())
