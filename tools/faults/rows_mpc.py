"""Sensors, goals, services and emergency stop of the whole loop, which goes on running."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.action import ActionClient
from std_msgs.msg import Bool

from tools.faults.outcome import Outcome, Row, goes_on, slack, stops
from tools.faults.robot import Hook
from tools.faults.stage import Stage, periods_to_safe, stale_after
from wm_mpc.action import ReachGoal
from wm_mpc.nodes.common.messages import rgb_to_image, to_stamp
from wm_mpc.srv import LoadModel, SetGoal

RUN = Callable[[Stage], Outcome]


def begin(stage: Stage) -> None:
    """Start gate and controller and wait until the robot moves."""
    stage.start("command_gate")
    stage.start("mpc_node")
    assert stage.drive(), "the robot does not drive"


def call(stage: Stage, kind: type, service: str, request: Any, timeout_s: float = 10.0) -> Any:
    """Answer of a service; None: there was none."""
    client = stage.node.create_client(kind, service)
    if not client.wait_for_service(timeout_s):
        return None
    future = client.call_async(request)
    stage.wait(future.done, timeout_s)
    return future.result() if future.done() else None


def change(stage: Stage, transition: int) -> bool:
    """Ask the controller for a lifecycle transition."""
    request = ChangeState.Request(transition=Transition(id=transition))
    answer = call(stage, ChangeState, "mpc_node/change_state", request)
    return bool(answer and answer.success)


# ---- sensors -----------------------------------------------------------------------------------


def camera(hook: Hook, limit: float = 2, wait_s: float = 4.0) -> RUN:
    """A camera that sends something else."""
    return lambda stage: stops(
        stage, lambda: setattr(stage.robot, "camera", hook), stage.robot.sound, limit, wait_s
    )


def joints(hook: Hook, limit: float = 2) -> RUN:
    """Joints that say something else."""
    return lambda stage: stops(
        stage, lambda: setattr(stage.robot, "joints", hook), stage.robot.sound, limit
    )


def put(**values: Any) -> Hook:
    """Fields of the message replaced."""

    def spoil(message: Any) -> list[Any]:
        for name, value in values.items():
            setattr(message, name, value)
        return [message]

    return spoil


def filled(value: int | None) -> Hook:
    """Pictures of one colour; None: noise."""
    rng = np.random.default_rng(0)

    def spoil(message: Any) -> list[Any]:
        shape = (message.height, message.width, 3)
        fill = np.full(shape, value or 0, np.uint8)
        picture = rng.integers(0, 256, shape, np.uint8) if value is None else fill
        return [rgb_to_image(picture, message.header.stamp)]

    return spoil


def stamped(offset: float) -> Hook:
    """A camera whose clock is off [s]."""

    def spoil(message: Any) -> list[Any]:
        message.header.stamp = to_stamp(time.time() + offset)
        return [message]

    return spoil


def frozen() -> Hook:
    """The same pixels with fresh stamps."""
    kept: list[Any] = []

    def spoil(message: Any) -> list[Any]:
        kept.append(message.data)
        message.data = kept[0]
        return [message]

    return spoil


def jump(stage: Stage) -> Outcome:
    """One picture of another place, then the right ones again."""
    state = {"left": 1}

    def spoil(message: Any) -> list[Any]:
        state["left"] -= 1
        if state["left"] >= 0:
            message.data = bytes(np.roll(np.frombuffer(message.data, np.uint8), 12000).data)
        return [message]

    return goes_on(
        stage, lambda: setattr(stage.robot, "camera", spoil), stage.robot.sound, seconds=3.0
    )


def flood(topic: str, rate: float) -> RUN:
    """The same message again and again."""

    def run(stage: Stage) -> Outcome:
        over = threading.Event()
        newest: list[Any] = []

        def keep(message: Any) -> list[Any]:
            newest[:] = [message]
            return [message]

        out = stage.robot.image_out if topic == "camera" else stage.robot.joints_out

        def pour() -> None:
            due = time.monotonic()
            while not over.is_set():
                if newest:
                    out.publish(newest[0])
                due += 1 / rate
                time.sleep(max(0.0, due - time.monotonic()))

        since = time.monotonic()
        thread = threading.Thread(target=pour, daemon=True)

        def inject() -> None:
            setattr(stage.robot, topic, keep)
            thread.start()

        def undo() -> None:
            over.set()
            thread.join()
            stage.robot.sound()

        outcome = goes_on(stage, inject, undo, seconds=3.0)
        starved = sum(
            "nothing evaluated" in h.message.reason for h in stage.heard["mpc"] if h.when >= since
        )
        outcome.expected = "drives on, every tick evaluates something"
        outcome.must(starved <= 1, f"{starved} ticks evaluated nothing")
        return outcome

    return run


# ---- goals, action, services -------------------------------------------------------------------


def goal_storm(stage: Stage) -> Outcome:
    """A new goal a hundred times a second."""

    def inject() -> None:
        for _ in range(200):
            stage.robot.send_goal()
            time.sleep(0.01)

    return goes_on(stage, inject, seconds=0.5)


def bad_goal(stage: Stage) -> Outcome:
    """A goal picture that cannot be read."""

    def inject() -> None:
        stage.robot.goals = False
        stage.robot.send_goal()
        picture = stage.robot.picture()
        picture.encoding = "nothing"
        stage.robot.goal_out.publish(picture)

    outcome = goes_on(stage, inject, stage.robot.sound, seconds=1.5)
    outcome.expected = "keeps the goal that it has, tells"
    return outcome


def cancelled(stage: Stage) -> Outcome:
    """The action ``reach_goal`` is cancelled while it drives."""
    stage.robot.goals = False
    time.sleep(0.3)  # a goal that is under way would take the place of the action's
    client = ActionClient(stage.node, ReachGoal, "reach_goal")
    handle = _send(stage, client)
    stage.drive(10.0)
    outcome = stops(stage, handle.cancel_goal_async, stage.robot.sound, 2, words=False)
    outcome.expected = "stands within 2 periods, result cancelled"
    result = handle.get_result_async()
    stage.wait(result.done, 5.0)
    reason = result.result().result.reason if result.done() else "no result"
    outcome.must(reason == "cancelled", reason)
    outcome.said = f"result: {reason}"
    client.destroy()
    return outcome


def replaced(stage: Stage) -> Outcome:
    """A second goal of the action while the first is pursued."""
    stage.robot.goals = False
    client = ActionClient(stage.node, ReachGoal, "reach_goal")
    handles: list[Any] = []

    def inject() -> None:
        handles.append(_send(stage, client))
        time.sleep(0.5)
        handles.append(_send(stage, client))

    outcome = goes_on(stage, inject, stage.robot.sound, seconds=1.0)
    result = handles[0].get_result_async()
    stage.wait(result.done, 5.0)
    outcome.expected = "the first ends with a reason, the second is pursued"
    outcome.must(result.done(), "the first one got no result")
    if result.done():
        outcome.said = f"result: {result.result().result.reason}"
    client.destroy()
    return outcome


def _send(stage: Stage, client: ActionClient) -> Any:
    client.wait_for_server(5.0)
    picture = stage.robot.send_goal()
    future = client.send_goal_async(ReachGoal.Goal(goal_image=picture))
    stage.wait(future.done, 5.0)
    return future.result()


def sent_inactive(stage: Stage) -> Outcome:
    """The action's goal while the controller is deactivated."""
    outcome = Outcome("refused or ended with a reason; nothing moves", 2)
    stage.robot.goals = False
    since = time.monotonic()
    outcome.must(change(stage, Transition.TRANSITION_DEACTIVATE), "not deactivated")
    client = ActionClient(stage.node, ReachGoal, "reach_goal")
    handle = _send(stage, client)
    if handle is not None and handle.accepted:
        result = handle.get_result_async()
        stage.wait(result.done, 5.0)
        outcome.must(result.done() and not result.result().result.success, "no refusal")
        if result.done():
            outcome.said = f"result: {result.result().result.reason}"
    else:
        outcome.said = "goal refused"
    outcome.periods = periods_to_safe(stage, since, 3.0)
    outcome.stale = stale_after(stage, since, 2 + slack["periods"])
    outcome.safe()
    outcome.must(change(stage, Transition.TRANSITION_ACTIVATE), "not activated")
    stage.robot.sound()
    outcome.must(stage.drive(20.0), "does not drive again")
    outcome.after = "drives again"
    client.destroy()
    return outcome


