"""A UR5e with a Robotiq gripper and a cube on a table in MuJoCo, from OGBench's descriptions.

OGBench (arXiv 2410.20092, package ``ogbench``, MIT) brings models and meshes; only its files are
used. The joints follow position targets through the servos of that model, and the targets follow
joint velocities, as a UR's own speed interface does. The camera is rendered by MuJoCo without
shadows and reflections, which makes it several times faster.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import numpy as np

from sim_bridge.arms.base import ArmSpec

SPEC = ArmSpec(
    name="ur5e",
    joints=(
        "shoulder_pan_joint", "shoulder_lift_joint", "elbow_joint",
        "wrist_1_joint", "wrist_2_joint", "wrist_3_joint",
    ),
    low=(-3.1,) * 6,
    high=(3.1,) * 6,
    speed=1.5,
    reach=0.85,
    tolerance=0.03,
    start_distance=0.12,
)  # fmt: skip

BOX_LOW, BOX_HIGH = np.array([0.30, -0.25, 0.12]), np.array([0.55, 0.25, 0.34])
"""Where the tip is meant to be [m]: above the table, in the camera's view."""
CAMERAS = {
    "front": ([1.25, 0.25, 0.85], [0.38, 0.0, 0.26], 42.0),
    "table": ([1.0, 0.15, 0.62], [0.42, 0.0, 0.06], 38.0),
}
"""Eye [m], the point it looks at [m], vertical angle of view [degrees].

``front`` has the whole arm in the picture wherever the tip is in its box: with a part of it cut
off, what is left looks the same for many postures.
"""
GRAIN = 0.006
"""Corners of the drawn meshes that are nearer than this [m] are drawn as one."""
_HOME = np.array([-1.5708, -1.5708, 1.5708, -1.5708, -1.5708, 0.0])
_GAINS = np.array([4500, 4500, 4500, 2000, 2000, 500.0])
_TIP = "arm/gripper/pinch"


def descriptions() -> Path:
    """Folder of OGBench's models.

    Raises:
        ModuleNotFoundError: OGBench is not installed.
    """
    found = importlib.util.find_spec("ogbench")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'ogbench'", name="ogbench")
    return Path(found.submodule_search_locations[0]) / "manipspace" / "descriptions"


def build() -> Any:
    """The scene as a compiled ``mujoco.MjModel``."""
    import mujoco

    folder = descriptions()
    scene = mujoco.MjSpec.from_file(str(folder / "floor_wall.xml"))
    arm = mujoco.MjSpec.from_file(str(folder / "universal_robots_ur5e" / "ur5e.xml"))
    hand = mujoco.MjSpec.from_file(str(folder / "robotiq_2f85" / "2f85.xml"))
    cube = mujoco.MjSpec.from_file(str(folder / "cube.xml"))
    for light in list(arm.lights):
        arm.delete(light)
    for part in (scene, arm, hand, cube):  # parts that disagree would be told about
        part.option.timestep = 0.002
        part.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
        part.option.impratio, part.option.cone = 10, mujoco.mjtCone.mjCONE_ELLIPTIC
    arm.attach(hand, prefix="gripper/", site=arm.site("attachment_site"))
    scene.attach(arm, prefix="arm/", frame=scene.worldbody.add_frame())
    scene.attach(cube, prefix="cube/", frame=scene.worldbody.add_frame())
    scene.geom("cube/target_object_0").rgba = [0, 0, 0, 0]  # nothing marks a goal
    scene.geom("floor").material = ""
    scene.geom("floor").rgba = [0.62, 0.60, 0.56, 1.0]
    scene.visual.quality.shadowsize = 0
    scene.visual.quality.offsamples = 0
    sky = scene.texture("skybox")  # a black hand before a black sky cannot be seen
    sky.rgb1 = sky.rgb2 = [0.72, 0.77, 0.82]
    sky.random = 0.0
    for name, (eye, at, angle) in CAMERAS.items():
        scene.worldbody.add_camera(name=name, pos=eye, xyaxes=_looking(eye, at), fovy=angle)
    return scene.compile()


