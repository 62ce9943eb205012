"""Collect simulator trajectories: parallel, resumable, the same for any number of workers."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
from annotated_types import Ge, Le
from tqdm import tqdm
from tyro.conf import Positional

from wm_mpc.core.errors import UserError
from wm_mpc.core.fields import Checked, PositiveInt
from wm_mpc.core.provenance import cores, write_report
from wm_mpc.data.store.store import Store, StoreSpec, StoreWriter
from wm_mpc.data.trajectory import Trajectory
from wm_mpc.tasks.registry import find_task

_SHARD_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Config(Checked):
    """Record simulator trajectories into a store.

    Attributes:
        task: a task's name, or module:TASK.
        out: directory of the store; created where needed.
        episodes: number of trajectories; episode ``i`` depends on ``seed`` and ``i`` only.
        seed: seed of the whole collection.
        policy: behaviour policy; default: the task's first.
        episode_steps: control steps per trajectory.
        frame_stride: control steps from one image to the next; 1 stores an image at every step.
        image_size: height and width of the images [px].
        workers: processes; 0 takes one per core.
        resume: add what is missing to a store that already holds episodes.
        report: JSON file to write.
    """

    task: Positional[str]
    out: Path
    episodes: Annotated[int, Ge(1), Le(10_000_000)] = 100
    seed: Annotated[int, Ge(0), Le(2**63 - 1)] = 0
    policy: str | None = None
    episode_steps: Annotated[int, Ge(1), Le(100_000)] = 50
    frame_stride: PositiveInt = 1
    image_size: Annotated[int, Ge(16), Le(2048)] = 96
    workers: Annotated[int, Ge(0), Le(1024)] = 0
    resume: bool = False
    report: Path | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        find_task(self.task).simulator().policy(self.policy, np.random.default_rng(0))
        if self.frame_stride > self.episode_steps:
            raise ValueError(
                f"frame_stride: {self.frame_stride}; at most episode_steps = "
                f"{self.episode_steps} expected"
            )

    def recipe(self) -> dict[str, object]:
        """What must agree between two runs that fill the same store with the same seed."""
        return {
            "policy": self.policy,
            "episode_steps": self.episode_steps,
            "frame_stride": self.frame_stride,
        }


@dataclass(frozen=True)
class CollectReport:
    """What a collection did.

    Attributes:
        episodes: trajectories written now.
        already_there: trajectories found and skipped.
        steps: control steps written.
        frames: images written.
        seconds: wall time [s].
    """

    episodes: int
    already_there: int
    steps: int
    frames: int
    seconds: float


def generate(
    task: str,
    episodes: int | Iterable[int],
    seed: int = 0,
    steps: int = 50,
    frame_stride: int = 1,
    image_size: int = 96,
    policy: str | None = None,
) -> Iterator[Trajectory]:
    """Simulate trajectories in this process.

    Args:
        task: a task's name, or module:TASK.
        episodes: how many, or the indices of those wanted.
        seed: seed of the collection; trajectory ``i`` depends on ``seed`` and ``i`` only.
        steps: control steps per trajectory.
        frame_stride: control steps from one image to the next.
        image_size: height and width of the images [px].
        policy: behaviour policy; None is the task's default.

    Yields:
        One validated Trajectory per episode, with ``state`` and ``meta`` filled.
    """
    simulator = find_task(task).simulator()
    env, spec = simulator.make(image_size=image_size), simulator.spec
    image_steps = np.arange(0, steps + 1, frame_stride)
    stamps = np.arange(steps + 1) * spec.control_period
    for episode in range(episodes) if isinstance(episodes, int) else episodes:
        rng = np.random.default_rng([seed, episode])
        env.restore(env.draw_state(rng))
        driver = simulator.policy(policy, rng)
        state = np.empty((steps + 1, spec.state_dim))
        actions = np.empty((steps, spec.action_dim), np.float32)
        state[0] = env.snapshot()
        for t in range(steps):
            actions[t] = driver.act(state[t])
            state[t + 1] = env.advance(actions[t])
        yield Trajectory(
            images=np.stack([env.render_state(state[t]) for t in image_steps]),
            image_steps=image_steps,
            actions=actions,
            proprio=np.stack([env.proprio(s) for s in state]),
            stamps=stamps,
            state=state,
            meta={
                "task": spec.name,
                "seed": seed,
                "episode": episode,
                "policy": policy,
                "episode_steps": steps,
                "frame_stride": frame_stride,
                "source": "simulator",
            },
        ).validate()


def collect(config: Config, progress: bool = True) -> CollectReport:
    """Fill the store at ``config.out``.

    A killed run loses at most what its workers had not yet written (one shard each); run again
    with ``resume``.

    Args:
        config: what to collect.
        progress: show a progress bar with frames per second on stderr.

    Raises:
        UserError: the store holds other data, or episodes already and ``resume`` is off.
        StoreError: the store is damaged or the disk is full; shards written before are intact.
        RuntimeError: a worker process died, or the task cannot be rendered here.
    """
    began = time.monotonic()
    spec = _store_spec(config)
    StoreWriter(config.out, spec).close()
    missing = _missing(config)
    already = config.episodes - len(missing)
    chunks = _chunks(config, missing)
    workers = min(config.workers or cores(), len(chunks))
    with tqdm(
        total=config.episodes,
        initial=already,
        unit="episode",
        desc=f"collect {config.task}",
        disable=not progress,
    ) as bar:
        frames = 0
        for episodes, written in _run(config, chunks, workers):
            frames += written
            bar.update(episodes)
            bar.set_postfix_str(f"{frames / (time.monotonic() - began):.0f} frames/s")
    return CollectReport(
        episodes=len(missing),
        already_there=already,
        steps=len(missing) * config.episode_steps,
        frames=frames,
        seconds=time.monotonic() - began,
    )


def run(config: Config) -> int:
    """Collect, say what was written, and write the report; the exit code."""
    try:
        done = collect(config)
    except RuntimeError as error:
        raise UserError(str(error)) from error
    rate = done.frames / done.seconds
    print(
        f"{config.out}: {done.episodes} episodes added ({done.already_there} were there), "
        f"{done.steps} steps, {done.frames} frames, {rate:.0f} frames/s"
    )
    if config.report is not None:
        row = {"task": config.task, **asdict(done), "frames_per_s": rate}
        write_report(config.report, config.seed, [row], config=asdict(config))
    return 0


def _store_spec(config: Config) -> StoreSpec:
    spec = find_task(config.task).simulator().spec
    return StoreSpec(
        task=spec.name,
        action_dim=spec.action_dim,
        proprio_dim=spec.proprio_dim,
        state_dim=spec.state_dim,
        control_period=spec.control_period,
        image_size=(config.image_size, config.image_size),
    )


def _missing(config: Config) -> list[int]:
    """Episode indices not yet in the store."""
    present = set()
    for meta in Store.open(config.out).metas():
        if meta.get("seed") != config.seed:
            continue
        for name, wanted in config.recipe().items():
            if meta.get(name) != wanted:
                raise UserError(
                    f"{name}: {wanted}, but {config.out} holds seed {config.seed} with "
                    f"{meta.get(name)}; choose another seed or directory"
                )
        present.add(meta.get("episode"))
    if present and not config.resume:
        raise UserError(
            f"out: {config.out} already holds {len(present)} episodes of seed {config.seed}; "
            "pass --resume to add what is missing"
        )
    return [i for i in range(config.episodes) if i not in present]


def _chunks(config: Config, missing: list[int]) -> list[list[int]]:
    """Split the work into shards; the split does not depend on the number of workers."""
    frames = config.episode_steps // config.frame_stride + 1
    per_shard = max(1, _SHARD_BYTES // (frames * config.image_size**2 * 3))
    # At least 16 pieces, so that few episodes still use all cores and progress shows.
    size = max(1, min(per_shard, -(-len(missing) // 16)))
    return [missing[i : i + size] for i in range(0, len(missing), size)]


def _run(config: Config, chunks: list[list[int]], workers: int) -> Iterator[tuple[int, int]]:
    """Run all chunks; yields (episodes, frames) as each is safely on disk."""
    if workers <= 1:
        for chunk in chunks:
            yield _collect_chunk(config, chunk)
        return
    # Spawned processes inherit no threads, locks or GL contexts.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_prepare_worker)
    try:
        waiting: set[Future[tuple[int, int]]] = {
            pool.submit(_collect_chunk, config, chunk) for chunk in chunks
        }
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    except BrokenProcessPool as error:
        raise RuntimeError(
            f"a worker process died; what is in {config.out} is intact, run again with --resume"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _prepare_worker() -> None:
    """One OpenCV thread; finish the shard at Ctrl-C; end with the parent even if it is killed."""
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent.sentinel,), daemon=True).start()


def _exit_after(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os._exit(1)


def _collect_chunk(config: Config, chunk: list[int]) -> tuple[int, int]:
    """Simulate and store one chunk as one shard; returns (episodes, frames)."""
    frames = 0
    # The first episode names the writer: it is in no other shard of this seed, now or after a
    # resume.
    writer_id = f"{config.seed}.{chunk[0]:08d}"
    with StoreWriter(
        config.out, _store_spec(config), shard_bytes=2 * _SHARD_BYTES, writer_id=writer_id
    ) as writer:
        for trajectory in generate(
            config.task,
            chunk,
            config.seed,
            config.episode_steps,
            config.frame_stride,
            config.image_size,
            config.policy,
        ):
            writer.add(trajectory)
            frames += len(trajectory.images)
    return len(chunk), frames
