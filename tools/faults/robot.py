"""The robot: a simulated task that applies commands and shows pictures; its sensors can fail.

It has what every receiver needs: without a command for ``TIMEOUT_S`` it stands by itself.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import Image, JointState

from sim_bridge.tasks import make_task
from wm_mpc.nodes.common import qos
from wm_mpc.nodes.common.messages import array_to_joint_state, rgb_to_image, to_stamp

PERIOD_S = 0.1
TIMEOUT_S = 0.3
GOAL_S = 2.5
"""[s] A new goal at least this often, so that there is always something to drive for."""

Hook = Callable[[Any], list[Any]]


def as_it_is(message: Any) -> list[Any]:
    """What a sound sensor sends."""
    return [message]


class Robot:
    """A point among walls, driven by velocity commands.

    Args:
        node: publishes and hears for it.
        now: clock of its stamps [s].
    """

    def __init__(self, node: Node, now: Callable[[], float] = time.time) -> None:
        self.now, self.rate = now, 1.0
        self.camera: Hook = as_it_is
        self.joints: Hook = as_it_is
        self.goals = True
        self._env = make_task("wall", image_size=96)
        self._starts = []
        for seed in range(6):
            self._env.reset(seed=seed)
            self._starts.append(self._env.goal_state.copy())
        self._next_goal = itertools.cycle(self._starts)
        self._goal_at = -np.inf
        self._command, self._came = np.zeros(2), -np.inf
        self.image_out = node.create_publisher(Image, "image", qos.COMMAND)
        self.joints_out = node.create_publisher(JointState, "proprio", qos.COMMAND)
        self.goal_out = node.create_publisher(Image, "goal_image", qos.LATCHED)
        self.goal_joints_out = node.create_publisher(JointState, "goal_proprio", qos.LATCHED)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="robot", daemon=True)

    def start(self) -> None:
        """Begin to move and to show pictures."""
        self._thread.start()

    def close(self) -> None:
        """End."""
        self._stop.set()
        self._thread.join(2.0)

    def hear(self, command: np.ndarray) -> None:
        """Take a command."""
        self._command, self._came = command, time.monotonic()

    def sound(self) -> None:
        """All sensors as they should be."""
        self.camera = self.joints = as_it_is
        self.goals, self.rate = True, 1.0

    def picture(self) -> Image:
        """What the camera shows now."""
        state = self._env.snapshot()
        return rgb_to_image(self._env.render_state(state), to_stamp(self.now()))

    def send_goal(self) -> Image:
        """Publish the next goal; returns its picture."""
        goal = next(self._next_goal)
        stamp = to_stamp(self.now())
        image = rgb_to_image(self._env.render_state(goal), stamp)
        names = self._env.spec_task.proprio_names
        self.goal_joints_out.publish(array_to_joint_state(self._env.proprio(goal), names, stamp))
        self.goal_out.publish(image)
        self._goal_at = time.monotonic()
        return image

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            due = max(due + PERIOD_S / self.rate, time.monotonic() - PERIOD_S)
            fresh = time.monotonic() - self._came <= TIMEOUT_S / self.rate
            self._env.advance(np.clip(self._command if fresh else np.zeros(2), -1.8, 1.8))
            if self.goals and time.monotonic() - self._goal_at > GOAL_S:
                self.send_goal()
            self._show()

    def _show(self) -> None:
        stamp, state = to_stamp(self.now()), self._env.snapshot()
        names = self._env.spec_task.proprio_names
        joints = array_to_joint_state(self._env.proprio(state), names, stamp)
        for message in self.joints(joints):
            self.joints_out.publish(message)
        for message in self.camera(rgb_to_image(self._env.render_state(state), stamp)):
            self.image_out.publish(message)


__all__ = ["PERIOD_S", "TIMEOUT_S", "Robot", "as_it_is"]
