"""The demo over DDS with real node processes and an untrained model."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from helpers import tiny_checkpoint

from sim_bridge.tasks import make_task
from wm_mpc.bringup.supervisor import Process
from wm_mpc.cli.demo import run
from wm_mpc.evaluation.jobs import episode_seed
from wm_mpc.trials import demo
from wm_mpc.trials.stage import Stage


def running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def pids(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Process ids of the nodes that a demo started."""
    seen: dict[str, int] = {}
    begin = Stage.warm_up

    def note(self: Stage) -> None:
        seen.update({name: self.supervisor.pid(name) for name in self.supervisor.poll()})
        begin(self)

    monkeypatch.setattr(Stage, "warm_up", note)
    return seen


@pytest.fixture
def config(ros_domain: int, tmp_path: Path) -> demo.Config:
    model = tiny_checkpoint(tmp_path / "model")
    return demo.Config(episodes=1, seed=4, model=model, out=tmp_path / "out", baselines=1)


def test_one_episode_from_the_first_process_to_the_page(
    config: demo.Config, pids: dict[str, int], capsys: pytest.CaptureFixture[str], ros_domain: int
) -> None:
    assert run(config) == 0, capsys.readouterr()
    assert sorted(pids) == ["command_gate", "mpc_node", "sim_bridge"]
    assert not any(map(running, pids.values()))
    facts = json.loads((config.out / "report.json").read_text())
    row, random, none = facts["results"]
    assert (row["planner"], row["n"], row["task"]) == ("adam", 1, "pusht")
    assert [random["planner"], none["planner"]] == ["random", "none"]
    assert row["tick_ms"]["n"] > 0 and row["tick_ms"]["max"] >= row["tick_ms"]["p50"] > 0
    assert row["deadline_misses"] >= 0 and row["cem_ratio_wall"] > 0
    assert row["cem_ratio_transitions"] > 0 and len(row["model_hash"]) == 12
    assert facts["ros"]["nodes"] == ["/command_gate", "/demo", "/mpc_node", "/sim_bridge"]
    assert facts["ros"]["domain"] == ros_domain and facts["ros"]["rmw"].startswith("rmw_")
    reaction = facts["ros"]["stamp_to_command_ms"]
    assert reaction["n"] + reaction["ticks_without"] == row["tick_ms"]["n"]
    assert reaction["n"] > reaction["ticks_without"]
    # a tick and the way through the gate lie between the two
    assert row["tick_ms"]["p50"] < reaction["max"]
    assert 0 < reaction["p50"] <= reaction["p95"] <= reaction["p99"] <= reaction["max"]
    told = f"from the camera's stamp to the robot's command: p50 {reaction['p50']:.1f}, "
    assert told in capsys.readouterr().out
    page = (config.out / "report.html").read_text()
    assert f"over DDS (n = {reaction['n']})" in page
    (episode,) = facts["per_episode"]
    assert episode["seed"] == episode_seed(4, 0)
    assert episode["steps"] == 50 or episode["success"]
    # the baselines' environment draws the very start and goal that the bridge showed
    _, info = make_task("pusht").reset(seed=episode["seed"])
    assert episode["start_error"] == info["error"]
    for name in ("film.webp", "report.html", "still.png", "nodes.log"):
        assert (config.out / name).stat().st_size > 0


def test_a_node_killed_in_mid_episode_ends_the_demo(
    config: demo.Config,
    pids: dict[str, int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    episode = Stage.episode

    def sabotaged(self: Stage, seed: int, steps: int, period: float, tell: Any) -> None:
        def kill_at_five(moment: Any) -> None:
            if moment.step == 5:
                self.supervisor.send("sim_bridge", signal.SIGKILL)
            tell(moment)

        episode(self, seed, steps, period, kill_at_five)

    monkeypatch.setattr(Stage, "episode", sabotaged)
    assert run(config) == 1
    assert "error: sim_bridge ended by SIGKILL" in capsys.readouterr().err
    assert not any(map(running, pids.values()))
    assert not (config.out / "report.json").exists()


def test_a_node_that_cannot_start_is_named_and_stale_reports_go(
    config: demo.Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "print('no gears left'); raise SystemExit(3)"
    broken = [Process("mpc_node", (sys.executable, "-c", words))]
    monkeypatch.setattr(demo, "processes", lambda *_: broken)
    config.out.mkdir()
    (config.out / "report.json").write_text("{}")
    begin = time.monotonic()
    assert run(config) == 1
    assert time.monotonic() - begin < demo.START_S
    told = capsys.readouterr().err
    assert "mpc_node ended with code 3" in told and "no gears left" in told
    assert not (config.out / "report.json").exists()
