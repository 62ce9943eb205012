"""The gate alone: this harness is the controller."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import Bool, Float64MultiArray

from tools.faults.outcome import Outcome, Row, slack, stops
from tools.faults.robot import PERIOD_S
from tools.faults.stage import Stage, periods_to_safe, stale_after
from wm_mpc.control.gate import GateState
from wm_mpc.nodes.common import qos

WISH = [0.9, -0.9]
BEST_EFFORT = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
BUTTONS = {
    "reliable": QoSProfile(depth=1),
    "best effort": BEST_EFFORT,
    "latched": qos.LATCHED,
    "latched, best effort": QoSProfile(
        depth=1,
        reliability=ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL,
    ),
}


class Asker:
    """A controller that asks for the same at the control rate."""

    def __init__(self, stage: Stage) -> None:
        self.wish: list[float] = WISH
        self.silent = False
        self.out = stage.publisher(Float64MultiArray, "command_request", qos.COMMAND)
        stage.node.create_timer(PERIOD_S, self._ask)

    def _ask(self) -> None:
        if not self.silent:
            self.out.publish(Float64MultiArray(data=self.wish))


def begin(stage: Stage) -> None:
    """Start the gate and ask for motion."""
    stage.start("command_gate")
    stage.asker = Asker(stage)
    assert stage.drive(20.0), "the gate does not pass requests"


def _set(stage: Stage, **values: Any) -> Callable[[], None]:
    def change() -> None:
        for name, value in values.items():
            setattr(stage.asker, name, value)

    return change


def silence(stage: Stage) -> Outcome:
    """The controller asks for nothing any more."""
    return stops(stage, _set(stage, silent=True), _set(stage, silent=False), 2)


def bad(wish: list[float]) -> Callable[[Stage], Outcome]:
    """The controller asks for what cannot be."""

    def run(stage: Stage) -> Outcome:
        return stops(stage, _set(stage, wish=wish), _set(stage, wish=WISH), 1)

    return run


def huge(stage: Stage) -> Outcome:
    """Far beyond every bound, but finite."""
    outcome = Outcome("clipped to the limits, drives on")
    since = time.monotonic()
    stage.asker.wish = [1e6, -1e6]
    time.sleep(1.0)
    stage.asker.wish = WISH
    commands = [values for _, values in stage.commands(since)]
    outcome.must(commands and np.abs(commands).max() <= 1.8, "a limit is broken")
    outcome.must(stage.drive(10.0), "does not drive on")
    outcome.after = "alive"
    return outcome


def second_publisher(stage: Stage) -> Outcome:
    """Somebody else asks too, five times as often."""
    outcome = Outcome("the second one is refused and told, the first drives on")
    other = stage.publisher(Float64MultiArray, "command_request", qos.COMMAND)
    since = time.monotonic()
    for _ in range(75):
        other.publish(Float64MultiArray(data=[-1.0, 1.0]))
        time.sleep(0.02)
    outcome.said = stage.said(since)
    commands = [values for _, values in stage.commands(since)]
    outcome.must(not any(values[0] < 0 for values in commands), "the second one drove")
    outcome.must("second publisher" in outcome.said, "not told")
    outcome.must(len(commands) >= 10 and stage.drive(10.0), "does not drive on")
    outcome.after = "alive"
    return outcome


def press(profile: QoSProfile) -> Callable[[Stage], Outcome]:
    """The emergency stop, over one quality of service."""

    def run(stage: Stage) -> Outcome:
        button = stage.button(profile)

        def release() -> None:
            button.publish(Bool(data=False))
            stage.asker.wish = [0.0, 0.0]
            stage.wait(lambda: stage.last("gate").state == GateState.RESTING, 5.0)
            stage.asker.wish = WISH

        return stops(stage, lambda: button.publish(Bool(data=True)), release, 0)

    return run


def released_without_rest(stage: Stage) -> Outcome:
    """Pressed and released while the controller goes on asking for motion."""
    outcome = Outcome("stands until the controller rested once", 0)
    button = stage.button()
    since = time.monotonic()
    button.publish(Bool(data=True))
    time.sleep(0.3)
    button.publish(Bool(data=False))
    time.sleep(0.7)
    outcome.periods = periods_to_safe(stage, since, 3.0)
    outcome.stale = stale_after(stage, since, 0 + slack["periods"])
    outcome.said = stage.said(since)
    outcome.safe()
    stage.asker.wish = [0.0, 0.0]
    time.sleep(0.5)
    stage.asker.wish = WISH
    outcome.must(stage.drive(10.0), "does not drive again")
    outcome.after = "drives again"
    return outcome


def heartbeat(stage: Stage) -> Outcome:
    """The button repeats false, then goes silent."""
    stage.overrides = {"command_gate": {"e_stop_timeout_s": 0.3}}
    _restart(stage)
    button = stage.button()
    beating = stage.node.create_timer(0.1, lambda: button.publish(Bool(data=False)))
    outcome = Outcome("stands within e_stop_timeout_s (3 periods)", 3)
    # where the gate heard no beat at its start it waits for a controller that rests once
    stage.asker.wish = [0.0, 0.0]
    time.sleep(1.5)
    stage.asker.wish = WISH
    outcome.must(stage.drive(10.0), "does not drive while it beats")
    since = time.monotonic()
    beating.cancel()
    outcome.periods = periods_to_safe(stage, since, 3.0)
    outcome.stale = stale_after(stage, since, 3 + slack["periods"])
    outcome.said = stage.said(since)
    outcome.safe()
    outcome.must("silent" in outcome.said, "not told")
    stage.overrides = {}
    _restart(stage)
    outcome.must(stage.drive(10.0), "does not drive again")
    outcome.after = "drives again"
    return outcome


def _restart(stage: Stage) -> None:
    stage.children["command_gate"].kill()
    stage.start("command_gate")


def killed(stage: Stage) -> Outcome:
    """Kill -9 of the gate; it is started again after a second."""
    outcome = Outcome("the receiver stands by itself (3 periods); after a restart rest first", 3)
    since = time.monotonic()
    stage.children["command_gate"].kill()
    outcome.periods = periods_to_safe(stage, since, 3.0)
    outcome.stale = stale_after(stage, since, 3 + slack["periods"])
    outcome.safe()
    again = time.monotonic()
    stage.start("command_gate")
    outcome.must(stage.drive(20.0), "does not drive again")
    commands = stage.commands(again)
    outcome.must(commands and not commands[0][1].any(), "the first command is not rest")
    outcome.after = "restarted clean"
    return outcome


def killed_while_pressed(stage: Stage) -> Outcome:
    """E-stop by a button that does not repeat itself; then kill -9 and a restart of the gate."""
    outcome = Outcome("not one command moves the robot until false was sent", 0)
    button = stage.button()
    button.publish(Bool(data=True))
    outcome.must(stage.wait(lambda: (stage.folder / "e_stop").exists(), 5.0), "not remembered")
    since = time.monotonic()
    _restart(stage)
    stage.wait(lambda: len(stage.commands(since)) > 10, 15.0)
    outcome.periods = periods_to_safe(stage, since, 3.0)
    outcome.stale = stale_after(stage, since, 0 + slack["periods"])
    outcome.said = stage.said(since)
    outcome.safe()
    outcome.must(len(stage.commands(since)) > 10, "silent")
    # the killed gate counts as a listener for seconds yet, and a message that does not repeat
    # itself is lost where the new one does not listen yet: push until it is heard, as people do
    end = time.monotonic() + 15.0
    while (stage.folder / "e_stop").exists() and time.monotonic() < end:
        button.publish(Bool(data=False))
        time.sleep(0.5)
    outcome.must(not (stage.folder / "e_stop").exists(), "the release is not heard")
    stage.asker.wish = [0.0, 0.0]
    time.sleep(0.5)
    stage.asker.wish = WISH
    outcome.must(stage.drive(10.0), "does not drive after the release")
    outcome.after = "restarted, still stopped"
    return outcome


def stopped_process(stage: Stage) -> Outcome:
    """SIGSTOP of the gate for 2 s while the controller asks on."""
    outcome = Outcome("the receiver stands by its own timeout (3 periods), drives again", 3)
    gate = stage.children["command_gate"]
    since = time.monotonic()
    gate.send(signal.SIGSTOP)
    outcome.periods = periods_to_safe(stage, since, 2.0)
    outcome.stale = stale_after(stage, since, 3 + slack["periods"])
    gate.send(signal.SIGCONT)
    outcome.safe()
    outcome.must(stage.drive(10.0), "does not drive again")
    outcome.after = "drives again"
    return outcome


def stopped_while_the_controller_dies(stage: Stage) -> Outcome:
    """SIGSTOP of the gate; the controller's last wish lies in its queue when it wakes."""
    outcome = Outcome("the old request is not passed on", 3)
    gate = stage.children["command_gate"]
    since = time.monotonic()
    gate.send(signal.SIGSTOP)
    time.sleep(0.35)
    stage.asker.silent = True
    time.sleep(1.5)
    woken = time.monotonic()
    gate.send(signal.SIGCONT)
    time.sleep(1.0)
    outcome.periods = periods_to_safe(stage, since, 3.0)
    outcome.stale = sum(np.abs(v).max() > 0 for _, v in stage.commands(woken))
    outcome.said = stage.said(woken)
    outcome.safe()
    stage.asker.silent = False
    outcome.must(stage.drive(10.0), "does not drive again")
    outcome.after = "drives again"
    return outcome


