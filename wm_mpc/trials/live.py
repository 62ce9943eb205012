"""``wm-mpc live``: does learning while the robot runs help, and does it never hurt?

Starts a simulated task with ``online_finetune:=true``, from a model that may be spoiled on
purpose, and lets episode follow episode for some minutes. On the way it can kill ``trainer_node``
without warning and hand the controller poisoned models. The report compares the first episodes
with the last ones and tells every model change, every deadline miss near one, and what became of
the poison.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml

from wm_mpc.bringup.start import processes, signals_stop
from wm_mpc.bringup.supervisor import Supervisor, describe
from wm_mpc.core.errors import UserError
from wm_mpc.core.files import write_atomically
from wm_mpc.core.locations import ASSETS, share_dir
from wm_mpc.data.store.store import numbered_shards
from wm_mpc.models.world_model import WorldModel, encoder_reference
from wm_mpc.training.live.intake import WRITER
from wm_mpc.training.live.state import Generations, LiveState
from wm_mpc.training.live.trainer import MODELS, TRAJECTORIES
from wm_mpc.trials.live_config import Config
from wm_mpc.trials.live_report import summarise
from wm_mpc.trials.stage import START_S, DemoError, NodeLog

if TYPE_CHECKING:
    from wm_mpc.evaluation.episodes import Episode
    from wm_mpc.trials.live_watch import LiveWatch

POISONS = ("nan", "shuffled")
DEAD_S = 5.0
"""[s] between the death of ``trainer_node`` and its next start."""
BACK_S = 60.0
"""[s] that it is given to report afterwards."""


def start_model(config: Config) -> WorldModel:
    """The model that the run begins with, its action scale spoiled where asked."""
    model = WorldModel.load(config.model or ASSETS / config.task)
    with torch.no_grad():
        # The bounds that planners keep are those of the robot, whatever the model believes.
        model.action_std.mul_(config.action_scale)
    return model


def spoiled_model(config: Config) -> Path:
    """Write the start model, with its action scale spoiled where asked; returns its folder."""
    model = start_model(config)
    folder = config.out.resolve() / "start"
    model.save(folder, encoder_reference(model, folder), {"action_scale": config.action_scale})
    return folder


def parameter_file(config: Config) -> Path:
    """The task's parameter file with this run's episode length and training parameters."""
    content = yaml.safe_load((share_dir() / "config" / f"{config.task}.yaml").read_text())
    for key, section in content.items():
        parameters = section["ros__parameters"]
        if key.endswith("sim_bridge"):
            parameters["episode_steps"] = config.episode_steps
        if key.endswith("trainer_node"):
            for entry in config.trainer:
                name, _, value = entry.partition("=")
                parameters[name] = yaml.safe_load(value)
    path = config.out.resolve() / "parameters.yaml"
    # JSON is YAML with unambiguous types: the joint "y" stays a text
    write_atomically(path, json.dumps(content, indent=1))
    return path


def split_cores(core: int) -> set[int]:
    """Keep this process, and what it starts, off a core; returns who may use that one: mpc_node.

    Args:
        core: -1: nothing is changed, and the set is empty.

    Raises:
        UserError: it is not among the cores that this process may use, or there is no other.
    """
    if core < 0:
        return set()
    if not hasattr(os, "sched_setaffinity"):
        raise UserError(f"core: {core}; this system does not let a program choose its cores")
    usable = os.sched_getaffinity(0)
    if core not in usable or len(usable) < 2:
        raise UserError(f"core: {core}; one of {sorted(usable)} expected, and one more beside it")
    os.sched_setaffinity(0, usable - {core})
    return {core}


def perform(
    config: Config, start: Path, cores: set[int]
) -> tuple[dict[str, Any], list[Episode], list[Episode]]:
    """Start the nodes, wait, disturb, end the nodes.

    Args:
        config: of the run.
        start: folder of the start model.
        cores: of mpc_node; empty: those of everyone.

    Returns:
        The row of the report, and the first and the last episodes with pictures.

    Raises:
        DemoError: a node that must run ended or never worked.
    """
    from wm_mpc.trials.live_pictures import LivePictures
    from wm_mpc.trials.live_watch import LiveWatch

    arguments = {
        "params_file": str(parameter_file(config)), "model": str(start),
        "seed": str(config.seed), "live": str(config.out.resolve() / "live"),
        "online_finetune": "true" if config.learn else "false",
    }  # fmt: skip
    if config.replay is not None:
        arguments["replay"] = str(config.replay.resolve())
    children = processes(f"{config.task}_sim", arguments)
    with (config.out / "nodes.log").open("w") as stream:
        supervisor = Supervisor(children, NodeLog(stream))
        watch = LiveWatch()
        every = WorldModel.load(start).config.frameskip
        pictures = LivePictures(config.task, every, config.window)
        try:
            with signals_stop(supervisor) as received, supervisor:
                if cores:
                    # Before it starts threads, which inherit this.
                    os.sched_setaffinity(supervisor.pid("mpc_node"), cores)
                trial = Trial(config, supervisor, watch, received, trainer_reports(watch))
                facts = trial.run({child.name: child for child in children})
        finally:
            pictures.close()
            watch.close()
    return summarise(config, watch, facts), pictures.first, list(pictures.last)


def trainer_reports(watch: LiveWatch) -> dict[str, str]:
    """Newest values of ``trainer_node`` on ``/diagnostics``, filled while ``watch`` lives."""
    from diagnostic_msgs.msg import DiagnosticArray

    from wm_mpc.nodes.common import qos

    values: dict[str, str] = {}

    def hear(message: DiagnosticArray) -> None:
        for entry in message.status:
            if entry.name.endswith("trainer_node: training"):
                values.update({value.key: value.value for value in entry.values})

    watch.node.create_subscription(DiagnosticArray, "/diagnostics", hear, qos.EVENT)
    return values


class Trial:
    """The run itself.

    Args:
        config: of the run.
        supervisor: of the nodes.
        watch: of the topics.
        received: signals that this process received.
        trainer: newest values of ``trainer_node``'s diagnostics.
    """

    def __init__(
        self, config: Config, supervisor: Supervisor, watch: LiveWatch, received: list,
        trainer: dict[str, str],
    ) -> None:  # fmt: skip
        self.config, self.supervisor = config, supervisor
        self.watch, self.received, self.trainer = watch, received, trainer
        self.live = config.out / "live"

    def run(self, specs: dict[str, Any]) -> dict[str, Any]:
        """Wait and disturb; facts about the disturbances."""
        config, facts = self.config, {"kill": None, "poison": []}
        self.wait(self.watch.running, START_S, "mpc_node: first plans")
        began = time.monotonic()
        self.watch.begin()
        seconds = config.minutes * 60

        def until(share: float) -> None:
            left = began + share * seconds - time.monotonic()
            self.wait(lambda: time.monotonic() >= began + share * seconds, left + 10, "time")

        if config.learn and config.kill:
            until(0.5)
            facts["kill"] = self.kill_trainer(specs["trainer_node"])
        if config.poison:
            until(0.75)
            facts["poison"] = [self.offer_poison(kind) for kind in POISONS]
        until(1.0)
        if facts["kill"] is not None:
            facts["kill"] = self.resumed(facts["kill"])
        return facts

    def wait(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Wait until ``condition`` is true.

        Raises:
            DemoError: time is up, or a node that must run ended.
            KeyboardInterrupt: a signal asked this process to end.
        """
        end = time.monotonic() + timeout_s
        while not condition():
            if self.received:
                raise KeyboardInterrupt
            for name, code in self.supervisor.poll().items():
                if code is not None and name != "trainer_node":
                    raise DemoError(f"{name} ended {describe(code)}")
            if time.monotonic() >= end:
                raise DemoError(f"{what} not within {timeout_s:.0f} s")
            time.sleep(0.05)

    def kill_trainer(self, spec: Any) -> dict[str, Any]:
        """Kill ``trainer_node`` without warning; start it again some seconds later.

        Returns:
            ``ticks_while_dead`` of the controller; ``kept_before``, ``kept_after`` its death:
            files; ``trajectories_before``: those that ever came; ``taken_up``: those that it
            reported once it was back, None: it was not; ``used_before``: those that rounds had
            seen; ``generations_before``: those that were written.
        """
        ticks, kept, came = len(self.watch.ticks), self.kept(), self.came()
        self.supervisor.send("trainer_node", signal.SIGKILL)
        self.sleep(DEAD_S)
        during = len(self.watch.ticks) - ticks
        after, state = self.kept(), LiveState.load(self.live)
        # What the dead one said last must not pass for words of the new one.
        self.trainer.clear()
        self.supervisor.start(spec)
        end = time.monotonic() + BACK_S
        self.wait(
            lambda: "trajectories" in self.trainer or time.monotonic() >= end, BACK_S + 1, "time"
        )
        reported = self.trainer.get("trajectories")
        return {
            "ticks_while_dead": during, "kept_before": kept, "kept_after": after,
            "trajectories_before": came,
            "taken_up": None if reported is None else int(reported),
            "used_before": state.used, "generations_before": state.last,
        }  # fmt: skip

    def resumed(self, kill: dict[str, Any]) -> dict[str, Any]:
        """Facts about a kill, and whether training went on after it.

        It did when the new ``trainer_node`` knew of every trajectory that had come, and finished
        a round on more of them than rounds had seen before. ``used_after`` and
        ``generations_after`` are those at the end of the run.
        """
        state = LiveState.load(self.live)
        taken = kill["taken_up"]
        known = taken is not None and taken >= kill["trajectories_before"]
        return kill | {
            "used_after": state.used, "generations_after": state.last,
            "resumed": known and state.used > kill["used_before"],
        }  # fmt: skip

    def sleep(self, seconds: float) -> None:
        """Wait [s], but not for nodes that ended."""
        end = time.monotonic() + seconds
        self.wait(lambda: time.monotonic() >= end, seconds + 1, "time")

    def kept(self) -> int:
        """Trajectories on disk: one file each."""
        return len(list((self.live / TRAJECTORIES).glob("shard-*.safetensors")))

    def came(self) -> int:
        """Trajectories that ever came to the disk, those that were deleted since included."""
        folder = self.live / TRAJECTORIES
        return max(numbered_shards(folder, WRITER), default=-1) + 1 if folder.is_dir() else 0

    def offer_poison(self, kind: str) -> dict[str, Any]:
        """Ask the controller to load a poisoned copy of what it runs; what became of it."""
        running = self.watch.model_hash
        folder = self.config.out.resolve() / f"poison_{kind}"
        digest = poison(self.model_folder(running), folder, kind)
        answer = self.watch.load(folder)
        self.wait(answer.done, 60.0, "load_model: answer")
        result = answer.result()
        if result.success:
            # Refusal was not possible; then it must be taken back.
            self.wait(lambda: self.watch.model_hash == digest, 10.0, "swap")
            self.wait(lambda: self.watch.model_hash != digest, 60.0, "rollback of the poison")
        outcome = "rolled back" if result.success else "refused"
        return {"kind": kind, "outcome": outcome, "message": result.message}

    def model_folder(self, digest: str) -> Path:
        """Folder of the model that runs."""
        generations = Generations(self.live / MODELS)
        for number in generations.numbers():
            if generations.digest(number) == digest:
                return generations.path(number)
        return self.config.out / "start"


def poison(source: Path, folder: Path, kind: str) -> str:
    """Write a spoiled copy of a model; returns its hash.

    Args:
        source: folder of a sound model.
        folder: where the copy goes.
        kind: ``nan`` (one weight is not a number) or ``shuffled`` (it takes each number of an
            action for another one).
    """
    model = WorldModel.load(source)
    first = next(p for name, p in model.predictor.named_parameters() if p.ndim == 2)
    with torch.no_grad():
        if kind == "nan":
            first[0, 0] = float("nan")
        else:
            columns = first[:, -model.action_width :].clone()
            first[:, -model.action_width :] = -columns.roll(1, dims=1)
    return model.save(folder, encoder_reference(model, folder))
