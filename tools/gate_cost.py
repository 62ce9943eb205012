"""What the gate costs: time from a request to its command, memory, processor.

``python tools/gate_cost.py --rate 10 --seconds 60``: starts ``command_gate`` as every bringup does
and sends it requests over DDS (``wm_mpc.trials.gate_delay``, which says what each time is).
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from wm_mpc.bringup.ros_env import own_domain  # noqa: E402

own_domain()

from wm_mpc.core.provenance import write_report  # noqa: E402
from wm_mpc.trials.gate_delay import running_gate  # noqa: E402

TICK = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """Processor time of a process [s]."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def rss_mb(pid: int) -> float:
    """Resident memory of a process [MB]."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rate", type=float, default=10.0, help="[Hz] requests")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--report", type=Path, help="JSON report")
    args = parser.parse_args()
    with running_gate() as (pid, asker):
        time.sleep(2.0)
        before, began = cpu_s(pid), time.monotonic()
        row = asker.ask(args.seconds, args.rate)
        row["cpu_percent"] = 100 * (cpu_s(pid) - before) / (time.monotonic() - began)
        row["rss_mb"] = rss_mb(pid)
    row |= {"rate_hz": args.rate, "seconds": args.seconds, "load_average": os.getloadavg()[0]}
    for name, value in row.items():
        print(f"{name}: {value}")
    if args.report:
        write_report(args.report, None, [row])
    return 0


if __name__ == "__main__":
    sys.exit(main())
