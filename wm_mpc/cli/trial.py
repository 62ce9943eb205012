"""``wm-mpc trial``: give a running robot goals and tell how many it reached and held."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from wm_mpc.core.fields import Checked, NonNegativeInt
from wm_mpc.core.provenance import write_report
from wm_mpc.viz.report_page import write_page


@dataclass(frozen=True)
class TrialOptions(Checked):
    """How a goal is judged: see ``wm_mpc.trials.robot_trial.TrialConfig``.

    Attributes:
        seconds: [s] time per goal.
        hold: [s] how long the robot must have been there at the end.
        joint_tolerance: largest distance of a joint from its goal [rad, m]; 0: the latent
            distance decides.
        latent_tolerance: latent distance that counts as there; only with joint_tolerance 0.
        least_distance: goals nearer than this at the start are skipped [rad, m].
        posture: give the controller the goal's posture too; --trial.no-posture: picture alone.
    """

    seconds: float = 12.0
    hold: float = 1.0
    joint_tolerance: float = 0.05
    latent_tolerance: float = 0.0
    least_distance: float = 0.3
    posture: bool = True


@dataclass(frozen=True)
class Config(Checked):
    """Pursue the goals of a folder on a running robot with mpc_node; needs rclpy.

    The robot goes from goal to goal. With mpc_node in dry_run nothing moves, and the report tells
    what would have been commanded. Writes report.json and film.webp into ``out``.

    Attributes:
        goals: folder of goals, of `wm-mpc goal`.
        out: folder of report and film.
        n: how many goals; 0: all.
        image_topic: camera.
        proprio_topic: joint states.
        command_topic: what the robot listens to.
        command_type: its message type; empty: commands are not looked at.
        film: goals to show in the film; 0: none.
        model: folder whose decoder draws what the plans imagine, where mpc_node tells it
            (publish_search); none: no such pictures.
        report: JSON file; default: report.json in ``out``; a page (.html) is written beside it.
        least_success: exit code 1 where a smaller share of the goals was held.
    """

    goals: Path
    out: Path = Path("out/trial")
    n: NonNegativeInt = 0
    image_topic: str = "image"
    proprio_topic: str = "joint_states"
    command_topic: str = "command"
    command_type: str = "float64_multi_array"
    film: NonNegativeInt = 5
    model: Path | None = None
    report: Path | None = None
    least_success: float = 0.0
    trial: TrialOptions = field(default_factory=TrialOptions)


def run(config: Config) -> int:
    """Run the trial, write the report; the exit code."""
    from wm_mpc.bringup.ros_env import prepare

    prepare()
    from wm_mpc.data.goals import load_goals
    from wm_mpc.models.decoder import Decoder
    from wm_mpc.trials.robot_page import trial_page
    from wm_mpc.trials.robot_trial import TrialConfig, run_trial, summary
    from wm_mpc.trials.robot_watch import RobotWatch, Topics

    if config.model is not None:
        Decoder.load(config.model)  # better missing now than after the trial
    goals = load_goals(config.goals)
    goals = goals[: config.n or len(goals)]
    judge = TrialConfig(**dataclasses.asdict(config.trial))
    topics = Topics(config.image_topic, config.proprio_topic, config.command_topic)
    watch = RobotWatch(topics, goals[0].names, config.command_type)
    try:
        attempts = run_trial(watch, goals, judge)
        status = watch.status
    finally:
        watch.close()
    tolerance = judge.joint_tolerance or judge.latent_tolerance
    rows = [attempt.judged(tolerance, judge.hold) for attempt in attempts]
    found = {
        "planner": status.planner, "model": status.model_hash, "dry_run": status.dry_run,
        "goal": "posture" if judge.posture else "picture", **summary(rows), "goals": rows,
    }  # fmt: skip
    path = write_report(config.report or config.out / "report.json", None, [found],
                        config=dataclasses.asdict(judge))  # fmt: skip
    write_page(path, lambda: trial_page(found, attempts, goals, config.model))
    if config.film:
        from wm_mpc.trials.robot_film import write_film

        write_film(config.out / "film.webp", attempts[: config.film], goals, tolerance)
    if status.dry_run:
        print(f"dry run: nothing was commanded; what would have been lies in {path}")
        return 0
    low, high = found["success_ci95"]
    print(
        f"held {found['success_rate']:.0%} of {found['n']} (95 % {low:.0%} to {high:.0%}), at the "
        f"end {found['at_end']}, ever {found['ever']}; distance at the end "
        f"{found['final_error']['median']:.3f} (median); report {path}"
    )
    return int(found["success_rate"] < config.least_success)
