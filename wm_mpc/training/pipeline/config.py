"""What ``wm-mpc train`` can be told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Gt, Le
from tyro.conf import Suppress

from wm_mpc.core.errors import UserError
from wm_mpc.core.fields import (
    Checked,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)
from wm_mpc.core.locations import ASSETS
from wm_mpc.tasks.registry import task_names
from wm_mpc.training.dynamics.decoder import DecoderTraining
from wm_mpc.training.dynamics.latent import DynamicsConfig
from wm_mpc.training.dynamics.patch import PatchConfig
from wm_mpc.training.encoder.dino import DinoConfig
from wm_mpc.training.finetune.selection import SelectionConfig
from wm_mpc.training.projector.joint import JointConfig
from wm_mpc.training.projector.landmarks import LandmarkConfig


@dataclass(frozen=True)
class EncoderTraining:
    """Pre-train a small DINO encoder on the frames of one or more stores.

    Attributes:
        data: store folders; every store contributes equally often.
        out: folder of the encoder, in the ``transformers`` layout.
        dino: sizes and schedule.
    """

    data: tuple[Path, ...]
    out: Path
    dino: DinoConfig = field(default_factory=DinoConfig)


@dataclass(frozen=True)
class DecoderForModel(Checked):
    """Train a decoder for a finished world model; it draws what the model imagines.

    Attributes:
        model: world-model folder; ``decoder.safetensors`` is written into it.
        data: store folder.
        frames: most frames to train on.
        device: ``cpu`` or ``cuda``.
        threads: CPU threads; 0: torch's own choice.
        seed: of weights and batches.
        decoder: sizes and schedule.
    """

    model: Path
    data: Path
    frames: PositiveInt = 8000
    device: str = "cpu"
    threads: NonNegativeInt = 0
    seed: NonNegativeInt = 0
    decoder: DecoderTraining = field(default_factory=lambda: DecoderTraining(steps=6000))

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "decoder", replace(self.decoder, seed=self.seed))


@dataclass(frozen=True)
class ProposalsForModel(Checked):
    """Train a network that guesses plans from start and goal; planners refine its guesses.

    ``proposals.safetensors`` is written into the model's folder. It fits every model with the
    same latents, so fine-tuned ones too.

    Attributes:
        model: world-model folder.
        data: store folder.
        kind: ``inverse``: the next action for the time that is left, carried on by the model;
            ``init``: all actions at once.
        horizon: model steps of the plans.
        steps: optimiser steps.
        batch: windows per step.
        width: hidden units.
        augment: move windows by the symmetries of the task's workspace; for landmark latents.
        tokens: folder of the store's token cache, filled where it is not complete; default: no
            cache, the frames of the chosen episodes are encoded.
        episodes: so many episodes, spread evenly over the store; 0: all.
        threads: CPU threads; 0: torch's own choice.
        seed: of weights and batches.
    """

    model: Path
    data: Path
    kind: Literal["inverse", "init"] = "inverse"
    horizon: PositiveInt = 5
    steps: PositiveInt = 16000
    batch: PositiveInt = 256
    width: PositiveInt = 384
    augment: bool = False
    tokens: Path | None = None
    episodes: NonNegativeInt = 0
    threads: NonNegativeInt = 0
    seed: NonNegativeInt = 0


@dataclass(frozen=True)
class SubgoalsForModel(Checked):
    """Join a store's frames to a graph of latents, through which far goals are approached.

    ``subgoals.safetensors`` is written into the model's folder. It fits every model with the same
    latents, so fine-tuned ones too.

    Attributes:
        model: world-model folder, of compact latents.
        data: store folder.
        frames: at most so many frames, of whole episodes.
        radius: model steps that frames of different episodes may be apart to be joined.
        tokens: folder of the store's token cache, filled where it is not complete; default: no
            cache, the frames are encoded.
        threads: CPU threads; 0: torch's own choice.
    """

    model: Path
    data: Path
    frames: PositiveInt = 30000
    radius: PositiveFloat = 1.0
    tokens: Path | None = None
    threads: NonNegativeInt = 0


@dataclass(frozen=True)
class ValidationConfig(Checked):
    """A look at the trained model, as ``wm-mpc validate`` takes it, on the held-out episodes.

    Attributes:
        frames: most frames whose latent and true distances are ranked; 0: no validation.
        windows: most windows predicted open loop.
    """

    section = "validation."

    frames: NonNegativeInt = 400
    windows: PositiveInt = 60


@dataclass(frozen=True)
class WorldModelTraining(Checked):
    """Train a task's world model on cached tokens of a frozen encoder.

    The compact layout learns landmarks (or, with ``--projector joint``, whatever can be
    predicted), then dynamics on the frozen latents. The patch layout is DINO-WM's. The same
    command under ``torchrun`` uses several processes, GPUs or machines.

    Attributes:
        data: store folder.
        encoder: encoder folder or hub id, or ``bundled``.
        image_size: side [px] that pictures are given to the encoder at, a multiple of its patch
            size; 0: the encoder's own. 196 with ``facebook/dinov2-small`` makes DINO-WM's
            14 x 14 tokens; its own 518 px would make 37 x 37.
        out: model folder; the work (token cache, resumable state) is kept in its subfolder
            ``work``.
        tokens: folder of the store's token cache, filled where it is not complete, so that several
            models share it; tokens of another encoder, image size or store there are refused;
            default: in ``work``, where they are made anew.
        layout: ``compact``, or ``patch`` for patch tokens and a ViT predictor.
        projector: of the compact layout: ``landmarks``, or ``joint``: trained from nothing
            together with the predictor, by the losses in ``joint``.
        visual_dim: visual latent width of the joint projector; landmarks bring their own.
        latents_from: folder of a compact model whose encoder, projector and normalisation are
            taken as they are: only dynamics are trained, on the same latents.
        predictor: of the compact layout: ``mlp``, ``gru`` or ``vit``; the patch layout's is a ViT.
        width, depth: hidden units and layers of the compact predictor; 0: the task's default
            (one layer of ``gru``).
        frame: ``camera``, or ``object``: the compact predictor sees everything from the object
            that the landmarks mark; empty: the task's default. Only ``mlp`` can.
        window: longest model steps per training window.
        held_out: share of the episodes, the last ones, that no stage learns from.
        seed: seed of every stage.
        device: ``cpu`` or ``cuda``.
        reader_steps: optimiser steps of what reads the robot's posture from a goal picture;
            0: no such reader.
        landmarks: the projector's schedule; sizes and robot silhouette come from the task.
        joint: losses of projector and predictor together; with landmarks, a refinement.
        dynamics: the predictor's losses and schedule on frozen latents.
        patch: sizes, losses and schedule of the patch layout.
        selection: closed-loop success that picks the weights; off by default.
        decoder: draws what the model imagines, trained on detached latents; off by default.
        validation: rank correlation and open-loop error of the trained model, some seconds.
        report: JSON file to write beside the model; empty: ``training.json`` in ``out``.
    """

    data: Path
    encoder: str
    out: Path
    image_size: NonNegativeInt = 0
    tokens: Path | None = None
    layout: Literal["compact", "patch"] = "compact"
    projector: Literal["landmarks", "joint"] = "landmarks"
    visual_dim: PositiveInt = 32
    latents_from: Path | None = None
    predictor: Literal["mlp", "gru", "vit"] = "mlp"
    width: NonNegativeInt = 0
    depth: NonNegativeInt = 0
    frame: Literal["", "camera", "object"] = ""
    window: PositiveInt = 5
    held_out: Annotated[float, Gt(0), Le(0.5)] = 0.02
    seed: NonNegativeInt = 0
    device: str = "cpu"
    reader_steps: NonNegativeInt = 1500
    landmarks: LandmarkConfig = field(default_factory=LandmarkConfig)
    joint: JointConfig = field(default_factory=JointConfig)
    dynamics: DynamicsConfig = field(default_factory=DynamicsConfig)
    patch: PatchConfig = field(default_factory=PatchConfig)
    selection: SelectionConfig = field(default_factory=lambda: SelectionConfig(goals=0))
    decoder: DecoderTraining = field(default_factory=DecoderTraining)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    report: Path | None = None
    task: str = ""

    def __post_init__(self) -> None:
        if self.encoder == "bundled":
            object.__setattr__(self, "encoder", str(ASSETS / "encoder"))
        super().__post_init__()
        for stage in ("landmarks", "joint", "dynamics", "patch", "decoder"):
            object.__setattr__(self, stage, replace(getattr(self, stage), seed=self.seed))
        taught = self.layout == "compact" and self.latents_from is None
        if taught and self.projector == "joint" and not self.joint.steps:
            raise UserError("joint.steps: 0; at least 1 expected for a projector trained jointly")
        if self.layout == "compact":
            trained: dict[str, DynamicsConfig | JointConfig] = {"dynamics": self.dynamics}
            if self.joint.steps:
                trained["joint"] = self.joint
            for name, losses in trained.items():
                if losses.rollout > self.window:
                    raise UserError(
                        f"{name}.rollout: {losses.rollout} model steps; at most window: "
                        f"{self.window} expected"
                    )
        if self.frame == "object" and (
            self.layout == "patch" or self.projector == "joint" or self.joint.steps
        ):
            raise UserError("frame: object; only with landmarks and without joint losses")
        if self.frame == "object" and self.predictor != "mlp":
            raise UserError(f"frame: object; predictor mlp expected, not {self.predictor}")
        if self.layout == "patch" and self.predictor == "gru":
            raise UserError("predictor: gru; the patch layout has a vit")
        if self.latents_from is not None and (self.layout == "patch" or self.joint.steps):
            raise UserError(
                f"latents_from: {self.latents_from}; not with the patch layout or joint losses"
            )


def task_training(task: str) -> type[WorldModelTraining]:
    """The configuration of a task by name, as a class: ``wm-mpc train TASK``."""
    members = {
        "__doc__": f"Train a world model of the task {task}.",
        "__module__": __name__,
        "__annotations__": {"task": Suppress[str]},
        "task": task,
    }
    return dataclass(frozen=True)(type("TaskTraining", (WorldModelTraining,), members))


ROBOT_JOINT = JointConfig(steps=3000, batch=48, posture=1.0, max_seconds=900.0)
"""How a robot's projector is trained by default: a quarter of an hour at most."""
ROBOT_DYNAMICS = DynamicsConfig(steps=12000, max_seconds=420.0)
"""How a robot's predictor is trained by default: seven minutes at most."""


