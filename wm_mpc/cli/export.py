"""``wm-mpc export``: what a camera picture goes through, as ONNX, for TensorRT and other runtimes.

The file takes uint8 RGB pictures as the camera gives them; resizing and normalisation are inside.
It yields either the encoder's patch tokens or, with a world model, the latent that planning
happens in. Where onnxruntime is installed, the file is compared with torch before it is kept.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wm_mpc import __version__
from wm_mpc.control.observation import MIN_SIDE
from wm_mpc.core.errors import UserError
from wm_mpc.core.fields import Checked, NonNegativeInt, PositiveFloat
from wm_mpc.core.files import write_together
from wm_mpc.core.provenance import write_report
from wm_mpc.models.encoder import DinoEncoder
from wm_mpc.models.identity import fingerprint, perception_hash
from wm_mpc.models.world_model import WorldModel

OPSET = 18
"""Operator set of the files: what torch's exporter writes without converting."""
_PROTOBUF_LIMIT = 2_000_000_000
"""Bytes above which weights must lie in a file of their own: protobuf ends at 2 GiB."""


@dataclass(frozen=True)
class Config(Checked):
    """Write the encoder, or picture + proprioception -> latent, as ONNX.

    Attributes:
        model: world-model folder; the file yields its latents.
        encoder: transformers DINO folder or hub id, instead of a model; the file yields tokens.
        out: file to write; ends in .onnx.
        output: "tokens" leaves projector and proprioception of a model out; default: "latent" with
            --model, "tokens" with --encoder.
        image_shape: [px] height and width of the pictures; default: the encoder's own input size.
        batch: pictures per call; 0: any number.
        tolerance: largest deviation from torch, as a share of the output's RMS.
        seed: seed of the pictures that are compared.
        report: JSON file to write.
    """

    model: Path | None = None
    encoder: str | None = None
    out: Path = Path("encoder.onnx")
    output: Literal["tokens", "latent"] | None = None
    image_shape: tuple[int, int] | None = None
    batch: NonNegativeInt = 1
    tolerance: PositiveFloat = 1e-3
    seed: NonNegativeInt = 0
    report: Path | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.model is None) == (self.encoder is None):
            given = "none" if self.model is None else "both"
            raise UserError(f"model: {given} of --model, --encoder given; one expected")
        if self.output == "latent" and self.model is None:
            raise UserError(
                "output: 'latent' without --model; only 'tokens' comes from an encoder"
            )
        if self.out.suffix != ".onnx" or self.out.is_dir():
            raise UserError(f"out: {self.out}; a file that ends in .onnx expected")
        if self.image_shape is not None and min(self.image_shape) < MIN_SIDE:
            height, width = self.image_shape
            raise UserError(
                f"image_shape: {height} x {width} px; at least {MIN_SIDE} x {MIN_SIDE} expected"
            )


class Perception(nn.Module):
    """What is exported: uint8 RGB ``(B, H, W, 3)``, raw proprioception ``(B, P)`` -> output.

    The same numbers as ``DinoEncoder`` and ``WorldModel.encode``, in operators that every runtime
    has: an anti-aliased ``Resize`` is refused by TensorRT 10 and silently done without the
    anti-aliasing by TensorRT 8, so resizing is two matrix products. The cast comes first because
    TensorRT takes uint8 at an input only.

    Args:
        encoder: frozen encoder.
        model: projector and proprioception; None: the output is the encoder's tokens.
        image_shape: [px] height and width of the pictures.
    """

    def __init__(
        self, encoder: DinoEncoder, model: WorldModel | None, image_shape: tuple[int, int]
    ) -> None:
        super().__init__()
        self.encoder, self.model = encoder, model
        self.image_shape = image_shape
        self.proprio_dim = model.config.proprio_dim if model is not None else 0
        height, width = (resize_matrix(side, encoder.image_size) for side in image_shape)
        self.register_buffer("rows", height, persistent=False)
        self.register_buffer("columns", width.T.contiguous(), persistent=False)

    @property
    def input_names(self) -> list[str]:
        """``images`` and, where there is proprioception, ``proprio``."""
        return ["images", "proprio"] if self.proprio_dim else ["images"]

    @property
    def output_name(self) -> str:
        """``tokens`` or ``latent``."""
        return "tokens" if self.model is None else "latent"

    def forward(self, images: Tensor, proprio: Tensor | None = None) -> Tensor:
        """Tokens ``(B, N, C)`` or latents ``(B, *L)``."""
        x = images.float().permute(0, 3, 1, 2)
        size = self.encoder.image_size
        if self.image_shape != (size, size):
            x = self.rows @ x @ self.columns
        tokens = self.encoder.tokens((x - self.encoder.mean) / self.encoder.std)
        if self.model is None:
            return tokens
        visual = self.model.project(tokens)
        return visual if proprio is None else self.model.join(visual, proprio)

    def examples(self, batch: int, seed: int) -> tuple[Tensor, ...]:
        """Random inputs for ``batch`` pictures: coloured blocks, proprioception as trained."""
        rng = torch.Generator().manual_seed(seed)
        blocks = torch.rand(batch, 3, 6, 6, generator=rng) * 255
        images = F.interpolate(blocks, self.image_shape).permute(0, 2, 3, 1).to(torch.uint8)
        if self.model is None or not self.proprio_dim:
            return (images.contiguous(),)
        spread = torch.randn(batch, self.proprio_dim, generator=rng)
        return images.contiguous(), self.model.proprio_mean + spread * self.model.proprio_std


def resize_matrix(old: int, new: int) -> Tensor:
    """Anti-aliased bilinear resizing along one axis as a matrix ``(new, old)``."""
    unit = torch.eye(old)[None, None]  # column i is 1 at row i; only the rows are resized
    resized = F.interpolate(unit, (new, old), mode="bilinear", antialias=True, align_corners=False)
    return resized[0, 0]


