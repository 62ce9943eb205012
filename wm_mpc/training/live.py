"""Fine-tuning while the robot runs: rounds of training on what really happened, and their checks.

Trajectories lie in a store that others fill. A round trains the last good weights on a mixture of
replayed expert data and corrected data, validates the candidate on held-out trajectories against
the weights it started from, and writes it as a new generation only when it is not worse. Nothing
is ever overwritten; a round cut short by a kill is taken up again where it was.

Folder layout: ``trajectories/`` (store), ``models/00001/`` ... (generations), ``state.json`` (what
is good, what was refused), ``work/`` (the unfinished round).
"""

from __future__ import annotations

import json
import math
import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from wm_mpc.bounds import bounded, check_bounds
from wm_mpc.data.store import Store
from wm_mpc.data.trajectory import Trajectory
from wm_mpc.errors import UserError
from wm_mpc.training.adversarial import Attack, AttackConfig
from wm_mpc.training.corrected import (
    Batch,
    LatentBuffer,
    Replay,
    expert_windows,
    trajectory_chains,
)
from wm_mpc.training.expert import Expert, load_expert
from wm_mpc.training.finetune import FinetuneLoss
from wm_mpc.training.gap import errors_per_step
from wm_mpc.training.loop import Schedule, fit
from wm_mpc.world_model import WorldModel, encoder_reference, read_record

TRAJECTORIES, MODELS, STATE, WORK = "trajectories", "models", "state.json", "work"


@dataclass(frozen=True)
class LiveConfig:
    """Rounds of live fine-tuning.

    Attributes:
        replay: store of expert trajectories mixed into every batch and validated on; empty: none.
        replay_episodes: episodes of it that are used, spread evenly; 0: all.
        replay_ratio: parts expert and parts corrected in every batch.
        adversarial: true: attack the inputs too (Adversarial World Modeling).
        steps: optimiser steps per round.
        batch: windows per step.
        lr: peak learning rate of a round.
        rollout: model steps predicted open loop in the loss.
        min_new_steps: model steps that must have come since the last round.
        limit_steps: model steps of corrected data kept for training, the oldest go first.
        hold_out: every so manieth trajectory is held out for validation.
        worse_corrected: largest error of a candidate on held-out corrected data, relative to the
            weights it started from.
        worse_expert: the same on held-out expert data, where a little may be given up.
    """

    replay: str = ""
    replay_episodes: int = bounded(300, 0, 10**9)
    replay_ratio: tuple[int, ...] = bounded((7, 3), 0, 1000)
    adversarial: bool = False
    steps: int = bounded(400, 1, 10**7)
    batch: int = bounded(256, 1, 10**6)
    lr: float = bounded(5e-4, 1e-8, 1.0)
    rollout: int = bounded(1, 1, 100)
    min_new_steps: int = bounded(100, 1, 10**9)
    limit_steps: int = bounded(20_000, 1, 10**9)
    hold_out: int = bounded(5, 2, 1000)
    worse_corrected: float = bounded(1.0, 0.0, 1e6)
    worse_expert: float = bounded(1.2, 0.0, 1e6)

    def __post_init__(self) -> None:
        check_bounds(self)
        if len(self.replay_ratio) != 2 or sum(self.replay_ratio) < 1:
            raise ValueError(f"replay_ratio: {self.replay_ratio}; two numbers, not both 0")


@dataclass
class LiveState:
    """What must survive a kill.

    Attributes:
        good: generation to continue from; 0: the start model.
        last: highest generation ever written.
        used: trajectories that finished rounds saw.
        round: trajectories of the unfinished round; 0: none is under way.
        start: hash of the start model.
        refused: one line per refused round or update that was taken back, the last 100.
    """

    good: int = 0
    last: int = 0
    used: int = 0
    round: int = 0
    start: str = ""
    refused: list[str] = field(default_factory=list)

    def save(self, folder: Path) -> None:
        """Write atomically."""
        self.refused = self.refused[-100:]
        temporary = folder / (STATE + ".tmp")
        temporary.write_text(json.dumps(asdict(self), indent=1) + "\n")
        temporary.replace(folder / STATE)

    @classmethod
    def load(cls, folder: Path) -> LiveState:
        """Read what is there; a fresh state where there is none."""
        file = folder / STATE
        return cls(**json.loads(file.read_text())) if file.is_file() else cls()


