"""What the gate must know again after it was killed: that the emergency stop is pressed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from wm_mpc.core.errors import one_line
from wm_mpc.core.files import write_atomically


class StopMemory:
    """A file that exists while the emergency stop is pressed.

    Args:
        path: the file; its folder is created.
        complain: told in one line what does not work; the gate goes on without a memory.
    """

    def __init__(self, path: Path, complain: Callable[[str], object]) -> None:
        self.path = path
        self.complain = complain
        self.pressed = self._exists()
        self._lock = threading.Lock()

    def _exists(self) -> bool:
        try:
            return self.path.exists()
        except OSError as error:
            self.complain(f"e_stop_file: {self.path}: {one_line(error)}; taken as pressed")
            return True

    def write(self, pressed: bool) -> None:
        """Remember, in a thread of its own: a disk that hangs must not stop the gate."""
        if pressed != self.pressed:
            self.pressed = pressed
            threading.Thread(target=self._write, name="e_stop_file", daemon=True).start()

    def _write(self) -> None:
        with self._lock:  # the newest word wins, whichever thread comes last
            try:
                if self.pressed:
                    self.path.parent.mkdir(parents=True, exist_ok=True)
                    write_atomically(self.path, b"pressed\n")
                else:
                    self.path.unlink(missing_ok=True)
            except (OSError, ValueError) as error:
                self.complain(
                    f"e_stop_file: {self.path}: {one_line(error)}; a restart will not remember"
                )


__all__ = ["StopMemory"]