def parameters(stage: Stage) -> Outcome:
    """Two hundred parameter changes a second, known and unknown, wrong types among them."""
    client = stage.node.create_client(SetParameters, "mpc_node/set_parameters")
    client.wait_for_service(5.0)
    values = (
        ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=math.nan),
        ParameterValue(type=ParameterType.PARAMETER_STRING, string_value="x" * 1000),
        ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=-1),
    )
    names = ("tolerance", "planner", "action_high", "no_such", "objective.proprio_weight")

    def inject() -> None:
        for index in range(400):
            name, value = names[index % 5], values[index % 3]
            wanted = [Parameter(name=name, value=value)]
            client.call_async(SetParameters.Request(parameters=wanted))
            time.sleep(0.005)

    outcome = goes_on(stage, inject, seconds=0.5)
    outcome.expected = "each answered, drives on"
    return outcome


def no_model(stage: Stage) -> Outcome:
    """``load_model`` with a folder that does not exist, ten times at once."""
    client = stage.node.create_client(LoadModel, "load_model")
    client.wait_for_service(5.0)
    futures: list[Any] = []

    def inject() -> None:
        for _ in range(10):
            futures.append(client.call_async(LoadModel.Request(path="/no/such/model")))

    outcome = goes_on(stage, inject, seconds=3.0)
    outcome.expected = "each refused with one line, drives on"
    answers = [future.result() for future in futures if future.done()]
    outcome.must(len(answers) == 10, f"{len(answers)} of 10 answers")
    outcome.must(not any(answer.success for answer in answers), "one was accepted")
    outcome.said = answers[0].message if answers else ""
    return outcome


