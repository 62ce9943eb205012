"""Every task knows where its pictures show the robot."""

from __future__ import annotations

import numpy as np
import pytest

from sim_bridge.tasks import make_task

SIZE = 64


@pytest.mark.parametrize("name", ["pusht", "wall", "point_maze"])
def test_the_picture_changes_where_the_robot_was_and_is(name: str) -> None:
    task = make_task(name, image_size=SIZE)
    rng = np.random.default_rng(3)
    for _ in range(5):
        here, there = task.draw_state(rng), task.draw_state(rng)
        if name == "pusht":
            there[2:5] = here[2:5]
        places = np.array([task.in_picture(here), task.in_picture(there)])
        assert ((places > 0) & (places < 1)).all()
        if np.linalg.norm(places[0] - places[1]) < 0.25:
            continue
        change = np.abs(task.render_state(here) - task.render_state(there).astype(int)).sum(-1)
        rows, columns = np.nonzero(change > 60)
        pixels = (np.stack([columns, rows], -1) + 0.5) / SIZE
        nearest = np.linalg.norm(pixels[:, None] - places, axis=-1)
        for k in range(2):
            blob = pixels[nearest.argmin(1) == k]
            assert len(blob) and np.abs(blob.mean(0) - places[k]).max() < 1.5 / SIZE
