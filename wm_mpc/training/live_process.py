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

from wm_mpc.budget import Clock, monotonic
from wm_mpc.training.live_worker import Job

RESTART_S = 5.0


class LiveProcess:
    """``live_worker`` in a process of its own.

    Args:
        job: what it does.
        log: file for what it and its libraries print.
        clock: monotonic clock.
    """

    def __init__(self, job: Job, log: Path, clock: Clock = monotonic) -> None:
        self._job, self._log, self._clock = job, log, clock
        self._events: queue.Queue[dict[str, Any]] = queue.Queue()
        self._process: subprocess.Popen[str] | None = None
        self._started = 0.0
        self._failed = False

    @property
    def pid(self) -> int:
        """Process id; 0 before the start."""
        return self._process.pid if self._process is not None else 0

    def start(self) -> None:
        """Start the process."""
        self._log.parent.mkdir(parents=True, exist_ok=True)
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
        threads = str(self._job.threads)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "wm_mpc.training.live_worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": threads},
                # Ctrl-C is for the node, which then ends this process in order.
                start_new_session=True,
            )
        self._started = self._clock()
        self.send_line(self._job.line())
        reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        reader.start()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            try:
                self._events.put(json.loads(line))
            except json.JSONDecodeError:
                continue
        self._events.put({"event": "ended", "code": process.wait()})

    def events(self) -> list[dict[str, Any]]:
        """What it told since the last call; starts it again some seconds after it died.

        A process that failed for good (``failed``) is not started again.
        """
        found = []
        while not self._events.empty():
            found.append(self._events.get())
        self._failed = self._failed or any(e["event"] == "failed" for e in found)
        dead = self._process is not None and self._process.poll() is not None
        if dead and not self._failed and self._clock() - self._started > RESTART_S:
            self.start()
            found.append({"event": "restarted"})
        return found

    def send(self, **word: Any) -> None:
        """Tell it something; lost when it is dead, which its state on disk allows for."""
        self.send_line(json.dumps(word) + "\n")

    def send_line(self, line: str) -> None:
        """Write one line to its stdin."""
        assert self._process is not None and self._process.stdin is not None
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
