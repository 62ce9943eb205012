"""A LeRobot dataset into a training store."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from wm_mpc.core.channels import difference
from wm_mpc.core.errors import DataError
from wm_mpc.data.lerobot_reader import Dataset, open_lerobot, read_lerobot
from wm_mpc.data.store.format import MANIFEST
from wm_mpc.data.store.store import Store, StoreError, StoreSpec, StoreWriter


@dataclass
class LerobotReport:
    """What became of a dataset.

    Attributes:
        path: its folder.
        version: of its layout.
        episodes, steps: stored now.
        already: episodes that were there before.
        problems: one line each; what was lost.
        notes: one line each; what was found.
    """

    path: Path
    version: str
    episodes: int = 0
    steps: int = 0
    already: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def shorten(self, most: int = 10) -> None:
        """Keep the first problems; a dataset of thousands of episodes may have as many."""
        if len(self.problems) > most:
            rest = len(self.problems) - most
            self.problems[most:] = [f"and {rest} more episodes likewise"]

    def lines(self) -> list[str]:
        """The report for people."""
        head = f"{self.path}: LeRobot {self.version}, {self.episodes} episodes, {self.steps} steps"
        there = [f"  {self.already} more were in the store"] if self.already else []
        return [
            head, *there, *(f"  {n}" for n in self.notes), *(f"  ! {p}" for p in self.problems)
        ]  # fmt: skip


def import_lerobot(
    path: Path,
    out: Path,
    task: str = "",
    size: tuple[int, int] | None = None,
    features: tuple[str, str, str] = ("", "", ""),
    strict: bool = False,
    progress: bool = False,
) -> LerobotReport:
    """Import a dataset.

    Args:
        path: its folder.
        out: store to create or append to.
        task: name of the store's task or robot; empty: the store's, or the robot's type.
        size: (height, width) of the stored pictures [px]; None: the store's, or as recorded.
        features: keys of picture, proprioception and action; empty: see ``open_lerobot``.
        strict: read everything first, and refuse what is not wholly sound.
        progress: show a progress bar.

    Raises:
        UserError: pyarrow is missing, or a feature is not there.
        DataError: no dataset, or nothing in it is usable.
        StoreError: the store is of another kind.
    """
    dataset = open_lerobot(path, *features)
    report = LerobotReport(path, dataset.version, notes=dataset.notes)
    total = dataset.info.get("total_episodes")
    bar = partial(tqdm, total=total, unit="episode", disable=not progress)
    if strict:
        found: list[str] = []
        for _ in bar(read_lerobot(dataset, size, found), desc="checking"):
            pass
        if found:
            raise DataError(f"{path}: {found[0]}; nothing of it is stored: --strict")
    spec = _spec(dataset, out, task, size)
    known: set[int] = set()
    if (out / MANIFEST).exists():
        known = {
            meta["dataset_episode"]
            for meta in Store.open(out, skip_bad=True).metas()
            if meta.get("dataset") == path.name
        }
    writer: StoreWriter | None = None
    try:
        wanted = size or (spec.image_size if spec else None)
        for trajectory in bar(read_lerobot(dataset, wanted, report.problems), desc=path.name):
            if trajectory.meta["dataset_episode"] in known:
                report.already += 1
                continue
            if writer is None:
                kind = spec or _new_spec(dataset, task, trajectory.images.shape[1:3])
                writer = StoreWriter(out, kind)
            trajectory.meta["task"] = writer.spec.task
            writer.add(trajectory)
            report.episodes += 1
            report.steps += len(trajectory)
    except StoreError:
        raise
    except (DataError, ValueError) as error:
        if not report.episodes:
            raise DataError(str(error)) from None
        report.problems.append(f"reading ends early: {error}")
    finally:
        if writer is not None:
            writer.close()
    if not report.episodes and not report.already:
        raise DataError((report.problems or [f"{path}: no episode with a step"])[0])
    report.shorten()
    return report


def _spec(
    dataset: Dataset, out: Path, task: str, size: tuple[int, int] | None
) -> StoreSpec | None:
    """The existing store's kind, compared with the dataset; None: there is no store.

    Raises:
        DataError: rates or names differ.
    """
    if not (out / MANIFEST).exists():
        return None
    spec = Store.open(out, skip_bad=True).spec
    found = 1 / dataset.fps
    if not np.isclose(found, spec.control_period, rtol=1e-6):
        raise DataError(
            f"{dataset.root}: {dataset.fps:g} Hz; the store has {1 / spec.control_period:g} Hz"
        )
    for name, key in (("proprio", dataset.state), ("action", dataset.action)):
        why = difference(dataset.channels(key), getattr(spec, f"{name}_channels"))
        if why:
            raise DataError(f"{dataset.root}: {key}: {why}")
    return spec


def _new_spec(dataset: Dataset, task: str, size: tuple[int, int]) -> StoreSpec:
    return StoreSpec(
        task=task or str(dataset.info.get("robot_type") or "robot"),
        action_dim=dataset.width(dataset.action),
        proprio_dim=dataset.width(dataset.state) if dataset.state else 0,
        state_dim=0,
        control_period=1 / dataset.fps,
        image_size=size,
        proprio_channels=dataset.channels(dataset.state) if dataset.state else (),
        action_channels=dataset.channels(dataset.action),
    )
