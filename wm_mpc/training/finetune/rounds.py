"""Executed plans of one fine-tuning run on disk, round by round.

Every round has been planned by the weights of its optimiser step. So a round is of use to the run
that made it only, and to this run only once its weights at that step are settled: the store notes
whose it is, and a run that goes on from an earlier step makes the rounds after that step again.
Other plans are moved aside, never deleted; they stay stores that ``--online.corrected`` reads.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import count
from pathlib import Path
from typing import Any

from wm_mpc.core.errors import UserError
from wm_mpc.core.files import write_atomically
from wm_mpc.data.store.format import StoreSpec, write_manifest
from wm_mpc.data.store.store import Store, StoreWriter
from wm_mpc.data.trajectory import Trajectory

KEY_FILE = "run.json"


class RoundStore:
    """A store whose shards are named after their round, so that they are read in that order.

    Args:
        folder: of the store.
        spec: what the trajectories share.
    """

    def __init__(self, folder: Path, spec: StoreSpec) -> None:
        self.folder, self.spec = folder, spec

    def take_up(self, key: Mapping[str, Any], rounds: int) -> Iterable[Trajectory]:
        """Make this the store of a run; what is not of its first rounds is moved aside.

        Args:
            key: JSON-able settings of the run.
            rounds: rounds that the run has learned from already, >= 0.

        Returns:
            The trajectories of these rounds, in their order.

        Raises:
            UserError: a round is missing, or whose it is cannot be told; nothing is moved.
            StoreError: a shard of these rounds is damaged.
        """
        plain = json.loads(json.dumps(dict(key)))
        own, work = self._key() == plain, self.folder.parent
        shards = self._shards()
        if rounds and not own:
            raise UserError(
                f"{self.folder}: not the plans of the unfinished run in {work}, but of another "
                f"one or of a version without {KEY_FILE}; move {work} away to start anew"
            )
        missing = set(range(rounds)) - set(shards.values())
        if missing:
            raise UserError(
                f"{self.folder}: round {min(missing)} of the unfinished run is missing; "
                f"move {work} away to start anew"
            )
        if own:
            self._set_aside([f for f, number in shards.items() if not 0 <= number < rounds])
        elif self.folder.exists():
            aside = self._free()
            self.folder.rename(aside)
            print(f"{self.folder}: plans of another run; moved to {aside}")
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.folder / KEY_FILE, json.dumps(plain, indent=1))
        return Store.open(self.folder) if rounds else ()

    def writer(self, number: int) -> StoreWriter:
        """Writer of round ``number``, which is 0 to 99999."""
        return StoreWriter(self.folder, self.spec, writer_id=f"round{number:05d}")

    def _key(self) -> Any:
        try:
            return json.loads((self.folder / KEY_FILE).read_text())
        except (FileNotFoundError, ValueError):
            return None

    def _shards(self) -> dict[Path, int]:
        """Shards and their rounds; -1: not written by this class."""
        found = {}
        for file in sorted(self.folder.glob("shard-*.safetensors")):
            number = file.name.split("-")[1].removeprefix("round")
            named = number.isdigit() and file.name.startswith("shard-round")
            found[file] = int(number) if named else -1
        return found

    def _set_aside(self, files: list[Path]) -> None:
        if not files:
            return
        aside = self._free()
        aside.mkdir()
        write_manifest(aside, self.spec)
        for file in files:
            file.rename(aside / file.name)
        print(f"{self.folder}: rounds after the stored state are made again; moved to {aside}")

    def _free(self) -> Path:
        names = (self.folder.with_name(f"{self.folder.name}-{i}") for i in count(1))
        return next(path for path in names if not path.exists())


__all__ = ["KEY_FILE", "RoundStore"]
