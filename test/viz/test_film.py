"""Films play in real time and show what happened."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from replayed import PERIOD, replay

from wm_mpc.trials import film
from wm_mpc.trials.recording import Recording


@pytest.fixture(scope="module")
def episodes() -> tuple[Recording, ...]:
    return (replay(1, steps=4), replay(2), replay(3, steps=3))


def test_a_success_and_a_failure_are_shown(episodes: tuple[Recording, ...]) -> None:
    assert film.choose(episodes) == [1, 0]
    assert film.choose(episodes[:1]) == [0]
    assert film.choose(episodes[1:2]) == [0]


def test_the_still_shows_a_push() -> None:
    assert film.telling([40.0, 40.0, 35.0, 29.0, 3.0]) == 3
    assert film.telling([40.0] * 6) == 2
    assert film.telling([0.0]) == 0


def test_films_run_in_real_time(episodes: tuple[Recording, ...], tmp_path: Path) -> None:
    short = (episodes[0],)
    measured = SimpleNamespace(task="pusht", recordings=short, steps=50, period=PERIOD)
    (made,) = film.write(tmp_path, measured)
    assert (made.path, made.episode, made.success) == (tmp_path / film.NAME, 1, False)
    with Image.open(made.path) as picture:
        assert picture.format == "WEBP" and picture.n_frames == 5 == made.steps + 1
        lasts = []
        for k in range(picture.n_frames):
            picture.seek(k)
            picture.load()
            lasts.append(picture.info["duration"])
        assert lasts[:-1] == [100] * 4 and lasts[-1] > 1000
    with Image.open(tmp_path / film.STILL_NAME) as still:
        assert still.size == picture.size and len(np.unique(np.asarray(still))) > 20
