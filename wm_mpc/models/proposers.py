"""Learned proposals: networks that guess a plan from start and goal latents in one pass.

They are seeds of the multi-start batch, next to the shifted previous plan: a bad guess costs one
start, a good one saves most of the iterations.

- ``InitNetwork`` guesses all actions at once, as the initialisation network of arXiv 2512.09929.
- ``InverseDynamics`` guesses the next action for the time that is left and lets the world model
  carry on, a goal-conditioned inverse dynamics model.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from wm_mpc.core.errors import CheckpointError
from wm_mpc.core.files import write_atomically
from wm_mpc.models.protocol import Dynamics

PROPOSALS_FILE = "proposals.safetensors"
Augmentation = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]


class PairEncoder(nn.Module):
    """Features of a pair of latents, ``(B, *L), (B, *L) -> (B, width)``.

    Token latents on a square grid go through two convolutions, compact ones through one layer.

    Args:
        latent_shape: ``(D,)`` or ``(N, D)`` with square ``N``.
        width: features.
        channels: channels of the convolutions.
    """

    def __init__(self, latent_shape: tuple[int, ...], width: int, channels: int = 128) -> None:
        super().__init__()
        self.grid = round(latent_shape[0] ** 0.5) if len(latent_shape) == 2 else 0
        if self.grid and self.grid**2 != latent_shape[0]:
            raise ValueError(f"latent_shape: {latent_shape[0]} tokens are no square grid")
        dim = 2 * latent_shape[-1]
        if self.grid:
            self.net = nn.Sequential(
                nn.Conv2d(dim, channels, 3, padding=1),
                nn.SiLU(),
                nn.Conv2d(channels, channels, 3, 2, 1),
                nn.SiLU(),
                nn.AdaptiveAvgPool2d(2),
                nn.Flatten(),
                nn.Linear(4 * channels, width),
            )
        else:
            self.net = nn.Linear(dim, width)

    def forward(self, latent: Tensor, goal: Tensor) -> Tensor:
        """Encode the pair."""
        pair = torch.cat([latent, goal], -1)
        if self.grid:
            pair = pair.transpose(1, 2).unflatten(-1, (self.grid, self.grid))
        return self.net(pair)


class Proposer(nn.Module):
    """Base of the two networks.

    Args:
        latent_shape: ``L``.
        action_width: ``A``.
        horizon: ``T`` of the plans it was trained for.
        width: hidden units.
        outputs: numbers the head returns.
        extra: further inputs beside the pair.
    """

    def __init__(
        self,
        latent_shape: tuple[int, ...],
        action_width: int,
        horizon: int,
        width: int,
        outputs: int,
        extra: int = 0,
    ) -> None:
        super().__init__()
        self.action_width, self.horizon, self.width = action_width, horizon, width
        self.pair = PairEncoder(latent_shape, width)
        self.head = nn.Sequential(
            nn.LayerNorm(width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.LayerNorm(width),
            nn.SiLU(),
            nn.Linear(width, outputs),
        )
        self.extra = nn.Linear(extra, width, bias=False) if extra else None

    def propose(self, model: Dynamics, latent: Tensor, goal: Tensor) -> Tensor:
        """Return plans ``(P, T, A)``, the likeliest first; latent and goal are ``L``."""
        raise NotImplementedError

    def loss(self, latents: Tensor, actions: Tensor, generator: torch.Generator) -> Tensor:
        """Regression loss on recorded windows ``(B, T + 1, *L)``, ``(B, T, A)``."""
        raise NotImplementedError


class InitNetwork(Proposer):
    """All ``T`` actions in one pass, ``(B, *L), (B, *L) -> (B, T, A)``."""

    def __init__(
        self, latent_shape: tuple[int, ...], action_width: int, horizon: int, width: int = 256
    ) -> None:
        super().__init__(latent_shape, action_width, horizon, width, horizon * action_width)

    def forward(self, latent: Tensor, goal: Tensor) -> Tensor:
        """Guess the plans."""
        actions = self.head(self.pair(latent, goal))
        return actions.unflatten(-1, (self.horizon, self.action_width))

    def propose(self, model: Dynamics, latent: Tensor, goal: Tensor) -> Tensor:
        """Return one plan ``(1, T, A)``; the model is not asked."""
        with torch.no_grad():
            return self(latent[None], goal[None])

    def loss(self, latents: Tensor, actions: Tensor, generator: torch.Generator) -> Tensor:
        """Squared error of the plan from a window's first to its last latent."""
        return (self(latents[:, 0], latents[:, -1]) - actions).square().mean()


