"""``wm-mpc validate``: ranking, open-loop error and success of a world model, as in its card."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Le
from tyro.conf import Positional

from wm_mpc.core.fields import Checked, NonNegativeFloat, NonNegativeInt, PositiveInt
from wm_mpc.core.files import write_atomically
from wm_mpc.core.provenance import write_report
from wm_mpc.data.formats import open_data
from wm_mpc.evaluation.pages import validation_page, window_strips
from wm_mpc.evaluation.rows import evaluate
from wm_mpc.evaluation.validation import lines, validate
from wm_mpc.latents.frames import held_out_windows
from wm_mpc.latents.novelty import fit_novelty
from wm_mpc.models.novelty import NOVELTY_FILE
from wm_mpc.models.world_model import WorldModel
from wm_mpc.viz.plots import draw_validation
from wm_mpc.viz.report_page import Strip, write_page


@dataclass(frozen=True)
class Config(Checked):
    """Measure what a training loss does not tell.

    Attributes:
        model: world-model folder.
        data: store folder; its last episodes are used.
        held_out: share of the episodes to use, in (0, 1]; the default is what training holds out.
        frames: most frames whose distances are ranked.
        windows: most windows predicted open loop.
        steps: model steps per window.
        proprio_weight: weight of proprioception in the ranked goal cost.
        goals: closed-loop episodes in the simulator; 0: none.
        planner: planner of those episodes.
        options: fields of the planner's configuration, name=value.
        budget_fraction: planning time per tick as a share of the CEM reference's; 0: no deadline.
        seed: seed of all choices.
        threads: threads of torch; 0: torch's own choice.
        device: cpu, cuda or cuda:N.
        write_novelty: only write the statistics of what training saw into the model's folder,
            from all episodes but the held-out ones, scaled by those; the weights stay as they are.
        more_data: further stores for these statistics, such as pictures of other sizes.
        report: JSON file to write; curves (.png) and a page (.html) go beside it.
    """

    model: Positional[Path]
    data: Path
    held_out: Annotated[float, Gt(0), Le(1)] = 0.02
    frames: Annotated[int, Ge(2)] = 2000
    windows: PositiveInt = 400
    steps: PositiveInt = 5
    proprio_weight: NonNegativeFloat = 0.3
    goals: NonNegativeInt = 0
    planner: str = "adam"
    options: tuple[str, ...] = ()
    budget_fraction: NonNegativeFloat = 0.0
    seed: NonNegativeInt = 0
    threads: NonNegativeInt = 0
    device: str = "cpu"
    write_novelty: bool = False
    more_data: tuple[Path, ...] = ()
    report: Path | None = None


def run(config: Config) -> int:
    """Validate, print the figures and write the report; the exit code.

    Raises:
        UserError: this machine has no such device, or model and data do not fit.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    model = WorldModel.load(config.model, device=config.device)
    store = open_data(config.data)
    if config.write_novelty:
        stores = [store, *map(open_data, config.more_data)]
        frames = [each.frames() for each in stores]
        novelty = fit_novelty(model, frames, config.held_out, config.seed)
        write_atomically(config.model / NOVELTY_FILE, novelty.serialize())
        print(f"{config.model / NOVELTY_FILE}: statistics of {len(frames)} stores")
        return 0
    found = validate(
        model, store, held_out=config.held_out, frames=config.frames, windows=config.windows,
        steps=config.steps, proprio_weight=config.proprio_weight, seed=config.seed, progress=True,
    )  # fmt: skip
    facts = {"task": model.config.task, "model": model.hash, **found, "closed_loop": None}
    if config.goals:
        facts["closed_loop"] = evaluate(
            model, model.config.task, config.planner, config.goals, config.seed,
            options=config.options, budget_fraction=config.budget_fraction,
        )  # fmt: skip
    for line in lines(facts):
        print(line)
    if config.report is not None:
        write_report(config.report, config.seed, [facts])
        picture = config.report.with_suffix(".png")
        draw_validation(picture, facts)
        write_page(
            config.report,
            lambda: validation_page(facts, lines(facts), picture, strips(config, model, store)),
        )
    return 0


def strips(config: Config, model: WorldModel, store: Any) -> list[Strip]:
    """Windows as they came and as the model imagined them; none without a decoder."""
    frames = store.frames()
    candidates = store.windows(config.steps, model.config.frameskip)
    windows = held_out_windows(candidates, frames, config.held_out)
    return window_strips(model, frames, windows, config.seed)
