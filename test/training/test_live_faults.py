"""Live fine-tuning outlives full disks, damage and deaths, and forgets within bounds."""

from __future__ import annotations

import errno
import json
import queue
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from live_setup import Setup
from wall_data import wall_store

from wm_mpc.core import files
from wm_mpc.models.world_model import WorldModel
from wm_mpc.training.live import state as live_state
from wm_mpc.training.live import trainer as live
from wm_mpc.training.live import worker as live_worker
from wm_mpc.training.live.process import DEATHS, MAX_RESTART_S, RESTART_S, LiveProcess
from wm_mpc.training.live.state import DAMAGED, STATE, LiveState
from wm_mpc.training.live.trainer import LiveTrainer, verdict
from wm_mpc.training.live.worker import MAX_RETRY_S, POLL_S, RETRY_S, Job

WEIGHTS = "world_model.safetensors"


@pytest.fixture
def drift(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training moves the weights a little, quickly, and every candidate may pass."""

    def move(losses: Any, trained: Any, *rest: Any, **more: Any) -> None:
        trained["predictor"].net[-1].bias.data.add_(1e-3)

    monkeypatch.setattr(live, "fit", move)


def rounds(setup: Setup, count: int) -> LiveTrainer:
    """A trainer after so many rounds."""
    trainer = setup.trainer()
    for _ in range(count):
        setup.collect(6)
        assert trainer.ready()
        assert trainer.round().reason == ""
    return trainer


@pytest.fixture
def setup(tmp_path: Path, drift: None) -> Setup:
    return Setup(tmp_path, worse_corrected=1e6)


# ---- damage ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"good": "two"}', '{"line": 3}', "\x00" * 100]
)
def test_a_damaged_state_is_put_aside_and_learning_begins_anew(setup: Setup, content: str) -> None:
    rounds(setup, 2)
    (setup.out / STATE).write_text(content)
    trainer = setup.trainer()
    assert trainer.good_path() is None and trainer.model.hash == setup.start.hash
    assert any("damaged" in note and "start model" in note for note in trainer.notes())
    assert (setup.out / DAMAGED).read_text() == content
    trainer = setup.trainer()  # killed at once: the numbers are still known
    assert trainer.ready(), "what is on disk is learned again"
    assert trainer.round().path == setup.out / "models" / "00003", "no number is used twice"
    assert setup.trainer().good_path() == setup.out / "models" / "00003"


@pytest.mark.parametrize("name", [WEIGHTS, "world_model.json"])
def test_a_damaged_generation_falls_back_to_its_parent_and_then_to_the_start(
    setup: Setup, name: str
) -> None:
    first, second = (rounds(setup, 1).good_path() for _ in range(2))
    (second / name).write_bytes((second / name).read_bytes()[:50])
    trainer = setup.trainer()
    assert trainer.good_path() == first
    assert trainer.model.hash == WorldModel.load(first).hash
    (note,) = (note for note in trainer.notes() if "generation" in note)
    assert note.startswith("generation 2: ") and note.endswith("back to generation 1")
    assert LiveState.load(setup.out).good == 1, "a restart does not try it again"
    (first / WEIGHTS).unlink()
    trainer = setup.trainer()
    assert trainer.good_path() is None and trainer.model.hash == setup.start.hash
    assert any("back to the start model" in note for note in trainer.notes())
    assert rounds(setup, 1).good_path() == setup.out / "models" / "00003"


def test_a_state_without_ancestors_finds_them_in_the_records(setup: Setup) -> None:
    trainer = rounds(setup, 3)
    content = json.loads((setup.out / STATE).read_text())
    assert content["line"] == [1, 2]
    del content["line"]
    (setup.out / STATE).write_text(json.dumps(content | {"of a later release": 1}))
    trainer = setup.trainer()
    assert trainer.state.line == [1, 2] and trainer.state.good == 3
    assert trainer.take_back(WorldModel.load(setup.out / "models" / "00002").hash, "bad")
    assert trainer.state.good == 1 and trainer.state.line == []


def test_old_generations_are_deleted_but_neither_the_good_one_nor_its_parent(
    setup: Setup,
) -> None:
    setup.config = replace(setup.config, keep_generations=2)
    trainer = rounds(setup, 4)
    models = setup.out / "models"
    assert sorted(f.name for f in models.iterdir()) == ["00003", "00004"]
    assert trainer.take_back(trainer.model.hash, "bad")
    assert trainer.state.good == 3
    rounds(setup, 1)
    assert sorted(f.name for f in models.iterdir()) == ["00003", "00004", "00005"]
    assert LiveState.load(setup.out).line[-1] == 3


def test_state_and_generations_are_on_the_disk_before_they_have_their_name(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[str, bool]] = []
    target = setup.out / "models" / "00001"
    sync = files.sync

    def noted(path: Path) -> None:
        synced.append((path.name, target.exists()))
        sync(path)

    monkeypatch.setattr(files, "sync", noted)
    rounds(setup, 1)
    for name in (WEIGHTS, "world_model.json", "00001.partial"):
        assert (name, False) in synced
    assert ("models", True) in synced and ("out", True) in synced


# ---- a full disk -------------------------------------------------------------------------------


class StopError(Exception):
    """Ends a worker."""


class Worker:
    """``serve`` in this process, with a clock of its own.

    Attributes:
        events: what it told.
        waits: [s] that it waited because of trouble.
    """

    def __init__(self, setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
        self.setup = setup
        self.events: list[dict[str, Any]] = []
        self.waits: list[float] = []
        self.words: queue.Queue[dict[str, Any]] = queue.Queue()
        monkeypatch.setattr(live_worker, "tell", self._tell)

    def _tell(self, event: str, **facts: Any) -> None:
        self.events.append({"event": event, **facts})

    def kinds(self) -> list[str]:
        return [event["event"] for event in self.events]

    def run(self, idle: Callable[[], None] | None = None) -> None:
        """Serve until there is nothing to do; ``idle`` is called then, the first time."""
        calls = iter([idle] if idle else [])

        def sleep(seconds: float) -> None:
            if seconds != POLL_S:
                self.waits.append(seconds)
                return
            call = next(calls, None)
            if call is None:
                raise StopError
            call()

        job = Job(str(self.setup.folder / "model"), str(self.setup.out), asdict(self.setup.config))
        with pytest.raises(StopError):
            live_worker.serve(job, self.words, sleep)


@pytest.fixture
def worker(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> Worker:
    setup.collect(6)
    return Worker(setup, monkeypatch)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """``room``: the state can be written so often, then ``failures`` times not, then again."""
    left = {"room": 0, "failures": 0}
    write = live_state.write_atomically

    def scarce(target: Path, payload: bytes) -> None:
        if left["room"]:
            left["room"] -= 1
        elif left["failures"]:
            left["failures"] -= 1
            raise OSError(errno.ENOSPC, "No space left on device")
        write(target, payload)

    monkeypatch.setattr(live_state, "write_atomically", scarce)
    return left


@pytest.mark.parametrize("room", [0, 1])
def test_a_full_disk_is_waited_for_and_the_round_is_not_lost(
    worker: Worker, disk: dict[str, int], room: int
) -> None:
    """A state is written when a round begins, and when it ends."""
    disk.update(room=room, failures=9)
    worker.run()
    assert worker.waits == [min(RETRY_S * 2**n, MAX_RETRY_S) for n in range(9)]
    waiting = [event for event in worker.events if event["event"] == "waiting"]
    assert len(waiting) == 9 and "No space left" in waiting[0]["reason"]
    assert worker.kinds()[-2:] == ["training", "offer"] and worker.kinds().count("offer") == 1
    (generation,) = (worker.setup.out / "models").iterdir()
    assert worker.events[-1]["path"] == str(generation)
    assert LiveState.load(worker.setup.out).used == 6
    assert WorldModel.load(generation).hash == worker.events[-1]["hash"]


def test_weights_that_find_no_room_are_written_later(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, calls = WorldModel.save, iter(range(10))

    def scarce(*arguments: Any, **more: Any) -> str:
        if next(calls) < 2:
            raise live_worker.SafetensorError("Error while serializing: No space left on device")
        return save(*arguments, **more)

    monkeypatch.setattr(live.WorldModel, "save", scarce)
    worker.run()
    assert worker.waits == [RETRY_S, 2 * RETRY_S] and worker.kinds()[-1] == "offer"


def test_a_refusal_is_not_lost_on_a_full_disk(worker: Worker, disk: dict[str, int]) -> None:
    def refuse() -> None:
        worker.words.put({"refused": worker.events[-1]["hash"], "reason": "drives badly"})
        disk.update(room=0, failures=2)

    worker.run(refuse)
    assert "taken_back" in worker.kinds() and worker.words.empty()
    state = LiveState.load(worker.setup.out)
    assert state.good == 0 and "drives badly" in state.refused[-1]


def test_a_full_disk_at_the_start_is_waited_for(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, calls = live_worker.LiveTrainer, iter(range(10))

    def scarce(*arguments: Any) -> LiveTrainer:
        if next(calls) < 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return begin(*arguments)

    monkeypatch.setattr(live_worker, "LiveTrainer", scarce)
    worker.run()
    assert worker.kinds()[:2] == ["waiting", "waiting"] and worker.kinds()[-1] == "offer"


# ---- forgetting --------------------------------------------------------------------------------


@pytest.mark.parametrize("total", [1.5, 1e6])
def test_what_rounds_forget_does_not_add_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, total: float
) -> None:
    """Every round makes expert data worse by less than ``worse_expert`` allows."""
    wall_store(tmp_path / "expert", episodes=20, seed=90)
    setup = Setup(
        tmp_path, replay=str(tmp_path / "expert"), worse_corrected=1e6, worse_expert_total=total
    )
    trainer = setup.trainer()
    assert not any("replay" in note for note in trainer.notes())

    def forget(*arguments: Any, **more: Any) -> None:
        before = trainer.validate()["expert"]
        bias = trainer.model.predictor.net[-1].bias.data
        away = torch.where(bias < 0, -1.0, 1.0)
        while trainer.validate()["expert"] < 1.12 * before:
            bias.add_(0.01 * away)

    monkeypatch.setattr(live, "fit", forget)
    started = trainer.validate()["expert"]
    reasons = []
    for _ in range(6):
        setup.collect(6)
        reasons.append(trainer.round().reason)
        if len(reasons) == 2:
            # A restart measures against the same start, not against what is good by now.
            trainer = setup.trainer()
    now = trainer.validate()["expert"]
    if total == 1.5:
        assert reasons[:2] == ["", ""] and "of the start model; at most 1.5 times" in reasons[-1]
        assert now <= 1.5 * started
    else:
        assert reasons == [""] * 6 and now > 1.5 * started
    assert LiveState.load(setup.out).expert_error == pytest.approx(started, rel=1e-5)


def test_the_start_model_is_measured_once_per_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wall_store(tmp_path / "expert", episodes=20, seed=90)
    setup = Setup(tmp_path, replay=str(tmp_path / "expert"))
    measured: list[float] = []
    measure = LiveTrainer._expert_error

    def noted(trainer: LiveTrainer) -> float:
        measured.append(measure(trainer))
        return measured[-1]

    monkeypatch.setattr(LiveTrainer, "_expert_error", noted)
    for _ in range(2):
        setup.trainer()
    assert len(measured) == 1
    setup.config = replace(setup.config, replay_episodes=10)
    assert setup.trainer().state.expert_error == measured[1] and len(measured) == 2


@pytest.mark.parametrize(
    ("after", "start", "words"),
    [
        (1.4, 1.0, ""),
        (1.6, 1.0, "expert: error 1.6 on held-out data, 1 of the start model"),
        (1.6, 0.0, ""),
    ],
)
def test_verdicts_about_the_start_model(
    setup: Setup, after: float, start: float, words: str
) -> None:
    before = {"corrected": 1.0, "expert": 1.39}
    found = verdict(before, {"corrected": 1.0, "expert": after}, setup.config, start)
    assert words in found if words else found == ""


def test_without_expert_data_it_warns_once_that_nothing_guards(worker: Worker) -> None:
    worker.run()
    warnings = [e["reason"] for e in worker.events if e["event"] == "warning"]
    assert len(warnings) == 1 and warnings[0].startswith("replay: empty; nothing guards")
    assert worker.kinds().index("warning") < worker.kinds().index("ready")


# ---- deaths ------------------------------------------------------------------------------------


class Dying(LiveProcess):
    """Its process does what the next script says; the clock is the test's."""

    def __init__(self, folder: Path, scripts: Iterator[str]) -> None:
        self.now = 0.0
        self.scripts = scripts
        self.starts: list[float] = []
        super().__init__(Job("model", "out", {}), folder / "log", lambda: self.now)

    def _spawn(self) -> subprocess.Popen[str]:
        self.starts.append(self.now)
        script = next(self.scripts)
        if not script:
            raise OSError(errno.EAGAIN, "Resource temporarily unavailable")
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-c", script],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip

    def told(self, kind: str) -> dict[str, Any]:
        """Wait for an event, letting the time pass."""
        seen: list[dict[str, Any]] = []
        for _ in range(100_000):
            seen += self.events()
            for event in seen:
                if event["event"] == kind:
                    return event
            if self._restart_at is not None:
                self.now += 1.0
            elif self._process is not None:
                self._process.wait(60.0)
        raise AssertionError(f"no {kind}: {seen}")


DIES = "import sys; print('Traceback', file=sys.stderr); sys.exit('ValueError: no luck')"
FINISHES = 'print(\'{"event": "refused", "reason": ""}\', flush=True); raise SystemExit(1)'


def test_a_process_that_dies_again_and_again_is_given_up_with_its_last_words(
    tmp_path: Path,
) -> None:
    process = Dying(tmp_path, iter([DIES] * 50))
    process.start()
    failed = process.told("failed")
    assert (
        failed["reason"] == f"ended {DEATHS} times without finishing a round: ValueError: no luck"
    )
    assert len(process.starts) == DEATHS
    waits = [b - a for a, b in zip(process.starts, process.starts[1:], strict=False)]
    for n, wait in enumerate(waits):
        expected = min(RESTART_S * 2**n, MAX_RESTART_S)
        assert expected <= wait <= expected + 1.0
    process.now += 1e6
    assert process.events() == [] and len(process.starts) == DEATHS
    process.stop()


def test_a_finished_round_starts_the_count_anew(tmp_path: Path) -> None:
    scripts = [DIES] * (DEATHS - 1) + [FINISHES] + [DIES] * 50
    process = Dying(tmp_path, iter(scripts))
    process.start()
    process.told("failed")
    # The one that finished a round died, too: its death is the first of the new count.
    assert len(process.starts) == DEATHS - 1 + DEATHS
    process.stop()


def test_a_process_that_cannot_be_started_is_tried_again(tmp_path: Path) -> None:
    process = Dying(tmp_path, iter(["", FINISHES]))
    process.start()
    process.send(refused="nobody hears it")
    assert "temporarily unavailable" in process.told("ended")["reason"]
    process.told("refused")
    process.stop()
