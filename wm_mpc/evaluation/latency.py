"""Where a tick's time goes, and how far from the machine's limits: the latency report.

A tick is timed piece by piece on one thread, as the node does it: decode a compressed picture,
encode it, plan a fixed number of iterations, filter the command. Beside the percentiles stand the
arithmetic and the bytes of a tick and what this machine can do at best, measured by a large
matrix product and a large copy. CEM with 300 samples and 30 iterations runs in the same process.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from wm_mpc.core.clock import Clock, device_clock
from wm_mpc.models.config import WorldModelConfig
from wm_mpc.models.dinov2 import Dinov2, Dinov2Config
from wm_mpc.models.encoder import DinoEncoder
from wm_mpc.models.world_model import WorldModel
from wm_mpc.planners import Plan, Planner, PlanRequest
from wm_mpc.planners.budget import CemReference
from wm_mpc.planners.kernels.autograd import AutogradKernel
from wm_mpc.planners.objective import ObjectiveConfig, make_objective
from wm_mpc.planners.registry import make_planner, planner_config

PERCENTILES = (50, 95, 99)


@dataclass(frozen=True)
class LatencySettings:
    """What is timed.

    Attributes:
        planner: registry name of a gradient planner.
        iterations: of the planner per tick.
        starts: plans descended in parallel; 0: the planner's own number.
        ticks: timed ticks of a row.
        seconds: [s] after which a row ends with fewer ticks; at least three are timed.
        cem_seconds: [s] that timing CEM takes at most; a slower one is scaled up from fewer
            iterations.
        kernel: ``auto`` (the fastest), ``compiled`` or ``eager``.
    """

    planner: str = "adam"
    iterations: int = 20
    starts: int = 0
    ticks: int = 3000
    seconds: float = 60.0
    cem_seconds: float = 10.0
    kernel: str = "auto"


def full_size_model(device: str | torch.device, image_size: int = 196) -> WorldModel:
    """A world model of DINO-WM's size (arXiv 2411.04983, app. A.9) with random weights.

    DINOv2 ViT-S/14 on 196 x 196 px gives 14 x 14 tokens of 384 channels; the predictor has 20
    million weights and a history of 3 frames. Random weights cost what trained ones do.
    """
    torch.manual_seed(0)
    encoder_config = Dinov2Config(
        hidden_size=384,
        num_hidden_layers=12,
        num_attention_heads=6,
        patch_size=14,
        image_size=image_size,
    )
    encoder = DinoEncoder(Dinov2(encoder_config), image_size, "random")
    config = WorldModelConfig(
        task="pusht",
        action_dim=2,
        proprio_dim=4,
        frameskip=5,
        control_period=0.1,
        action_low=(-1.0, -1.0),
        action_high=(1.0, 1.0),
        projector="identity",
        visual_dim=384,
        proprio_embed=10,
        predictor="vit",
        predictor_args={"width": 2048, "depth": 6, "heads": 16, "head_dim": 64, "history": 3},
    )
    return WorldModel(config, encoder).to(device).eval().requires_grad_(False)


def compact_model(predictor: str, device: str | torch.device = "cpu") -> WorldModel:
    """A world model over compact latents with a random predictor: ``gru`` or ``vit``."""
    torch.manual_seed(0)
    arguments = {
        "gru": {"width": 256},
        "vit": {"width": 256, "depth": 3, "heads": 4, "head_dim": 32},
    }[predictor]
    config = WorldModelConfig(
        task="pusht",
        action_dim=2,
        proprio_dim=4,
        frameskip=5,
        control_period=0.1,
        action_low=(-1.0, -1.0),
        action_high=(1.0, 1.0),
        visual_dim=32,
        predictor=predictor,
        predictor_args=arguments,
    )
    model = WorldModel(config, None, num_tokens=64, channels=64)
    for weight in model.predictor.parameters():
        torch.nn.init.normal_(weight, std=0.05)
    return model.to(device).eval().requires_grad_(False)


def roofline(device: torch.device, seconds: float = 2.0) -> dict[str, float]:
    """What the machine does at best: products per second and bytes copied per second.

    Returns:
        ``float32_flops``, on a GPU ``bfloat16_flops`` too, and ``copy_bytes`` per second (bytes
        read and written), the best of several runs.
    """
    clock = device_clock(device)
    gpu = device.type == "cuda"
    side = 8192 if gpu else 1024

    def best(run: Callable[[], Any]) -> float:
        run()
        times, until = [], time.monotonic() + seconds / 3
        while len(times) < 3 or time.monotonic() < until:
            begun = clock()
            run()
            times.append(clock() - begun)
        return min(times)

    found = {}
    for dtype in (torch.float32, torch.bfloat16) if gpu else (torch.float32,):
        a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        name = str(dtype).removeprefix("torch.")
        found[f"{name}_flops"] = 2.0 * side**3 / best(lambda a=a, b=b: a @ b)
    source = torch.ones((1 << 30 if gpu else 1 << 26) // 4, device=device)
    target = torch.empty_like(source)
    found["copy_bytes"] = 2.0 * source.numel() * 4 / best(lambda: target.copy_(source))
    return found


def percentiles(seconds: list[float]) -> dict[str, float]:
    """p50, p95, p99 and maximum [ms], and how many."""
    values = 1e3 * np.asarray(seconds)
    found = {f"p{q}": float(np.percentile(values, q)) for q in PERCENTILES}
    return found | {"max": float(values.max()), "n": len(values)}


def build_planner(model: WorldModel, settings: LatencySettings) -> Planner:
    """The planner of a row, prepared; it never stops early."""
    options: dict[str, Any] = {"iterations": settings.iterations}
    options["chunk"] = min(10, settings.iterations)
    if settings.starts:
        options["starts"] = settings.starts
    config = planner_config(settings.planner, **options)
    objective = make_objective(model, ObjectiveConfig())
    clock = device_clock(model.action_mean.device)
    planner = make_planner(
        settings.planner, model, objective, config, clock, settings.kernel != "eager"
    )
    if settings.kernel == "compiled" and hasattr(planner.kernel, "unrecorded"):
        planner.kernel.unrecorded = "not asked for"
    planner.prepare()
    return planner


def work_of(planner: Planner, latent: Tensor, goal: Tensor, iterations: int) -> dict[str, float]:
    """Arithmetic and least traffic of a plan.

    Products are counted in one eager iteration. The traffic is that of the weights, once per
    model step forward and once backward: what no cache can save a model that fits none.
    """
    kernel = AutogradKernel(planner.model, planner.objective)
    rows = getattr(planner.config, "starts", getattr(planner.config, "samples", 1))
    x = torch.zeros(rows, *planner.shape, device=planner.device)
    with FlopCounterMode(display=False) as counter:
        if hasattr(planner.config, "learning_rate"):
            kernel.cost_and_grad(latent, goal, x)
        elif hasattr(planner.config, "samples"):
            kernel.cost(latent, goal, x)
        else:
            z = latent.expand(rows * planner.horizon, *latent.shape)
            weights = torch.ones(2, len(z), device=planner.device)
            kernel.transitions(z, x.flatten(0, 1), z, goal, *weights, False)
    weights = sum(p.numel() * p.element_size() for p in planner.model.predictor.parameters())
    passes = 2 * planner.horizon
    flop = float(counter.get_total_flops()) * iterations
    return {"flop": flop, "weight_bytes": float(weights) * passes * iterations}


def timed_tick(
    model: WorldModel,
    camera: Camera,
    planner: Planner,
    request: PlanRequest,
    limits: tuple[np.ndarray, np.ndarray],
    clock: Clock,
) -> tuple[Plan, Tensor, list[float]]:
    """One tick: the plan, what was seen ``L``, and the instants between its parts [s].

    Args:
        model: world model.
        camera: source of the picture.
        planner: planner of the model.
        request: the call; its latent is used where there is no encoder.
        limits: bounds of a command.
        clock: of the instants.
    """
    times, latent = [clock()], request.latent
    picture = camera.decode()
    times.append(clock())
    if model.encoder is not None:
        latent = camera.encode(picture)
    times.append(clock())
    plan = planner.plan(dataclasses.replace(request, latent=latent))
    times.append(clock())
    raw = model.denormalize_actions(plan.actions).cpu().double().numpy()
    np.clip(raw[0], *limits)
    times.append(clock())
    return plan, latent, times


def measure_latency(
    model: WorldModel,
    settings: LatencySettings,
    roof: dict[str, float] | None = None,
    image: np.ndarray | None = None,
) -> dict[str, Any]:
    """Time one model on its device.

    Args:
        model: world model; without an encoder, encoding is not timed.
        settings: what to time.
        roof: ``roofline`` of the device; None: measure it.
        image: uint8 ``(H, W, 3)``; None: noise of the encoder's size.

    Returns:
        A row of the report: ``parts`` in milliseconds, ``per_iteration_ms``, ``kernel``, ``flop``
        and the shares of the roofline, the CEM reference and the ratio to it.
    """
    device = model.action_mean.device
    roof = roof or roofline(device)
    clock = device_clock(device)
    planner = build_planner(model, settings)
    camera = Camera(model, image)
    generator = torch.Generator().manual_seed(0)
    goal = torch.randn(model.latent_shape, generator=generator).to(device)
    latent = camera.latent(generator).to(device)
    warm = torch.zeros(planner.shape, device=device)
    parts: dict[str, list[float]] = {
        name: [] for name in ("decode", "encode", "plan", "filter", "tick")
    }
    until = None
    limits = command_limits(model)
    tick = 0
    while tick < settings.ticks + 3:
        request = PlanRequest(latent, goal, warm_start=warm, seed=tick)
        plan, latent, times = timed_tick(model, camera, planner, request, limits, clock)
        warm = plan.actions
        tick += 1
        if tick <= 3:  # these fill caches
            until = time.monotonic() + settings.seconds
            continue
        for name, begun, ended in zip(parts, times, times[1:], strict=False):
            parts[name].append(ended - begun)
        parts["tick"].append(times[-1] - times[0])
        if tick >= 6 and time.monotonic() > until:
            break
    work = work_of(planner, latent, goal, settings.iterations)
    plan_s = float(np.median(parts["plan"]))
    reference, samples = cem_reference(model, planner, settings, clock)
    kind = "bfloat16_flops" if "bfloat16" in planner.kernel.name else "float32_flops"
    bound = max(work["flop"] / roof[kind], work["weight_bytes"] / roof["copy_bytes"])
    return {
        "planner": settings.planner,
        "device": str(device),
        "threads": torch.get_num_threads(),
        "kernel": planner.kernel.name,
        "compile_s": getattr(planner.kernel, "compile_s", 0.0),
        "latent_shape": list(model.latent_shape),
        "predictor_weights": sum(p.numel() for p in model.predictor.parameters()),
        "starts": getattr(planner.config, "starts", 0),
        "horizon": planner.horizon,
        "iterations": plan.iterations,
        "parts": {name: percentiles(values) for name, values in parts.items()},
        "per_iteration_ms": 1e3 * plan_s / max(1, plan.iterations),
        **work,
        "roofline_s": bound,
        "roofline_share": bound / plan_s,
        "cem_reference": reference.as_dict() | {"measured_samples": samples},
        "cem_ratio": plan_s / reference.seconds,
        "final_cost": plan.cost if math.isfinite(plan.cost) else None,
        "settings": dataclasses.asdict(settings),
    }


def cem_reference(
    model: WorldModel, planner: Planner, settings: LatencySettings, clock: Clock
) -> tuple[CemReference, int]:
    """Time CEM with 300 samples and 30 iterations, and how many samples an iteration really had.

    A model of which four iterations take longer than allowed is timed on as few samples as the
    planner has starts, and scaled up.
    """
    full = planner_config("cem")
    rows = max(1, getattr(planner.config, "starts", 1))
    plans = torch.zeros(rows, *planner.shape, device=planner.device)
    latent = torch.zeros(model.latent_shape, device=planner.device)
    times = []
    for _ in range(3):
        begun = clock()
        planner.kernel.cost(latent, latent + 1, plans)
        times.append(clock() - begun)
    iteration = min(times) * full.samples / rows
    on_cpu = planner.device.type == "cpu"
    if on_cpu and 4 * iteration > settings.cem_seconds:
        return CemReference(
            seconds=iteration * full.iterations,
            transitions=full.samples * full.iterations * planner.horizon,
            repeats=len(times),
            measured_iterations=1,
            iterations=full.iterations,
            device=planner.device.type,
            threads=torch.get_num_threads(),
        ), rows
    reference = CemReference.calibrate(
        model, planner.objective, clock, settings.kernel != "eager", 1, settings.cem_seconds
    )
    return reference, full.samples


class Camera:
    """A compressed picture, and what happens to it before planning.

    Args:
        model: world model.
        image: uint8 ``(H, W, 3)``; None: noise of the encoder's size.
    """

    def __init__(self, model: WorldModel, image: np.ndarray | None = None) -> None:
        self.model = model
        side = model.encoder.image_size if model.encoder is not None else 96
        if image is None:
            image = np.random.default_rng(0).integers(0, 255, (side, side, 3), np.uint8)
        self.image = image
        self.proprio = np.zeros((1, model.config.proprio_dim), np.float32)
        self.packed = b""
        try:
            import cv2
        except ImportError:
            self.cv2 = None
        else:
            self.cv2 = cv2
            self.packed = cv2.imencode(".jpg", image)[1]

    def decode(self) -> np.ndarray:
        """The picture, uint8 ``(H, W, 3)``; without OpenCV as it is."""
        if self.cv2 is None:
            return self.image
        return self.cv2.imdecode(self.packed, self.cv2.IMREAD_COLOR)

    def encode(self, picture: np.ndarray) -> Tensor:
        """Latent ``L`` of a picture."""
        device = self.model.action_mean.device
        with torch.no_grad():
            pixels = torch.from_numpy(picture[None]).to(device)
            return self.model.encode(pixels, torch.from_numpy(self.proprio).to(device))[0]

    def latent(self, generator: torch.Generator) -> Tensor:
        """A random latent, for models without an encoder."""
        return torch.randn(self.model.latent_shape, generator=generator)


def command_limits(model: WorldModel) -> tuple[np.ndarray, np.ndarray]:
    """Raw bounds of a command."""
    return np.asarray(model.config.action_low), np.asarray(model.config.action_high)


def latency_table(rows: list[dict[str, Any]]) -> str:
    """Markdown table of rows."""
    head = ("model", "device", "planner", "kernel", "starts", "iterations", "n", "decode",
            "encode", "plan p50", "tick p50", "p95", "p99", "max", "ms/iteration", "TFLOP",
            "of roofline", "CEM s", "ratio to CEM")  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        parts, tick = row["parts"], row["parts"]["tick"]
        cem = row["cem_reference"]
        cells = (
            row.get("model", ""), row["device"], row["planner"], row["kernel"], row["starts"],
            row["iterations"], tick["n"], f"{parts['decode']['p50']:.2f}",
            f"{parts['encode']['p50']:.2f}", f"{parts['plan']['p50']:.2f}",
            *(f"{tick[k]:.2f}" for k in ("p50", "p95", "p99", "max")),
            f"{row['per_iteration_ms']:.3f}", f"{row['flop'] / 1e12:.3g}",
            f"{100 * row['roofline_share']:.0f} %",
            f"{cem['seconds']:.3g}{' (scaled)' if cem['scaled'] else ''}",
            f"{row['cem_ratio']:.3f}",
        )  # fmt: skip
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines)


def way_table(way: dict[str, Any]) -> str:
    """Markdown table of what ``wm_mpc.trials.gate_delay.measure_gate_delay`` found."""
    names = {
        "gate_ms": "gate: request sent to command sent",
        "wire_ms": "wire: one hop of DDS between two processes",
        "through_ms": "both: request to command",
        "inside_ms": "in the gate's callback",
    }
    keys = ("p50", "p95", "p99", "max")
    lines = ["| over DDS, ms | n | " + " | ".join(keys) + " |", "|" + "---|" * (len(keys) + 2)]
    for part, name in names.items():
        cells = (name, way[part]["n"], *(f"{way[part][key]:.2f}" for key in keys))
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines)


__all__ = [
    "LatencySettings",
    "compact_model",
    "full_size_model",
    "latency_table",
    "measure_latency",
    "roofline",
    "way_table",
]
