"""DINO pre-training of a small DINOv2-style vision transformer on recorded frames.

Self-distillation without labels (DINO, arXiv 2104.14294; iBOT, 2111.07832; DINOv2, 2304.07193): a
student sees masked and cropped views and must reproduce, over learned prototypes, what a slowly
following teacher says of the whole view, both for the image (class token) and for every masked
patch. Sinkhorn centering of the teacher and the KoLeo regulariser keep the features from
collapsing; a guard stops the run when they do anyway: some pictures of every source, the same ones
throughout, must give features that differ between pictures in several directions.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

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
from wm_mpc.training.encoder.views import block_mask, random_views, salient_patches

GUARD_FROM = 100
"""First steps that the guard only records; it looks at the final features of every run."""
PROBE = 64
"""Pictures per source that the guard measures on."""
FEWEST = 8
"""Sources with fewer pictures are not judged: what so few tell has a low rank of its own."""
MIN_RANK = {"rank": 2.0, "class_rank": 1.5}
"""Effective ranks below which features count as collapsed, see ``collapse_measure``."""
MIN_SHARE = 1e-5
"""Share of the features' energy that must differ between pictures, see ``collapse_measure``."""


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


def collapse_measure(tokens: Tensor) -> float:
    """Effective rank of what tokens ``(B, N, dim)`` of ``B`` pictures tell pictures apart by.

    It is the exponential of the spectral entropy after the mean over the pictures was subtracted
    at every position: a map of the position alone says nothing, however rich it is. Where less
    than ``MIN_SHARE`` of the tokens' energy differs between pictures, the rank is that of rounding
    and 1 is returned. A rank of 1 means collapsed.

    Measured on 64 pictures each of Push-T, PointMaze and Wall: the bundled encoder has 11.4, 8.0
    and 7.4 for patches, 6.4, 5.9 and 6.1 for the class token; the share that differs is at least
    8e-3 for patches and 1.4e-3 for the class token. Untrained, the ranks are at least 9.0 and 6.6,
    the shares 4e-3 and 5e-5. Training on these pictures of Push-T and Wall, one seed each, the
    ranks fell to no less than 6.1 and 5.8 in 400 steps of 48 pictures, and to 6.5 and 2.5 in 300
    steps of 16, which is why the class token is held to less.
    """
    x = tokens.float()
    own = x - x.mean(0)
    if own.square().sum() < MIN_SHARE * x.square().sum():
        return 1.0
    spectrum = torch.linalg.svdvals(own.flatten(0, 1)).square()
    p = spectrum / spectrum.sum().clamp(min=1e-12)
    return float((-(p * (p + 1e-12).log()).sum()).exp())


def probe_pictures(
    frames: Sequence[np.ndarray], size: int, seed: int, device: torch.device
) -> list[Tensor]:
    """Pictures that the guard measures on, up to ``PROBE`` of every source, not augmented.

    Args:
        frames: as for ``train_dino``.
        size: side to resize to [px].
        seed: of the choice.
        device: where they go.

    Returns:
        Float ``(B, 3, size, size)``, normalised, for every source of at least ``FEWEST`` frames.

    Raises:
        UserError: no source has that many.
    """
    rng = np.random.default_rng([seed, PROBE])
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    found = []
    for source in frames:
        if len(source) < FEWEST:
            continue
        ids = rng.choice(len(source), min(PROBE, len(source)), replace=False)
        x = torch.from_numpy(np.stack([source[int(i)] for i in np.sort(ids)]))
        x = x.permute(0, 3, 1, 2).float() / 255
        if x.shape[-2:] != (size, size):
            x = F.interpolate(x, (size, size), mode="bilinear", antialias=True)
        found.append(((x - mean) / std).to(device))
    if not found:
        most = max(len(source) for source in frames)
        raise UserError(f"frames: {most} in the largest source; at least {FEWEST} expected")
    return found


@torch.no_grad()
def feature_ranks(network: nn.Module, probes: Sequence[Tensor]) -> dict[str, float]:
    """Lowest effective rank over the sources: ``rank`` of patch, ``class_rank`` of class tokens.

    Every source is measured alone: that sources differ says little of the pictures in them.
    """
    told = [network(pixels) for pixels in probes]
    return {
        "rank": min(collapse_measure(tokens[:, 1:]) for tokens in told),
        "class_rank": min(collapse_measure(tokens[:, :1]) for tokens in told),
    }