def _draw_fewer_faces(model: Any, grain: float) -> None:
    """Coarsen what is drawn, in place; what collides and what weighs stays as it is.

    200,000 faces take 21 ms of a core per picture, the 15,000 that are left 4 ms; at 96 px nobody
    sees a difference (vertex clustering, Rossignac and Borrel 1993).
    """
    for i in range(model.nmesh):
        first, count = model.mesh_vertadr[i], model.mesh_vertnum[i]
        faces = slice(model.mesh_faceadr[i], model.mesh_faceadr[i] + model.mesh_facenum[i])
        cells = np.floor(model.mesh_vert[first : first + count] / grain).astype(int)
        _, shown, cell = np.unique(cells, axis=0, return_index=True, return_inverse=True)
        corners = shown[cell.reshape(-1)][model.mesh_face[faces]]
        order = np.sort(corners, 1)
        _, new = np.unique(order, axis=0, return_index=True)
        kept = np.sort(new[(np.diff(order[new], axis=1) > 0).all(1)])
        for name in ("mesh_facenormal", "mesh_facetexcoord"):
            values = getattr(model, name)
            values[faces.start : faces.start + len(kept)] = values[faces][kept]
        model.mesh_face[faces.start : faces.start + len(kept)] = corners[kept]
        model.mesh_facenum[i] = len(kept)


def _looking(eye: list[float], at: list[float]) -> list[float]:
    """Camera axes x and y of an eye that looks at a point, z up."""
    back = np.subtract(eye, at) / np.linalg.norm(np.subtract(eye, at))
    right = np.cross([0, 0, 1], back)
    right /= np.linalg.norm(right)
    return [*right, *np.cross(back, right)]


