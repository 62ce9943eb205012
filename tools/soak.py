"""Soak: memory, threads, descriptors and misses over many ticks or much time.

``python tools/soak.py ticks --count 100000`` runs the bundled Wall model through controller and
filter in this process, one tick after the other. ``python tools/soak.py real --minutes 20
--load-minute 10`` starts what ``wm-mpc launch wall_sim`` starts and watches it, with every core
kept busy for one minute on the way.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

PAGE = os.sysconf("SC_PAGE_SIZE")
WARM = 0.2
"""Share of the samples before what counts: caches fill, workers start."""


def usage(pid: int) -> dict[str, float]:
    """Resident memory [MB], threads and descriptors of a process."""
    proc = Path(f"/proc/{pid}")
    resident = int((proc / "statm").read_text().split()[1]) * PAGE / 1e6
    threads = len(list((proc / "task").iterdir()))
    return {"rss_mb": resident, "threads": threads, "fds": len(list((proc / "fd").iterdir()))}


def growth(samples: list[dict[str, float]], scale: float) -> dict[str, Any]:
    """What grew after the warm-up.

    Args:
        samples: of ``usage``, evenly spaced.
        scale: samples to which the slope of memory is told.
    """
    kept = samples[int(WARM * len(samples)) :]
    rss = np.array([sample["rss_mb"] for sample in kept])
    slope = float(np.polyfit(np.arange(len(rss)), rss, 1)[0]) if len(rss) > 2 else 0.0
    found: dict[str, Any] = {"rss_mb": [float(rss[0]), float(rss[-1])], "slope_mb": slope * scale}
    for name in ("threads", "fds"):
        found[name] = [int(kept[0][name]), int(kept[-1][name])]
    return found


# ---- ticks in this process ---------------------------------------------------------------------


def run_ticks(count: int, iterations: int) -> dict[str, Any]:
    """Ticks of the Wall model, without waiting for the control period in between."""
    import torch

    from sim_bridge.tasks import make_task
    from wm_mpc.control.controller import Controller, ControllerConfig
    from wm_mpc.control.engine import Engine, EngineConfig
    from wm_mpc.control.safety import CommandFilter, SafetyLimits
    from wm_mpc.core.locations import ASSETS
    from wm_mpc.models.world_model import WorldModel
    from wm_mpc.planners.objective import ObjectiveConfig
    from wm_mpc.planners.registry import planner_config

    torch.set_num_threads(1)
    env = make_task("wall", image_size=96)
    model = WorldModel.load(ASSETS / "wall")
    settings = EngineConfig(control_rate_hz=1 / model.config.control_period)
    options = planner_config(settings.planner, iterations=iterations)
    engine = Engine.build(model, settings, ObjectiveConfig(), options)
    limits = SafetyLimits(rate_limit=(36.0,))
    controller = Controller(engine, ControllerConfig(), limits)
    period, now = model.config.control_period, 0.0
    interface = model.config
    command_filter = CommandFilter(
        limits, interface.action_low, interface.action_high, period, lambda: now
    )
    samples, reasons, began = [], 0, time.monotonic()
    for tick in range(count):
        if tick % 40 == 0:
            observation, _ = env.reset(seed=tick // 40)
            goal = env.goal_state
            controller.set_goal(env.render_state(goal), env.proprio(goal))
        now += period
        controller.observe(observation["image"], observation["proprio"], now)
        result = controller.tick(now)
        safe = command_filter.step(
            result.command, result.image_age_s, result.plan_age_s, result.reason
        )
        reasons += bool(result.reason)
        observation = env.step(safe.values.astype(np.float32))[0]
        if tick % max(1, count // 100) == 0:
            gc.collect()
            samples.append(usage(os.getpid()))
            if len(samples) % 10 == 1:
                print(f"{tick} of {count} ticks, {samples[-1]['rss_mb']:.1f} MB", flush=True)
    return {
        "ticks": count,
        "seconds": time.monotonic() - began,
        "ticks_with_a_reason": reasons,
        **growth(samples, len(samples)),
    }


# ---- real time ---------------------------------------------------------------------------------


def _burn(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def run_real(minutes: float, load_minute: float, load_s: float) -> dict[str, Any]:
    """The nodes of ``wall_sim`` in real time, with every core busy for a while."""
    from wm_mpc.bringup.ros_env import prepare

    prepare()
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    import rclpy

    from wm_mpc.bringup.start import processes
    from wm_mpc.bringup.supervisor import Supervisor
    from wm_mpc.msg import GateStatus, PlannerStatus, TaskState
    from wm_mpc.nodes.common import qos

    statuses: list[tuple[float, Any]] = []
    gates: list[Any] = []
    success: dict[int, bool] = {}
    rclpy.init()
    node = rclpy.create_node("soak")
    node.create_subscription(
        PlannerStatus, "status", lambda m: statuses.append((time.monotonic(), m)), qos.EVENT
    )
    node.create_subscription(GateStatus, "gate_status", gates.append, qos.EVENT)
    node.create_subscription(
        TaskState, "task_state",
        lambda m: success.__setitem__(m.episode, success.get(m.episode, False) or m.success),
        qos.EVENT,
    )  # fmt: skip
    loads: list[Any] = []
    samples: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryFile("w") as log:
        sink = lambda name, line: log.write(f"[{name}] {line}\n")  # noqa: E731
        children = processes("wall_sim", {"seed": "0"})
        with Supervisor(children, sink) as nodes:
            while not (statuses and statuses[-1][1].ticks > 20):
                rclpy.spin_once(node, timeout_sec=0.2)
            began, next_sample, load_at = time.monotonic(), 0.0, load_minute * 60
            while (passed := time.monotonic() - began) < minutes * 60:
                rclpy.spin_once(node, timeout_sec=0.2)
                if passed >= next_sample:
                    next_sample += 5.0
                    for child in children:
                        samples.setdefault(child.name, []).append(usage(nodes.pid(child.name)))
                if load_s and not loads and passed >= load_at:
                    for _ in range(os.cpu_count() or 1):
                        loads.append(multiprocessing.Process(target=_burn, args=(load_s,)))
                        loads[-1].start()
            alive = [name for name, code in nodes.poll().items() if code is None]
    node.destroy_node()
    rclpy.try_shutdown()

    def misses(low: float, high: float) -> dict[str, float]:
        part = [m for w, m in statuses if low <= w - began < high and m.state == m.RUNNING]
        missed = sum(message.deadline_missed for message in part)
        return {"ticks": len(part), "missed": missed, "share": missed / max(1, len(part))}

    return {
        "minutes": minutes,
        "alive": alive,
        "episodes": len(success),
        "success": sum(success.values()),
        "misses_before_load": misses(0, load_at),
        "misses_during_load": misses(load_at, load_at + load_s),
        "misses_after_load": misses(load_at + load_s + 1.0, minutes * 60),
        "gate_stops": gates[-1].stops if gates else None,
        "gate_latency_p99_ms": gates[-1].latency_p99_ms if gates else None,
        "usage": {name: growth(found, 12.0 * 60) for name, found in samples.items()},
    }


def main() -> int:
    """Run one of the two and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=("ticks", "real"))
    parser.add_argument("--count", type=int, default=100_000, help="ticks")
    parser.add_argument("--iterations", type=int, default=4, help="planner iterations per tick")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--load-minute", type=float, default=10.0, help="when the load begins")
    parser.add_argument("--load-seconds", type=float, default=60.0, help="0: no load")
    parser.add_argument("--report", type=Path, help="JSON report")
    args = parser.parse_args()
    if args.kind == "ticks":
        row = run_ticks(args.count, args.iterations)
    else:
        row = run_real(args.minutes, args.load_minute, args.load_seconds)
    for name, value in row.items():
        print(f"{name}: {value}")
    if args.report:
        from wm_mpc.core.provenance import write_report

        write_report(args.report, None, [row], load_average=os.getloadavg()[0])
    return 0


if __name__ == "__main__":
    sys.exit(main())
