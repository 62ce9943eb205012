"""Encoder tokens of a whole store, computed once and kept on disk.

Training then never touches pixels again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from wm_mpc.core.errors import DataError
from wm_mpc.core.files import locked, reserve, write_atomically, write_failure
from wm_mpc.data.store.windows import Frames
from wm_mpc.latents.encode import encode_images
from wm_mpc.models.encoder import DinoEncoder
from wm_mpc.models.identity import fingerprint

TOKENS, PROGRESS, LOCK = "tokens.npy", "tokens.json", "tokens.lock"
FLUSH_EVERY = 50
"""Batches between two records of how far the cache has come."""
DIGEST_FRAMES = 16
"""Frames whose pixels the digest of a store covers."""
SPOT_CHECKS = 32
"""Frames that are encoded again to recognise the store of a cache that does not name it."""
SPOT_TOLERANCE = 0.1
"""Error of a spot check as a share of how much the checked frames' tokens vary among them. Other
arithmetic (bfloat16) is far below it, another picture far above."""


class CacheError(DataError, OSError):
    """A token cache that cannot be written; an ``OSError`` too, for callers that try again."""


def store_digest(frames: Frames) -> str:
    """Hash of what a store holds, 12 hex digits.

    It covers every action, every proprioception, which steps have pictures, and the pixels of
    ``DIGEST_FRAMES`` evenly spaced ones: reading all pixels would take as long as encoding them.
    """
    digest = hashlib.sha256()
    for values in (frames.actions, frames.proprio, frames.image_step, frames.length):
        digest.update(f"{values.dtype}{values.shape}".encode())
        digest.update(np.ascontiguousarray(values).data)
    digest.update(frames.gather(spread_ids(len(frames.image_step), DIGEST_FRAMES)).data)
    return digest.hexdigest()[:12]


def spread_ids(total: int, count: int) -> np.ndarray:
    """At most ``count`` different ids in [0, total), evenly spaced, with the first and last."""
    return np.unique(np.linspace(0, total - 1, count).astype(np.int64))


def cache_tokens(
    encoder: DinoEncoder,
    frames: Frames,
    folder: str | Path,
    batch: int = 256,
    progress: bool = True,
    replace: bool = False,
) -> np.ndarray:
    """Encode every frame of a store, resuming where an interrupted call stopped.

    One process at a time works in a folder; others wait, and find the tokens there.

    Args:
        encoder: frozen encoder.
        frames: frames of the store, ``Store.frames()``.
        folder: where ``tokens.npy`` (float16 ``(F, N, C)``) and ``tokens.json`` are kept; a
            damaged cache is made anew, which is told on stdout.
        batch: pictures per forward pass.
        progress: show a progress bar.
        replace: make a cache of another encoder or another store anew too, instead of refusing it:
            hours of work of another run may lie in a folder that runs share.

    Returns:
        Memory-mapped float16 ``(F, N, C)``, in the order of the store's global frame ids.

    Raises:
        CacheError: the folder cannot be written, or the disk has no room for the tokens.
        DataError: the folder holds tokens of another encoder or store, which are left as they are.
    """
    folder, key = Path(folder), cache_key(encoder, frames)
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            waiting = f"{folder}: another process makes tokens there; waiting for it"
            stack.enter_context(locked(folder / LOCK, waiting))
            done = cached_frames(encoder, frames, folder, key, replace)
            tokens = open_tokens(folder, key, done) if done < key["shape"][0] else None
        except OSError as error:
            raise CacheError(write_failure(folder, error)) from error
        if tokens is not None:
            encode_rest(encoder, frames, folder, key, tokens, done, batch, progress)
        del tokens
        return np.load(folder / TOKENS, mmap_mode="r")


def read_tokens(encoder: DinoEncoder, frames: Frames, folder: str | Path) -> np.ndarray:
    """Tokens that another process has cached, as ``cache_tokens`` returns them.

    Raises:
        DataError: the folder does not hold all of them.
    """
    folder, key = Path(folder), cache_key(encoder, frames)
    # The tokens before the record: whoever makes them anew removes the record first, so that one
    # that is there vouches for what was opened before.
    tokens = whole_tokens(folder / TOKENS, key["shape"])
    if tokens is None or read_progress(folder) != {**key, "done": key["shape"][0]}:
        raise DataError(
            f"{folder}: no complete tokens of this encoder and store; one folder that all "
            "processes see, and that no other run makes anew, expected"
        )
    return tokens


def cache_key(encoder: DinoEncoder, frames: Frames) -> dict[str, Any]:
    """What a cache's record says of the tokens in it."""
    return {
        "encoder": fingerprint(encoder),
        "shape": [len(frames.image_step), encoder.num_tokens, encoder.dim],
        "store": store_digest(frames),
    }


