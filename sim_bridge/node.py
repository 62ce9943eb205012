"""``sim_bridge``: a simulated task in the place of a robot.

It runs at its own pace and never waits for the controller: at every control step it applies the
newest command, or the zero action when that is too old, and publishes what camera and joints would
show. Latency therefore counts, as on a robot.
"""

from __future__ import annotations

import sys
import threading
import traceback
from collections import deque
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from rosgraph_msgs.msg import Clock as ClockMessage
from sensor_msgs.msg import Image, JointState

from sim_bridge.config import SimBridgeConfig
from sim_bridge.session import Frame, Session, rollout
from wm_mpc.control.pacing import Schedule
from wm_mpc.core.clock import monotonic
from wm_mpc.core.errors import MessageError, UserError, one_line
from wm_mpc.msg import TaskState
from wm_mpc.msg import Trajectory as TrajectoryMessage
from wm_mpc.nodes.common import qos
from wm_mpc.nodes.common.background import Bell, in_background
from wm_mpc.nodes.common.inputs import publish_inputs
from wm_mpc.nodes.common.messages import (
    CommandFormat,
    array_to_joint_state,
    rgb_to_image,
    to_stamp,
    trajectory_to_message,
)
from wm_mpc.nodes.common.parameters import ParameterReader
from wm_mpc.nodes.common.spin import run_node
from wm_mpc.srv import Reset, Rollout
from wm_mpc.tasks.registry import find_task

CLOCK_S = 0.01


