import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from wm_mpc.control.safety import SafetyLimits

ROOT = Path(__file__).parents[1]


@pytest.fixture
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs", ROOT / "tools" / "parameter_docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_dataclasses_say(tool: ModuleType) -> None:
    written = (ROOT / "docs" / "parameters.md").read_text()
    hint = "python tools/parameter_docs.py > docs/parameters.md"
    assert written == tool.page(), f"out of date: {hint}"


def test_a_row_tells_type_default_range_and_meaning(tool: ModuleType) -> None:
    rows = {row.split("`")[1]: row for row in tool.table(SafetyLimits()).splitlines()[2:]}
    assert rows["ramp_s"].startswith("| `ramp_s` | real | 0.2 | 0 to 10 | [s] time in which")
    assert rows["rate_limit"].startswith("| `rate_limit` | list of real | empty | more than 0 |")


def test_a_row_tells_what_may_change_while_the_node_runs(tool: ModuleType) -> None:
    rows = tool.table(SafetyLimits(), live=True).splitlines()[2:]
    change = {row.split("`")[1]: row.split(" | ")[4] for row in rows}
    assert change["rate_limit"] == "live, downward" and change["action_low"] == "live, upward"
    assert change["ramp_s"] == "restart"
