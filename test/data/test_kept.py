"""A model, a store, a token cache and a bag of an earlier version still mean what they meant."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from wm_mpc.data.bags import AlignConfig, ImportConfig, import_bags
from wm_mpc.data.store.store import Store, StoreWriter
from wm_mpc.latents.tokens import read_tokens, store_digest
from wm_mpc.models.decoder import Decoder
from wm_mpc.models.identity import fingerprint, latent_fingerprint, perception_hash
from wm_mpc.models.proposers import PROPOSALS_FILE, load_proposer
from wm_mpc.models.world_model import WorldModel
from wm_mpc.planners import PlanRequest, make_planner, planner_config
from wm_mpc.planners.objective import ObjectiveConfig, make_objective

KEPT = Path(__file__).with_name("kept")
CLOSE = {"rtol": 1e-4, "atol": 1e-5}
"""Other processors sum in another order."""


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    return json.loads((KEPT / "expected.json").read_text())


@pytest.fixture(scope="module")
def model() -> WorldModel:
    return WorldModel.load(KEPT / "model")


@pytest.fixture(scope="module")
def latents(model: WorldModel) -> torch.Tensor:
    frames = Store.open(KEPT / "store").frames()
    images = torch.from_numpy(frames.gather(np.arange(len(frames.image_step))))
    with torch.no_grad():
        return model.encode(images, torch.from_numpy(frames.proprio))


def test_every_digest_is_what_was_recorded(model: WorldModel, expected: dict[str, Any]) -> None:
    assert model.encoder is not None
    found = {
        "hash": model.hash, "perception": perception_hash(model),
        "latent_fingerprint": latent_fingerprint(model), "encoder": fingerprint(model.encoder),
        "store": store_digest(Store.open(KEPT / "store").frames()),
    }  # fmt: skip
    assert found == {name: expected[name] for name in found}


def test_the_model_gives_the_same_latents(latents: torch.Tensor, expected: dict[str, Any]) -> None:
    assert latents.shape == (32, 8)
    assert np.allclose(latents, expected["latents"], **CLOSE)


def test_the_model_plans_the_same(
    model: WorldModel, latents: torch.Tensor, expected: dict[str, Any]
) -> None:
    objective = make_objective(model, ObjectiveConfig(), 3)
    planner = make_planner("adam", model, objective, planner_config("adam", iterations=5))
    start = torch.zeros(3, model.action_width)
    plan = planner.plan(PlanRequest(latents[0], latents[8], warm_start=start, seed=1))
    assert plan.cost == pytest.approx(expected["cost"], rel=1e-3)
    assert np.allclose(plan.actions, expected["plan"], atol=1e-3)


def test_decoder_and_proposals_know_the_model(model: WorldModel, latents: torch.Tensor) -> None:
    assert Decoder.load(KEPT / "model", model).decode(latents[:2]).shape == (2, 16, 16, 3)
    proposer = load_proposer(
        KEPT / "model" / PROPOSALS_FILE, model.latent_shape, model.action_width,
        perception_hash(model),
    )  # fmt: skip
    assert torch.isfinite(proposer.propose(model, latents[0], latents[8])).all()


def test_the_token_cache_serves_its_store(model: WorldModel) -> None:
    assert model.encoder is not None
    tokens = read_tokens(model.encoder, Store.open(KEPT / "store").frames(), KEPT / "tokens")
    assert tokens.shape == (32, 16, 16) and tokens.dtype == np.float16


def test_the_store_is_read_and_added_to(tmp_path: Path) -> None:
    folder = shutil.copytree(KEPT / "store", tmp_path / "store")
    store = Store.open(folder)
    assert [len(trajectory) for trajectory in store] == [15, 15]
    with StoreWriter(folder, store.spec) as writer:
        writer.add(store[0])
    assert len(Store.open(folder)) == 3


def test_the_bag_imports_to_the_same_trajectory(tmp_path: Path, expected: dict[str, Any]) -> None:
    config = ImportConfig(AlignConfig(0.1))
    import_bags(config, [KEPT / "bag"], tmp_path / "out", progress=False)
    (found,) = Store.open(tmp_path / "out")
    recorded = Store.open(KEPT / "store")[1]
    assert np.array_equal(found.images, recorded.images)
    for name in ("actions", "proprio", "stamps"):
        assert np.array_equal(getattr(found, name).tolist(), expected[name]), name
    assert [int(picture.sum()) for picture in found.images] == expected["pixels"]
