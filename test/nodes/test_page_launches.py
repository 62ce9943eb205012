"""Commands of README, tutorial and recordings page that start nodes, as somebody types them.

``make demo ARGS="..."`` stands for ``wm-mpc demo ...`` (test/test_make.py shows that).
"""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
from ros import START_S, Probe
from test_view import get, wait_for
from test_view_running import command

from wm_mpc.cli.main import main
from wm_mpc.core.locations import ASSETS
from wm_mpc.data.bags.inspect import inspect_bag
from wm_mpc.msg import PlannerStatus, TaskState

ROOT = Path(__file__).resolve().parents[2]
SHORT = ("--episodes", "1", "--baselines", "1")


def words(page: str, line: str) -> list[str]:
    """Arguments of a command that the page shows; a path may be ``.venv/bin/wm-mpc``."""
    shown = (ROOT / page).read_text()
    assert re.search(rf"^(\.venv/bin/)?{re.escape(line)}( |$)", shown, re.MULTILINE), line
    split = shlex.split(line)
    if split[0] == "make":
        return ["demo", *(w for a in split[2:] for w in a.removeprefix("ARGS=").split())]
    return split[1:]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ros_domain: int) -> Path:
    """A folder to work in, which is the home folder too: the gate's memory lies there."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_first_look_prints_an_address_and_ends_in_a_report(here: Path) -> None:
    """From a checkout to Push-T in a browser: one command."""
    words("README.md", "make demo")
    line = words("docs/tutorial.md", 'make demo ARGS="--view"')
    log = here / "demo.log"
    with command(log, *line, *SHORT) as demo:
        wait_for(lambda: "http://127.0.0.1:" in log.read_text(), START_S)
        (address,) = set(re.findall(r"http://127\.0\.0\.1:\d+/", log.read_text()))
        status, page = get(address)
        assert status == 200 and b"<canvas" in page
        assert demo.wait(START_S) == 0, log.read_text()
    for name in ("report.html", "report.json", "film.webp"):
        assert (here / "out" / "demo" / name).stat().st_size > 0


def test_the_demo_runs_a_model_of_ones_own(here: Path) -> None:
    words("docs/tutorial.md", 'make demo ARGS="--task wall"')
    shutil.copytree(ASSETS / "wall", here / "runs" / "wall")
    shutil.copytree(ASSETS / "encoder", here / "runs" / "encoder")
    line = words("docs/tutorial.md", 'make demo ARGS="--task wall --model runs/wall"')
    log = here / "demo.log"
    with command(log, *line, *SHORT) as demo:
        assert demo.wait(START_S) == 0, log.read_text()
    assert "report: out/demo/report.html" in log.read_text()


def test_a_launch_is_recorded_beside_it_and_by_itself(here: Path, ros_domain: int) -> None:
    seeded = words(
        "docs/tutorial.md", "wm-mpc launch pusht_sim seed:=7 planner:=mppi log_level:=warn"
    )
    record = words("docs/rosbags.md", "wm-mpc bag record --out bags/run1 --task pusht")
    recover = words("docs/rosbags.md", "wm-mpc bag info bags/run1 --recover bags/run1_sound")
    probe = Probe(ros_domain)
    probe.listen(TaskState, "task_state")
    probe.listen(PlannerStatus, "status")

    def driven(planner: str) -> bool:
        status = probe.last("status")
        return status is not None and status.planner == planner and status.ticks > 5

    try:
        with command(here / "record.log", *record) as recorder:
            with command(here / "launch.log", *seeded):
                probe.wait(lambda: driven("mppi"), START_S, "ticks of mppi")
                assert {s.seed for s in probe.since("task_state", 0)} == {7}
            recorder.terminate()
            assert recorder.wait(30) == 0
        assert main(recover) == 0
        found = inspect_bag(here / "bags" / "run1_sound").topics
        assert {"/image", "/proprio", "/command", "/plan", "/status"} <= set(found)
        # the same nodes, with a recorder of their own
        for page in ("README.md", "docs/tutorial.md"):
            words(page, "wm-mpc launch pusht_sim")
        probe.heard["status"].clear()
        recorded = words("docs/rosbags.md", "wm-mpc launch pusht_sim record:=true")
        with command(here / "launch.log", *recorded):
            probe.wait(lambda: driven("adam"), START_S, "ticks of adam")
        (bag,) = here.glob("pusht_*")
        assert inspect_bag(bag).topics["/gate_status"].messages > 0
    finally:
        probe.close()
