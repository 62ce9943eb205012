"""What the gate costs: time from a request to its command, memory, processor.

``python tools/gate_cost.py --rate 10 --seconds 60``: starts ``command_gate`` as every bringup does
and sends it requests over DDS. Latency is told twice: inside the gate, from the arrival of a
request to the departure of its command (``gate_status.latency_p99_ms``), and outside, as the
difference between the way through the gate and one hop of DDS, both from this process to itself.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from wm_mpc.bringup.ros_env import prepare  # noqa: E402

prepare()
os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")

import rclpy  # noqa: E402
from std_msgs.msg import Float64MultiArray  # noqa: E402

from wm_mpc.bringup.start import processes  # noqa: E402
from wm_mpc.bringup.supervisor import Supervisor  # noqa: E402
from wm_mpc.core.provenance import write_report  # noqa: E402
from wm_mpc.msg import GateStatus  # noqa: E402
from wm_mpc.nodes.common import qos  # noqa: E402

TICK = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """Processor time of a process [s]."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def rss_mb(pid: int) -> float:
    """Resident memory of a process [MB]."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def ask(node: Any, seconds: float, rate: float) -> dict[str, Any]:
    """Send requests; returns the delays of each [ms]: directly and through the gate."""
    sent: dict[float, float] = {}
    direct: dict[float, float] = {}
    through: dict[float, float] = {}
    statuses: list[Any] = []
    node.create_subscription(
        Float64MultiArray, "command_request",
        lambda m: direct.setdefault(m.data[0], time.perf_counter()), qos.COMMAND,
    )  # fmt: skip
    node.create_subscription(
        Float64MultiArray, "command",
        lambda m: through.setdefault(m.data[0], time.perf_counter()), qos.COMMAND,
    )  # fmt: skip
    node.create_subscription(GateStatus, "gate_status", statuses.append, qos.EVENT)
    out = node.create_publisher(Float64MultiArray, "command_request", qos.COMMAND)
    end, due, count = time.monotonic() + 3.0 + seconds, time.monotonic(), 0
    while time.monotonic() < end:
        count += 1
        value = 1e-7 * count
        sent[value] = time.perf_counter()
        out.publish(Float64MultiArray(data=[value, 0.1]))
        due += 1 / rate
        time.sleep(max(0.0, due - time.monotonic()))
    warm = [value for value in sorted(sent)[int(3 * rate) :] if value in direct]
    kept = [value for value in warm if value in through]
    hop = np.array([direct[value] - sent[value] for value in kept]) * 1e3
    way = np.array([through[value] - sent[value] for value in kept]) * 1e3
    return {
        "requests": len(warm),
        "passed": len(kept),
        "inside_p99_ms": statuses[-1].latency_p99_ms,
        "hop_ms": [float(v) for v in np.percentile(hop, [50, 99])],
        "through_ms": [float(v) for v in np.percentile(way, [50, 99])],
        "extra_ms": [float(v) for v in np.percentile(way - hop, [50, 99])],
    }


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rate", type=float, default=10.0, help="[Hz] requests")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--report", type=Path, help="JSON report")
    args = parser.parse_args()
    (gate,) = [p for p in processes("wall_sim", {}) if p.name == "command_gate"]
    rclpy.init()
    node = rclpy.create_node("asker")
    spinning = threading.Thread(target=rclpy.spin, args=(node,), daemon=True)
    with tempfile.TemporaryFile("w") as log:
        with Supervisor([gate], lambda name, line: log.write(f"{line}\n")) as nodes:
            pid = nodes.pid("command_gate")
            time.sleep(2.0)
            spinning.start()
            before, began = cpu_s(pid), time.monotonic()
            row = ask(node, args.seconds, args.rate)
            row["cpu_percent"] = 100 * (cpu_s(pid) - before) / (time.monotonic() - began)
            row["rss_mb"] = rss_mb(pid)
    row |= {"rate_hz": args.rate, "seconds": args.seconds, "load_average": os.getloadavg()[0]}
    for name, value in row.items():
        print(f"{name}: {value}")
    if args.report:
        write_report(args.report, None, [row])
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)
