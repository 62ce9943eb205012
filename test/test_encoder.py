"""The frozen encoder: DINOv2 and DINOv3 folders of transformers, and what can be wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import TINY_IMAGE, tiny_encoder

from wm_mpc.core.errors import CheckpointError
from wm_mpc.core.locations import ASSETS
from wm_mpc.models.encoder import IMAGENET_MEAN, IMAGENET_STD, DinoEncoder
from wm_mpc.models.identity import fingerprint

PATCH = 8


def pictures(count: int = 2, size: int = TINY_IMAGE) -> torch.Tensor:
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (count, size, size, 3), np.uint8))


def registers(folder: Path) -> DinoEncoder:
    """DINOv2 with registers."""
    from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    torch.manual_seed(0)
    config = Dinov2WithRegistersConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, mlp_ratio=2,
        image_size=TINY_IMAGE, patch_size=PATCH, num_register_tokens=4,
    )  # fmt: skip
    Dinov2WithRegistersModel(config).save_pretrained(folder)
    return DinoEncoder.load(folder)


def dino_v3(folder: Path) -> DinoEncoder:
    """DINOv3: rotary positions and register tokens."""
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    torch.manual_seed(0)
    config = DINOv3ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        image_size=TINY_IMAGE, patch_size=PATCH, num_register_tokens=4,
    )  # fmt: skip
    DINOv3ViTModel(config).save_pretrained(folder)
    return DinoEncoder.load(folder)


@pytest.mark.parametrize("build", [tiny_encoder, registers, dino_v3])
def test_every_layout_gives_its_patches_in_place(build: object, tmp_path: Path) -> None:
    encoder = build(tmp_path)
    assert (encoder.grid, encoder.num_tokens, encoder.dim) == (4, 16, 16)
    blank = torch.zeros(1, TINY_IMAGE, TINY_IMAGE, 3, dtype=torch.uint8)
    marked = blank.clone()
    row, column = 2, 1
    marked[:, row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH] = 255
    change = (encoder(marked) - encoder(blank)).norm(dim=-1)[0]
    assert change.shape == (16,)
    # the marked patch is the one that changes most, so no class or register token slipped in
    assert int(change.argmax()) == row * 4 + column


def test_patches_are_the_last_tokens(tmp_path: Path) -> None:
    encoder = registers(tmp_path)
    hidden = encoder.backbone(pixel_values=encoder.preprocess(pictures())).last_hidden_state
    assert hidden.shape[1] == 1 + 4 + 16
    assert torch.equal(encoder(pictures()), hidden[:, 5:])


def test_preprocessing_is_imagenets(tmp_path: Path) -> None:
    encoder = tiny_encoder(tmp_path)
    white = torch.full((1, TINY_IMAGE, TINY_IMAGE, 3), 255, dtype=torch.uint8)
    found = encoder.preprocess(white)[0, :, 0, 0]
    expected = (1 - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_STD)
    assert torch.allclose(found, expected, atol=1e-5)


def test_pictures_of_another_size_are_resized(tmp_path: Path) -> None:
    encoder = tiny_encoder(tmp_path)
    grey = torch.full((1, 50, 50, 3), 90, dtype=torch.uint8)
    same = torch.full((1, TINY_IMAGE, TINY_IMAGE, 3), 90, dtype=torch.uint8)
    assert torch.allclose(encoder(grey), encoder(same), atol=1e-4)


def test_it_is_frozen_and_deterministic(tmp_path: Path) -> None:
    encoder = tiny_encoder(tmp_path)
    assert not any(p.requires_grad for p in encoder.parameters())
    assert not encoder(pictures()).requires_grad
    assert torch.equal(encoder(pictures()), DinoEncoder.load(tmp_path)(pictures()))


def test_pixels_have_gradients(tmp_path: Path) -> None:
    encoder = tiny_encoder(tmp_path)
    pixels = encoder.preprocess(pictures()).requires_grad_()
    encoder.tokens(pixels).square().mean().backward()
    assert pixels.grad is not None and pixels.grad.abs().max() > 0


def test_another_input_size_changes_the_grid(tmp_path: Path) -> None:
    tiny_encoder(tmp_path)
    larger = DinoEncoder.load(tmp_path, image_size=48)
    assert larger(pictures()).shape == (2, 36, 16)


def test_dinov2_is_read_as_transformers_reads_it(tmp_path: Path) -> None:
    from transformers import AutoModel

    tiny_encoder(tmp_path)
    for folder in (tmp_path, ASSETS / "encoder"):
        ours = DinoEncoder.load(folder)
        theirs = AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
        reference = DinoEncoder(theirs, ours.image_size)
        assert torch.allclose(ours(pictures()), reference(pictures()), atol=1e-5)
        # one digest, so that statistics of latents stay valid whichever read the folder
        assert fingerprint(ours) == fingerprint(reference)
        side = 2 * ours.image_size
        one, other = (DinoEncoder(e.backbone, side)(pictures()) for e in (ours, reference))
        assert torch.allclose(one, other, atol=1e-4), "interpolated positions"


def test_dinov2_needs_no_transformers_and_others_say_so(tmp_path: Path) -> None:
    registers(tmp_path / "registers")
    code = (
        "import sys; sys.modules['transformers'] = None\n"
        "from wm_mpc.core.locations import ASSETS\n"
        "from wm_mpc.models.encoder import DinoEncoder\n"
        "print(DinoEncoder.load(ASSETS / 'encoder').num_tokens)\n"
        f"DinoEncoder.load({str(tmp_path / 'registers')!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "64\n"
    assert "pip install 'wm-mpc[encoders]'" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    tiny_encoder(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(CheckpointError, match=f"lacks {name}"):
        DinoEncoder.load(tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere does not exist"):
        DinoEncoder.load(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_truncated_file_is_one_line(name: str, tmp_path: Path) -> None:
    tiny_encoder(tmp_path)
    file = tmp_path / name
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(CheckpointError, match="encoder: cannot load") as error:
        DinoEncoder.load(tmp_path)
    assert "\n" not in str(error.value)


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    tiny_encoder(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"hidden_size": 32}))
    with pytest.raises(CheckpointError, match="encoder: cannot load"):
        DinoEncoder.load(tmp_path)


def test_the_size_must_fit_the_patches(tmp_path: Path) -> None:
    tiny_encoder(tmp_path)
    with pytest.raises(
        CheckpointError, match="image_size: 30 px is no multiple of the patch size 8"
    ):
        DinoEncoder.load(tmp_path, image_size=30)


def test_a_fingerprint_is_that_of_the_weights_whatever_a_release_calls_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read() -> DinoEncoder:
        return DinoEncoder.load(tmp_path / "encoder")

    tiny_encoder(tmp_path / "encoder")
    known, earlier, other = read(), read(), read()
    names = {"q_proj": "attention.query", "k_proj": "attention.key",
             "v_proj": "attention.value", "o_proj": "output.dense"}  # fmt: skip
    weights = {}
    for name, value in earlier.backbone.state_dict().items():
        for now, before in names.items():
            name = name.replace(f".{now}.", f".{before}.")
        weights[name] = value
    assert weights.keys() != known.backbone.state_dict().keys()
    monkeypatch.setattr(earlier.backbone, "state_dict", lambda: weights)
    with torch.no_grad():
        next(other.backbone.parameters()).add_(1e-3)
    assert fingerprint(earlier) == fingerprint(known) != fingerprint(other)


def test_the_fingerprint_of_the_bundled_encoder_is_the_one_that_models_were_made_with() -> None:
    assert fingerprint(DinoEncoder.load(ASSETS / "encoder")) == "76b3022057eb"
