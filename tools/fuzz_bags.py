#!/usr/bin/env python3
"""Mutate sound recordings and see that reading them neither crashes, hangs nor lies.

Every mutant is described and imported by ``wm-mpc bag`` in a process of its own. It must end
within the time and memory that are allowed, with one of the documented exit codes, without a
traceback, with an error of one line, and with the mutant as it was. What is imported with exit
code 0 from an mcap file, whose parts carry checksums, must equal what the sound recording gives.

    python tools/fuzz_bags.py --mutants 200 --seed 0 --report out/fuzz.json
"""

from __future__ import annotations

import hashlib
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
import yaml
from annotated_types import Ge, Gt

from wm_mpc.cli.main import main as wm_mpc
from wm_mpc.core.fields import Checked, PositiveInt, Seed
from wm_mpc.core.provenance import write_report
from wm_mpc.data.bags import BagWriter, Exporter, WriterConfig
from wm_mpc.data.store.store import Store
from wm_mpc.data.trajectory import Trajectory

CODES = (0, 1, 2, 3)
KINDS = ("mcap", "sqlite3", "lerobot")


@dataclass(frozen=True)
class Config(Checked):
    """How many mutants, of what, and what they may cost."""

    mutants: PositiveInt = 200
    """Mutants, the storages in turn."""

    seed: Seed = 0
    """Of the first mutant; the next one has the next seed."""

    kinds: tuple[str, ...] = ("mcap", "sqlite3")
    """mcap, sqlite3, lerobot."""

    seconds: Annotated[float, Gt(0)] = 5.0
    """[s] of the processor that one command may take, and ten times as long by the clock."""

    megabytes: Annotated[float, Gt(0)] = 1024.0
    """[MB] that it may need beyond what the sound recording needs."""

    keep: Path | None = None
    """Folder for the mutants that fail; none are kept by default."""

    first: Annotated[int, Ge(0)] = 0
    """Number of the first mutant, to look at a single one."""

    report: Path | None = None
    """JSON report."""


@dataclass
class Outcome:
    """What became of one command on one mutant."""

    mutant: int
    kind: str
    changes: list[str]
    command: str
    code: int
    seconds: float
    memory_mb: float
    faults: list[str] = field(default_factory=list)


# ---- sound recordings --------------------------------------------------------------------------


def episodes(count: int = 3, steps: int = 14) -> list[Trajectory]:
    """Recordings whose every number is unique."""
    rng = np.random.default_rng(0)
    return [
        Trajectory(
            images=rng.integers(0, 256, (steps + 1, 16, 16, 3), np.uint8),
            image_steps=np.arange(steps + 1),
            actions=rng.normal(size=(steps, 2)).astype(np.float32),
            proprio=rng.normal(size=(steps + 1, 2)).astype(np.float32),
            stamps=1.7e9 + index * 60 + np.arange(steps + 1) * 0.1,
            state=None,
            meta={"task": "fuzz", "episode": index},
        )
        for index in range(count)
    ]


def write_sound(folder: Path, kind: str) -> list[Path]:
    """The recordings that are mutated."""
    if kind == "lerobot":
        from wm_mpc.data.lerobot import export_lerobot

        made = []
        for version in ("v2.1", "v3.0"):
            for pictures in ("video", "image"):
                path = folder / f"lerobot_{version}_{pictures}"
                export_lerobot(episodes(), path, 10, "fuzz", version=version, pictures=pictures)
                made.append(path)
        return made
    layouts = {"plain": {}, "packed": {"compress": True}, "split": {"split_s": 30.0}}
    for name, layout in layouts.items():
        path = folder / f"{kind}_{name}"
        with BagWriter(path, WriterConfig(storage=kind, min_free_mb=0, **layout)) as writer:
            Exporter(writer).write(episodes())
    return [folder / f"{kind}_{name}" for name in layouts]


# ---- mutations ---------------------------------------------------------------------------------


def _place(data: bytearray, rng: random.Random, most: int = 4096) -> tuple[int, int]:
    begin = rng.randrange(len(data))
    return begin, min(len(data), begin + 1 + int(most ** rng.random()))


def flip(data: bytearray, rng: random.Random) -> None:
    """Single bits."""
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def cut(data: bytearray, rng: random.Random) -> None:
    """The end is missing."""
    del data[rng.randrange(len(data)) :]


def lose(data: bytearray, rng: random.Random) -> None:
    """A piece in the middle is missing."""
    begin, end = _place(data, rng)
    del data[begin:end]


def blank(data: bytearray, rng: random.Random) -> None:
    """A piece is zero, as after a power cut."""
    begin, end = _place(data, rng)
    data[begin:end] = bytes(end - begin)


def twice(data: bytearray, rng: random.Random) -> None:
    """A piece is there twice."""
    begin, end = _place(data, rng)
    data[end:end] = data[begin:end]


