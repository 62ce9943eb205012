"""The demo without ROS: what it accepts, what stops it, and what it reports."""

from __future__ import annotations

import json
import math
import signal
import time
from concurrent.futures import Future
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from replayed import replay

from wm_mpc.control.tick import State
from wm_mpc.evaluation.jobs import episode_seed
from wm_mpc.trials import demo, demo_report, film, page
from wm_mpc.trials.demo import Config
from wm_mpc.trials.recording import Command
from wm_mpc.trials.stage import DemoError, NodeLog, Stage

# ---- what is asked for -------------------------------------------------------------------------


def test_environment_variables_are_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"EPISODES": "3", "SEED": "7", "TASK": "wall", "TIMEOUT": "9.5"}.items():
        monkeypatch.setenv(f"WM_MPC_DEMO_{name}", value)
    config = Config()
    assert (config.episodes, config.seed, config.task, config.timeout) == (3, 7, "wall", 9.5)
    assert Config(episodes=2).episodes == 2
    monkeypatch.setenv("WM_MPC_DEMO_EPISODES", "many")
    with pytest.raises(ValueError, match="WM_MPC_DEMO_EPISODES: 'many'; int expected"):
        Config()


def test_a_window_is_asked_for_and_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not Config().view
    monkeypatch.setenv("WM_MPC_DEMO_VIEW", "1")
    assert Config().view
    monkeypatch.setenv("WM_MPC_DEMO_VIEW", "0")
    assert not Config().view


@pytest.mark.parametrize(
    ("field", "value", "bound"),
    [
        ("episodes", 0, "1 to 1000"),
        ("seed", -1, "0 to 2147483647"),
        ("task", "tetris", "pusht"),
        ("planner", "magic", "adam"),
        ("timeout", float("nan"), "at least 0"),
        ("baselines", 0, "1 to 10000"),
    ],
)
def test_bad_settings_name_field_value_and_bound(field: str, value: Any, bound: str) -> None:
    with pytest.raises(ValueError, match=f"{field}: .*{bound}.*expected"):
        Config(**{field: value})


# ---- what stops it -----------------------------------------------------------------------------


class Nodes:
    """Stands in for the supervisor: return codes by name."""

    def __init__(self, **codes: int | None) -> None:
        self.codes = codes

    def poll(self) -> dict[str, int | None]:
        return self.codes


def stage(tmp_path: Path, nodes: Nodes | None = None, **changes: Any) -> Stage:
    log = NodeLog((tmp_path / "nodes.log").open("w"))
    log("mpc_node", "out of gears")
    parts = {
        "supervisor": nodes or Nodes(mpc_node=None, sim_bridge=None),
        "observer": SimpleNamespace(status=None),
        "log": log,
        "interrupted": [],
        "view": None,
        "end": time.monotonic() + 60,
    }
    return Stage(**{**parts, **changes})


def status(state: State, reason: str, ticks: int = 0) -> SimpleNamespace:
    return SimpleNamespace(status=SimpleNamespace(state=int(state), reason=reason, ticks=ticks))


def test_a_node_that_dies_is_named_with_its_last_words(tmp_path: Path) -> None:
    watched = stage(tmp_path, Nodes(mpc_node=-signal.SIGKILL, sim_bridge=None))
    with pytest.raises(DemoError, match="(?s)mpc_node ended by SIGKILL.*out of gears"):
        watched.wait(lambda: False, 5.0, "nothing")


def test_a_controller_that_gives_up_ends_the_demo(tmp_path: Path) -> None:
    watched = stage(tmp_path, observer=status(State.FAULT, "model: gone"))
    with pytest.raises(DemoError, match="mpc_node: FAULT: model: gone"):
        watched.wait(lambda: False, 5.0, "nothing")


def test_waiting_ends_with_what_was_missed_and_what_the_controller_says(tmp_path: Path) -> None:
    watched = stage(tmp_path, observer=status(State.SAFE_STOP, "image: none received"))
    with pytest.raises(DemoError, match="first plans not within 0 s; .*image: none received"):
        watched.wait(lambda: False, 0.05, "first plans")
    watched.end = time.monotonic() + 0.05
    with pytest.raises(DemoError, match="timeout: first plans when the time was up"):
        watched.wait(lambda: False, 5.0, "first plans")


