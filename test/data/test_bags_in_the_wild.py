"""Every kind of bag that people have: the right store, or the right word."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest

from wm_mpc.cli.main import main
from wm_mpc.data.store.store import Store

sys.path.insert(0, str(Path(__file__).parent / "bags_in_the_wild"))
from make import CASES, Case

BAGS = [(name, storage) for name, case in CASES.items() for storage in case.storages]


def checksums(folder: Path) -> dict[str, str]:
    """What lies in a folder, byte for byte."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.rglob("*")
        if file.is_file()
    }


def agree(stored: list) -> None:
    """Picture, joint and command of every step are of the same step."""
    for found in stored:
        colour = found.images[:, 0, 0, 0].astype(float)
        np.testing.assert_allclose(found.proprio[found.image_steps, 0], colour, atol=0.51)
        kept = found.image_steps[found.image_steps < len(found)]
        np.testing.assert_allclose(found.actions[kept, 0], colour[: len(kept)], atol=0.51)


def test_there_are_enough() -> None:
    assert len(BAGS) >= 40 and {storage for _, storage in BAGS} == {"mcap", "sqlite3"}


@pytest.mark.parametrize(("name", "storage"), BAGS)
def test_a_bag_of_the_wild(
    tmp_path: Path, capsys: pytest.CaptureFixture, name: str, storage: str
) -> None:
    case: Case = CASES[name]
    bag, out = tmp_path / case.name, tmp_path / "store"
    case.make(tmp_path / "made", storage)
    (tmp_path / "made").rename(bag)
    rate = () if "--rate" in case.words else ("--rate", "10")
    if case.second:
        case.second(tmp_path / "second", storage)
        words = ["bag", "import", str(tmp_path / "second"), "--out", str(out), "--quiet", *rate]
        assert main(words) == 0
        capsys.readouterr()
    before = checksums(bag)

    code = main(["bag", "import", str(bag), "--out", str(out), "--quiet", *rate, *case.words])

    told = capsys.readouterr()
    said = told.out + told.err
    assert code == case.code, said
    for words in case.said:
        assert words in said, said
    assert "Traceback" not in said
    assert checksums(bag) == before
    stored = list(Store.open(out)) if (out / "store.json").exists() else []
    if case.lengths is not None:
        assert tuple(len(t) for t in stored) == case.lengths, said
    elif case.code == 0:
        assert sum(len(t) for t in stored) >= 30, said
    if case.aligned:
        agree(stored)
    if case.check:
        case.check(stored)
    assert main(["bag", "info", str(bag), "--check"]) in (0, 3)
    assert checksums(bag) == before
