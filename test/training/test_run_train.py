"""``wm-mpc train`` from a store to a model that loads, in every layout and in two processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import tiny_checkpoint, tiny_encoder
from safetensors import SafetensorError
from safetensors.torch import load_file
from training_data import dot_store

from wm_mpc.cli import main as cli
from wm_mpc.cli.train import run
from wm_mpc.core.errors import UserError
from wm_mpc.data.store.store import Store, StoreWriter
from wm_mpc.evaluation.validation import validate
from wm_mpc.models.checkpoint import WEIGHTS_FILE
from wm_mpc.models.decoder import DECODER_FILE, Decoder
from wm_mpc.models.identity import perception_hash
from wm_mpc.models.proposers import PROPOSALS_FILE, load_proposer
from wm_mpc.models.world_model import WorldModel
from wm_mpc.planners import PlanRequest
from wm_mpc.planners.objective import ObjectiveConfig, make_objective
from wm_mpc.planners.registry import make_planner, planner_config
from wm_mpc.planners.subgoals import SUBGOALS_FILE, load_graph
from wm_mpc.tasks import registry
from wm_mpc.tasks.registry import find_task
from wm_mpc.training.dynamics.decoder import DecoderTraining
from wm_mpc.training.dynamics.latent import DynamicsConfig
from wm_mpc.training.dynamics.patch import PatchConfig
from wm_mpc.training.encoder.dino import DinoConfig
from wm_mpc.training.finetune.selection import SelectionConfig
from wm_mpc.training.pipeline.config import (
    DecoderForModel,
    EncoderTraining,
    ValidationConfig,
    WorldModelTraining,
)
from wm_mpc.training.pipeline.pipeline import train_world_model
from wm_mpc.training.pipeline.stages import predictor_args
from wm_mpc.training.projector.joint import JointConfig
from wm_mpc.training.projector.landmarks import LandmarkConfig

ROOT = Path(__file__).resolve().parents[2]
PATCH = PatchConfig(steps=6, batch=4, save_every=3)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store and an encoder."""
    folder = tmp_path_factory.mktemp("world")
    dot_store(folder / "store", episodes=10)
    tiny_encoder(folder / "encoder")
    return folder


def config(world: Path, out: Path, **changes: Any) -> WorldModelTraining:
    settings: dict[str, Any] = {
        "window": 3, "reader_steps": 2,
        "landmarks": LandmarkConfig(compositions=16, steps=2, batch=8),
        "dynamics": DynamicsConfig(steps=4, batch=8),
        "patch": PATCH, "task": "wall", "held_out": 0.2,
    }  # fmt: skip
    return WorldModelTraining(world / "store", str(world / "encoder"), out, **(settings | changes))


def test_the_compact_layout(world: Path, tmp_path: Path) -> None:
    trained = train_world_model(config(world, tmp_path / "model"))
    model = WorldModel.load(tmp_path / "model")
    assert model.hash == trained.hash and model.latent_shape == (4,)
    frames = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    latent = model.encode(frames, torch.rand(2, 2))
    assert torch.isfinite(model.rollout(latent, torch.zeros(2, 3, 10))).all()
    assert model.read_proprio(frames).shape == (2, 2)
    report = json.loads((tmp_path / "model" / "training.json").read_text())
    (facts,) = report["results"]
    assert facts["data"] == {"episodes": 10, "frames": 310, "steps": 300}
    assert {"landmarks", "reader", "dynamics"} <= set(facts)
    assert (tmp_path / "model" / "training.png").stat().st_size > 5000


def test_statistics_come_from_the_data(world: Path, tmp_path: Path) -> None:
    model = train_world_model(config(world, tmp_path))
    frames = Store.open(world / "store").frames()
    assert np.allclose(model.action_std, frames.actions.std(0), atol=1e-4)
    assert np.allclose(model.proprio_mean, frames.proprio.mean(0), atol=1e-2)


