"""``wm-mpc finetune``: make a world model fit for gradient planning (arXiv 2512.09929).

``adversarial`` trains on the worst transitions near the expert ones, ``online`` on what the
planner's own plans really do, ``both`` on both. The weights with the highest closed-loop success
are kept; the start model is never written to.
"""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from annotated_types import Gt, Le
from tyro.conf import Positional

from wm_mpc.core.errors import UserError
from wm_mpc.core.fields import Checked, NonNegativeInt
from wm_mpc.core.locations import ASSETS
from wm_mpc.core.provenance import write_report
from wm_mpc.data.formats import open_data
from wm_mpc.evaluation.rollouts import simulator
from wm_mpc.evaluation.train_test_gap import GapConfig, measure_gap, print_gap
from wm_mpc.latents.expert import load_expert
from wm_mpc.models.world_model import WorldModel, encoder_reference
from wm_mpc.training.dynamics.symmetry import task_symmetry
from wm_mpc.training.finetune.adversarial import Attack, AttackConfig
from wm_mpc.training.finetune.curriculum import CurriculumConfig
from wm_mpc.training.finetune.finetune import Collector, FinetuneConfig, finetune
from wm_mpc.training.finetune.online import OnlineConfig
from wm_mpc.training.finetune.selection import SelectionConfig, success_score
from wm_mpc.viz.plots import draw_finetuning


@dataclass(frozen=True)
class Config(Checked):
    """Fine-tune the predictor of a world model.

    Attributes:
        task: a task's name, or module:TASK.
        data: store of expert trajectories; online fine-tuning needs its simulator states.
        out: folder of the new model; never that of the start model.
        method: adversarial, online or both.
        model: folder of the start model; default: the bundled one of the task.
        tokens: folder of the store's token cache, filled where it is not complete; default: no
            cache, the frames of the chosen episodes are encoded.
        episodes: so many episodes, spread evenly over the store; 0: all.
        held_out: share of the episodes held out.
        seed: seed of batches, perturbations, starts and plans.
        augment: move windows by the symmetries of the task's workspace, as training does; for
            landmark latents only.
        finetune: schedule and loss.
        attack: adversarial perturbations.
        online: plans to execute.
        curriculum: rollout length and goal distance.
        selection: closed-loop evaluation that picks the weights.
        measure_gap: compare model errors on expert and planner trajectories before and after.
        gap: how.
        report: JSON file to write; default: finetune.json in ``out``.
    """

    task: Positional[str]
    data: Path
    out: Path
    method: Literal["adversarial", "online", "both"] = "adversarial"
    model: Path | None = None
    tokens: Path | None = None
    episodes: NonNegativeInt = 0
    held_out: Annotated[float, Gt(0), Le(0.5)] = 0.05
    seed: NonNegativeInt = 0
    augment: bool = False
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    attack: AttackConfig = field(default_factory=AttackConfig)
    online: OnlineConfig = field(default_factory=OnlineConfig)
    curriculum: CurriculumConfig = field(default_factory=CurriculumConfig)
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    measure_gap: bool = False
    gap: GapConfig = field(default_factory=GapConfig)
    report: Path | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.out.resolve() == self.start.resolve():
            raise UserError(f"out: {self.out} holds the start model, which is never overwritten")

    @property
    def start(self) -> Path:
        """Folder of the start model."""
        return self.model or ASSETS / self.task


def run(config: Config) -> int:
    """Fine-tune, save the best, draw the curves and write the report; the exit code."""
    if config.finetune.threads:
        torch.set_num_threads(config.finetune.threads)
    torch.manual_seed(config.seed)
    model = WorldModel.load(config.start)
    if model.config.task != config.task:
        raise UserError(f"model: trained for {model.config.task}; {config.task} expected")
    online = config.method in ("online", "both")
    length = max(
        config.curriculum.rollout[1],
        config.curriculum.goal_distance[1] if online else 1,
        config.gap.distance if config.measure_gap else 1,
    )
    store = open_data(config.data)
    expert = load_expert(model, store, length, config.tokens, config.episodes, config.held_out)
    work = config.out / "work"
    env = simulator(config.task, model) if online or config.measure_gap else None
    collector = None
    if online:
        collector = Collector(model, env, expert, config.online, work / "corrected", config.seed)
    attack = None if config.method == "online" else Attack(model, config.attack)
    original = copy.deepcopy(model)
    base, probe = start_success(model, config), config.selection.probe(model, config.task)
    done = finetune(
        model,
        expert,
        config.finetune,
        config.curriculum,
        attack=attack,
        collector=collector,
        probe=probe,
        augment=task_symmetry(model) if config.augment else None,
        folder=work,
        seed=config.seed,
        key=resume_key(config),
    )
    best = max((value for _, value in done.probes), default=None)
    improved = None if base is None or best is None else best >= success_score(base)
    if improved is False:
        print(f"the start model does better on these goals; it is still in {config.start}")
    facts = {
        "task": config.task, "method": config.method, "model": config.method,
        "parent": original.hash,
        "steps": done.step, "seconds": round(done.elapsed, 1), "improved": improved,
        "best_step": next((s for s, v in done.probes if v == best), done.step),
        "start": base, "probes": done.probes,
        "corrected_steps": len(collector.buffer) if collector else 0,
    }  # fmt: skip
    model.generation += 1
    model.save(config.out, encoder=encoder_reference(model, config.out), extra=facts)
    draw_finetuning(
        config.out / "finetune.png", done.curve, done.probes, base and success_score(base)
    )
    extra: dict[str, Any] = {"config": asdict(config), "curve": done.curve}
    if config.measure_gap:
        models = {"base": original, config.method: model}
        extra["gap"] = measure_gap(models, env, expert, config.gap)
        print_gap(extra["gap"])
    write_report(
        config.report or config.out / "finetune.json", config.seed, [facts], **extra
    )
    measured = base is not None and best is not None
    shown = f", success {base['success_rate']:.2f} -> {best:.2f}" if measured else ""
    print(f"{config.out}: model {model.hash} after {done.step} steps{shown}")
    return 0


def start_success(model: WorldModel, config: Config) -> dict[str, Any] | None:
    """Closed-loop evaluation of the start model; None where nothing is measured."""
    if not config.selection.goals:
        return None
    row = config.selection.measure(model, config.task, config.method)
    kept = ("n", "seed", "success_rate", "success_ci95", "final_error")
    return {name: row[name] for name in kept}


def resume_key(config: Config) -> dict[str, Any]:
    """Settings that must agree for an unfinished run to be taken up."""
    names = (
        "method", "episodes", "held_out", "seed", "augment", "attack", "online", "selection",
    )  # fmt: skip
    values = asdict(config)
    values["online"]["corrected"] = [str(p.resolve()) for p in config.online.corrected]
    return {"data": str(config.data.resolve()), **{name: values[name] for name in names}}
