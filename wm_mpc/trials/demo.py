"""``wm-mpc demo``: simulated episodes over ROS 2 in real time, and a report on them.

``sim_bridge`` and ``mpc_node`` run as processes of their own, started as ``wm-mpc launch`` would;
this process watches their topics, asks the simulator for one episode after the other, and writes
``report.json``, ``film.webp``, ``still.png`` and ``report.html``. Nothing it does is part of the
control loop.

Environment variables ``WM_MPC_DEMO_EPISODES``, ``_SEED``, ``_TASK``, ``_PLANNER``, ``_MODEL``,
``_OUT``, ``_TIMEOUT`` and ``_VIEW`` (1: the live page) replace the defaults below.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from annotated_types import Ge, Le
from tqdm import tqdm

from wm_mpc.bringup.description import simulated_tasks
from wm_mpc.bringup.start import processes, signals_stop
from wm_mpc.bringup.supervisor import Supervisor
from wm_mpc.core.errors import UserError
from wm_mpc.core.fields import Checked, NonNegativeFloat, Seed, one_of
from wm_mpc.core.provenance import write_report
from wm_mpc.evaluation.jobs import episode_seed
from wm_mpc.planners.registry import PLANNERS, planner_entry
from wm_mpc.tasks.environments import make_env
from wm_mpc.trials.demo_report import (
    BASELINES,
    Measured,
    baseline_row,
    budget_facts,
    controller_row,
    per_episode,
    rates,
    reaction,
)
from wm_mpc.trials.recording import Recording
from wm_mpc.trials.stage import START_S, DemoError, NodeLog, Stage

if TYPE_CHECKING:
    from wm_mpc.trials.observer import Observer
    from wm_mpc.trials.window import LiveView


def _default(name: str, kind: Callable[[str], Any], value: Any) -> Any:
    """Field whose default an environment variable may replace."""

    def read() -> Any:
        text = os.environ.get(f"WM_MPC_DEMO_{name}", "")
        try:
            return kind(text) if text else value
        except ValueError:
            raise UserError(
                f"WM_MPC_DEMO_{name}: {text!r}; {kind.__name__} expected"
            ) from None

    return field(default_factory=read)


@dataclass(frozen=True)
class Config(Checked):
    """Run simulated episodes over ROS 2 and report on them."""

    episodes: Annotated[int, Ge(1), Le(1000)] = _default("EPISODES", int, 10)
    """Episodes, 1 to 1000."""

    seed: Seed = _default("SEED", int, 2024)
    """Starts and goals derive from it; training and tuning use others."""

    task: str = _default("TASK", str, "pusht")
    """A task with a bringup of its own, TASK_sim; see `wm-mpc launch --help`."""

    planner: str = _default("PLANNER", str, "")
    """Planner, e.g. adam, cem; empty: the parameter file's."""

    model: Path | None = _default("MODEL", Path, None)
    """World-model folder; empty: the bundled one of the task."""

    out: Path = _default("OUT", Path, Path("out/demo"))
    """Folder of report.json, report.html, film.webp and nodes.log."""

    timeout: NonNegativeFloat = _default("TIMEOUT", float, 0.0)
    """[s] all episodes together may take; 0: 300 s and three times what they last."""

    baselines: Annotated[int, Ge(1), Le(10_000)] = 100
    """Goals that random actions and no action try, the episodes' own first; 1 to 10000."""

    view: Annotated[bool, tyro.conf.FlagCreatePairsOff] = _default(
        "VIEW", lambda text: text not in ("0", "false", "no"), False
    )
    """Serve the live page while it runs and print its address."""

    window: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Show a window while it runs; needs a display."""

    headless: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Neither page nor window, whatever the environment says."""

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of(self, "task", simulated_tasks())
        if ":" in self.planner:
            planner_entry(self.planner)
        elif self.planner:
            one_of(self, "planner", PLANNERS)


def _open_view(config: Config) -> LiveView | None:
    if not config.window or config.headless:
        return None
    from wm_mpc.trials.window import LiveView

    return LiveView(config.task)


