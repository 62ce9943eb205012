"""World-model training from a store to a model folder, stage by stage."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wm_mpc.data.store import Store
from wm_mpc.data.windows import Frames, Windows
from wm_mpc.encoder import DinoEncoder
from wm_mpc.errors import UserError
from wm_mpc.report import write_report
from wm_mpc.training import distributed
from wm_mpc.training.decode import train_decoder
from wm_mpc.training.dynamics import (
    frame_proprio,
    held_out_split,
    latent_windows,
    project_frames,
    train_dynamics,
)
from wm_mpc.training.expert import check_interface, project_chosen
from wm_mpc.training.joint import train_joint
from wm_mpc.training.landmarks import LandmarkConfig
from wm_mpc.training.patch import set_token_scale, train_patch
from wm_mpc.training.plots import draw_curves, draw_validation
from wm_mpc.training.presets import PRESETS, TaskPreset, robot_preset
from wm_mpc.training.run_validate import lines
from wm_mpc.training.stages import (
    fit_object_frame,
    model_config,
    once,
    predictor_args,
    set_normalisation,
    set_visual_scale,
    symmetry,
    teach_landmarks,
    teach_reader,
)
from wm_mpc.training.tokens import cache_tokens, fingerprint, read_tokens, store_digest
from wm_mpc.training.train_config import RobotTraining, WorldModelTraining
from wm_mpc.training.validation import held_out_frames, last_episodes, validate
from wm_mpc.training.windows import TokenWindows
from wm_mpc.world_model import WorldModel, encoder_reference

DECODER_FRAMES = 8000
"""Most frames to train a decoder on where the latents of all do not fit ``DECODER_BYTES``."""
DECODER_BYTES = 2**30
"""Most memory for latents to train a decoder on."""


@dataclass
class Material:
    """What every layout trains on.

    Attributes:
        preset: interface of the task.
        store, frames: the data.
        windows: training windows of the layout's length.
        own: raw proprioception of every frame, ``(F, P)``.
        encoder: frozen.
        tokens: its cached tokens, float16 ``(F, N, C)``.
        source: the model of ``latents_from``, where one is given.
        origin: what stages done before must share: digests of the store and the encoder.
        work: folder of caches and resumable states.
    """

    preset: TaskPreset
    store: Store
    frames: Frames
    windows: Windows
    own: np.ndarray
    encoder: DinoEncoder
    tokens: np.ndarray
    source: WorldModel | None
    origin: dict[str, Any]
    work: Path

    def once(
        self, name: str, settings: dict[str, Any], model: WorldModel, parts: tuple[str, ...],
        stage: Callable[[], dict[str, Any]],
    ) -> dict[str, Any]:  # fmt: skip
        """``stages.once`` for these data, kept in ``work``."""
        key = {"origin": self.origin, "settings": settings}
        return once(self.work / f"{name}.safetensors", key, model, parts, stage)

    def reader(self, model: WorldModel, steps: int, seed: int) -> dict[str, Any]:
        """Teach the model to read proprioception, unless that has been done; the facts."""
        return self.once(
            "reader", {"steps": steps, "seed": seed},
            model, ("proprio_reader.", "proprio_mean", "proprio_std"),
            lambda: teach_reader(model, self.tokens, self.own, steps, seed),
        )  # fmt: skip

    def landmarks(self, model: WorldModel, marks: LandmarkConfig) -> dict[str, Any]:
        """Teach the projector its landmarks, unless that has been done; the facts."""

        def stage() -> dict[str, Any]:
            facts = teach_landmarks(model, self.frames, self.own, marks, marks.seed)
            set_visual_scale(model, self.tokens, marks.seed)
            return facts

        return self.once(
            "landmarks", dataclasses.asdict(marks),
            model, ("projector.", "visual_", "action_", "proprio_mean", "proprio_std"), stage,
        )  # fmt: skip


def train_world_model(config: WorldModelTraining) -> WorldModel:
    """Run all stages and save the model.

    Raises:
        UserError: unknown task, unusable data, encoder or device.
    """
    if isinstance(config, RobotTraining):
        spec = Store.open(config.data).spec
        steps = config.reader_steps if spec.proprio_dim else 0
        config = dataclasses.replace(config, task=config.task or spec.task, reader_steps=steps)
    elif config.task not in PRESETS:
        raise UserError(f"task: {config.task!r}; one of {', '.join(PRESETS)} expected")
    if config.dynamics.threads:
        torch.set_num_threads(config.dynamics.threads)
    with distributed.process_group(config.device) as device:
        # The stage checks it again, but the compact one comes after minutes of others.
        part = "patch" if config.layout == "patch" else "dynamics"
        distributed.check_batch(f"{part}.batch", getattr(config, part).batch)
        started = time.perf_counter()
        material = prepare(config, device)
        torch.manual_seed(config.seed)
        model, facts = LAYOUTS[config.layout](config, material)
        decoder = None
        if config.decoder.steps:
            ids = decoder_frames(model, material.frames, config.seed)
            latents = project_chosen(model, material.tokens, ids, material.own[ids])
            training = dataclasses.replace(config.decoder, seed=config.seed)
            decoder, facts["decoder"] = train_decoder(
                latents, material.frames, training, ids, device, material.work / "decoder"
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
            finish(config, model, facts)
            if decoder is not None:
                decoder.save(config.out, model)
            # Last: nothing that goes wrong here may cost the model.
            report(config, facts | {"validation": look_at(config, material, model)})
        distributed.barrier()
    return model


def decoder_frames(model: WorldModel, frames: Frames, seed: int) -> np.ndarray:
    """Frame ids to train a decoder on: all whose latents fit ``DECODER_BYTES``, else a sample.

    One latent of DINO-WM's layout is 309 kB, so that those of a whole store fit no memory.
    """
    size = 4 * int(torch.Size(model.latent_shape).numel())
    most = len(frames.image_step)
    if most * size > DECODER_BYTES:
        most = max(1, min(DECODER_FRAMES, DECODER_BYTES // size))
    return held_out_frames(frames, 1.0, most, seed)


def prepare(config: WorldModelTraining, device: torch.device) -> Material:
    """Open the data, see that the task can be trained on them, and encode them.

    The first rank encodes while the others wait.

    Raises:
        UserError: the data are of another interface or too short or few, the encoder cannot be
            used, ``latents_from`` does not fit, or ``tokens`` holds those of another encoder or
            store; nothing has been computed or deleted then.
    """
    store = Store.open(config.data)
    preset = preset_of(config, store)
    check_interface(model_config(config.task, preset), store, config.task)
    frames = store.frames()
    windows = training_windows(config, store, preset)
    encoder = DinoEncoder.load(config.encoder, config.image_size or None).to(device)
    source = latents_source(config, store, preset, encoder)
    work = config.out / "work"
    folder = config.tokens or work
    if distributed.rank() == 0:
        # only this run's own folder: what lies in one that was named may be another run's
        cache_tokens(encoder, frames, folder, replace=config.tokens is None)
    distributed.barrier()
    # not cache_tokens, with which the ranks would write the same file at once
    tokens = read_tokens(encoder, frames, folder)
    own = frame_proprio(frames)
    origin = {
        "store": store_digest(frames),
        "encoder": fingerprint(encoder),
        "image_size": encoder.image_size,
    }
    return Material(preset, store, frames, windows, own, encoder, tokens, source, origin, work)


def preset_of(config: WorldModelTraining, store: Store) -> TaskPreset:
    """What training must know of the task: the built-in ones by name, a robot by its store."""
    if not isinstance(config, RobotTraining):
        return PRESETS[config.task]
    return robot_preset(
        store, config.frameskip, config.action_low, config.action_high, config.goal_weights
    )


def latents_source(
    config: WorldModelTraining, store: Store, preset: TaskPreset, encoder: DinoEncoder
) -> WorldModel | None:
    """The model of ``config.latents_from``; None without one.

    Raises:
        UserError: that model is of another task, interface, layout or encoder.
    """
    if config.latents_from is None:
        return None
    source = WorldModel.load(config.latents_from)
    if source.config.task != config.task or source.config.projector == "identity":
        raise UserError(
            f"latents_from: {config.latents_from} is a {source.config.task} model with projector "
            f"{source.config.projector}; {config.task} and keypoint_pool expected"
        )
    check_interface(source.config, store, str(config.latents_from))
    if source.config.frameskip != preset.frameskip:
        raise UserError(
            f"frameskip: {preset.frameskip}; {config.latents_from} expects "
            f"{source.config.frameskip}"
        )
    if source.encoder is None or fingerprint(source.encoder) != fingerprint(encoder):
        raise UserError(f"latents_from: {config.latents_from} has another encoder than --encoder")
    if source.encoder.image_size != encoder.image_size:
        raise UserError(
            f"image_size: {encoder.image_size} px; {config.latents_from} expects "
            f"{source.encoder.image_size} px"
        )
    return source


def training_windows(config: WorldModelTraining, store: Store, preset: TaskPreset) -> Windows:
    """Windows of the length that the layout's losses need.

    Raises:
        UserError: no episode is that long, or all that are would be held out.
    """
    length, held_out = config.window, {"dynamics.held_out": config.dynamics.held_out}
    if config.layout == "patch":
        length = max(length, config.patch.window)
        held_out = {"patch.held_out": config.patch.held_out}
    elif config.joint.steps:
        held_out["joint.held_out"] = config.joint.held_out
    try:
        windows = store.windows(length, preset.frameskip)
    except ValueError as error:
        longest = int(store.frames().length.max())
        raise UserError(
            f"data: {store.path}: no window of {length} model steps of {preset.frameskip} control "
            f"steps with a picture at each; the longest episode has {longest} control steps"
        ) from error
    for name, share in held_out.items():
        train, _ = held_out_split(torch.from_numpy(windows.episode), share)
        if not len(train):
            raise UserError(
                f"{name}: {share:g} of the episodes; at least one other of {len(store)} with a "
                f"window of {length} model steps expected in {store.path}"
            )
    return windows


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
        data = TokenWindows.build(model, material.tokens, material.frames, windows)
        joint = dataclasses.replace(config.joint, seed=seed)
        facts["joint"] = train_joint(model, data, joint, material.work / "joint")
        set_visual_scale(model, material.tokens, seed)
    latents = project_frames(model, material.tokens, material.own)
    fit_object_frame(model, preset, latents, seed)
    facts["dynamics"] = train_dynamics(
        model,
        latent_windows(model, latents, material.frames, windows),
        dataclasses.replace(config.dynamics, seed=seed),
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
    set_normalisation(model, material.frames, material.own)
    facts: dict[str, Any] = {}
    if distributed.rank() == 0:
        if landmarks:
            marks = dataclasses.replace(
                config.landmarks, landmarks=preset.landmarks, rotate=preset.rotate,
                robot=preset.robot, seed=seed,
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


def train_patch_layout(
    config: WorldModelTraining, material: Material
) -> tuple[WorldModel, dict[str, Any]]:
    """Patch tokens as they are, and a ViT predictor."""
    preset, patch = material.preset, dataclasses.replace(config.patch, seed=config.seed)
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
    data = TokenWindows.build(model, material.tokens, material.frames, material.windows)
    probe = config.selection.probe(model, config.task)
    facts["dynamics"] = train_patch(model, data, patch, material.work, probe=probe)
    return model, facts


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


def report(config: WorldModelTraining, facts: dict[str, Any]) -> None:
    """Write the JSON file of the run."""
    write_report(config.report or config.out / "training.json", None, config.seed, [facts])


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
    held_out = (config.patch if config.layout == "patch" else config.dynamics).held_out
    if not len(last_episodes(material.windows, material.frames, held_out)):
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
