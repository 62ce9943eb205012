"""Files written so that a crash, a full disk or a second process leaves no half of one behind."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from wm_mpc.core.errors import one_line

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def disk_full(error: OSError | SafetensorError) -> bool:
    """Whether a file could not be written for want of room."""
    # safetensors passes on the system's error as words only
    told = any(f"(os error {number})" in str(error) for number in FULL)
    return told or getattr(error, "errno", None) in FULL


def write_failure(path: Path, error: OSError | SafetensorError) -> str:
    """One line about a file or folder that could not be written, for the user."""
    words = getattr(error, "strerror", None) or one_line(error)
    return f"{path}: cannot be written: {'the disk is full' if disk_full(error) else words}"


def write_atomically(target: Path, payload: bytes) -> None:
    """Write ``payload`` so that ``target`` either does not exist or is complete."""
    owner = f"{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}"
    temporary = target.with_name(f".{target.name}.{owner}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(payload)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove_leftovers(path: Path) -> None:
    """Remove temporary files of writers on this host that no longer run."""
    for file in path.glob(".*.*.*.*.tmp"):
        host, pid, _ = file.name[: -len(".tmp")].rsplit(".", 2)
        if host.endswith(f".{socket.gethostname()}") and pid.isdigit() and not _alive(int(pid)):
            file.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def sync(path: Path) -> None:
    """Wait until the content of a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot do it for folders; they keep their own order.
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)


TOKENS, PROGRESS, LOCK = "tokens.npy", "tokens.json", "tokens.lock"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from working on the cache in a folder; waits for one that does.

    The kernel lets go when the process ends, however it ends. The file stays.
    """
    if sys.platform == "win32":
        yield
        return
    with contextlib.ExitStack() as stack:
        try:
            stream = stack.enter_context((folder / LOCK).open("a"))
        except OSError:  # no right to write, or a full disk: whatever has to be written will tell
            stream = None
        if stream is not None:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"{folder}: another process makes tokens there; waiting for it", flush=True)
                fcntl.flock(stream, fcntl.LOCK_EX)
            except OSError as error:
                # a file system that cannot lock is no reason to refuse it
                if error.errno not in (errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS):
                    raise
        yield


def reserve(file: Path) -> None:
    """Give a file its room on the disk now; content stays.

    A mapped file with holes would end the process with SIGBUS when the disk fills up.

    Raises:
        OSError: no room.
    """
    if not hasattr(os, "posix_fallocate"):  # macOS, Windows
        return
    with file.open("r+b") as stream:
        try:
            os.posix_fallocate(stream.fileno(), 0, file.stat().st_size)
        except OSError as error:
            # a file system that cannot reserve is no reason to refuse it
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise
