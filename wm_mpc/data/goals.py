"""Goals of a robot as files: a picture, and the posture it was taken at.

A folder of goals holds ``goal-NNN.png`` and, beside each, ``goal-NNN.json`` with joint names and
positions. They are snapped from a running robot or taken from a bag.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wm_mpc.core.errors import DataError, MessageError
from wm_mpc.core.files import write_atomically
from wm_mpc.core.opencv import cv2
from wm_mpc.data.bags.source import Bag
from wm_mpc.data.bags.topics import find_topic, header_ns, read_image
from wm_mpc.data.bags.typelib import Decoder
from wm_mpc.data.decoding import joint_state_to_array

NEAR_NS = 100_000_000
"""Farthest a joint state may lie from the picture it belongs to [ns]."""


@dataclass(frozen=True)
class RobotGoal:
    """A place to be.

    Attributes:
        image: uint8 ``(H, W, 3)`` RGB.
        names: joints.
        positions: their positions, float64 ``(J,)`` [rad, m]; empty: the picture alone.
        source: where it comes from, one line.
    """

    image: np.ndarray
    names: tuple[str, ...] = ()
    positions: tuple[float, ...] = ()
    source: str = ""


def save_goal(folder: Path, goal: RobotGoal) -> Path:
    """Add a goal to a folder; returns its picture's path."""
    folder.mkdir(parents=True, exist_ok=True)
    taken = [int(path.stem[5:]) for path in folder.glob("goal-*.png") if path.stem[5:].isdigit()]
    path = folder / f"goal-{max(taken, default=-1) + 1:03d}.png"
    ok, data = cv2.imencode(".png", goal.image[..., ::-1])
    if not ok:
        raise DataError(f"{path}: the picture cannot be written")
    about = {"names": goal.names, "positions": goal.positions, "source": goal.source}
    write_atomically(path.with_suffix(".json"), json.dumps(about, indent=2))
    write_atomically(path, data.tobytes())
    return path


def load_goals(folder: Path) -> list[RobotGoal]:
    """Goals of a folder in the order of their numbers.

    Raises:
        DataError: there are none, or one cannot be read.
    """
    found = []
    for path in sorted(folder.glob("goal-*.png")):
        picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if picture is None:
            raise DataError(f"{path}: no picture")
        beside = path.with_suffix(".json")
        try:
            about = json.loads(beside.read_text()) if beside.exists() else {}
            names = tuple(str(name) for name in about.get("names", ()))
            positions = tuple(float(value) for value in about.get("positions", ()))
        except (ValueError, TypeError, AttributeError, OSError) as error:
            raise DataError(f"{beside}: {error}") from None
        if len(names) != len(positions):
            raise DataError(f"{beside}: {len(positions)} positions; {len(names)}, one per name")
        found.append(RobotGoal(picture[..., ::-1].copy(), names, positions, str(path)))
    if not found:
        raise DataError(f"goals: {folder} holds none (goal-NNN.png)")
    return found


def goals_of_bag(
    path: Path,
    count: int,
    seed: int = 0,
    image: str = "image",
    proprio: str = "joint_states",
    joints: Sequence[str] = (),
) -> list[RobotGoal]:
    """Goals at random moments of a recording.

    Args:
        path: rosbag2 folder or file.
        count: how many; fewer where the recording has fewer pictures.
        seed: of the choice.
        image: camera topic, by full name or ending.
        proprio: joint state topic, likewise.
        joints: names in the order wanted; empty: as in the first message.

    Raises:
        DataError: a topic is missing, or no picture has a joint state near it.
    """
    bag = Bag(path)
    topics = bag.list_topics()
    seen, told = (
        find_topic(topics, name, part, True)
        for name, part in ((image, "image"), (proprio, "proprio"))
    )
    decoder = Decoder(bag.definitions)
    names, postures, pictures = tuple(joints), [], []
    for message in bag.messages():
        if message.topic not in (seen, told):
            continue
        decoded = decoder.decode(topics[message.topic], message.data)
        stamp = header_ns(decoded) or message.log_ns
        if message.topic == seen:
            pictures.append(stamp)
            continue
        names = names or tuple(decoded.name)
        try:
            postures.append((stamp, joint_state_to_array(decoded, names, len(names))))
        except MessageError:
            continue
    near = _nearest(pictures, [stamp for stamp, _ in postures])
    usable = [i for i, j in enumerate(near) if j >= 0]
    if not usable:
        raise DataError(f"bag {path}: no picture on {seen} has a joint state of {told} near it")
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(usable)[:count].tolist()
    order = {number: place for place, number in enumerate(chosen)}
    found: dict[int, RobotGoal] = {}
    number = -1
    for message in bag.messages():
        if message.topic != seen:
            continue
        number += 1
        if number in order:
            shown = read_image(decoder.decode(topics[seen], message.data), topics[seen])
            posture = tuple(float(v) for v in postures[near[number]][1])
            about = f"{bag.name}, picture {number}"
            found[order[number]] = RobotGoal(shown, names, posture, about)
    return [found[place] for place in sorted(found)]


def pictures_of_bag(
    path: Path, count: int, image: str = "image"
) -> list[tuple[float, np.ndarray]]:
    """Pictures of a recording, evenly spread over it.

    Args:
        path: rosbag2 folder or file.
        count: how many; fewer where the recording has fewer.
        image: camera topic, by full name or ending.

    Returns:
        Stamp [s] and uint8 ``(H, W, 3)`` RGB of each, in order.

    Raises:
        DataError: no usable bag, topic or picture.
    """
    bag = Bag(path)
    topics = bag.list_topics()
    seen = find_topic(topics, image, "image", True)
    total = sum(message.topic == seen for message in bag.messages())
    if not total:
        raise DataError(f"bag {path}: no picture on {seen}")
    wanted = set(np.linspace(0, total - 1, count).round().astype(int).tolist())
    decoder = Decoder(bag.definitions)
    found: list[tuple[float, np.ndarray]] = []
    number = -1
    for message in bag.messages():
        if message.topic != seen:
            continue
        number += 1
        if number in wanted:
            decoded = decoder.decode(topics[seen], message.data)
            stamp = (header_ns(decoded) or message.log_ns) / 1e9
            found.append((stamp, read_image(decoded, topics[seen])))
    return found


def _nearest(wanted: list[int], there: list[int]) -> list[int]:
    """Index of the nearest of ``there`` for each of ``wanted``; -1 beyond ``NEAR_NS``."""
    if not there:
        return [-1] * len(wanted)
    stamps = np.array(there)
    gaps = [int(np.abs(stamps - stamp).argmin()) for stamp in wanted]
    return [
        gap if abs(there[gap] - stamp) <= NEAR_NS else -1
        for gap, stamp in zip(gaps, wanted, strict=True)
    ]
