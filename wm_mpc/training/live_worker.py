"""The process that trains while a robot runs: lowest priority, talks in lines of JSON.

Started by ``trainer_node`` as ``python -m wm_mpc.training.live_worker``. The first line of stdin
is a ``Job``; later lines say what became of an offer: ``{"refused": hash, "reason": ...}``. Lines
on stdout are events: ``ready``, ``offer``, ``refused``, ``failed``. The process ends with its
parent: when stdin closes.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from wm_mpc.errors import UserError, one_line
from wm_mpc.training.live import LiveConfig, LiveTrainer

POLL_S = 0.5


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


def serve(job: Job, words: queue.Queue[dict[str, Any]]) -> None:
    """Train rounds for ever."""
    config = LiveConfig(**{**job.config, "replay_ratio": tuple(job.config["replay_ratio"])})
    trainer = LiveTrainer(Path(job.model), Path(job.out), config, job.seed, job.device)
    good = trainer.good_path()
    tell("ready", hash=trainer.model.hash, path=str(good or ""), trajectories=trainer.look())
    while True:
        _hear(trainer, words)
        if not trainer.ready():
            time.sleep(POLL_S)
            continue
        tell("training", trajectories=trainer.state.round or trainer.seen + trainer.look())
        outcome = trainer.round()
        if _hear(trainer, words):
            # What this candidate was made from has been refused meanwhile.
            continue
        errors = {"before": outcome.before, "after": outcome.after}
        if outcome.path is None:
            tell("refused", reason=outcome.reason, **errors)
        else:
            tell("offer", hash=outcome.hash, path=str(outcome.path), **errors)


def _hear(trainer: LiveTrainer, words: queue.Queue[dict[str, Any]]) -> bool:
    """Take back what was refused; returns whether anything was."""
    taken = False
    while not words.empty():
        word = words.get()
        if trainer.take_back(word["refused"], word["reason"]):
            tell("taken_back", hash=word["refused"], now=trainer.model.hash)
            taken = True
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
    except (UserError, OSError) as error:
        tell("failed", reason=one_line(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
