"""Trajectory messages of robots that report nothing of themselves; needs no ROS."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from wm_mpc.core.errors import MessageError
from wm_mpc.data.decoding import message_to_trajectory


def message(**changes: Any) -> SimpleNamespace:
    """Two control steps, two actions per step, no proprioception, a picture at both ends."""
    picture = SimpleNamespace(
        encoding="rgb8", height=2, width=3, step=9, is_bigendian=False, data=bytes(18)
    )
    usual = {
        "images": [picture, picture], "image_steps": [0, 2], "stamps": [0.0, 0.1, 0.2],
        "actions": [1.0, 2.0, 3.0, 4.0], "action_dim": 2, "proprio": [], "proprio_dim": 0,
        "state": [], "state_dim": 0, "task": "robot", "source": "robot", "policy": "", "seed": 0,
    }  # fmt: skip
    return SimpleNamespace(**(usual | changes))


def test_a_robot_without_proprioception() -> None:
    found = message_to_trajectory(message())
    assert found.proprio.shape == (3, 0) and found.proprio.dtype == np.float32
    np.testing.assert_array_equal(found.actions, [[1, 2], [3, 4]])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"proprio": [1.0]}, "proprio: 1 values; a multiple of 0"),
        ({"actions": [], "action_dim": 0}, "actions: 0 values; a multiple of 0"),
        ({"proprio": [1.0, 2.0], "proprio_dim": 1}, "proprio: 2 rows; 3 expected"),
    ],
)
def test_widths_that_do_not_fit(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(MessageError, match=words):
        message_to_trajectory(message(**changes))