class SimBridge(Node):
    """See the module. One thread simulates, the executor's thread hears commands and requests."""

    def __init__(self) -> None:
        super().__init__("sim_bridge", automatically_declare_parameters_from_overrides=True)
        reader = ParameterReader(self)
        self.config = config = reader.read(SimBridgeConfig())
        reader.reject_unknown()
        self._keeps_time = self.get_parameter("use_sim_time").value
        if config.real_time_factor != 1 and not self._keeps_time:
            factor = f"{config.real_time_factor:g}; 1 expected unless use_sim_time is true"
            raise UserError(f"parameter real_time_factor: {factor}")
        self._simulator = find_task(config.task).simulator()
        self.spec = self._simulator.spec
        self._format = CommandFormat(
            config.command_type,
            config.command_names,
            self.spec.action_dim,
            self.spec.control_period,
        )
        self._zero = np.zeros(self.spec.action_dim)
        # (command, instant it came); replaced as a whole, so that no lock is needed
        self._command: tuple[np.ndarray, float] = (self._zero, -np.inf)
        # commands whose time has not come, (values, when it comes)
        self._waiting: deque[tuple[np.ndarray, float]] = deque(maxlen=1000)
        self._rollout_env = None
        self._session: Session | None = None
        self.failed = False
        self._requests: list[_ResetRequest] = []
        self._stopping = threading.Event()
        self._simulated = 0.0

        self._image_out = self.create_publisher(Image, "image", qos.COMMAND)
        self._proprio_out = self.create_publisher(JointState, "proprio", qos.COMMAND)
        self._goal_image_out = self.create_publisher(Image, "goal_image", qos.LATCHED)
        self._goal_proprio_out = self.create_publisher(JointState, "goal_proprio", qos.LATCHED)
        self._state_out = self.create_publisher(TaskState, "task_state", qos.EVENT)
        self._corrected_out = self.create_publisher(
            TrajectoryMessage, "corrected_trajectory", qos.EVENT
        )
        self._clock_out = self.create_publisher(ClockMessage, "/clock", qos.COMMAND)
        self.create_subscription(self._format.type, "command", self._on_command, qos.COMMAND)
        self._bell = Bell(self)
        slow = MutuallyExclusiveCallbackGroup()
        self.create_service(Reset, "reset", self._on_reset, callback_group=slow)
        self.create_service(Rollout, "rollout", self._on_rollout)
        self._thread = threading.Thread(target=self._run, name="simulator", daemon=True)

    def start(self) -> None:
        """Begin to simulate."""
        self._thread.start()
        publish_inputs(self)

    def stop(self) -> None:
        """End the simulation."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(2.0)

    # ---- requests, in the executor's thread ----------------------------------------------------

    def _on_command(self, message: Any) -> None:
        try:
            values = self._format.read(message)
            delay = self.config.command_delay_s / self.config.real_time_factor
            if delay:
                self._waiting.append((values, monotonic() + delay))
            else:
                self._command = (values, monotonic())
        except MessageError as error:
            self.get_logger().error(str(error), throttle_duration_sec=5.0)

    async def _on_reset(self, request: Reset.Request, response: Reset.Response) -> Reset.Response:
        wanted = _ResetRequest(request.seed, _state(request.start), _state(request.goal))
        self._requests.append(wanted)
        try:
            frame = await in_background(self._bell, wanted.wait)
        except (UserError, ValueError) as error:
            response.message = one_line(error)
            return response
        response.success = True
        response.message = f"episode {frame.episode}, seed {frame.seed}"
        response.state = frame.state.tolist()
        response.goal_state = wanted.goal_state.tolist()
        return response

    def _on_rollout(
        self, request: Rollout.Request, response: Rollout.Response
    ) -> Rollout.Response:
        try:
            trajectory = self._imagine(request)
        except (UserError, ValueError) as error:
            response.message = one_line(error)
            return response
        response.trajectory = trajectory_to_message(trajectory, self._stamp())
        response.success = True
        self._corrected_out.publish(response.trajectory)
        return response

    def _imagine(self, request: Rollout.Request) -> Any:
        """Roll out in an environment of its own: the running episode does not notice."""
        dim = self.spec.action_dim
        if request.action_dim != dim or len(request.actions) % dim:
            raise UserError(
                f"actions: {len(request.actions)} values in rows of {request.action_dim}; rows of "
                f"{dim} expected"
            )
        snapshot = _state(request.snapshot)
        if snapshot is None and self._session is None:
            raise UserError("snapshot: empty, but no episode has begun yet")
        if snapshot is None:
            snapshot = self._session.env.snapshot()
        if self._rollout_env is None:
            self._rollout_env = self._simulator.make(image_size=self.config.image_size)
        actions = np.array(request.actions, np.float64).reshape(-1, dim)
        return rollout(self._rollout_env, snapshot, actions, request.frame_stride)

    # ---- the simulation, in its own thread -----------------------------------------------------

    def _run(self) -> None:
        try:
            self._simulate()
        except Exception as error:  # a dead simulator must not look like one that stands still
            self.get_logger().fatal(f"simulation: {one_line(error)}\n{traceback.format_exc()}")
            self.failed = True

    def _simulate(self) -> None:
        config = self.config
        env = self._simulator.make(image_size=config.image_size)
        self._session = Session(env, config.seed, config.episode_steps)
        schedule = Schedule(self.spec.control_period / config.real_time_factor)
        over = True
        while not self._stopping.is_set():
            wait = schedule.wait(monotonic())
            if wait > 0:
                self._pause(wait)
                continue
            self._simulated += self.spec.control_period
            self._tell_time(self._simulated)
            over = self._step(over)

    def _step(self, over: bool) -> bool:
        """One control step, or the begin of an episode; returns whether the episode is over."""
        if self._requests or (over and (self.config.auto_reset or not self._session.episode)):
            frame = self._begin()
        else:
            frame = self._session.advance(self._newest_command())
        self._publish(frame)
        if frame.ended and not over:
            result = "success" if frame.success else "failure"
            error = f"{frame.errors['error']:.1f} {self.spec.error_unit}"
            self.get_logger().info(
                f"episode {frame.episode} (seed {frame.seed}): {result} after {frame.step} "
                f"steps, error {error}"
            )
        return frame.ended

    def _begin(self) -> Frame:
        """Begin the episode somebody asked for, or the next one."""
        request = self._requests.pop(0) if self._requests else _ResetRequest()
        try:
            frame = self._session.reset(request.seed, request.start, request.goal)
        except ValueError as error:
            request.answer(error, None)
            return self._session.advance(self._zero) if self._session.episode else self._begin()
        request.answer(frame, self._session.env.goal_state)
        # A command for the last episode's goal means nothing here.
        self._waiting.clear()
        self._command = (self._zero, -np.inf)
        if self.config.publish_goal:
            stamp = self._stamp()
            image, proprio = self._session.goal()
            names = self.spec.proprio_names
            # Proprioception first: whoever hears the picture then has its posture.
            self._goal_proprio_out.publish(array_to_joint_state(proprio, names, stamp))
            self._goal_image_out.publish(rgb_to_image(image, stamp))
        return frame

    def _newest_command(self) -> np.ndarray:
        while self._waiting and self._waiting[0][1] <= monotonic():
            self._command = self._waiting.popleft()
        command, came = self._command
        timeout = self.config.command_timeout_s / self.config.real_time_factor
        return command if monotonic() - came <= timeout else self._zero

    def _publish(self, frame: Frame) -> None:
        stamp = self._stamp()
        joints = array_to_joint_state(frame.proprio, self.spec.proprio_names, stamp)
        self._proprio_out.publish(joints)
        self._image_out.publish(rgb_to_image(frame.image, stamp))
        state = TaskState(
            task=self.spec.name,
            seed=frame.seed,
            episode=frame.episode,
            step=frame.step,
            state=frame.state.tolist(),
            goal_state=self._session.env.goal_state.tolist(),
            error=frame.errors["error"],
            error_unit=self.spec.error_unit,
            success=frame.success,
            error_names=list(frame.errors),
            error_values=list(frame.errors.values()),
        )
        state.header.stamp = stamp
        self._state_out.publish(state)

    # ---- time ----------------------------------------------------------------------------------

    def _stamp(self) -> Time:
        """Simulated time where this node is its source, else the node clock."""
        return to_stamp(self._simulated) if self._keeps_time else self.get_clock().now().to_msg()

    def _pause(self, seconds: float) -> None:
        """Wait, and let simulated time flow meanwhile."""
        if not self._keeps_time:
            self._stopping.wait(seconds)
            return
        self._stopping.wait(min(seconds, CLOCK_S))
        left = max(0.0, seconds - CLOCK_S) * self.config.real_time_factor
        self._tell_time(self._simulated + self.spec.control_period - left)

    def _tell_time(self, seconds: float) -> None:
        if self._keeps_time:
            self._clock_out.publish(ClockMessage(clock=to_stamp(seconds)))


class _ResetRequest:
    """A reset asked for in one thread and done in another."""

    def __init__(
        self, seed: int = -1, start: np.ndarray | None = None, goal: np.ndarray | None = None
    ) -> None:
        self.seed, self.start, self.goal = seed, start, goal
        self.goal_state = np.zeros(0)
        self._outcome: Frame | Exception = UserError("reset: the simulation does not run")
        self._done = threading.Event()

    def answer(self, outcome: Frame | Exception, goal_state: np.ndarray | None) -> None:
        """Tell what came of it."""
        self._outcome = outcome
        if goal_state is not None:
            self.goal_state = goal_state.copy()
        self._done.set()

    def wait(self) -> Frame:
        """Wait until it is done."""
        self._done.wait(10.0)
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome


def _state(values: Any) -> np.ndarray | None:
    return np.array(values, np.float64) if len(values) else None


def main(args: list[str] | None = None) -> int:
    """Run the node; exit code 0 after SIGINT or SIGTERM, 2 for unusable parameters."""
    return run_node(SimBridge, args)


if __name__ == "__main__":
    sys.exit(main())
