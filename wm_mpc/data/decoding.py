"""What ROS messages carry, as arrays: needs no ROS, any object with the message's fields will do.

Messages that cannot be used raise ``MessageError``: one line with field, value and bound.
"""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np

from wm_mpc.core.errors import MessageError, NotFiniteMessageError
from wm_mpc.core.opencv import cv2
from wm_mpc.data.encodings import ENCODINGS, VIDEO, Encoding, depth_to_grey
from wm_mpc.data.trajectory import Trajectory

MAX_SIDE = 16384
_MOST_PIXELS = 2**26
"""Of a compressed picture, 200 MB unpacked: no camera makes more."""


def image_to_rgb(
    message: Any, field: str = "image", depth_range: tuple[float, float] | None = None
) -> np.ndarray:
    """Decode a raw picture.

    Args:
        message: any encoding of ``wm_mpc.data.encodings``; padded rows (``step``) and byte order
            are honoured. ``8UC3`` is read as blue, green, red, which is what OpenCV drivers mean
            by it.
        field: name used in errors.
        depth_range: [m] (near, far) by which depth becomes grey; None: depth is refused.

    Returns:
        uint8 ``(H, W, 3)`` RGB. It may share memory with the message and be read-only.

    Raises:
        MessageError: unknown encoding, or data that do not fit height, width and step.
    """
    known = ENCODINGS.get(message.encoding) or ENCODINGS.get(message.encoding.strip().lower())
    if known is None:
        if message.encoding:
            converted = _cv_bridge_rgb(message)
            if converted is not None:
                return converted
        raise MessageError(
            f"{field}.encoding: {message.encoding!r}; one of {', '.join(ENCODINGS)} expected"
        )
    if known.depth and depth_range is None:
        raise MessageError(
            f"{field}.encoding: {message.encoding} is depth, not a picture; a colour topic "
            "expected, or a range to map it to grey (import: --depth-range NEAR FAR)"
        )
    rows = _rows(message, known, field)
    height, columns = message.height, message.width
    if known.depth:
        kind = np.dtype(np.uint16 if known.bits == 16 else np.float32)
        kind = kind.newbyteorder(">" if message.is_bigendian else "<")
        values = np.ascontiguousarray(rows).view(kind).astype(np.float32)
        return depth_to_grey(values * known.scale, depth_range)
    if known.bits == 16:
        # the more significant byte of a number is its 8-bit value
        rows = rows[:, 0 if message.is_bigendian else 1 :: 2]
    return known.convert(rows.reshape(height * known.rows // 2, columns, known.channels))


def _rows(message: Any, known: Encoding, field: str) -> np.ndarray:
    """Bytes of the picture, uint8 ``(rows, bytes per row)`` without padding.

    Raises:
        MessageError: the sizes do not fit each other.
    """
    height, columns, step = message.height, message.width, message.step
    for name, value in (("height", height), ("width", columns)):
        if not 1 <= value <= MAX_SIDE:
            raise MessageError(f"{field}.{name}: {value}; 1 to {MAX_SIDE} expected")
        if known.even and value % 2:
            raise MessageError(f"{field}.{name}: {value}; even for {message.encoding} expected")
    row = columns * known.channels * known.bits // 8
    if step < row:
        raise MessageError(
            f"{field}.step: {step}; at least {row} expected for {columns} px of {message.encoding}"
        )
    count = height * known.rows // 2
    if len(message.data) != count * step:
        raise MessageError(
            f"{field}.data: {len(message.data)} bytes; {count * step} expected for "
            f"{count} rows of {step}"
        )
    return np.frombuffer(message.data, np.uint8).reshape(count, step)[:, :row]


def _cv_bridge_rgb(message: Any) -> np.ndarray | None:
    """Decode encodings not known here with the distribution's cv_bridge, where there is one."""
    try:
        from cv_bridge import CvBridge, CvBridgeError
    except ImportError:
        return None
    try:
        return np.ascontiguousarray(CvBridge().imgmsg_to_cv2(message, "rgb8"))
    except CvBridgeError:
        return None


def compressed_to_rgb(
    message: Any,
    field: str = "image/compressed",
    depth_range: tuple[float, float] | None = None,
) -> np.ndarray:
    """Decode a compressed picture (JPEG, PNG and whatever else OpenCV reads), upright by its EXIF.

    Args:
        message: ``format`` in any spelling of image_transport and drivers; what the data are
            counts, but for ``compressedDepth`` and for the order of colours.
        field: name used in errors.
        depth_range: as in ``image_to_rgb``.

    Returns:
        uint8 ``(H, W, 3)`` RGB.

    Raises:
        MessageError: empty, incomplete or undecodable data, a video stream, or depth that was not
            asked for.
    """
    data, words = bytes(message.data), message.format.lower()
    if not data:
        raise MessageError(f"{field}.data: 0 bytes; a compressed picture expected")
    video = next((name for name in VIDEO if name in words), "")
    if video or data[:4] == b"\0\0\0\1" or data[:3] == b"\0\0\1":
        raise MessageError(
            f"{field}.format: {video or 'a video stream'} has no whole pictures; jpeg or png "
            "expected (republish it)"
        )
    if "compresseddepth" in words:
        return _compressed_depth(data, words, field, depth_range)
    _complete(data, field)
    _of_a_camera(data, field)
    picture = _decoded(data, cv2.IMREAD_COLOR)
    if picture is None:
        size = len(data)
        raise MessageError(f"{field}.data: {size} bytes of {message.format!r} cannot be decoded")
    if "compressed rgb" in words:
        return picture
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def _complete(data: bytes, field: str) -> None:
    """Refuse a picture whose end is missing, which decoders fill with grey.

    Raises:
        MessageError: JPEG or PNG data without their end.
    """
    ends = {b"\xff\xd8": b"\xff\xd9", b"\x89P": b"IEND"}
    end = ends.get(data[:2])
    if end is not None and data.rfind(end) < len(data.rstrip(b"\0")) - 64:
        raise MessageError(f"{field}.data: {len(data)} bytes; the end of the picture is missing")


def _of_a_camera(data: bytes, field: str) -> None:
    """Refuse a PNG or JPEG that would fill the memory, by what its head says.

    Raises:
        MessageError: more than ``_MOST_PIXELS``.
    """
    width = height = 0
    if data[:4] == b"\x89PNG" and len(data) >= 24:
        width, height = struct.unpack_from(">II", data, 16)
    elif data[:2] == b"\xff\xd8":
        at = 2
        while at + 9 <= len(data) and data[at] == 0xFF:
            marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
            if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
                height, width = struct.unpack_from(">HH", data, at + 5)
                break
            at += 2 + length
    if width * height > _MOST_PIXELS:
        raise MessageError(
            f"{field}.data: {width} x {height} px; at most {_MOST_PIXELS} px expected"
        )


def _decoded(data: bytes, how: int) -> np.ndarray | None:
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), how)
    except cv2.error:
        return None