def elsewhere(data: bytearray, rng: random.Random) -> None:
    """A piece lies over another."""
    begin, end = _place(data, rng)
    at = rng.randrange(len(data))
    data[at : at + end - begin] = data[begin:end]


def noise(data: bytearray, rng: random.Random) -> None:
    """A piece is anything."""
    begin, end = _place(data, rng)
    data[begin:end] = rng.randbytes(end - begin)


def number(data: bytearray, rng: random.Random) -> None:
    """A length, count or offset lies."""
    width = rng.choice((1, 2, 4, 8))
    at = rng.randrange(max(1, len(data) - width))
    bits = 8 * width
    value = rng.choice((0, 1, 2**bits - 1, 2 ** (bits - 1), rng.getrandbits(bits)))
    data[at : at + width] = value.to_bytes(width, rng.choice(("little", "big")))


BYTES: tuple[Callable[[bytearray, random.Random], None], ...] = (
    flip, flip, cut, lose, blank, twice, elsewhere, noise, number, number,
)  # fmt: skip
LIES = (
    None, -1, 0, 1.5, 2**31, 2**63, 2**200, "", "x", "../../../etc/passwd", [], {}, [[]], True,
    float("nan"), "\u0000", "a" * 100_000,
)  # fmt: skip


def lie(path: Path, rng: random.Random) -> str:
    """Change one entry of a YAML or JSON document."""
    document = yaml.safe_load(path.read_text())
    holders: list[tuple[dict | list, str | int]] = []

    def walk(node: dict | list) -> None:
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            holders.append((node, key))
            if isinstance(node[key], (dict, list)):
                walk(node[key])

    walk(document)
    holder, key = rng.choice(holders)
    if rng.random() < 0.2:
        del holder[key]
        told = f"{path.name}: {key} missing"
    else:
        holder[key] = rng.choice(LIES)
        told = f"{path.name}: {key} = {str(holder[key])[:20]!r}"
    path.write_text(yaml.safe_dump(document))
    return told


def bomb(path: Path, rng: random.Random) -> str:
    """A document that grows when it is read."""
    levels = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9))
    text = rng.choice((f"a0: &a0 [x]\n{levels}", "[" * 5000, "{a: " * 5000, "&a [*a]"))
    path.write_text(text)
    return f"{path.name}: a document that grows"


def mutate(path: Path, rng: random.Random) -> list[str]:
    """Change a recording in one to three ways; say how."""
    told = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        files = sorted(p for p in path.rglob("*") if p.is_file() and p.stat().st_size)
        if not files:
            break
        file = rng.choice(files)
        described = file.suffix in (".yaml", ".json")
        if described and rng.random() < 0.7:
            try:
                if rng.random() < 0.1:
                    # the last change: others would let it grow here
                    return [*told, bomb(file, rng)]
                told.append(lie(file, rng))
                continue
            except (yaml.YAMLError, UnicodeDecodeError, TypeError, IndexError, RecursionError):
                pass  # changed before; bytes then
        if rng.random() < 0.05:
            file.unlink()
            told.append(f"{file.name}: missing")
            continue
        way = rng.choice(BYTES)
        data = bytearray(file.read_bytes())
        way(data, rng)
        file.write_bytes(data)
        told.append(f"{file.name}: {way.__name__}")
    return told


# ---- judging -----------------------------------------------------------------------------------


def checksum(path: Path) -> str:
    """Of everything in a folder."""
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        digest.update(str(file.relative_to(path)).encode())
        digest.update(file.read_bytes() if file.is_file() else b"")
    return digest.hexdigest()


def run(arguments: list[str], log: Path, seconds: float) -> tuple[int, float, float]:
    """Run ``wm-mpc`` in a forked process.

    Returns:
        Exit code (negative: the signal that ended it), processor's time [s], peak memory [MB].
    """
    child = os.fork()
    if not child:
        # alarms of its own, as the parent waits: what hangs in native code is ended too
        for timer, number, limit in (
            (signal.ITIMER_PROF, signal.SIGPROF, seconds),
            (signal.ITIMER_REAL, signal.SIGALRM, 10 * seconds),
        ):
            signal.signal(number, signal.SIG_DFL)
            signal.setitimer(timer, limit)
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        try:
            code = wm_mpc(arguments)
        except SystemExit as leaving:
            code = leaving.code if isinstance(leaving.code, int) else 2
        except BaseException:
            import traceback

            traceback.print_exc()
            code = 99
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    _, status, usage = os.wait4(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return code, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def stored(path: Path) -> list[Trajectory]:
    """What lies in a store."""
    return list(Store.open(path)) if (path / "store.json").exists() else []


def same(one: list[Trajectory], other: list[Trajectory]) -> bool:
    """Whether two stores hold the same numbers and pictures."""
    return len(one) == len(other) and all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for a, b in zip(one, other, strict=True)
        for name in ("images", "image_steps", "actions", "proprio")
    )


