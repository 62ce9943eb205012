"""The files of a world model: safetensors and JSON, validated before anything trusts them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save
from torch import Tensor

from wm_mpc.core.errors import CheckpointError, one_line
from wm_mpc.core.files import remove_leftovers, write_failure, write_together
from wm_mpc.models.admission import RECORD_BYTES, check_header, check_record
from wm_mpc.models.encoder import DinoEncoder

FORMAT = "wm_mpc.world_model"
VERSION = 1
CONFIG_FILE = "world_model.json"
WEIGHTS_FILE = "world_model.safetensors"
SMALL_BYTES = 1 << 26
"""A file up to this size may be read before its header is compared with the model."""


class WriteError(CheckpointError, OSError):
    """A model folder that cannot be written: a full disk, missing rights.

    An ``OSError`` too, for callers that try again later.
    """


def write_checkpoint(
    path: Path,
    state: dict[str, Tensor],
    record: Mapping[str, Any],
    beside: Mapping[str, bytes] | None = None,
) -> str:
    """Write weights and record, each atomically, the record that vouches for the weights last.

    Args:
        path: folder, created if needed.
        state: weights on the CPU.
        record: ``config``, ``encoder`` and further keys; format, version and hash are added.
        beside: further files, by name.

    Returns:
        The SHA-256 of the weights, hexadecimal.

    Raises:
        WriteError: the disk is full or the folder cannot be written; an earlier checkpoint there
            is intact.
    """
    weights = save(state)
    digest = hashlib.sha256(weights).hexdigest()
    whole = {"format": FORMAT, "version": VERSION, **record, "sha256": {WEIGHTS_FILE: digest}}
    about = json.dumps(whole, indent=1) + "\n"
    try:
        path.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path)
        write_together(path, {**(beside or {}), WEIGHTS_FILE: weights, CONFIG_FILE: about})
    except OSError as error:
        raise WriteError(write_failure(path, error)) from error
    return digest


def read_weights(
    path: Path, record: Mapping[str, Any], own: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], str]:
    """Weights of a model folder and their SHA-256.

    Args:
        path: folder.
        record: what ``read_record`` gave.
        own: tensors that the model has, of which only the shapes count.

    Raises:
        CheckpointError: the file is missing, larger than the model, or not the one that the
            record vouches for.
    """
    weights = path / WEIGHTS_FILE
    if not weights.is_file():
        raise CheckpointError(f"{path}: {WEIGHTS_FILE} is missing")
    if weights.stat().st_size > SMALL_BYTES:
        check_header(weights, own)
    data = weights.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    expected = record["sha256"].get(WEIGHTS_FILE)
    if digest != expected:
        raise CheckpointError(
            f"{weights}: sha256 {digest[:12]} differs from the recorded {str(expected)[:12]}"
        )
    try:
        return load_safetensors(data), digest
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"{weights}: {one_line(error)}") from error


def check_state(state: Mapping[str, Tensor], own: Mapping[str, Tensor], where: Path) -> None:
    """Check that weights fit a model.

    Args:
        state: weights that were read.
        own: weights that the model has.
        where: file, for the message.

    Raises:
        CheckpointError: a key is missing or unknown, a shape differs, a number is not finite.
    """
    missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing or unknown:
        what = f"lacks {missing[0]}" if missing else f"has an unknown key {unknown[0]}"
        raise CheckpointError(f"{where}: {what} ({len(missing)} missing, {len(unknown)} unknown)")
    for key, value in state.items():
        if value.shape != own[key].shape:
            raise CheckpointError(
                f"{where}: {key}: shape {tuple(value.shape)}; {tuple(own[key].shape)} expected"
            )
        if not torch.isfinite(value).all():
            raise CheckpointError(f"{where}: {key}: not finite")


def recorded_hash(path: Path) -> str:
    """Hash of the model in a folder, first 12 hex digits, as its record says; loads no weights.

    Raises:
        CheckpointError: as ``read_record``, or the record names no weights file.
    """
    digest = read_record(path)["sha256"]
    if not isinstance(digest, dict) or not isinstance(digest.get(WEIGHTS_FILE), str):
        raise CheckpointError(f"{path / CONFIG_FILE}: sha256: no entry for {WEIGHTS_FILE}")
    return digest[WEIGHTS_FILE][:12]


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
    if file.stat().st_size > RECORD_BYTES:
        size = file.stat().st_size
        raise CheckpointError(f"{file}: {size} bytes; at most {RECORD_BYTES} expected")
    try:
        record = json.loads(file.read_text())
    except (ValueError, RecursionError) as error:
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
    check_record(record, file)
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


