"""Malformed messages over every input of ``mpc_node``, over DDS: a small share of the fuzz run."""

from __future__ import annotations

from pathlib import Path

from helpers import tiny_checkpoint

from tools.fuzz_messages import MIDDLEWARE, PREFIX, Run


def test_malformed_messages_leave_the_node_alive_and_driving(
    ros_domain: int, tmp_path: Path
) -> None:
    size = {"proprio_dim": 2, "action_low": (-1.8, -1.8), "action_high": (1.8, 1.8)}
    model = tiny_checkpoint(tmp_path / "model", task="wall", **size)
    parameters = {
        "task": "wall", "joint_names": ["x", "y"], "compile": False, "budget_fraction": 4.0,
        "max_image_age_s": 0.5, "max_plan_age_s": 0.8,
    }  # fmt: skip
    run = Run(tmp_path, model, parameters, seed=1)
    try:
        found = run.fire(250, rate=100.0)
    finally:
        run.close()
    assert not found.wrong, found
    assert sum(found.sent.values()) == 250 and len(found.sent) == 12
    assert found.answered > 30


def test_what_counts_as_an_odd_line() -> None:
    assert PREFIX.match("[ERROR] [1795678827.397950390] [mpc_node]: image.data: 0 bytes")
    assert not PREFIX.match("Traceback (most recent call last):")
    text = ">>> [rcutils|x.c:1] y\nThis error\n<<<\nsequence size exceeds remaining buffer\nmine\n"
    assert MIDDLEWARE.sub("", text).split() == ["mine"]