def encode_rest(
    encoder: DinoEncoder,
    frames: Frames,
    folder: Path,
    key: Mapping[str, Any],
    tokens: np.ndarray,
    done: int,
    batch: int,
    progress: bool,
) -> None:
    """Encode all frames from number ``done`` on into ``tokens``, and record how far it has come.

    Raises:
        CacheError: the folder cannot be written.
    """
    total = len(tokens)
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
            last = ids[-1] == total - 1
            if last or (start - done) // batch % FLUSH_EVERY == FLUSH_EVERY - 1:
                try:
                    tokens.flush()
                    write_record(folder, key, int(ids[-1]) + 1)
                except OSError as error:
                    raise CacheError(write_failure(folder, error)) from error


def cached_frames(
    encoder: DinoEncoder, frames: Frames, folder: Path, key: Mapping[str, Any], replace: bool
) -> int:
    """How many frames of this store and encoder a folder already holds, from the first on.

    A cache that does not say which store it is of (written before caches did) is compared with
    ``SPOT_CHECKS`` frames encoded again, and from then on says so. What is not used is told.

    Raises:
        DataError: it holds tokens of another store or encoder, and ``replace`` is false.
    """
    file = folder / TOKENS
    record = read_progress(folder)
    if not record:
        return 0
    done, shape = record.get("done"), record.get("shape")
    damage = reason = ""
    if not shape or whole_tokens(file, shape) is None:
        damage = "damaged"
    elif not isinstance(done, int) or not 0 <= done <= shape[0]:
        damage = f"damaged (done: {done!r})"
    elif record.get("encoder") != key["encoder"]:
        reason = "of another encoder"
    elif shape != key["shape"]:
        reason = f"of shape {shape}, where {key['shape']} is expected"
        if (shape[0], shape[-1]) == (key["shape"][0], key["shape"][-1]):
            reason += " (another image size)"
    elif record.get("store", key["store"]) != key["store"]:
        reason = "of another store"
    elif done and "store" not in record:
        if agrees(encoder, frames, file, done):
            print(f"{file}: of this store, as {SPOT_CHECKS} frames show; the record now says so")
            write_record(folder, key, done)
        else:
            reason = "of another store"
    # Those of a run that was interrupted too: they may be most of the way.
    if reason and done and not replace:
        raise DataError(
            f"{folder}: holds tokens {reason}; delete {TOKENS} and {PROGRESS} there, or name "
            "another folder"
        )
    if damage or reason:
        print(f"{file}: {damage or reason}; tokens are computed anew")
        return 0
    return done


def read_progress(folder: Path) -> dict[str, Any]:
    """Record of a cache; empty where there is none that can be read."""
    try:
        record = json.loads((folder / PROGRESS).read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:  # a record cut short by an older version, or not text at all
        print(f"{folder / PROGRESS}: damaged ({error}); tokens are computed anew")
        return {}
    return record if isinstance(record, dict) else {}


def whole_tokens(file: Path, shape: list[int]) -> np.ndarray | None:
    """Map float16 tokens of this shape; None where the file does not hold them whole."""
    try:
        tokens = np.load(file, mmap_mode="r")
    except (OSError, ValueError):  # missing, no array, or shorter than its header says
        return None
    return tokens if tokens.dtype == np.float16 and list(tokens.shape) == shape else None


def agrees(encoder: DinoEncoder, frames: Frames, file: Path, done: int) -> bool:
    """Whether the first ``done`` cached tokens are of these frames, as spot checks show."""
    ids = spread_ids(done, SPOT_CHECKS)
    cached = np.asarray(np.load(file, mmap_mode="r")[ids], np.float32)
    error = encode_images(encoder, frames.gather(ids)).astype(np.float32) - cached
    variety = np.sqrt(np.square(cached - cached.mean(0)).mean())
    rounding = np.finfo(np.float16).eps * np.abs(cached).max()
    worst = np.sqrt(np.square(error).mean((1, 2)).max())
    return bool(worst <= SPOT_TOLERANCE * variety + rounding)


def open_tokens(folder: Path, key: Mapping[str, Any], done: int) -> np.ndarray:
    """Map the tokens for writing: those of an unfinished cache, or a new file, on disk in full.

    Raises:
        OSError: the file cannot be written or the disk has no room for it; no new file is left.
    """
    file = folder / TOKENS
    if done:
        tokens = np.lib.format.open_memmap(file, "r+")
        reserve(file)
        return tokens
    # The record first: it must never vouch for tokens that are not there yet. Unlinked and not
    # overwritten, so that a process which reads the old tokens keeps them.
    (folder / PROGRESS).unlink(missing_ok=True)
    file.unlink(missing_ok=True)
    try:
        tokens = np.lib.format.open_memmap(file, "w+", np.float16, tuple(key["shape"]))
        reserve(file)
    except OSError:
        file.unlink(missing_ok=True)
        raise
    return tokens


def write_record(folder: Path, key: Mapping[str, Any], done: int) -> None:
    """Record that the first ``done`` frames are cached."""
    write_atomically(folder / PROGRESS, json.dumps({**key, "done": done}) + "\n")
