"""``import wm_mpc`` is cheap, and what it offers is there."""

from __future__ import annotations

import subprocess
import sys

import pytest

import wm_mpc

NAMES = {"Controller", "Engine", "PlanRequest", "Store", "WorldModel", "make_planner"}


def test_it_imports_nothing_heavy() -> None:
    code = "import sys, wm_mpc; dir(wm_mpc); print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "cv2", "transformers"} & set(done.stdout.splitlines())


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_name_resolves(name: str) -> None:
    found = getattr(wm_mpc, name)
    assert found.__name__ == name and found.__module__.startswith("wm_mpc.")


def test_the_names_are_listed_and_no_other_is_made_up() -> None:
    assert set(wm_mpc.__all__) == NAMES and set(dir(wm_mpc)) >= NAMES
    with pytest.raises(AttributeError, match="'wm_mpc' has no attribute 'Planner'"):
        wm_mpc.Planner  # noqa: B018
