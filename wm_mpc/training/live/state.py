"""What live fine-tuning remembers on disk, so that a kill or a power cut costs little."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from wm_mpc.core.errors import DataError, one_line
from wm_mpc.core.files import publish, write_atomically
from wm_mpc.models.checkpoint import recorded_hash
from wm_mpc.models.world_model import read_record

STATE = "state.json"
DAMAGED = STATE + ".damaged"
UNUSABLE = (ValueError, KeyError, TypeError, AttributeError)
"""What reading a damaged model folder may raise; errors of the disk itself are not among them."""


@dataclass
class LiveState:
    """What must survive a kill.

    Attributes:
        good: generation to continue from; 0: the start model.
        line: generations that ``good`` comes from, the oldest first; its parent is the last one.
        last: highest generation ever written.
        used: trajectories that finished rounds saw: those of lower numbers.
        round: trajectories of the unfinished round; 0: none is under way.
        start: hash of the start model.
        expert_error: of the start model on held-out expert data; 0: not measured.
        expert_data: which data these were, in words.
        refused: one line per refused round, update that was taken back, or generation that could
            not be used, the last 100.
    """

    good: int = 0
    line: list[int] = field(default_factory=list)
    last: int = 0
    used: int = 0
    round: int = 0
    start: str = ""
    expert_error: float = 0.0
    expert_data: str = ""
    refused: list[str] = field(default_factory=list)

    def save(self, folder: Path) -> None:
        """Write atomically, through to the disk.

        Raises:
            OSError: the disk is full or not writable; what was there before still is.
        """
        self.refused = self.refused[-100:]
        write_atomically(folder / STATE, json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path) -> LiveState:
        """Read what is there; a fresh state where there is none.

        Raises:
            DataError: damaged.
        """
        file = folder / STATE
        if not file.is_file():
            return cls()
        state = cls()
        try:
            content = json.loads(file.read_text())
            if not isinstance(content, dict):
                raise ValueError("no JSON object")
            for item in fields(cls):
                value = content.get(item.name, getattr(state, item.name))
                if not isinstance(value, type(getattr(state, item.name))):
                    raise ValueError(f"{item.name}: {value!r}")
                setattr(state, item.name, value)
        except (ValueError, TypeError) as error:
            raise DataError(f"{file}: damaged: {one_line(error)}") from error
        return state

    def fall_back(self) -> None:
        """Continue from the parent of ``good``, or from the start model where it has none."""
        self.good = self.line.pop() if self.line else 0


class Generations:
    """Model folders ``00001``, ``00002``, ... within one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, generation: int) -> Path:
        """Folder of a generation."""
        return self.folder / f"{generation:05d}"

    def partial(self, generation: int) -> Path:
        """Empty place where the next generation is written before it is published."""
        folder = self.folder / f"{generation:05d}.partial"
        shutil.rmtree(folder, ignore_errors=True)
        return folder

    def publish(self, generation: int) -> None:
        """Give what was written its name, through to the disk: a reader never sees half of it."""
        shutil.rmtree(self.path(generation), ignore_errors=True)
        publish(self.folder / f"{generation:05d}.partial", self.path(generation))

    def numbers(self) -> list[int]:
        """Those on disk, the oldest first."""
        return sorted(int(f.name) for f in self.folder.glob("[0-9]*") if f.name.isdecimal())

    def digest(self, generation: int) -> str:
        """Hash of a model, 12 hex digits; empty: its record is unusable."""
        try:
            return recorded_hash(self.path(generation))
        except UNUSABLE:
            return ""

    def ancestors(self, generation: int) -> list[int]:
        """Those that one comes from, the oldest first, as far as their records tell."""
        line = [generation]
        try:
            while True:
                record = read_record(self.path(line[0]))
                parent = int(record["extra"]["live"]["parent_generation"])
                if not 0 < parent < line[0]:
                    break
                line.insert(0, parent)
        except UNUSABLE:
            pass
        return line[:-1]

    def prune(self, keep: int, needed: set[int]) -> None:
        """Delete all but the newest ``keep`` and those that are ``needed``."""
        found = self.numbers()
        for generation in set(found) - set(found[-keep:]) - needed:
            shutil.rmtree(self.path(generation), ignore_errors=True)


__all__ = ["DAMAGED", "STATE", "UNUSABLE", "Generations", "LiveState"]
