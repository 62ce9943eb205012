"""DINO pre-training of a small DINOv2-style vision transformer on recorded frames.

Self-distillation without labels (DINO, arXiv 2104.14294; iBOT, 2111.07832; DINOv2, 2304.07193): a
student sees masked and cropped views and must reproduce, over learned prototypes, what a slowly
following teacher says of the whole view, both for the image (class token) and for every masked
patch. Sinkhorn centering of the teacher and the KoLeo regulariser keep the features from
collapsing; a guard stops the run when they do anyway: some pictures of every source, the same ones
throughout, must give features that differ between pictures in several directions.
"""

from __future__ import annotations

import importlib.util
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Ge, Lt
from torch import Tensor, nn
from tqdm import tqdm

from wm_mpc.core.device import usable_device
from wm_mpc.core.errors import UserError
from wm_mpc.core.fields import (
    Checked,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Share,
)
from wm_mpc.core.files import write_atomically
from wm_mpc.core.precision import autocast
from wm_mpc.models.encoder import IMAGENET_MEAN, IMAGENET_STD
from wm_mpc.training.encoder.collapse import (
    GUARD_FROM,
    check_ranks,
    feature_ranks,
    probe_pictures,
)
from wm_mpc.training.encoder.views import block_mask, random_views, salient_patches


@dataclass(frozen=True)
class DinoConfig(Checked):
    """Size of the encoder and its training.

    Attributes:
        image_size: side of a global view [px].
        patch_size: side of a patch [px]; must divide ``image_size``.
        dim: token width.
        layers: transformer blocks.
        heads: attention heads.
        mlp_ratio: MLP width over token width.
        local_size: side of a local crop [px]; a multiple of ``patch_size``.
        local_crops: local crops per image; 0 turns multi-crop off.
        prototypes: width of the head.
        batch: images per step.
        steps: optimiser steps.
        lr: peak learning rate, cosine schedule with 10 % warm-up.
        momentum: teacher's averaging at the start, rising to 1 (cosine).
        mask_ratio: largest share of masked patches in a masked view.
        student_temperature, teacher_temperature: softmax temperatures.
        koleo: weight of the KoLeo regulariser.
        seed: seed of weights, crops and batches.
        threads: CPU threads; 0 leaves torch's choice.
        max_seconds: stop after this much training time; 0: no limit.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
    """

    image_size: PositiveInt = 96
    patch_size: PositiveInt = 12
    dim: PositiveInt = 128
    layers: PositiveInt = 4
    heads: PositiveInt = 4
    mlp_ratio: PositiveInt = 2
    local_size: PositiveInt = 48
    local_crops: NonNegativeInt = 2
    prototypes: PositiveInt = 256
    batch: Annotated[int, Ge(2)] = 48
    steps: PositiveInt = 1500
    lr: PositiveFloat = 1e-3
    momentum: Share = 0.99
    mask_ratio: Annotated[float, Ge(0), Lt(1)] = 0.5
    student_temperature: PositiveFloat = 0.1
    teacher_temperature: PositiveFloat = 0.05
    koleo: NonNegativeFloat = 0.05
    seed: NonNegativeInt = 0
    threads: NonNegativeInt = 0
    max_seconds: NonNegativeFloat = 0.0
    device: str = "cpu"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("image_size", "local_size"):
            if getattr(self, name) % self.patch_size:
                raise UserError(
                    f"{name}: {getattr(self, name)} px is no multiple of "
                    f"patch_size {self.patch_size} px"
                )


class DinoHead(nn.Module):
    """Projection head: MLP, unit sphere, weight-normalised prototypes."""

    def __init__(self, dim: int, prototypes: int, hidden: int = 256, bottleneck: int = 64) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, bottleneck))
        self.prototypes = nn.Parameter(F.normalize(torch.randn(prototypes, bottleneck), dim=-1))

    def forward(self, x: Tensor) -> Tensor:
        """Cosine similarity to every prototype: ``(B, dim) -> (B, prototypes)``."""
        return F.normalize(self.mlp(x), dim=-1) @ F.normalize(self.prototypes, dim=-1).T


class Network(nn.Module):
    """Backbone and the two heads (image and patch)."""

    def __init__(self, config: DinoConfig) -> None:
        super().__init__()
        from transformers import Dinov2Config, Dinov2Model

        self.backbone = Dinov2Model(
            Dinov2Config(
                hidden_size=config.dim,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                mlp_ratio=config.mlp_ratio,
                image_size=config.image_size,
                patch_size=config.patch_size,
            )
        )
        self.image_head = DinoHead(config.dim, config.prototypes)
        self.patch_head = DinoHead(config.dim, config.prototypes)

    def forward(self, pixels: Tensor, mask: Tensor | None = None) -> Tensor:
        """All tokens, class token first: ``(B, 3, S, S) -> (B, 1 + N, dim)``."""
        return self.backbone(pixel_values=pixels, bool_masked_pos=mask).last_hidden_state