def load(config: Config) -> Perception:
    """Load and join what a configuration names.

    Raises:
        CheckpointError: a folder that cannot be trusted.
    """
    model = None if config.model is None else WorldModel.load(config.model)
    encoder = DinoEncoder.load(config.encoder) if model is None else model.encoder
    shape = config.image_shape or (encoder.image_size, encoder.image_size)
    if config.output == "tokens":
        model = None
    return Perception(encoder, model, shape).eval()


def write_onnx(graph: Perception, out: Path, batch: int, facts: dict[str, str]) -> None:
    """Write ``graph`` to ``out``; weights beyond protobuf's limit go to ``out`` + ``.data``.

    Args:
        graph: what to export.
        out: file to write; its folder exists.
        batch: pictures per call; 0: any number.
        facts: metadata stored in the file.
    """
    # an example of one picture would make the exporter take the axis for a constant
    examples = graph.examples(batch or 2, seed=0)
    any_batch = {0: torch.export.Dim("batch", min=1)}
    weights = sum(p.numel() * p.element_size() for p in graph.parameters())
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            graph, examples, dynamo=True, opset_version=OPSET, verbose=False,
            input_names=graph.input_names, output_names=[graph.output_name],
            dynamic_shapes=None if batch else tuple(any_batch for _ in examples),
        )  # fmt: skip
        program.model.metadata_props.update(facts)
        program.save(out, external_data=weights > _PROTOBUF_LIMIT)


def deviation(graph: Perception, file: Path, batch: int, seed: int) -> float | None:
    """Largest deviation of onnxruntime from torch, as a share of the output's RMS.

    Args:
        graph: what the file was written from.
        file: ONNX file.
        batch: pictures per call; 0: several numbers of them are tried.
        seed: seed of the pictures.

    Returns:
        None where onnxruntime is not installed.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    worst = 0.0
    for count in (batch,) if batch else (1, 3):
        inputs = graph.examples(count, seed)
        with torch.no_grad():
            expected = graph(*inputs).numpy()
        feed = {name: value.numpy() for name, value in zip(graph.input_names, inputs, strict=True)}
        (found,) = session.run([graph.output_name], feed)
        # a shape that differs must not slip through by broadcasting
        if found.shape != expected.shape or not np.isfinite(found).all():
            return float("inf")
        worst = max(worst, float(np.abs(found - expected).max() / np.sqrt((expected**2).mean())))
    return worst


def run(config: Config) -> int:
    """Export, compare, keep the file; the exit code: 1 when the file does not do what torch does.

    Raises:
        UserError: something that was named cannot be loaded.
        ImportError: an exporter package is missing.
    """
    import onnx
    import onnxscript  # noqa: F401  torch's exporter needs it and would say so in many lines

    graph = load(config)
    facts = _facts(graph)
    config.out.parent.mkdir(parents=True, exist_ok=True)
    # nobody finds a file that was not compared
    with tempfile.TemporaryDirectory(prefix=".export-", dir=config.out.parent) as folder:
        file = Path(folder) / config.out.name
        write_onnx(graph, file, config.batch, facts)
        onnx.checker.check_model(file)
        error = deviation(graph, file, config.batch, config.seed)
        if error is not None and not error <= config.tolerance:
            print(
                f"wm-mpc: error: {config.out}: differs from torch by {error:.1e} of the output's "
                f"RMS; at most {config.tolerance:g} (tolerance) expected; not written",
                file=sys.stderr,
            )
            return 1
        size = sum(part.stat().st_size for part in Path(folder).iterdir())
        parts = sorted(Path(folder).iterdir(), reverse=True)  # weights before the graph
        write_together(config.out.parent, {part.name: part.replace for part in parts})
    print(f"{config.out}: {signature(graph, config.batch)}, {size / 1e6:.1f} MB")
    if error is None:
        print("not compared with torch: pip install 'wm-mpc[export]' brings onnxruntime")
    else:
        print(f"differs from torch by at most {error:.1e} of the output's RMS")
    if config.report is not None:
        row = {
            **facts,
            "file": config.out,
            "bytes": size,
            "batch": config.batch,
            "opset": OPSET,
            "max_deviation": error,
        }
        write_report(config.report, config.seed, [row])
    return 0


def signature(graph: Perception, batch: int) -> str:
    """Inputs and output for people: ``images uint8 (1, 96, 96, 3) -> tokens (1, 64, 128)``."""
    names = graph.input_names
    inputs = graph.examples(1, seed=0)
    with torch.no_grad():
        output = graph(*inputs)

    def shape(value: Tensor) -> str:
        return f"({', '.join(str(n) for n in (batch or 'B', *value.shape[1:]))})"

    said = [
        f"{name} {str(value.dtype).removeprefix('torch.')} {shape(value)}"
        for name, value in zip(names, inputs, strict=True)
    ]
    return f"{', '.join(said)} -> {graph.output_name} {shape(output)}"


def _facts(graph: Perception) -> dict[str, str]:
    """What a deployment must know to trust the file; ONNX metadata are text."""
    facts = {
        "wm_mpc": __version__,
        "encoder": fingerprint(graph.encoder),
        "image_shape": "x".join(map(str, graph.image_shape)),
        "output": graph.output_name,
    }
    if graph.model is not None:
        facts |= {"task": graph.model.config.task, "model": graph.model.hash}
        facts["perception"] = perception_hash(graph.model)
    return facts


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's remarks on its own insides from the user's screen."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


__all__ = ["Config", "Perception", "deviation", "load", "resize_matrix", "run", "write_onnx"]