def perform(config: Config, view: LiveView | None) -> tuple[list[Recording], dict[str, Any]]:
    """Start the nodes, run the episodes, end the nodes.

    Returns:
        One recording per episode, and facts about the ROS side.

    Raises:
        DemoError: a node died, gave up or was too slow.
    """
    from wm_mpc.trials.observer import Observer

    spec = make_env(config.task).unwrapped.spec_task
    steps, period = spec.episode_steps, spec.control_period
    arguments = {"seed": str(config.seed), "planner": config.planner}
    if config.model is not None:
        arguments["model"] = str(config.model.expanduser().resolve())
    if config.view and not config.headless:
        arguments["view"] = "true"
    episodic = {
        "sim_bridge": {"auto_reset": False, "episode_steps": steps},
        "view": {"port": 0},
    }
    children = processes(f"{config.task}_sim", arguments, episodic)
    limit = config.timeout or START_S + 3 * config.episodes * steps * period
    recordings: list[Recording] = []
    with (config.out / "nodes.log").open("w") as stream:
        log = NodeLog(stream)
        supervisor = Supervisor(children, log)
        with signals_stop(supervisor) as interrupted, supervisor:
            observer = Observer()
            try:
                stage = Stage(
                    supervisor, observer, log, interrupted, view, time.monotonic() + limit
                )
                domain = os.environ["ROS_DOMAIN_ID"]
                names = " and ".join(child.name for child in children)
                print(f"starting {names} (ROS domain {domain}, {observer.rmw})", flush=True)
                stage.warm_up()
                bar = tqdm(total=config.episodes, desc=config.task, unit="ep", smoothing=0)
                with bar:
                    for index in range(config.episodes):
                        tell = _teller(bar, recordings, observer, steps, spec.error_unit)
                        stage.episode(episode_seed(config.seed, index), steps, period, tell)
                        recordings.append(observer.recording())
                        bar.update()
                ros = {
                    "rmw": observer.rmw,
                    "nodes": observer.node_names(),
                    "domain": int(domain),
                    "load_average": os.getloadavg()[0],
                    **rates(recordings),
                    "stamp_to_command_ms": reaction(recordings, observer.simulated_time),
                }
            finally:
                observer.close()
    return recordings, ros


def _teller(
    bar: tqdm, done: list[Recording], observer: Observer, steps: int, unit: str
) -> Callable[[Any], None]:
    """What the progress bar says of the running episode, a few times per second."""
    told = [-1]

    def tell(moment: Any) -> None:
        if moment.step == told[0]:
            return
        told[0] = moment.step
        status = observer.status
        bar.set_postfix(
            success=f"{sum(recording.success for recording in done)}/{len(done)}",
            step=f"{moment.step}/{steps}",
            error=f"{moment.errors['error']:.3g} {unit}",
            tick=f"{status.tick_ms:.0f} ms" if status else "-",
            refresh=False,
        )
        if moment.step % 5 == 0:
            bar.refresh()

    return tell


def measure(config: Config, recordings: list[Recording], ros: dict[str, Any]) -> Measured:
    """Everything the report says; runs the baselines."""
    spec = make_env(config.task).unwrapped.spec_task
    steps, goals = spec.episode_steps, max(len(recordings), config.baselines)
    rows = [controller_row(config.task, config.seed, steps, recordings)]
    for planner in BASELINES:
        rows.append(
            baseline_row(config.task, planner, config.seed, steps, len(recordings), goals)
        )
    return Measured(
        config.task,
        config.seed,
        steps,
        spec.control_period,
        tuple(recordings),
        tuple(rows),
        budget_facts(recordings),
        ros,
    )


def write(out: Path, measured: Measured) -> Path:
    """Write ``report.json``; returns its path."""
    recordings = list(measured.recordings)
    return write_report(
        out / "report.json",
        measured.seed,
        measured.rows,
        task=measured.task,
        episodes=len(recordings),
        ros=measured.ros,
        budget=measured.budget,
        per_episode=per_episode(recordings),
    )


__all__ = ["Config", "DemoError", "measure", "perform", "write"]
