"""``trainer_node``: learns from what really happened while the controller runs.

What happened comes as ``corrected_trajectory`` messages (a simulator's answer to the plan, which
this node asks for) or is pieced together from camera, joints and commands. It goes to a store on
disk first. A process of its own, of low priority, trains on it; what passes its validation is
offered to ``mpc_node`` through ``load_model``, which checks it again and may take it back.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image, JointState

from wm_mpc.control.tick import State
from wm_mpc.core.clock import stamp_seconds
from wm_mpc.core.errors import UserError, one_line
from wm_mpc.core.files import claim_folder
from wm_mpc.data.decoding import joint_state_to_array, message_to_trajectory
from wm_mpc.data.trajectory import Trajectory
from wm_mpc.models.checkpoint import recorded_hash
from wm_mpc.models.world_model import WorldModelConfig, read_record
from wm_mpc.msg import Plan as PlanMessage
from wm_mpc.msg import PlannerStatus
from wm_mpc.msg import Trajectory as TrajectoryMessage
from wm_mpc.nodes.common import qos
from wm_mpc.nodes.common.inputs import inputs_status
from wm_mpc.nodes.common.messages import CommandFormat
from wm_mpc.nodes.common.parameters import ParameterReader
from wm_mpc.nodes.common.spin import run_node
from wm_mpc.nodes.mpc.loop import decode
from wm_mpc.nodes.mpc.telemetry import Complaints
from wm_mpc.nodes.trainer.command_watch import SILENT_S, CommandWatch
from wm_mpc.nodes.trainer.config import TrainerConfig
from wm_mpc.nodes.trainer.offers import Offer
from wm_mpc.nodes.trainer.rollouts import Rollouts
from wm_mpc.srv import LoadModel, Rollout
from wm_mpc.training.live.config import LiveConfig
from wm_mpc.training.live.intake import Assembler, Keeper
from wm_mpc.training.live.process import LiveProcess
from wm_mpc.training.live.trainer import MODELS, TRAJECTORIES
from wm_mpc.training.live.worker import Job

LOCK = "trainer.lock"
POLL_S = 0.2
WARN_S = 30.0
"""[s] between two warnings of the same thing."""


class TrainerNode(Node):
    """See the module."""

    def __init__(self) -> None:
        super().__init__("trainer_node", automatically_declare_parameters_from_overrides=True)
        reader = ParameterReader(self)
        self.config = config = reader.read(TrainerConfig())
        self.live = reader.read(LiveConfig())
        reader.reject_unknown()
        self.interface = WorldModelConfig(**read_record(config.model_path)["config"])
        out = config.out_path.resolve()
        self._lock = claim_folder(out, LOCK, "trainer_node")
        # Training keeps the folder small while it runs. Where it does not: twice that, and never
        # what its buffers have room for, as every trajectory has at least one model step.
        keep = self.live.keep_trajectories
        limit = 2 * (keep + self.live.limit_steps) if keep else 0
        self._keeper = Keeper(out / TRAJECTORIES, self.interface, limit)
        job = Job(
            str(config.model_path.resolve()), str(out), asdict(self.live), config.seed,
            config.device, config.nice, config.threads,
        )  # fmt: skip
        self._process = LiveProcess(job, out / "training.log")
        self._complain = Complaints(self.get_logger().error)
        self._facts = {"state": "starting", "refused": 0, "accepted": 0, "rejected": 0}
        self._watch = CommandWatch()
        # rclpy allows one severity per place in the code that logs: hence a place of its own.
        self._warn = Complaints(lambda words: self.get_logger().warning(words), repeat_s=WARN_S)
        load, rollout = (
            self.create_client(kind, name)
            for kind, name in ((LoadModel, "load_model"), (Rollout, "rollout"))
        )
        own = model_hashes(config.model_path, out)
        self._offer = Offer(load, own, self._process.send, self._told)
        self._rollouts = Rollouts(
            rollout,
            self.interface.frameskip,
            lambda reason: self._complain("rollout", f"rollout: {reason}"),
        )
        self._listen()
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", qos.EVENT)

    def _listen(self) -> None:
        listen, config = self.create_subscription, self.config
        listen(TrajectoryMessage, "corrected_trajectory", self._on_trajectory, qos.EVENT)
        listen(PlannerStatus, "status", self._on_status, qos.EVENT)
        if config.source != "robot":
            listen(PlanMessage, "plan", self._on_plan, qos.EVENT)
        self._assembler: Assembler | None = None
        if config.source == "rollout":
            return
        model = self.interface
        self._assembler = Assembler(model, config.max_steps)
        self._format = CommandFormat(
            config.command_type, config.command_names, model.action_dim, model.control_period
        )
        listen(Image, "image", self._on_image, qos.IMAGE)
        listen(CompressedImage, "image/compressed", self._on_image, qos.IMAGE)
        if model.proprio_dim:
            listen(JointState, "proprio", self._on_proprio, qos.PROPRIO)
        listen(self._format.type, "command", self._on_command, qos.COMMAND)
        listen(Image, "goal_image", self._on_goal, qos.LATCHED)

    # ---- life --------------------------------------------------------------------------------

    def start(self) -> None:
        """Start training, and look after it."""
        self._process.start()
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(POLL_S, self._on_poll, clock=steady)
        self.create_timer(1.0, self._on_second, clock=steady)
        if self.config.source != "robot":
            self.create_timer(self.config.rollout_period_s, self._rollouts.ask, clock=steady)
        self.get_logger().info(
            f"learning from {self.config.model_path}, {self._keeper.count} trajectories kept in "
            f"{self._keeper.folder}"
        )

    def stop(self) -> None:
        """Keep what was heard so far, and end the training process.

        Its unfinished round is taken up by the next one.
        """
        if self._assembler is not None:
            self._guarded("stop", self._assembler.finish)
        self._flush()
        if lost := self._keeper.waiting:
            self.get_logger().error(f"the disk is full: {lost} trajectories that waited are lost")
        self._process.stop()
        self._lock.close()

    # ---- what happened -----------------------------------------------------------------------

    def _on_trajectory(self, message: TrajectoryMessage) -> None:
        self._guarded("corrected_trajectory", lambda: [message_to_trajectory(message)])

    def _on_image(self, message: Image | CompressedImage) -> None:
        stamp = stamp_seconds(message.header.stamp)
        self._watch.image()
        self._guarded("image", lambda: self._assembler.push("image", stamp, decode(message)))

    def _on_proprio(self, message: JointState) -> None:
        stamp, dim = stamp_seconds(message.header.stamp), self.interface.proprio_dim

        def read() -> Iterable[Trajectory]:
            values = joint_state_to_array(message, self.config.joint_names, dim)
            return self._assembler.push("proprio", stamp, values)

        self._guarded("proprio", read)

    def _on_command(self, message: Any) -> None:
        # Commands carry no common stamp: they count from when they are heard.
        now = self.get_clock().now().nanoseconds * 1e-9
        self._watch.command()
        self._guarded(
            "command", lambda: self._assembler.push("command", now, self._format.read(message))
        )

    def _on_goal(self, message: Image) -> None:
        # With a new goal a simulator also moves the world, which no action did.
        self._assembler.cut(stamp_seconds(message.header.stamp), "new goal")

    def _guarded(self, source: str, read: Callable[[], Iterable[Trajectory]]) -> None:
        """Keep what can be read; say what cannot."""
        try:
            for trajectory in read():
                self._keeper.keep(trajectory)
        except (UserError, ValueError) as error:
            self._complain(source, f"{source}: {one_line(error)}")

    def _on_plan(self, message: PlanMessage) -> None:
        self._rollouts.heard(message)

    # ---- training ----------------------------------------------------------------------------

    def _on_status(self, message: PlannerStatus) -> None:
        self._watch.status(State(message.state))
        self._offer.seen(message.model_hash, message.ticks)

    def _on_poll(self) -> None:
        for event in self._process.events():
            self._hear(event)
        self._offer.advance()

    def _hear(self, event: dict[str, Any]) -> None:
        kind = event.pop("event")
        if kind == "warning":
            self.get_logger().warning(f"training: {event['reason']}")
            return
        if kind == "offer":
            self._offer.make(event["hash"], event["path"])
        elif kind == "ready" and event["path"]:
            # After a restart the last good generation may be news to the controller.
            self._offer.make(event["hash"], event["path"])
        elif kind == "refused":
            self._facts["refused"] += 1
        elif kind == "ended":
            self.get_logger().warning(f"the training process ended with code {event['code']}")
        elif kind == "failed":
            self.get_logger().error(f"training: {event['reason']}")
        self._facts["state"] = kind
        words = ", ".join(f"{name} {_short(value)}" for name, value in event.items())
        self.get_logger().info(f"training: {kind}: {words}")

    def _told(self, what: str, reason: str) -> None:
        """What became of an offer, in the words of ``Offer``."""
        if what in self._facts:
            self._facts[what] += 1
        words = f"offer {what}: {reason}"
        # rclpy allows one severity per place in the code that logs.
        if what in ("accepted", "resumed"):
            self.get_logger().info(words)
        else:
            self.get_logger().warning(words)

    def _silence(self) -> str:
        """Why nothing can be learned from the robot, one line; empty: no reason."""
        if self._assembler is None or not self._watch.silent_s():
            return ""
        return (
            f"command: none heard for {SILENT_S:g} s while images come, so the robot's motion is "
            f"not learned from; command_type here is {self.config.command_type}, as sent?"
        )

    def _flush(self) -> None:
        """Write what waits for the disk, if it has room again."""
        try:
            self._keeper.flush()
        except (UserError, ValueError) as error:
            self._complain("disk", one_line(error))

    def _on_second(self) -> None:
        self._flush()
        level, state, silence = DiagnosticStatus.OK, str(self._facts["state"]), self._silence()
        if silence:
            self._warn("command", silence)
        paused = self._offer.paused and f"offers paused: {self._offer.paused}"
        deaths, waiting = self._process.deaths, self._keeper.waiting
        died = deaths and f"training ended {deaths} times since the last finished round"
        disk = waiting and f"{waiting} trajectories wait for the disk"
        troubles = [words for words in (paused, silence, died, disk) if words]
        if troubles or state == "waiting":
            level = DiagnosticStatus.WARN
        if state in ("ended", "failed"):
            level = DiagnosticStatus.ERROR
        message = "; ".join([state, *troubles])
        entry = DiagnosticStatus(level=level, name=f"{self.get_name()}: training", message=message)
        values = self._facts | {
            "trajectories": self._keeper.count, "waiting": waiting,
            "dropped": self._keeper.dropped, "deaths": deaths, "pid": self._process.pid,
        }  # fmt: skip
        entry.values = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
        array = DiagnosticArray(status=[entry, inputs_status(self)])
        array.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(array)


def model_hashes(start: Path, out: Path) -> set[str]:
    """Hashes of a start model and of the generations in a working folder.

    A generation that cannot be read is left out: it cannot be running either.
    """
    found = set()
    for folder in (start, *(out / MODELS).glob("[0-9]*")):
        try:
            found.add(recorded_hash(folder))
        except (UserError, OSError):
            continue
    return found


def _short(value: Any) -> str:
    """Errors with four digits, everything else as it is."""
    if isinstance(value, dict):
        return "(" + ", ".join(f"{key} {_short(entry)}" for key, entry in value.items()) + ")"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main(args: list[str] | None = None) -> int:
    """Run the node; exit code 0 after SIGINT or SIGTERM, 2 for unusable parameters."""
    return run_node(TrainerNode, args)


if __name__ == "__main__":
    sys.exit(main())
