"""Load mutated copies of a model folder: no crash, no hang, no memory, one line each.

    python tools/mutate_checkpoints.py wm_mpc/assets/wall --count 300 --seed 0

Half of the mutations are of the record's values and types, half of bytes of the two files; where
only values change, the recorded digest is made to fit, so that later checks are reached too.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import resource
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from wm_mpc.core.errors import UserError
from wm_mpc.core.provenance import write_report
from wm_mpc.models.world_model import WorldModel

RECORD, WEIGHTS = "world_model.json", "world_model.safetensors"
VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1, 3, 10**4, 10**9, 10**30, -1e300, 0.5, float("nan"), float("inf"), "",
    "x" * 1000, "~nosuchuser", [], [1, 2], [[[]]], {}, {"a": {"b": []}},
)  # fmt: skip


def mutate_record(folder: Path, draw: random.Random) -> None:
    """Replace, drop or add one value somewhere in the record."""
    record = json.loads((folder / RECORD).read_text())
    place = record
    while True:
        key = draw.choice(sorted(place))
        inner = place[key]
        if isinstance(inner, dict) and inner and draw.random() < 0.8:
            place = inner
            continue
        break
    if draw.random() < 0.2:
        del place[key]
    else:
        place[key if draw.random() < 0.9 else "unheard of"] = draw.choice(VALUES)
    (folder / RECORD).write_text(json.dumps(record))


def mutate_bytes(folder: Path, draw: random.Random) -> None:
    """Flip, cut or append bytes of one file; often with a digest that fits."""
    name = draw.choice((RECORD, WEIGHTS, WEIGHTS))
    data = bytearray((folder / name).read_bytes())
    end = len(data) if draw.random() < 0.5 else min(len(data), 3000)
    how = draw.randrange(4)
    if how == 0:
        data = data[: draw.randrange(len(data))]
    elif how == 1:
        data += bytes(draw.randrange(1, 5000))
    else:
        for _ in range(draw.choice((1, 8, 200))):
            data[draw.randrange(end)] = draw.randrange(256)
    (folder / name).write_bytes(data)
    if name == WEIGHTS and draw.random() < 0.7:
        record = json.loads((folder / RECORD).read_text())
        record["sha256"][WEIGHTS] = hashlib.sha256(data).hexdigest()
        (folder / RECORD).write_text(json.dumps(record))


def run(good: Path, count: int, seed: int) -> dict[str, Any]:
    """Load ``count`` mutations of a folder.

    Returns:
        How many were refused and loaded, the slowest [s], growth of the process [MB], and what
        raised anything but a one-line error of this package.
    """
    draw = random.Random(seed)
    refused, loaded, slowest, crashes = 0, 0, 0.0, []
    WorldModel.load(good, with_encoder=False)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as place:
        for number in range(count):
            folder = Path(place) / str(number)
            shutil.copytree(good, folder)
            (mutate_record if draw.random() < 0.5 else mutate_bytes)(folder, draw)
            started = time.monotonic()
            try:
                WorldModel.load(folder, with_encoder=False)
                loaded += 1
            except UserError as error:
                refused += 1
                if "\n" in str(error):
                    crashes.append(f"{number}: more than one line: {error}")
            except Exception as error:  # what this looks for
                crashes.append(f"{number}: {type(error).__name__}: {error}")
            slowest = max(slowest, time.monotonic() - started)
            shutil.rmtree(folder)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return {
        "n": count, "refused": refused, "loaded": loaded, "slowest_s": slowest,
        "memory_mb": grown, "crashes": crashes,
    }  # fmt: skip


def main() -> int:
    """Run and print; exit code 1 where anything crashed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", type=Path, help="JSON report")
    config = parser.parse_args()
    row = run(config.model, config.count, config.seed)
    print(json.dumps(row, indent=1))
    if config.report:
        write_report(config.report, config.seed, [row], model=config.model)
    return bool(row["crashes"])


if __name__ == "__main__":
    raise SystemExit(main())
