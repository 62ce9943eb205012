"""Files written so that a crash, a full disk or a second process leaves no half of one behind.

Every file of this package that somebody reads again comes onto the disk through
``write_atomically``, or ``write_together`` where files vouch for each other.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO

from safetensors import SafetensorError

from wm_mpc.core.errors import UserError, one_line

if sys.platform != "win32":
    import fcntl

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

Content = bytes | str | Callable[[Path], object]
"""What to write; or what writes it to the path that it is given, for libraries that do."""


def disk_full(error: OSError | SafetensorError) -> bool:
    """Whether a file could not be written for want of room."""
    # safetensors passes on the system's error as words only
    told = any(f"(os error {number})" in str(error) for number in FULL)
    return told or getattr(error, "errno", None) in FULL


def write_failure(path: Path, error: OSError | SafetensorError) -> str:
    """One line about a file or folder that could not be written, for the user."""
    words = getattr(error, "strerror", None) or one_line(error)
    return f"{path}: cannot be written: {'the disk is full' if disk_full(error) else words}"


def write_atomically(target: Path, content: Content) -> None:
    """Write a file that either is as it was or is complete, also after a power cut.

    Raises:
        OSError: the disk is full or not writable; what was there before still is.
    """
    write_together(target.parent, {target.name: content})


def write_together(folder: Path, contents: Mapping[str, Content]) -> None:
    """Write several files of a folder, each as ``write_atomically`` does.

    All are on the disk before the first takes its name: where the last finds no room, none is
    replaced. They take their names in the order given, so one that vouches for others comes last.
    """
    owner = f"{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}"
    temporary = {name: folder / f".{name}.{owner}.tmp" for name in contents}
    try:
        for name, content in contents.items():
            if callable(content):
                content(temporary[name])
            else:
                data = content.encode() if isinstance(content, str) else content
                temporary[name].write_bytes(data)
            sync(temporary[name])
        for name, file in temporary.items():
            file.replace(folder / name)
    except BaseException:
        for file in temporary.values():
            with contextlib.suppress(OSError):
                file.unlink()
        raise
    sync(folder)


def remove_leftovers(path: Path) -> None:
    """Remove temporary files of writers on this host that no longer run."""
    for file in path.glob(".*.*.*.*.tmp"):
        host, pid, _ = file.name[: -len(".tmp")].rsplit(".", 2)
        if host.endswith(f".{socket.gethostname()}") and pid.isdigit() and not _alive(int(pid)):
            file.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    """Whether a process runs; one that ended and waits for its parent to notice does not."""
    try:
        os.kill(pid, 0)
        # "pid (name) state ...": the name may hold anything
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except ProcessLookupError:
        return False
    except (OSError, IndexError):  # another user's, or a system without /proc
        return True


def sync(path: Path) -> None:
    """Wait until the content of a file, or the names in a folder, are on the disk."""
    if sys.platform == "win32":  # it syncs files that are open for writing only, and no folders
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot do it for folders; they keep their own order.
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)


def publish(partial: Path, target: Path) -> None:
    """Give a folder that was written elsewhere its name: a reader never sees half of it.

    ``target`` must not exist, or be an empty folder.
    """
    for file in partial.iterdir():
        sync(file)
    sync(partial)
    partial.replace(target)
    sync(target.parent)


@contextlib.contextmanager
def locked(file: Path, waiting: str) -> Iterator[None]:
    """Keep other processes out that ask for the same lock; waits for one that holds it.

    The kernel lets go when the process ends, however it ends. The file stays.

    Args:
        file: to lock, made where it is missing; where it cannot be made, or the file system
            cannot lock, nothing is kept out.
        waiting: printed where another process holds it.
    """
    with contextlib.ExitStack() as stack:
        try:
            stream = stack.enter_context(file.open("a"))
        except OSError:  # no right to write, or a full disk: whatever has to be written will tell
            stream = None
        if stream is not None and sys.platform != "win32":
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(waiting, flush=True)
                fcntl.flock(stream, fcntl.LOCK_EX)
            except OSError as error:
                # a file system that cannot lock is no reason to refuse it
                if error.errno not in (errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS):
                    raise
        yield


def claim_folder(folder: Path, lock: str, user: str) -> IO[str]:
    """Claim a folder, which is made where it is missing, until the returned file is closed.

    The kernel lets go of the claim when its process ends, however it ends, so that no stale lock
    ever has to be removed by hand. The file stays.

    Args:
        folder: to claim.
        lock: name of the lock file in it.
        user: what claims it, for the message.

    Raises:
        UserError: another process holds it, or the folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / lock).open("a")
    except OSError as error:
        raise UserError(f"out: {folder}: {error.strerror}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        if isinstance(error, BlockingIOError):
            raise UserError(
                f"out: {folder} is in use by another {user}; end that one, or name another folder"
            ) from None
        raise UserError(f"out: {folder}: cannot be locked: {error.strerror}") from error
    return file


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


def user_path(text: str) -> Path:
    """Path of what a user typed, ``~`` expanded.

    Raises:
        UserError: it names a user who does not exist, or holds a character that no path may.
    """
    try:
        path = Path(text).expanduser()
    except RuntimeError:
        raise UserError(f"path: {text!r}: no such user") from None
    if "\0" in text:
        raise UserError(f"path: {text!r}: holds a zero byte")
    return path
