"""Zstandard: the standard library's (Python 3.14), or the backport that `rosbags` brings."""

from __future__ import annotations

try:
    from compression import zstd  # type: ignore[import-not-found]
except ImportError:
    from backports import zstd

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
"""First bytes of every Zstandard frame; a CDR message begins with 00 00 to 00 0b instead."""

__all__ = ["ZSTD_MAGIC", "zstd"]
