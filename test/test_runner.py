"""``wm-mpc launch``: the nodes' command lines, signals and exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from wm_mpc.bringup import description as bringup
from wm_mpc.bringup import start as runner
from wm_mpc.cli import main as cli

ROOT = Path(__file__).resolve().parents[1]
# a stand-in for a node: announces itself, ends in order on SIGINT
DUMMY = """
import signal, sys, time
def end(number, frame):
    print("got", signal.Signals(number).name, flush=True)
    sys.exit({code})
signal.signal(signal.SIGINT, end)
signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
time.sleep({life})
sys.exit({code})
"""
MAIN = """
import sys
from wm_mpc.bringup.supervisor import Process
from wm_mpc.bringup.start import supervise
specs = [Process(name, tuple(command)) for name, command in {specs!r}]
sys.exit(supervise(specs, grace_s=5))
"""


def supervised(*dummies: tuple[str, float, int]) -> subprocess.Popen[str]:
    """A runner in a process of its own, over dummy nodes (name, seconds to live, exit code)."""
    specs = [
        (name, [sys.executable, "-S", "-c", DUMMY.format(life=life, code=code)])
        for name, life, code in dummies
    ]
    return subprocess.Popen(
        [sys.executable, "-c", MAIN.format(specs=specs)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def read_until_ready(process: subprocess.Popen[str], count: int) -> list[str]:
    lines = []
    while sum(line.endswith("] ready\n") for line in lines) < count:
        line = process.stdout.readline()
        assert line, lines
        lines.append(line)
    return lines


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_every_node_and_the_end_is_orderly(number: signal.Signals) -> None:
    process = supervised(("a", 60, 0), ("b", 60, 0))
    read_until_ready(process, 2)
    process.send_signal(number)
    rest, _ = process.communicate(timeout=30)
    assert process.returncode == 0, rest
    for name in "ab":
        assert f"[{name}] got {number.name}" in rest


def test_a_required_node_that_dies_ends_the_rest_with_its_code() -> None:
    process = supervised(("a", 60, 0), ("b", 0.5, 5))
    rest, _ = process.communicate(timeout=30)
    assert process.returncode == 5
    assert "[b] ended with code 5" in rest
    assert "[launch] a required node ended" in rest


def test_overrides_reach_their_node_only() -> None:
    processes = runner.processes("pusht_sim", {}, {"sim_bridge": {"auto_reset": False}})
    given = {
        process.name: [word for word in process.command if word.startswith("auto_reset")]
        for process in processes
    }
    assert given == {"sim_bridge": ["auto_reset:=false"], "mpc_node": [], "command_gate": []}


def test_command_line_carries_the_whole_description() -> None:
    given = {"namespace": "left", "seed": "3", "model": "12", "log_level": "debug"}
    given |= {"image_topic": "/cam"}
    nodes = bringup.resolve(bringup.find("robot"), given)
    (node,) = (node for node in nodes if node.executable == "mpc_node")
    words = runner.command_line(node)
    assert words[0] == sys.executable and Path(words[1]).name == "mpc_node"
    pairs = list(zip(words, words[1:], strict=False))
    assert ("-r", "__node:=mpc_node") in pairs
    assert ("-r", "__ns:=/left") in pairs
    assert ("-r", "image:=/cam") in pairs
    assert ("--params-file", str(ROOT / "config" / "robot.yaml")) in pairs
    assert ("--log-level", "debug") in pairs
    values = [word.partition(":=") for flag, word in pairs if flag == "-p"]
    read = {name: yaml.safe_load(value) for name, _, value in values}
    # a model folder called 12 stays text, a seed becomes a number
    assert read == {"seed": 3, "use_sim_time": False, "model": "12"}
    assert json.loads(dict((n, v) for n, _, v in values)["model"]) == "12"


@pytest.mark.parametrize("name", list(bringup.BRINGUPS))
def test_every_node_has_an_executable_that_python_reads(name: str) -> None:
    specs = runner.processes(name, {"online_finetune": "true", "record": "true"})
    for spec in specs:
        path = Path(spec.command[1])
        assert os.access(path, os.X_OK)
        compile(path.read_text(), str(path), "exec")
        assert spec.env.get("AMENT_PREFIX_PATH") or runner.ros_env.rclpy_source() is None


@pytest.mark.parametrize("name", list(bringup.BRINGUPS))
def test_show_args_lists_every_argument(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["launch", name, "--show-args"]) == 0
    out = capsys.readouterr().out
    for argument in bringup.find(name).arguments:
        assert f"{argument.name}:={argument.default}" in out
        assert argument.description in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nope"], "'nope' is unknown; one of point_maze_sim, pusht_sim"),
        (["pusht_sim", "nope:=1"], "'nope' is unknown; one of params_file"),
        (["pusht_sim", "seed:=x"], "seed: 'x'; an integer expected"),
        (["pusht_sim", "--grace-s", "0"], "grace_s: 0.0; in (0, 60] expected"),
        ([], "NAME"),
    ],
)
def test_bad_input_is_one_line_and_code_2(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["launch", *words]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1
