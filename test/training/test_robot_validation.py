"""What a robot's recordings say of its model, in figures and in words."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import tiny_encoder
from test_robot_training import arm_store, settings

from wm_mpc.data.store.store import Store
from wm_mpc.evaluation.robot_validation import verdict
from wm_mpc.evaluation.validation import lines, validate
from wm_mpc.training.pipeline.pipeline import train_world_model


def facts(error: float, rank: float, reached: float) -> dict:
    return {
        "open_loop": {"visual_rmse": [0.1, error], "still_visual_rmse": [0.5, 1.0]},
        "rank_correlation": [{"visual": rank}],
        "reached_in_imagination": reached,
    }


def test_the_verdict_names_what_is_wrong_and_what_to_record() -> None:
    assert verdict(facts(0.1, 0.9, 1.0)) == "fit to plan with"
    for bad, said in (
        (facts(0.8, 0.9, 1.0), "off by 80% of the way after 2 model steps"),
        (facts(0.1, 0.3, 1.0), "postures that are near (0.30; at least 0.5"),
        (facts(0.1, 0.9, 0.5), "arrive in 50% of imagined ways"),
    ):
        words = verdict(bad)
        assert words.startswith("not fit to plan with: ") and said in words
    all_of_it = verdict(facts(0.8, 0.3, 0.5))
    assert all(words in all_of_it for words in ("off by 80%", "0.30", "arrive in 50%"))


@pytest.mark.parametrize("proprio_dim", [4, 0])
def test_a_robot_is_judged_by_its_own_reports(proprio_dim: int, tmp_path: Path) -> None:
    arm_store(tmp_path / "store", proprio_dim)
    tiny_encoder(tmp_path / "encoder")
    model = train_world_model(settings(tmp_path)).eval()
    store = Store.open(tmp_path / "store")
    found = validate(model, store, held_out=0.5, frames=80, windows=20, steps=3)
    if not proprio_dim:
        assert "verdict" not in found and found["rank_correlation"] == []
        return
    assert [row["quantity"] for row in found["rank_correlation"]] == ["posture"] * 4
    assert found["rank_correlation"][0]["pairs"] > 1000
    assert 0 <= found["reached_in_imagination"] <= 1
    told = "\n".join(lines({"task": "arm", "model": "m", "closed_loop": None} | found))
    assert "verdict: " in told and "rank correlation with time" in told
