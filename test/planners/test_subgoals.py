"""Subgoals: ways through recorded latents, where they begin and end, and their file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from wm_mpc.core.errors import CheckpointError, UserError
from wm_mpc.planners.subgoals import SubgoalGraph, load_graph, save_graph
from wm_mpc.training.dynamics.subgoals import build_graph

SCALE = torch.tensor([1.0, 1.0, 0.0])


def walk(points: list[tuple[float, float]], spacing: float = 0.5) -> Tensor:
    """Latents (x, y, noise) along a line through points."""
    generator = torch.Generator().manual_seed(0)
    parts = []
    for (x0, y0), (x1, y1) in zip(points[:-1], points[1:], strict=True):
        count = max(1, round(float(np.hypot(x1 - x0, y1 - y0)) / spacing))
        share = torch.arange(count) / count
        parts.append(torch.stack([x0 + share * (x1 - x0), y0 + share * (y1 - y0)], 1))
    line = torch.cat([*parts, torch.tensor([points[-1]], dtype=torch.float32)])
    return torch.cat([line, torch.randn(len(line), 1, generator=generator)], 1)


def u_graph() -> SubgoalGraph:
    """A U recorded in two episodes that overlap at its bottom, both walked from left to right."""
    first, second = walk([(0, 4), (0, 0), (3, 0)]), walk([(2, 0), (4, 0), (4, 4)])
    latents = torch.cat([first, second])
    episodes = np.repeat([0, 1], [len(first), len(second)])
    return build_graph(latents, episodes, SCALE, visual_dim=2, radius=0.6)


def at(x: float, y: float, noise: float = 0.0) -> Tensor:
    return torch.tensor([x, y, noise])


def test_the_way_leads_round_and_arrives() -> None:
    """Following subgoals walks down, across the joint of two episodes, and up the other side."""
    graph = u_graph()
    goal, here = at(4, 4, 9.0), at(0.1, 3.9)
    ways = graph.ways_to(goal)
    passed, left = [here], []
    for _ in range(40):
        target, steps = ways.next_goal(here, lookahead=2.0)
        left.append(steps)
        here = here + 0.4 * (target - here)
        passed.append(here)
    assert (here - goal)[:2].norm() < 0.05
    lowest = min(float(p[1]) for p in passed)
    middle = [float(p[1]) for p in passed if 1.5 < p[0] < 2.5]
    assert lowest < 0.4 and middle and max(middle) < 1.0
    assert left[0] > 10 and left[-1] < 0.2
    assert all(later <= sooner + 0.3 for sooner, later in zip(left[:-1], left[1:], strict=True))


def test_the_subgoal_lies_as_far_ahead_as_asked() -> None:
    graph = u_graph()
    ways = graph.ways_to(at(4, 4))
    for lookahead in (1.0, 3.0, 6.0):
        target, _ = ways.next_goal(at(0, 4), lookahead)
        # A recorded step of the test goes half a unit.
        assert float(target[1]) == pytest.approx(4 - 0.5 * lookahead, abs=0.51)
    whole, _ = ways.next_goal(at(0, 4), 1000.0)
    assert torch.equal(whole, at(4, 4))


def test_a_goal_nearby_is_pursued_itself() -> None:
    graph = u_graph()
    goal = at(0.3, 2.0)
    target, steps = graph.ways_to(goal).next_goal(at(0.1, 2.3), 4.0)
    assert target is goal and steps < 0.6


def test_recorded_steps_are_not_taken_backwards() -> None:
    """Episodes 5 units apart joined by one recorded step: there is a way there and none back."""
    latents = torch.cat([walk([(0, 0), (0, 2)]), walk([(5, 2), (5, 0)])])
    graph = build_graph(latents, np.zeros(len(latents)), SCALE, visual_dim=2, radius=0.6)
    there = graph.ways_to(at(5, 0))
    back = graph.ways_to(at(0, 0))
    assert float(there.left[0]) == pytest.approx(len(latents) - 1, abs=0.1)
    assert torch.isinf(back.left[-1])
    # without a way the goal itself is all there is to pursue
    assert torch.equal(back.next_goal(at(5, 0), 4.0)[0], at(0, 0))


def test_a_goal_of_unknown_posture_is_found_by_its_picture() -> None:
    scale = torch.tensor([1.0, 1.0, 5.0])
    latents = walk([(0, 4), (0, 0), (4, 0)])
    latents[:, 2] = torch.linspace(0, 3, len(latents))
    graph = build_graph(latents, np.zeros(len(latents)), scale, visual_dim=2, radius=3.0)
    unknown = torch.tensor([4.0, 0.0, -7.0])
    by_picture = graph.ways_to(unknown, posture=False)
    assert int(by_picture.left.argmin()) == len(latents) - 1
    assert float(by_picture.left.min()) < 0.1
    assert float(graph.ways_to(unknown).left.min()) > 10


def test_a_graph_comes_back_from_its_file(tmp_path: Path) -> None:
    graph = u_graph()
    path = save_graph(graph, tmp_path, "abc")
    again = load_graph(path, (3,), "abc")
    one, other = graph.ways_to(at(4, 4)), again.ways_to(at(4, 4))
    torch.testing.assert_close(one.left, other.left, rtol=1e-5, atol=1e-5)
    for x, y in ((0, 4), (2, 0.1), (3.9, 2)):
        target, steps = one.next_goal(at(x, y), 3.0)
        expected, same = other.next_goal(at(x, y), 3.0)
        assert torch.equal(target, expected) and steps == pytest.approx(same, rel=1e-4)


def test_files_of_something_else_are_refused(tmp_path: Path) -> None:
    path = save_graph(u_graph(), tmp_path, "abc")
    with pytest.raises(CheckpointError, match="made for latents abc, not xyz"):
        load_graph(path, (3,), "xyz")
    with pytest.raises(CheckpointError, match="width 4 expected"):
        load_graph(path, (4,), "abc")
    with pytest.raises(UserError, match=r"shape \(9, 3\); compact ones expected"):
        load_graph(path, (9, 3), "abc")
    with pytest.raises(CheckpointError, match="not a usable graph"):
        load_graph(tmp_path / "none.safetensors", (3,), "abc")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="not a usable graph"):
        load_graph(path, (3,), "abc")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("nodes", float("nan"), "not finite"),
        ("edge_end", 10**6, "edges to no node"),
        ("edge_steps", -1.0, "of no length"),
        ("edge_start", 3, "edges that do not fit"),
    ],
)
def test_numbers_that_make_no_graph_are_refused(
    name: str, value: float, said: str, tmp_path: Path
) -> None:
    path = save_graph(u_graph(), tmp_path, "abc")
    state = load_file(path)
    state[name].view(-1)[0] = value
    save_file(state, path, {"latents": "abc", "radius": "0.6", "visual": "2"})
    with pytest.raises(CheckpointError, match=said):
        load_graph(path, (3,), "abc")