# ---- emergency stop and lifecycle --------------------------------------------------------------


def pressed(stage: Stage) -> Outcome:
    """Pressed while it drives; released; a new goal is needed."""
    button = stage.button()

    def inject() -> None:
        stage.robot.goals = False
        button.publish(Bool(data=True))

    def undo() -> None:
        button.publish(Bool(data=False))
        time.sleep(0.5)
        released = time.monotonic()
        time.sleep(1.0)
        moved = [v for _, v in stage.commands(released) if np.abs(v).max() > 0]
        stage.e_stop_moved = len(moved)
        stage.robot.sound()

    outcome = stops(stage, inject, undo, 0)
    outcome.expected = "stands at once, and after the release until a new goal"
    outcome.must(not stage.e_stop_moved, f"{stage.e_stop_moved} commands without a new goal")
    return outcome


def released_inactive(stage: Stage) -> Outcome:
    """E-stop true, deactivate, false, activate: the latched old goal comes again."""
    outcome = Outcome("stands until a new goal", 0)
    button = stage.button()
    stage.robot.goals = False
    since = time.monotonic()
    button.publish(Bool(data=True))
    time.sleep(0.3)
    change(stage, Transition.TRANSITION_DEACTIVATE)
    button.publish(Bool(data=False))
    time.sleep(0.3)
    change(stage, Transition.TRANSITION_ACTIVATE)
    time.sleep(2.0)
    outcome.periods = periods_to_safe(stage, since, 5.0)
    outcome.stale = stale_after(stage, since, 0 + slack["periods"])
    outcome.said = stage.said(since)
    outcome.safe()
    stage.robot.sound()
    outcome.must(stage.drive(20.0), "does not drive with a new goal")
    outcome.after = "drives with a new goal"
    return outcome


