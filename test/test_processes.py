"""Supervised processes: labelled output, forwarded signals, and nothing left behind."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from wm_mpc.bringup.supervisor import Printer, Process, Supervisor, describe

READY = "print('ready', flush=True)\n"
SLEEP = "import time, signal, sys, os\n" + READY + "time.sleep(60)\n"
STUBBORN = (
    "import time, signal\n"
    "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + READY + "time.sleep(60)\n"
)


class Lines:
    """A sink that remembers, and lets a test wait for a line."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        self._changed = threading.Condition()

    def __call__(self, name: str, line: str) -> None:
        with self._changed:
            self.seen.append((name, line))
            self._changed.notify_all()

    def wait_for(self, name: str, start: str) -> str:
        def find() -> str | None:
            return next((t for n, t in self.seen if n == name and t.startswith(start)), None)

        with self._changed:
            assert self._changed.wait_for(lambda: find() is not None, timeout=20), self.seen
            return find() or ""


def python(name: str, code: str, required: bool = True) -> Process:
    return Process(name, (sys.executable, "-S", "-c", code), required)


def gone(pid: int) -> bool:
    """No such process, or one that only waits to be collected."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"


def eventually(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + 10
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def test_output_is_labelled_line_by_line() -> None:
    lines = Lines()
    code = "import sys; print('out'); print('err', file=sys.stderr); print('no end', end='')"
    both = [python("a", code, required=False), python("b", code, required=False)]
    with Supervisor(both, lines) as nodes:
        assert nodes.wait(timeout_s=20) == 0
    for name in "ab":
        assert {"out", "err", "no end"} <= {line for who, line in lines.seen if who == name}


def test_output_that_is_not_text_does_not_stop_the_reader() -> None:
    lines = Lines()
    code = "import sys; sys.stdout.buffer.write(bytes([255, 10])); print('after')"
    with Supervisor([python("a", code)], lines) as nodes:
        nodes.wait()
        lines.wait_for("a", "after")


@pytest.mark.parametrize(("code", "status"), [(3, 3), (0, 1)])
def test_a_required_process_that_ends_ends_all(code: int, status: int) -> None:
    lines = Lines()
    both = [python("a", f"raise SystemExit({code})"), python("b", SLEEP)]
    with Supervisor(both, lines, grace_s=2) as nodes:
        assert nodes.wait(timeout_s=20) == status
        other = nodes.pid("b")
    assert gone(other)
    assert ("a", f"ended with code {code}") in lines.seen


def test_a_process_ended_by_a_signal_gives_the_status_of_a_shell() -> None:
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    with Supervisor([python("a", code)], Lines()) as nodes:
        assert nodes.wait(timeout_s=20) == 128 + 9


def test_a_process_that_is_not_required_may_end() -> None:
    lines = Lines()
    both = [python("main", SLEEP), python("extra", "raise SystemExit(4)", required=False)]
    with Supervisor(both, lines, grace_s=2) as nodes:
        lines.wait_for("main", "ready")
        assert nodes.wait(timeout_s=2) == 0
        assert nodes.poll() == {"main": None, "extra": 4}


def test_stop_ends_grandchildren_too() -> None:
    lines = Lines()
    grandchild = "import signal,time; signal.signal(2, signal.SIG_IGN); time.sleep(60)"
    code = (
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-S', '-c', {grandchild!r}])\n"
        "print('pid', child.pid, flush=True)\ntime.sleep(60)\n"
    )
    with Supervisor([python("a", code)], lines, grace_s=2):
        pid = int(lines.wait_for("a", "pid").split()[1])
        assert not gone(pid)
    assert eventually(lambda: gone(pid))


def test_a_process_that_ignores_signals_is_killed_and_named() -> None:
    lines = Lines()
    both = [python("good", SLEEP), python("bad", STUBBORN)]
    with Supervisor(both, lines, grace_s=0.3) as nodes:
        lines.wait_for("bad", "ready")
        lines.wait_for("good", "ready")
        assert nodes.stop() == ["bad"]
        assert nodes.poll()["bad"] == -signal.SIGKILL
    lines.wait_for("bad", "did not end within")


def test_leaving_by_an_exception_ends_everything() -> None:
    lines = Lines()
    with pytest.raises(RuntimeError, match="ours"):
        with Supervisor([python("a", SLEEP)], lines, grace_s=2) as nodes:
            lines.wait_for("a", "ready")
            pid = nodes.pid("a")
            raise RuntimeError("ours")
    assert gone(pid)


def test_a_program_that_does_not_exist_ends_those_started_before() -> None:
    lines = Lines()
    supervisor = Supervisor([python("a", SLEEP), Process("b", ("/no/such",))], lines, grace_s=2)
    with pytest.raises(OSError, match="no/such"):
        supervisor.__enter__()
    assert gone(supervisor.pid("a"))


def test_a_process_can_be_started_again() -> None:
    lines = Lines()
    spec = python("a", SLEEP)
    with Supervisor([spec], lines, grace_s=2) as nodes:
        lines.wait_for("a", "ready")
        with pytest.raises(ValueError, match="a: already running"):
            nodes.start(spec)
        nodes.send("a", signal.SIGKILL)
        assert nodes.wait(timeout_s=20) == 128 + 9
        first = nodes.pid("a")
        lines.seen.clear()
        nodes.start(spec)
        lines.wait_for("a", "ready")
        assert nodes.pid("a") != first and nodes.poll() == {"a": None}


def test_children_end_when_their_parent_is_killed() -> None:
    inner = (
        "import sys\n"
        "from wm_mpc.bringup.supervisor import Process, Supervisor\n"
        "sleep = Process('x', (sys.executable, '-S', '-c', 'import time; time.sleep(60)'))\n"
        "with Supervisor([sleep]) as nodes:\n"
        "    print('pid', nodes.pid('x'), flush=True)\n"
        "    nodes.wait()\n"
    )
    lines = Lines()
    parent = Process("p", (sys.executable, "-c", inner), env={"PYTHONPATH": _root()})
    with Supervisor([parent], lines) as nodes:
        pid = int(lines.wait_for("p", "pid").split()[1])
        os.kill(nodes.pid("p"), signal.SIGKILL)
        assert eventually(lambda: gone(pid))


def _root() -> str:
    return str(Path(__file__).resolve().parents[1])


def test_request_stop_makes_wait_return() -> None:
    with Supervisor([python("a", SLEEP)], Lines(), grace_s=2) as nodes:
        nodes.request_stop()
        assert nodes.wait(timeout_s=20) == 0


def test_the_environment_of_a_process_is_its_own() -> None:
    lines = Lines()
    code = "import os; print('X is', os.environ['WM_X'], os.environ['PYTHONUNBUFFERED'])"
    spec = Process("a", (sys.executable, "-S", "-c", code), env={"WM_X": "7"})
    with Supervisor([spec], lines) as nodes:
        nodes.wait()
        assert lines.wait_for("a", "X is") == "X is 7 1"
    assert "WM_X" not in os.environ


@pytest.mark.parametrize(
    ("specs", "grace_s", "said"),
    [([("a", "a")], 0, "grace_s: 0; more than 0"), ([("a",), ("a",)], 1, "names must differ")],
)
def test_bad_arguments_are_named(specs: list, grace_s: float, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Supervisor([Process(spec[0], ("true",)) for spec in specs], Lines(), grace_s)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_labels_are_coloured_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    plain, terminal = io.StringIO(), Terminal()
    Printer(plain)("a", "x")
    printer = Printer(terminal)
    printer("a", "x")
    printer("b", "x")
    assert plain.getvalue() == "[a] x\n"
    first, second = terminal.getvalue().splitlines()
    assert "\x1b[" in first and first.replace("[a]", "") != second.replace("[b]", "")
    monkeypatch.setenv("NO_COLOR", "1")
    quiet = Terminal()
    Printer(quiet)("a", "x")
    assert quiet.getvalue() == "[a] x\n"


def test_return_codes_are_told_in_words() -> None:
    assert describe(0) == "with code 0"
    assert describe(-signal.SIGSEGV) == "by SIGSEGV"
    assert describe(-63) == "by signal 63"
