"""Every command of README, tutorial and recordings page runs, in order; with less data and time.

What starts nodes runs in ``test/nodes/test_page_launches.py``; ``ELSEWHERE`` names the rest.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from rosbags.rosbag2 import Reader

from wm_mpc.cli.main import main
from wm_mpc.data.bags.typelib import common_types
from wm_mpc.data.bags.writer import BagWriter, WriterConfig
from wm_mpc.data.store.store import Store

pytest.importorskip("gymnasium")

ROOT = Path(__file__).resolve().parents[1]
LAUNCHES = "test/nodes/test_page_launches.py"
DEMO, PLAYER = "test/nodes/test_demo_run.py", "test/nodes/test_player.py"
ELSEWHERE: dict[str, str] = {
    "make test": ".ci/run",
    "make demo": LAUNCHES,
    'make demo ARGS="--episodes 3 --seed 7"': DEMO,
    'make demo ARGS="--task wall"': LAUNCHES,
    'make demo ARGS="--planner cem"': DEMO,
    "WM_MPC_DEMO_EPISODES=3 make demo": "test/test_demo.py",
    'make demo ARGS="--view"': LAUNCHES,
    'make demo ARGS="--task wall --model runs/wall"': LAUNCHES,
    ".venv/bin/wm-mpc launch pusht_sim": LAUNCHES,
    "wm-mpc launch pusht_sim": LAUNCHES,
    "wm-mpc launch pusht_sim seed:=7 planner:=mppi log_level:=warn": LAUNCHES,
    "wm-mpc bag record --out bags/run1 --task pusht": LAUNCHES,
    "wm-mpc launch pusht_sim record:=true": LAUNCHES,
    "wm-mpc bag info bags/run1 --recover bags/run1_sound": LAUNCHES,
    "ros2 bag record": "a recording of the same topics is made below",
    "python tools/lerobot_round_trip.py": "hours; reading and writing: test/data/test_lerobot.py",
    "wm-mpc launch robot params_file:=my_robot.yaml": PLAYER,
    "wm-mpc bag play": PLAYER,
    "sha256sum": "after training in full; equal weights: below",
}
"""Beginning of a command -> what runs it, or why nothing does."""
QUICK = {
    "--goals": "1", "--dynamics.steps": "4", "--joint.steps": "4", "--reader-steps": "4",
    "--landmarks.compositions": "16", "--landmarks.steps": "2",
}  # fmt: skip
LESS = {
    "train wall": ["--landmarks.batch", "8", "--dynamics.batch", "8", "--held-out", "0.2"],
    "train robot": [
        "--held-out", "0.2", "--window", "3", "--dynamics.batch", "8", "--joint.batch", "8",
        "--validation.windows", "4", "--validation.frames", "20",
    ],
    "train dino": [
        "--dino.image-size", "32", "--dino.patch-size", "8", "--dino.dim", "16", "--dino.layers",
        "1", "--dino.heads", "2", "--dino.local-size", "16", "--dino.local-crops", "1",
        "--dino.batch", "2", "--dino.steps", "2",
    ],
    "bench": ["--goals", "1", "--options", "cem.iterations=2"],
}  # fmt: skip


def commands(page: str) -> list[str]:
    """Lines of the page's shell blocks, but for those that say they need another machine."""
    text = (ROOT / page).read_text()
    text = re.sub(r"<!-- not run: [^>]+ -->\n```sh\n.*?```", "", text, flags=re.DOTALL)
    found = []
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        found += list(unrolled(block.replace("\\\n", " ")))
    return found


def unrolled(block: str) -> Iterator[str]:
    """Lines of a block, a loop's body once for each of its words."""
    lines = [line for line in map(str.strip, block.splitlines()) if line]
    while lines:
        line = lines.pop(0)
        loop = re.fullmatch(r"for (\w+) in (.+); do", line)
        if loop is None:
            yield line.split(" #")[0].strip()
            continue
        body = lines[: lines.index("done")]
        del lines[: len(body) + 1]
        for word in loop[2].split():
            yield from (inner.replace(f"${loop[1]}", word) for inner in body)


def elsewhere(line: str) -> str | None:
    """What runs a command that is not run here."""
    exact = ELSEWHERE.get(line)
    prefixes = [name for name in ELSEWHERE if "make" not in name and line.startswith(name + " ")]
    return exact or (ELSEWHERE[prefixes[0]] if prefixes else None)


