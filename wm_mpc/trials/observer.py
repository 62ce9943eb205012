"""A node that watches a simulated task and its controller, and asks for episodes.

It hears what everybody hears and calls ``reset``; it has no part in the control loop.
"""

from __future__ import annotations

import threading
import time

import numpy as np
import rclpy
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
from std_msgs.msg import Float64MultiArray

from wm_mpc.core.clock import stamp_seconds
from wm_mpc.data.decoding import image_to_rgb
from wm_mpc.msg import Plan as PlanMessage
from wm_mpc.msg import PlannerStatus, TaskState
from wm_mpc.nodes.common import qos
from wm_mpc.srv import Reset
from wm_mpc.trials.recording import Command, Moment, Plan, Recording, Tick


class Observer:
    """Watches from a thread of its own, between construction and ``close``.

    The episode that is watched is the last one asked for by ``begin``; what belongs to others is
    dropped.

    Args:
        name: node name.
    """

    def __init__(self, name: str = "demo") -> None:
        self._context = Context()
        rclpy.init(context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        self.node = Node(name, context=self._context)
        self.status: PlannerStatus | None = None
        """Newest status of the controller."""
        self.simulated_time = False
        """Whether somebody tells a simulated clock: stamps are not of the wall clock then."""
        self._lock = threading.Lock()
        self._clear(-1)
        listen = self.node.create_subscription
        listen(TaskState, "task_state", self._on_state, qos.EVENT)
        listen(Image, "image", self._on_image, qos.EVENT)
        listen(Image, "goal_image", self._on_goal, qos.LATCHED)
        listen(PlanMessage, "plan", self._on_plan, qos.EVENT)
        listen(PlannerStatus, "status", self._on_status, qos.EVENT)
        listen(Float64MultiArray, "command_request", self._on_request, qos.COMMANDS)
        listen(Float64MultiArray, "command", self._on_command, qos.COMMANDS)
        listen(Clock, "/clock", self._on_clock, qos.NEWEST)
        self._reset = self.node.create_client(Reset, "reset")
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._spin, name="observer", daemon=True)
        self._thread.start()

    @property
    def rmw(self) -> str:
        """Name of the middleware."""
        return rclpy.get_rmw_implementation_identifier()

    def node_names(self) -> list[str]:
        """Full names of all nodes that are discovered now."""
        found = self.node.get_node_names_and_namespaces()
        return sorted(f"{space.rstrip('/')}/{name}" for name, space in found)

    def ready_to_begin(self) -> bool:
        """Whether the simulator's ``reset`` is there."""
        return self._reset.service_is_ready()

    def begin(self, seed: int) -> Future:
        """Ask for an episode and watch it from now on.

        Returns:
            Future of ``wm_mpc/srv/Reset``'s response.
        """
        with self._lock:
            self._clear(seed)
        return self._reset.call_async(Reset.Request(seed=seed))

    def newest(self) -> Moment | None:
        """Last moment of the watched episode; None before its start."""
        with self._lock:
            return self._with_image(self._moments[-1]) if self._moments else None

    def recording(self) -> Recording:
        """What was seen of the watched episode so far."""
        with self._lock:
            return Recording(
                self._seed,
                self._goal_state,
                self._goal_image,
                tuple(self._with_image(moment) for moment in self._moments),
                tuple(self._ticks),
                tuple(self._plans),
                tuple(self._requests),
                tuple(self._commands),
            )

    def close(self) -> None:
        """Stop watching."""
        self._closing.set()
        self._executor.shutdown(2.0)
        self._thread.join(2.0)
        self.node.destroy_node()
        self._context.try_shutdown()

    # ---- in the executor's thread --------------------------------------------------------------

    def _spin(self) -> None:
        while not self._closing.is_set():
            try:
                self._executor.spin_once(timeout_sec=0.2)
            except ExternalShutdownException:
                return

    def _clear(self, seed: int) -> None:
        self._seed = seed
        self._goal_state = np.zeros(0)
        self._goal_image: np.ndarray | None = None
        self._moments: list[Moment] = []
        self._images: dict[float, np.ndarray] = {}
        self._ticks: list[Tick] = []
        self._plans: list[Plan] = []
        self._requests: list[Command] = []
        self._commands: list[Command] = []

    def _with_image(self, moment: Moment) -> Moment:
        """Pictures and states come on topics of their own; their stamps are equal."""
        return Moment(
            moment.stamp,
            moment.step,
            moment.state,
            moment.errors,
            moment.success,
            self._images.get(moment.stamp),
        )

    def _on_state(self, message: TaskState) -> None:
        with self._lock:
            if message.seed != self._seed:
                return
            if message.step == 0:
                self._moments = []
            errors = dict(zip(message.error_names, message.error_values, strict=True))
            self._goal_state = np.array(message.goal_state)
            self._moments.append(
                Moment(
                    stamp_seconds(message.header.stamp),
                    message.step,
                    np.array(message.state),
                    {**errors, "error": message.error},
                    message.success,
                )
            )

    def _on_image(self, message: Image) -> None:
        picture = image_to_rgb(message)
        with self._lock:
            self._images[stamp_seconds(message.header.stamp)] = picture

    def _on_goal(self, message: Image) -> None:
        picture = image_to_rgb(message, "goal_image")
        with self._lock:
            self._goal_image = picture

    def _on_plan(self, message: PlanMessage) -> None:
        actions = np.array(message.actions).reshape(message.horizon, message.action_dim)
        plan = Plan(stamp_seconds(message.header.stamp), actions)
        with self._lock:
            self._plans.append(plan)

    def _on_status(self, message: PlannerStatus) -> None:
        self.status = message
        tick = Tick.read(stamp_seconds(message.header.stamp), message)
        with self._lock:
            self._ticks.append(tick)

    def _on_request(self, message: Float64MultiArray, info: dict) -> None:
        command = _command(message, info)
        with self._lock:
            self._requests.append(command)

    def _on_command(self, message: Float64MultiArray, info: dict) -> None:
        command = _command(message, info)
        with self._lock:
            self._commands.append(command)

    def _on_clock(self, _message: Clock) -> None:
        self.simulated_time = True


def _command(message: Float64MultiArray, info: dict) -> Command:
    """A command with its instants as the middleware tells them: pictures may hold this thread."""
    came = info["received_timestamp"] or time.time_ns()
    left = info["source_timestamp"] or came
    return Command(left * 1e-9, came * 1e-9, tuple(message.data))


__all__ = ["Observer"]
