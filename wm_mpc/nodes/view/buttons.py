"""What the page's buttons do: services, parameters and topics that anybody could use."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.client import Client
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image
from std_msgs.msg import Bool

from wm_mpc.core.errors import UserError
from wm_mpc.nodes.common import qos
from wm_mpc.nodes.view.board import Board, Shot
from wm_mpc.srv import Reset, SetGoal

ANSWER_S = 5.0
CONFIGURE_S = 120.0
"""[s] A controller that is configured loads its model and measures."""
SETTABLE: dict[str, type] = {
    "budget_fraction": float, "planner": str, "publish_search": bool, "tolerance": float,
}  # fmt: skip
"""Parameters of the controller that the page offers."""
PLANNERS = ("adam", "gd", "ilqr", "grasp", "cem", "mppi", "latco", "hybrid")
"""Planners that the page offers; told here, because the registry loads torch."""


class Buttons:
    """Called from the server's threads; the node's executor carries the answers.

    Args:
        node: spinning node.
        board: where goals are picked from.
        controller: name of the node that pauses and takes parameters.
    """

    def __init__(self, node: Node, board: Board, controller: str) -> None:
        self._node, self._board, self._controller = node, board, controller
        client = node.create_client
        self._reset = client(Reset, "reset")
        self._goal = client(SetGoal, "set_goal")
        self._life = client(ChangeState, f"{controller}/change_state")
        self._state = client(GetState, f"{controller}/get_state")
        self._set = client(SetParameters, f"{controller}/set_parameters")
        self._get = client(GetParameters, f"{controller}/get_parameters")
        # Latched: a gate that starts again hears it too.
        self._e_stop = node.create_publisher(Bool, "e_stop", qos.LATCHED)
        self._pursued: SetGoal.Request | None = None
        self._one = threading.Lock()
        self._done: dict[str, Callable[[dict[str, Any]], str]] = {
            "reset": self.reset,
            "goal": self.goal,
            "pause": self.pause,
            "go_on": self.go_on,
            "e_stop": self.e_stop,
            "set": self.set,
        }

    def act(self, request: dict[str, Any]) -> str:
        """Do what ``request["do"]`` names.

        Returns:
            One line for people.

        Raises:
            UserError: unknown, not offered by any node, refused, or no answer in time.
        """
        name = request.get("do")
        if name not in self._done:
            raise UserError(f"do: {name!r}; one of {', '.join(self._done)} expected")
        return self._done[name](request)

    def reset(self, request: dict[str, Any]) -> str:
        """Begin a new simulated episode; ``seed`` may be given."""
        seed = request.get("seed", -1)
        if not isinstance(seed, int) or isinstance(seed, bool) or not -(2**63) <= seed < 2**63:
            raise UserError(f"seed: {seed!r}; a whole number expected")
        answer = self._call(self._reset, Reset.Request(seed=seed), "a simulator")
        if not answer.success:
            raise UserError(answer.message)
        return "new episode"

    def goal(self, request: dict[str, Any]) -> str:
        """Pursue a picture: the newest kept one, or the one that ``number`` names."""
        number = request.get("number")
        if number is None:
            shot = next(reversed(self._board.shots()), None)
        else:
            shot = self._board.find(number) if isinstance(number, int) else None
        if shot is None:
            what = "no picture came yet" if number is None else f"{number!r}: no longer kept"
            raise UserError(f"goal: {what}")
        wanted = SetGoal.Request(goal_image=to_message(shot))
        self._pursue(wanted)
        self._pursued = wanted
        self._board.show("goal", shot.image)
        return f"goal taken from the {'recording' if shot.number < 0 else 'camera'}"

    def _pursue(self, wanted: SetGoal.Request) -> None:
        answer = self._call(self._goal, wanted, self._controller)
        if not answer.success:
            raise UserError(answer.message)

    def others_goal(self) -> None:
        """A goal came from elsewhere: the page's own is the newest no more."""
        self._pursued = None

    def go_on(self, request: dict[str, Any]) -> str:
        """Go on after a pause, with the goal that the page set last; the controller forgets it."""
        with self._alone():
            self._go_on()
        return "going on"

    def _go_on(self) -> None:
        pursued = self._pursued
        self._change("ACTIVATE")
        if pursued is not None:
            self._pursue(pursued)

    def pause(self, request: dict[str, Any]) -> str:
        """Bring the robot to rest; the model stays loaded."""
        with self._alone():
            self._change("DEACTIVATE")
        return "paused"

    def e_stop(self, request: dict[str, Any]) -> str:
        """Press or release the emergency stop."""
        pressed = request.get("on")
        if not isinstance(pressed, bool):
            raise UserError(f"on: {pressed!r}; true or false expected")
        self._e_stop.publish(Bool(data=pressed))
        return "emergency stop pressed" if pressed else "released; a new goal starts the robot"

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One change of the controller's life at a time, whoever of the browsers asks."""
        if not self._one.acquire(blocking=False):
            raise UserError(f"{self._controller}: changes already; wait for it")
        try:
            yield
        finally:
            self._one.release()

    def _change(self, *names: str) -> None:
        """Lifecycle transitions, one after the other."""
        for name in names:
            number = getattr(Transition, f"TRANSITION_{name}")
            request = ChangeState.Request(transition=Transition(id=number))
            patience = CONFIGURE_S if name == "CONFIGURE" else ANSWER_S
            if not self._call(self._life, request, self._controller, patience).success:
                raise UserError(f"{self._controller}: cannot {name.lower()} in its present state")

    def _planner(self, name: str) -> str:
        """Another planner: rest, take the controller down, set it, bring it up as it was.

        Raises:
            UserError: it cannot be used; the controller is brought up again with the one before.
        """
        state = self._call(self._state, GetState.Request(), self._controller).current_state.id
        active = state == State.PRIMARY_STATE_ACTIVE
        if active:
            self._change("DEACTIVATE")
        if state != State.PRIMARY_STATE_UNCONFIGURED:
            self._change("CLEANUP")
        asked = GetParameters.Request(names=["planner"])
        before = self._call(self._get, asked, self._controller).values[0].string_value
        refusal = ""
        try:
            self._set_one("planner", name)
            self._change("CONFIGURE")
        except UserError as error:
            refusal = str(error)
            self._set_one("planner", before)
            self._change("CONFIGURE")
        if active:
            self._go_on()
        if refusal:
            raise UserError(f"planner: still {before}; {refusal}")
        return f"planner: {name}"

    def set(self, request: dict[str, Any]) -> str:
        """Change a parameter of the controller."""
        name, value = request.get("name"), request.get("value")
        kind = SETTABLE.get(name) if isinstance(name, str) else None
        if kind is None:
            raise UserError(f"name: {name!r}; one of {', '.join(SETTABLE)} expected")
        if not _is_a(kind, value):
            expected = {str: "a name", float: "a number", bool: "true or false"}[kind]
            raise UserError(f"{name}: {value!r}; {expected} expected")
        if name == "planner":
            if value not in PLANNERS:
                raise UserError(f"planner: {value!r}; one of {', '.join(PLANNERS)} expected")
            with self._alone():
                return self._planner(value)
        self._set_one(name, kind(value))
        return f"{name}: {value}"

    def _set_one(self, name: str, value: Any) -> None:
        asked = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        result = self._call(self._set, asked, self._controller).results[0]
        if not result.successful:
            raise UserError(result.reason or f"{name}: refused")

    def _call(self, client: Client, request: Any, who: str, patience_s: float = ANSWER_S) -> Any:
        if not client.service_is_ready():
            raise UserError(f"{client.srv_name}: offered by no node; {who} expected")
        answered = threading.Event()
        future = client.call_async(request)
        future.add_done_callback(lambda _: answered.set())
        if not answered.wait(patience_s):
            client.remove_pending_request(future)
            raise UserError(f"{client.srv_name}: no answer within {patience_s:g} s")
        return future.result()


def _is_a(kind: type, value: Any) -> bool:
    if kind is not float or isinstance(value, bool):
        return isinstance(value, kind) and kind is not float
    return isinstance(value, int | float) and math.isfinite(value)


def to_message(shot: Shot) -> Image:
    """A kept picture as a message."""
    height, width, _ = shot.image.shape
    return Image(
        height=height, width=width, encoding="rgb8", step=3 * width, data=shot.image.tobytes()
    )


__all__ = ["Buttons"]