class Ur5e:
    """See the module; ``wm_mpc`` meets it only through its node.

    Args:
        image_size: side of the picture [px].
    """

    spec = SPEC

    def __init__(self, image_size: int = 96) -> None:
        if not os.environ.get("DISPLAY"):  # mujoco decides at its import, for a window
            os.environ.setdefault("MUJOCO_GL", "egl")
        import mujoco

        self._mujoco = mujoco
        self._model = model = build()
        _draw_fewer_faces(model, GRAIN)
        self._data, self._shown = mujoco.MjData(model), mujoco.MjData(model)
        joints = [model.joint(f"arm/{name}") for name in self.spec.joints]
        self._at = np.array([joint.qposadr[0] for joint in joints])
        self._dof = np.array([joint.dofadr[0] for joint in joints])
        self._act = np.array([
            model.actuator("arm/" + name.removesuffix("_joint")).id for name in self.spec.joints
        ])  # fmt: skip
        model.actuator_gainprm[self._act, 0] = _GAINS
        model.actuator_biasprm[self._act, 1] = -_GAINS
        model.actuator_biasprm[self._act, 2] = -_GAINS / 10
        self._site = model.site(_TIP).id
        self._size, self._renderer = image_size, None
        self._target = _HOME.copy()
        self.home = self.solve(BOX_LOW * 0.5 + BOX_HIGH * 0.5, _HOME)
        self.place(self.home)

    # ---- physics -------------------------------------------------------------------------------

    def place(self, joints: np.ndarray) -> None:
        """Stand still at joint positions ``(6,)`` [rad]."""
        self._mujoco.mj_resetData(self._model, self._data)
        self._data.qpos[self._at] = joints
        self._target = np.array(joints, float)
        self._data.ctrl[self._act] = self._target
        self._mujoco.mj_forward(self._model, self._data)

    def step(self, velocities: np.ndarray, seconds: float) -> None:
        """Let physics run with joint velocities ``(6,)`` [rad/s] held."""
        speed = np.clip(velocities, -self.spec.speed, self.spec.speed)
        dt = self._model.opt.timestep
        for _ in range(max(1, round(seconds / dt / 5))):
            self._target = self._target + speed * 5 * dt
            self._data.ctrl[self._act] = self._target
            self._mujoco.mj_step(self._model, self._data, 5)

    def positions(self) -> np.ndarray:
        """Joint positions ``(6,)`` [rad]."""
        return self._data.qpos[self._at].copy()

    def velocities(self) -> np.ndarray:
        """Joint velocities ``(6,)`` [rad/s]."""
        return self._data.qvel[self._dof].copy()

    # ---- kinematics, which the arm's own controller knows ------------------------------------

    def joint_rates(self, twist: np.ndarray, damping: float = 0.02) -> np.ndarray:
        """Joint velocities ``(6,)`` [rad/s] for a twist of the tip ``(6,)`` [m/s, rad/s].

        Damped least squares (Nakamura and Hanafusa 1986), with the tool's axis pulled back to
        where it points at home.
        """
        jacobian = np.zeros((6, self._model.nv))
        self._mujoco.mj_jacSite(
            self._model, self._data, jacobian[:3], jacobian[3:], self._site
        )
        jacobian = jacobian[:, self._dof]
        wanted = np.array(twist, float)
        wanted[3:] += 3.0 * self._tilt(self._data)
        square = jacobian @ jacobian.T + damping**2 * np.eye(6)
        return jacobian.T @ np.linalg.solve(square, wanted)

    def _tilt(self, data: Any) -> np.ndarray:
        """Rotation vector ``(3,)`` that brings the tool back to point down, without yaw."""
        found = data.site_xmat[self._site].reshape(3, 3)
        wanted = np.array([[1.0, 0, 0], [0, -1, 0], [0, 0, -1]])
        return sum(np.cross(found[:, i], wanted[:, i]) for i in range(3)) / 2

    def solve(self, tip: np.ndarray, guess: np.ndarray) -> np.ndarray:
        """Joint positions ``(6,)`` [rad] with the tip at ``(3,)`` [m], pointing down."""
        data, joints = self._shown, np.array(guess, float)
        for _ in range(200):
            data.qpos[self._at] = joints
            self._mujoco.mj_forward(self._model, data)
            error = np.concatenate([tip - data.site_xpos[self._site], self._tilt(data)])
            if np.linalg.norm(error) < 1e-5:
                break
            jacobian = np.zeros((6, self._model.nv))
            self._mujoco.mj_jacSite(self._model, data, jacobian[:3], jacobian[3:], self._site)
            jacobian = jacobian[:, self._dof]
            square = jacobian @ jacobian.T + 1e-4 * np.eye(6)
            joints = joints + 0.5 * jacobian.T @ np.linalg.solve(square, error)
        return (joints + np.pi) % (2 * np.pi) - np.pi

    # ---- for judges and cameras ----------------------------------------------------------------

    def _showing(self, joints: np.ndarray | None) -> Any:
        """Physics state of now, or the same world with the arm at ``joints``."""
        if joints is None:
            return self._data
        self._shown.qpos[:] = self._data.qpos
        self._shown.qpos[self._at] = joints
        self._mujoco.mj_forward(self._model, self._shown)
        return self._shown

    def tip(self, joints: np.ndarray | None = None) -> np.ndarray:
        """Where the tip is, or would be at ``joints``: ``(3,)`` [m]."""
        return self._showing(joints).site_xpos[self._site].copy()

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Joint positions with the tip somewhere in the box, pointing down."""
        return self.solve(rng.uniform(BOX_LOW, BOX_HIGH), self.home)

    def picture(self, joints: np.ndarray | None = None) -> np.ndarray:
        """What the camera sees: uint8 ``(S, S, 3)`` RGB."""
        if self._renderer is None:
            self._renderer = self._mujoco.Renderer(self._model, self._size, self._size)
            flags = self._renderer.scene.flags
            for name in ("SHADOW", "REFLECTION", "HAZE"):
                flags[getattr(self._mujoco.mjtRndFlag, f"mjRND_{name}")] = False
        self._renderer.update_scene(self._showing(joints), "front")
        return self._renderer.render()