def test_a_signal_ends_the_wait(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        stage(tmp_path, interrupted=[signal.SIGTERM]).wait(lambda: False, 5.0, "nothing")
    assert stage(tmp_path).wait(lambda: "value", 5.0, "nothing") == "value"


def test_a_refused_reset_and_an_episode_without_a_plan_are_failures(tmp_path: Path) -> None:
    recording = replace(replay(1, steps=3), ticks=())
    answer = SimpleNamespace(success=False, message="seed: too odd")
    future: Future = Future()
    future.set_result(answer)
    observer = SimpleNamespace(
        status=SimpleNamespace(state=int(State.SAFE_STOP), reason="image: stale", ticks=0),
        begin=lambda seed: future,
        newest=lambda: recording.moments[-1],
        recording=lambda: recording,
    )
    watched = stage(tmp_path, observer=observer)
    with pytest.raises(DemoError, match="reset: seed: too odd"):
        watched.episode(1, 3, 0.1, lambda moment: None)
    answer.success = True
    with pytest.raises(DemoError, match="no plan in a whole episode: image: stale"):
        watched.episode(1, 3, 0.1, lambda moment: None)


def test_warming_up_takes_a_few_plans(tmp_path: Path) -> None:
    for ticks, ready in ((0, False), (99, True)):
        observer = status(State.RUNNING, "", ticks)
        observer.ready_to_begin = lambda: True
        watched = stage(tmp_path, observer=observer, end=time.monotonic() + 0.1)
        if ready:
            watched.warm_up()
        else:
            with pytest.raises(DemoError, match="first plans"):
                watched.warm_up()


# ---- what it reports ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def measured() -> demo_report.Measured:
    seeds = [episode_seed(5, index) for index in range(3)]
    recordings = [replay(seeds[0], 4), replay(seeds[1]), replay(seeds[2])]
    over = replace(
        recordings[1].ticks[2], plan_ms=50.0, cem_ratio_wall=0.25, deadline_missed=True
    )
    ticks = (*recordings[1].ticks[:2], over, *recordings[1].ticks[3:])
    recordings[1] = replace(recordings[1], ticks=ticks)
    nodes = ["/demo", "/mpc_node", "/sim_bridge"]
    ros = {"rmw": "rmw_x", "nodes": nodes, "domain": 3, "load_average": 99.0}
    config = Config(episodes=3, seed=5, baselines=4)
    ros["stamp_to_command_ms"] = demo_report.reaction(recordings, simulated=False)
    return demo.measure(config, recordings, {**ros, **demo_report.rates(recordings)})


def test_rows_compare_the_controller_with_random_and_no_action(
    measured: demo_report.Measured,
) -> None:
    controller, random, none = measured.rows
    assert [row["planner"] for row in measured.rows] == ["adam", "random", "none"]
    assert (controller["successes"], controller["n"]) == (2, 3)
    assert controller["success_ci95"][0] < 2 / 3 < controller["success_ci95"][1]
    assert controller["block_success_rate"] == pytest.approx(2 / 3)
    assert controller["cem_ratio_transitions"] == pytest.approx(0.05)
    assert controller["deadline_misses"] == 1
    for row in (random, none):
        assert row["n"] == 4 and row["same_goals"]["n"] == 3
        low, high = row["final_error"]["median_ci95"]
        assert low <= row["final_error"]["median"] <= high
    # no action leaves the blocks where the demo's episodes found them, on the same goals
    starts = sorted(r.moments[0].errors["error"] for r in measured.recordings)
    assert none["same_goals"]["final_error"]["median"] == pytest.approx(starts[1], rel=0.05)


def test_ticks_over_their_share_are_told_with_a_reason(measured: demo_report.Measured) -> None:
    budget = measured.budget
    (over,) = budget["ticks_over"]
    assert (over["episode"], over["step"]) == (2, 2)
    assert "instead of 1.20 ms" in over["why"]
    assert budget["cem_ratio_wall"]["max"] == 0.25
    assert budget["cem_ratio_wall"]["p50"] == pytest.approx(0.06)
    assert measured.ros["control_rate_hz"] == pytest.approx(10.0)


@pytest.mark.parametrize(
    ("changes", "before", "words"),
    [
        ({"budget_ms": 60.0}, {}, "configured with a larger budget: 60.00 ms"),
        ({"iterations": 0}, {}, "not even one iteration"),
        ({}, {"iterations": 0}, "the whole period was granted"),
        ({}, {}, "instead of 1.20 ms: the planner shared"),
        ({"iterations": 40}, {}, "40 iterations of 1.25 ms ended after the deadline"),
    ],
)
def test_every_way_to_exceed_the_share_has_its_reason(
    changes: dict[str, Any], before: dict[str, Any], words: str
) -> None:
    whole = replay(3)
    over = replace(whole.ticks[5], **{"plan_ms": 50.0, "cem_ratio_wall": 0.25, **changes})
    ticks = (*whole.ticks[:4], replace(whole.ticks[4], **before), over, *whole.ticks[6:])
    (told,) = demo_report.budget_facts([replace(whole, ticks=ticks)])["ticks_over"]
    assert told["step"] == 5 and words in told["why"]


def test_reactions_run_from_the_pictures_stamp_to_the_robots_command() -> None:
    """Each tick is answered by the command that has its numbers, wherever others lie."""
    whole = replay(3)
    first, second, third, fourth = whole.ticks[:4]
    requests = (
        Command(first.stamp + 1e-5, first.stamp + 1e-3, (0.1, 0.2)),
        Command(second.stamp, second.stamp + 1e-3, (0.3, 0.3)),
        Command(third.stamp + 0.06, third.stamp + 0.061, (0.5, 0.5)),
        Command(fourth.stamp, fourth.stamp + 1e-3, (0.1, 0.2)),
    )
    commands = (
        Command(first.stamp - 0.01, first.stamp - 0.009, (0.1, 0.2)),  # before it was asked for
        Command(first.stamp + 0.001, first.stamp + 0.003, (0.1, 0.2)),
        Command(second.stamp + 0.001, second.stamp + 0.002, (0.25, 0.3)),  # limited by the gate
        # a request sent late, and answered after the next tick's
        Command(third.stamp + 0.12, third.stamp + 0.125, (0.5, 0.5)),
        Command(fourth.stamp + 0.25, fourth.stamp + 0.251, (0.1, 0.2)),  # too old for the fourth
    )
    heard = replace(whole, requests=requests, commands=commands)
    # the ticks of the replay end 25 ms after their picture
    expected = [0.028, math.nan, 0.150, math.nan] + [math.nan] * (len(whole.ticks) - 4)
    assert heard.reactions() == pytest.approx(expected, abs=1e-6, nan_ok=True)
    found = demo_report.reaction([heard, whole], simulated=False)
    assert (found["n"], found["ticks_without"]) == (2, 2 * len(whole.ticks) - 2)
    assert found["p50"] == pytest.approx(89.0) and found["max"] == pytest.approx(150.0)
    line = demo_report.reaction_line(found)
    assert "p50 89.0, " in line and f"(n = 2; {found['ticks_without']} ticks without)" in line


def test_in_simulated_time_no_reaction_is_told() -> None:
    found = demo_report.reaction([replay(3)], simulated=True)
    assert found["n"] == 0 and found["why"].startswith("simulated time")
    assert "simulated time" in demo_report.reaction_line(found)
    unheard = demo_report.reaction([replay(3)], simulated=False)
    assert "no command was known again" in demo_report.reaction_line(unheard)


class Links(HTMLParser):
    """Everything a browser would fetch or run."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]


def test_the_page_holds_everything_it_shows(
    measured: demo_report.Measured, tmp_path: Path
) -> None:
    report = demo.write(tmp_path, measured)
    facts = json.loads(report.read_text())
    assert facts["episodes"] == 3 and facts["seed"] == 5 and facts["ros"]["rmw"] == "rmw_x"
    assert [entry["success"] for entry in facts["per_episode"]] == [False, True, True]
    films = film.write(tmp_path, measured)
    assert [shown.success for shown in films] == [True, False]
    text = page.write(tmp_path / "report.html", measured, report, films).read_text()
    links = Links()
    links.feed(text)
    # two films, and two pictures per episode
    assert len(links.sources) == 2 + 2 * 3
    assert all(source.startswith("data:image/") for source in links.sources)
    assert not links.tags & {"script", "link", "iframe"} and "@import" not in text
    assert "from the camera&#39;s stamp to the robot&#39;s command: no command was known" in text
    assert "2 of 3 goals reached" in text and "rmw_x" in text and "/sim_bridge" in text
    assert "99.0 processes wanted to run at a time" in text
    assert "url(" not in text and text.count("<svg") == 3 + 3
