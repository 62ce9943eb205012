"""The watcher of the control thread: a light thread of its own that says rest in its place."""

from __future__ import annotations

import threading
from collections.abc import Callable

from wm_mpc.core.errors import one_line


class Watcher:
    """Looks after something again and again, from ``start`` to ``stop``.

    Args:
        look: called every ``every_s``; must return soon.
        every_s: [s] between two looks.
        on_error: told when ``look`` raises, one line.
    """

    def __init__(
        self,
        look: Callable[[], object],
        every_s: float,
        on_error: Callable[[str, str], None],
    ) -> None:
        self._look = look
        self._every_s = every_s
        self._on_error = on_error
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self, timeout_s: float = 1.0) -> None:
        """Look no more."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._stopping.wait(self._every_s):
            try:
                self._look()
            except Exception as error:  # who watches must not end
                self._on_error("watcher", f"watcher: {one_line(error)}")


__all__ = ["Watcher"]
