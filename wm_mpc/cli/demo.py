"""``wm-mpc demo``: simulated episodes over ROS 2 in real time, with film and report."""

from __future__ import annotations

import sys

from wm_mpc.bringup import ros_env
from wm_mpc.core.errors import UserError
from wm_mpc.core.locations import ASSETS
from wm_mpc.evaluation.rows import format_row
from wm_mpc.trials.demo import Config, _open_view, measure, perform, write
from wm_mpc.trials.demo_report import reaction_line
from wm_mpc.trials.stage import DemoError


def run(config: Config) -> int:
    """Run the demo.

    Returns:
        0 when every episode was run and reported, 1 when the nodes could not do it.
    """
    if ros_env.rclpy_source() is None:
        raise UserError("rclpy: not found; source a ROS 2 setup file or pip install 'wm-mpc[ros]'")
    from wm_mpc.trials import film, page  # Pillow; better missing now than after the episodes

    ros_env.own_domain()
    view = _open_view(config)
    config.out.mkdir(parents=True, exist_ok=True)
    for name in ("report.json", "report.html", film.NAME, film.FAILURE_NAME, film.STILL_NAME):
        (config.out / name).unlink(missing_ok=True)
    try:
        recordings, ros = perform(config, view)
    except DemoError as failure:
        print(f"wm-mpc demo: error: {failure}", file=sys.stderr)
        print(f"the nodes' output: {config.out / 'nodes.log'}", file=sys.stderr)
        return 1
    finally:
        if view is not None:
            view.close()
    measured = measure(config, recordings, ros)
    report = write(config.out, measured)
    shown = film.write(config.out, measured)
    strips = page.strips(measured, config.model or ASSETS / config.task)
    page.write(config.out / "report.html", measured, report, shown, strips)
    for row in measured.rows:
        print(format_row(row))
    print(reaction_line(ros["stamp_to_command_ms"]))
    print(f"report: {config.out / 'report.html'}")
    return 0
