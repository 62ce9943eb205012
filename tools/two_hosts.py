"""Two machines on one: network namespaces, joined by a link with delay, jitter and loss.

    python -m tools.two_hosts --delays 0 20 50 100 --jitter 5 --loss 1 --report out.json

The simulator and ``command_gate`` run in the namespace ``robot``, ``mpc_node`` in ``host``, as
``wm-mpc launch TASK_sim part:=robot`` and ``part:=host`` start them on two machines. The link is
two TAP devices and a process between them that holds every frame back and drops some, by the law
of ``tc ... netem delay D J loss L%``: uniform jitter, independent losses. So it needs no
``sch_netem`` in the kernel, but root and ``/dev/net/tun``.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import heapq
import json
import os
import random
import select
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from wm_mpc.core.provenance import write_report
from wm_mpc.core.stats import wilson

ROOT = Path(__file__).resolve().parents[1]
SIDES = {"robot": "10.231.7.1", "host": "10.231.7.2"}
_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
_FRAME = 65536


def obstacle() -> str:
    """Why this machine cannot do it; empty: it can."""
    if os.geteuid() != 0:
        return "not root: network namespaces are not permitted"
    if shutil.which("ip") is None:
        return "no ip command; apt install iproute2"
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "no /dev/net/tun"
    name = f"wm{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode:
        return f"ip netns add: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name], check=False)
    return ""


def _tap(name: str) -> int:
    """Open a TAP device of that name; frames are read from and written to the descriptor."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    request = struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI)
    fcntl.ioctl(device, _TUNSETIFF, request)
    return device


def relay(ends: Sequence[int], commands: int, seed: int = 0) -> None:
    """Carry frames from each end to the other until ``commands`` ends.

    Args:
        ends: two TAP descriptors.
        commands: descriptor of lines ``DELAY_S JITTER_S LOSS``: conditions from now on.
        seed: of jitter and losses.
    """
    draw = random.Random(seed)
    delay_s = jitter_s = loss = 0.0
    waiting: list[tuple[float, int, int, bytes]] = []
    count = 0
    while True:
        pause = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        ready = select.select([*ends, commands], [], [], pause)[0]
        if commands in ready:
            words = os.read(commands, 4096).decode().split()
            if not words:
                return
            delay_s, jitter_s, loss = map(float, words[-3:])
        for index, end in enumerate(ends):
            while end in ready:
                try:
                    frame = os.read(end, _FRAME)
                except BlockingIOError:
                    break
                if draw.random() >= loss:
                    held = max(0.0, delay_s + jitter_s * draw.uniform(-1.0, 1.0))
                    count += 1
                    heapq.heappush(
                        waiting, (time.monotonic() + held, count, ends[1 - index], frame)
                    )
        while waiting and waiting[0][0] <= time.monotonic():
            _, _, target, frame = heapq.heappop(waiting)
            with contextlib.suppress(OSError):  # an interface that is down drops
                os.write(target, frame)