def deactivated(stage: Stage) -> Outcome:
    """Deactivated while it drives."""
    outcome = Outcome("rest is said before the answer; silent afterwards", 2)
    since = time.monotonic()
    outcome.must(change(stage, Transition.TRANSITION_DEACTIVATE), "not deactivated")
    time.sleep(0.05)
    commands = stage.commands(since)
    outcome.must(commands and not commands[-1][1].any(), "no rest before the answer")
    outcome.periods = periods_to_safe(stage, since, 3.0)
    outcome.stale = stale_after(stage, since, 2 + slack["periods"])
    outcome.safe()
    outcome.must(change(stage, Transition.TRANSITION_ACTIVATE), "not activated")
    stage.robot.sound()
    outcome.must(stage.drive(20.0), "does not drive again")
    outcome.after = "drives again"
    return outcome


def set_goal_nonsense(stage: Stage) -> Outcome:
    """``set_goal`` with an empty picture and with NaN."""

    def inject() -> None:
        stage.answers = [
            call(stage, SetGoal, "set_goal", SetGoal.Request()),
            call(
                stage, SetGoal, "set_goal",
                SetGoal.Request(goal_image=stage.robot.picture(), proprio=[math.nan, 0.0]),
            ),
        ]  # fmt: skip

    outcome = goes_on(stage, inject, seconds=1.0)
    outcome.expected = "refused with one line, drives on"
    refused = [answer is not None and not answer.success for answer in stage.answers]
    outcome.must(all(refused), f"refused: {refused}")
    outcome.said = stage.answers[0].message if stage.answers[0] else ""
    return outcome


def _joint(value: float) -> Hook:
    return put(position=[value, 10.0])


ROWS = [
    Row("camera stops", "loop", camera(lambda _: []), quick=True),
    Row("joints stop", "loop", joints(lambda _: [])),
    Row("camera shows another place once", "loop", jump),
    Row("camera floods, 500 Hz", "loop", flood("camera", 500)),
    Row("joints flood, 1000 Hz", "loop", flood("joints", 1000)),
    Row("camera changes size", "loop", camera(put(height=48))),
    Row("camera changes encoding", "loop", camera(put(encoding="yuv422"))),
    Row("camera sends no data", "loop", camera(put(data=b""))),
    Row("camera: wrong step", "loop", camera(put(step=7))),
    Row("camera frozen, fresh stamps", "loop", camera(frozen(), 20, 6.0)),
    Row("camera shows noise", "loop", camera(filled(None))),
    Row("camera black", "loop", camera(filled(0))),
    Row("camera white", "loop", camera(filled(255))),
    Row("camera stamps an hour old", "loop", camera(stamped(-3600.0))),
    Row("camera stamps an hour ahead", "loop", camera(stamped(3600.0))),
    Row("joints NaN", "loop", joints(_joint(math.nan))),
    Row("joints jump to 1e6", "loop", joints(_joint(1e6))),
    Row("joints 1e20", "loop", joints(_joint(1e20))),
    Row("joints change their number", "loop", joints(put(position=[1.0], name=["x"]))),
    Row("goal replaced 100 times a second", "loop", goal_storm),
    Row("goal picture unreadable", "loop", bad_goal),
    Row("set_goal: empty picture, NaN", "loop", set_goal_nonsense),
    Row("action cancelled", "loop", cancelled),
    Row("action replaced", "loop", replaced),
    Row("action sent while inactive", "loop", sent_inactive),
    Row("parameter storm, 200 Hz", "loop", parameters),
    Row("load_model: ten at once, no such folder", "loop", no_model),
    Row("e-stop while it drives", "loop", pressed),
    Row("e-stop, deactivate, release, activate", "loop", released_inactive),
    Row("deactivate while it drives", "loop", deactivated),
]

__all__ = ["ROWS", "begin", "call", "change"]