@dataclass(frozen=True)
class Outcome:
    """What came of a round.

    Attributes:
        path: folder of the new generation; None: refused.
        hash: hash of the candidate; empty: refused.
        reason: why it was refused; empty: it was not.
        before, after: validation errors by kind of data.
    """

    path: Path | None
    hash: str
    reason: str
    before: dict[str, float]
    after: dict[str, float]


class LiveTrainer:
    """Rounds on one folder; one process at a time.

    Args:
        model: start model folder.
        out: working folder, see the module.
        config: rounds.
        seed: of batches and perturbations.
        device: torch device.

    Raises:
        UserError: the folder belongs to another start model, or data do not fit.
    """

    def __init__(
        self, model: Path, out: Path, config: LiveConfig, seed: int = 0, device: str = "cpu"
    ) -> None:
        self.config, self.out, self.seed, self.device = config, out, seed, device
        out.mkdir(parents=True, exist_ok=True)
        self.state = LiveState.load(out)
        self.model = WorldModel.load(model, device=device)
        if self.state.start and self.state.start != self.model.hash:
            raise UserError(
                f"out: {out} continues model {self.state.start}; {model} is {self.model.hash}"
            )
        self.state.start = self.model.hash
        self._start = {k: v.clone() for k, v in self.model.predictor.state_dict().items()}
        self._return_to_good()
        self.expert: Expert | None = None
        if config.replay:
            store = Store.open(Path(config.replay).expanduser())
            self.expert = load_expert(
                self.model, store, config.rollout, None, config.replay_episodes, progress=False
            )
        self.train = LatentBuffer(config.limit_steps)
        self.held = LatentBuffer(config.limit_steps)
        self.seen = 0
        self.new_steps = 0
        self._files: set[str] = set()
        self._waiting: list[Trajectory] = []

    # ---- data -------------------------------------------------------------------------------

    def look(self) -> int:
        """Read trajectories that came since the last look; returns how many wait to be used."""
        folder = self.out / TRAJECTORIES
        files = {file.name for file in folder.glob("shard-*.safetensors")}
        if files - self._files:
            stored = Store.open(folder, skip_bad=True)
            known = self.seen + len(self._waiting)
            self._waiting += [stored[i] for i in range(known, len(stored))]
            self._files = files
            self.new_steps = self._steps_since_last_round()
        return len(self._waiting)

    def ready(self) -> bool:
        """Whether a round is due: enough new data, or an unfinished round."""
        self.look()
        if self.state.round > self.state.used:
            return True
        enough = self.seen + len(self._waiting) >= self.config.hold_out
        return enough and self.new_steps >= self.config.min_new_steps

    def _steps_since_last_round(self) -> int:
        frameskip = self.model.config.frameskip
        fresh = self._waiting[max(0, self.state.used - self.seen) :]
        return sum(len(trajectory) // frameskip for trajectory in fresh)

    def _take(self, until: int) -> None:
        """Encode waiting trajectories up to the ``until``-th of the store."""
        while self.seen < until and self._waiting:
            trajectory = self._waiting.pop(0)
            # Which ones are held out depends on their place in the store only: the same after a
            # restart, so that no candidate is ever judged on what it was trained on.
            held = self.seen % self.config.hold_out == self.config.hold_out - 1
            for latents, actions in trajectory_chains(self.model, trajectory):
                (self.held if held else self.train).add(latents, actions)
            self.seen += 1

    # ---- rounds -----------------------------------------------------------------------------

    def round(self) -> Outcome:
        """Train, validate, and write or refuse a candidate; takes up an unfinished round."""
        self.look()
        state = self.state
        if state.round <= state.used:
            state.round = self.seen + len(self._waiting)
            state.save(self.out)
        self._take(state.round)
        before = self.validate()
        self._fit()
        after = self.validate()
        reason = verdict(before, after, self.config)
        outcome = Outcome(None, "", reason, before, after)
        if reason:
            state.refused.append(f"round on {state.round} trajectories: {reason}")
            self._return_to_good()
        else:
            outcome = self._write(before, after)
        state.used, state.round = state.round, 0
        state.save(self.out)
        shutil.rmtree(self.out / WORK, ignore_errors=True)
        self.new_steps = self._steps_since_last_round()
        return outcome

    def take_back(self, digest: str, reason: str) -> bool:
        """Forget a generation that its user refused, and all that came from it.

        Returns:
            Whether the weights to continue from changed.
        """
        generation = self.state.good
        while generation and self._record(generation)["sha256"] != digest:
            generation = self._record(generation)["parent"]
        if not generation:
            return False
        self.state.refused.append(f"model {digest}: {reason}")
        self.state.good = self._record(generation)["parent"]
        self.state.save(self.out)
        self._return_to_good()
        return True

    def good_path(self) -> Path | None:
        """Folder of the generation to continue from; None: the start model."""
        return self._folder(self.state.good) if self.state.good else None

    def validate(self) -> dict[str, float]:
        """Root mean square error of the weights as they are, by kind of held-out data."""
        found = {}
        rollout = self.config.rollout
        rows = self.held.starts(rollout) if len(self.held) else torch.zeros(0)
        if len(rows):
            found["corrected"] = mean_error(self.model, self.held.windows(rows, rollout))
        if self.expert is not None:
            ids = self.expert.held[:2000]
            found["expert"] = mean_error(
                self.model, expert_windows(self.expert.data, ids, rollout)
            )
        return found

    def _fit(self) -> None:
        config = self.config
        attack = Attack(self.model, AttackConfig()) if config.adversarial else None
        data, ids = (self.expert.data, self.expert.train) if self.expert else (None, None)
        ratio = (config.replay_ratio[0], config.replay_ratio[1])
        replay = Replay(
            data, ids, self.train, ratio, config.batch, config.rollout, device=self.device
        )
        try:
            fit(
                FinetuneLoss(self.model, 0.2, attack),
                {"predictor": self.model.predictor},
                replay,
                Schedule(
                    config.steps, config.lr, save_every=max(1, config.steps // 10),
                    seed=self.seed + self.state.round,
                ),
                key={"config": asdict(config), "from": self.model.hash, "round": self.state.round},
                name="round",
                folder=self.out / WORK,
                progress=False,
            )  # fmt: skip
        except UserError as error:
            # A loss that is not finite: the candidate is as it is, and validation refuses it.
            self.state.refused.append(str(error))
        self.model.predictor.eval()

    def _write(self, before: dict[str, float], after: dict[str, float]) -> Outcome:
        """Write a generation; a reader never sees half of one."""
        state = self.state
        state.last += 1
        target = self._folder(state.last)
        facts = {
            "live": {"parent_generation": state.good, "start": state.start,
                     "trajectories": state.round, "before": before, "after": after}
        }  # fmt: skip
        partial = target.with_name(target.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        self.model.generation = state.last
        self.model.save(partial, encoder=encoder_reference(self.model, target), extra=facts)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(partial, target)
        self.model.path = target
        state.good = state.last
        return Outcome(target, self.model.hash, "", before, after)

    def _folder(self, generation: int) -> Path:
        return self.out / MODELS / f"{generation:05d}"

    def _record(self, generation: int) -> dict[str, Any]:
        """Hash and parent generation of a generation."""
        record = read_record(self._folder(generation))
        digest = next(iter(record["sha256"].values()))[:12]
        return {"sha256": digest, "parent": record["extra"]["live"]["parent_generation"]}

    def _return_to_good(self) -> None:
        """Weights of the last good generation, or of the start model."""
        if not self.state.good:
            self.model.predictor.load_state_dict(self._start)
            self.model.hash = self.state.start
            return
        # Loading moves a shared encoder, too: it must stay where the start model is.
        good = WorldModel.load(
            self._folder(self.state.good), self.model.encoder, device=self.device
        )
        self.model.predictor.load_state_dict(good.predictor.state_dict())
        self.model.hash = good.hash


def mean_error(model: WorldModel, batch: Batch) -> float:
    """Root mean square latent error over windows and steps."""
    return float(errors_per_step(model, batch).square().mean().sqrt())


def verdict(before: dict[str, float], after: dict[str, float], config: LiveConfig) -> str:
    """Why a candidate is refused, or nothing.

    Args:
        before: validation errors of the weights that training started from.
        after: those of the candidate.
        config: how much worse it may be.
    """
    if "corrected" not in after:
        return "no held-out trajectory yet"
    for kind, error in after.items():
        if not math.isfinite(error):
            return f"{kind}: the error on held-out data is not finite"
        allowed = config.worse_corrected if kind == "corrected" else config.worse_expert
        if error > allowed * before[kind]:
            return (
                f"{kind}: error {error:.4g} on held-out data, {before[kind]:.4g} before; at most "
                f"{allowed:g} times that allowed"
            )
    return ""


__all__ = ["LiveConfig", "LiveState", "LiveTrainer", "Outcome", "verdict"]