@torch.no_grad()
def sinkhorn(scores: Tensor, temperature: float, iterations: int = 3) -> Tensor:
    """Teacher targets whose prototypes are used equally often.

    ``(B, K)`` scores -> ``(B, K)`` probabilities.
    """
    q = (scores.float() / temperature).exp().T
    q /= q.sum()
    k, b = q.shape
    for _ in range(iterations):
        q /= q.sum(1, keepdim=True) * k
        q /= q.sum(0, keepdim=True) * b
    return (q * b).T


def koleo(features: Tensor) -> Tensor:
    """KoLeo regulariser: minus the mean log distance to the nearest neighbour.

    The neighbours are those of the batch, ``(B, dim) -> ()``.
    """
    x = F.normalize(features.float(), dim=-1)
    with torch.no_grad():
        similarity = x @ x.T
        similarity.fill_diagonal_(-2.0)
        nearest = similarity.argmax(1)
    return -((x - x[nearest]).norm(dim=-1) + 1e-4).log().mean()


def pick(frames: Sequence[np.ndarray], batch: int, rng: np.random.Generator) -> Tensor:
    """Pictures of all sources in turn, uint8 ``(batch, H, W, 3)``."""
    picked = []
    for b in range(batch):
        source = frames[b % len(frames)]
        picked.append(source[int(rng.integers(len(source)))])
    return torch.from_numpy(np.stack(picked))


def weight_groups(network: nn.Module) -> list[dict[str, Any]]:
    """Parameters for AdamW: matrices decay, biases and gains do not."""
    decay = [p for p in network.parameters() if p.ndim > 1]
    rest = [p for p in network.parameters() if p.ndim <= 1]
    return [{"params": decay, "weight_decay": 0.05}, {"params": rest, "weight_decay": 0.0}]


