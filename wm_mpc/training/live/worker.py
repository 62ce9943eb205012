"""The process that trains while a robot runs: lowest priority, talks in lines of JSON.

Started by ``trainer_node`` as ``python -m wm_mpc.training.live.worker``. The first line of stdin
is a ``Job``; later lines say what became of an offer: ``{"refused": hash, "reason": ...}``. Lines
on stdout are events: ``ready``, ``training``, ``offer``, ``refused``, ``taken_back``; ``warning``:
something is left out or missing; ``waiting``: the disk is full or not readable, which is tried
again and again; ``failed``: the job cannot be done. The process ends with its parent: when stdin
closes.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from wm_mpc.core.errors import UserError, one_line
from wm_mpc.data.store.shard import MappingError
from wm_mpc.training.live.config import LiveConfig
from wm_mpc.training.live.trainer import LiveTrainer

POLL_S = 0.5
RETRY_S, MAX_RETRY_S = 5.0, 300.0
"""[s] before the first and between later attempts after trouble with the disk; it doubles."""

PASSING = (OSError, SafetensorError, MappingError)
"""Trouble that may go away: what a full disk or scarce memory raises, weights included."""


@dataclass(frozen=True)
class Job:
    """What to do.

    Attributes:
        model: folder of the start model.
        out: working folder.
        config: fields of ``LiveConfig``.
        seed: of batches and perturbations.
        device: torch device.
        nice: added to the process's niceness, 0 to 19.
        threads: torch threads.
    """

    model: str
    out: str
    config: dict[str, Any]
    seed: int = 0
    device: str = "cpu"
    nice: int = 10
    threads: int = 1

    def line(self) -> str:
        """Job as the line that ``main`` reads."""
        return json.dumps(asdict(self)) + "\n"


def tell(event: str, **facts: Any) -> None:
    """Write one event."""
    print(json.dumps({"event": event, **facts}), file=sys.__stdout__, flush=True)


def listen(words: queue.Queue[dict[str, Any]]) -> None:
    """Pass lines of stdin on; end the process when there is nobody left to talk to."""
    for line in sys.stdin:
        words.put(json.loads(line))
    os._exit(0)


def serve(
    job: Job, words: queue.Queue[dict[str, Any]], sleep: Callable[[float], None] = time.sleep
) -> None:
    """Train rounds for ever.

    Args:
        job: what to do.
        words: what the parent says.
        sleep: waits [s].

    Raises:
        UserError: the job cannot be done, now or later.
    """
    config = LiveConfig(**{**job.config, "replay_ratio": tuple(job.config["replay_ratio"])})
    trainer: LiveTrainer | None = None
    failures = 0
    sound = False
    while True:
        try:
            if trainer is None:
                trainer = LiveTrainer(Path(job.model), Path(job.out), config, job.seed, job.device)
            elif not sound:
                trainer.recover()
            if not sound:
                _ready(trainer)
                sound = True
            if _turn(trainer, words):
                failures = 0
            else:
                sleep(POLL_S)
        except PASSING as error:
            sound = False
            wait = min(RETRY_S * 2**failures, MAX_RETRY_S)
            failures += 1
            tell("waiting", reason=one_line(error), retry_s=wait)
            sleep(wait)


def _ready(trainer: LiveTrainer) -> None:
    waiting, good = trainer.look(), trainer.good_path()
    for note in trainer.notes():
        tell("warning", reason=note)
    tell("ready", hash=trainer.model.hash, path=str(good or ""), trajectories=waiting)


def _turn(trainer: LiveTrainer, words: queue.Queue[dict[str, Any]]) -> bool:
    """Listen, and train a round when one is due; returns whether one was."""
    _hear(trainer, words)
    if not trainer.ready():
        return False
    tell("training", trajectories=trainer.state.round or trainer.data.total)
    outcome = trainer.round()
    for note in trainer.notes():
        tell("warning", reason=note)
    errors = {"before": outcome.before, "after": outcome.after}
    if _hear(trainer, words):
        # What this candidate was made from has been refused meanwhile.
        return True
    if outcome.path is None:
        tell("refused", reason=outcome.reason, **errors)
    else:
        tell("offer", hash=outcome.hash, path=str(outcome.path), **errors)
    return True


def _hear(trainer: LiveTrainer, words: queue.Queue[dict[str, Any]]) -> bool:
    """Take back what was refused; returns whether anything was."""
    taken = False
    while not words.empty():
        # It leaves the queue once it is on disk, so that a full disk does not lose it.
        word = words.queue[0]
        if trainer.take_back(word["refused"], word["reason"]):
            tell("taken_back", hash=word["refused"], now=trainer.model.hash)
            taken = True
        words.get()
    return taken


def main() -> int:
    """Run until stdin closes; 1 when the job cannot be done."""
    job = Job(**json.loads(sys.stdin.readline()))
    os.nice(job.nice)
    torch.set_num_threads(job.threads)
    # Only events may appear on stdout; whatever libraries print goes to the log.
    sys.stdout = sys.stderr
    words: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=listen, args=(words,), daemon=True).start()
    try:
        serve(job, words)
    except UserError as error:
        tell("failed", reason=one_line(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
