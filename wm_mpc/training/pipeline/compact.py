"""Compact latents: one vector a picture, projector and dynamics."""

from __future__ import annotations

import dataclasses
from typing import Any

from wm_mpc.latents.frames import frame_latents
from wm_mpc.latents.windows import LatentWindows, TokenWindows
from wm_mpc.models.world_model import WorldModel
from wm_mpc.training.dynamics.latent import train_dynamics
from wm_mpc.training.dynamics.symmetry import symmetry
from wm_mpc.training.optimise import distributed
from wm_mpc.training.pipeline.config import WorldModelTraining
from wm_mpc.training.pipeline.material import Material
from wm_mpc.training.pipeline.stages import (
    fit_object_frame,
    model_config,
    predictor_args,
    set_normalisation,
    set_visual_scale,
)
from wm_mpc.training.projector.joint import train_joint


def train_compact(
    config: WorldModelTraining, material: Material
) -> tuple[WorldModel, dict[str, Any]]:
    """Projector, then dynamics on frozen latents."""
    preset, seed = material.preset, config.seed
    landmarks = config.projector == "landmarks"
    wanted = config.frame == "object" or (
        not config.frame and preset.object_frame and landmarks and config.predictor == "mlp"
    )
    predictor = predictor_args(config.predictor, preset, config.width, config.depth, wanted)
    if material.source is None:
        model, facts = teach_latents(config, material, predictor)
    else:
        model, facts = adopt_latents(config, material, material.source, predictor)
        landmarks = model.visual_dim == 2 * preset.landmarks
    distributed.share_state(model)
    windows = material.windows
    if config.joint.steps:
        data = TokenWindows.build(
            model, material.tokens, material.own, material.frames, windows, config.held_out
        )
        facts["joint"] = train_joint(model, data, config.joint, material.work / "joint")
        set_visual_scale(model, material.tokens, seed)
    latents = frame_latents(model, material.frames, tokens=material.tokens, progress=True)
    fit_object_frame(model, preset, latents, seed)
    facts["dynamics"] = train_dynamics(
        model,
        LatentWindows.build(model, latents, material.frames, windows, config.held_out),
        config.dynamics,
        material.work,
        # only landmarks are known to turn with the workspace
        augment=symmetry(model, preset) if landmarks and not config.joint.steps else None,
        probe=config.selection.probe(model, config.task),
    )
    return model, facts


def teach_latents(
    config: WorldModelTraining, material: Material, predictor: dict[str, Any]
) -> tuple[WorldModel, dict[str, Any]]:
    """Model with normalisation, projector and reader trained, and a fresh predictor."""
    preset, seed = material.preset, config.seed
    landmarks = config.projector == "landmarks"
    layout = {
        "projector": "keypoint_pool",
        "visual_dim": 2 * preset.landmarks if landmarks else config.visual_dim,
        "predictor": config.predictor,
        "predictor_args": predictor,
        "proprio_reader": config.reader_steps > 0,
    }
    model = WorldModel(model_config(config.task, preset, **layout), material.encoder)
    model.to(material.encoder.mean.device)
    set_normalisation(model, material.frames, material.own, preset.rest_at_zero)
    facts: dict[str, Any] = {}
    if distributed.rank() == 0:
        if landmarks:
            marks = dataclasses.replace(
                config.landmarks, landmarks=preset.landmarks, rotate=preset.rotate,
                robot=preset.robot,
            )  # fmt: skip
            facts["landmarks"] = material.landmarks(model, marks)
        if config.reader_steps:
            facts["reader"] = material.reader(model, config.reader_steps, seed)
    return model, facts


def adopt_latents(
    config: WorldModelTraining, material: Material, source: WorldModel, predictor: dict[str, Any]
) -> tuple[WorldModel, dict[str, Any]]:
    """Everything of ``source`` but its predictor, which starts anew."""
    layout = dataclasses.replace(
        source.config, predictor=config.predictor, predictor_args=predictor
    )
    model = WorldModel(layout, material.encoder).to(material.encoder.mean.device)
    kept = {k: v for k, v in source.state_dict().items() if not k.startswith("predictor.")}
    model.load_state_dict(kept, strict=False)
    return model, {"latents_from": source.hash}
