"""The command table: help, errors in one line, exit codes."""

from __future__ import annotations

import dataclasses
import importlib
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from types import ModuleType
from typing import Annotated, Literal

import pytest
from annotated_types import Ge, Gt, Le

from wm_mpc import __version__
from wm_mpc.cli import main as cli
from wm_mpc.core.errors import UserError
from wm_mpc.core.fields import Checked, PositiveInt


@dataclass(frozen=True)
class Config:
    """Pretend to work."""

    amount: int = 1
    """[pieces] in [1, 9]."""

    fail: str = ""
    """What run() raises."""

    def __post_init__(self) -> None:
        """Check the bound."""
        if not 1 <= self.amount <= 9:
            raise ValueError(f"amount: {self.amount}; a value in [1, 9] expected")


def run(config: Config) -> int:
    if config.fail == "user":
        raise UserError("episodes: 0; at least 1\nexpected")
    if config.fail == "extra":
        raise ModuleNotFoundError("No module named 'gymnasium.envs'", name="gymnasium.envs")
    if config.fail == "interfaces":
        raise ModuleNotFoundError("No module named 'wm_mpc.msg'", name="wm_mpc.msg")
    if config.fail == "libgl":
        raise ImportError("libGL.so.1: cannot open shared object file")
    if config.fail == "ours":
        raise ModuleNotFoundError("No module named 'wm_mpc.nope'", name="wm_mpc.nope")
    if config.fail == "value":
        raise ValueError("a defect")
    if config.fail == "interrupt":
        raise KeyboardInterrupt
    return config.amount - 1


@dataclass(frozen=True)
class Part(Checked):
    """A group of options.

    Attributes:
        share: [1] how much.
    """

    share: Annotated[float, Gt(0), Le(1)] = 0.5


@dataclass(frozen=True)
class Other:
    """Another sub-command."""

    path: str
    """Somewhere."""


@dataclass(frozen=True)
class Ranged(Checked):
    """A sub-command with declared bounds.

    Attributes:
        parts: how many.
        sizes: [px] of each.
        kind: which.
        part: a group.
    """

    parts: PositiveInt = 1
    sizes: tuple[Annotated[int, Ge(16), Le(64)], ...] = (32,)
    kind: Literal["round", "square"] = "round"
    part: Part = field(default_factory=Part)


@pytest.fixture(autouse=True)
def commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two commands of our own: ``work`` with one Config, ``many`` with sub-commands."""
    work, many = ModuleType("work_module", "Works.\n\nAt length."), ModuleType("many_module")
    vars(work).update(Config=Config, run=run)
    configs = {"one": Config, "other": Other, "ranged": Ranged}
    vars(many).update(configs=configs, run=lambda c: len(vars(c)))
    for module in (work, many):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    table = {
        **cli.COMMANDS,
        "work": cli.Command("work_module", "works", ""),
        "many": cli.Command("many_module", "does much", ""),
        "absent": cli.Command("wm_mpc.absent_module", "is not there", ""),
    }
    monkeypatch.setattr(cli, "COMMANDS", table)


def test_help_lists_every_command_and_imports_nothing_heavy() -> None:
    code = "import sys, wm_mpc.cli.main as c; c.main(['--help']); print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for name, command in cli.COMMANDS.items():
        if command.module.startswith(("wm_mpc", "sim_bridge")) and name != "absent":
            assert f"  {name} " in done.stdout and command.help in done.stdout
    assert not {"torch", "tyro", "numpy", "rclpy", "cv2"} & set(done.stdout.splitlines())


def test_no_command_is_an_error_that_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert "usage: wm-mpc" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"wm-mpc {__version__}\n"


def test_the_exit_code_is_the_commands() -> None:
    assert cli.main(["work"]) == 0
    assert cli.main(["work", "--amount", "4"]) == 3
    assert cli.main(["many", "other", "--path", "x"]) == 1
    assert cli.main(["many", "one"]) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nope"], "command: 'nope' is unknown; one of demo, launch,"),
        (["work", "--amount", "12"], "amount: 12; a value in [1, 9] expected"),
        (["work", "--amount", "x"], "'x'"),
        (["work", "--nope", "1"], "--nope"),
        (["many", "other"], "path"),
        (["many", "third"], "third"),
        (["many", "ranged", "--parts", "0"], "parts: 0; at least 1 expected"),
        (["many", "ranged", "--sizes", "32", "8"], "(32, 8); 16 to 64 expected"),
        (["many", "ranged", "--part.share", "nan"], "share: nan; in (0, 1] expect"),
        (["work", "--fail", "user"], "episodes: 0; at least 1 expected"),
        (["work", "--fail", "extra"], "module gymnasium is missing: pip install 'wm-mpc[sim]'"),
        (["work", "--fail", "interfaces"], "interfaces are not built; pip install . or colcon"),
        (["work", "--fail", "libgl"], "apt install libgl1 libglib2.0-0"),
        (["absent"], "absent: wm_mpc.absent_module is not part of this installation"),
    ],
)
def test_bad_input_is_one_line_and_code_2(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("wm-mpc: error: ") and err.count("\n") == 1
    assert said in err


@pytest.mark.parametrize(("fail", "error"), [("value", ValueError), ("ours", ImportError)])
def test_defects_are_not_dressed_up_as_bad_input(fail: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        cli.main(["work", "--fail", fail])


def test_interrupt_is_code_130() -> None:
    assert cli.main(["work", "--fail", "interrupt"]) == 130


def test_command_help_tells_fields_and_units(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["work", "--help"])
    out = capsys.readouterr().out
    assert end.value.code == 0
    assert "Works." in out and "--amount" in out and "[pieces] in [1, 9]." in out


def test_command_help_tells_the_declared_bounds(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["many", "ranged", "--help"])
    words = " ".join(re.sub(r"[^\x20-\x7e]", " ", capsys.readouterr().out).split())
    assert "how many. Range: at least 1. (default: 1)" in words
    assert "[px] of each. Range: 16 to 64. (default: 32)" in words
    assert "{round,square}" in words and "which. (default: round)" in words
    assert "[1] how much. Range: in (0, 1]. (default: 0.5)" in words


def test_a_reader_that_leaves_ends_it_quietly() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "wm_mpc.cli", "--help"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.stderr, done.returncode) == ("", 1)


# written down before the table is patched
_REAL = {name: c for name, c in cli.COMMANDS.items() if name not in ("work", "many", "absent")}


@pytest.mark.parametrize("name", sorted(_REAL))
def test_every_command_keeps_the_agreement(name: str) -> None:
    module = importlib.import_module(_REAL[name].module)
    assert callable(module.run)
    for config in getattr(module, "configs", {}).values() or [module.Config]:
        assert dataclasses.is_dataclass(config) and config.__dataclass_params__.frozen
        assert config.__doc__ and not config.__doc__.startswith(f"{config.__name__}(")