def _compressed_depth(
    data: bytes, words: str, field: str, depth_range: tuple[float, float] | None
) -> np.ndarray:
    """Depth as compressed_depth_image_transport writes it: a header of 12 bytes, then a PNG."""
    if depth_range is None:
        raise MessageError(
            f"{field}.format: compressedDepth is depth, not a picture; a colour topic expected, "
            "or a range to map it to grey (import: --depth-range NEAR FAR)"
        )
    if "rvl" in words:
        raise MessageError(f"{field}.format: compressedDepth rvl; compressedDepth png expected")
    start = data.find(b"\x89PNG")
    if start >= 0:
        _of_a_camera(data[start:], field)
    values = _decoded(data[start:], cv2.IMREAD_UNCHANGED) if start >= 0 else None
    if values is None or values.ndim != 2:
        raise MessageError(f"{field}.data: {len(data)} bytes of compressedDepth do not decode")
    if "32fc1" in words and start >= 12:
        scale, shift = struct.unpack_from("<ff", data, start - 8)
        with np.errstate(divide="ignore", invalid="ignore"):
            metres = np.where(values > 0, scale / (values.astype(np.float32) - shift), 0)
    else:
        metres = values.astype(np.float32) * 0.001
    return depth_to_grey(metres, depth_range)


def joint_state_to_array(
    message: Any, names: tuple[str, ...], dim: int, field: str = "proprio"
) -> np.ndarray:
    """Read positions, and velocities where ``dim`` asks for them, in the order of ``names``.

    Args:
        message: joint names may come in any order, and others beside them.
        names: joints wanted; empty: as they come.
        dim: as many numbers as joints: positions; twice as many: positions, then velocities.
        field: name used in errors.

    Returns:
        float32 ``(dim,)``, finite.

    Raises:
        MessageError: a joint is missing, a list is too short, or a number is not finite.
    """
    count = len(names) or len(message.position)
    if dim not in (count, 2 * count):
        raise MessageError(
            f"{field}.position: {count} joints; the model expects {dim} numbers: "
            "positions, or positions and velocities"
        )
    index = list(range(count))
    if names:
        known = {name: i for i, name in enumerate(message.name)}
        missing = [name for name in names if name not in known]
        if missing:
            raise MessageError(f"{field}.name: {missing[0]!r} is missing")
        index = [known[name] for name in names]
    parts = []
    for part in ("position", "velocity")[: dim // count if count else 0]:
        values = getattr(message, part)
        if max(index, default=-1) >= len(values):
            expected = max(index) + 1
            raise MessageError(f"{field}.{part}: {len(values)} values; {expected} expected")
        for i in index:
            if not math.isfinite(values[i]):
                joint = message.name[i] if i < len(message.name) else str(i)
                raise NotFiniteMessageError(
                    f"{field}.{part}: {values[i]} at joint {joint!r}; a finite number expected"
                )
        parts.extend(values[i] for i in index)
    with np.errstate(over="ignore"):
        array = np.array(parts, dtype=np.float32)
    if not np.isfinite(array).all():
        raise NotFiniteMessageError(
            f"{field}: {max(parts, key=abs):g}; a number of single precision expected"
        )
    return array


def message_to_trajectory(message: Any) -> Trajectory:
    """Read a ``wm_mpc/msg/Trajectory`` and validate it.

    Raises:
        MessageError: pictures or numbers that do not fit together.
    """
    images = [image_to_rgb(image, f"images[{i}]") for i, image in enumerate(message.images)]
    if not images:
        raise MessageError("images: none; at least 1 expected")
    if len({image.shape for image in images}) != 1:
        raise MessageError("images: several sizes; one expected")

    def matrix(name: str, dim: int, dtype: type) -> np.ndarray:
        values = np.asarray(getattr(message, name), dtype)
        if name == "proprio" and dim == 0 and not len(values):
            # A robot that reports nothing of itself: its model works on pictures alone.
            return np.zeros((len(message.stamps), 0), dtype)
        if dim < 1 or len(values) % dim:
            raise MessageError(f"{name}: {len(values)} values; a multiple of {dim} expected")
        return values.reshape(-1, dim)

    trajectory = Trajectory(
        images=np.stack(images),
        image_steps=np.asarray(message.image_steps, np.int64),
        actions=matrix("actions", message.action_dim, np.float32),
        proprio=matrix("proprio", message.proprio_dim, np.float32),
        stamps=np.asarray(message.stamps, np.float64),
        state=matrix("state", message.state_dim, np.float64) if message.state_dim else None,
        meta={"task": message.task, "source": message.source, "policy": message.policy,
              "seed": int(message.seed)},
    )  # fmt: skip
    try:
        return trajectory.validate()
    except ValueError as error:
        raise MessageError(str(error)) from None
