"""Encoder tokens of a whole store, computed once and kept on disk.

Training then never touches pixels again.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from wm_mpc.data.windows import Frames
from wm_mpc.encoder import DinoEncoder
from wm_mpc.training.precision import autocast

TOKENS, PROGRESS = "tokens.npy", "tokens.json"
CPU_BATCH = 64
"""Pictures that a CPU encodes at a time."""
FLUSH_EVERY = 50
"""Batches between two records of how far the cache has come."""


def encode_images(encoder: DinoEncoder, images: np.ndarray) -> np.ndarray:
    """Tokens of pictures: uint8 ``(B, H, W, 3)`` -> float16 ``(B, N, C)``.

    The arithmetic is bfloat16 where that is faster, see ``precision``.
    """
    device = encoder.mean.device
    # activations of a larger batch fall out of a CPU's cache (a fifth slower at 256)
    step = CPU_BATCH if device.type == "cpu" else len(images)
    with torch.no_grad(), autocast(device):
        parts = [
            encoder(torch.from_numpy(images[i : i + step]).to(device)).half().cpu()
            for i in range(0, len(images), step)
        ]
    return torch.cat(parts).numpy()


def fingerprint(encoder: DinoEncoder) -> str:
    """Hash of an encoder's weights, 12 hex digits."""
    digest = hashlib.sha256()
    for name, value in sorted(encoder.backbone.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def cache_tokens(
    encoder: DinoEncoder,
    frames: Frames,
    folder: str | Path,
    batch: int = 256,
    progress: bool = True,
) -> np.ndarray:
    """Encode every frame of a store, resuming where an interrupted call stopped.

    Args:
        encoder: frozen encoder.
        frames: frames of the store, ``Store.frames()``.
        folder: where ``tokens.npy`` (float16 ``(F, N, C)``) and ``tokens.json`` are kept; a cache
            of another encoder or another number of frames is made anew.
        batch: pictures per forward pass.
        progress: show a progress bar.

    Returns:
        Memory-mapped float16 ``(F, N, C)``, in the order of the store's global frame ids.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    total = len(frames.image_step)
    shape = (total, encoder.num_tokens, encoder.dim)
    key = {"encoder": fingerprint(encoder), "shape": list(shape)}
    record = folder / PROGRESS
    done = 0
    if record.is_file() and (folder / TOKENS).is_file():
        known = json.loads(record.read_text())
        done = known["done"] if {k: known.get(k) for k in key} == key else 0
    mode = "r+" if done else "w+"
    tokens = np.lib.format.open_memmap(folder / TOKENS, mode, np.float16, shape)
    bar = tqdm(
        total=total,
        initial=done,
        desc="tokens",
        unit="frame",
        disable=not progress,
        mininterval=2.0,
    )
    with bar:
        for start in range(done, total, batch):
            ids = np.arange(start, min(start + batch, total))
            tokens[ids] = encode_images(encoder, frames.gather(ids))
            bar.update(len(ids))
            if (start - done) // batch % FLUSH_EVERY == FLUSH_EVERY - 1 or ids[-1] == total - 1:
                tokens.flush()
                record.write_text(json.dumps({**key, "done": int(ids[-1]) + 1}) + "\n")
    return np.load(folder / TOKENS, mmap_mode="r")
