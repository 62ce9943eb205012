"""What ROS messages carry, as arrays: needs no ROS, any object with the message's fields will do.

Messages that cannot be used raise ``MessageError``: one line with field, value and bound.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from wm_mpc.core.errors import UserError
from wm_mpc.data.trajectory import Trajectory

# encoding -> (bytes per channel, channels, order of red, green and blue; None: grey)
ENCODINGS: dict[str, tuple[int, int, tuple[int, int, int] | None]] = {
    "rgb8": (1, 3, (0, 1, 2)),
    "bgr8": (1, 3, (2, 1, 0)),
    "rgba8": (1, 4, (0, 1, 2)),
    "bgra8": (1, 4, (2, 1, 0)),
    "mono8": (1, 1, None),
    "8UC1": (1, 1, None),
    "8UC3": (1, 3, (2, 1, 0)),
    "mono16": (2, 1, None),
}
MAX_SIDE = 16384


class MessageError(UserError):
    """A message that cannot be used; the sentence says why."""


def stamp_seconds(stamp: Any) -> float:
    """Seconds of a stamp, node clock."""
    return stamp.sec + stamp.nanosec * 1e-9


def image_to_rgb(message: Any, field: str = "image") -> np.ndarray:
    """Decode a raw picture.

    Args:
        message: any of :data:`ENCODINGS`; padded rows (``step``) and byte order are honoured.
            ``8UC3`` is read as blue, green, red, which is what OpenCV drivers mean by it.
        field: name used in errors.

    Returns:
        uint8 ``(H, W, 3)`` RGB. It may share memory with the message and be read-only.

    Raises:
        MessageError: unknown encoding, or data that do not fit height, width and step.
    """
    known = ENCODINGS.get(message.encoding)
    if known is None:
        if message.encoding:
            converted = _cv_bridge_rgb(message)
            if converted is not None:
                return converted
        raise MessageError(
            f"{field}.encoding: {message.encoding!r}; one of {', '.join(ENCODINGS)} expected"
        )
    width, channels, order = known
    height, columns, step = message.height, message.width, message.step
    for name, value in (("height", height), ("width", columns)):
        if not 1 <= value <= MAX_SIDE:
            raise MessageError(f"{field}.{name}: {value}; 1 to {MAX_SIDE} expected")
    row = columns * channels * width
    if step < row:
        raise MessageError(
            f"{field}.step: {step}; at least {row} expected for {columns} px of {message.encoding}"
        )
    if len(message.data) != height * step:
        raise MessageError(
            f"{field}.data: {len(message.data)} bytes; {height * step} expected for "
            f"{height} rows of {step}"
        )
    rows = np.frombuffer(message.data, np.uint8).reshape(height, step)[:, :row]
    if width == 2:
        # the more significant byte of a pixel is its 8-bit value
        rows = rows[:, 0 if message.is_bigendian else 1 :: 2]
    pixels = rows.reshape(height, columns, channels)
    if order is None:
        return np.repeat(pixels, 3, axis=2)
    return pixels if order == (0, 1, 2) and channels == 3 else pixels[:, :, list(order)]


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


def compressed_to_rgb(message: Any, field: str = "image/compressed") -> np.ndarray:
    """Decode a JPEG or PNG picture to uint8 ``(H, W, 3)`` RGB.

    Raises:
        MessageError: empty or undecodable data.
    """
    import cv2

    if not len(message.data):
        raise MessageError(f"{field}.data: 0 bytes; a compressed picture expected")
    try:
        picture = cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        picture = None
    if picture is None:
        size = len(message.data)
        raise MessageError(f"{field}.data: {size} bytes of {message.format!r} cannot be decoded")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


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
                raise MessageError(
                    f"{field}.{part}: {values[i]} at joint {joint!r}; a finite number expected"
                )
        parts.extend(values[i] for i in index)
    return np.array(parts, dtype=np.float32)


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
