"""What a training run starts from: store, frames, tokens, windows, the model to be trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wm_mpc.core.errors import UserError
from wm_mpc.data.store.store import Store
from wm_mpc.data.store.windows import Frames, Windows
from wm_mpc.latents.expert import check_interface
from wm_mpc.latents.frames import frame_proprio
from wm_mpc.latents.tokens import cache_tokens, read_tokens, store_digest
from wm_mpc.latents.windows import held_out_split
from wm_mpc.models.encoder import DinoEncoder
from wm_mpc.models.identity import fingerprint
from wm_mpc.models.world_model import WorldModel
from wm_mpc.tasks.presets import TaskPreset, robot_preset
from wm_mpc.tasks.registry import find_task
from wm_mpc.training.optimise import distributed
from wm_mpc.training.optimise.stage_cache import once
from wm_mpc.training.pipeline.config import RobotTraining, WorldModelTraining
from wm_mpc.training.pipeline.stages import model_config, set_visual_scale
from wm_mpc.training.projector.landmarks import LandmarkConfig, teach_landmarks
from wm_mpc.training.projector.reader import teach_reader


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
            facts = teach_landmarks(model, self.frames, self.own, marks)
            set_visual_scale(model, self.tokens, marks.seed)
            return facts

        return self.once(
            "landmarks", dataclasses.asdict(marks),
            model, ("projector.", "visual_", "action_", "proprio_mean", "proprio_std"), stage,
        )  # fmt: skip


def prepare(config: WorldModelTraining, store: Store, device: torch.device) -> Material:
    """See that the task can be trained on a store, and encode its pictures.

    The first rank encodes while the others wait.

    Raises:
        UserError: the data are of another interface or too short or few, the encoder cannot be
            used, ``latents_from`` does not fit, or ``tokens`` holds those of another encoder or
            store; nothing has been computed or deleted then.
    """
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
    """What training must know of the task: what a named one declares, of a robot its store.

    Raises:
        UserError: an unknown task, or one that declares nothing for training.
    """
    if not isinstance(config, RobotTraining):
        preset = find_task(config.task).preset
        if preset is None:
            raise UserError(f"task: {config.task!r} has no preset; `wm-mpc train robot` expected")
        return preset
    preset = robot_preset(
        store, config.frameskip, config.action_low, config.action_high, config.goal_weights
    )
    return dataclasses.replace(
        preset, action_basis=config.action_basis, action_knots=config.action_knots,
        rest_at_zero=config.rest_at_zero,
    )  # fmt: skip


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
    length = config.window
    if config.layout == "patch":
        length = max(length, config.patch.window)
    try:
        windows = store.windows(length, preset.frameskip)
    except ValueError as error:
        longest = int(store.frames().length.max())
        raise UserError(
            f"data: {store.path}: no window of {length} model steps of {preset.frameskip} control "
            f"steps with a picture at each; the longest episode has {longest} control steps"
        ) from error
    train, _ = held_out_split(torch.from_numpy(windows.episode), config.held_out)
    if not len(train):
        raise UserError(
            f"held_out: {config.held_out:g} of the episodes; at least one other of {len(store)} "
            f"with a window of {length} model steps expected in {store.path}"
        )
    return windows
