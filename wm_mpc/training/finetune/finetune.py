"""Fine-tuning a predictor: adversarial loss, corrected data, curricula, and the best by success.

Encoder and projector stay as they are, so that latents keep their meaning; see ``adversarial`` and
``online`` for the two methods of arXiv 2512.09929.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from annotated_types import Gt, Lt
from torch import Tensor, nn

from wm_mpc.core.errors import UserError
from wm_mpc.core.fields import Checked, NonNegativeFloat, NonNegativeInt, PositiveInt
from wm_mpc.data.store.format import StoreSpec
from wm_mpc.data.store.store import Store
from wm_mpc.evaluation.rollouts import plan_and_execute
from wm_mpc.latents.expert import Expert, check_store
from wm_mpc.latents.replay import LatentBuffer, Replay, trajectory_chains
from wm_mpc.latents.windows import Augmentation
from wm_mpc.models.world_model import WorldModel
from wm_mpc.training.finetune.adversarial import Attack
from wm_mpc.training.finetune.curriculum import CurriculumConfig
from wm_mpc.training.finetune.online import OnlineConfig
from wm_mpc.training.finetune.rounds import RoundStore
from wm_mpc.training.optimise.loop import Probe, Schedule, fit
from wm_mpc.training.optimise.resume import Progress


@dataclass(frozen=True)
class FinetuneConfig(Checked):
    """Schedule and loss.

    Attributes:
        steps: optimiser steps.
        batch: windows per step.
        lr: peak learning rate (cosine, 2 % warm-up); far below that of the first training.
        weight_decay: AdamW's.
        huber: latent errors above this many standard deviations count linearly; 0: plain squares.
        max_seconds: stop after this much training time [s], the schedule following the clock;
            0: no limit.
        save_every: optimiser steps between resumable states.
        threads: CPU threads; 0 leaves torch's choice.
    """

    steps: PositiveInt = 2000
    batch: PositiveInt = 256
    lr: Annotated[float, Gt(0), Lt(1)] = 2e-4
    weight_decay: NonNegativeFloat = 1e-4
    huber: NonNegativeFloat = 0.0
    max_seconds: NonNegativeFloat = 0.0
    save_every: PositiveInt = 500
    threads: NonNegativeInt = 0


class FinetuneLoss(nn.Module):
    """Rollout loss, on attacked inputs where there is an attack.

    Args:
        model: world model.
        huber: see ``FinetuneConfig``.
        attack: of the model's inputs, or None.
    """

    def __init__(self, model: WorldModel, huber: float, attack: Attack | None) -> None:
        super().__init__()
        self.model, self.huber, self.attack = model, huber, attack

    def forward(self, start: Tensor, actions: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Named losses of a batch ``(B, *L), (B, U, A), (B, U, *L)``."""
        if self.attack is None:
            return {"rollout": self.measure(self.model.rollout(start, actions), targets)}
        return {"adversarial": self.attack.loss(start, actions, targets, self.measure)}

    def measure(self, predicted: Tensor, targets: Tensor) -> Tensor:
        """Mean error of predictions."""
        if self.huber:
            return F.smooth_l1_loss(predicted, targets, beta=self.huber) / self.huber
        return F.mse_loss(predicted, targets)


