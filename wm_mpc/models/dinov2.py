"""DINOv2's vision transformer, from a ``transformers`` folder, without ``transformers``.

Only what reads an image: Oquab et al., DINOv2 (arXiv 2304.07193), as ``transformers`` writes it to
``config.json`` and ``model.safetensors``. The names of the weights are those of ``transformers``
5, so that digests agree; those of earlier releases are translated.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from wm_mpc.core.errors import CheckpointError

_EARLIER = (
    (".attention.attention.query.", ".attention.q_proj."),
    (".attention.attention.key.", ".attention.k_proj."),
    (".attention.attention.value.", ".attention.v_proj."),
    (".attention.output.dense.", ".attention.o_proj."),
)


def present_name(name: str) -> str:
    """Name of a weight in ``transformers`` 5, from that in any release.

    >>> present_name("encoder.layer.0.attention.attention.key.bias")
    'encoder.layer.0.attention.k_proj.bias'
    """
    for before, now in _EARLIER:
        name = name.replace(before, now)
    return name


@dataclass(frozen=True)
class Dinov2Config:
    """The part of ``config.json`` that shapes the network; defaults are those of transformers."""

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    mlp_ratio: int = 4
    image_size: int = 224
    patch_size: int = 14
    num_channels: int = 3
    layer_norm_eps: float = 1e-6
    qkv_bias: bool = True
    use_mask_token: bool = True


class Attention(nn.Module):
    """Self-attention over all tokens."""

    def __init__(self, config: Dinov2Config) -> None:
        super().__init__()
        width, bias = config.hidden_size, config.qkv_bias
        self.heads = config.num_attention_heads
        self.q_proj = nn.Linear(width, width, bias=bias)
        self.k_proj = nn.Linear(width, width, bias=bias)
        self.v_proj = nn.Linear(width, width, bias=bias)
        self.o_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, N, D) -> (B, N, D)``."""
        q, k, v = (
            project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.o_proj(mixed.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two layers with GELU."""

    def __init__(self, config: Dinov2Config) -> None:
        super().__init__()
        inner = int(config.hidden_size * config.mlp_ratio)
        self.fc1 = nn.Linear(config.hidden_size, inner)
        self.fc2 = nn.Linear(inner, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, N, D) -> (B, N, D)``."""
        return self.fc2(F.gelu(self.fc1(x)))


class Scale(nn.Module):
    """One learned factor per channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lambda1 = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, N, D) -> (B, N, D)``."""
        return x * self.lambda1


class Block(nn.Module):
    """Attention, then MLP, each normalised before and scaled behind."""

    def __init__(self, config: Dinov2Config) -> None:
        super().__init__()
        width, eps = config.hidden_size, config.layer_norm_eps
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attention = Attention(config)
        self.layer_scale1 = Scale(width)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = Mlp(config)
        self.layer_scale2 = Scale(width)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, N, D) -> (B, N, D)``."""
        x = self.layer_scale1(self.attention(self.norm1(x))) + x
        return self.layer_scale2(self.mlp(self.norm2(x))) + x


class Embeddings(nn.Module):
    """Patches and a class token, with their positions."""

    def __init__(self, config: Dinov2Config) -> None:
        super().__init__()
        width, patch = config.hidden_size, config.patch_size
        self.grid = config.image_size // patch
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        if config.use_mask_token:  # of pre-training
            self.mask_token = nn.Parameter(torch.zeros(1, width))
        self.position_embeddings = nn.Parameter(torch.zeros(1, self.grid**2 + 1, width))
        self.patch_embeddings = nn.Module()
        self.patch_embeddings.projection = nn.Conv2d(config.num_channels, width, patch, patch)

    def forward(self, pixels: Tensor) -> Tensor:
        """``(B, 3, H, W) -> (B, 1 + N, D)``."""
        patches = self.patch_embeddings.projection(pixels)
        grid = tuple(patches.shape[-2:])
        tokens = patches.flatten(2).transpose(1, 2)
        tokens = torch.cat((self.cls_token.expand(tokens.shape[0], -1, -1), tokens), 1)
        return tokens + self._positions(grid)

    def _positions(self, grid: tuple[int, int]) -> Tensor:
        if grid == (self.grid, self.grid):
            return self.position_embeddings
        own, rest = self.position_embeddings[:, :1], self.position_embeddings[:, 1:]
        square = rest.unflatten(1, (self.grid, self.grid)).permute(0, 3, 1, 2)
        square = F.interpolate(square, grid, mode="bicubic", align_corners=False)
        return torch.cat((own, square.flatten(2).transpose(1, 2)), 1)


class Dinov2(nn.Module):
    """Pixels to tokens, class token first.

    Args:
        config: shape.
    """

    def __init__(self, config: Dinov2Config) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.encoder = nn.Module()
        self.encoder.layer = nn.ModuleList(
            Block(config) for _ in range(config.num_hidden_layers)
        )
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, pixel_values: Tensor) -> SimpleNamespace:
        """Normalised pixels ``(B, 3, H, W)`` -> ``last_hidden_state`` ``(B, 1 + N, D)``."""
        x = self.embeddings(pixel_values)
        for block in self.encoder.layer:
            x = block(x)
        return SimpleNamespace(last_hidden_state=self.layernorm(x))


def read_config(folder: Path) -> Dinov2Config | None:
    """Shape of the network in a folder; None: not one that this module knows.

    Raises:
        ValueError: ``config.json`` is not JSON.
    """
    content = json.loads((folder / "config.json").read_text())
    known = content.get("model_type") == "dinov2" and not content.get("use_swiglu_ffn", False)
    if not known or content.get("hidden_act", "gelu") != "gelu":
        return None
    names = {item.name for item in fields(Dinov2Config)}
    return Dinov2Config(**{name: value for name, value in content.items() if name in names})


def load_dinov2(folder: Path, config: Dinov2Config) -> Dinov2:
    """Network with the weights of a folder, float32.

    Raises:
        CheckpointError: weights are missing, or have another shape.
    """
    weights = {}
    for name, value in load_file(folder / "model.safetensors").items():
        weights[present_name(name).removeprefix("dinov2.")] = value.float()
    stored = {int(n.split(".")[2]) for n in weights if n.startswith("encoder.layer.")}
    if stored != set(range(config.num_hidden_layers)):
        raise CheckpointError(
            f"num_hidden_layers: {config.num_hidden_layers}; {len(stored)} expected"
        )
    with torch.device("meta"):
        network = Dinov2(config)
    own = network.state_dict()
    for name, tensor in own.items():
        if name not in weights:
            raise CheckpointError(f"{name} is missing")
        if weights[name].shape != tensor.shape:
            found, expected = tuple(weights[name].shape), tuple(tensor.shape)
            raise CheckpointError(f"{name}: {found}; {expected} expected")
    network.load_state_dict({name: weights[name] for name in own}, assign=True)
    return network


__all__ = ["Dinov2", "Dinov2Config", "load_dinov2", "present_name", "read_config"]