class TwoHosts:
    """The two namespaces and the link; a context manager that leaves nothing behind."""

    def __init__(self) -> None:
        self.names = {side: f"wm{os.getpid()}{side}" for side in SIDES}
        self._children: list[subprocess.Popen] = []
        self._relay: subprocess.Popen | None = None

    def __enter__(self) -> TwoHosts:
        try:
            self._open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> None:
        taps = {side: f"wm{os.getpid() % 100000}{side[0]}" for side in SIDES}
        self._relay = subprocess.Popen(
            [sys.executable, "-m", "tools.two_hosts", "--relay", *taps.values()],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert self._relay.stdout.readline() == "ready\n"
        for side, address in SIDES.items():
            name = self.names[side]
            inside = ["ip", "-n", name]
            for words in (
                ["ip", "netns", "add", name],
                ["ip", "link", "set", taps[side], "netns", name],
                [*inside, "addr", "add", f"{address}/24", "dev", taps[side]],
                [*inside, "link", "set", "lo", "up"],
                [*inside, "link", "set", taps[side], "up", "multicast", "on"],
                [*inside, "route", "add", "224.0.0.0/4", "dev", taps[side]],
            ):
                subprocess.run(words, check=True)

    def condition(self, delay_s: float = 0.0, jitter_s: float = 0.0, loss: float = 0.0) -> float:
        """Set what the link does from now on; returns the instant, monotonic clock [s].

        Args:
            delay_s: [s] one way.
            jitter_s: [s] largest deviation from it.
            loss: share of frames dropped, 0 to 1.
        """
        self._relay.stdin.write(f"{delay_s} {jitter_s} {loss}\n")
        self._relay.stdin.flush()
        return time.monotonic()

    def start(
        self, side: str, command: Sequence[str], log: Path | None = None, **env: str
    ) -> subprocess.Popen:
        """Start a command in the namespace of a side.

        Args:
            side: ``robot`` or ``host``.
            command: program and arguments.
            log: file for its output; None: a pipe of text.
            env: variables to add.
        """
        # Two machines share no memory.
        own = {"ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET", "FASTDDS_BUILTIN_TRANSPORTS": "UDPv4"}
        environment = {**os.environ, **own, "PYTHONPATH": str(ROOT), **env}
        with contextlib.ExitStack() as stack:
            out = subprocess.PIPE if log is None else stack.enter_context(log.open("w"))
            child = subprocess.Popen(
                ["ip", "netns", "exec", self.names[side], *command],
                stdout=out, stderr=None if log is None else subprocess.STDOUT, text=True,
                env=environment, cwd=ROOT, start_new_session=True,
            )  # fmt: skip
        self._children.append(child)
        return child

    def close(self) -> None:
        """End every process, then the link and the namespaces."""
        for number, patience_s in ((signal.SIGINT, 10.0), (signal.SIGKILL, 5.0)):
            for child in self._children:
                if child.poll() is None:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(child.pid, number)
            end = time.monotonic() + patience_s
            while time.monotonic() < end and any(c.poll() is None for c in self._children):
                time.sleep(0.05)
        if self._relay is not None:
            self._relay.stdin.close()
            self._relay.wait(5)
        for name in self.names.values():
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def observe() -> None:
    """Print what the gate and the simulator say as lines of JSON, until the process is ended."""
    from wm_mpc.bringup.ros_env import prepare

    prepare()
    import rclpy

    from wm_mpc.msg import GateStatus, TaskState
    from wm_mpc.nodes.common import qos

    def tell(kind: str, **facts: Any) -> None:
        print(json.dumps({"kind": kind, "at": time.monotonic(), **facts}), flush=True)

    def on_gate(message: Any) -> None:
        tell(
            "gate", state=message.state, reason=message.reason, passed=message.passed,
            age_s=message.request_age_s, command=list(message.command),
        )  # fmt: skip

    def on_state(message: Any) -> None:
        tell("task", episode=message.episode, step=message.step, success=message.success)

    rclpy.init()
    node = rclpy.create_node("two_hosts")
    node.create_subscription(GateStatus, "gate_status", on_gate, qos.EVENT)
    node.create_subscription(TaskState, "task_state", on_state, qos.EVENT)
    # the signal that ends it may also catch rclpy at its wait
    ends = (KeyboardInterrupt, RuntimeError, rclpy.executors.ExternalShutdownException)
    with contextlib.suppress(*ends):
        rclpy.spin(node)


class Observed:
    """Lines of ``observe``, read as they come."""

    def __init__(self, child: subprocess.Popen) -> None:
        self.child = child
        os.set_blocking(child.stdout.fileno(), False)
        self._rest = b""

    def read(self, timeout_s: float) -> Iterator[dict[str, Any]]:
        """Facts that come within some seconds."""
        end = time.monotonic() + timeout_s
        source = self.child.stdout.fileno()
        while (left := end - time.monotonic()) > 0:
            if not select.select([source], [], [], left)[0]:
                return
            chunk = os.read(source, _FRAME)
            if not chunk:
                raise RuntimeError("the observer ended")
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            for line in lines:
                yield json.loads(line)


def start_both(hosts: TwoHosts, task: str, folder: Path, *words: str) -> Observed:
    """Start both parts of a simulated task and the observer beside the robot."""
    launch = [sys.executable, "-m", "wm_mpc.cli", "launch", f"{task}_sim", *words]
    for side in ("robot", "host"):
        hosts.start(side, [*launch, f"part:={side}"], folder / f"{side}.log")
    observer = [sys.executable, "-m", "tools.two_hosts", "--observe"]
    return Observed(hosts.start("robot", observer))


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Success of the task at every delay; a row each."""
    rows = []
    options.out.mkdir(parents=True, exist_ok=True)
    for delay_ms in options.delays:
        with TwoHosts() as hosts:
            hosts.condition(1e-3 * delay_ms, 1e-3 * options.jitter, 0.01 * options.loss)
            observed = start_both(hosts, options.task, options.out, f"seed:={options.seed}")
            successes, passed = {}, 0
            end = time.monotonic() + options.timeout
            first = None
            while time.monotonic() < end:
                for fact in observed.read(1.0):
                    if fact["kind"] == "gate":
                        passed = max(passed, fact["passed"])
                    elif passed:  # what ran before the controller came does not count
                        first = fact["episode"] + 1 if first is None else first
                        if first <= fact["episode"]:
                            known = successes.get(fact["episode"], False)
                            successes[fact["episode"]] = known or fact["success"]
                if first is not None and max(successes, default=0) >= first + options.episodes:
                    break
            done = [successes[e] for e in sorted(successes)][: options.episodes]
            if max(successes, default=0) < (first or 0) + options.episodes:
                done = done[:-1]  # the last one had not ended
        interval = list(wilson(sum(done), len(done))) if done else None
        row = {
            "task": options.task, "delay_ms": delay_ms, "jitter_ms": options.jitter,
            "loss_percent": options.loss, "n": len(done), "success_rate":
            sum(done) / len(done) if done else None, "success_ci95": interval,
        }  # fmt: skip
        print(row, flush=True)
        rows.append(row)
    return rows


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="wall")
    parser.add_argument("--delays", type=float, nargs="+", default=[0, 20, 50, 100], help="[ms]")
    parser.add_argument("--jitter", type=float, default=5.0, help="[ms]")
    parser.add_argument("--loss", type=float, default=1.0, help="[%%]")
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timeout", type=float, default=900.0, help="[s] per delay")
    parser.add_argument("--out", type=Path, default=Path("out/two_hosts"))
    parser.add_argument("--report", type=Path)
    parser.add_argument("--relay", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--observe", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.relay:
        ends = [_tap(name) for name in options.relay]
        print("ready", flush=True)
        relay(ends, sys.stdin.fileno())
        return 0
    if options.observe:
        observe()
        return 0
    trouble = obstacle()
    if trouble:
        print(f"two_hosts: {trouble}", file=sys.stderr)
        return 2
    rows = measure(options)
    if options.report is not None:
        write_report(options.report, options.seed, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