class Collector:
    """Adds what plans really did to the corrected data, in rounds.

    A resumed run reads the rounds that it had learned from again and repeats later ones.

    Args:
        model: world model in training.
        env: simulator.
        expert: where starts and goals come from.
        config: planner and sizes.
        folder: store of the executed trajectories.
        seed: of starts and plans.

    Attributes:
        buffer: the corrected data.
        rounds: numbers of the rounds in it.

    Raises:
        UserError: a store of ``config.corrected`` does not fit the model, or is ``folder`` itself.
    """

    def __init__(
        self,
        model: WorldModel,
        env: Any,
        expert: Expert,
        config: OnlineConfig,
        folder: Path,
        seed: int,
    ) -> None:
        self.model, self.env, self.expert, self.config = model, env, expert, config
        self.seed = seed
        self.buffer = LatentBuffer(config.limit)
        task, size = env.spec_task, env.image_size
        spec = StoreSpec(
            task=task.name, action_dim=task.action_dim, proprio_dim=task.proprio_dim,
            state_dim=task.state_dim, control_period=task.control_period, image_size=(size, size),
        )  # fmt: skip
        for earlier in config.corrected:
            if earlier.resolve() == folder.resolve():
                raise UserError(
                    f"corrected: {earlier} is where this run keeps its own plans; "
                    "choose another out"
                )
            store = Store.open(earlier)
            check_store(model, store)
            for trajectory in store:
                self._add(trajectory)
        self.store = RoundStore(folder, spec)
        self.rounds: set[int] = set()

    def take_up(self, key: dict[str, Any], step: int) -> None:
        """Read the rounds that a run has learned from; call it once, before the first round.

        Args:
            key: JSON-able settings of the run; another run's rounds are moved aside.
            step: optimiser steps done; later rounds are moved aside.

        Raises:
            UserError: these rounds are not in the store.
        """
        due = -(-step // self.config.every)
        for trajectory in self.store.take_up(key, due):
            self._add(trajectory)
        self.rounds = set(range(due))

    def round(self, number: int, distance: int) -> None:
        """Plan, execute and keep.

        Args:
            number: of the round, from 0; starts and plans depend on it and the seed only.
            distance: model steps between start and goal.
        """
        generator = torch.Generator().manual_seed(self.seed * 100_003 + number)
        train = self.expert.train
        starts = max(1, self.config.rollouts // self.config.chain)
        ids = train[torch.randint(len(train), (starts,), generator=generator)]
        mode = self.model.predictor.training
        self.model.predictor.eval()
        executed = plan_and_execute(
            self.model,
            self.env,
            self.expert,
            ids,
            distance,
            self.config.planner,
            self.config.options,
            self.seed * 100_003 + number,
            self.config.far,
            self.config.objective,
            self.config.chain,
        )
        writer = self.store.writer(number)
        for done in executed:
            done.trajectory.meta["round"] = number
            writer.add(done.trajectory)
            self._add(done.trajectory)
        writer.flush()
        self.rounds.add(number)
        self.model.predictor.train(mode)

    def _add(self, trajectory: Any) -> None:
        for latents, actions in trajectory_chains(self.model, trajectory):
            self.buffer.add(latents, actions)


def finetune(
    model: WorldModel,
    expert: Expert,
    config: FinetuneConfig,
    curriculum: CurriculumConfig,
    *,
    attack: Attack | None = None,
    collector: Collector | None = None,
    probe: Probe | None = None,
    augment: Augmentation | None = None,
    folder: Path | None = None,
    seed: int = 0,
    key: dict[str, Any] | None = None,
    progress: bool = True,
) -> Progress:
    """Fine-tune ``model.predictor`` in place; resumes from ``folder``.

    Args:
        model: world model, left with the weights of the best probe, or the last ones without.
        expert: expert windows.
        config: schedule and loss.
        curriculum: rollout length and goal distance.
        attack: perturbs the inputs; None: they stay clean.
        collector: source of corrected data; None: expert data only.
        probe: measures closed-loop success.
        augment: moves windows by the symmetries of the workspace.
        folder: where the resumable state is kept.
        seed: of batches and perturbations.
        key: further settings that must agree for a stored state to be used.
        progress: show a progress bar.

    Raises:
        UserError: windows too short, a loss that is not finite, or executed plans that the stored
            state needs are not there.
    """
    replay = _replay(expert, collector, curriculum, config.batch, augment)
    spreads: Tensor | None = None
    if attack is not None and attack.config.radii == "fixed":
        # Before this run's own plans are read, so that a resumed one measures the same.
        start, actions, _ = replay(torch.Generator().manual_seed(seed))
        attack.radii(start, attack.inputs(actions))
        spreads = attack.fixed
    run_key = {
        "settings": {k: v for k, v in asdict(config).items() if k != "threads"},
        "start": model.hash,
        "curriculum": asdict(curriculum),
        **(key or {}),
    }

    def begin(state: Progress) -> None:
        if attack is not None and spreads is not None:
            attack.fixed = state.extra.setdefault("radii", spreads).to(spreads.device)
        if collector is not None:
            collector.take_up(run_key, state.step)

    def before(step: int, share: float) -> None:
        replay.length = curriculum.rollout_at(share)
        if collector is not None and step % collector.config.every == 0:
            number = step // collector.config.every
            collector.round(number, curriculum.distance_at(share))

    return fit(
        FinetuneLoss(model, config.huber, attack),
        {"predictor": model.predictor},
        replay,
        Schedule(
            config.steps, config.lr, config.weight_decay, max_seconds=config.max_seconds,
            save_every=config.save_every, seed=seed,
        ),
        key=run_key,
        name="finetune",
        folder=folder,
        probe=probe,
        begin=begin,
        before=before,
        progress=progress,
    )  # fmt: skip


def _replay(
    expert: Expert,
    collector: Collector | None,
    curriculum: CurriculumConfig,
    batch: int,
    augment: Augmentation | None,
) -> Replay:
    """Source of batches; refuses windows that are shorter than the curriculum's longest."""
    longest = max(curriculum.rollout[1], curriculum.goal_distance[1] if collector else 1)
    if expert.data.actions.shape[1] < longest:
        have = expert.data.actions.shape[1]
        raise UserError(f"rollout: {longest} model steps; the windows have {have}")
    corrected = None if collector is None else collector.buffer
    ratio = (1, 0) if collector is None else collector.config.ratio
    return Replay(expert.data, expert.train, corrected, ratio, batch, augment=augment)


__all__ = ["Collector", "FinetuneConfig", "FinetuneLoss", "finetune"]
