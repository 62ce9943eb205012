"""Handle of the training process: starts it, hears it, starts it again when it dies."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from wm_mpc.core.clock import Clock, monotonic
from wm_mpc.core.errors import one_line
from wm_mpc.core.locations import IMPORT_ROOT
from wm_mpc.training.live.worker import Job

RESTART_S, MAX_RESTART_S = 5.0, 300.0
"""[s] between a death and the next start; it doubles with every further death."""

DEATHS = 5
"""After so many deaths without a finished round it is not started again."""

ROUNDS = ("offer", "refused", "taken_back")
"""Events that tell of a finished round."""


class LiveProcess:
    """``live_worker`` in a process of its own.

    Args:
        job: what it does.
        log: file for what it and its libraries print.
        clock: monotonic clock.

    Attributes:
        deaths: since the last finished round.
    """

    def __init__(self, job: Job, log: Path, clock: Clock = monotonic) -> None:
        self._job, self._log, self._clock = job, log, clock
        self._events: queue.Queue[dict[str, Any]] = queue.Queue()
        self._process: subprocess.Popen[str] | None = None
        self._restart_at: float | None = None
        self._failed = False
        self.deaths = 0

    @property
    def pid(self) -> int:
        """Process id; 0 before the start."""
        return self._process.pid if self._process is not None else 0

    def start(self) -> None:
        """Start the process; one that cannot be started counts as dead."""
        try:
            self._process = process = self._spawn()
        except OSError as error:
            self._events.put({"event": "ended", "code": -1, "reason": one_line(error)})
            return
        self.send_line(self._job.line())
        threading.Thread(target=self._read, args=(process,), daemon=True).start()

    def _spawn(self) -> subprocess.Popen[str]:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        path = os.pathsep.join(filter(None, [str(IMPORT_ROOT), os.environ.get("PYTHONPATH", "")]))
        threads = str(self._job.threads)
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "wm_mpc.training.live.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": threads},
                # Ctrl-C is for the node, which then ends this process in order.
                start_new_session=True,
            )

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            try:
                self._events.put(json.loads(line))
            except json.JSONDecodeError:
                continue
        self._events.put({"event": "ended", "code": process.wait()})

    def events(self) -> list[dict[str, Any]]:
        """What it told since the last call; starts it again some time after it died.

        A process that failed for good (``failed``) is not started again. One that dies again and
        again without finishing a round fails for good, too: then the reason tells the last line
        that it printed.
        """
        found = []
        while not self._events.empty():
            event = self._events.get()
            found.append(event)
            if event["event"] == "failed":
                self._failed = True
            elif event["event"] in ROUNDS:
                self.deaths = 0
            elif event["event"] == "ended":
                wait = min(RESTART_S * 2**self.deaths, MAX_RESTART_S)
                self.deaths += 1
                self._restart_at = self._clock() + wait
        if self._failed or self._restart_at is None:
            return found
        if self.deaths >= DEATHS:
            self._failed = True
            reason = f"ended {self.deaths} times without finishing a round: {self._last_line()}"
            found.append({"event": "failed", "reason": reason})
        elif self._clock() >= self._restart_at:
            self._restart_at = None
            self.start()
            found.append({"event": "restarted", "deaths": self.deaths})
        return found

    def _last_line(self) -> str:
        """What it printed last."""
        try:
            with self._log.open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - 4096))
                lines = log.read().decode(errors="replace").split("\n")
        except OSError as error:
            return one_line(error)
        return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")

    def send(self, **word: Any) -> None:
        """Tell it something; lost when it is dead, which its state on disk allows for."""
        self.send_line(json.dumps(word) + "\n")

    def send_line(self, line: str) -> None:
        """Write one line to its stdin."""
        if self._process is None or self._process.stdin is None:
            return
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
        except (BrokenPipeError, OSError):
            pass

    def stop(self, timeout_s: float = 3.0) -> None:
        """End it: it ends by itself when its stdin closes."""
        if self._process is None:
            return
        process, self._process = self._process, None
        if process.stdin is not None:
            try:
                process.stdin.close()
            except OSError:
                pass
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


__all__ = ["LiveProcess"]
