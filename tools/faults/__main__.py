"""``python -m tools.faults``: run the rows, write the table; exit code 0 when all are green."""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import tempfile
import traceback
from pathlib import Path

from wm_mpc.bringup.ros_env import prepare

prepare()
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")

from tools.faults import runner, table  # noqa: E402
from tools.faults.outcome import DEFAULT_SLACK, slack  # noqa: E402


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the rows of make test")
    parser.add_argument("--only", default="", help="rows or groups whose name has this in it")
    parser.add_argument("--list", action="store_true", help="names of the rows")
    parser.add_argument("--report", type=Path, help="JSON report")
    parser.add_argument("--docs", type=Path, help="page whose table is written anew")
    parser.add_argument("--logs", type=Path, help="folder of logs; default: temporary")
    parser.add_argument("--domain", type=int, default=0, help="first ROS domain; 0: by process")
    parser.add_argument(
        "--slack", type=float, default=DEFAULT_SLACK, help="[periods] beside every limit"
    )
    args = parser.parse_args()
    slack["periods"] = args.slack
    rows = runner.chosen(args.quick, args.only)
    if args.list:
        print("\n".join(f"{row.group}: {row.name}" for row in rows))
        return 0
    if not rows:
        print(f"error: --only: {args.only!r}; part of a row's or a group's name expected")
        return 2
    domains = itertools.cycle(range(1, 100))
    first = args.domain or 1 + os.getpid() % 90
    domains = itertools.islice(domains, first - 1, None)
    with tempfile.TemporaryDirectory() as scratch:
        results = runner.run(rows, args.logs or Path(scratch), domains)
    red = [result for result in results if result.wrong]
    print(f"{len(results) - len(red)} of {len(results)} rows green")
    if args.report:
        table.write_json(args.report, results)
    if args.docs:
        table.write_page(args.docs, results)
    return 1 if red else 0


if __name__ == "__main__":
    try:
        code = main()
    except KeyboardInterrupt:
        code = 130
    except Exception:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    # DDS threads of closed contexts need not be waited for
    os._exit(code)
