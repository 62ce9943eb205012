"""The latent world model: encoder, projector, predictor, and the files they travel in.

A *latent* is one tensor per frame whose last axis is ``[visual | proprioception]``:

- compact layout, ``(D,)``: a trained projector's ``visual_dim`` numbers and the
  normalised proprioception;
- patch layout, ``(N, D)``: DINO-WM's patch tokens, the proprioception embedding tiled to
  every token.

Actions are *model actions*: ``frameskip`` raw actions stacked to width ``A`` and normalised.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save_file
from torch import Tensor, nn

from wm_mpc.encoder import DinoEncoder
from wm_mpc.errors import CheckpointError
from wm_mpc.predictors import PREDICTORS
from wm_mpc.projector import PROJECTORS, KeypointPool

FORMAT = "wm_mpc.world_model"
VERSION = 1
CONFIG_FILE = "world_model.json"
WEIGHTS_FILE = "world_model.safetensors"


@dataclass(frozen=True)
class WorldModelConfig:
    """Architecture and the task's interface.

    Attributes:
        task: task the model was trained for.
        action_dim: raw action width.
        proprio_dim: raw proprioception width.
        frameskip: control steps per model step.
        control_period: seconds per control step.
        action_low, action_high: raw action bounds, ``action_dim`` values each.
        projector: ``identity`` (patch layout) or ``keypoint_pool`` (compact layout).
        visual_dim: visual latent width; the encoder's for ``identity``.
        proprio_embed: width of a learned proprioception embedding; 0 uses the normalised values
            themselves.
        predictor: ``mlp``, ``gru`` or ``vit``.
        goal_weights: relative weight of each raw proprioception channel in goal costs, >= 0;
            empty: all equal. Only meaningful without a learned proprioception embedding.
        proprio_reader: whether the model can read the robot's own posture from a picture, for
            goals given as a picture alone.
        projector_args, predictor_args: further arguments of the two, see their classes.
    """

    task: str
    action_dim: int
    proprio_dim: int
    frameskip: int
    control_period: float
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    projector: str = "keypoint_pool"
    visual_dim: int = 32
    proprio_embed: int = 0
    predictor: str = "mlp"
    goal_weights: tuple[float, ...] = ()
    proprio_reader: bool = False
    projector_args: dict[str, Any] = field(default_factory=dict)
    predictor_args: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("action_dim", "frameskip", "visual_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)}; at least 1 expected")
        for name in ("proprio_dim", "proprio_embed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: {getattr(self, name)}; at least 0 expected")
        if not self.control_period > 0:
            raise ValueError(f"control_period: {self.control_period} s; more than 0 expected")
        for name in ("action_low", "action_high"):
            object.__setattr__(self, name, tuple(float(v) for v in getattr(self, name)))
            if len(getattr(self, name)) != self.action_dim:
                raise ValueError(
                    f"{name}: {len(getattr(self, name))} values for "
                    f"{self.action_dim} action dimensions"
                )
        object.__setattr__(self, "goal_weights", tuple(float(v) for v in self.goal_weights))
        if self.goal_weights and (
            len(self.goal_weights) != self.proprio_dim or min(self.goal_weights) < 0
        ):
            raise ValueError(
                f"goal_weights: {self.goal_weights}; "
                f"{self.proprio_dim} values of at least 0 expected"
            )
        if any(lo >= hi for lo, hi in zip(self.action_low, self.action_high, strict=True)):
            raise ValueError(
                f"action_low: {self.action_low} is not below action_high {self.action_high}"
            )
        for name, known in (("projector", PROJECTORS), ("predictor", PREDICTORS)):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name}: {getattr(self, name)!r} unknown; one of {', '.join(known)} expected"
                )


class WorldModel(nn.Module):
    """Encoder, projector and predictor; satisfies the planners' ``Dynamics`` protocol.

    Args:
        config: architecture.
        encoder: frozen DINO encoder; None builds a model that works on cached latents only.
        num_tokens, channels: token grid of the encoder when ``encoder`` is None.
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
        self.action_width = config.action_dim * config.frameskip
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

    # ---- units ----------------------------------------------------------------------------------

    def normalize_actions(self, raw: Tensor) -> Tensor:
        """Stack and normalise actions.

        Raw control-step actions ``(..., K * frameskip, action_dim)`` -> model actions
        ``(..., K, A)``.
        """
        x = (raw - self.action_mean) / self.action_std
        return x.unflatten(-2, (-1, self.config.frameskip)).flatten(-2)

    def denormalize_actions(self, actions: Tensor) -> Tensor:
        """Invert ``normalize_actions``.

        Model actions ``(..., K, A)`` -> raw control-step actions
        ``(..., K * frameskip, action_dim)``.
        """
        x = actions.unflatten(-1, (self.config.frameskip, self.config.action_dim)).flatten(-3, -2)
        return x * self.action_std + self.action_mean

    def action_bounds(self) -> tuple[Tensor, Tensor]:
        """Bounds of a model action in normalised units, two tensors ``(A,)``."""
        low = torch.tensor(self.config.action_low, device=self.action_mean.device)
        high = torch.tensor(self.config.action_high, device=self.action_mean.device)
        low, high = ((b - self.action_mean) / self.action_std for b in (low, high))
        return low.repeat(self.config.frameskip), high.repeat(self.config.frameskip)

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

    def rollout_history(
        self, latents: Tensor, past: Tensor, actions: Tensor, history: int = 3
    ) -> Tensor:
        """Open-loop rollout on up to ``history`` frames (DINO-WM's "regular" rollout).

        Args:
            latents: known frames, ``(B, H, *L)``, the last one being now.
            past: model actions between them, ``(B, H - 1, A)``.
            actions: model actions to come, ``(B, T, A)``.
            history: longest window handed to the predictor.

        Returns:
            ``(B, T, *L)``.
        """
        frames = list(latents.unbind(1))
        taken = list(past.unbind(1))
        for t in range(actions.shape[1]):
            taken.append(actions[:, t])
            window = torch.stack(frames[-history:], 1)
            frames.append(self.predictor(window, torch.stack(taken[-window.shape[1] :], 1))[:, -1])
        return torch.stack(frames[latents.shape[1] :], 1)

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
        path.mkdir(parents=True, exist_ok=True)
        state = {
            k: v.detach().cpu().contiguous()
            for k, v in self.state_dict().items()
            if not k.startswith("encoder.")
        }
        temporary = path / (WEIGHTS_FILE + ".tmp")
        save_file(state, temporary)
        digest = hashlib.sha256(temporary.read_bytes()).hexdigest()
        source = encoder if encoder is not None else (self.encoder.source if self.encoder else "")
        record = {
            "format": FORMAT,
            "version": VERSION,
            "config": dataclasses.asdict(self.config),
            "encoder": {
                "source": source,
                "num_tokens": self.num_tokens,
                "channels": self.channels,
                "image_size": self.encoder.image_size if self.encoder else 0,
            },
            "sha256": {WEIGHTS_FILE: digest},
            "generation": self.generation,
            "extra": extra or {},
        }
        temporary.replace(path / WEIGHTS_FILE)
        text = json.dumps(record, indent=1) + "\n"
        (path / (CONFIG_FILE + ".tmp")).write_text(text)
        (path / (CONFIG_FILE + ".tmp")).replace(path / CONFIG_FILE)
        self.hash, self.path = digest[:12], path
        return self.hash

    @classmethod
    def load(
        cls,
        path: str | Path,
        encoder: DinoEncoder | None = None,
        device: str = "cpu",
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
        """
        path = Path(path)
        record = read_record(path)
        try:
            config = WorldModelConfig(**record["config"])
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"{path / CONFIG_FILE}: config: {error}") from error
        weights = path / WEIGHTS_FILE
        if not weights.is_file():
            raise CheckpointError(f"{path}: {WEIGHTS_FILE} is missing")
        data = weights.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        expected = record["sha256"].get(WEIGHTS_FILE)
        if digest != expected:
            raise CheckpointError(
                f"{weights}: sha256 {digest[:12]} differs from the recorded {str(expected)[:12]}"
            )
        about = record["encoder"]
        if encoder is None and with_encoder:
            encoder = load_encoder(path, about)
        model = cls(config, encoder, about["num_tokens"], about["channels"])
        if encoder is not None and (encoder.num_tokens, encoder.dim) != (
            about["num_tokens"],
            about["channels"],
        ):
            raise CheckpointError(
                f"{path}: encoder gives {encoder.num_tokens} x {encoder.dim} tokens, "
                f"the model was trained on {about['num_tokens']} x {about['channels']}"
            )
        model._load_state(load_safetensors(data), weights)
        model.generation, model.hash, model.path = (
            int(record.get("generation", 0)),
            digest[:12],
            path,
        )
        return model.to(device).eval()

    def _load_state(self, state: dict[str, Tensor], where: Path) -> None:
        own = {k: v for k, v in self.state_dict().items() if not k.startswith("encoder.")}
        missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
        if missing or unknown:
            what = f"lacks {missing[0]}" if missing else f"has an unknown key {unknown[0]}"
            raise CheckpointError(
                f"{where}: {what} ({len(missing)} missing, {len(unknown)} unknown)"
            )
        for key, value in state.items():
            if value.shape != own[key].shape:
                raise CheckpointError(
                    f"{where}: {key}: shape {tuple(value.shape)}; {tuple(own[key].shape)} expected"
                )
            if not torch.isfinite(value).all():
                raise CheckpointError(f"{where}: {key}: not finite")
        self.load_state_dict(state, strict=False)


def read_record(path: Path) -> dict[str, Any]:
    """Read and check ``world_model.json``.

    Raises:
        CheckpointError: missing, not JSON, another format or version, or a key is missing.
    """
    file = path / CONFIG_FILE
    if not file.is_file():
        raise CheckpointError(
            f"{path}: {CONFIG_FILE} is missing; a world-model folder is expected"
        )
    try:
        record = json.loads(file.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{file}: not valid JSON: {error}") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise CheckpointError(f"{file}: format: {FORMAT!r} expected")
    if record.get("version") != VERSION:
        raise CheckpointError(
            f"{file}: version: {record.get('version')}; this release reads {VERSION}"
        )
    for key in ("config", "encoder", "sha256"):
        if key not in record:
            raise CheckpointError(f"{file}: key {key!r} is missing")
    return record


def load_encoder(path: Path, about: dict[str, Any]) -> DinoEncoder:
    """Load the encoder a record names.

    This is a folder relative to the model's, an absolute folder, or a hub id.
    """
    source = about.get("source", "")
    if not source:
        raise CheckpointError(f"{path}: encoder: no source recorded")
    relative = path / source
    return DinoEncoder.load(
        relative if relative.is_dir() else source, about.get("image_size") or None
    )


def names_encoder(path: Path, encoder: DinoEncoder | None) -> bool:
    """Whether a model folder names exactly this encoder, so that it need not be loaded again.

    Raises:
        CheckpointError: ``path`` is no model folder.
    """
    about = read_record(path)["encoder"]
    source = str(about.get("source", ""))
    if encoder is None or not source or about.get("image_size") != encoder.image_size:
        return False
    if source == encoder.source:
        return not Path(path / source).is_dir()
    folder, own = path / source, Path(encoder.source)
    return folder.is_dir() and own.is_dir() and folder.resolve() == own.resolve()


def encoder_reference(model: WorldModel, folder: Path) -> str:
    """Where a model saved in ``folder`` finds its encoder: a relative path, or a hub id."""
    source = model.encoder.source if model.encoder is not None else ""
    if not Path(source).is_dir():
        return source
    return os.path.relpath(Path(source).resolve(), folder.resolve())


__all__ = [
    "WorldModel",
    "WorldModelConfig",
    "encoder_reference",
    "load_encoder",
    "names_encoder",
    "read_record",
]
