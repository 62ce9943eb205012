"""Processes that stop, die and come again, and a planner that fails."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import numpy as np
from lifecycle_msgs.msg import Transition
from std_msgs.msg import Bool

from tools.faults.outcome import Outcome, Row, goes_on, slack, stops
from tools.faults.rows_mpc import change
from tools.faults.stage import START_S, Stage, periods_to_safe, stale_after
from wm_mpc.nodes.common import qos

RUN = Callable[[Stage], Outcome]


def stopped(stage: Stage) -> Outcome:
    """SIGSTOP of the controller for 2 s."""
    mpc = stage.children["mpc_node"]
    return stops(
        stage, lambda: mpc.send(signal.SIGSTOP), lambda: mpc.send(signal.SIGCONT), 2, 2.0
    )


def killed(stage: Stage) -> Outcome:
    """Kill -9 of the controller, then a restart."""
    mpc = stage.children["mpc_node"]
    outcome = stops(stage, mpc.kill, lambda: stage.start("mpc_node"), 2, recovers=False)
    began = time.monotonic()
    outcome.must(stage.drive(), "does not drive again")
    outcome.expected = "stands within 2 periods; restarted, drives again"
    outcome.after = f"restarted, drives after {time.monotonic() - began:.0f} s"
    return outcome


def killed_while_pressed(stage: Stage) -> Outcome:
    """E-stop, kill -9 of the controller, restart, while the button stays pressed."""
    outcome = Outcome("not one command moves the robot", 0)
    button = stage.button()
    since = time.monotonic()
    button.publish(Bool(data=True))
    time.sleep(0.3)
    stage.children["mpc_node"].kill()
    again = time.monotonic()
    stage.start("mpc_node")
    stage.wait(lambda: [h for h in stage.heard["mpc"] if h.when > again], START_S)
    time.sleep(8.0)
    outcome.periods = periods_to_safe(stage, since, 3.0)
    outcome.stale = stale_after(stage, since, 0 + slack["periods"])
    outcome.said = stage.said(again)
    outcome.safe()
    button.publish(Bool(data=False))
    outcome.must(stage.drive(), "does not drive after the release and a new goal")
    outcome.after = "restarted, still stopped; drives after the release and a new goal"
    return outcome


def ended(number: int) -> RUN:
    """A signal that asks the controller to end."""

    def run(stage: Stage) -> Outcome:
        outcome = Outcome("stands within 2 periods, ends with code 0", 2)
        mpc = stage.children["mpc_node"]
        since = time.monotonic()
        mpc.send(number)
        code = mpc.wait()
        outcome.periods = periods_to_safe(stage, since, 3.0)
        outcome.stale = stale_after(stage, since, 2 + slack["periods"])
        outcome.said = stage.said(since)
        outcome.safe()
        outcome.must(code == 0, f"code {code}")
        outcome.must("Traceback" not in mpc.news, "traceback")
        stage.start("mpc_node")
        outcome.must(stage.drive(), "does not drive again")
        outcome.after = f"ended with code {code}, restarted"
        return outcome

    return run


def second_node(stage: Stage) -> Outcome:
    """A second ``mpc_node`` of the same name, with its own wishes."""

    def inject() -> None:
        stage.start("mpc_node", label="second")
        stage.wait(lambda: "second publisher" in stage.last("gate").reason, START_S)

    outcome = goes_on(stage, inject, stage_kill(stage, "second"), seconds=2.0)
    outcome.expected = "the second one is refused and told, the first drives on"
    outcome.must("second publisher" in outcome.said, "not told")
    return outcome


def stage_kill(stage: Stage, label: str) -> Callable[[], None]:
    """End a process that a row started."""

    def end() -> None:
        stage.children.pop(label).kill()

    return end


def pressed_before(stage: Stage) -> Outcome:
    """A latched e-stop is pressed before gate and controller start."""
    outcome = Outcome("not one command moves the robot; after release and a new goal it drives", 0)
    for name in ("mpc_node", "command_gate"):
        stage.children[name].kill()
    (stage.folder / "e_stop").unlink(missing_ok=True)
    button = stage.node.create_publisher(Bool, "e_stop", qos.LATCHED)
    button.publish(Bool(data=True))
    since = time.monotonic()
    stage.start("command_gate")
    stage.start("mpc_node")
    stage.wait(lambda: "E_STOP" in stage.states(since), START_S)
    time.sleep(3.0)
    moved = [v for _, v in stage.commands(since + 0.5) if np.abs(v).max() > 0]
    outcome.periods, outcome.stale = 0.0, len(moved)
    outcome.said = stage.said(since)
    outcome.must("E_STOP" in stage.states(since), "the controller does not know")
    outcome.safe()
    button.publish(Bool(data=False))
    outcome.must(stage.drive(), "does not drive after the release")
    outcome.after = "drives after the release and a new goal"
    return outcome


# ---- a planner that fails ----------------------------------------------------------------------


def planner(word: str, limit: float, wait_s: float = 5.0) -> RUN:
    """The planner does what the word says."""

    def run(stage: Stage) -> Outcome:
        lasting = word in ("raise", "nan")
        return stops(
            stage,
            lambda: stage.fault.write_text(f"{word} on" if lasting else word),
            lambda: stage.fault.write_text(""),
            limit, wait_s, breaks=word == "raise",
        )  # fmt: skip

    return run


def planner_huge(stage: Stage) -> Outcome:
    """The planner's plan is 1e6."""
    outcome = Outcome("clipped to the limits or refused; no limit is broken")
    since = time.monotonic()
    stage.fault.write_text("huge on")
    time.sleep(1.5)
    stage.fault.write_text("")
    commands = [values for _, values in stage.commands(since)]
    outcome.must(commands and np.abs(commands).max() <= 1.8 + 1e-9, "a limit is broken")
    outcome.said = stage.said(since)
    outcome.must(stage.drive(20.0), "does not drive again")
    outcome.after = "drives again"
    return outcome