def faults_of(outcome: Outcome, text: str, limit_mb: float, seconds: float) -> list[str]:
    """What is wrong with how a command ended."""
    found = []
    if outcome.code in (-signal.SIGALRM, -signal.SIGPROF):
        found.append(f"took more than {seconds:g} s")
    elif outcome.code not in CODES:
        found.append(f"ended with {outcome.code}")
    if "Traceback" in text:
        found.append("traceback")
    errors = [line for line in text.splitlines() if line.startswith("wm-mpc: error: ")]
    if outcome.code == 2 and (len(text.strip().splitlines()) != 1 or not errors):
        found.append(f"an error of {len(text.strip().splitlines())} lines")
    if any(len(line) > 2000 for line in text.splitlines()):
        found.append("a line of more than 2000 characters")
    if outcome.memory_mb > limit_mb:
        found.append(f"needed {outcome.memory_mb:.0f} MB; at most {limit_mb:.0f} MB expected")
    return found


class Fuzz:
    """Sound recordings, their stores, and what they cost.

    Args:
        folder: for everything.
        config: see there.
    """

    def __init__(self, folder: Path, config: Config) -> None:
        self.folder, self.config = folder, config
        self.sound = {kind: write_sound(folder, kind) for kind in config.kinds}
        self.normal_mb = 0.0
        self.expected: dict[str, list[Trajectory]] = {}
        for paths in self.sound.values():
            for path in paths:
                out = folder / f"{path.name}.store"
                code, _, memory = run(self._commands(path, out)["import"], folder / "log", 60)
                if code:
                    raise RuntimeError(f"{path.name}: {(folder / 'log').read_text()}")
                self.normal_mb = max(self.normal_mb, memory)
                self.expected[path.name] = stored(out)

    def _commands(self, path: Path, out: Path) -> dict[str, list[str]]:
        rate = [] if path.name.startswith("lerobot") else ["--rate", "10"]
        commands = {
            "import": ["bag", "import", str(path), "--out", str(out), "--quiet", *rate],
        }
        if rate:
            commands |= {
                "info": ["bag", "info", str(path)],
                "recover": ["bag", "info", str(path), "--check", "--recover", f"{out}.sound"],
            }
        return commands

    def mutant(self, index: int) -> list[Outcome]:
        """Make one mutant, and try every command on it."""
        rng = random.Random(self.config.seed + index)
        kind = self.config.kinds[index % len(self.config.kinds)]
        original = rng.choice(self.sound[kind])
        with tempfile.TemporaryDirectory(dir=self.folder) as place:
            path, out = Path(place) / original.name, Path(place) / "store"
            shutil.copytree(original, path)
            changes = mutate(path, rng)
            before, outcomes = checksum(path), []
            for name, arguments in self._commands(path, out).items():
                log = Path(place) / f"{name}.log"
                code, seconds, memory = run(arguments, log, self.config.seconds)
                outcome = Outcome(index, kind, changes, name, code, seconds, memory)
                limit = self.normal_mb + self.config.megabytes
                text = log.read_text(errors="replace")
                outcome.faults = faults_of(outcome, text, limit, self.config.seconds)
                if checksum(path) != before:
                    outcome.faults.append("the recording was modified")
                if (name, kind, code) == ("import", "mcap", 0):
                    if not same(stored(out), self.expected[original.name]):
                        outcome.faults.append("complete, it says, and is not what was recorded")
                outcomes.append(outcome)
            if self.config.keep and any(o.faults for o in outcomes):
                shutil.copytree(place, self.config.keep / f"{index:05d}", dirs_exist_ok=True)
        return outcomes


def main(config: Config) -> int:
    """Run all; 1 when something is wrong."""
    with tempfile.TemporaryDirectory(prefix="fuzz_bags_") as folder:
        fuzz = Fuzz(Path(folder), config)
        outcomes = []
        for index in range(config.first, config.first + config.mutants):
            for outcome in fuzz.mutant(index):
                outcomes.append(outcome)
                for fault in outcome.faults:
                    print(f"{index} {outcome.kind} {outcome.command}: {fault} ({outcome.changes})")
    wrong = sum(bool(outcome.faults) for outcome in outcomes)
    imports = [outcome for outcome in outcomes if outcome.command == "import"]
    codes = {code: sum(outcome.code == code for outcome in imports) for code in CODES}
    print(
        f"{config.mutants} mutants, {len(outcomes)} commands, {wrong} wrong; imports ended with "
        f"{', '.join(f'{code}: {count}' for code, count in codes.items())}; longest "
        f"{max(o.seconds for o in outcomes):.2f} s of the processor, most memory "
        f"{max(o.memory_mb for o in outcomes) - fuzz.normal_mb:+.0f} MB beyond the sound ones"
    )
    if config.report:
        write_report(config.report, config.seed, [asdict(outcome) for outcome in outcomes])
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config)))