def ended(number: int) -> Callable[[Stage], Outcome]:
    """A signal that asks the gate to end."""

    def run(stage: Stage) -> Outcome:
        outcome = Outcome("says rest within 2 periods, ends with code 0", 2)
        gate = stage.children["command_gate"]
        since = time.monotonic()
        gate.send(number)
        code = gate.wait()
        outcome.periods = periods_to_safe(stage, since, 3.0)
        outcome.stale = stale_after(stage, since, 2 + slack["periods"])
        outcome.safe()
        outcome.must(code == 0, f"code {code}")
        commands = stage.commands(since)
        outcome.must(commands and not commands[-1][1].any(), "the last command is not rest")
        stage.start("command_gate")
        outcome.must(stage.drive(20.0), "does not drive again")
        outcome.after = f"ended with code {code}, restarted"
        return outcome

    return run


ROWS = [
    Row("requests end", "gate", silence, quick=True),
    Row("a request is NaN", "gate", bad([math.nan, 0.0]), quick=True),
    Row("a request has another width", "gate", bad([0.5, 0.5, 0.5]), quick=True),
    Row("a request is 1e6", "gate", huge, quick=True),
    Row("a second publisher of requests", "gate", second_publisher, quick=True),
    *(
        Row(f"e-stop, {name} publisher", "gate", press(profile), quick=name == "best effort")
        for name, profile in BUTTONS.items()
    ),
    Row("e-stop released while motion is asked for", "gate", released_without_rest, quick=True),
    Row("e-stop pressed, gate killed and restarted", "gate", killed_while_pressed, quick=True),
    Row("e-stop heartbeat ends", "gate", heartbeat),
    Row("kill -9 of the gate, restart", "gate", killed, quick=True),
    Row("SIGSTOP of the gate for 2 s", "gate", stopped_process),
    Row("SIGSTOP of the gate, controller dies", "gate", stopped_while_the_controller_dies),
    Row("SIGTERM to the gate", "gate", ended(signal.SIGTERM), quick=True),
    Row("SIGINT to the gate", "gate", ended(signal.SIGINT)),
    Row("SIGHUP to the gate", "gate", ended(signal.SIGHUP)),
]
