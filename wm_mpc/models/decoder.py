"""A decoder that draws latents: to see what the model imagines, never to train it.

It is trained on detached latents (``training/dynamics/decoder.py``), as DINO-WM does, and
describes a picture pixel by pixel: a small network maps the latent and a place in the picture to
the colour there. Nothing in control needs it.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from wm_mpc.core.errors import CheckpointError
from wm_mpc.core.fields import Checked, NonNegativeInt, PositiveInt
from wm_mpc.core.files import write_atomically
from wm_mpc.models.identity import latent_fingerprint, tensor_digest
from wm_mpc.models.world_model import WorldModel

DECODER_FILE = "decoder.safetensors"
FORMAT, VERSION = "wm_mpc.decoder", 1
_REACHES = (0.1, 0.3)
"""Widths of what is felt of an anchor, in half sides of the picture."""
_RELATIVE = 3 + len(_REACHES)


@dataclass(frozen=True)
class DecoderConfig(Checked):
    """Sizes of a decoder.

    Attributes:
        latent_shape: ``(D,)``, or ``(N, D)`` for a square grid of tokens.
        image_size: side of the pictures it draws [px].
        width: hidden units.
        depth: hidden layers.
        frequencies: octaves of the sine features of a place.
        anchors: points of the picture, linear in a vector latent, that a place is described
            relative to; 0: none. They let what moves and turns keep its shape.
    """

    latent_shape: tuple[int, ...]
    image_size: PositiveInt
    width: PositiveInt = 128
    depth: PositiveInt = 3
    frequencies: PositiveInt = 5
    anchors: NonNegativeInt = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.anchors and len(self.latent_shape) != 1:
            raise ValueError(f"anchors: {self.anchors}; 0 expected with a grid of tokens")
        object.__setattr__(self, "latent_shape", tuple(int(v) for v in self.latent_shape))
        if (
            len(self.latent_shape) == 2
            and math.isqrt(self.latent_shape[0]) ** 2 != (self.latent_shape[0])
        ):
            raise ValueError(f"latent_shape: {self.latent_shape[0]} tokens are no square grid")


class Decoder(nn.Module):
    """Colour at places of a picture, given its latent."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.latent_shape[-1]
        self.latent = nn.Linear(channels, config.width)
        self.place = nn.Linear(2 + 4 * config.frequencies, config.width)
        if config.anchors:
            self.anchor = nn.Linear(channels, 2 * config.anchors)
            # Landmark latents are standardised places, (x, y) one after the other: begin there.
            nn.init.zeros_(self.anchor.bias)
            nn.init.eye_(self.anchor.weight)
            self.anchor.weight.data.mul_(0.45)
            self.relative = nn.Linear(_RELATIVE * config.anchors, config.width)
        layers: list[nn.Module] = []
        for _ in range(config.depth):
            layers += [nn.LayerNorm(config.width), nn.SiLU()]
            layers += [nn.Linear(config.width, config.width)]
        self.net = nn.Sequential(*layers, nn.SiLU(), nn.Linear(config.width, 3))
        # What is always there need not pass through the latent: the mean picture, as logits.
        size = config.image_size
        self.register_buffer("background", torch.zeros(3, size, size))
        octaves = math.pi * 2.0 ** torch.arange(config.frequencies)
        self.register_buffer("octaves", octaves, persistent=False)

    def forward(self, latents: Tensor, places: Tensor) -> Tensor:
        """Colours in 0..1: latents ``(B, *L)``, places (x, y) in [-1, 1] ``(B, M, 2)``.

        Returns:
            ``(B, M, 3)``.
        """
        angles = (places[..., None] * self.octaves).flatten(-2)
        waves = torch.cat([places, angles.sin(), angles.cos()], -1)
        x = self._at(latents, places) + self.place(waves)
        if self.config.anchors:
            x = x + self.relative(self._relative(latents, places))
        x = self.net(x)
        grid = places[:, :, None]
        known = F.grid_sample(
            self.background.expand(len(places), -1, -1, -1), grid, padding_mode="border",
            align_corners=False,
        )  # fmt: skip
        return (x + known[..., 0].transpose(1, 2)).sigmoid()

    def _relative(self, latents: Tensor, places: Tensor) -> Tensor:
        """Places as seen from the anchors, ``(B, M, _RELATIVE * anchors)``."""
        anchors = self.anchor(latents).unflatten(-1, (-1, 2))
        offset = places[:, :, None] - anchors[:, None]
        square = offset.square().sum(-1, keepdim=True)
        near = [(-square / (2 * reach**2)).exp() for reach in _REACHES]
        return torch.cat([offset, (square + 1e-6).sqrt(), *near], -1).flatten(-2)

    def _at(self, latents: Tensor, places: Tensor) -> Tensor:
        """Embedded latent at every place, ``(B, M or 1, width)``."""
        embedded = self.latent(latents)
        if embedded.ndim == 2:
            return embedded[:, None]
        side = math.isqrt(embedded.shape[1])
        tokens = embedded.transpose(1, 2).unflatten(-1, (side, side))
        found = F.grid_sample(tokens, places[:, :, None], padding_mode="border",
                              align_corners=False)  # fmt: skip
        return found[..., 0].transpose(1, 2)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Draw latents ``(..., *L)`` as RGB pictures, uint8 ``(..., S, S, 3)`` on the CPU."""
        shape = self.config.latent_shape
        lead = latents.shape[: latents.ndim - len(shape)]
        flat = latents.reshape(-1, *shape)
        size = self.config.image_size
        axis = (torch.arange(size, device=flat.device) + 0.5) / size * 2 - 1
        grid = torch.stack([axis.repeat(size), axis.repeat_interleave(size)], -1)
        pictures = [self(one[None], grid[None])[0] for one in flat]
        drawn = torch.stack(pictures) if pictures else flat.new_zeros(0, size * size, 3)
        return (drawn * 255).round().to(torch.uint8).cpu().reshape(*lead, size, size, 3)

    def save(self, folder: str | Path, model: WorldModel) -> None:
        """Write ``decoder.safetensors`` beside ``model``, whose latents it draws."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        state = {k: v.detach().cpu().contiguous() for k, v in self.state_dict().items()}
        about = {"format": FORMAT, "version": VERSION,
                 "latents": latent_fingerprint(model), "sha256": tensor_digest(state),
                 "config": dataclasses.asdict(self.config)}  # fmt: skip
        write_atomically(folder / DECODER_FILE, save(state, {"decoder": json.dumps(about)}))

    @classmethod
    def load(cls, folder: str | Path, model: WorldModel | None = None) -> Decoder:
        """Load the decoder of a model folder.

        Args:
            folder: folder that holds ``decoder.safetensors``.
            model: model whose latents will be drawn; None: do not check that they fit. A model
                fine-tuned in its predictor alone keeps its latents, and its decoder.

        Raises:
            CheckpointError: missing, damaged, of another version, or of another model.
        """
        file = Path(folder) / DECODER_FILE
        if not file.is_file():
            raise CheckpointError(f"{file.parent}: {DECODER_FILE} is missing; train one first")
        try:
            with safe_open(file, "pt") as stored:
                about = json.loads((stored.metadata() or {}).get("decoder", "{}"))
                state = {k: stored.get_tensor(k) for k in stored.keys()}  # noqa: SIM118
        except (SafetensorError, json.JSONDecodeError) as error:
            raise CheckpointError(f"{file}: damaged: {error}") from error
        if (about.get("format"), about.get("version")) != (FORMAT, VERSION):
            raise CheckpointError(f"{file}: {FORMAT} of version {VERSION} expected")
        if model is not None and about.get("latents") != latent_fingerprint(model):
            raise CheckpointError(f"{file}: made for other latents than those of {model.hash}")
        try:
            decoder = cls(DecoderConfig(**about["config"]))
            decoder.load_state_dict(state)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{file}: {str(error).splitlines()[0]}") from error
        found = tensor_digest(decoder.state_dict())
        if found != about.get("sha256"):
            raise CheckpointError(f"{file}: sha256 {found[:12]} differs from the recorded one")
        return decoder.eval()
