"""How attempts are judged, and a trial of an arm whose controller is a line of Python."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from ros import START_S, NodeProcess, Probe
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float64MultiArray

from wm_mpc.cli.main import main
from wm_mpc.data.goals import RobotGoal, load_goals, save_goal
from wm_mpc.msg import PlannerStatus
from wm_mpc.trials.robot_trial import Attempt, TrialConfig, summary


def attempt(distances: list[float], commands: list[float] = ()) -> Attempt:
    times = [0.5 * i for i in range(len(distances))]
    told = [(0.5 * i, np.array([value])) for i, value in enumerate(commands)]
    return Attempt(0, times, distances, [], told)


def test_held_is_more_than_at_the_end_and_that_more_than_ever() -> None:
    stays = attempt([1.0, 0.5, 0.04, 0.04, 0.04]).judged(0.05, 1.0)
    passes = attempt([1.0, 0.04, 0.5, 0.04, 0.2]).judged(0.05, 1.0)
    dithers = attempt([1.0, 0.5, 0.04, 0.2, 0.04]).judged(0.05, 1.0)
    seen = [(row["held"], row["at_end"], row["ever"]) for row in (stays, passes, dithers)]
    assert seen == [(True, True, True), (False, False, True), (False, True, True)]
    assert stays["first_s"] == 1.0
    found = summary([stays, passes, dithers])
    assert found["success_rate"] == pytest.approx(1 / 3) and found["ever"] == 3
    assert found["success_ci95"][0] < 1 / 3 < found["success_ci95"][1]


def test_jumps_at_rest_are_those_of_the_last_second() -> None:
    row = attempt([1.0] * 5, [0.0, 1.0, 0.0, 0.1, 0.0]).judged(0.05, 1.0)
    assert row["jump_at_rest"] == pytest.approx(0.1)


def test_trial_settings_that_cannot_be_are_named() -> None:
    with pytest.raises(ValueError, match="joint_tolerance: 0; more than 0"):
        TrialConfig(joint_tolerance=0.0)
    with pytest.raises(ValueError, match="hold: 5 s; less than seconds, 4"):
        TrialConfig(seconds=4.0, hold=5.0)


class PController(threading.Thread):
    """Drives to the goal's posture as ``mpc_node`` would, without a model."""

    def __init__(self, probe: Probe) -> None:
        super().__init__(daemon=True)
        self.probe, self.on = probe, True
        self.command = probe.node.create_publisher(Float64MultiArray, "command", 10)
        self.status = probe.node.create_publisher(PlannerStatus, "status", 10)

    def run(self) -> None:
        while self.on:
            goal, now = self.probe.last("goal_proprio"), self.probe.last("joint_states")
            if goal is not None and now is not None:
                way = np.array(goal.position) - np.array(now.position)
                self.command.publish(Float64MultiArray(data=np.clip(2 * way, -1, 1).tolist()))
            self.status.publish(PlannerStatus(planner="p"))
            time.sleep(0.05)


def test_a_trial_counts_what_an_arm_did(ros_domain: int, tmp_path: Path) -> None:
    pytest.importorskip("mujoco")
    probe = Probe(ros_domain)
    for kind, topic in ((JointState, "joint_states"), (JointState, "goal_proprio"),
                        (Image, "goal_image")):  # fmt: skip
        probe.listen(kind, topic)
    arm = NodeProcess("sim_bridge.arms.node", tmp_path / "arm.log", seed=2)
    driver = PController(probe)
    try:
        probe.wait(lambda: probe.last("joint_states"), START_S, "joint states")
        assert main(["goal", "snap", "--out", str(tmp_path / "goals")]) == 0
        here = load_goals(tmp_path / "goals")[0]
        assert here.names == ("shoulder", "elbow") and here.image.shape == (96, 96, 3)
        away = np.array(here.positions) - 0.8 * np.sign(here.positions)
        save_goal(tmp_path / "goals", RobotGoal(here.image, here.names, tuple(away)))
        beyond = np.array([9.0, 9.0])  # joints do not go there
        save_goal(tmp_path / "goals", RobotGoal(here.image, here.names, tuple(beyond)))
        driver.start()
        words = ["trial", "--goals", str(tmp_path / "goals"), "--out", str(tmp_path / "out"),
                 "--trial.seconds", "5", "--film", "1"]  # fmt: skip
        assert main(words) == 0
        report = json.loads((tmp_path / "out" / "report.json").read_text())
        row = report["results"][0]
        assert [goal["goal"] for goal in row["goals"]] == [1, 2], "the first one is where it is"
        assert [goal["held"] for goal in row["goals"]] == [True, False]
        assert row["n"] == 2 and row["goals"][0]["jump_at_rest"] < 0.05
        assert (tmp_path / "out" / "film.webp").stat().st_size > 1000
        page = (tmp_path / "out" / "report.html").read_text()
        assert "1 of 2 goals reached and held" in page and page.count("data:image/png") > 10
        assert main([*words, "--least-success", "0.9"]) == 1
    finally:
        driver.on = False
        arm.end()
        probe.close()
