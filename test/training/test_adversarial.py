"""Attacks stay within their radii, raise the loss, and are what the formula says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers import tiny_model
from torch import Tensor

from wm_mpc.core.errors import UserError
from wm_mpc.models.world_model import WorldModel
from wm_mpc.training.finetune.adversarial import Attack, AttackConfig, spread

VIT = {
    "predictor": "vit", "projector": "identity", "visual_dim": 16, "projector_args": {},
    "predictor_args": {"width": 16, "depth": 1, "heads": 2, "head_dim": 4, "action_embed": 3},
}  # fmt: skip


def model_of(kind: str) -> WorldModel:
    return tiny_model(None, **(VIT if kind == "vit" else {"predictor": kind} if kind else {}))


def batch(model: WorldModel, count: int = 12, steps: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    shape = model.latent_shape
    return draw(count, *shape), draw(count, steps, model.action_width), draw(count, steps, *shape)


def attacked(model: WorldModel, seed: int = 0, steps: int = 2, **settings: Any) -> Any:
    attack = Attack(model, AttackConfig(**settings))
    start, actions, targets = batch(model, steps=steps)
    generator = torch.Generator().manual_seed(seed)
    deltas = attack.perturb(start, actions, targets, F.mse_loss, generator)
    return attack, (start, actions, targets), deltas


@pytest.mark.parametrize("kind", ["mlp", "gru", "vit"])
@pytest.mark.parametrize("iterations", [1, 4])
def test_perturbations_stay_within_their_radii_and_raise_the_loss(
    kind: str, iterations: int
) -> None:
    model = model_of("" if kind == "mlp" else kind)
    settings = {"visual": 0.1, "proprio": 0.04, "action": 0.08, "iterations": iterations}
    attack, (start, actions, targets), (dz, da) = attacked(model, **settings)
    inputs = attack.inputs(actions)
    visual, own = dz.split([model.visual_dim, model.proprio_width], -1)
    for delta, factor, values in (
        (visual, 0.1, start[..., : model.visual_dim]),
        (own, 0.04, start[..., model.visual_dim :]),
        (da, 0.08, inputs),
    ):
        radius = factor * float(spread(values))
        assert radius > 0
        assert float(delta.abs().max()) <= radius * (1 + 1e-6)
        # a signed step of 1.25 radii puts most of them onto the border
        assert float((delta.abs() > 0.99 * radius).float().mean()) > 0.5
    with torch.no_grad():
        clean = F.mse_loss(attack.rollout(start, inputs), targets)
        worse = F.mse_loss(attack.rollout(start + dz, inputs + da), targets)
        random = [
            F.mse_loss(attack.rollout(start + flip(dz, i), inputs + flip(da, i)), targets)
            for i in range(5)
        ]
    assert worse > clean
    assert worse > max(random)


def test_several_steps_find_more_than_one() -> None:
    """Projected gradient descent: shorter steps, and a higher loss, from the same start."""
    assert AttackConfig().step == 1.25
    assert AttackConfig(iterations=5).step == 0.5
    assert AttackConfig(iterations=5, step_size=0.3).step == 0.3
    model = model_of("vit")
    wide = {"visual": 1.0, "proprio": 1.0, "action": 1.0}
    found = {}
    for iterations in (1, 10):
        attack, (start, actions, targets), (dz, da) = attacked(
            model, iterations=iterations, **wide
        )
        with torch.no_grad():
            predicted = attack.rollout(start + dz, attack.inputs(actions) + da)
            found[iterations] = float(F.mse_loss(predicted, targets))
    assert found[10] > found[1]


def flip(delta: Tensor, seed: int) -> Tensor:
    """The same sizes with random signs."""
    signs = torch.randint(0, 2, delta.shape, generator=torch.Generator().manual_seed(seed))
    return delta * (2 * signs - 1)


def test_one_step_equals_the_closed_form_on_a_linear_model() -> None:
    model = tiny_model(None)
    width = model.latent_shape[0]
    model.predictor.net = torch.nn.Linear(width + model.action_width, width, bias=False)
    weight = model.predictor.net.weight.detach()
    from_latent, from_action = torch.eye(width) + weight[:, :width], weight[:, width:]
    attack, (start, actions, targets), (dz, da) = attacked(model, steps=1, seed=5)
    latent_radius, action_radius = attack.radii(start, actions)
    generator = torch.Generator().manual_seed(5)
    dz0 = (2 * torch.rand(start.shape, generator=generator) - 1) * latent_radius
    da0 = (2 * torch.rand(actions.shape, generator=generator) - 1) * action_radius
    predicted = (start + dz0) @ from_latent.T + (actions + da0)[:, 0] @ from_action.T
    residual = predicted - targets[:, 0]
    for delta, first, slope, radius in (
        (dz, dz0, residual @ from_latent, latent_radius),
        (da[:, 0], da0[:, 0], residual @ from_action, action_radius),
    ):
        closed = torch.clamp(first + 1.25 * radius * slope.sign(), -radius, radius)
        torch.testing.assert_close(delta, closed)


def test_the_target_is_clean_and_nothing_clean_is_mixed_in() -> None:
    seen = []

    def loss(predicted: Tensor, targets: Tensor) -> Tensor:
        seen.append((predicted.detach(), targets))
        return F.mse_loss(predicted, targets)

    model = tiny_model(None)
    start, actions, targets = batch(model)
    attack = Attack(model, AttackConfig())
    value = attack.loss(start, actions, targets, loss, torch.Generator().manual_seed(0))
    assert len(seen) == 2 and all(found is targets for _, found in seen)
    clean = model.rollout(start, actions)
    assert bool(((seen[-1][0] - clean).flatten(1).abs().amax(1) > 0).all())
    value.backward()
    assert all(p.grad is not None for p in model.predictor.parameters())


def test_a_clean_share_stays_clean() -> None:
    _, _, (dz, da) = attacked(tiny_model(None), clean_share=0.25)
    assert not dz[:3].any() and not da[:3].any()
    assert dz[3:].all() and da[3:].all()


def test_embeddings_are_perturbed_per_patch_and_actions_on_request() -> None:
    model = model_of("vit")
    _, _, (_, per_patch) = attacked(model)
    assert per_patch.shape == (12, 2, 16, 3)
    assert float((per_patch[:, :, 0] - per_patch[:, :, 1]).abs().max()) > 0
    _, _, (_, whole) = attacked(model, action_space="normalised")
    assert whole.shape == (12, 2, model.action_width)
    with pytest.raises(UserError, match="action_space: embedding; predictor mlp"):
        Attack(tiny_model(None), AttackConfig(action_space="embedding"))


def test_adaptive_radii_follow_the_batch_and_fixed_ones_do_not() -> None:
    model = tiny_model(None)
    start, actions, _ = batch(model)
    adaptive, fixed = (Attack(model, AttackConfig(radii=k)) for k in ("adaptive", "fixed"))
    first = [
        torch.cat([a.radii(start, actions)[0], a.radii(start, actions)[1][None]])
        for a in (adaptive, fixed)
    ]
    torch.testing.assert_close(first[0], first[1])
    torch.testing.assert_close(adaptive.radii(3 * start, actions)[0], 3 * first[0][:-1])
    torch.testing.assert_close(fixed.radii(3 * start, 2 * actions)[0], first[1][:-1])
    torch.testing.assert_close(fixed.radii(start, 2 * actions)[1], first[1][-1])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"visual": -0.1}, "visual: -0.1; at least 0"),
        ({"action": float("nan")}, "action: nan; at least 0"),
        ({"iterations": 0}, "iterations: 0; at least 1"),
        ({"clean_share": 1.0}, r"clean_share: 1.0; in \[0, 1\)"),
        ({"radii": "some"}, "radii: 'some'; adaptive or fixed expected"),
    ],
)
def test_bad_settings(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        AttackConfig(**settings)
