import array
import math

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from sensor_msgs.msg import CompressedImage, Image, JointState

from wm_mpc.data.trajectory import Trajectory
from wm_mpc.nodes.common import messages as m

STAMP = Time(sec=12, nanosec=500_000_000)


def picture(height: int = 5, width: int = 7) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encode(rgb: np.ndarray, encoding: str, pad: int = 0, bigendian: bool = False) -> Image:
    """The message a driver would send."""
    grey = rgb[:, :, :1]
    alpha = np.full_like(grey, 7)
    pixels = {
        "rgb8": rgb, "bgr8": rgb[:, :, ::-1], "8UC3": rgb[:, :, ::-1],
        "rgba8": np.concatenate([rgb, alpha], 2),
        "bgra8": np.concatenate([rgb[:, :, ::-1], alpha], 2),
        "mono8": grey, "8UC1": grey,
        "mono16": (grey.astype(np.uint16) * 256 + 99).astype(">u2" if bigendian else "<u2"),
    }[encoding]  # fmt: skip
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(len(rgb), -1)
    rows = np.pad(rows, ((0, 0), (0, pad)), constant_values=255)
    message = Image(height=rgb.shape[0], width=rgb.shape[1], encoding=encoding)
    message.step, message.is_bigendian, message.data = rows.shape[1], bigendian, rows.tobytes()
    return message


@pytest.mark.parametrize("bigendian", [False, True])
@pytest.mark.parametrize("pad", [0, 3])
@pytest.mark.parametrize(
    "encoding",
    ("rgb8", "bgr8", "rgba8", "bgra8", "mono8", "8UC1", "8UC3", "mono16"),
)
def test_every_encoding_decodes_to_the_same_picture(
    encoding: str, pad: int, bigendian: bool
) -> None:
    rgb = picture()
    expected = np.repeat(rgb[:, :, :1], 3, 2) if m.ENCODINGS[encoding].channels == 1 else rgb
    got = m.image_to_rgb(encode(rgb, encoding, pad, bigendian))
    assert got.dtype == np.uint8 and np.array_equal(got, expected)


def test_image_round_trip() -> None:
    message = m.rgb_to_image(picture(), STAMP)
    assert np.array_equal(m.image_to_rgb(message), picture()) and message.header.stamp == STAMP


def broken(**changes: object) -> Image:
    message = encode(picture(), "rgb8")
    for name, value in changes.items():
        setattr(message, name, value)
    return message


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (broken(encoding="yuv9"), r"image.encoding: 'yuv9'; one of rgb8,"),
        (broken(encoding=""), r"image.encoding: ''"),
        (broken(data=b""), r"image.data: 0 bytes; 105 expected"),
        (broken(data=b"123"), r"image.data: 3 bytes"),
        (broken(height=6), r"image.data: 105 bytes; 126 expected"),
        (broken(height=0), r"image.height: 0; 1 to"),
        (broken(width=0), r"image.width: 0"),
        (broken(width=2**31), r"image.width: 2147483648"),
        (broken(step=20), r"image.step: 20; at least 21 expected for 7 px of rgb8"),
        (broken(step=22), r"image.data: 105 bytes; 110 expected"),
        (Image(), r"image.encoding"),
    ],
)
def test_bad_images_say_why(message: Image, error: str) -> None:
    with pytest.raises(m.MessageError, match=error) as caught:
        m.image_to_rgb(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("suffix", "error"), [(".png", 0), (".jpg", 6)])
def test_compressed_pictures(suffix: str, error: int) -> None:
    import cv2

    rgb = np.zeros((32, 32, 3), np.uint8) + np.array([200, 100, 0], np.uint8)
    data = cv2.imencode(suffix, rgb[:, :, ::-1])[1].tobytes()
    message = CompressedImage(format=suffix[1:], data=data)
    assert np.abs(m.compressed_to_rgb(message).astype(int) - rgb).max() <= error


@pytest.mark.parametrize("data", [b"", b"not a picture"])
def test_bad_compressed_pictures(data: bytes) -> None:
    with pytest.raises(m.MessageError, match="image/compressed.data"):
        m.compressed_to_rgb(CompressedImage(format="jpeg", data=data))


def joints(**changes: object) -> JointState:
    message = JointState(name=["c", "a", "b"], position=[3.0, 1.0, 2.0])
    message.velocity = [30.0, 10.0, 20.0]
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def test_joint_states_are_read_by_name() -> None:
    assert m.joint_state_to_array(joints(), ("a", "b"), 4).tolist() == [1, 2, 10, 20]
    assert m.joint_state_to_array(joints(), ("b", "c"), 2).tolist() == [2, 3]
    assert m.joint_state_to_array(joints(), (), 3).tolist() == [3, 1, 2]


