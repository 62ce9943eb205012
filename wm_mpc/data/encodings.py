"""The encodings of raw camera pictures that are read, in one table, by OpenCV's conversions.

| encoding | read as |
|---|---|
| ``rgb8``, ``bgr8``, ``rgba8``, ``bgra8``, ``8UC3`` (bgr), ``8UC4`` (bgra) | its colours |
| ``rgb16``, ``bgr16``, ``rgba16``, ``bgra16``, ``16UC3``, ``16UC4`` | the upper eight bits |
| ``mono8``, ``8UC1``, ``mono16`` | grey |
| ``bayer_rggb8``, ``_bggr8``, ``_gbrg8``, ``_grbg8`` and the same of 16 bits | demosaiced |
| ``yuv422``, ``uyvy``; ``yuv422_yuy2``, ``yuyv`` | YUV 4:2:2, packed |
| ``nv12``, ``nv21`` | YUV 4:2:0, two planes |
| ``16UC1`` [mm], ``32FC1`` [m] | depth, only with a range |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from wm_mpc.core.opencv import cv2

Convert = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Encoding:
    """How one encoding lies in memory and becomes RGB.

    Attributes:
        channels: numbers per pixel and row; 2 for packed YUV.
        bits: of a number: 8 or 16; 32: a float.
        convert: uint8 ``(rows, columns, channels)`` to uint8 ``(H, W, 3)`` RGB.
        rows: rows of data per row of the picture, as a fraction of two: 3 means three per two.
        depth: it tells distances, in units of ``scale`` metres.
        scale: [m] of one unit, where it tells distances.
        even: width and height must be even.
    """

    channels: int
    bits: int
    convert: Convert
    rows: int = 2
    depth: bool = False
    scale: float = 0.0
    even: bool = False


def _pick(order: tuple[int, ...], pixels: np.ndarray) -> np.ndarray:
    if order == (0, 1, 2) and pixels.shape[2] == 3:
        return pixels
    return pixels[:, :, list(order)]


def _grey(pixels: np.ndarray) -> np.ndarray:
    return np.repeat(pixels, 3, axis=2)


def _by_opencv(code: str, pixels: np.ndarray) -> np.ndarray:
    flat = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
    return cv2.cvtColor(np.ascontiguousarray(flat), getattr(cv2, code))


_RGB, _BGR = partial(_pick, (0, 1, 2)), partial(_pick, (2, 1, 0))
_UYVY = partial(_by_opencv, "COLOR_YUV2RGB_UYVY")
_YUYV = partial(_by_opencv, "COLOR_YUV2RGB_YUY2")
# OpenCV names a mosaic by its second row's second and third pixel, ROS by its first two
_BAYER = {
    "rggb": "COLOR_BayerBG2RGB",
    "bggr": "COLOR_BayerRG2RGB",
    "gbrg": "COLOR_BayerGR2RGB",
    "grbg": "COLOR_BayerGB2RGB",
}

ENCODINGS: dict[str, Encoding] = {
    "rgb8": Encoding(3, 8, _RGB),
    "bgr8": Encoding(3, 8, _BGR),
    "rgba8": Encoding(4, 8, _RGB),
    "bgra8": Encoding(4, 8, _BGR),
    "mono8": Encoding(1, 8, _grey),
    "8UC1": Encoding(1, 8, _grey),
    "8UC3": Encoding(3, 8, _BGR),
    "8UC4": Encoding(4, 8, _BGR),
    "mono16": Encoding(1, 16, _grey),
    "rgb16": Encoding(3, 16, _RGB),
    "bgr16": Encoding(3, 16, _BGR),
    "rgba16": Encoding(4, 16, _RGB),
    "bgra16": Encoding(4, 16, _BGR),
    "16UC3": Encoding(3, 16, _BGR),
    "16UC4": Encoding(4, 16, _BGR),
    "yuv422": Encoding(2, 8, _UYVY, even=True),
    "uyvy": Encoding(2, 8, _UYVY, even=True),
    "yuv422_yuy2": Encoding(2, 8, _YUYV, even=True),
    "yuyv": Encoding(2, 8, _YUYV, even=True),
    "nv12": Encoding(1, 8, partial(_by_opencv, "COLOR_YUV2RGB_NV12"), rows=3, even=True),
    "nv21": Encoding(1, 8, partial(_by_opencv, "COLOR_YUV2RGB_NV21"), rows=3, even=True),
    **{
        f"bayer_{name}{bits}": Encoding(1, bits, partial(_by_opencv, code), even=True)
        for name, code in _BAYER.items()
        for bits in (8, 16)
    },
    "16UC1": Encoding(1, 16, _grey, depth=True, scale=0.001),
    "32FC1": Encoding(1, 32, _grey, depth=True, scale=1.0),
}
"""Encoding -> how it is read. Names are those of sensor_msgs/image_encodings and of drivers."""


def depth_to_grey(metres: np.ndarray, near_far: tuple[float, float]) -> np.ndarray:
    """Depth as grey: near is 255, far is 0, and so is what was not measured.

    Args:
        metres: float ``(H, W)``; 0, infinite and NaN: not measured.
        near_far: [m] range that is mapped.

    Returns:
        uint8 ``(H, W, 3)``.
    """
    near, far = near_far
    measured = np.isfinite(metres) & (metres > 0)
    share = (far - np.where(measured, metres, far)) / (far - near)
    grey = np.round(255 * np.clip(share, 0, 1)).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


VIDEO = ("h264", "h265", "hevc", "avc", "vp8", "vp9", "av1", "mpeg4")
"""Words in a CompressedImage's format that mean a stream, not a picture."""
