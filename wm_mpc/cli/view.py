"""``wm-mpc view``: a page that shows what the controller sees, plans and why.

Start it beside running nodes, or let a launch file do so (``view:=true``). With ``--bag`` it plays
a recording through the same page.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Gt, Le

from wm_mpc.bringup import ros_env
from wm_mpc.bringup.start import supervise
from wm_mpc.bringup.supervisor import Process
from wm_mpc.core.errors import UserError
from wm_mpc.core.fields import Checked
from wm_mpc.core.locations import executable_path
from wm_mpc.nodes.view.config import ViewConfig

TOPICS = (
    "image", "image/compressed", "goal_image", "status", "plan", "gate_status", "task_state",
    "/diagnostics",
)  # fmt: skip
"""What of a bag the page shows."""


@dataclass(frozen=True)
class Config(Checked):
    """Show what the controller sees, plans and why, in a browser.

    Attributes:
        host: address to listen on; beyond loopback the printed token opens the page.
        port: TCP port; 0: any free one.
        namespace: ROS namespace of the nodes to watch; empty: the root.
        task: task whose bundled decoder draws imagined pictures; empty: none.
        model: model folder with a decoder; wins over task.
        goals_from: rosbag2 whose pictures can be picked as goals; empty: none.
        bag: rosbag2 to play through the page; empty: watch running nodes.
        speed: of the playback, in multiples of real time.
    """

    host: str = ViewConfig.host
    port: int = ViewConfig.port
    namespace: str = ""
    task: str = ""
    model: Path | None = None
    goals_from: Path | None = None
    bag: Path | None = None
    speed: Annotated[float, Gt(0), Le(100)] = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        ViewConfig(host=self.host, port=self.port)
        for name, path in (("bag", self.bag), ("goals_from", self.goals_from)):
            if path is not None and not path.exists():
                raise UserError(f"{name}: {path} does not exist")


def run(config: Config) -> int:
    """Serve until Ctrl-C; 0 then."""
    if ros_env.rclpy_source() is None:
        raise UserError("rclpy: not found; source a ROS 2 setup file or pip install 'wm-mpc[ros]'")
    values = {
        "host": config.host,
        "port": config.port,
        "task": config.task,
        "model": "" if config.model is None else str(config.model.resolve()),
        "goals_from": "" if config.goals_from is None else str(config.goals_from.resolve()),
    }
    words = [sys.executable, str(executable_path("view")), "--ros-args"]
    for name, value in values.items():
        if value != "":
            words += ["-p", f"{name}:={value}"]
    if config.namespace:
        words += ["-r", f"__ns:=/{config.namespace.strip('/')}"]
    env = dict(ros_env.prepare(dict(os.environ)))
    children = [Process("view", tuple(words), env=env)]
    if config.bag is not None:
        play = (sys.executable, "-m", "wm_mpc.cli", "bag", "play", str(config.bag))
        words = (*play, "--rate", str(config.speed), "--topics", *TOPICS)
        children.append(Process("bag", words, required=False, env=env))
    return supervise(children)


__all__ = ["Config", "run"]