def dead_thread(stage: Stage) -> Outcome:
    """The control thread ends (SystemExit in the planner)."""
    outcome = stops(
        stage, lambda: stage.fault.write_text("exit"), lambda: None, 2, recovers=False,
        breaks=True,
    )  # fmt: skip
    outcome.expected = "stands within 2 periods; told; drives again or ends for a restart"
    mpc = stage.children["mpc_node"]
    if stage.drive(10.0):
        outcome.after = "drives again"
    else:
        time.sleep(1.0)
        outcome.must(not mpc.alive, "lives on without a control thread")
        outcome.after = f"ended with code {mpc.wait(1.0)}, restarted"
        stage.start("mpc_node")
        outcome.must(stage.drive(), "does not drive after a restart")
    return outcome


def deactivated_while_hung(stage: Stage) -> Outcome:
    """Deactivated while the planner hangs for 3 s."""
    outcome = Outcome("stands within 2 periods, told; the answer comes after rest", 2)
    since = time.monotonic()
    stage.fault.write_text("hang")
    time.sleep(0.3)
    change(stage, Transition.TRANSITION_DEACTIVATE)
    commands = stage.commands(since)
    outcome.must(commands and not commands[-1][1].any(), "the last command is not rest")
    outcome.periods = periods_to_safe(stage, since, 5.0)
    outcome.stale = stale_after(stage, since, 3 + slack["periods"])
    outcome.said = stage.said(since)
    outcome.must(outcome.periods <= 3.5, f"{outcome.periods:.1f} periods to safe")
    time.sleep(3.0)
    change(stage, Transition.TRANSITION_ACTIVATE)
    outcome.must(stage.drive(20.0), "does not drive again")
    outcome.limit, outcome.after = 3, "drives again"
    return outcome


def ended_while_hung(stage: Stage) -> Outcome:
    """SIGTERM while the planner hangs for 3 s."""
    stage.fault.write_text("hang")
    time.sleep(0.2)
    outcome = ended(signal.SIGTERM)(stage)
    stage.fault.write_text("")
    return outcome


def begin_faulty(stage: Stage) -> None:
    """Start the controller with the planner that fails on demand."""
    stage.start("command_gate")
    stage.start("mpc_node", faulty=True)
    again = stage.start

    def start(name: str, **options: object) -> object:
        return again(name, faulty=name == "mpc_node", **options)

    stage.start = start
    assert stage.drive(), "the robot does not drive"


ROWS = [
    Row("SIGSTOP of the controller for 2 s", "process", stopped),
    Row("kill -9 of the controller, restart", "process", killed),
    Row("e-stop, controller killed and restarted", "process", killed_while_pressed),
    Row("SIGTERM to the controller", "process", ended(signal.SIGTERM)),
    Row("SIGINT to the controller", "process", ended(signal.SIGINT)),
    Row("SIGHUP to the controller", "process", ended(signal.SIGHUP)),
    Row("a second mpc_node of the same name", "process", second_node),
    Row("e-stop pressed before the nodes start", "process", pressed_before),
    Row("planner raises", "planner", planner("raise", 2)),
    Row("planner hangs for 3 s", "planner", planner("hang", 2)),
    Row("planner hangs for 3 s with the lock", "planner", planner("hang_with_lock", 2)),
    Row("planner returns NaN", "planner", planner("nan", 2)),
    Row("planner returns 1e6", "planner", planner_huge),
    Row("deactivate while the planner hangs", "planner", deactivated_while_hung),
    Row("SIGTERM while the planner hangs", "planner", ended_while_hung),
    Row("control thread ends", "planner", dead_thread),
]

__all__ = ["ROWS", "begin_faulty"]
