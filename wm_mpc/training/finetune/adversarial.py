r"""Adversarial World Modeling: train the predictor on the worst transition near each expert one.

Gradient planners search for actions that please the model, which is what an adversarial attack
does. Training on attacked transitions makes the model smooth where planners go (arXiv 2512.09929):

.. math:: \min_\theta \mathbb{E} \max_{|\delta_z| \le \epsilon_z, |\delta_a| \le \epsilon_a}
          \| f_\theta(z_t + \delta_z, a_t + \delta_a) - z_{t+1} \|^2

The inner maximum is taken by one signed gradient step from a random start (Wong et al. 2020,
arXiv 2001.03994):

.. math:: \delta_0 \sim U(-\epsilon, \epsilon), \quad
          \delta = \mathrm{clip}(\delta_0 + \alpha \epsilon\, \mathrm{sign}\nabla_\delta L,
          -\epsilon, \epsilon), \quad \alpha = 1.25

or, as an ablation, by several such steps (projected gradient descent, Madry et al. 2018, arXiv
1706.06083). The target is the clean next latent itself, also for predictors that add their output
to the latent they were given; clean transitions are not mixed in unless asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Lt
from torch import Tensor

from wm_mpc.core.errors import UserError
from wm_mpc.core.fields import Checked, NonNegativeFloat, PositiveInt
from wm_mpc.models.predictors import VitPredictor
from wm_mpc.models.world_model import WorldModel

Loss = Callable[[Tensor, Tensor], Tensor]
"""Scalar loss of predictions and targets, both ``(B, U, *L)``."""

FGSM_STEP = 1.25
PGD_TRAVEL = 2.5


@dataclass(frozen=True)
class AttackConfig(Checked):
    """Size and kind of the perturbations.

    Attributes:
        visual: radius of the visual channels of the source latent, in units of their spread.
        proprio: radius of its proprioception channels, in units of their spread.
        action: radius of the action, in units of the spread of what is perturbed.
        radii: ``adaptive`` measures the spread in every batch, ``fixed`` in the first one only.
        action_space: what of the action is perturbed: ``embedding`` (published; per patch; needs a
            predictor that embeds actions), ``normalised`` (the model action itself), or ``auto``:
            the embedding where there is one.
        iterations: signed gradient steps; 1 is FGSM, more are PGD.
        step_size: length of a step in radii; 0: 1.25 for FGSM, 2.5 / iterations for PGD.
        clean_share: share of each batch left unperturbed, [0, 1); the published method has 0.
    """

    visual: NonNegativeFloat = 0.05
    proprio: NonNegativeFloat = 0.02
    action: NonNegativeFloat = 0.02
    radii: Literal["adaptive", "fixed"] = "adaptive"
    action_space: Literal["auto", "embedding", "normalised"] = "auto"
    iterations: PositiveInt = 1
    step_size: NonNegativeFloat = 0.0
    clean_share: Annotated[float, Ge(0), Lt(1)] = 0.0

    @property
    def step(self) -> float:
        """Length of one step in radii."""
        usual = FGSM_STEP if self.iterations == 1 else PGD_TRAVEL / self.iterations
        return self.step_size or usual


def spread(values: Tensor) -> Tensor:
    """Mean over the samples of each sample's standard deviation: ``(B, ...) -> ()``.

    Where a sample has a single value, the standard deviation over the batch takes its place.

    >>> float(spread(torch.tensor([[1.0, -1.0], [2.0, -2.0]])))
    2.12...
    """
    flat = values.detach().flatten(1)
    if flat.shape[1] > 1:
        return flat.std(1).mean()
    return flat.std() if len(flat) > 1 else flat.new_zeros(())


class Attack:
    """Finds perturbations of a model's inputs that raise its loss.

    Args:
        model: world model; its predictor is attacked, nothing of it is changed.
        config: size and kind.

    Attributes:
        fixed: spreads ``(visual, proprio, action)`` of the first batch, shape ``(3,)``, or None;
            hand it to another attack to continue this one.

    Raises:
        UserError: ``embedding`` is asked of a predictor that does not embed actions.
    """

    def __init__(self, model: WorldModel, config: AttackConfig) -> None:
        embeds = isinstance(model.predictor, VitPredictor)
        if config.action_space == "embedding" and not embeds:
            name = model.config.predictor
            raise UserError(
                f"action_space: embedding; predictor {name} embeds no actions, normalised expected"
            )
        self.model, self.config = model, config
        self.embedded = embeds and config.action_space != "normalised"
        self.fixed: Tensor | None = None

    def inputs(self, actions: Tensor) -> Tensor:
        """What is perturbed of model actions ``(B, U, A)``.

        Returns:
            The actions themselves, or their embedding for every patch, ``(B, U, N, E)``.
        """
        if not self.embedded:
            return actions
        predictor = self.model.predictor
        embedded = predictor.action_embed(actions)
        return embedded[:, :, None].expand(-1, -1, predictor.tokens, -1)

    def rollout(self, start: Tensor, inputs: Tensor) -> Tensor:
        """Open-loop predictions ``(B, U, *L)`` from ``(B, *L)`` and what ``inputs`` returned."""
        if not self.embedded:
            return self.model.rollout(start, inputs)
        steps, latent = [], start
        for t in range(inputs.shape[1]):
            latent = self.model.predictor.predict_from_embedded(
                latent[:, None], inputs[:, t : t + 1]
            )[:, 0]
            steps.append(latent)
        return torch.stack(steps, 1)

    def radii(self, start: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Radii of the latent's channels ``(D,)`` and of the inputs ``()``."""
        spreads = self.fixed
        if spreads is None or self.config.radii == "adaptive":
            visual, proprio = start.split([self.model.visual_dim, self.model.proprio_width], -1)
            own = spread(proprio) if proprio.shape[-1] else start.new_zeros(())
            spreads = torch.stack([spread(visual), own, spread(inputs)])
            if self.fixed is None:
                self.fixed = spreads
        config = self.config
        visual_radius, proprio_radius = config.visual * spreads[0], config.proprio * spreads[1]
        latent = torch.cat(
            [
                visual_radius.expand(self.model.visual_dim),
                proprio_radius.expand(self.model.proprio_width),
            ]
        )
        return latent, config.action * spreads[2]

    def perturb(
        self,
        start: Tensor,
        actions: Tensor,
        targets: Tensor,
        loss: Loss,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Perturbations that raise the loss.

        Args:
            start: source latents ``(B, *L)``.
            actions: model actions ``(B, U, A)``.
            targets: clean latents to predict, ``(B, U, *L)``.
            loss: of predictions and targets.
            generator: of the random start.

        Returns:
            Perturbations of ``start`` and of ``inputs(actions)``, detached, within the radii.
        """
        with torch.no_grad():
            inputs = self.inputs(actions).contiguous()
            latent_radius, input_radius = self.radii(start, inputs)
        deltas = [
            (2 * torch.rand(value.shape, generator=generator, device=value.device) - 1) * radius
            for value, radius in ((start, latent_radius), (inputs, input_radius))
        ]
        for _ in range(self.config.iterations):
            for delta in deltas:
                delta.requires_grad_(True)
            predicted = self.rollout(start + deltas[0], inputs + deltas[1])
            slopes = torch.autograd.grad(loss(predicted, targets), deltas)
            with torch.no_grad():
                deltas = [
                    torch.clamp(delta + self.config.step * radius * slope.sign(), -radius, radius)
                    for delta, slope, radius in zip(
                        deltas, slopes, (latent_radius, input_radius), strict=True
                    )
                ]
        if self.config.clean_share:
            kept = round(self.config.clean_share * len(start))
            for delta in deltas:
                delta[:kept] = 0
        return deltas[0], deltas[1]

    def loss(
        self,
        start: Tensor,
        actions: Tensor,
        targets: Tensor,
        loss: Loss,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Loss of the attacked batch, to be minimised; arguments as for ``perturb``."""
        latent_delta, input_delta = self.perturb(start, actions, targets, loss, generator)
        predicted = self.rollout(start + latent_delta, self.inputs(actions) + input_delta)
        return loss(predicted, targets)


__all__ = ["Attack", "AttackConfig", "spread"]
