"""Every camera encoding, built by hand from what its name says; needs no ROS."""

from __future__ import annotations

import struct
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from wm_mpc.core.errors import MessageError
from wm_mpc.data.decoding import compressed_to_rgb, image_to_rgb
from wm_mpc.data.encodings import ENCODINGS

SIDE = 8
LEFT, RIGHT = (200, 100, 50), (30, 160, 220)


def colours() -> np.ndarray:
    """Two halves of one colour each; chroma of every pair of pixels is one."""
    rgb = np.empty((SIDE, SIDE, 3), np.uint8)
    rgb[:, : SIDE // 2], rgb[:, SIDE // 2 :] = LEFT, RIGHT
    return rgb


def yuv(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """ITU-R BT.601, studio range, uint8 planes of full size."""
    r, g, b = (rgb[..., i].astype(float) for i in range(3))
    y = 16 + 0.257 * r + 0.504 * g + 0.098 * b
    u = 128 - 0.148 * r - 0.291 * g + 0.439 * b
    v = 128 + 0.439 * r - 0.368 * g - 0.071 * b
    return tuple(np.round(plane).astype(np.uint8) for plane in (y, u, v))


def raw(encoding: str, data: np.ndarray, big: bool = False) -> SimpleNamespace:
    rows = np.ascontiguousarray(data)
    return SimpleNamespace(
        encoding=encoding, height=SIDE, width=SIDE, is_bigendian=big,
        step=rows.strides[0], data=rows.tobytes(),
    )  # fmt: skip


def laid_out(encoding: str, big: bool) -> np.ndarray:
    """The picture of ``colours`` in memory; rows first."""
    rgb = colours()
    y, u, v = yuv(rgb)
    alpha = np.full((SIDE, SIDE, 1), 9, np.uint8)
    if encoding in ("yuv422", "uyvy", "yuv422_yuy2", "yuyv"):
        chroma = np.where(np.arange(SIDE) % 2 == 0, u, v)
        first, second = (y, chroma) if "yuy" in encoding else (chroma, y)
        return np.stack([first, second], 2).reshape(SIDE, -1)
    if encoding in ("nv12", "nv21"):
        pair = (u, v) if encoding == "nv12" else (v, u)
        planes = np.stack([p[::2, ::2] for p in pair], 2).reshape(SIDE // 2, SIDE)
        return np.concatenate([y, planes])
    wide = encoding.endswith("16") or encoding.startswith("16")
    if encoding.startswith("bayer"):
        letters = encoding.removeprefix("bayer_")[:4]
        pixels = np.empty((SIDE, SIDE), np.uint8)
        for place, letter in enumerate(letters):
            row, column = divmod(place, 2)
            pixels[row::2, column::2] = rgb[row::2, column::2, "rgb".index(letter)]
    elif "mono" in encoding or encoding.endswith("C1"):
        pixels = rgb[:, :, 0]
    else:
        turned = rgb if encoding.startswith("rgb") else rgb[:, :, ::-1]
        four = "a" in encoding or encoding.endswith("C4")
        pixels = np.concatenate([turned, alpha], 2) if four else turned
    if wide:
        pixels = (pixels.astype(np.uint16) * 256 + 77).astype(">u2" if big else "<u2")
    return np.ascontiguousarray(pixels).view(np.uint8).reshape(SIDE, -1)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("encoding", [e for e, known in ENCODINGS.items() if not known.depth])
def test_an_encoding_gives_its_colours(encoding: str, big: bool) -> None:
    found = image_to_rgb(raw(encoding, laid_out(encoding, big), big))
    assert found.shape == (SIDE, SIDE, 3) and found.dtype == np.uint8
    grey = "mono" in encoding or encoding.endswith("C1")
    # at the border of the two halves a mosaic is interpolated
    for columns, colour in ((slice(0, 2), LEFT), (slice(6, 8), RIGHT)):
        expected = (colour[0],) * 3 if grey else colour
        worst = np.abs(found[2:6, columns].astype(int) - expected).max()
        assert worst <= (3 if encoding[:2] in ("yu", "uy", "nv") else 0), encoding


def test_padded_rows_of_planes() -> None:
    data = np.pad(laid_out("nv12", False), ((0, 0), (0, 5)))
    np.testing.assert_array_equal(
        image_to_rgb(raw("nv12", data)), image_to_rgb(raw("nv12", laid_out("nv12", False)))
    )


@pytest.mark.parametrize("encoding", ["16UC1", "32FC1"])
@pytest.mark.parametrize("big", [False, True])
def test_depth_is_refused_or_mapped_by_range(encoding: str, big: bool) -> None:
    metres = np.tile(np.array([0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 9.0]), (SIDE, 1))
    kind = (">" if big else "<") + ("u2" if encoding == "16UC1" else "f4")
    message = raw(encoding, (metres * (1000 if encoding == "16UC1" else 1)).astype(kind), big)
    with pytest.raises(MessageError, match=f"{encoding} is depth, not a picture"):
        image_to_rgb(message)
    found = image_to_rgb(message, depth_range=(1.0, 3.0))
    expected = [0, 255, 255, 191, 128, 64, 0, 0]
    np.testing.assert_allclose(found[0, :, 0], expected, atol=1)


def test_odd_sizes_of_pairs_are_refused() -> None:
    message = raw("yuyv", laid_out("yuyv", False))
    message.width = 7
    with pytest.raises(MessageError, match="image.width: 7; even for yuyv expected"):
        image_to_rgb(message)


def packed(end: str, rgb: np.ndarray, **options: int) -> bytes:
    return cv2.imencode(end, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))[1].tobytes()


@pytest.mark.parametrize(
    ("form", "end"),
    [
        ("jpeg", ".jpg"), ("jpg", ".jpg"), ("JPEG", ".jpg"), ("png", ".png"), ("", ".jpg"),
        ("rgb8; jpeg compressed bgr8", ".jpg"), ("bgr8; jpeg compressed bgr8", ".jpg"),
        ("bgr8; png compressed bgr8", ".png"), ("bgr8; png compressed ", ".png"),
        ("mono8; jpeg compressed ", ".jpg"), ("image/jpeg", ".jpg"), ("jpeg", ".png"),
        ("webp", ".webp"), ("tiff", ".tiff"),
    ],
)  # fmt: skip
def test_spellings_of_compressed(form: str, end: str) -> None:
    rgb = np.full((32, 32, 3), LEFT, np.uint8)
    found = compressed_to_rgb(SimpleNamespace(format=form, data=packed(end, rgb)))
    assert np.abs(found.astype(int) - rgb).max() <= 4


def test_colours_that_were_packed_as_rgb() -> None:
    rgb = np.full((32, 32, 3), LEFT, np.uint8)
    data = cv2.imencode(".png", rgb)[1].tobytes()
    message = SimpleNamespace(format="rgb8; png compressed rgb8", data=data)
    np.testing.assert_array_equal(compressed_to_rgb(message), rgb)


def test_16_bit_png() -> None:
    grey = np.full((8, 8), 200 * 256 + 5, np.uint16)
    data = cv2.imencode(".png", grey)[1].tobytes()
    message = SimpleNamespace(format="mono16; png compressed mono16", data=data)
    assert set(compressed_to_rgb(message).ravel()) == {200}


def test_a_picture_is_turned_upright_by_its_exif() -> None:
    rgb = np.zeros((16, 32, 3), np.uint8)
    rgb[:, :16] = 255
    data = packed(".jpg", rgb)
    # APP1 with one entry: orientation 6, the camera was held a quarter turn to the left
    tiff = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    app1 = b"\xff\xe1" + struct.pack(">H", len(tiff) + 8) + b"Exif\0\0" + tiff
    turned = compressed_to_rgb(SimpleNamespace(format="jpeg", data=data[:2] + app1 + data[2:]))
    assert turned.shape == (32, 16, 3)
    assert turned[:14].min() > 200 and turned[-14:].max() < 50


@pytest.mark.parametrize("name", ["16UC1", "32FC1"])
def test_compressed_depth(name: str) -> None:
    values = np.full((8, 8), 2000, np.uint16)
    header = struct.pack("<iff", 0, 0.0, 0.0)
    if name == "32FC1":
        # depth = scale / (value - shift)
        header, values = struct.pack("<iff", 0, 200.0, 50.0), np.full((8, 8), 150, np.uint16)
    data = header + cv2.imencode(".png", values)[1].tobytes()
    message = SimpleNamespace(format=f"{name}; compressedDepth png", data=data)
    with pytest.raises(MessageError, match="compressedDepth is depth"):
        compressed_to_rgb(message)
    assert set(compressed_to_rgb(message, depth_range=(1.0, 3.0)).ravel()) == {128}


@pytest.mark.parametrize(
    ("form", "data", "words"),
    [
        ("h264", b"\0\0\0\1abc", "h264 has no whole pictures"),
        ("hevc", b"abc", "hevc has no whole pictures"),
        ("", b"\0\0\0\1\x67abc", "a video stream has no whole pictures"),
        ("jpeg", b"", "0 bytes"),
        ("jpeg", b"nonsense", "8 bytes of 'jpeg' cannot be decoded"),
        ("16UC1; compressedDepth rvl", bytes(40), "is depth"),
    ],
)
def test_what_is_no_picture_is_refused_in_a_word(form: str, data: bytes, words: str) -> None:
    with pytest.raises(MessageError, match=words) as caught:
        compressed_to_rgb(SimpleNamespace(format=form, data=data))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("end", [".jpg", ".png"])
def test_half_a_picture_is_none(end: str) -> None:
    rgb = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    data = packed(end, rgb)
    with pytest.raises(MessageError, match="the end of the picture is missing"):
        compressed_to_rgb(SimpleNamespace(format="jpeg", data=data[: len(data) // 2]))
