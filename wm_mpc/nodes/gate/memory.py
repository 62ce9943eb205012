"""What the gate must know again after it was killed: that the emergency stop is pressed."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from wm_mpc.core.errors import one_line


class StopMemory:
    """A file that exists while the emergency stop is pressed; it tells by whom and since when.

    Args:
        path: the file; its folder is created.
        complain: told in one line what does not work; the gate goes on without a memory.

    Attributes:
        held: publisher id -> time at which it said so [ns]. A file that cannot be read counts as
            pressed by somebody who is gone.
    """

    def __init__(self, path: Path, complain: Callable[[str], object]) -> None:
        self.path = path
        self.complain = complain
        self.held = self._read()
        self._lock = threading.Lock()

    def _read(self) -> dict[bytes, int]:
        try:
            told = json.loads(self.path.read_text())
            return {bytes.fromhex(sender): int(sent) for sender, sent in told.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError, TypeError) as error:
            self.complain(f"e_stop_file: {self.path}: {one_line(error)}; taken as pressed")
            return {b"unknown": time.time_ns()}

    def write(self, held: Mapping[bytes, int]) -> None:
        """Remember, in a thread of its own: a disk that hangs must not stop the gate."""
        if held != self.held:
            self.held = dict(held)
            threading.Thread(target=self._write, name="e_stop_file", daemon=True).start()

    def _write(self) -> None:
        # Only when it is needed: what writes files safely is a twentieth of this process.
        from wm_mpc.core.files import write_atomically

        with self._lock:  # the newest word wins, whichever thread comes last
            held = self.held
            try:
                if held:
                    self.path.parent.mkdir(parents=True, exist_ok=True)
                    words = {sender.hex(): sent for sender, sent in held.items()}
                    write_atomically(self.path, json.dumps(words))
                else:
                    self.path.unlink(missing_ok=True)
            except (OSError, ValueError) as error:
                self.complain(
                    f"e_stop_file: {self.path}: {one_line(error)}; a restart will not remember"
                )


__all__ = ["StopMemory"]
