"""ROS domains that no other test run on this machine uses at the same time."""

from __future__ import annotations

import fcntl
import itertools
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_counter = itertools.count()


@contextmanager
def reserved_domain() -> Iterator[int]:
    """A domain that no other test run on this machine uses at the same time."""
    for attempt in range(100):
        domain = 1 + (os.getpid() * 7 + next(_counter) + attempt) % 100
        path = Path(tempfile.gettempdir()) / f"wm_mpc_ros_domain_{os.getuid()}_{domain}.lock"
        with path.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield domain
            return
    raise RuntimeError("all ROS domains are in use")