@pytest.mark.parametrize("layout", ["compact", "patch"])
def test_same_seed_same_model(layout: str, world: Path, tmp_path: Path) -> None:
    found = [
        train_world_model(config(world, tmp_path / name, layout=layout, seed=seed)).hash
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert found[0] == found[1] != found[2]


def test_the_joint_projector(world: Path, tmp_path: Path) -> None:
    joint = JointConfig(steps=3, batch=8)
    model = train_world_model(
        config(world, tmp_path, projector="joint", visual_dim=6, joint=joint)
    )
    assert model.visual_dim == 6
    (facts,) = json.loads((tmp_path / "training.json").read_text())["results"]
    assert set(facts["joint"]["losses"]) == {
        "loss", "prediction", "straighten", "inverse", "variance", "covariance",
    }  # fmt: skip
    assert "landmarks" not in facts


def test_new_dynamics_on_the_latents_of_another_model(world: Path, tmp_path: Path) -> None:
    source = train_world_model(config(world, tmp_path / "a"))
    changed = config(world, tmp_path / "b", latents_from=tmp_path / "a", width=24, depth=3)
    model = train_world_model(changed)
    assert perception_hash(model) == perception_hash(source) and model.hash != source.hash
    loaded = WorldModel.load(tmp_path / "b")
    assert loaded.config.predictor_args == {"width": 24, "depth": 3}
    (facts,) = json.loads((tmp_path / "b" / "training.json").read_text())["results"]
    assert facts["latents_from"] == source.hash and "landmarks" not in facts


@pytest.mark.parametrize("kind", ["mlp", "gru", "vit"])
def test_every_predictor_is_trained_loaded_and_planned_with(
    kind: str, world: Path, tmp_path: Path
) -> None:
    from wm_mpc.training.dynamics import latent as module

    settings = config(world, tmp_path / "part", predictor=kind, width=24)
    settings = replace(settings, dynamics=replace(settings.dynamics, save_every=2))
    calls = iter(range(100))
    forward = module.RolloutLoss.forward

    def dying(self: module.RolloutLoss, *batch: torch.Tensor) -> dict[str, torch.Tensor]:
        if next(calls) == 3:
            raise KeyboardInterrupt
        return forward(self, *batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.RolloutLoss, "forward", dying)
        with pytest.raises(KeyboardInterrupt):
            train_world_model(settings)
    resumed = train_world_model(settings)
    whole = train_world_model(replace(settings, out=tmp_path / "whole"))
    assert resumed.hash == whole.hash
    model = WorldModel.load(tmp_path / "whole")
    assert model.config.predictor == kind and model.config.predictor_args["width"] == 24
    # trained: a fresh predictor says that nothing changes
    start, action = torch.zeros(1, 4), torch.ones(1, 10)
    assert not torch.equal(model.step(start, action), start)
    objective = make_objective(model, ObjectiveConfig(), 3)
    planner = make_planner("adam", model, objective, planner_config("adam", iterations=3))
    request = PlanRequest(torch.zeros(4), torch.ones(4), warm_start=torch.zeros(3, 10))
    plan = planner.plan(request)
    assert plan.iterations == 3 and torch.isfinite(plan.actions).all()
    assert plan.cost < plan.warm_cost


def test_what_only_some_predictors_can(world: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="predictor: 'lstm'; mlp or gru or vit expected"):
        config(world, tmp_path, predictor="lstm")
    with pytest.raises(UserError, match="frame: object; predictor mlp expected, not gru"):
        config(world, tmp_path, predictor="gru", frame="object")
    with pytest.raises(UserError, match="predictor: gru; the patch layout has a vit"):
        config(world, tmp_path, predictor="gru", layout="patch")
    # Push-T's default frame is the object's, for the predictor that has it
    preset = find_task("pusht").preset
    assert predictor_args("mlp", preset, 0, 0, True)["object_frame"]
    assert predictor_args("gru", preset, 0, 0, False) == {"width": 384, "depth": 1}
    assert predictor_args("vit", preset, 0, 0, False)["depth"] == 3


def test_proposals_fit_every_model_with_these_latents(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = train_world_model(config(world, tmp_path / "a"))
    other = train_world_model(config(world, tmp_path / "b", latents_from=tmp_path / "a", width=24))
    arguments = ["--steps", "3", "--width", "8", "--horizon", "3", "--episodes", "4"]
    command = ["train", "proposals", "--model", str(tmp_path / "a"), "--data"]
    assert cli.main([*command, str(world / "store"), *arguments]) == 0
    assert "of held-out actions" in capsys.readouterr().out
    for model in (source, other):
        network = load_proposer(
            tmp_path / "a" / PROPOSALS_FILE, model.latent_shape, model.action_width,
            perception_hash(model),
        )  # fmt: skip
        plans = network.propose(model, torch.zeros(4), torch.ones(4))
        assert plans.shape == (3, 3, 10) and torch.isfinite(plans).all()


def test_subgoals_join_the_frames_of_a_store(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = train_world_model(config(world, tmp_path / "a"))
    command = ["train", "subgoals", "--model", str(tmp_path / "a"), "--data", str(world / "store")]
    assert cli.main(command) == 0
    said = capsys.readouterr().out
    graph = load_graph(tmp_path / "a" / SUBGOALS_FILE, model.latent_shape, perception_hash(model))
    assert f"{len(graph.nodes)} recorded latents" in said
    store = Store.open(world / "store")
    assert len(graph.nodes) == sum(1 + len(trajectory) // 5 for trajectory in store)
    # the first frame of an episode leads to its second in one step
    assert 0 < graph.edges[0, 1] <= 1
    few = [*command, "--frames", "12"]
    assert cli.main(few) == 0
    assert 0 < int(capsys.readouterr().out.split(": ")[1].split()[0]) <= 12


def test_latents_of_a_model_that_does_not_fit(world: Path, tmp_path: Path) -> None:
    train_world_model(config(world, tmp_path / "a"))
    tiny_encoder(tmp_path / "other", seed=1)
    wrong = replace(
        config(world, tmp_path / "b", latents_from=tmp_path / "a"),
        encoder=str(tmp_path / "other"),
    )
    with pytest.raises(UserError, match="latents_from: .* has another encoder"):
        train_world_model(wrong)
    larger = config(world, tmp_path / "b", latents_from=tmp_path / "a", image_size=48)
    with pytest.raises(UserError, match="image_size: 48 px; .* expects 32 px"):
        train_world_model(larger)
    with pytest.raises(UserError, match="latents_from: .* not with the patch layout"):
        config(world, tmp_path / "b", latents_from=tmp_path / "a", layout="patch")


def test_a_forgotten_setting_does_not_cost_shared_tokens(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = tmp_path / "tokens"
    settings = config(world, tmp_path / "a", image_size=48, tokens=shared)
    train_world_model(settings)
    before = {file: file.read_bytes() for file in shared.iterdir()}
    forgotten = replace(settings, out=tmp_path / "b", image_size=0)
    with pytest.raises(UserError, match="image_size: 32 px; .* expects 48 px"):
        train_world_model(replace(forgotten, latents_from=tmp_path / "a"))
    with pytest.raises(UserError, match=f"{shared}: holds tokens of shape .*another image size"):
        train_world_model(forgotten)
    assert {file: file.read_bytes() for file in shared.iterdir()} == before
    # a run's own folder, which nobody named, follows its settings
    train_world_model(replace(forgotten, tokens=None))
    train_world_model(replace(settings, out=tmp_path / "b", tokens=None))
    assert "of shape" in capsys.readouterr().out


def test_latents_that_do_not_fit_are_told_before_anything_is_computed(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_world_model(config(world, tmp_path / "a"))
    no_encoding(monkeypatch)
    tiny_encoder(tmp_path / "other", seed=1)
    settings = config(world, tmp_path / "b", latents_from=tmp_path / "a")
    with pytest.raises(UserError, match="has another encoder"):
        train_world_model(replace(settings, encoder=str(tmp_path / "other")))
    with pytest.raises(UserError, match="image_size: 48 px"):
        train_world_model(replace(settings, image_size=48))
    assert not (tmp_path / "b").exists()


def test_the_patch_layout(world: Path, tmp_path: Path) -> None:
    train_world_model(config(world, tmp_path, layout="patch"))
    model = WorldModel.load(tmp_path)
    assert model.latent_shape == (16, 26) and model.config.predictor == "vit"
    (facts,) = json.loads((tmp_path / "training.json").read_text())["results"]
    assert len(facts["dynamics"]["open_loop_rmse"]) == 3


def test_pictures_of_another_size_make_another_number_of_tokens(
    world: Path, tmp_path: Path
) -> None:
    arguments = [
        "train", "wall", "--data", str(world / "store"), "--encoder", str(world / "encoder"),
        "--layout", "patch", "--window", "3", "--reader-steps", "0", "--patch.steps", "2",
        "--patch.batch", "4", "--image-size", "48", "--out", str(tmp_path),
    ]  # fmt: skip
    assert cli.main(arguments) == 0
    model = WorldModel.load(tmp_path)
    # 8 px patches: 6 x 6, where the encoder's own 32 px make 4 x 4
    assert model.latent_shape == (36, 26)
    assert model.encoder is not None and model.encoder.image_size == 48
    latent = model.encode(torch.zeros(1, 32, 32, 3, dtype=torch.uint8), torch.zeros(1, 2))
    assert latent.shape == (1, 36, 26)


def test_a_size_that_makes_no_whole_patches(world: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="image_size: 50 px is no multiple of the patch size 8"):
        train_world_model(config(world, tmp_path, image_size=50))


def test_an_interrupted_patch_run_goes_on_exactly(world: Path, tmp_path: Path) -> None:
    from wm_mpc.training.dynamics import patch as module

    calls = iter(range(100))
    forward = module.PatchLosses.forward

    def dying(self: module.PatchLosses, *batch: torch.Tensor) -> dict[str, torch.Tensor]:
        if next(calls) == 4:
            raise KeyboardInterrupt
        return forward(self, *batch)

    settings = config(world, tmp_path / "part", layout="patch")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.PatchLosses, "forward", dying)
        with pytest.raises(KeyboardInterrupt):
            train_world_model(settings)
    resumed = train_world_model(settings)
    assert next(calls) == 5  # three steps were stored, a fourth was lost with the interruption
    whole = train_world_model(replace(settings, out=tmp_path / "whole"))
    assert resumed.hash == whole.hash


STAGES = {"landmarks": "teach_landmarks", "reader": "teach_reader"}


def killed_in(stage: str, settings: WorldModelTraining) -> None:
    """Run until ``stage`` begins; in ``dynamics``, until its third step."""
    from wm_mpc.training.dynamics import latent as dynamics
    from wm_mpc.training.pipeline import material

    def dying(*_: Any) -> None:
        raise KeyboardInterrupt

    calls = iter(range(100))
    forward = dynamics.RolloutLoss.forward

    def dying_later(self: dynamics.RolloutLoss, *batch: torch.Tensor) -> dict[str, torch.Tensor]:
        return dying() if next(calls) == 3 else forward(self, *batch)

    with pytest.MonkeyPatch.context() as patch:
        if stage == "dynamics":
            patch.setattr(dynamics.RolloutLoss, "forward", dying_later)
        else:
            patch.setattr(material, STAGES[stage], dying)
        with pytest.raises(KeyboardInterrupt):
            train_world_model(settings)


def stages_run(settings: WorldModelTraining) -> tuple[list[str], WorldModel]:
    """Train; which of the stages before the dynamics ran, and the model."""
    from wm_mpc.training.pipeline import material

    ran: list[str] = []

    def counting(name: str, known: Any) -> Any:
        def counted(*arguments: Any) -> dict[str, Any]:
            ran.append(name)
            return known(*arguments)

        return counted

    with pytest.MonkeyPatch.context() as patch:
        for name, function in STAGES.items():
            patch.setattr(material, function, counting(name, getattr(material, function)))
        return ran, train_world_model(settings)


@pytest.mark.parametrize(
    ("stage", "left"),
    [("landmarks", ["landmarks", "reader"]), ("reader", ["reader"]), ("dynamics", [])],
)
def test_a_killed_compact_run_goes_on_exactly(
    stage: str, left: list[str], world: Path, tmp_path: Path
) -> None:
    schedule = DynamicsConfig(steps=4, batch=8, save_every=2)
    settings = config(world, tmp_path / "part", dynamics=schedule)
    killed_in(stage, settings)
    ran, resumed = stages_run(settings)
    assert ran == left
    whole = train_world_model(replace(settings, out=tmp_path / "whole"))
    assert resumed.hash == whole.hash
    reports = [
        json.loads((tmp_path / name / "training.json").read_text())["results"][0]
        for name in ("part", "whole")
    ]
    for kept in ("landmarks", "reader"):
        first, second = ({k: v for k, v in r[kept].items() if k != "seconds"} for r in reports)
        assert first == second


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ({"seed": 1}, ["landmarks", "reader"]),
        ({"landmarks": LandmarkConfig(compositions=16, steps=3, batch=8)}, ["landmarks"]),
        ({"reader_steps": 3}, ["reader"]),
        ({"width": 24}, []),
    ],
)
def test_a_stage_of_other_settings_is_not_taken_up(
    change: dict, again: list[str], world: Path, tmp_path: Path
) -> None:
    train_world_model(config(world, tmp_path / "a"))
    ran, model = stages_run(config(world, tmp_path / "a", **change))
    assert ran == again
    assert model.hash == train_world_model(config(world, tmp_path / "b", **change)).hash


def test_a_stage_of_other_data_is_not_taken_up(world: Path, tmp_path: Path) -> None:
    train_world_model(config(world, tmp_path / "a"))
    dot_store(tmp_path / "store", episodes=10, seed=1)
    ran, _ = stages_run(replace(config(world, tmp_path / "a"), data=tmp_path / "store"))
    assert ran == ["landmarks", "reader"]


def test_a_damaged_stage_is_done_again(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = train_world_model(config(world, tmp_path))
    (tmp_path / "work" / "landmarks.safetensors").write_bytes(b"half")
    ran, again = stages_run(config(world, tmp_path))
    assert ran == ["landmarks"] and again.hash == first.hash
    assert "landmarks.safetensors: damaged" in capsys.readouterr().out


def test_a_full_disk_is_one_line(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wm_mpc.cli import train as run_train

    def full(*_: Any) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    def other(*_: Any) -> None:
        raise FileNotFoundError("a defect")

    settings = config(world, tmp_path)
    monkeypatch.setattr(run_train, "train_world_model", full)
    with pytest.raises(UserError, match=f"{tmp_path}: cannot be written: the disk is full"):
        run(settings)
    monkeypatch.setattr(run_train, "train_world_model", other)
    with pytest.raises(FileNotFoundError):
        run(settings)


def test_two_processes_train_what_one_does(world: Path, tmp_path: Path) -> None:
    arguments = [
        "train", "wall", "--data", str(world / "store"), "--encoder", str(world / "encoder"),
        "--layout", "patch", "--window", "3", "--reader-steps", "2", "--patch.steps", "5",
        "--patch.batch", "4", "--held-out", "0.2", "--dynamics.threads", "1",
    ]  # fmt: skip
    assert cli.main([*arguments, "--out", str(tmp_path / "one")]) == 0
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         "-m", "wm_mpc.cli", *arguments, "--out", str(tmp_path / "two")],
        env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = (load_file(tmp_path / name / WEIGHTS_FILE) for name in ("one", "two"))
    assert one.keys() == two.keys()
    for key, value in one.items():
        assert torch.allclose(value, two[key], atol=2e-4), key
    (facts,) = json.loads((tmp_path / "two" / "training.json").read_text())["results"]
    assert facts["processes"] == 2
    # the optimiser did move the weights by more than the tolerance
    fresh = train_world_model(
        config(world, tmp_path / "less", layout="patch", reader_steps=2,
               patch=replace(PATCH, steps=1))
    ).state_dict()  # fmt: skip
    assert any((one[k] - fresh[k]).abs().max() > 1e-3 for k in one if "predictor" in k)


def test_success_picks_the_weights(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = iter([0.5, 0.2])
    seen: list[tuple] = []

    def measured(self: SelectionConfig, model: WorldModel, task: str) -> dict[str, Any]:
        seen.append((task, {k: v.clone() for k, v in model.predictor.state_dict().items()}))
        return {"success_rate": next(rates), "final_error": {"median": 1.0}}

    monkeypatch.setattr(SelectionConfig, "measure", measured)
    model = train_world_model(config(world, tmp_path, selection=SelectionConfig(goals=3, every=2)))
    assert [task for task, _ in seen] == ["wall", "wall"]
    for key, value in model.predictor.state_dict().items():
        assert torch.equal(value, seen[0][1][key])


@pytest.mark.parametrize("layout", ["compact", "patch"])
def test_a_decoder_is_trained_beside(layout: str, world: Path, tmp_path: Path) -> None:
    training = DecoderTraining(steps=3, batch=4, pixels=32, width=16, depth=1)
    model = train_world_model(config(world, tmp_path, layout=layout, decoder=training))
    decoder = Decoder.load(tmp_path, WorldModel.load(tmp_path))
    assert (tmp_path / DECODER_FILE).is_file()
    latents = torch.randn(2, 3, *model.latent_shape)
    assert decoder.decode(latents).shape == (2, 3, 32, 32, 3)


@pytest.mark.parametrize(
    # a latent has 16 x 26 numbers, 1664 bytes
    ("bytes_", "frames", "expected"),
    [(400_000, 100, 100), (100_000, 100, 60), (2**20, 100, 310)],
)
def test_a_decoder_does_not_ask_for_every_latent(
    bytes_: int, frames: int, expected: int, world: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from wm_mpc.training.pipeline import patch_layout, pipeline

    monkeypatch.setattr(pipeline, "DECODER_BYTES", bytes_)
    monkeypatch.setattr(pipeline, "DECODER_FRAMES", frames)
    projected: list[int] = []

    def encode(model: WorldModel, tokens: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        projected.append(len(tokens))
        return known(model, tokens, own)

    known = WorldModel.encode_tokens
    train = pipeline.train_decoder

    def trained(latents: torch.Tensor, *rest: Any) -> Any:
        ids = rest[2]
        assert len(latents) == len(ids) == sum(projected) and (np.diff(ids) > 0).all()
        assert ids[-1] > 250, "the sample is not spread over the store"
        return train(latents, *rest)

    def after(*_: Any, **__: Any) -> dict[str, Any]:
        monkeypatch.setattr(WorldModel, "encode_tokens", encode)
        return {"curve": [[0, 1.0]], "open_loop_rmse": [1.0], "probes": []}

    monkeypatch.setattr(patch_layout, "train_patch", after)
    monkeypatch.setattr(pipeline, "train_decoder", trained)
    training = DecoderTraining(steps=1, batch=4, pixels=32, width=16, depth=1)
    without = ValidationConfig(frames=0)
    train_world_model(
        config(world, tmp_path, layout="patch", decoder=training, validation=without)
    )
    assert sum(projected) == expected and Decoder.load(tmp_path, WorldModel.load(tmp_path))


def test_a_decoder_for_a_finished_model(world: Path, tmp_path: Path) -> None:
    train_world_model(config(world, tmp_path))
    arguments = ["--frames", "40", "--decoder.steps", "3", "--decoder.width", "16"]
    data = ["--data", str(world / "store")]
    assert cli.main(["train", "decoder", "--model", str(tmp_path), *data, *arguments]) == 0
    assert Decoder.load(tmp_path, WorldModel.load(tmp_path)).config.latent_shape == (4,)


def test_the_encoder(world: Path, tmp_path: Path) -> None:
    dino = DinoConfig(
        image_size=32, patch_size=8, dim=16, layers=1, heads=2, local_size=16, local_crops=1,
        prototypes=16, batch=2, steps=2,
    )  # fmt: skip
    assert run(EncoderTraining((world / "store",), tmp_path, dino)) == 0
    assert (tmp_path / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layout": "grid"}, "layout: 'grid'; compact or patch"),
        ({"projector": "pool"}, "projector: 'pool'; landmarks or joint"),
        ({"projector": "joint"}, "joint.steps: 0; at least 1"),
        ({"window": 0}, "window: 0; at least 1"),
        ({"window": 2}, "dynamics.rollout: 3 model steps; at most window: 2 expected"),
        (
            {"joint": JointConfig(steps=1, rollout=4)},
            "joint.rollout: 4 model steps; at most window: 3 expected",
        ),
    ],
)
def test_settings_name_field_value_and_bound(
    change: dict, message: str, world: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        config(world, tmp_path, **change)


def test_cuda_where_there_is_none(world: Path, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        assert train_world_model(config(world, tmp_path, device="cuda")).hash
        return
    with pytest.raises(UserError, match="device: 'cuda'; this machine has no usable CUDA device"):
        train_world_model(config(world, tmp_path, device="cuda"))


def no_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    from wm_mpc.training.pipeline import material

    monkeypatch.setattr(material, "cache_tokens", lambda *_, **__: pytest.fail("encoded"))


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("point_maze", "data: .*store: proprio_dim 2; point_maze expects 4"),
        ("pusht", "data: .*store: proprio_dim 2; pusht expects 4"),
    ],
)
def test_a_store_of_another_robot_is_refused_before_anything_is_computed(
    task: str, message: str, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_encoding(monkeypatch)
    with pytest.raises(UserError, match=message):
        train_world_model(config(world, tmp_path, task=task))
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"action_dim": 3}, "action_dim 2; wall expects 3"),
        # Push-T and PointMaze differ in nothing else
        ({"control_period": 0.05}, "control_period 0.1 s; wall expects 0.05 s"),
    ],
)
def test_the_interface_is_compared_field_by_field(
    change: dict, message: str, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_encoding(monkeypatch)
    task = find_task("wall")
    if "action_dim" in change:
        change = {"action_low": (-1.0,) * 3, "action_high": (1.0,) * 3}
    changed = replace(task, preset=replace(task.preset, **change))
    monkeypatch.setitem(registry._LOADED, "wall", changed)
    with pytest.raises(UserError, match=message):
        train_world_model(config(world, tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"window": 7}, "no window of 7 model steps of 5 control .* has 30 control steps"),
        (
            {"layout": "patch", "patch": replace(PATCH, history=8)},
            "no window of 8 model steps",
        ),
        (
            {"layout": "patch", "held_out": 1.0},
            r"held_out: 1.0; in \(0, 0.5\] expected",
        ),
    ],
)
def test_data_that_are_too_short_or_few_are_refused_before_anything_is_computed(
    change: dict, message: str, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_encoding(monkeypatch)
    with pytest.raises(UserError, match=message):
        train_world_model(config(world, tmp_path, **change))


def test_one_episode_cannot_be_split(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_encoding(monkeypatch)
    dot_store(tmp_path / "store", episodes=1)
    settings = replace(config(world, tmp_path / "out"), data=tmp_path / "store")
    with pytest.raises(UserError, match="^held_out: 0.2 of the episodes; .* other of 1"):
        train_world_model(settings)


def test_a_decoder_for_a_model_of_another_robot(world: Path, tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "model")
    with pytest.raises(UserError, match="proprio_dim 2; the model expects 4"):
        run(DecoderForModel(folder, world / "store"))


@pytest.mark.parametrize("layout", ["compact", "patch"])
def test_the_trained_model_is_validated(
    layout: str, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    looked = ValidationConfig(frames=50, windows=5)
    steps = 2 if layout == "compact" else 0
    drawn = DecoderTraining(steps=steps, batch=4, pixels=32, width=16, depth=1)
    train_world_model(
        config(world, tmp_path, layout=layout, validation=looked, decoder=drawn)
    )
    (facts,) = json.loads((tmp_path / "training.json").read_text())["results"]
    found = facts["validation"]
    assert found["open_loop"]["windows"] == 5
    assert len(found["open_loop"]["visual_rmse"]) == 3
    # what a separate validation of the saved model with the same settings finds
    again = validate(
        WorldModel.load(tmp_path), Store.open(world / "store"), held_out=0.2, frames=50,
        windows=5, steps=3,
    )  # fmt: skip
    assert found["open_loop"]["visual_rmse"] == pytest.approx(again["open_loop"]["visual_rmse"])
    ranked = [row["visual"] for row in found["rank_correlation"]]
    assert ranked == pytest.approx([row["visual"] for row in again["rank_correlation"]])
    assert len(ranked) == 4 and ranked[0] is not None
    assert (tmp_path / "validation.png").stat().st_size > 5000
    said = capsys.readouterr().out
    assert "rank correlation, position 0 to inf px: visual" in said and "open loop" in said
    page = (tmp_path / "training.html").read_text()
    assert page.count('src="data:image/png') >= 2 and "https:" not in page
    assert "rank correlation, position" in page
    assert page.count(">imagined</th>") == (3 if layout == "compact" else 0)


def test_validation_can_be_switched_off(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wm_mpc.training.pipeline import pipeline

    monkeypatch.setattr(pipeline, "validate", lambda *_, **__: pytest.fail("validated"))
    train_world_model(config(world, tmp_path, validation=ValidationConfig(frames=0)))
    (facts,) = json.loads((tmp_path / "training.json").read_text())["results"]
    assert facts["validation"] is None and not (tmp_path / "validation.png").exists()
    assert "loss and open-loop error" in (tmp_path / "training.html").read_text()
    with pytest.raises(UserError, match="validation.windows: 0; at least 1 expected"):
        ValidationConfig(windows=0)


def test_held_out_episodes_too_short_to_validate_on(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with StoreWriter(tmp_path / "store", Store.open(world / "store").spec, writer_id="1") as out:
        for episode in Store.open(world / "store"):
            out.add(episode)
        for episode in Store.open(dot_store(tmp_path / "short", episodes=4, steps=4)):
            out.add(episode)
    settings = replace(config(world, tmp_path / "out"), data=tmp_path / "store")
    train_world_model(settings)
    assert "not validated: the last 0.2 of the episodes" in capsys.readouterr().out
    assert WorldModel.load(tmp_path / "out").hash


def test_a_failing_validation_does_not_cost_the_model(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wm_mpc.training.pipeline import pipeline

    def broken(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(pipeline, "validate", broken)
    with pytest.raises(MemoryError):
        train_world_model(config(world, tmp_path))
    assert WorldModel.load(tmp_path).hash and (tmp_path / "training.json").is_file()


def test_an_unknown_task_is_told(world: Path, tmp_path: Path) -> None:
    known = "point_maze, point_maze_medium, pusht, wall"
    with pytest.raises(UserError, match=f"task: 'nope' unknown; one of {known}"):
        train_world_model(config(world, tmp_path, task="nope"))
