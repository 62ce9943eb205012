"""The ``reach_goal`` action: drive until the camera shows the goal picture; say how it ended."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from rclpy.action import ActionServer, CancelResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.node import Node

from wm_mpc.action import ReachGoal
from wm_mpc.control.observation import Goal
from wm_mpc.control.tick import State
from wm_mpc.core.errors import UserError
from wm_mpc.data.decoding import image_to_rgb
from wm_mpc.nodes.common.background import Bell
from wm_mpc.nodes.mpc.outputs import Outputs


class Driver(Protocol):
    """What the action needs of the node."""

    def set_goal(self, image: np.ndarray, proprio: np.ndarray | None, tolerance: float) -> Goal:
        """Pursue a goal; ``UserError`` says why not."""
        ...

    def current_goal(self) -> Goal | None:
        """Goal pursued now, by identity; None when idle or not active."""
        ...

    def clear_goal(self) -> None:
        """Become idle."""
        ...

    def seconds(self) -> float:
        """Node clock [s]."""
        ...


class ReachGoalServer:
    """Serves ``reach_goal``. A goal from anywhere else, or a later call, replaces the one pursued.

    Args:
        node: node that owns the action.
        driver: what pursues goals.
        outputs: what was told last.
        bell: rung once per tick.
    """

    def __init__(self, node: Node, driver: Driver, outputs: Outputs, bell: Bell) -> None:
        self._driver = driver
        self._outputs = outputs
        self._bell = bell
        self._server = ActionServer(
            node,
            ReachGoal,
            "reach_goal",
            self._execute,
            cancel_callback=lambda _: CancelResponse.ACCEPT,
        )

    def destroy(self) -> None:
        """Free the action."""
        self._server.destroy()

    async def _execute(self, handle: ServerGoalHandle) -> ReachGoal.Result:
        driver, request = self._driver, handle.request
        started, first_tick = driver.seconds(), self._outputs.last_status.ticks
        try:
            image = image_to_rgb(request.goal_image, "goal_image")
            proprio = np.array(request.goal_proprio) if request.goal_proprio else None
            goal = driver.set_goal(image, proprio, request.tolerance)
        except UserError as error:
            handle.abort()
            return ReachGoal.Result(success=False, reason=str(error))
        while not (reason := self._ending(handle, goal, started)):
            await self._bell.next()
            handle.publish_feedback(ReachGoal.Feedback(status=self._outputs.last_status))
        if driver.current_goal() is goal and reason != "reached":
            driver.clear_goal()
        if reason == "reached":
            handle.succeed()
        elif reason == "cancelled":
            handle.canceled()
        else:
            handle.abort()
        return ReachGoal.Result(
            success=reason == "reached",
            reason=reason,
            final_distance=self._outputs.last_status.latent_distance,
            ticks=max(0, self._outputs.last_status.ticks - first_tick),
            elapsed_s=driver.seconds() - started,
        )

    def _ending(self, handle: ServerGoalHandle, goal: Goal, started: float) -> str:
        """Why it is over, or nothing."""
        driver, request = self._driver, handle.request
        result = self._outputs.last_result
        if handle.is_cancel_requested:
            return "cancelled"
        current = driver.current_goal()
        if current is not goal:
            return "the controller was stopped" if current is None else "replaced by another goal"
        # A tick that was under way when the goal came says nothing about it.
        if result.goal is goal and result.state is State.E_STOP:
            return result.reason
        if result.goal is goal and result.state is State.REACHED:
            return "reached"
        if request.timeout_s > 0 and driver.seconds() - started > request.timeout_s:
            return "timeout"
        return ""


__all__ = ["Driver", "ReachGoalServer"]