def test_joint_state_round_trip() -> None:
    values = np.array([1, 2, 3, 4], np.float32)
    message = m.array_to_joint_state(values, ("x", "y"), STAMP)
    assert m.joint_state_to_array(message, ("x", "y"), 4).tolist() == values.tolist()


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (joints(name=["c", "a", "z"]), "proprio.name: 'b' is missing"),
        (joints(position=[3.0, math.nan, 2.0]), "proprio.position: nan at joint 'a'"),
        (joints(velocity=[1.0, 1.0, math.inf]), "proprio.velocity: inf at joint 'b'"),
        (joints(velocity=[]), "proprio.velocity: 0 values; 3 expected"),
        (joints(position=[1.0]), "proprio.position: 1 values; 3 expected"),
    ],
)
def test_bad_joint_states_say_why(message: JointState, error: str) -> None:
    with pytest.raises(m.MessageError, match=error):
        m.joint_state_to_array(message, ("a", "b"), 4)


def test_joint_count_must_fit_the_model() -> None:
    with pytest.raises(m.MessageError, match="3 joints; the model expects 4 numbers"):
        m.joint_state_to_array(joints(), (), 4)


@pytest.mark.parametrize(
    ("kind", "names"),
    [("float64_multi_array", ()), ("float64_multi_array", ("x", "y")),
     ("twist_stamped", ("linear.x", "angular.z")), ("joint_trajectory", ("j1", "j2"))],
)  # fmt: skip
def test_commands_round_trip(kind: str, names: tuple[str, ...]) -> None:
    form = m.CommandFormat(kind, names, 2, 0.1)
    message = form.build(np.array([0.25, -1.5]), STAMP)
    assert isinstance(message, m.COMMAND_TYPES[kind])
    assert form.read(message).tolist() == [0.25, -1.5]


def test_twist_puts_each_number_where_its_name_says() -> None:
    form = m.CommandFormat("twist_stamped", ("linear.x", "angular.z"), 2, 0.1)
    twist = form.build(np.array([0.25, -1.5]), STAMP).twist
    assert (twist.linear.x, twist.linear.y, twist.angular.z) == (0.25, 0.0, -1.5)


def test_joint_trajectory_is_due_one_period_later() -> None:
    message = m.CommandFormat("joint_trajectory", ("j",), 1, 1.25).build(np.zeros(1), STAMP)
    assert message.points[0].time_from_start.sec == 1
    assert message.points[0].time_from_start.nanosec == 250_000_000


@pytest.mark.parametrize("values", [[1.0], [1.0, math.nan]])
def test_bad_commands_are_refused(values: list[float]) -> None:
    form = m.CommandFormat("float64_multi_array", (), 2, 0.1)
    with pytest.raises(m.MessageError, match="command: "):
        form.read(form.type(data=values))


@pytest.mark.parametrize(
    ("kind", "names", "error"),
    [("magic", (), "command_type: 'magic' unknown"),
     ("twist_stamped", (), "command_names: 0 names; 2 expected"),
     ("twist_stamped", ("linear.x", "yaw"), "command_names: .* linear.x, linear.y"),
     ("joint_trajectory", ("a",), "command_names: 1 names; 2 expected")],
)  # fmt: skip
def test_bad_command_formats_are_named(kind: str, names: tuple[str, ...], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        m.CommandFormat(kind, names, 2, 0.1)


def trajectory() -> Trajectory:
    rng = np.random.default_rng(1)
    return Trajectory(
        images=np.stack([picture(), picture()[::-1]]),
        image_steps=np.array([0, 4]),
        actions=rng.normal(size=(4, 2)).astype(np.float32),
        proprio=rng.normal(size=(5, 3)).astype(np.float32),
        stamps=np.arange(5) * 0.1,
        state=rng.normal(size=(5, 7)),
        meta={"task": "pusht", "source": "rollout", "policy": "p", "seed": 3},
    )


def test_trajectory_round_trip_is_exact() -> None:
    before = trajectory()
    message = m.trajectory_to_message(before, STAMP)
    assert isinstance(message.actions, array.array)
    after = m.message_to_trajectory(message)
    for name in ("images", "image_steps", "actions", "proprio", "stamps", "state"):
        assert np.array_equal(getattr(before, name), getattr(after, name)), name
    assert after.meta == before.meta


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("actions", array.array("f", [1.0]), "actions: 1 values; a multiple of 2"),
        ("images", [], "images: none"),
        ("image_steps", array.array("q", [0, 9]), "image_steps"),
        ("stamps", array.array("d", [0, 0, 0, 0, 0]), "stamps: step 1"),
    ],
)
def test_bad_trajectories_say_why(field: str, value: object, error: str) -> None:
    message = m.trajectory_to_message(trajectory(), STAMP)
    setattr(message, field, value)
    with pytest.raises(m.MessageError, match=error):
        m.message_to_trajectory(message)


def test_stamps() -> None:
    assert m.stamp_seconds(STAMP) == 12.5
    assert m.to_stamp(12.5) == STAMP
    assert m.to_stamp(1.9999999999) == Time(sec=2, nanosec=0)
