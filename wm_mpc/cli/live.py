"""``wm-mpc live``: learn while a simulated robot runs, disturb it, and report on it."""

from __future__ import annotations

import sys
from dataclasses import asdict

from wm_mpc.bringup import ros_env
from wm_mpc.core.errors import UserError
from wm_mpc.core.provenance import write_report
from wm_mpc.trials.live import perform, split_cores, spoiled_model, start_model
from wm_mpc.trials.live_config import Config
from wm_mpc.trials.live_report import format_row, live_page
from wm_mpc.trials.stage import DemoError
from wm_mpc.viz.plots import draw_live
from wm_mpc.viz.report_page import write_page


def run(config: Config) -> int:
    """Run, print the comparison, write the report; 0 when the nodes did their work."""
    if ros_env.rclpy_source() is None:
        raise UserError("rclpy: not found; source a ROS 2 setup file or pip install 'wm-mpc[ros]'")
    if config.out.exists() and any(config.out.iterdir()):
        raise UserError(f"out: {config.out} is not empty")
    config.out.mkdir(parents=True, exist_ok=True)
    ros_env.own_domain()
    cores = split_cores(config.core)
    start = spoiled_model(config)
    try:
        row, first, last = perform(config, start, cores)
    except DemoError as failure:
        print(f"wm-mpc live: error: {failure}", file=sys.stderr)
        print(f"the nodes' output: {config.out / 'nodes.log'}", file=sys.stderr)
        return 1
    print(format_row(row))
    report = config.report or config.out / "live.json"
    write_report(report, config.seed, [row], config=asdict(config))
    draw_live(report.with_suffix(".png"), row)
    write_page(
        report,
        lambda: live_page(row, report.with_suffix(".png"), first, last, start_model(config)),
    )
    return 0
