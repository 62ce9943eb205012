"""What training must know of a task beyond its data.

Camera calibration, bounds and sizes of the simulated tasks; of a robot, what its recordings tell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from wm_mpc.core.errors import UserError
from wm_mpc.data.store.store import Store
from wm_mpc.tasks.robot_disc import RobotDisc


@dataclass(frozen=True)
class TaskPreset:
    """Interface and defaults of one task.

    Attributes:
        proprio_dim: raw proprioception width.
        action_low, action_high: raw action bounds.
        frameskip: control steps per model step.
        control_period: seconds per control step.
        goal_weights: relative weight of each proprioception channel in goal costs (velocities: 0).
        landmarks: image points per object.
        rotate: whether the object's orientation can be seen.
        robot: the robot's silhouette where it is not the object itself.
        width, depth: hidden units and layers of the compact predictor.
        turn_centre: raw position (x, y) about which the workspace may be turned by quarters
            without a difference; None where it may not. Positions are proprio[0:2], velocities
            the rest.
        clearance: largest distance from the mean of the landmarks to a point of the object, as a
            fraction of the picture's side; None where motions of the object that keep it clear of
            the borders are no symmetry.
        border: width of the strip along the picture's sides that the object cannot enter, as a
            fraction of the side.
        object_frame: predict in the object's frame (``ObjectFrame``); needs ``robot`` and at
            least two landmarks.
        action_basis, action_knots: how a model step describes its commands
            (``models/action_basis.py``).
        rest_at_zero: whether a command of zeros leaves the robot where it is; its normalised
            action is zero then, so that the smallest plan is no motion.
    """

    proprio_dim: int
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    frameskip: int
    control_period: float
    goal_weights: tuple[float, ...]
    landmarks: int
    rotate: bool
    robot: RobotDisc | None
    width: int
    turn_centre: tuple[float, float] | None = None
    clearance: float | None = None
    border: float = 0.0
    depth: int = 2
    object_frame: bool = False
    action_basis: str = "raw"
    action_knots: int = 0
    rest_at_zero: bool = False

    @classmethod
    def of(cls, spec: Any, **others: Any) -> TaskPreset:
        """Interface of a simulated task, with a plain model unless ``others`` say more.

        Args:
            spec: its constants (``sim_bridge.tasks.base.TaskSpec``).
            others: attributes that differ.
        """
        told = {
            "proprio_dim": spec.proprio_dim, "action_low": spec.action_low,
            "action_high": spec.action_high, "frameskip": spec.frameskip,
            "control_period": spec.control_period, "goal_weights": (1.0,) * spec.proprio_dim,
            "landmarks": 1, "rotate": False, "robot": None, "width": 256, "depth": 3,
        }  # fmt: skip
        return cls(**(told | others))


def robot_preset(
    store: Store,
    frameskip: int,
    action_low: tuple[float, ...] = (),
    action_high: tuple[float, ...] = (),
    goal_weights: tuple[float, ...] = (),
) -> TaskPreset:
    """Interface of a robot, from a store of its recordings.

    Args:
        store: the recordings.
        frameskip: control steps per model step, >= 1.
        action_low: raw action bounds, one per number of an action; empty: the smallest that were
            recorded. The model knows nothing beyond those.
        action_high: the same at the other end.
        goal_weights: weight of each proprioception channel in goal costs, >= 0; empty: 1, and 0
            for what the recordings show to be velocities of the other channels.

    Raises:
        UserError: bounds of another number, an action that never changes in the recordings and
            has no bounds given, or low not below high.
    """
    spec, actions = store.spec, store.frames().actions
    found = np.asarray(actions).reshape(-1, spec.action_dim)
    bounds = {"action_low": action_low, "action_high": action_high}
    for (name, given), recorded in zip(bounds.items(), (found.min(0), found.max(0)), strict=True):
        if given and len(given) != spec.action_dim:
            raise UserError(f"{name}: {len(given)} numbers; {spec.action_dim} expected")
        bounds[name] = given or tuple(float(v) + 0.0 for v in recorded)  # no -0
    for i, (low, high) in enumerate(zip(*bounds.values(), strict=True)):
        if not low < high:
            raise UserError(
                f"action_low[{i}]: {low:g}; below action_high[{i}], {high:g}, expected; without "
                f"bounds the recorded ones are taken"
            )
    if goal_weights and len(goal_weights) != spec.proprio_dim:
        raise UserError(f"goal_weights: {len(goal_weights)} numbers; {spec.proprio_dim} expected")
    return TaskPreset(
        spec.proprio_dim, bounds["action_low"], bounds["action_high"], frameskip,
        spec.control_period, goal_weights or _position_weights(store),
        landmarks=0, rotate=False, robot=None, width=256, depth=3,
    )  # fmt: skip


def _position_weights(store: Store) -> tuple[float, ...]:
    """1 per channel, or 0 for the second half where it is the velocities of the first.

    A goal is a place to be, not a speed to pass through it with. Channels that never move tell
    nothing and follow the others.
    """
    spec, frames = store.spec, store.frames()
    half, odd = divmod(spec.proprio_dim, 2)
    if odd or not half:
        return (1.0,) * spec.proprio_dim
    own = np.asarray(frames.proprio, np.float64)
    change = np.diff(own[:, :half], axis=0) / spec.control_period
    speed = (own[1:, half:] + own[:-1, half:]) / 2
    # the last row of an episode is followed by another one's first
    inside = np.abs(change) < 20 * (np.abs(speed).max(0) + 1e-9)
    alike = []
    for i in range(half):
        a, b = change[inside[:, i], i], speed[inside[:, i], i]
        if len(a) > 10 and a.std() > 1e-9 and b.std() > 1e-9:
            alike.append(np.corrcoef(a, b)[0, 1])
    velocities = bool(alike) and min(alike) > 0.7
    return (1.0,) * half + (0.0 if velocities else 1.0,) * half