class InverseDynamics(Proposer):
    """The next action for a goal some steps away, ``(B, *L), (B, *L), (B,) -> (B, A)``."""

    def __init__(
        self, latent_shape: tuple[int, ...], action_width: int, horizon: int, width: int = 256
    ) -> None:
        super().__init__(latent_shape, action_width, horizon, width, action_width, extra=1)

    def forward(self, latent: Tensor, goal: Tensor, left: Tensor) -> Tensor:
        """Guess the action; ``left`` are the model steps to the goal, 1 .. T."""
        assert self.extra is not None
        share = (left.to(latent) / self.horizon)[:, None]
        return self.head(self.pair(latent, goal) + self.extra(share))

    def propose(self, model: Dynamics, latent: Tensor, goal: Tensor) -> Tensor:
        """Return plans ``(T, T, A)`` that arrive after T, T - 1, ... 1 model steps.

        The model predicts each next latent. When the goal is reached is not known in closed loop,
        and the planner takes what it likes best. After its arrival a plan keeps one step to go.
        """
        left = torch.arange(self.horizon, 0, -1, device=latent.device)
        z, goals = (x.expand(self.horizon, *x.shape) for x in (latent, goal))
        actions = []
        with torch.no_grad():
            for step in range(self.horizon):
                actions.append(self(z, goals, (left - step).clamp(min=1)))
                z = model.step(z, actions[-1])
        return torch.stack(actions, 1)

    def loss(self, latents: Tensor, actions: Tensor, generator: torch.Generator) -> Tensor:
        """Squared error of one action per window, towards a random later latent of it."""
        rows = torch.arange(len(latents), device=latents.device)
        steps = actions.shape[1]
        draws = torch.rand(2, len(rows), generator=generator, device=generator.device)
        start = (draws[0] * steps).long().to(rows.device)
        left = 1 + (draws[1].to(rows.device) * (steps - start)).long()
        guess = self(latents[rows, start], latents[rows, start + left], left)
        return (guess - actions[rows, start]).square().mean()


PROPOSERS: dict[str, type[InitNetwork] | type[InverseDynamics]] = {
    "init": InitNetwork,
    "inverse": InverseDynamics,
}


def save_proposer(network: Proposer, folder: Path, latents: str) -> Path:
    """Write ``proposals.safetensors`` beside the world model it belongs to.

    Args:
        network: trained proposer.
        folder: of the world model.
        latents: ``perception_hash`` of the model: proposals fit every model that sees alike.
    """
    kind = next(name for name, cls in PROPOSERS.items() if type(network) is cls)
    facts = {
        "kind": kind,
        "latents": latents,
        "horizon": str(network.horizon),
        "width": str(network.width),
    }
    path = Path(folder) / PROPOSALS_FILE
    state = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    write_atomically(path, save(state, facts))
    return path


def load_proposer(
    path: Path, latent_shape: tuple[int, ...], action_width: int, latents: str
) -> Proposer:
    """Read a proposer and check that it was trained on these latents.

    Args:
        path: file.
        latent_shape: ``L``.
        action_width: ``A``.
        latents: ``perception_hash`` of the world model.

    Raises:
        CheckpointError: damaged, of other latents, or of another shape.
    """
    try:
        with safe_open(path, "pt") as file:
            facts = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}
        if facts["latents"] != latents:
            raise CheckpointError(f"{path}: made for latents {facts['latents']}, not {latents}")
        kind = PROPOSERS[facts["kind"]]
        network = kind(latent_shape, action_width, int(facts["horizon"]), int(facts["width"]))
        network.load_state_dict(state)
    except (SafetensorError, KeyError, OSError, RuntimeError) as error:
        message = str(error).splitlines()[0]
        raise CheckpointError(f"{path}: not a usable proposer: {message}") from error
    return network.eval()
