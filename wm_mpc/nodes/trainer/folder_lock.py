"""A folder that one process at a time may write to."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO

from wm_mpc.core.errors import UserError

LOCK = "trainer.lock"


def lock_folder(folder: Path) -> IO[str]:
    """Claim a folder, which is made where it is missing, until the returned file is closed.

    The kernel lets go of the claim when its process ends, however it ends, so that no stale lock
    ever has to be removed by hand. The file stays.

    Raises:
        UserError: another process holds it, or the folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("a")
    except OSError as error:
        raise UserError(f"out: {folder}: {error.strerror}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        if isinstance(error, BlockingIOError):
            raise UserError(
                f"out: {folder} is in use by another trainer_node; end that one, or name another "
                "folder"
            ) from None
        raise UserError(f"out: {folder}: cannot be locked: {error.strerror}") from error
    return file


__all__ = ["LOCK", "lock_folder"]
