"""Fine-tuning while the robot runs: rounds of training on what really happened, and their checks.

Trajectories lie in a store that others fill. A round trains the last good weights on a mixture of
replayed expert data and corrected data, validates the candidate on held-out trajectories against
the weights it started from and against the start model, and writes it as a new generation only
when it is not worse. Nothing is ever overwritten; a round cut short by a kill is taken up again
where it was. What is damaged is left out, down to the start model; the oldest trajectories and
generations are deleted.

Folder layout: ``trajectories/`` (store), ``models/00001/`` ... (generations), ``state.json`` (what
is good, what was refused), ``work/`` (the unfinished round).
"""

from __future__ import annotations

import math
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from wm_mpc.core.errors import DataError, UserError, one_line
from wm_mpc.core.files import remove_leftovers
from wm_mpc.data.store.store import Store
from wm_mpc.evaluation.train_test_gap import errors_per_step
from wm_mpc.latents.expert import Expert, load_expert
from wm_mpc.latents.replay import Replay
from wm_mpc.latents.windows import Batch
from wm_mpc.models.world_model import WorldModel, encoder_reference
from wm_mpc.training.finetune.adversarial import Attack, AttackConfig
from wm_mpc.training.finetune.finetune import FinetuneLoss
from wm_mpc.training.live.config import LiveConfig
from wm_mpc.training.live.data import LiveData
from wm_mpc.training.live.state import DAMAGED, STATE, UNUSABLE, Generations, LiveState
from wm_mpc.training.optimise.loop import Schedule, fit

