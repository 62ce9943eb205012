#!/usr/bin/env python3
"""Write the tables of docs/rosbags.md that follow from code: encodings, and the bags of the wild.

python tools/rosbag_docs.py          # writes them into the page
"""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "rosbags.md"
CORPUS = ROOT / "test" / "data" / "bags_in_the_wild"
_BITS = {8: "8 bits", 16: "16 bits", 32: "32 bits"}


def encodings() -> str:
    """Encodings of raw pictures and what becomes of them."""
    from wm_mpc.data.encodings import ENCODINGS

    rows = ["| encoding | numbers per pixel | of | read as |", "|---|---|---|---|"]
    for name, found in ENCODINGS.items():
        share = "1.5" if found.rows == 3 else str(found.channels)
        unit = "millimetres" if found.scale == 0.001 else "metres"
        meaning = f"depth in {unit}, grey by `--depth-range`" if found.depth else "RGB"
        if name.startswith(("mono", "8UC1")):
            meaning = "grey"
        elif name.startswith("bayer"):
            meaning = "RGB, demosaiced; even sides"
        elif found.even:
            meaning = "RGB; even sides"
        rows.append(f"| `{name}` | {share} | {_BITS[found.bits]} | {meaning} |")
    return "\n".join(rows)


def corpus() -> str:
    """Kinds of bags and what an import makes of each."""
    sys.path[:0] = [str(CORPUS), str(CORPUS.parent)]
    cases = importlib.import_module("make").CASES

    ends = {0: "0, complete", 1: "1, nothing", 2: "2, refused", 3: "3, in part"}
    rows = ["| bag | in | options | exit code | steps | said |", "|---|---|---|---|---|---|"]
    for name, case in cases.items():
        lengths = "" if case.lengths is None else " + ".join(map(str, case.lengths)) or "0"
        said = "; ".join(case.said).replace("|", "\\|")
        options = f"`{' '.join(case.words)}`" if case.words else ""
        rows.append(
            f"| {name.replace('_', ' ')} | {', '.join(case.storages)} | {options} | "
            f"{ends[case.code]} | {lengths} | {said} |"
        )
    return "\n".join(rows)


def with_tables(text: str) -> str:
    """The page with its tables written anew."""
    for name, table in (("encodings", encodings()), ("corpus", corpus())):
        pattern = rf"(<!-- {name}: tools/rosbag_docs.py -->\n).*?(<!-- end -->)"
        text, count = re.subn(
            pattern, lambda found, t=table: f"{found[1]}\n{t}\n{found[2]}", text, flags=re.DOTALL
        )
        if count != 1:
            raise SystemExit(f"{PAGE}: {count} places for {name}; 1 expected")
    return text


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
