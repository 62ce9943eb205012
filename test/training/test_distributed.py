"""Devices and processes of training: what is missing is told, two processes do what one does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from helpers import tiny_checkpoint, tiny_encoder, tiny_model
from safetensors.torch import load_file
from training_data import dot_store, linear_windows

from wm_mpc.cli import main as cli
from wm_mpc.core.errors import UserError
from wm_mpc.data.store.store import Store
from wm_mpc.latents.windows import TokenWindows
from wm_mpc.models.checkpoint import WEIGHTS_FILE
from wm_mpc.training.dynamics.decoder import DecoderTraining, train_decoder
from wm_mpc.training.dynamics.latent import DynamicsConfig, train_dynamics
from wm_mpc.training.optimise import distributed
from wm_mpc.training.optimise.resume import FILE
from wm_mpc.training.projector.joint import JointConfig, train_joint

ROOT = Path(__file__).resolve().parents[2]
MISSING = "device: 'cuda'; this machine has no usable CUDA device"
DYNAMICS = DynamicsConfig(steps=4, batch=8, save_every=2)


def test_commands_end_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    model = str(tiny_checkpoint(tmp_path / "model"))
    tiny_encoder(tmp_path / "encoder")
    store, out = str(dot_store(tmp_path / "store", episodes=2)), str(tmp_path / "out")
    capsys.readouterr()  # transformers shows how it writes
    for command in (
        ["eval", "--model", model, "--device", "cuda"],
        ["bench", "--model", model, "--device", "cuda"],
        ["validate", model, "--data", store, "--device", "cuda"],
        ["train", "decoder", "--model", model, "--data", store, "--device", "cuda"],
        ["train", "dino", "--data", store, "--out", out, "--dino.device", "cuda"],
        ["train", "wall", "--data", store, "--encoder", str(tmp_path / "encoder"), "--out", out,
         "--device", "cuda"],
    ):  # fmt: skip
        assert cli.main(command) == 2, command
        error = capsys.readouterr().err.strip()
        assert MISSING in error and "\n" not in error, (command, error)


def test_every_batch_must_divide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "world", lambda: 3)
    model = tiny_model(None)
    frames = Store.open(dot_store(tmp_path, episodes=2)).frames()
    tokens = TokenWindows(
        torch.zeros(8, 16, 16), torch.zeros(8, 4), torch.arange(8).view(2, 4),
        torch.zeros(2, 3, 10), torch.arange(2), torch.device("cpu"),
    )  # fmt: skip
    with pytest.raises(UserError, match="dynamics.batch: 8 is no multiple of 3 processes"):
        train_dynamics(model, linear_windows(model), DYNAMICS, progress=False)
    with pytest.raises(UserError, match="joint.batch: 64 is no multiple of 3 processes"):
        train_joint(model, tokens, JointConfig(steps=1), progress=False)
    with pytest.raises(UserError, match="decoder.batch: 4 is no multiple of 3 processes"):
        train_decoder(torch.zeros(4, 3), frames, DecoderTraining(1, 4), progress=False)


def test_two_processes_train_the_compact_layout_like_one(tmp_path: Path) -> None:
    store, encoder = tmp_path / "store", tmp_path / "encoder"
    dot_store(store, episodes=10)
    tiny_encoder(encoder)

    def arguments(name: str, steps: int) -> list[str]:
        return [
            "train", "wall", "--data", str(store), "--encoder", str(encoder), "--window", "3",
            "--reader-steps", "2", "--landmarks.compositions", "16", "--landmarks.steps", "2",
            "--landmarks.batch", "8", "--dynamics.steps", str(steps), "--dynamics.batch", "8",
            "--held-out", "0.2", "--dynamics.threads", "1", "--out", str(tmp_path / name),
        ]  # fmt: skip

    assert cli.main(arguments("one", 20)) == 0
    assert cli.main(arguments("less", 1)) == 0
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         "-m", "wm_mpc.cli", *arguments("two", 20)],
        env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    one, two, less = (load_file(tmp_path / n / WEIGHTS_FILE) for n in ("one", "two", "less"))
    assert one.keys() == two.keys()
    for key, value in one.items():
        assert torch.allclose(value, two[key], atol=2e-4), key
    # the optimiser did move the weights by more than the tolerance
    assert any((one[k] - less[k]).abs().max() > 1e-3 for k in one if k.startswith("predictor."))
    (facts,) = json.loads((tmp_path / "two" / "training.json").read_text())["results"]
    assert facts["processes"] == 2


def resume_apart(rank: int, folder: Path, meeting: Path) -> None:
    """Process ``rank`` of two whose work folder is its own; writes what it was told."""
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    model = tiny_model(None)
    try:
        train_dynamics(model, linear_windows(model), DYNAMICS, folder / str(rank), progress=False)
        told = "nothing"
    except UserError as error:
        told = str(error)
    (folder / f"told{rank}").write_text(told)
    dist.destroy_process_group()


@pytest.mark.flaky(reruns=2)  # torch's processes abort at their end now and then
@pytest.mark.parametrize("same", [False, True])
def test_processes_that_find_other_states_end_with_a_word(same: bool, tmp_path: Path) -> None:
    for rank in (0, 1) if same else (0,):
        model, work = tiny_model(None), tmp_path / str(rank)
        train_dynamics(model, linear_windows(model), DYNAMICS, work, progress=False)
    assert (tmp_path / "0" / FILE).is_file()
    multiprocessing.spawn(resume_apart, (tmp_path, tmp_path / "meeting"), nprocs=2)
    for rank in (0, 1):
        told = (tmp_path / f"told{rank}").read_text()
        if same:
            assert told == "nothing"
        else:
            assert told.endswith(
                "the processes found a state at step 0 and one at step 4; "
                "one folder that all of them see expected"
            )
