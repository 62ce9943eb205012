"""What a checkpoint claims, checked before anything is allocated for it or built from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from wm_mpc.core.errors import CheckpointError

WIDEST = 65_536
"""Largest width, length or number that a configuration may name."""
DEEPEST = 512
"""Largest number of layers: each is a Python object, even where no memory is taken for it."""
HEADER_BYTES = 1 << 24
RECORD_BYTES = 1 << 24


def check_record(record: Mapping[str, Any], where: Path) -> None:
    """Check the types and sizes of what ``world_model.json`` says.

    Raises:
        CheckpointError: names the field.
    """
    for key in ("config", "encoder", "sha256"):
        if not isinstance(record[key], dict):
            kind = type(record[key]).__name__
            raise CheckpointError(f"{where}: {key}: a {kind}; an object expected")
    for name, value in record["sha256"].items():
        if not isinstance(value, str):
            raise CheckpointError(f"{where}: sha256.{name}: {value!r}; a text expected")
    encoder = record["encoder"]
    for name in ("num_tokens", "channels"):
        _whole(encoder.get(name, 0), f"encoder.{name}", where, 0)
    if encoder.get("image_size"):
        _whole(encoder["image_size"], "encoder.image_size", where, 1)
    if not isinstance(encoder.get("source", ""), str):
        raise CheckpointError(f"{where}: encoder.source: a text expected")
    _whole(record.get("generation", 0), "generation", where, 0, 2**63)
    _sizes(record["config"], "config", where)


def _sizes(config: Mapping[str, Any], prefix: str, where: Path) -> None:
    """Bound every number of a configuration, whatever it means, and see that it is finite."""
    for name, value in config.items():
        field = f"{prefix}.{name}"
        if isinstance(value, dict):
            _sizes(value, field, where)
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, (int, float)) and not isinstance(part, bool):
                limit = DEEPEST if name in ("depth", "layers", "heads") else WIDEST
                if name in ("action_low", "action_high"):
                    limit = 1e12
                if not -limit <= part <= limit:
                    raise CheckpointError(f"{where}: {field}: {part}; at most {limit:g} expected")


def _whole(value: Any, field: str, where: Path, low: int, high: int = WIDEST) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise CheckpointError(f"{where}: {field}: {value!r}; a whole number, {low} to {high}")


def check_header(file: Path, own: Mapping[str, Tensor]) -> None:
    """Compare the header of a safetensors file with the tensors that a model needs.

    Only the header is read. What passes has the keys, shapes and length that are expected, so
    that reading it takes no more memory than the model itself.

    Args:
        file: safetensors file.
        own: tensors of the model; on the ``meta`` device they take no memory.

    Raises:
        CheckpointError: names file and key.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 2 <= length <= min(HEADER_BYTES, size - 8):
            raise CheckpointError(f"{file}: header of {length} bytes in a file of {size}")
        text = stream.read(length)
    try:
        header = json.loads(text)
        entries = {key: value for key, value in header.items() if key != "__metadata__"}
        shapes = {key: tuple(value["shape"]) for key, value in entries.items()}
        spans = {key: value["data_offsets"] for key, value in entries.items()}
        end = sum(int(after) - int(before) for before, after in spans.values())
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError) as error:
        raise CheckpointError(f"{file}: header: {type(error).__name__}: {error}") from error
    if end + length + 8 != size:
        raise CheckpointError(f"{file}: {size} bytes; {end + length + 8} expected by its header")
    missing, unknown = sorted(own.keys() - shapes.keys()), sorted(shapes.keys() - own.keys())
    if missing or unknown:
        what = f"lacks {missing[0]}" if missing else f"has an unknown key {unknown[0]}"
        raise CheckpointError(f"{file}: {what} ({len(missing)} missing, {len(unknown)} unknown)")
    for key, shape in shapes.items():
        if shape != tuple(own[key].shape):
            wanted = tuple(own[key].shape)
            raise CheckpointError(f"{file}: {key}: shape {shape}; {wanted} expected")
        before, after = spans[key]
        if not 0 <= after - before <= 8 * own[key].numel():
            raise CheckpointError(f"{file}: {key}: {after - before} bytes; too many for {shape}")


__all__ = ["DEEPEST", "RECORD_BYTES", "WIDEST", "check_header", "check_record"]
