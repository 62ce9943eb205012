"""The latent world model: encoder, projector, predictor, and the files they travel in.

A *latent* is one tensor per frame whose last axis is ``[visual | proprioception]``:

- compact layout, ``(D,)``: a trained projector's ``visual_dim`` numbers and the
  normalised proprioception;
- patch layout, ``(N, D)``: DINO-WM's patch tokens, the proprioception embedding tiled to
  every token.

Actions are *model actions*: ``frameskip`` raw actions stacked to width ``A`` and normalised, or
the fewer coefficients that describe them (``action_basis.py``).
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wm_mpc.core.device import usable_device
from wm_mpc.core.errors import CheckpointError, one_line
from wm_mpc.models.action_basis import action_basis
from wm_mpc.models.checkpoint import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    check_state,
    load_encoder,
    names_encoder,
    read_record,
    read_weights,
    write_checkpoint,
)
from wm_mpc.models.config import WorldModelConfig
from wm_mpc.models.encoder import DinoEncoder
from wm_mpc.models.novelty import NOVELTY_FILE, Novelty, load_novelty
from wm_mpc.models.predictors import PREDICTORS
from wm_mpc.models.projectors import PROJECTORS, KeypointPool


class WorldModel(nn.Module):
    """Encoder, projector and predictor; satisfies the planners' ``Dynamics`` protocol.

    Args:
        config: architecture.
        encoder: frozen DINO encoder; None builds a model that works on cached latents only.
        num_tokens: tokens per frame of the encoder, when ``encoder`` is None.
        channels: numbers per token, likewise.
    """

    def __init__(
        self,
        config: WorldModelConfig,
        encoder: DinoEncoder | None,
        num_tokens: int = 0,
        channels: int = 0,
    ) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        if encoder is not None:
            num_tokens, channels = encoder.num_tokens, encoder.dim
        self.num_tokens, self.channels = num_tokens, channels
        projector = PROJECTORS[config.projector]
        self.projector = projector(
            num_tokens, channels, config.visual_dim, **config.projector_args
        )
        self.visual_dim = config.visual_dim
        self.proprio_width = config.proprio_embed or config.proprio_dim
        width = self.visual_dim + self.proprio_width
        self.latent_shape = (num_tokens, width) if config.projector == "identity" else (width,)
        basis = action_basis(config.action_basis, config.frameskip, config.action_knots)
        self.register_buffer("action_basis", basis, persistent=False)
        self.register_buffer("action_fit", torch.linalg.pinv(basis), persistent=False)
        self.action_width = config.action_dim * basis.shape[1]
        self.proprio_encoder = (
            nn.Linear(config.proprio_dim, config.proprio_embed)
            if config.proprio_embed
            else nn.Identity()
        )
        self.proprio_reader = (
            KeypointPool(num_tokens, channels, config.proprio_dim)
            if config.proprio_reader
            else None
        )
        self.predictor = PREDICTORS[config.predictor](
            self.latent_shape, self.action_width, **config.predictor_args
        )
        # Normalisation constants travel with the weights; identity until training sets them.
        self.register_buffer("action_mean", torch.zeros(config.action_dim))
        self.register_buffer("action_std", torch.ones(config.action_dim))
        self.register_buffer("proprio_mean", torch.zeros(config.proprio_dim))
        self.register_buffer("proprio_std", torch.ones(config.proprio_dim))
        # Scale that makes the visual part of a latent unit variance on training data.
        self.register_buffer("visual_mean", torch.zeros(self.visual_dim))
        self.register_buffer("visual_std", torch.ones(self.visual_dim))
        self.generation = 0
        self.hash = ""
        self.path: Path | None = None
        self.novelty: Novelty | None = None

    # ---- units ----------------------------------------------------------------------------------

    def normalize_actions(self, raw: Tensor) -> Tensor:
        """Stack and normalise actions.

        Raw control-step actions ``(..., K * frameskip, action_dim)`` -> model actions
        ``(..., K, A)``.
        """
        x = (raw - self.action_mean) / self.action_std
        x = x.unflatten(-2, (-1, self.config.frameskip))
        if self.config.action_basis != "raw":
            x = self.action_fit @ x
        return x.flatten(-2)

    def denormalize_actions(self, actions: Tensor) -> Tensor:
        """Invert ``normalize_actions``.

        Model actions ``(..., K, A)`` -> raw control-step actions
        ``(..., K * frameskip, action_dim)``.
        """
        x = actions.unflatten(-1, (-1, self.config.action_dim))
        if self.config.action_basis != "raw":
            x = self.action_basis @ x
        return x.flatten(-3, -2) * self.action_std + self.action_mean

    def action_bounds(self) -> tuple[Tensor, Tensor]:
        """Bounds of a model action in normalised units, two tensors ``(A,)``."""
        low = torch.tensor(self.config.action_low, device=self.action_mean.device)
        high = torch.tensor(self.config.action_high, device=self.action_mean.device)
        low, high = ((b - self.action_mean) / self.action_std for b in (low, high))
        knots = self.action_basis.shape[1]
        return low.repeat(knots), high.repeat(knots)

    @property
    def plan_basis(self) -> Tensor | None:
        """Basis ``(frameskip, K)`` of a model action; None where it is the commands themselves."""
        return None if self.config.action_basis == "raw" else self.action_basis

    @property
    def goal_weights(self) -> Tensor | None:
        """Relative goal-cost weight of each proprioception channel, ``(proprio_width,)``.

        None: all equal.
        """
        weights = self.config.goal_weights
        return torch.tensor(weights) if weights and not self.config.proprio_embed else None

    # ---- perception -----------------------------------------------------------------------------

    def encode(self, images: Tensor, proprio: Tensor) -> Tensor:
        """Latents of pictures and raw proprioception.

        uint8 ``(B, H, W, 3)``, ``(B, P)`` -> ``(B, *L)``.

        Raises:
            RuntimeError: the model was built without an encoder.
        """
        if self.encoder is None:
            raise RuntimeError(
                "this world model was built without an encoder; it works on cached latents only"
            )
        return self.encode_tokens(self.encoder(images), proprio)

    def encode_tokens(self, tokens: Tensor, proprio: Tensor) -> Tensor:
        """Latents ``(B, *L)`` of tokens ``(B, N, C)`` and raw proprioception ``(B, P)``."""
        return self.join(self.project(tokens), proprio)

    def read_proprio(self, images: Tensor) -> Tensor:
        """Raw proprioception that pictures show: uint8 ``(B, H, W, 3)`` -> ``(B, P)``.

        Trained on the robot's own reports, so only for a goal that comes without them. What one
        picture cannot show, such as velocities, comes out near its mean.

        Raises:
            RuntimeError: the model has no encoder or was not trained to read.
        """
        if self.encoder is None or self.proprio_reader is None:
            raise RuntimeError("this world model cannot read proprioception from pictures")
        return self.proprio_reader(self.encoder(images)) * self.proprio_std + self.proprio_mean

    def project(self, tokens: Tensor) -> Tensor:
        """Visual part only: tokens ``(B, N, C)`` -> ``(B, [N,] visual_dim)``.

        It has zero mean and unit variance on training data.
        """
        return (self.projector(tokens) - self.visual_mean) / self.visual_std

    def join(self, visual: Tensor, proprio: Tensor) -> Tensor:
        """Append embedded raw proprioception ``(B, P)`` to visual ``(B, [N,] visual_dim)``."""
        embedded = self.proprio_encoder((proprio - self.proprio_mean) / self.proprio_std)
        if visual.ndim == 3:
            embedded = embedded[:, None].expand(-1, visual.shape[1], -1)
        return torch.cat([visual, embedded], -1)

    # ---- dynamics -------------------------------------------------------------------------------

    def step(self, latent: Tensor, action: Tensor) -> Tensor:
        """Predict one model step from one frame: ``(B, *L), (B, A) -> (B, *L)``.

        Planning conditions on the last frame only, as the planner of arXiv 2512.09929 does.
        """
        return self.predictor(latent[:, None], action[:, None])[:, 0]

    def rollout(self, latent: Tensor, actions: Tensor) -> Tensor:
        """Predict ``T`` model steps open loop: ``(B, *L), (B, T, A) -> (B, T, *L)``."""
        steps = []
        for t in range(actions.shape[1]):
            latent = self.step(latent, actions[:, t])
            steps.append(latent)
        return torch.stack(steps, 1)

    # ---- files ----------------------------------------------------------------------------------

    def save(
        self, path: str | Path, encoder: str | None = None, extra: dict[str, Any] | None = None
    ) -> str:
        """Write ``world_model.safetensors`` and ``world_model.json``, not the encoder itself.

        Args:
            path: folder, created if needed. Files are replaced atomically, weights before the JSON
                that vouches for them.
            encoder: where to find the encoder: a path relative to ``path``, an absolute path or a
                hub id.
            extra: JSON-able facts stored under ``"extra"`` (training command, metrics, seeds).

        Returns:
            The model hash: first 12 hex digits of the weights' SHA-256.
        """
        path = Path(path)
        state = {
            k: v.detach().cpu().contiguous()
            for k, v in self.state_dict().items()
            if not k.startswith("encoder.")
        }
        source = encoder if encoder is not None else (self.encoder.source if self.encoder else "")
        record = {
            "config": dataclasses.asdict(self.config),
            "encoder": {
                "source": source,
                "num_tokens": self.num_tokens,
                "channels": self.channels,
                "image_size": self.encoder.image_size if self.encoder else 0,
            },
            "generation": self.generation,
            "extra": extra or {},
        }
        beside = {} if self.novelty is None else {NOVELTY_FILE: self.novelty.serialize()}
        self.hash, self.path = write_checkpoint(path, state, record, beside)[:12], path
        return self.hash

    @classmethod
    def load(
        cls,
        path: str | Path,
        encoder: DinoEncoder | None = None,
        device: str | torch.device = "cpu",
        with_encoder: bool = True,
    ) -> WorldModel:
        """Load and validate a model folder.

        Args:
            path: folder written by ``save``.
            encoder: an already loaded encoder to share; default: the one the folder names.
            device: torch device.
            with_encoder: False skips the encoder (training on cached latents).

        Raises:
            CheckpointError: a file is missing, truncated or altered, or of another format, version
                or shape.
            UserError: this machine has no such device.
        """
        device = usable_device(device)
        path = Path(path)
        record = read_record(path)
        try:
            config = WorldModelConfig(**record["config"])
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"{path / CONFIG_FILE}: config: {error}") from error
        about = record["encoder"]
        try:
            # On the meta device a model of any size takes no memory.
            with torch.device("meta"):
                outline = cls(config, None, about["num_tokens"], about["channels"])
        except KeyError as error:
            raise CheckpointError(f"{path / CONFIG_FILE}: encoder: no {error}") from error
        except (TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
            raise CheckpointError(f"{path / CONFIG_FILE}: config: {one_line(error)}") from error
        state, digest = read_weights(path, record, outline.state_dict())
        if encoder is None and with_encoder:
            encoder = load_encoder(path, about)
        if encoder is not None and (encoder.num_tokens, encoder.dim) != (
            about["num_tokens"],
            about["channels"],
        ):
            raise CheckpointError(
                f"{path}: encoder gives {encoder.num_tokens} x {encoder.dim} tokens, "
                f"the model was trained on {about['num_tokens']} x {about['channels']}"
            )
        check_state(state, outline.state_dict(), path / WEIGHTS_FILE)
        for key in ("action_std", "proprio_std", "visual_std"):
            if not (state[key] > 0).all():
                least = float(state[key].min())
                raise CheckpointError(f"{path / WEIGHTS_FILE}: {key}: {least:g}; more than 0")
        model = cls(config, encoder, about["num_tokens"], about["channels"])
        model.load_state_dict(state, strict=False)
        model.generation = int(record.get("generation", 0))
        model.hash, model.path = digest[:12], path
        model.novelty = load_novelty(path, model.channels, config.proprio_dim)
        return model.to(device).eval()


__all__ = [
    "WorldModel",
    "WorldModelConfig",
    "encoder_reference",
    "load_encoder",
    "names_encoder",
    "read_record",
]


def encoder_reference(model: WorldModel, folder: Path) -> str:
    """Where a model saved in ``folder`` finds its encoder: a relative path, or a hub id."""
    source = model.encoder.source if model.encoder is not None else ""
    if not Path(source).is_dir():
        return source
    return os.path.relpath(Path(source).resolve(), folder.resolve())
