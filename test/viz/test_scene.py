"""Goal and plan are drawn where they are."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from replayed import replay

from sim_bridge.tasks import make_task
from wm_mpc.viz.scene import GOAL, PLAN, Scene

SIZE = 160


def scene(name: str = "pusht") -> Scene:
    return Scene(make_task(name), SIZE)


def coloured(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Places (x, y) of pixels that are nearly of a colour, fractions of the side."""
    near = np.abs(picture.astype(int) - colour).max(-1) < 12
    rows, columns = np.nonzero(near)
    return (np.stack([columns, rows], -1) + 0.5) / SIZE


@pytest.mark.parametrize("name", ["pusht", "wall"])
def test_the_background_shows_nothing_that_moves(name: str) -> None:
    stage = scene(name)
    for seed in range(3):
        state = stage.task.draw_state(np.random.default_rng(seed))
        x, y = (stage.task.in_picture(state) * SIZE).astype(int)
        assert np.abs(stage.background[y, x].astype(int) - 255).max() < 40
        around = [cv2.pointPolygonTest(c, (float(x), float(y)), False) for c in
                  stage.outlines(state)]  # fmt: skip
        assert max(around) >= 0


def test_a_plan_played_out_ends_where_the_simulator_goes() -> None:
    recording, stage = replay(3), scene()
    foreseen = stage.foresee(recording.moments[0].state, recording.plan_at(0).actions)
    assert np.array_equal(foreseen.end, recording.goal_state)
    seen = [stage.task.in_picture(moment.state) for moment in recording.moments]
    assert np.allclose(foreseen.path[: len(seen)], seen)


def test_only_what_is_asked_for_is_drawn() -> None:
    recording, stage = replay(3), scene()
    start = recording.moments[0].state
    plain = stage.picture(start)
    assert np.array_equal(plain, stage.task.render_state(start, SIZE))
    assert not len(coloured(plain, GOAL)) and not len(coloured(plain, PLAN))

    aimed = stage.picture(start, recording.goal_state)
    outline = np.concatenate(stage.outlines(recording.goal_state)) / SIZE
    green = coloured(aimed, GOAL)
    gaps = np.linalg.norm(green[:, None] - outline, axis=-1).min(1)
    assert len(green) > 50 and gaps.max() < 3 / SIZE

    foreseen = stage.foresee(start, recording.plan_at(0).actions)
    planned = stage.picture(start, None, foreseen)
    orange = coloured(planned, PLAN)
    for place in foreseen.path[1:]:
        assert np.linalg.norm(orange - place, axis=1).min() < 2 / SIZE
