"""A planar arm of two joints in MuJoCo, seen from above.

Its joints follow velocities through MuJoCo's own servos, with inertia, damping and a limit on
the torque, so that it lags behind its commands as a small geared arm does. The camera is drawn
from the positions of the bodies: flat shapes need no renderer and no graphics card.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from sim_bridge.arms.base import ArmSpec

UPPER, FORE = 0.12, 0.09  # lengths of the links [m]

SPEC = ArmSpec(
    name="planar_arm",
    joints=("shoulder", "elbow"),
    low=(-2.4, -2.4),
    high=(2.4, 2.4),
    speed=1.0,
    reach=UPPER + FORE,
    tolerance=0.05 * (UPPER + FORE),
    start_distance=0.15,
)

MJCF = f"""
<mujoco model="planar_arm">
  <compiler angle="radian"/>
  <option timestep="0.005" gravity="0 0 -9.81" integrator="implicitfast"/>
  <default>
    <joint type="hinge" axis="0 0 1" damping="0.02" armature="0.002" limited="true"/>
    <geom type="capsule" contype="0" conaffinity="0"/>
  </default>
  <worldbody>
    <body name="upper" pos="0 0 0.02">
      <joint name="shoulder" range="{SPEC.low[0]} {SPEC.high[0]}"/>
      <geom fromto="0 0 0 {UPPER} 0 0" size="0.012" mass="0.25"/>
      <body name="fore" pos="{UPPER} 0 0">
        <joint name="elbow" range="{SPEC.low[1]} {SPEC.high[1]}"/>
        <geom fromto="0 0 0 {FORE} 0 0" size="0.010" mass="0.15"/>
        <site name="tip" pos="{FORE} 0 0"/>
      </body>
    </body>
  </worldbody>
  <actuator>
    <velocity name="shoulder" joint="shoulder" kv="0.15" forcerange="-0.5 0.5"/>
    <velocity name="elbow" joint="elbow" kv="0.08" forcerange="-0.3 0.3"/>
  </actuator>
</mujoco>
"""

_VIEW = 0.24  # half of the side that the camera sees [m]
_TABLE, _BASE = (196, 190, 180), (70, 74, 82)
_UPPER, _FORE, _TIP = (38, 92, 160), (232, 132, 40), (200, 40, 48)


class PlanarArm:
    """See the module; ``wm_mpc`` meets it only through its node.

    Args:
        image_size: side of the picture [px].
    """

    spec = SPEC

    def __init__(self, image_size: int = 96) -> None:
        import mujoco

        self._mujoco = mujoco
        self._model = mujoco.MjModel.from_xml_string(MJCF)
        self._data = mujoco.MjData(self._model)
        self._size = image_size
        self.place(np.zeros(2))

    def place(self, joints: np.ndarray) -> None:
        """Stand still at joint positions ``(2,)`` [rad]."""
        self._mujoco.mj_resetData(self._model, self._data)
        self._data.qpos[:] = np.clip(joints, self.spec.low, self.spec.high)
        self._mujoco.mj_forward(self._model, self._data)

    def step(self, velocities: np.ndarray, seconds: float) -> None:
        """Let physics run with joint velocities ``(2,)`` [rad/s] held."""
        self._data.ctrl[:] = np.clip(velocities, -self.spec.speed, self.spec.speed)
        count = max(1, round(seconds / self._model.opt.timestep))
        self._mujoco.mj_step(self._model, self._data, count)

    def positions(self) -> np.ndarray:
        """Joint positions ``(2,)`` [rad]."""
        return self._data.qpos.copy()

    def velocities(self) -> np.ndarray:
        """Joint velocities ``(2,)`` [rad/s]."""
        return self._data.qvel.copy()

    def tip(self, joints: np.ndarray | None = None) -> np.ndarray:
        """Where the tip is, or would be at ``joints``: ``(3,)`` [m]."""
        return np.array([*self._points(joints)[2], 0.0])

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Joint positions with a margin of 0.2 rad to the limits, ``(2,)`` [rad]."""
        return rng.uniform(np.add(self.spec.low, 0.2), np.subtract(self.spec.high, 0.2))

    def _points(self, joints: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Base, elbow and tip in the plane [m]."""
        first, second = self._data.qpos if joints is None else joints
        elbow = UPPER * np.array([math.cos(first), math.sin(first)])
        turn = first + second
        return np.zeros(2), elbow, elbow + FORE * np.array([math.cos(turn), math.sin(turn)])

    def picture(self, joints: np.ndarray | None = None) -> np.ndarray:
        """What the camera above sees: uint8 ``(S, S, 3)`` RGB, x to the right, y up."""
        fine = 2 * self._size  # drawn twice as large: edges move by less than a pixel
        scale = fine / (2 * _VIEW)
        image = np.full((fine, fine, 3), _TABLE, np.uint8)
        base, elbow, tip = (
            tuple(round(16 * v) for v in (fine / 2 + scale * p[0], fine / 2 - scale * p[1]))
            for p in self._points(joints)
        )

        def line(a: tuple[int, ...], b: tuple[int, ...], colour: tuple, metres: float) -> None:
            cv2.line(image, a, b, colour, max(1, round(metres * scale)), cv2.LINE_AA, 4)

        def disc(at: tuple[int, ...], colour: tuple, metres: float) -> None:
            cv2.circle(image, at, round(16 * metres * scale), colour, -1, cv2.LINE_AA, 4)

        disc(base, _BASE, 0.03)
        line(base, elbow, _UPPER, 0.024)
        line(elbow, tip, _FORE, 0.02)
        disc(elbow, _BASE, 0.012)
        disc(tip, _TIP, 0.014)
        return cv2.resize(image, (self._size, self._size), interpolation=cv2.INTER_AREA)
