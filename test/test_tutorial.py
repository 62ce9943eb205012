"""Commands in README and tutorial are ones that the command line takes, as they are written.

``test_page_commands.py`` runs them, with less data and time.
"""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from wm_mpc.bringup.description import find, parse_arguments
from wm_mpc.cli import main as cli

ROOT = Path(__file__).resolve().parents[1]


def commands() -> list[str]:
    """Every ``wm-mpc ...`` line of shell blocks, and what ``make demo ARGS=...`` stands for."""
    found = []
    for name in ("README.md", "docs/tutorial.md"):
        text = (ROOT / name).read_text()
        for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
            for line in block.splitlines():
                words = shlex.split(line, comments=True)
                if words and words[0].endswith("wm-mpc"):
                    found.append(shlex.join(words[1:]))
                given = [w.removeprefix("ARGS=") for w in words if w.startswith("ARGS=")]
                if "demo" in words and given:
                    found.append(f"demo {given[0]}")
    return sorted(set(found))


def test_there_is_something_to_check() -> None:
    assert len(commands()) > 10


@pytest.mark.parametrize("line", commands())
def test_commands_are_understood(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = shlex.split(line)
    module = importlib.import_module(cli.COMMANDS[words[0]].module)
    seen: list[Any] = []

    def note(config: Any) -> int:
        seen.append(config)
        return 0

    monkeypatch.setattr(module, "run", note)
    assert cli.main(words) == 0 and len(seen) == 1
    if words[0] == "launch":
        parse_arguments(find(seen[0].name), list(seen[0].arguments))