class Distillation:
    """Student, teacher, and the losses of one batch of pictures.

    Args:
        config: sizes and temperatures.
        device: where to train.
    """

    def __init__(self, config: DinoConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        self.generator = torch.Generator().manual_seed(config.seed)
        self.student, self.teacher = Network(config).to(device), Network(config).to(device)
        self.teacher.load_state_dict(self.student.state_dict())
        self.teacher.requires_grad_(False)
        self.mean, self.std = (
            torch.tensor(value, device=device).view(1, 3, 1, 1)
            for value in (IMAGENET_MEAN, IMAGENET_STD)
        )

    def losses(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Image loss, patch loss and KoLeo of uint8 pictures ``(B, H, W, 3)``."""
        config, student = self.config, self.student
        images = images.to(self.device)
        views = self.views(images, config.image_size, (0.5, 1.0), 2)
        mask, scored = self.masks(views)
        with autocast(self.device):
            image_target, patch_target = self.targets(views, scored)
            seen = student(views, mask)
            image_scores = student.image_head(seen[:, 0]).float() / config.student_temperature
            patch_scores = (
                student.patch_head(seen[:, 1:][scored]).float() / config.student_temperature
            )
            spread = sum(koleo(half) for half in seen[:, 0].chunk(2))
        crossed = torch.cat(image_target.chunk(2)[::-1])
        image_loss = -(crossed * image_scores.log_softmax(-1)).sum(-1).mean()
        patch_loss = -(patch_target * patch_scores.log_softmax(-1)).sum(-1).mean()
        if config.local_crops:
            image_loss = 0.5 * image_loss + 0.5 * self.local_loss(images, image_target)
        return image_loss, patch_loss, spread

    def views(self, images: Tensor, size: int, scale: tuple[float, float], count: int) -> Tensor:
        """Random views, normalised, ``(count * B, 3, size, size)``."""
        views = [random_views(images, size, scale, self.generator) for _ in range(count)]
        return (torch.cat(views) - self.mean) / self.std

    def masks(self, views: Tensor) -> tuple[Tensor, Tensor]:
        """Patches hidden from the student, and those of them that are scored, bool ``(B, N)``."""
        salient = salient_patches(views, self.config.patch_size).cpu()
        mask = block_mask(salient, self.config.mask_ratio, self.generator)
        # Only a tenth of the plain patches is scored: equal use of the prototypes would else go
        # to background.
        tenth = torch.rand(mask.shape, generator=self.generator) < 0.1
        return mask.to(self.device), (mask & (salient | tenth)).to(self.device)

    @torch.no_grad()
    def targets(self, views: Tensor, scored: Tensor) -> tuple[Tensor, Tensor]:
        """What the teacher says of whole views and of the scored patches, over prototypes."""
        teacher, temperature = self.teacher, self.config.teacher_temperature
        told = teacher(views)
        image = sinkhorn(teacher.image_head(told[:, 0]), temperature)
        return image, sinkhorn(teacher.patch_head(told[:, 1:][scored]), temperature)

    def local_loss(self, images: Tensor, image_target: Tensor) -> Tensor:
        """Image loss of small crops against what the teacher says of both views."""
        config, student = self.config, self.student
        local = self.views(images, config.local_size, (0.15, 0.5), config.local_crops)
        with autocast(self.device):
            scores = student.image_head(student(local)[:, 0]).float() / config.student_temperature
        target = sum(image_target.chunk(2)).repeat(config.local_crops, 1) / 2
        return -(target * scores.log_softmax(-1)).sum(-1).mean()

    @torch.no_grad()
    def follow(self, momentum: float) -> None:
        """Move the teacher towards the student."""
        teacher, student = (list(n.parameters()) for n in (self.teacher, self.student))
        torch._foreach_lerp_(teacher, student, 1 - momentum)


def train_dino(
    frames: Sequence[np.ndarray], out: str | Path, config: DinoConfig, progress: bool = True
) -> dict:
    """Train an encoder and write it as a ``transformers`` folder.

    Args:
        frames: one uint8 ``(F_i, H, W, 3)`` array (memory maps welcome) per source; sources are
            drawn equally often.
        out: folder for ``config.json``, ``model.safetensors`` and ``dino.json`` (settings and
            curves).
        config: sizes and schedule.
        progress: show a progress bar.

    Returns:
        Facts of the run: steps, seconds, losses and effective ranks on the way, final ranks.

    Raises:
        UserError: no frames, no such device, or the features collapsed, on the way or at the end;
            no encoder is written then.
    """
    device = usable_device(config.device)
    if importlib.util.find_spec("transformers") is None:
        raise UserError("transformers: not installed; pip install 'wm-mpc[encoders]'")
    if not frames or any(len(f) == 0 for f in frames):
        raise UserError("frames: a source without frames; at least 1 frame per source expected")
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    probes = probe_pictures(frames, config.image_size, config.seed, device)
    distillation = Distillation(config, device)
    optimizer = torch.optim.AdamW(weight_groups(distillation.student), lr=config.lr)
    history: list[dict[str, float]] = []
    started = time.perf_counter()
    bar = tqdm(range(config.steps), desc="dino", disable=not progress, mininterval=2.0)
    step = 0
    for step in bar:
        share = step / config.steps
        if config.max_seconds:
            share = max(share, (time.perf_counter() - started) / config.max_seconds)
            if share >= 1:
                break
        fall = 0.5 + 0.5 * math.cos(math.pi * share)
        for group in optimizer.param_groups:
            group["lr"] = config.lr * min(1.0, share / 0.1 + 0.01) * fall
        image_loss, patch_loss, spread = distillation.losses(pick(frames, config.batch, rng))
        loss = image_loss + patch_loss + config.koleo * spread
        if not torch.isfinite(loss):
            raise UserError(f"loss: not finite at step {step}; lower lr {config.lr}")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(distillation.student.parameters(), 3.0)
        optimizer.step()
        distillation.follow(1 - (1 - config.momentum) * fall)
        if step % 25 == 0:
            ranks = feature_ranks(distillation.teacher, probes)
            told = {"image_loss": image_loss.item(), "patch_loss": patch_loss.item(), **ranks}
            history.append({"step": step, **told})
            shown = {k: f"{v:.2f}" for k, v in told.items()}
            if config.max_seconds:  # the bar's own guess knows steps only
                shown["over"] = f"{share:.0%}"
            bar.set_postfix(shown)
            if step > GUARD_FROM:
                check_ranks(ranks, step)
    ranks = feature_ranks(distillation.teacher, probes)
    check_ranks(ranks, step)
    seconds = round(time.perf_counter() - started, 1)
    distillation.teacher.backbone.save_pretrained(out)
    facts = {
        "config": asdict(config), "steps": step + 1, "seconds": seconds, "history": history,
        **ranks, "frames": [len(f) for f in frames],
    }  # fmt: skip
    write_atomically(out / "dino.json", json.dumps(facts, indent=1) + "\n")
    return facts
