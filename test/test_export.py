"""Exported files give what torch gives, for pictures the exporter never saw."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from helpers import TINY_IMAGE, tiny_checkpoint, tiny_encoder
from test_encoder import dino_v3

from wm_mpc.cli import main as cli
from wm_mpc.cli.export import Config, Perception, deviation, load, resize_matrix, run
from wm_mpc.models.identity import perception_hash
from wm_mpc.models.world_model import WorldModel

WIDE = (40, 56)


def pictures(count: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (count, height, width, 3), np.uint8)


def proprio(count: int) -> np.ndarray:
    return np.random.default_rng(6).uniform(0, 500, (count, 4)).astype(np.float32)


def session(file: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])


def close(found: np.ndarray, expected: torch.Tensor) -> bool:
    return found.shape == expected.shape and np.allclose(found, expected.numpy(), atol=1e-4)


@pytest.fixture(scope="module")
def compact(tmp_path_factory: pytest.TempPathFactory) -> tuple[WorldModel, Path, dict[str, Any]]:
    """Model with the compact latent, its file for one picture per call, and its report."""
    folder = tmp_path_factory.mktemp("compact")
    checkpoint = tiny_checkpoint(folder / "model")
    out, report = folder / "new" / "compact.onnx", folder / "report.json"
    assert run(Config(model=checkpoint, out=out, report=report)) == 0
    return WorldModel.load(checkpoint), out, json.loads(report.read_text())


def test_a_latent_is_the_models(compact: tuple[WorldModel, Path, dict[str, Any]]) -> None:
    model, file, _ = compact
    images, posture = pictures(1, TINY_IMAGE, TINY_IMAGE), proprio(1)
    (found,) = session(file).run(["latent"], {"images": images, "proprio": posture})
    with torch.no_grad():
        assert close(found, model.encode(torch.from_numpy(images), torch.from_numpy(posture)))


def test_the_interface_is_the_cameras(compact: tuple[WorldModel, Path, dict[str, Any]]) -> None:
    inputs = {i.name: (i.type, i.shape) for i in session(compact[1]).get_inputs()}
    assert inputs == {
        "images": ("tensor(uint8)", [1, TINY_IMAGE, TINY_IMAGE, 3]),
        "proprio": ("tensor(float)", [1, 4]),
    }


def test_a_file_says_what_it_is_of(compact: tuple[WorldModel, Path, dict[str, Any]]) -> None:
    model, file, report = compact
    facts = session(file).get_modelmeta().custom_metadata_map
    assert (facts["task"], facts["model"]) == ("pusht", model.hash)
    assert facts["perception"] == perception_hash(model)
    (row,) = report["results"]
    assert row["model"] == model.hash and row["bytes"] == file.stat().st_size
    assert 0 < row["max_deviation"] < 1e-4
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_another_models_file_is_noticed(
    compact: tuple[WorldModel, Path, dict[str, Any]], tmp_path: Path
) -> None:
    other = load(Config(model=tiny_checkpoint(tmp_path, seed=1)))
    same = Perception(compact[0].encoder, compact[0], (TINY_IMAGE, TINY_IMAGE)).eval()
    assert deviation(same, compact[1], 1, seed=3) < 1e-4
    assert deviation(other, compact[1], 1, seed=3) > 1e-2


def test_without_onnxruntime_nothing_is_compared(
    compact: tuple[WorldModel, Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wm_mpc.cli.export.importlib.util.find_spec", lambda name: None)
    same = Perception(compact[0].encoder, compact[0], (TINY_IMAGE, TINY_IMAGE)).eval()
    assert deviation(same, compact[1], 1, seed=3) is None


def test_a_file_that_differs_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def write(graph: Perception, out: Path, batch: int, facts: dict[str, str]) -> None:
        out.touch()

    monkeypatch.setattr("wm_mpc.cli.export.write_onnx", write)
    monkeypatch.setattr("wm_mpc.cli.export.deviation", lambda *arguments: 0.2)
    monkeypatch.setattr(onnx.checker, "check_model", lambda file: None)
    tiny_encoder(tmp_path / "encoder")
    words = ["export", "--encoder", str(tmp_path / "encoder"), "--out", str(tmp_path / "a.onnx")]
    assert cli.main(words) == 1
    assert "differs from torch by 2.0e-01" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["encoder"]


def test_any_batch_of_resized_pictures_in_the_patch_layout(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(
        tmp_path / "model", projector="identity", visual_dim=16, projector_args={},
        proprio_embed=3, predictor="vit",
        predictor_args={"width": 8, "depth": 1, "heads": 1, "head_dim": 8},
    )  # fmt: skip
    out = tmp_path / "patches.onnx"
    assert run(Config(model=checkpoint, out=out, image_shape=WIDE, batch=0)) == 0
    model, runtime = WorldModel.load(checkpoint), session(out)
    assert runtime.get_inputs()[0].shape == ["batch", *WIDE, 3]
    # TensorRT 10 refuses an anti-aliased Resize
    assert "Resize" not in {node.op_type for node in onnx.load(out).graph.node}
    for count in (1, 4):
        images, posture = pictures(count, *WIDE), proprio(count)
        (found,) = runtime.run(None, {"images": images, "proprio": posture})
        with torch.no_grad():
            assert close(found, model.encode(torch.from_numpy(images), torch.from_numpy(posture)))


def test_tokens_of_an_encoder_with_registers(tmp_path: Path) -> None:
    encoder = dino_v3(tmp_path / "encoder")
    out = tmp_path / "tokens.onnx"
    words = ["--encoder", str(tmp_path / "encoder"), "--out", str(out), "--batch", "2"]
    assert cli.main(["export", *words]) == 0
    images = pictures(2, TINY_IMAGE, TINY_IMAGE)
    (found,) = session(out).run(["tokens"], {"images": images})
    assert close(found, encoder(torch.from_numpy(images)))


@pytest.mark.parametrize(("height", "width"), [(32, 32), (48, 64), (20, 17), (480, 640)])
def test_resizing_by_matrices_is_the_encoders(height: int, width: int, tmp_path: Path) -> None:
    encoder = tiny_encoder(tmp_path)
    images = torch.from_numpy(pictures(1, height, width)).float()
    rows, columns = (resize_matrix(side, encoder.image_size) for side in (height, width))
    found = rows @ images.permute(0, 3, 1, 2) @ columns.T
    expected = encoder.preprocess(images) * encoder.std + encoder.mean
    assert torch.allclose(found, expected, atol=1e-2)  # of 255


def test_tokens_of_a_model_need_no_proprioception(tmp_path: Path) -> None:
    graph = load(Config(model=tiny_checkpoint(tmp_path), output="tokens"))
    images = torch.from_numpy(pictures(2, TINY_IMAGE, TINY_IMAGE))
    assert graph.input_names == ["images"] and graph.output_name == "tokens"
    with torch.no_grad():
        assert torch.allclose(graph(images), graph.encoder(images), atol=1e-5)


def test_a_model_that_feels_nothing_takes_pictures_only(tmp_path: Path) -> None:
    graph = load(Config(model=tiny_checkpoint(tmp_path, proprio_dim=0)))
    images = torch.from_numpy(pictures(2, TINY_IMAGE, TINY_IMAGE))
    assert graph.input_names == ["images"] and len(graph.examples(2, 0)) == 1
    with torch.no_grad():
        expected = graph.model.encode(images, torch.zeros(2, 0))
        assert torch.allclose(graph(images), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "model: none of --model, --encoder given; one expected"),
        (["--model", "m", "--encoder", "e"], "model: both of --model, --encoder given"),
        (["--encoder", "e", "--output", "latent"], "output: 'latent' without --model"),
        (["--encoder", "e", "--out", "x.pt"], "out: x.pt; a file that ends in .onnx expected"),
        (["--encoder", "e", "--image-shape", "480", "8"], "image_shape: 480 x 8 px; at least 16"),
        (["--encoder", "e", "--batch", "-1"], "batch: -1; at least 0 expected"),
        (["--encoder", "e", "--tolerance", "0"], "tolerance: 0.0; more than 0 expected"),
        (["--encoder", "./nowhere"], "folder nowhere does not exist"),
        (["--model", "nowhere"], "nowhere: world_model.json is missing"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["export", *words]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1


def test_a_missing_exporter_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_encoder(tmp_path)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert cli.main(["export", "--encoder", str(tmp_path)]) == 2
    assert "onnxscript is missing: pip install 'wm-mpc[export]'" in capsys.readouterr().err
