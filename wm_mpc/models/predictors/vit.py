"""Frame-causal vision-transformer predictor over patch tokens (arXiv 2411.04983, app. A.9)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """Pre-norm transformer block with a fixed attention mask."""

    def __init__(self, dim: int, heads: int, head_dim: int, mlp_dim: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.head_dim, self.dropout = heads, head_dim, dropout
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * heads * head_dim, bias=False)
        self.out = nn.Linear(heads * head_dim, dim)
        self.mlp = nn.Sequential(
            nn.LayerNorm(dim),
            nn.Linear(dim, mlp_dim),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(mlp_dim, dim),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Mix tokens ``(B, S, dim)`` under a boolean mask ``(S, S)`` (True: may attend)."""
        b, s, _ = x.shape
        q, k, v = (
            self.qkv(self.norm(x)).view(b, s, 3, self.heads, self.head_dim).permute(2, 0, 3, 1, 4)
        )
        drop = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=drop)
        x = x + self.out(y.transpose(1, 2).reshape(b, s, -1))
        return x + self.mlp(x)

    def alone(self, x: Tensor) -> Tensor:
        """``forward`` of sequences of one token ``(B, 1, dim)``, in evaluation mode.

        A token that can attend to itself alone gets its own value: no query and no key is needed.
        """
        value = self.qkv.weight.chunk(3)[2]
        x = x + self.out(F.linear(self.norm(x), value))
        return x + self.mlp(x)


class VitPredictor(nn.Module):
    """Predict next patch tokens; every token sees all tokens of its own and earlier frames.

    The action is embedded and concatenated to every token's channels, as DINO-WM does
    (384 + 10 proprioception + 10 action = 404 channels, depth 6, 16 heads x 64, MLP 2048,
    history 3).

    Args:
        latent_shape: ``(N, D)`` or ``(D,)`` (treated as one token).
        action_width: ``A``.
        width: MLP hidden width.
        depth: transformer blocks.
        heads: attention heads.
        head_dim: width per head.
        history: longest history in frames.
        action_embed: width of the action embedding.
        dropout: dropout rate during training.
        residual: predict the change instead of the next latent itself (DINO-WM predicts the latent
            itself).
    """

    def __init__(
        self,
        latent_shape: tuple[int, ...],
        action_width: int,
        width: int = 2048,
        depth: int = 6,
        heads: int = 16,
        head_dim: int = 64,
        history: int = 3,
        action_embed: int = 10,
        dropout: float = 0.1,
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.latent_shape = tuple(latent_shape)
        self.tokens = latent_shape[0] if len(latent_shape) == 2 else 1
        self.history, self.residual = history, residual
        channels = latent_shape[-1]
        dim = channels + action_embed
        self.action_embed = nn.Linear(action_width, action_embed)
        self.position = nn.Parameter(torch.randn(1, history, self.tokens, dim) * 0.02)
        self.blocks = nn.ModuleList(
            Block(dim, heads, head_dim, width, dropout) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, channels)
        frame = torch.arange(history).repeat_interleave(self.tokens)
        self.register_buffer("mask", frame[:, None] >= frame[None, :], persistent=False)

    def forward(self, latents: Tensor, actions: Tensor) -> Tensor:
        """Predict the next latent of every frame: ``(B, H, *L), (B, H, A) -> (B, H, *L)``."""
        return self.predict_from_embedded(latents, self.action_embed(actions))

    def predict_from_embedded(self, latents: Tensor, embedded: Tensor) -> Tensor:
        """Like ``forward`` with actions already embedded, ``(B, H, E)`` or ``(B, H, N, E)``.

        Adversarial World Modeling (arXiv 2512.09929) perturbs the embedding per token, hence the
        second shape.
        """
        b, h = latents.shape[:2]
        x = latents.reshape(b, h, self.tokens, -1)
        if embedded.ndim == 3:
            embedded = embedded[:, :, None].expand(-1, -1, self.tokens, -1)
        x = torch.cat([x, embedded], -1) + self.position[:, :h]
        x = x.reshape(b, h * self.tokens, -1)
        size = h * self.tokens
        mask = None if h == 1 else self.mask[:size, :size]
        for block in self.blocks:
            x = block(x, mask)
        change = self.head(self.norm(x)).view(b, h, *self.latent_shape)
        return latents + change if self.residual else change

    def one_frame(self, latent: Tensor, action: Tensor) -> Tensor:
        """``forward`` for a history of one frame, in evaluation mode.

        ``(B, *L), (B, A) -> (B, *L)``.
        """
        if self.tokens > 1:
            return self(latent[:, None], action[:, None])[:, 0]
        flat = latent.reshape(len(latent), 1, -1)
        embedded = self.action_embed(action)[:, None]
        x = torch.cat([flat, embedded], -1) + self.position[:, 0]
        for block in self.blocks:
            x = block.alone(x)
        change = self.head(self.norm(x)).view_as(latent)
        return latent + change if self.residual else change
