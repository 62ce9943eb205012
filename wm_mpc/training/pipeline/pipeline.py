"""World-model training from a store to a model folder, stage by stage."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wm_mpc.core.provenance import write_report
from wm_mpc.data.formats import open_data
from wm_mpc.data.store.store import StoreSpec
from wm_mpc.data.store.windows import Frames
from wm_mpc.evaluation.pages import training_page, window_strips
from wm_mpc.evaluation.validation import lines, validate
from wm_mpc.latents.frames import frame_latents, held_out_frames, held_out_windows
from wm_mpc.latents.novelty import fit_novelty
from wm_mpc.models.world_model import WorldModel, encoder_reference
from wm_mpc.tasks.registry import find_task
from wm_mpc.training.dynamics.decoder import train_decoder
from wm_mpc.training.optimise import distributed
from wm_mpc.training.pipeline.compact import train_compact
from wm_mpc.training.pipeline.config import RobotTraining, WorldModelTraining
from wm_mpc.training.pipeline.material import Material, prepare
from wm_mpc.training.pipeline.outlook import outlook
from wm_mpc.training.pipeline.patch_layout import train_patch_layout
from wm_mpc.viz.plots import draw_curves, draw_validation
from wm_mpc.viz.report_page import ReportPage, write_page

DECODER_FRAMES = 8000
"""Most frames to train a decoder on where the latents of all do not fit ``DECODER_BYTES``."""
DECODER_BYTES = 2**30
"""Most memory for latents to train a decoder on."""


def train_world_model(config: WorldModelTraining) -> WorldModel:
    """Run all stages and save the model.

    Raises:
        UserError: unknown task, unusable data, encoder or device.
    """
    if not isinstance(config, RobotTraining):
        config = dataclasses.replace(config, task=find_task(config.task).name)
    if config.dynamics.threads:
        torch.set_num_threads(config.dynamics.threads)
    with distributed.process_group(config.device) as device:
        # The stage checks it again, but the compact one comes after minutes of others.
        part = "patch" if config.layout == "patch" else "dynamics"
        distributed.check_batch(f"{part}.batch", getattr(config, part).batch)
        started = time.perf_counter()
        store = open_data(config.data)
        if isinstance(config, RobotTraining):
            config = for_robot(config, store.spec)
        if distributed.rank() == 0:
            print(outlook(config, len(store)), file=sys.stderr)
        material = prepare(config, store, device)
        torch.manual_seed(config.seed)
        model, facts = LAYOUTS[config.layout](config, material)
        decoder = None
        if config.decoder.steps:
            ids = decoder_frames(model, material.frames, config.seed)
            latents = frame_latents(model, material.frames, ids, material.tokens)
            decoder, facts["decoder"] = train_decoder(
                latents, material.frames, config.decoder, ids, device, material.work / "decoder"
            )
        if distributed.rank() == 0:
            frames = material.frames
            about = {
                "data": {
                    "episodes": len(frames.length),
                    "frames": len(material.own),
                    "steps": int(frames.length.sum()),
                },
                "seed": config.seed,
                "layout": config.layout,
                "processes": distributed.world(),
                "seconds": round(time.perf_counter() - started, 1),
            }
            facts = about | facts
            if model.encoder is not None:
                model.novelty = fit_novelty(model, [frames], seed=config.seed)
            finish(config, model, facts)
            if decoder is not None:
                decoder.save(config.out, model)
            # Last: nothing that goes wrong here may cost the model.
            facts["validation"] = look_at(config, material, model)
            path = report(config, facts)
            write_page(path, lambda: page(config, material, model, facts))
        distributed.barrier()
    return model


def for_robot(config: RobotTraining, spec: StoreSpec) -> RobotTraining:
    """Settings for the robot of a store: its name, and nothing that reads what it does not say."""
    config = dataclasses.replace(config, task=config.task or spec.task)
    if spec.proprio_dim:
        return config
    joint = dataclasses.replace(config.joint, posture=0.0)
    return dataclasses.replace(config, reader_steps=0, joint=joint)


def decoder_frames(model: WorldModel, frames: Frames, seed: int) -> np.ndarray:
    """Frame ids to train a decoder on: all whose latents fit ``DECODER_BYTES``, else a sample.

    One latent of DINO-WM's layout is 309 kB, so that those of a whole store fit no memory.
    """
    size = 4 * int(torch.Size(model.latent_shape).numel())
    most = len(frames.image_step)
    if most * size > DECODER_BYTES:
        most = max(1, min(DECODER_FRAMES, DECODER_BYTES // size))
    return held_out_frames(frames, 1.0, most, seed)


LAYOUTS: dict[str, Callable[[WorldModelTraining, Material], tuple[WorldModel, dict]]] = {
    "compact": train_compact,
    "patch": train_patch_layout,
}


def finish(config: WorldModelTraining, model: WorldModel, facts: dict[str, Any]) -> None:
    """Save the model, its report and its curves."""
    dynamics = facts["dynamics"]
    curve = dynamics.pop("curve")
    model.save(config.out, encoder=encoder_reference(model, config.out), extra=facts)
    draw_curves(config.out / "training.png", curve, dynamics["open_loop_rmse"], dynamics["probes"])
    report(config, facts)
    print(json.dumps(facts))


def report(config: WorldModelTraining, facts: dict[str, Any]) -> Path:
    """Write the JSON file of the run."""
    return write_report(config.report or config.out / "training.json", config.seed, [facts])


def page(
    config: WorldModelTraining, material: Material, model: WorldModel, facts: dict[str, Any]
) -> ReportPage:
    """What the run made: curves, figures, and held-out windows as the model imagines them."""
    found, said, strips = facts["validation"], [], []
    if found is not None:
        said = lines({"task": config.task, "model": model.hash, "closed_loop": None} | found)
        windows = held_out_windows(material.windows, material.frames, config.held_out)
        strips = window_strips(model, material.frames, windows, config.seed)
    return training_page({"task": config.task} | facts, said, config.out, strips)


def look_at(
    config: WorldModelTraining, material: Material, model: WorldModel
) -> dict[str, Any] | None:
    """Rank correlation and open-loop error on held-out episodes, printed and drawn.

    Returns:
        What ``validation.validate`` found; None where it is switched off or the held-out
        episodes have no window.
    """
    if not config.validation.frames:
        return None
    held_out = config.held_out
    if not len(held_out_windows(material.windows, material.frames, held_out)):
        print(f"not validated: the last {held_out:g} of the episodes have no window")
        return None
    found = validate(
        model.eval(), material.store, held_out=held_out, frames=config.validation.frames,
        windows=config.validation.windows, steps=material.windows.frames.shape[1] - 1,
        seed=config.seed,
    )  # fmt: skip
    about = {"task": config.task, "model": model.hash, "closed_loop": None}
    print("\n".join(lines(about | found)))
    draw_validation(config.out / "validation.png", found)
    return found