@dataclass(frozen=True)
class RobotTraining(WorldModelTraining):
    """Train a world model on a robot's own recordings (``wm-mpc bag import``).

    Widths, control period and, unless given, action bounds are those of the store.

    Attributes:
        frameskip: control steps per model step, >= 1; recordings need a picture at each of them.
        action_low, action_high: raw action bounds, one per number; empty: what was recorded.
        goal_weights: weight of each proprioception channel in goal costs, >= 0; empty: 1, and 0
            for what the recordings show to be velocities.
        action_basis: how the model describes the commands inside a model step: ``raw``, every
            one; ``held``, one for all; ``blocks`` or ``spline`` of ``action_knots`` numbers per
            action dimension.
        action_knots: numbers per action dimension of ``blocks`` and ``spline``; else 0.
        rest_at_zero: a command of zeros leaves the robot where it is, as with velocities and
            differences; off for absolute positions.
        joint: losses of projector and predictor together; by default none with
            ``latents_from``, whose projector stays as it is.
        dynamics: the predictor's losses and schedule on frozen latents.
        task: name of the robot; empty: the store's.
    """

    projector: Literal["landmarks", "joint"] = "joint"
    joint: JointConfig = field(default_factory=lambda: ROBOT_JOINT)
    dynamics: DynamicsConfig = field(default_factory=lambda: ROBOT_DYNAMICS)
    held_out: Annotated[float, Gt(0), Le(0.5)] = 0.05
    frameskip: PositiveInt = 5
    action_low: tuple[float, ...] = ()
    action_high: tuple[float, ...] = ()
    goal_weights: tuple[NonNegativeFloat, ...] = ()
    action_basis: str = "held"
    action_knots: NonNegativeInt = 0
    rest_at_zero: bool = True

    def __post_init__(self) -> None:
        if self.projector == "landmarks" and self.layout == "compact" and not self.latents_from:
            raise UserError(
                "projector: 'landmarks'; joint expected: landmarks need a description of the task"
            )
        if self.selection.goals:
            raise UserError(
                f"selection.goals: {self.selection.goals}; 0 expected: there is no simulator"
            )
        if self.latents_from is not None and replace(self.joint, seed=0) == ROBOT_JOINT:
            object.__setattr__(self, "joint", replace(self.joint, steps=0))
        super().__post_init__()


def configs_for(words: Sequence[str]) -> dict[str, type]:
    """What ``wm-mpc train`` can train, by its first word.

    Args:
        words: arguments of the command; a first one with a colon is ``module:TASK``.
    """
    tasks = [*task_names(), *(word for word in words[:1] if ":" in word)]
    return {
        "dino": EncoderTraining,
        "decoder": DecoderForModel,
        "proposals": ProposalsForModel,
        "subgoals": SubgoalsForModel,
        **{task: task_training(task) for task in tasks},
        "robot": RobotTraining,
    }


configs = configs_for(())
