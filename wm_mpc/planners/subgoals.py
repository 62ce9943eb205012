r"""Subgoals for goals beyond a plan's horizon: the shortest way through recorded latents.

A graph whose nodes are latents of recorded frames. An edge leads from a frame to the next one of
its episode, which the robot did in one model step, and to the frames nearest to it, as if it could
be there; its length is a time, in model steps:

.. math:: d(z, z') = \sqrt{ |z - z'|_{visual}^2 / v^2 + |z - z'|_{proprio}^2 / p^2 }

with :math:`v`, :math:`p` what the parts move in a fast recorded step. Edges of the second kind
cost ``STITCH`` times their length. When a goal is set, its nearest nodes are joined to it and
Dijkstra's algorithm gives every node its way to the goal, once; in a tick the node is taken that
is quickest to go on from, and what lies ``lookahead`` model steps further along its way is what
the planner is given as its goal. Goals near enough are left alone.

Search on a graph over recorded states is SoRB's (arXiv 1906.05253), there with learned distances.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from wm_mpc.core.errors import CheckpointError, UserError, one_line
from wm_mpc.core.files import write_atomically

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

SUBGOALS_FILE = "subgoals.safetensors"
STITCH = 2.0
"""What being somewhere nearby costs, as a multiple of going there."""
ENTRIES = 24
"""Nodes that may be the first, or the last, of a way."""


class SubgoalGraph:
    """Recorded latents and the ways between them.

    Args:
        nodes: latents ``(N, D)``, compact layout.
        scale: what each channel counts per model step, ``(D,)``, >= 0: 0 does not count.
        visual_dim: visual channels, the first ones.
        edges: row ``i``, column ``j``: model steps from node ``i`` to node ``j``.
        radius: [model steps] nodes further apart are not joined, nor is a goal further away
            pursued directly.
    """

    def __init__(
        self,
        nodes: Tensor,
        scale: Tensor,
        visual_dim: int,
        edges: csr_matrix,
        radius: float = 1.0,
    ) -> None:
        self.nodes, self.scale, self.visual_dim = nodes, scale, visual_dim
        self.scaled = nodes * scale
        self.edges, self.radius = edges, radius
        # From the goal backwards: its row holds the ways to it.
        self.backward = edges.T.tocsr()

    def to(self, device: torch.device) -> SubgoalGraph:
        """The same graph with its latents on a device."""
        nodes, scale = self.nodes.to(device), self.scale.to(device)
        return SubgoalGraph(nodes, scale, self.visual_dim, self.edges, self.radius)

    def distances(self, latent: Tensor, channels: slice = slice(None)) -> Tensor:
        """Model steps, as the crow flies, from a latent ``(D,)`` to every node, ``(N,)``."""
        return (self.scaled - latent * self.scale)[:, channels].norm(dim=1)

    def ways_to(self, goal: Tensor, posture: bool = True) -> WaysToGoal:
        """Shortest ways from all nodes to a goal; takes some milliseconds.

        Args:
            goal: latent ``(D,)``.
            posture: whether its proprioception is known; else its picture alone counts.
        """
        # SciPy is imported where there are subgoals, and costs nothing where there are none.
        from scipy.sparse import csr_matrix
        from scipy.sparse.csgraph import dijkstra

        channels = slice(None) if posture else slice(0, self.visual_dim)
        apart = self.distances(goal, channels).cpu().numpy()
        near = np.argpartition(apart, min(ENTRIES, len(apart) - 1))[:ENTRIES]
        within = near[apart[near] <= self.radius]
        near = within if len(within) else near
        count = len(apart)
        to_goal = csr_matrix(
            (STITCH * apart[near] + 1e-6, (np.zeros(len(near), int), near)), (1, count)
        )
        indptr = np.concatenate([self.backward.indptr, [self.backward.nnz + len(near)]])
        whole = csr_matrix(
            (
                np.concatenate([self.backward.data, to_goal.data]),
                np.concatenate([self.backward.indices, to_goal.indices]),
                indptr,
            ),
            (count + 1, count + 1),
        )
        steps, before = dijkstra(whole, indices=count, return_predecessors=True)
        device = self.nodes.device
        left = torch.from_numpy(steps[:count]).float().to(device)
        return WaysToGoal(self, goal, channels, left, before[:count].astype(np.int64))


@dataclass
class WaysToGoal:
    """Ways from everywhere to one goal.

    Attributes:
        graph: the nodes.
        goal: latent ``(D,)``.
        channels: those of the goal that are known.
        left: model steps that are left at each node, ``(N,)``; infinite: no way leads on.
        following: the node after each; ``N``: the goal itself.
    """

    graph: SubgoalGraph
    goal: Tensor
    channels: slice
    left: Tensor
    following: np.ndarray

    def next_goal(self, latent: Tensor, lookahead: float) -> tuple[Tensor, float]:
        """Where to go from a latent ``(D,)``.

        Args:
            latent: where the robot is.
            lookahead: [model steps] how far along the way.

        Returns:
            The latent to pursue ``(D,)``, and the model steps to the goal by the way through it.
        """
        graph = self.graph
        straight = float(((latent - self.goal) * graph.scale)[self.channels].norm())
        apart = graph.distances(latent)
        whole = self.left + STITCH * apart
        # Ways begin nearby: further off a straight line may lead through what is in between.
        entries = apart.topk(min(ENTRIES, len(apart)), largest=False).indices
        within = entries[apart[entries] <= graph.radius]
        entries = within if len(within) else entries
        whole = whole[entries]
        row = int(whole.argmin())
        node, way = int(entries[row]), float(whole[row])
        if straight <= graph.radius or not np.isfinite(way):
            return self.goal, straight
        gone, count = float(apart[node]), len(graph.nodes)
        total = float(self.left[node]) + gone
        while gone < lookahead:
            after = int(self.following[node])
            if after == count:
                return self.goal, total
            gone += float(self.left[node] - self.left[after])
            node = after
        return graph.nodes[node], total


def save_graph(graph: SubgoalGraph, folder: Path, latents: str) -> Path:
    """Write ``subgoals.safetensors`` beside the world model it belongs to.

    Args:
        graph: the graph.
        folder: of the world model.
        latents: ``perception_hash`` of the model: a graph fits every model that sees alike.
    """
    edges = graph.edges
    state = {
        "nodes": graph.nodes.cpu().contiguous(),
        "scale": graph.scale.cpu().contiguous(),
        "edge_start": torch.from_numpy(edges.indptr.astype(np.int64)),
        "edge_end": torch.from_numpy(edges.indices.astype(np.int32)),
        "edge_steps": torch.from_numpy(edges.data.astype(np.float32)),
    }
    path = Path(folder) / SUBGOALS_FILE
    facts = {"latents": latents, "radius": repr(graph.radius), "visual": str(graph.visual_dim)}
    write_atomically(path, save(state, facts))
    return path


def load_graph(path: Path, latent_shape: tuple[int, ...], latents: str) -> SubgoalGraph:
    """Read a graph and check that it was made of these latents.

    Args:
        path: file.
        latent_shape: ``L`` of the world model.
        latents: its ``perception_hash``.

    Raises:
        CheckpointError: damaged, of other latents, or of another shape.
        UserError: the model's latents are patch tokens.
    """
    if len(latent_shape) != 1:
        raise UserError(f"subgoals: latents of shape {latent_shape}; compact ones expected")
    try:
        with safe_open(path, "pt") as file:
            facts = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}
        if facts["latents"] != latents:
            raise CheckpointError(f"{path}: made for latents {facts['latents']}, not {latents}")
        radius, visual_dim = float(facts["radius"]), int(facts["visual"])
        nodes, scale = state["nodes"], state["scale"]
        start, end = state["edge_start"].numpy(), state["edge_end"].numpy()
        steps = state["edge_steps"].numpy()
    except (SafetensorError, KeyError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not a usable graph: {one_line(error)}") from error
    problem = _problem(nodes, scale, start, end, steps, latent_shape[0], radius)
    if problem:
        raise CheckpointError(f"{path}: not a usable graph: {problem}")
    try:
        from scipy.sparse import csr_matrix
        from scipy.sparse.csgraph import dijkstra  # noqa: F401  (loaded before the first tick)
    except ImportError as error:
        raise UserError(
            f"subgoals: {error}; apt install python3-scipy, or pip install 'wm-mpc[subgoals]'"
        ) from None
    edges = csr_matrix((steps.astype(np.float64), end, start), (len(nodes), len(nodes)))
    return SubgoalGraph(nodes.float(), scale.float(), visual_dim, edges, radius)


def _problem(
    nodes: Tensor,
    scale: Tensor,
    start: np.ndarray,
    end: np.ndarray,
    steps: np.ndarray,
    width: int,
    radius: float,
) -> str:
    """What is wrong with a graph that was read, or nothing."""
    count = len(nodes)
    if nodes.ndim != 2 or nodes.shape[1] != width or tuple(scale.shape) != (width,):
        return f"nodes {tuple(nodes.shape)}, scale {tuple(scale.shape)}; width {width} expected"
    if not (count and bool(torch.isfinite(nodes).all()) and bool((scale >= 0).all())):
        return "nodes or scale that are not finite, or none"
    if not radius > 0:
        return f"radius {radius}; more than 0 expected"
    ordered = len(start) == count + 1 and start[0] == 0 and start[-1] == len(end) == len(steps)
    if not (ordered and (np.diff(start) >= 0).all()):
        return "edges that do not fit the nodes"
    if len(end) and not (0 <= end.min() and end.max() < count and (steps > 0).all()):
        return "edges to no node, or of no length"
    return ""


__all__ = ["SUBGOALS_FILE", "SubgoalGraph", "WaysToGoal", "load_graph", "save_graph"]
