"""Curricula grow from their first to their last value and stay there."""

from __future__ import annotations

import pytest

from wm_mpc.core.errors import UserError
from wm_mpc.training.finetune.curriculum import CurriculumConfig


def test_values_grow_and_reach_the_end_in_time() -> None:
    curriculum = CurriculumConfig(rollout=(1, 4), goal_distance=(2, 5), share=0.6)
    progress = [i / 100 for i in range(101)]
    for values, ends in (
        ([curriculum.rollout_at(p) for p in progress], (1, 4)),
        ([curriculum.distance_at(p) for p in progress], (2, 5)),
    ):
        assert values == sorted(values)
        assert set(values) == set(range(ends[0], ends[1] + 1))
        assert values[0] == ends[0] and values[59] < ends[1] and values[60] == ends[1]


def test_the_default_is_the_published_loss() -> None:
    assert {CurriculumConfig().rollout_at(p) for p in (0, 0.5, 1)} == {1}
    assert {CurriculumConfig().distance_at(p) for p in (0, 0.5, 1)} == {5}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rollout": (0, 2)}, "rollout: 0 2; 1 <= first <= last"),
        ({"goal_distance": (5, 4)}, "goal_distance: 5 4"),
        ({"share": 0.0}, "share: 0.0"),
    ],
)
def test_bad_settings(settings: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        CurriculumConfig(**settings)
