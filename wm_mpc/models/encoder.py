"""The frozen DINO encoder: camera image in, patch latents out.

Any ``transformers`` DINOv2 or DINOv3 folder (or hub id) works; the bundled one is small and was
trained by ``wm-mpc train dino`` on simulator frames. DINOv2 folders need no ``transformers``.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wm_mpc.core.errors import CheckpointError
from wm_mpc.models.dinov2 import load_dinov2, read_config

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class DinoEncoder(nn.Module):
    """Patch tokens of a frozen DINO-family vision transformer.

    Args:
        backbone: a ``transformers`` model whose output has ``last_hidden_state`` with the patch
            tokens last.
        image_size: side [px] that images are resized to before patching.
        source: folder or hub id the backbone came from, kept for checkpoints and status messages.

    Attributes:
        fingerprint: digest of the weights once ``identity.fingerprint`` was asked; empty before.
    """

    def __init__(self, backbone: nn.Module, image_size: int, source: str = "") -> None:
        super().__init__()
        patch = backbone.config.patch_size
        if image_size % patch:
            raise CheckpointError(
                f"image_size: {image_size} px is no multiple of the patch size {patch} px"
            )
        self.backbone = backbone.eval().requires_grad_(False)
        self.image_size = image_size
        self.source = source
        self.fingerprint = ""
        self.grid = image_size // patch
        self.dim = int(backbone.config.hidden_size)
        mean = torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1) * 255.0
        std = torch.tensor(IMAGENET_STD).view(1, 3, 1, 1) * 255.0
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)

    @property
    def num_tokens(self) -> int:
        """Number of patch tokens ``N`` per image."""
        return self.grid * self.grid

    @classmethod
    def load(cls, source: str | Path, image_size: int | None = None) -> DinoEncoder:
        """Load a local ``transformers`` folder, or a hub id such as ``facebook/dinov2-small``.

        Args:
            source: folder with ``config.json`` and ``model.safetensors``, or hub id.
            image_size: side [px] fed to the backbone; default: the size it was trained at.

        Raises:
            CheckpointError: a file is missing or unreadable, or the hub cannot be reached.
        """
        path = Path(source)
        local = path.is_dir()
        if local:
            for name in ("config.json", "model.safetensors"):
                if not (path / name).is_file():
                    raise CheckpointError(
                        f"encoder: {path} lacks {name}; a transformers DINO folder is expected"
                    )
        elif path.is_absolute() or str(source).startswith("."):
            raise CheckpointError(f"encoder: folder {path} does not exist")
        try:
            backbone = _own(path) if local else None
            if backbone is None:
                backbone = _from_transformers(str(source), local)
        except (OSError, ValueError, RuntimeError, json.JSONDecodeError) as error:
            reason = (
                str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            )
            raise CheckpointError(f"encoder: cannot load {source}: {reason}") from error
        except Exception as error:  # safetensors raises its own type for a damaged header
            raise CheckpointError(f"encoder: cannot load {source}: {error}") from error
        size = image_size or int(getattr(backbone.config, "image_size", 224))
        return cls(backbone, size, str(source))

    def preprocess(self, images: Tensor) -> Tensor:
        """Normalise pictures with ImageNet statistics.

        uint8 ``(B, H, W, 3)`` RGB -> float ``(B, 3, S, S)``.
        """
        x = images.permute(0, 3, 1, 2).to(self.mean.dtype)
        if x.shape[-2:] != (self.image_size, self.image_size):
            size = (self.image_size, self.image_size)
            x = F.interpolate(x, size, mode="bilinear", antialias=True, align_corners=False)
        return (x - self.mean) / self.std

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Encode uint8 RGB pictures ``(B, H, W, 3)`` to patch tokens ``(B, N, dim)``.

        The tokens come row by row from the top left.
        """
        return self.tokens(self.preprocess(images))

    def tokens(self, pixels: Tensor) -> Tensor:
        """Differentiable: normalised pixels ``(B, 3, S, S)`` -> tokens ``(B, N, dim)``."""
        hidden = self.backbone(pixel_values=pixels).last_hidden_state
        # DINOv2 puts one class token first, DINOv3 also register tokens: patches are always last.
        return hidden[:, -self.num_tokens :]


def _own(folder: Path) -> nn.Module | None:
    """Backbone of a folder by this package's code; None: ``transformers`` is needed."""
    config = read_config(folder)
    return None if config is None else load_dinov2(folder, config)


def _from_transformers(source: str, local: bool) -> nn.Module:
    try:
        from transformers import AutoModel
        from transformers.utils import logging as hf_logging
    except ImportError:
        raise CheckpointError(
            "transformers is missing, which all but local DINOv2 folders need; "
            "pip install 'wm-mpc[encoders]'"
        ) from None
    hf_logging.disable_progress_bar()
    return AutoModel.from_pretrained(source, local_files_only=local, dtype=torch.float32)
