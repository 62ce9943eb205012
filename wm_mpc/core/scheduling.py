"""When and where threads run: cores, real-time priority, and the garbage collector's moments.

Everything here is off unless it is asked for. What the system does not permit is refused in one
line that says what permits it.
"""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Sequence

from wm_mpc.core.errors import UserError

PERMISSION = (
    "not permitted: CAP_SYS_NICE or an rtprio limit needed "
    "(/etc/security/limits.conf, LimitRTPRIO= of a service, --ulimit rtprio= of a container)"
)


def use_cores(cores: Sequence[int]) -> None:
    """Keep every thread of this process, and those it starts from now on, on some cores.

    Args:
        cores: numbers as in ``/proc/cpuinfo``; empty: changes nothing.

    Raises:
        UserError: a core that this process may not use.
    """
    if not cores:
        return
    usable = os.sched_getaffinity(0)
    if not set(cores) <= usable:
        allowed = ", ".join(map(str, sorted(usable)))
        raise UserError(f"cores: {list(cores)}; some of {allowed} expected")
    for thread in os.listdir("/proc/self/task"):
        try:
            os.sched_setaffinity(int(thread), cores)
        except ProcessLookupError:  # it ended meanwhile
            continue


def prefer(nice: int, all_threads: bool = False) -> bool:
    """Set the niceness of the calling thread, or of every thread that runs now, where permitted.

    What is below 0 needs CAP_SYS_NICE or a nice limit (``LimitNICE=`` of a service); a machine
    that does not permit it runs as before. Threads started later inherit it.

    Args:
        nice: -20 (runs before others) to 19 (only when nobody else wants the core).
        all_threads: of the whole process.

    Returns:
        Whether it was permitted.
    """
    threads = map(int, os.listdir("/proc/self/task")) if all_threads else (0,)
    for thread in threads:
        try:
            os.setpriority(os.PRIO_PROCESS, thread, nice)
        except ProcessLookupError:  # it ended meanwhile
            continue
        except OSError:
            return False
    return True


def use_fifo(priority: int) -> None:
    """Run the calling thread first in, first out (``SCHED_FIFO``), before every normal thread.

    Threads and processes that it starts are normal ones again.

    Args:
        priority: 1 (lowest) to 99; 0: changes nothing.

    Raises:
        UserError: not permitted.
    """
    if not priority:
        return
    policy = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
    try:
        os.sched_setscheduler(0, policy, os.sched_param(priority))
    except PermissionError:
        raise UserError(f"fifo_priority: {priority}; {PERMISSION}") from None


def check_fifo(priority: int) -> None:
    """Try ``use_fifo`` in a thread that ends at once.

    Raises:
        UserError: not permitted.
    """
    trouble: list[UserError] = []

    def attempt() -> None:
        try:
            use_fifo(priority)
        except UserError as error:
            trouble.append(error)

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    if trouble:
        raise trouble[0]


class PausedCollector:
    """Python's cyclic garbage collector, run between ticks instead of in them.

    Attributes:
        least_s: [s] a pause shorter than this is left alone.
    """

    least_s = 0.005

    def __init__(self) -> None:
        self._was_enabled = False

    def begin(self) -> None:
        """Keep the collector from starting by itself."""
        self._was_enabled = gc.isenabled()
        gc.disable()

    def pause(self, seconds: float) -> bool:
        """Collect what is due, where there is time for it.

        Args:
            seconds: [s] until the next tick at the latest.

        Returns:
            Whether anything was collected.
        """
        if seconds < self.least_s:
            return False
        # gc.get_count: allocations, then collections of the younger generation, since the last
        counts = zip(gc.get_count(), gc.get_threshold(), strict=True)
        due = [n for n, (count, limit) in enumerate(counts) if limit and count > limit]
        if due:
            gc.collect(max(due))
        return bool(due)

    def end(self) -> None:
        """Let the collector start by itself again, if it did before."""
        if self._was_enabled:
            gc.enable()


__all__ = ["PausedCollector", "check_fifo", "prefer", "use_cores", "use_fifo"]
