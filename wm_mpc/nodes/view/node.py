"""``view``: listens to what everybody hears and shows it on a page.

It has no part in the control loop: best-effort subscriptions of depth one, a process of its own.
Whatever happens to it or to a browser, the controller notices nothing.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from wm_mpc.core.clock import stamp_seconds
from wm_mpc.core.errors import UserError, one_line
from wm_mpc.core.locations import ASSETS
from wm_mpc.core.scheduling import prefer
from wm_mpc.data.decoding import compressed_to_rgb, image_to_rgb
from wm_mpc.data.goals import pictures_of_bag
from wm_mpc.msg import GateStatus, Plan, PlannerStatus, TaskState
from wm_mpc.nodes.common import qos
from wm_mpc.nodes.common.inputs import publish_inputs
from wm_mpc.nodes.common.parameters import ParameterReader
from wm_mpc.nodes.common.spin import run_node
from wm_mpc.nodes.view.board import Board
from wm_mpc.nodes.view.buttons import PLANNERS, Buttons
from wm_mpc.nodes.view.config import ViewConfig
from wm_mpc.nodes.view.imagine import Imagination, imagination
from wm_mpc.nodes.view.server import PageServer
from wm_mpc.nodes.view.words import (
    diagnostics_words,
    gate_words,
    plan_words,
    status_words,
    task_words,
)

GOALS = 60
"""Pictures of a recording that are offered as goals."""
NEWEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


class ViewNode(Node):
    """Listens, and serves the page.

    Parameters are the fields of :class:`~wm_mpc.nodes.view.config.ViewConfig`.

    Raises:
        UserError: a wrong or unknown parameter, or a port that is taken.
    """

    def __init__(self) -> None:
        super().__init__("view", automatically_declare_parameters_from_overrides=True)
        reader = ParameterReader(self)
        self.config = reader.read(ViewConfig())
        reader.reject_unknown()
        prefer(self.config.nice, all_threads=True)
        self.board = Board(self.config.jpeg_quality, self.config.keep_s)
        self._heard: dict[str, float] = {}
        self._imagination: Imagination | None = None
        self._reports: dict[str, dict[str, Any]] = {}
        self.buttons = Buttons(self, self.board, self.config.controller)
        self.board.tell("planners", PLANNERS)
        self.page = PageServer(self.board, self.buttons.act, self.config)

    def start(self) -> None:
        """Listen and serve."""
        listen = self._listen
        listen(Image, "image", self._on_image, NEWEST)
        listen(CompressedImage, "image/compressed", self._on_compressed, NEWEST)
        listen(Image, "goal_image", self._on_goal, qos.LATCHED)
        listen(PlannerStatus, "status", self._on_status, NEWEST)
        listen(Plan, "plan", self._on_plan, NEWEST)
        listen(GateStatus, "gate_status", self._on_gate, NEWEST)
        listen(TaskState, "task_state", self._on_task, NEWEST)
        listen(DiagnosticArray, "/diagnostics", self._on_diagnostics, NEWEST)
        self.create_timer(0.25, self._on_quarter)
        self._open_imagination()
        publish_inputs(self)
        if self.config.goals_from:
            threading.Thread(target=self._open_recording, name="recording", daemon=True).start()
        self.page.start()
        print(f"view: {self.page.url}", flush=True)

    def stop(self) -> None:
        """Let the browsers go."""
        self.page.stop()

    def _listen(self, kind: type, topic: str, take: Callable[[Any], None], profile: Any) -> None:
        """Subscribe; a message that cannot be read is told and left out."""

        def heard(message: Any) -> None:
            try:
                take(message)
            except (ValueError, IndexError) as error:
                self._note("unreadable", f"{topic}: {one_line(error)}")
                self.get_logger().error(
                    f"{topic}: {one_line(error)}", throttle_duration_sec=5.0
                )

        self.create_subscription(kind, topic, heard, profile)

    def _open_imagination(self) -> None:
        if not self.config.model and not self.config.task:
            return
        folder = Path(self.config.model).expanduser() if self.config.model else None
        found = imagination(folder or ASSETS / self.config.task, self.board)
        if isinstance(found, str):
            self.get_logger().info(f"imagined pictures: none; {found}")
        else:
            self._imagination = found

    def _open_recording(self) -> None:
        path = Path(self.config.goals_from).expanduser()
        try:
            self.board.offer(pictures_of_bag(path, GOALS, self.config.goals_topic))
        except (UserError, ValueError, OSError) as error:
            self.get_logger().error(f"goals_from: {one_line(error)}")

    # ---- what comes --------------------------------------------------------------------------

    def _note(self, name: str, words: Any) -> None:
        self._heard[name] = time.monotonic()
        self.board.tell(name, words)

    def _see(self, stamp: float, picture: np.ndarray) -> None:
        height, width, _ = picture.shape
        self._note("camera", {"stamp": stamp, "height": height, "width": width})
        self.board.keep(stamp, picture, None)
        self.board.show("camera", picture)

    def _on_image(self, message: Image) -> None:
        self._see(stamp_seconds(message.header.stamp), image_to_rgb(message))

    def _on_compressed(self, message: CompressedImage) -> None:
        self._see(stamp_seconds(message.header.stamp), compressed_to_rgb(message))

    def _on_goal(self, message: Image) -> None:
        self.board.show("goal", image_to_rgb(message, "goal_image"))
        self.buttons.others_goal()

    def _on_status(self, message: PlannerStatus) -> None:
        self._note("status", status_words(message))

    def _on_plan(self, message: Plan) -> None:
        self._note("plan", plan_words(message))
        if self._imagination is not None and len(message.imagined):
            stamp = stamp_seconds(message.header.stamp)
            self._imagination.offer(stamp, message.dt, message.horizon, message.imagined)

    def _on_gate(self, message: GateStatus) -> None:
        self._note("gate", gate_words(message))

    def _on_task(self, message: TaskState) -> None:
        self._note("task", task_words(message))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for entry in diagnostics_words(message):
            self._reports[entry["name"]] = entry
        self._note("diagnostics", list(self._reports.values()))

    def _on_quarter(self) -> None:
        """How long ago each was heard, so that silence is seen."""
        now = time.monotonic()
        self.board.tell("silence_s", {n: round(now - at, 2) for n, at in self._heard.items()})


def main(args: list[str] | None = None) -> int:
    """Run the node until a signal comes; returns the exit code."""
    return run_node(ViewNode, args)


if __name__ == "__main__":
    sys.exit(main())