def shortened(line: str) -> list[str]:
    """The same command with less data, training and goals."""
    words = shlex.split(line)[1:]
    kind = next((kind for kind in LESS if " ".join(words).startswith(kind)), "")
    if words[:2] == ["collect", "wall"]:
        words[words.index("--episodes") + 1] = "10"
    for option, value in QUICK.items():
        if option in words:
            words[words.index(option) + 1] = value
        elif kind.startswith("train wall") and option not in ("--goals", "--joint.steps"):
            words += [option, value]
        elif kind == "train robot" and option.endswith("steps") and "landmark" not in option:
            words += [option, value]
    words += LESS.get(kind, [])
    return words


def renamed(bag: Path, out: Path, names: Mapping[str, str]) -> None:
    """A copy of a bag under a robot's own topic names."""
    types = common_types()
    with Reader(bag) as reader, BagWriter(out, WriterConfig(min_free_mb=0)) as writer:
        for c in reader.connections:
            if c.topic in names:
                writer.add_topic(names[c.topic], c.msgtype)
        for c, stamp, data in reader.messages():
            if c.topic in names:
                assert c.msgtype in types.types
                writer.write(names[c.topic], stamp, bytes(data))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of simulated motion, as a robot would have made it."""
    folder = tmp_path_factory.mktemp("recorded")
    run(f"wm-mpc collect wall --episodes 10 --seed 9 --out {folder / 'store'}")
    run(f"wm-mpc bag export {folder / 'store'} --out {folder / 'bag'}")
    return folder / "bag"


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Commands may set how many threads torch has; the tests that follow have their own."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def run(line: str) -> None:
    """Run a command in this process."""
    assert main(shortened(line)) == 0, line


@pytest.mark.parametrize("page", ["README.md", "docs/tutorial.md", "docs/rosbags.md"])
def test_what_runs_elsewhere_is_there(page: str) -> None:
    lines = commands(page)
    assert lines
    for line in lines:
        assert line.startswith("wm-mpc ") or elsewhere(line), line
    named = {word for word in ELSEWHERE.values() if word.startswith("test/")}
    assert [path for path in named if not (ROOT / path).is_file()] == []
    launches = (ROOT / LAUNCHES).read_text()
    here = [line for line, where in ELSEWHERE.items() if where == LAUNCHES]
    assert [line for line in here if line.removeprefix(".venv/bin/") not in launches] == []


def test_every_command_of_the_tutorial(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wm_mpc").symlink_to(ROOT / "wm_mpc")
    names = {"/image": "/camera/image", "/proprio": "/joint_states", "/command": "/commands"}
    renamed(recorded, tmp_path / "my_bag", names)
    for line in commands("docs/tutorial.md"):
        if elsewhere(line) is None:
            run(line)
    (row,) = json.loads((tmp_path / "out" / "eval.json").read_text())["results"]
    assert (row["task"], row["planner"], row["n"]) == ("pusht", "adam", 1)
    rows = json.loads((tmp_path / "out" / "bench.json").read_text())["results"]
    assert [row["planner"] for row in rows] == ["cem", "cem", "adam"]
    assert (tmp_path / "runs" / "wall" / "world_model.safetensors").is_file()
    assert len(Store.open(tmp_path / "data" / "mine")) == 10


def test_every_command_of_the_page_on_recordings(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wm_mpc").symlink_to(ROOT / "wm_mpc")
    names = {
        "/image": "/camera/image_raw", "/proprio": "/joint_states",
        "/command": "/arm_controller/commands",
    }  # fmt: skip
    renamed(recorded, tmp_path / "rosbag2_2026_01_01", names)
    for line in commands("docs/rosbags.md"):
        if elsewhere(line) is None:
            run(line)
    # the page says so: number by number, pixels included, and the same weights
    one, other = (Store.open(tmp_path / "data" / name) for name in ("wall", "wall_again"))
    assert len(one) == len(other) == 10
    for a, b in zip(one, other, strict=True):
        for name in ("images", "actions", "proprio", "state"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    weights = [
        (tmp_path / "models" / name / "world_model.safetensors").read_bytes()
        for name in ("wall_600", "wall_from_bags")
    ]
    assert weights[0] == weights[1]
