"""DINO-WM's layout: dynamics on patch tokens."""

from __future__ import annotations

from typing import Any

from wm_mpc.latents.windows import TokenWindows
from wm_mpc.models.world_model import WorldModel
from wm_mpc.training.dynamics.patch import set_token_scale, train_patch
from wm_mpc.training.optimise import distributed
from wm_mpc.training.pipeline.config import WorldModelTraining
from wm_mpc.training.pipeline.material import Material
from wm_mpc.training.pipeline.stages import model_config, set_normalisation


def train_patch_layout(
    config: WorldModelTraining, material: Material
) -> tuple[WorldModel, dict[str, Any]]:
    """Patch tokens as they are, and a ViT predictor."""
    preset, patch = material.preset, config.patch
    layout = {
        "projector": "identity",
        "visual_dim": material.encoder.dim,
        "proprio_embed": patch.proprio_embed,
        "predictor": "vit",
        "predictor_args": patch.predictor_args(),
        "proprio_reader": config.reader_steps > 0,
    }
    model = WorldModel(model_config(config.task, preset, **layout), material.encoder)
    model.to(material.encoder.mean.device)
    set_normalisation(model, material.frames, material.own)
    set_token_scale(model, material.tokens, config.seed)
    facts: dict[str, Any] = {}
    if distributed.rank() == 0 and config.reader_steps:
        facts["reader"] = material.reader(model, config.reader_steps, config.seed)
    distributed.share_state(model)
    data = TokenWindows.build(
        model, material.tokens, material.own, material.frames, material.windows, config.held_out
    )
    probe = config.selection.probe(model, config.task)
    facts["dynamics"] = train_patch(model, data, patch, material.work, probe=probe)
    return model, facts
