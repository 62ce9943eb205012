"""Videos of a LeRobot dataset: written frame by frame, read front to back.

By PyAV where it is installed, as lerobot does: H.264 is written and all that FFmpeg knows is read,
AV1 among it, in which most published datasets are. Else by OpenCV, which writes MPEG-4 part 2 and
has no AV1.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from wm_mpc.core.errors import DataError, UserError
from wm_mpc.core.opencv import cv2


@functools.cache
def _pyav() -> Any:
    """PyAV, imported when the first video is opened; None where it is not installed."""
    try:
        import av
    except ImportError:
        return None
    return av


_QUALITY = {"crf": "8", "g": "2", "preset": "veryfast"}
"""Every other frame stands by itself, as lerobot writes them. A model that learned from frames of
less quality takes those of a camera for unlike anything trained on."""


class VideoFile:
    """An mp4 that frames are appended to.

    Args:
        path: file to create, with its folder.
        fps: [Hz].
        size: (height, width) [px].

    Attributes:
        count: frames so far.
        codec, pixels: as ``meta/info.json`` names them.

    Raises:
        UserError: it cannot be written here.
    """

    def __init__(self, path: Path, fps: int, size: tuple[int, int]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.count = 0
        self._path = path
        self.codec, self.pixels = video_kind(size)
        self._write, self.close = (_by_av if _pyav() else _by_opencv)(path, fps, size, self.pixels)

    @property
    def size(self) -> int:
        """Bytes on disk by now."""
        return self._path.stat().st_size

    def add(self, frames: np.ndarray) -> None:
        """Append uint8 ``(T, H, W, 3)`` RGB."""
        for frame in frames:
            self._write(frame)
        self.count += len(frames)


def video_kind(size: tuple[int, int]) -> tuple[str, str]:
    """Codec and pixel format that are written for pictures of (height, width) [px]."""
    even = not (size[0] % 2 or size[1] % 2)
    return ("h264", "yuv420p" if even else "yuv444p") if _pyav() else ("mpeg4", "yuv420p")


def _by_av(path: Path, fps: int, size: tuple[int, int], pixels: str) -> tuple[Any, Any]:
    av = _pyav()
    try:
        container = av.open(str(path), "w")
        stream = container.add_stream("libx264", rate=fps, options=_QUALITY)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {error}") from None
    stream.height, stream.width = size
    stream.pix_fmt = pixels

    def write(frame: np.ndarray) -> None:
        container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))

    def close() -> None:
        container.mux(stream.encode())
        container.close()

    return write, close


def _by_opencv(path: Path, fps: int, size: tuple[int, int], pixels: str) -> tuple[Any, Any]:
    writer = cv2.VideoWriter(
        str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, (size[1], size[0])
    )
    if not writer.isOpened():
        raise UserError(f"{path}: this OpenCV build cannot write mp4 videos")
    return lambda frame: writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)), writer.release


class VideoReader:
    """Reads videos front to back: seeking by number is not exact in every codec."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._frames: Iterator[Any] = iter(())
        self._position = 0

    def frames(self, path: Path, first: int, count: int, fps: float) -> list[np.ndarray]:
        """Frames ``first`` to ``first + count``, uint8 ``(H, W, 3)`` RGB.

        Raises:
            DataError: no such video, it is of another rate than ``fps`` [Hz], it has fewer
                frames, or its codec is not known here.
        """
        if self._path != path or first < self._position:
            self.close()
            if not path.is_file():
                raise DataError(f"{path}: no such video")
            self._path, self._position = path, 0
            rate = _rate(path)
            if rate and abs(rate - fps) > 0.02 * fps:
                raise DataError(f"{path}: {rate:.4g} frames per second; {fps:g} expected")
            self._frames = (_read_by_av if _pyav() else _read_by_opencv)(path)
        found: list[np.ndarray] = []
        while self._position < first + count:
            frame = next(self._frames, None)
            if frame is None:
                break
            if self._position >= first:
                found.append(np.ascontiguousarray(frame()))
            self._position += 1
        if len(found) != count:
            known = "" if _pyav() else " (OpenCV must know the codec; pip install av knows more)"
            raise DataError(
                f"{path}: {len(found)} frames from number {first} on; {count} expected{known}"
            )
        return found

    def close(self) -> None:
        """Let go of the file."""
        close = getattr(self._frames, "close", None)
        if close is not None:
            close()
        self._path, self._frames = None, iter(())


def _rate(path: Path) -> float:
    """Mean frames per second; 0: not known."""
    av = _pyav()
    if av is None:
        stream = cv2.VideoCapture(str(path))
        rate = stream.get(cv2.CAP_PROP_FPS)
        stream.release()
        return rate
    try:
        with av.open(str(path)) as container:
            streams = container.streams.video
            return float(streams[0].average_rate or 0) if streams else 0.0
    except (OSError, ValueError):
        return 0.0


def _read_by_av(path: Path) -> Iterator[Any]:
    """Frames as functions that give RGB; what is passed over costs no conversion."""
    try:
        with _pyav().open(str(path)) as container:
            if not container.streams.video:
                return
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for frame in container.decode(stream):
                yield lambda frame=frame: frame.to_ndarray(format="rgb24")
    except (OSError, ValueError):  # what FFmpeg refuses; the frames before it are good
        return


def _read_by_opencv(path: Path) -> Iterator[Any]:
    stream = cv2.VideoCapture(str(path))
    try:
        while stream.grab():
            good, frame = stream.retrieve()
            if not good:
                return
            yield lambda frame=frame: cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
    finally:
        stream.release()
