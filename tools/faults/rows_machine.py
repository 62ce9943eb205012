"""Clocks, disks, memory files, caches and compilers."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from rosgraph_msgs.msg import Clock

from tools.faults.outcome import Outcome, Row, goes_on, stops
from tools.faults.rows_process import stage_kill
from tools.faults.stage import START_S, Stage
from wm_mpc.nodes.common import qos
from wm_mpc.nodes.common.messages import to_stamp

RUN = Callable[[Stage], Outcome]


# ---- simulated time ----------------------------------------------------------------------------


class SimClock:
    """Source of /clock that can stand still, go back and run fast."""

    def __init__(self) -> None:
        self.rate, self.seconds = 1.0, 1000.0
        self.over = threading.Event()

    def now(self) -> float:
        """Simulated time [s]."""
        return self.seconds

    def run(self, stage: Stage) -> None:
        """Publish until the stage closes."""
        out = stage.node.create_publisher(Clock, "/clock", qos.COMMAND)
        before = time.monotonic()
        while not self.over.wait(0.01):
            now = time.monotonic()
            self.seconds += self.rate * (now - before)
            before = now
            out.publish(Clock(clock=to_stamp(self.seconds)))


def clock_stage(folder: Path, domain: int) -> Stage:
    """A stage whose robot lives by a simulated clock."""
    clock = SimClock()
    stage = Stage(folder, domain, clock.now)
    stage.clock, stage.arguments = clock, {"use_sim_time": "true"}
    threading.Thread(target=clock.run, args=(stage,), daemon=True).start()
    close = stage.close

    def end() -> None:
        clock.over.set()
        time.sleep(0.05)
        close()

    stage.close = end
    return stage


def paused(stage: Stage) -> Outcome:
    """The simulated clock stands still; camera and joints go on."""
    outcome = stops(
        stage,
        lambda: setattr(stage.clock, "rate", 0.0),
        lambda: setattr(stage.clock, "rate", 1.0),
        55, 9.0,
    )  # fmt: skip
    outcome.expected = "stands after 5 s of wall time at the latest, drives again"
    return outcome


def back(stage: Stage) -> Outcome:
    """The simulated clock goes back by 10 s."""
    outcome = Outcome("stands or drives on inside its limits; drives within 15 s")
    since = time.monotonic()
    stage.clock.seconds -= 10.0
    outcome.must(stage.wait(lambda: time.monotonic() > since + 1 and stage.driving(), 15.0),
                 "does not drive again")  # fmt: skip
    outcome.after, outcome.said = "drives again", stage.said(since)
    return outcome


def fast(stage: Stage) -> Outcome:
    """Everything runs ten times as fast for 3 s."""
    outcome = Outcome("alive, inside its limits; drives when time is ordinary again")
    since = time.monotonic()
    stage.clock.rate = stage.robot.rate = 10.0
    time.sleep(3.0)
    stage.clock.rate = stage.robot.rate = 1.0
    outcome.said = stage.said(since)
    outcome.must(all(abs(v).max() <= 1.8 + 1e-9 for _, v in stage.commands(since)), "limit")
    outcome.must(stage.drive(20.0), "does not drive again")
    outcome.must(all(child.alive for child in stage.children.values()), "a process ended")
    outcome.after = "drives again"
    return outcome


# ---- disks and caches --------------------------------------------------------------------------


def full_disk(name: str) -> RUN:
    """A node that writes has no room: files of at most 64 KiB."""
    limited = ("sh", "-c", 'ulimit -f 64; exec "$@"', "limited")

    def run(stage: Stage) -> Outcome:
        node = stage.start(name, prefix=limited, env={"TMPDIR": str(stage.folder)})

        def told() -> bool:
            return "disk is full" in node.output.lower() or not node.alive

        stage.wait(told, 60.0)
        # whether it lives on is its own choice; the robot must not notice
        ended = "" if node.alive else f", ended with code {node.wait(1.0)}"
        words = [line for line in node.output.splitlines() if "disk is full" in line.lower()]
        trace = "Traceback" in node.output
        stage.children.pop(name)
        outcome = goes_on(stage, lambda: None, seconds=2.0)
        outcome.expected = "told in one line, the robot drives on"
        outcome.said = (words[0] if words else "")[-160:]
        outcome.must(words, "not told")
        outcome.must(not trace, "traceback")
        outcome.after = f"robot drives on{ended}"
        node.kill()
        return outcome

    return run


def started_with(
    env: dict[str, str], prefix: tuple[str, ...] = (), words: str = "", gate: bool = False
) -> RUN:
    """The controller is started on a machine that lacks something."""

    def run(stage: Stage) -> Outcome:
        outcome = Outcome("starts and drives" + ", told" * bool(words))
        for name in (*(("command_gate",) if gate else ()), "mpc_node"):
            stage.children[name].kill()
            time.sleep(0.6)  # the old one's commands do not count as driving any more
            stage.start(name, label=name, prefix=prefix, env=env)
        outcome.must(stage.drive(), "does not drive")
        output = stage.children["mpc_node"].output
        outcome.must(words in output, f"{words!r} not told")
        outcome.said = next((line for line in output.splitlines() if words and words in line), "")
        outcome.said = outcome.said[-120:]
        outcome.after = "drives"
        return outcome

    return run


def four_builders(stage: Stage) -> Outcome:
    """Four controllers start with an empty cache and build the kernel at the same time."""
    outcome = Outcome("all four start; one library, no leftovers")
    cache = stage.folder / "cache4"
    given, stage.arguments = stage.arguments, {**stage.arguments}
    names = [f"builder{index}" for index in range(4)]
    for name in names:
        stage.arguments["namespace"] = name
        stage.start("mpc_node", label=name, env={"XDG_CACHE_HOME": str(cache)})
    stage.arguments = given

    def services() -> set[str]:
        return {service for service, _ in stage.node.get_service_names_and_types()}

    def present() -> bool:
        return all(f"/{name}/set_goal" in services() for name in names) and any(
            cache.rglob("*.so")
        )

    outcome.must(stage.wait(present, START_S), "not all started")
    time.sleep(10.0)
    outcome.must(all(stage.children[name].alive for name in names), "one ended")
    files = [path.name for path in cache.rglob("*") if path.is_file()]
    strange = [name for name in files if not name.endswith(".so")]
    outcome.must(not strange, f"left over: {strange}")
    outcome.must(
        not any("error" in stage.children[name].output.lower() for name in names), "errors told"
    )
    for name in names:
        stage_kill(stage, name)()
    outcome.must(stage.drive(20.0), "the robot does not drive")
    outcome.after = f"{len(files)} file(s) in the cache"
    return outcome


SMALL_SHM = (
    "unshare", "-m", "sh", "-c",
    'mount -t tmpfs -o size=64k tmpfs /dev/shm && exec "$@"', "small",
)  # fmt: skip


def full_shm(stage: Stage) -> Outcome:
    """Gate and controller find /dev/shm full."""
    if os.geteuid():
        wrong = ["not run: needs root for a /dev/shm of its own"]
        return Outcome("starts and drives, over UDP", wrong=wrong)
    outcome = started_with({}, SMALL_SHM, gate=True)(stage)
    outcome.expected = "starts and drives, over UDP"
    return outcome


ROWS = [
    Row("simulated clock stands still", "clock", paused),
    Row("simulated clock goes back 10 s", "clock", back),
    Row("simulated clock 10 times as fast", "clock", fast),
    Row("disk full for the recorder", "machine", full_disk("recorder_node")),
    Row("disk full for the trainer", "machine", full_disk("trainer_node")),
    Row("cache folder cannot be written", "machine",
        started_with({"XDG_CACHE_HOME": "/proc/none"})),
    Row("no compiler, empty cache", "machine",
        started_with({"PATH": "/none", "CC": "", "XDG_CACHE_HOME": "/tmp/none_at_all"},
                     words="no C compiler")),
    Row("four nodes build the kernel at once", "machine", four_builders),
    Row("/dev/shm full", "machine", full_shm),
]  # fmt: skip

__all__ = ["ROWS", "clock_stage"]