TRAJECTORIES, MODELS, WORK = "trajectories", "models", "work"


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
        OSError: the disk is full or not readable.
    """

    def __init__(
        self, model: Path, out: Path, config: LiveConfig, seed: int = 0, device: str = "cpu"
    ) -> None:
        self.config, self.out, self.seed, self.device = config, out, seed, device
        self._notes: list[str] = []
        out.mkdir(parents=True, exist_ok=True)
        remove_leftovers(out)
        self.model = WorldModel.load(model, device=device)
        self._start_hash = self.model.hash
        self._start = {k: v.clone() for k, v in self.model.predictor.state_dict().items()}
        self.generations = Generations(out / MODELS)
        self.state = self._load_state()
        self.expert: Expert | None = None
        if config.replay:
            self._load_expert(Path(config.replay).expanduser())
        else:
            self._notes.append(
                "replay: empty; nothing guards against forgetting what expert data taught"
            )
        self._return_to_good()
        self.data = LiveData(out / TRAJECTORIES, self.model, config)
        self.new_steps = 0

    def _load_state(self) -> LiveState:
        """What the disk says; a damaged state is put aside, and the start model is good again."""
        try:
            state = LiveState.load(self.out)
        except DataError as error:
            (self.out / STATE).replace(self.out / DAMAGED)
            # What was taken back is not known any more, so no generation can be trusted; their
            # numbers are not used again.
            state = LiveState(last=max(self.generations.numbers(), default=0))
            self._note(state, f"{one_line(error)}; learning begins anew from the start model")
            state.save(self.out)
        if state.start and state.start != self._start_hash:
            raise UserError(
                f"out: {self.out} continues model {state.start}; the start model is "
                f"{self._start_hash}"
            )
        state.start = self._start_hash
        if state.good and not state.line:
            state.line = self.generations.ancestors(state.good)
        return state

    def _load_expert(self, replay: Path) -> None:
        """Encode expert data, and measure the start model on them where that was not done yet."""
        config, store = self.config, Store.open(replay)
        self.expert = load_expert(
            self.model, store, config.rollout, None, config.replay_episodes, progress=False
        )
        used = min(config.replay_episodes or len(store), len(store))
        data = f"{used} of {len(store)} episodes of {replay.resolve()}, {config.rollout} steps"
        if self.state.expert_data != data:
            self.state.expert_error, self.state.expert_data = self._expert_error(), data
            self.state.save(self.out)

    def notes(self) -> list[str]:
        """What a person should know of, once: damage, trajectories left out, missing guards."""
        told, self._notes = self._notes + self.data.notes, []
        self.data.notes = []
        return told

    def _note(self, state: LiveState, line: str) -> None:
        state.refused.append(line)
        self._notes.append(line)

    # ---- data -------------------------------------------------------------------------------

    def look(self) -> int:
        """Note trajectories that came since the last look; returns how many wait to be used."""
        if self.data.look():
            self.new_steps = self.data.steps_since(self.state.used)
        return self.data.waiting

    def ready(self) -> bool:
        """Whether a round is due: enough new data, or an unfinished round."""
        self.look()
        if self.state.round > self.state.used:
            return True
        return self.new_steps >= self.config.min_new_steps and self.data.enough

    # ---- rounds -----------------------------------------------------------------------------

    def round(self) -> Outcome:
        """Train, validate, and write or refuse a candidate; takes up an unfinished round.

        Raises:
            OSError: the disk is full or not readable; ``recover`` before going on.
        """
        self.look()
        state = self.state
        if state.round <= state.used:
            state.round = self.data.total
            state.save(self.out)
        self.data.take(state.round)
        before = self.validate()
        self._fit()
        after = self.validate()
        reason = verdict(before, after, self.config, state.expert_error)
        outcome = Outcome(None, "", reason, before, after)
        if reason:
            state.refused.append(f"round on {state.round} trajectories: {reason}")
            self._return_to_good()
        else:
            outcome = self._write(before, after)
        state.used, state.round = state.round, 0
        state.save(self.out)
        shutil.rmtree(self.out / WORK, ignore_errors=True)
        self.data.prune()
        self.generations.prune(self.config.keep_generations, {state.good, *state.line[-1:]})
        self.new_steps = self.data.steps_since(state.used)
        return outcome

    def recover(self) -> None:
        """After an ``OSError``: continue from what the disk says."""
        self.state = self._load_state()
        self._return_to_good()

    def take_back(self, digest: str, reason: str) -> bool:
        """Forget a generation that its user refused, and all that came from it.

        Returns:
            Whether the weights to continue from changed.
        """
        state = self.state
        line = [*state.line, state.good] if state.good else []
        while line and self.generations.digest(line[-1]) != digest:
            line.pop()
        if not line:
            return False
        state.good, state.line = line[-1], line[:-1]
        state.fall_back()
        state.refused.append(f"model {digest}: {reason}")
        state.save(self.out)
        self._return_to_good()
        return True

    def good_path(self) -> Path | None:
        """Folder of the generation to continue from; None: the start model."""
        return self.generations.path(self.state.good) if self.state.good else None

    def validate(self) -> dict[str, float]:
        """Root mean square error of the weights as they are, by kind of held-out data."""
        found = {}
        rollout = self.config.rollout
        held = self.data.held
        rows = held.starts(rollout)
        if len(rows):
            found["corrected"] = mean_error(self.model, held.windows(rows, rollout))
        if self.expert is not None:
            found["expert"] = self._expert_error()
        return found

    def _expert_error(self) -> float:
        assert self.expert is not None
        ids = self.expert.held[:2000]
        return mean_error(self.model, self.expert.data.batch(ids, self.config.rollout))

    def _fit(self) -> None:
        config = self.config
        attack = Attack(self.model, AttackConfig()) if config.adversarial else None
        data, ids = (self.expert.data, self.expert.train) if self.expert else (None, None)
        ratio = (config.replay_ratio[0], config.replay_ratio[1])
        replay = Replay(
            data, ids, self.data.train, ratio, config.batch, config.rollout, device=self.device
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
        """Write a generation."""
        state = self.state
        state.last += 1
        target = self.generations.path(state.last)
        facts = {
            "live": {"parent_generation": state.good, "start": state.start,
                     "trajectories": state.round, "before": before, "after": after}
        }  # fmt: skip
        self.model.generation = state.last
        encoder = encoder_reference(self.model, target)
        self.model.save(self.generations.partial(state.last), encoder=encoder, extra=facts)
        self.generations.publish(state.last)
        self.model.path = target
        if state.good:
            state.line = [*state.line, state.good][-self.config.keep_generations :]
        state.good = state.last
        return Outcome(target, self.model.hash, "", before, after)

    def _return_to_good(self) -> None:
        """Weights of the last good generation that can be loaded, or of the start model."""
        state = self.state
        while state.good:
            try:
                # Loading moves a shared encoder, too: it must stay where the start model is.
                folder = self.generations.path(state.good)
                good = WorldModel.load(folder, self.model.encoder, device=self.device)
                self.model.predictor.load_state_dict(good.predictor.state_dict())
            except UNUSABLE as error:
                bad = state.good
                state.fall_back()
                parent = f"generation {state.good}" if state.good else "the start model"
                self._note(state, f"generation {bad}: {one_line(error)}; back to {parent}")
                state.save(self.out)
                continue
            self.model.hash = good.hash
            break
        else:
            self.model.predictor.load_state_dict(self._start)
            self.model.hash = state.start
        self.model.predictor.eval()


def mean_error(model: WorldModel, batch: Batch) -> float:
    """Root mean square latent error over windows and steps."""
    return float(errors_per_step(model, batch).square().mean().sqrt())


def verdict(
    before: dict[str, float], after: dict[str, float], config: LiveConfig, start: float = 0.0
) -> str:
    """Why a candidate is refused, or nothing.

    Args:
        before: validation errors of the weights that training started from.
        after: those of the candidate.
        config: how much worse it may be.
        start: error of the start model on held-out expert data; 0: not known.
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
    total = config.worse_expert_total
    if start and after.get("expert", 0.0) > total * start:
        return (
            f"expert: error {after['expert']:.4g} on held-out data, {start:.4g} of the start "
            f"model; at most {total:g} times that allowed"
        )
    return ""


__all__ = ["LiveTrainer", "Outcome", "verdict"]