def check_ranks(ranks: dict[str, float], step: int) -> None:
    """Raise when features have collapsed.

    Raises:
        UserError: an effective rank below ``MIN_RANK``.
    """
    for name, least in MIN_RANK.items():
        if not ranks[name] >= least:
            raise UserError(
                f"{name}: features collapsed to effective rank {ranks[name]:.2f} at step {step}; "
                f"{least:g} or more expected"
            )


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
    if not frames or any(len(f) == 0 for f in frames):
        raise UserError("frames: a source without frames; at least 1 frame per source expected")
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    generator = torch.Generator().manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    probes = probe_pictures(frames, config.image_size, config.seed, device)
    student, teacher = Network(config).to(device), Network(config).to(device)
    teacher.load_state_dict(student.state_dict())
    teacher.requires_grad_(False)
    decay = [p for p in student.parameters() if p.ndim > 1]
    rest = [p for p in student.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.05}, {"params": rest, "weight_decay": 0.0}],
        lr=config.lr,
    )
    mean = torch.tensor(IMAGENET_MEAN, device=device).view(1, 3, 1, 1)
    std = torch.tensor(IMAGENET_STD, device=device).view(1, 3, 1, 1)
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
        lr = config.lr * min(1.0, share / 0.1 + 0.01) * (0.5 + 0.5 * math.cos(math.pi * share))
        for group in optimizer.param_groups:
            group["lr"] = lr
        picked = []
        for b in range(config.batch):
            source = frames[b % len(frames)]
            picked.append(source[int(rng.integers(len(source)))])
        images = torch.from_numpy(np.stack(picked)).to(device)
        views = [random_views(images, config.image_size, (0.5, 1.0), generator) for _ in range(2)]
        globals_ = (torch.cat(views) - mean) / std
        salient = salient_patches(globals_, config.patch_size).cpu()
        mask = block_mask(salient, config.mask_ratio, generator)
        # Only a tenth of the plain patches is scored: equal use of the prototypes would else go
        # to background.
        scored = (mask & (salient | (torch.rand(mask.shape, generator=generator) < 0.1))).to(
            device
        )
        mask = mask.to(device)
        with autocast(device):
            with torch.no_grad():
                told = teacher(globals_)
                image_target = sinkhorn(teacher.image_head(told[:, 0]), config.teacher_temperature)
                patch_target = sinkhorn(
                    teacher.patch_head(told[:, 1:][scored]), config.teacher_temperature
                )
            seen = student(globals_, mask)
            image_scores = student.image_head(seen[:, 0]).float() / config.student_temperature
            patch_scores = (
                student.patch_head(seen[:, 1:][scored]).float() / config.student_temperature
            )
            spread = sum(koleo(half) for half in seen[:, 0].chunk(2))
        crossed = torch.cat(image_target.chunk(2)[::-1])
        image_loss = -(crossed * image_scores.log_softmax(-1)).sum(-1).mean()
        patch_loss = -(patch_target * patch_scores.log_softmax(-1)).sum(-1).mean()
        if config.local_crops:
            local = torch.cat(
                [
                    random_views(images, config.local_size, (0.15, 0.5), generator)
                    for _ in range(config.local_crops)
                ]
            )
            with autocast(device):
                scores = (
                    student.image_head(student((local - mean) / std)[:, 0]).float()
                    / config.student_temperature
                )
            target = sum(image_target.chunk(2)).repeat(config.local_crops, 1) / 2
            image_loss = 0.5 * image_loss - 0.5 * (target * scores.log_softmax(-1)).sum(-1).mean()
        loss = image_loss + patch_loss + config.koleo * spread
        if not torch.isfinite(loss):
            raise UserError(f"loss: not finite at step {step}; lower lr {config.lr}")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), 3.0)
        optimizer.step()
        momentum = 1 - (1 - config.momentum) * (0.5 + 0.5 * math.cos(math.pi * share))
        with torch.no_grad():
            torch._foreach_lerp_(
                list(teacher.parameters()), list(student.parameters()), 1 - momentum
            )
        if step % 25 == 0:
            ranks = feature_ranks(teacher, probes)
            entry = {
                "step": step,
                "image_loss": float(image_loss.detach()),
                "patch_loss": float(patch_loss.detach()),
                **ranks,
            }
            history.append(entry)
            bar.set_postfix({k: f"{v:.2f}" for k, v in entry.items() if k != "step"})
            if step > GUARD_FROM:
                check_ranks(ranks, step)
    ranks = feature_ranks(teacher, probes)
    check_ranks(ranks, step)
    seconds = time.perf_counter() - started
    teacher.backbone.save_pretrained(out)
    facts = {
        "config": asdict(config),
        "steps": step + 1,
        "seconds": round(seconds, 1),
        "history": history,
        **ranks,
        "frames": [len(f) for f in frames],
    }
    write_atomically(out / "dino.json", json.dumps(facts, indent=1) + "\n")
    return facts
