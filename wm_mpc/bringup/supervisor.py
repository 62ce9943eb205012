"""Child processes that end together: labelled output, forwarded signals, nothing left behind."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import IO, TextIO

_COLOURS = (36, 33, 35, 32, 34, 31)
_PR_SET_PDEATHSIG = 1
# looked up here: between fork and exec little more than a plain call is safe
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None
_POLL_S = 0.05

Sink = Callable[[str, str], None]
"""Receives (process name, one line of its output without the line end), from several threads."""


@dataclass(frozen=True)
class Process:
    """A process to start.

    Attributes:
        name: label of its output.
        command: program and arguments.
        required: when it ends, everything ends.
        env: variables that replace or join the inherited ones.
    """

    name: str
    command: tuple[str, ...]
    required: bool = True
    env: Mapping[str, str] = field(default_factory=dict)


class Printer:
    """A sink that writes ``[name] line``, coloured on a terminal unless NO_COLOR is set."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stdout if stream is None else stream
        self._colour = self._stream.isatty() and "NO_COLOR" not in os.environ
        self._names: list[str] = []
        self._lock = threading.Lock()

    def __call__(self, name: str, line: str) -> None:
        """Write one line; lines of different processes never mix."""
        with self._lock:
            if name not in self._names:
                self._names.append(name)
            label = f"[{name}]"
            if self._colour:
                code = _COLOURS[self._names.index(name) % len(_COLOURS)]
                label = f"\x1b[{code}m{label}\x1b[0m"
            self._stream.write(f"{label} {line}\n")
            self._stream.flush()


class Supervisor:
    """Starts processes, each in a process group of its own, and ends all of them.

    Use as a context manager; leaving it ends every process, whatever happened inside::

        with Supervisor(processes, Printer()) as nodes:
            code = nodes.wait()

    Args:
        processes: in start order.
        sink: receives every line of output.
        grace_s: [s] that a process is given after SIGINT before SIGTERM, and after SIGTERM before
            SIGKILL.
    """

    def __init__(
        self, processes: Iterable[Process], sink: Sink | None = None, grace_s: float = 5.0
    ) -> None:
        if not grace_s > 0:
            raise ValueError(f"grace_s: {grace_s}; more than 0 expected")
        self._specs = list(processes)
        names = [spec.name for spec in self._specs]
        if len(set(names)) != len(names):
            raise ValueError(f"processes: {names}; names must differ")
        self._sink: Sink = Printer() if sink is None else sink
        self._grace_s = grace_s
        self._children: dict[str, subprocess.Popen[str]] = {}
        self._readers: list[threading.Thread] = []
        self._announced: set[str] = set()
        self._stop_requested = threading.Event()
        self._killed: list[str] = []

    def __enter__(self) -> Supervisor:
        """Start every process; when one cannot be started, end those that were."""
        try:
            for spec in self._specs:
                self.start(spec)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End every process."""
        self.stop()

    def start(self, spec: Process) -> None:
        """Start a process, or start it again after it ended.

        On Linux it also ends when the calling thread ends: call it from one that lives on.

        Raises:
            ValueError: a process of that name is running.
            OSError: the program cannot be started.
        """
        running = self._children.get(spec.name)
        if running is not None and running.poll() is None:
            raise ValueError(f"{spec.name}: already running as process {running.pid}")
        child = subprocess.Popen(
            spec.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            bufsize=1,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **spec.env},
            start_new_session=True,
            preexec_fn=_end_with_parent if _prctl else None,
        )
        if spec.name not in [known.name for known in self._specs]:
            self._specs.append(spec)
        self._announced.discard(spec.name)
        self._children[spec.name] = child
        reader = threading.Thread(target=self._read, args=(spec.name, child.stdout), daemon=True)
        reader.start()
        self._readers.append(reader)

    def _read(self, name: str, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                self._sink(name, line.rstrip("\r\n"))

    def pid(self, name: str) -> int:
        """Process id of a started process."""
        return self._children[name].pid

    def poll(self) -> dict[str, int | None]:
        """Return codes by name, None while running; negative: ended by that signal."""
        return {name: child.poll() for name, child in self._children.items()}

    def send(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a process and everything in its group; a no-op when it has ended."""
        _signal_group(self._children[name].pid, number)

    def request_stop(self) -> None:
        """Make :meth:`wait` return; safe to call from a signal handler or another thread."""
        self._stop_requested.set()

    def wait(self, timeout_s: float | None = None) -> int:
        """Wait until a required process ends, all end, a stop is requested, or the time is up.

        Returns:
            0 after a requested stop, a timeout, or when only processes that are not required were
            started and all returned 0; otherwise the return code of the process that ended
            everything (128 + n for signal n, 1 for an unexpected 0).
        """
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._stop_requested.wait(_POLL_S):
            codes = self.poll()
            for spec in self._specs:
                code = codes.get(spec.name)
                if code is None or spec.name in self._announced:
                    continue
                self._announced.add(spec.name)
                self._sink(spec.name, f"ended {describe(code)}")
                if spec.required:
                    return _exit_status(code) or 1
            if all(code is not None for code in codes.values()):
                return next((_exit_status(code) for code in codes.values() if code), 0)
            if end is not None and time.monotonic() >= end:
                return 0
        return 0

    def stop(self, first: signal.Signals = signal.SIGINT) -> list[str]:
        """End every process: ``first``, then SIGTERM, then SIGKILL to whole groups.

        Returns:
            Names of the processes that had to be killed.
        """
        for number in (first, signal.SIGTERM):
            for name, child in self._children.items():
                if child.poll() is None:
                    self.send(name, number)
            if self._all_ended(self._grace_s):
                break
        for name, child in self._children.items():
            if child.poll() is None:
                self._killed.append(name)
                self._sink(name, f"did not end within {2 * self._grace_s:g} s: killed")
            # also what a process left behind in its group
            self.send(name, signal.SIGKILL)
            child.wait()
        for reader in self._readers:
            reader.join(timeout=1.0)
        return list(self._killed)

    def _all_ended(self, timeout_s: float) -> bool:
        end = time.monotonic() + timeout_s
        while any(child.poll() is None for child in self._children.values()):
            if time.monotonic() >= end:
                return False
            time.sleep(_POLL_S)
        return True


def describe(code: int) -> str:
    """Say what a return code means.

    >>> describe(3), describe(-9)
    ('with code 3', 'by SIGKILL')
    """
    if code >= 0:
        return f"with code {code}"
    try:
        return f"by {signal.Signals(-code).name}"
    except ValueError:
        return f"by signal {-code}"


def _exit_status(code: int) -> int:
    return 128 - code if code < 0 else code


def _signal_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        pass


def _end_with_parent() -> None:
    """Have the kernel end this process when its parent is killed: no robot stays driven."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
