"""Damaged model folders: refused in one line, soon, and without taking memory for them."""

from __future__ import annotations

import importlib.util
import json
import resource
import shutil
from pathlib import Path
from types import ModuleType

import pytest
import torch
from helpers import tiny_encoder, tiny_model
from safetensors.torch import load_file, save

from wm_mpc.core.errors import CheckpointError
from wm_mpc.models.world_model import WorldModel

ROOT = Path(__file__).parents[1]
RECORD, WEIGHTS = "world_model.json", "world_model.safetensors"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    model = tiny_model(tiny_encoder(folder / "encoder"))
    model.save(folder / "model", encoder=str(folder / "encoder"))
    return folder / "model"


@pytest.fixture
def copy(good: Path, tmp_path: Path) -> Path:
    shutil.copytree(good, tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    path = ROOT / "tools" / "mutate_checkpoints.py"
    spec = importlib.util.spec_from_file_location("mutate_checkpoints", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        WorldModel.load(path, with_encoder=False)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("section", "field", "value", "words"),
    [("config", "visual_dim", 10**9, "config.visual_dim: 1000000000"),
     ("config", "visual_dim", 60_000, "shape"),
     ("config", "control_period", float("nan"), "config.control_period: nan"),
     ("config", "action_low", [float("-inf")] * 2, "config.action_low: -inf"),
     ("config", "predictor_args", {"width": 10**12}, "config.predictor_args.width"),
     ("encoder", "channels", "many", "encoder.channels: 'many'"),
     ("", "sha256", ["x"], "sha256: a list; an object"), ("", "config", 7, "config: a int"),
     ("", "encoder", [], "encoder: a list")],
)  # fmt: skip
def test_a_record_is_refused_by_file_and_field(
    copy: Path, section: str, field: str, value: object, words: str
) -> None:
    record = json.loads((copy / RECORD).read_text())
    (record[section] if section else record)[field] = value
    (copy / RECORD).write_text(json.dumps(record))
    assert words in refused(copy)


def test_a_sparse_file_of_gigabytes_is_not_read(copy: Path) -> None:
    with (copy / WEIGHTS).open("r+b") as file:
        file.truncate(8_600_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "8600000000 bytes" in refused(copy)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [("action_std", 0.0, "action_std: 0; more than 0"),
     ("proprio_mean", float("nan"), "proprio_mean: not finite")],
)  # fmt: skip
def test_normalisation_that_would_stop_a_robot_is_refused(
    copy: Path, key: str, value: float, words: str
) -> None:
    import hashlib

    state = load_file(copy / WEIGHTS)
    state[key] = torch.full_like(state[key], value)
    data = save(state)
    (copy / WEIGHTS).write_bytes(data)
    record = json.loads((copy / RECORD).read_text())
    record["sha256"][WEIGHTS] = hashlib.sha256(data).hexdigest()
    (copy / RECORD).write_text(json.dumps(record))
    assert words in refused(copy)


def test_mutated_folders_are_refused_or_mean_the_same(good: Path, tool: ModuleType) -> None:
    row = tool.run(good, count=60, seed=1)
    assert row["crashes"] == [] and row["slowest_s"] < 5.0 and row["memory_mb"] < 1000
    assert row["refused"] > 40


def test_what_was_mutated_is_reported_with_its_origin(
    good: Path, tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = tmp_path / "report.json"
    words = [str(good), "--count", "4", "--seed", "9", "--report", str(report)]
    monkeypatch.setattr("sys.argv", ["mutate_checkpoints.py", *words])
    assert tool.main() == 0
    found = json.loads(report.read_text())
    (row,) = found["results"]
    assert found["seed"] == 9 and found["model"] == str(good) and "--count 4" in found["command"]
    assert row["n"] == 4 == row["refused"] + row["loaded"] and row["crashes"] == []
