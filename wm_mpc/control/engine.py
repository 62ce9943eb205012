"""A model with everything prepared for it: objective, planner, CEM reference and budget.

An engine is built, calibrated and warmed up away from the control thread and then handed over
whole, so that a change of model costs the running loop one assignment.
"""

from __future__ import annotations

import copy
import functools
import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge, Le
from torch import Tensor

from wm_mpc.core.clock import Clock, monotonic
from wm_mpc.core.errors import UserError
from wm_mpc.core.fields import Checked
from wm_mpc.core.live import Live
from wm_mpc.core.pauses import PIECE_S, Pause, no_pause
from wm_mpc.models.identity import fingerprint, perception_hash
from wm_mpc.models.novelty import Novelty
from wm_mpc.models.proposers import Proposer, load_proposer
from wm_mpc.models.world_model import WorldModel
from wm_mpc.planners import Planner
from wm_mpc.planners.anytime import AnytimePlanner
from wm_mpc.planners.budget import Budget, CemReference
from wm_mpc.planners.objective import GoalObjective, ObjectiveConfig
from wm_mpc.planners.registry import make_planner
from wm_mpc.planners.subgoals import SubgoalGraph, load_graph

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineConfig(Checked):
    """What a planner is built for.

    Attributes:
        planner: registry name of the planner.
        horizon: model steps that a plan looks ahead.
        control_rate_hz: [Hz] control steps per second.
        budget_fraction: share of the CEM reference's time that one tick may plan.
        margin_s: [s] part of the control period kept free for everything but planning.
        compile: use compiled code where a compiler is found.
        proposals: file of a learned proposer, whose guess is one more start of every search; it
            fits models that see like the one it was trained for. Empty: none.
        subgoals: file of a graph of recorded latents (``wm-mpc train subgoals``), through which
            goals beyond the horizon are approached; it fits models that see like the one it was
            made for. Empty: goals are pursued directly.
        lookahead: model steps from the robot to its subgoal, along the way.
    """

    planner: Annotated[str, Live("unconfigured")] = "adam"
    horizon: Annotated[int, Ge(1), Le(100)] = 5
    control_rate_hz: Annotated[float, Ge(0.1), Le(1000.0)] = 10.0
    budget_fraction: Annotated[float, Ge(1e-6), Le(1e6), Live()] = 0.1
    margin_s: Annotated[float, Ge(0.0), Le(10.0)] = 0.03
    compile: bool = True
    proposals: str = ""
    subgoals: str = ""
    lookahead: Annotated[float, Ge(0.5), Le(100.0)] = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.margin_s >= self.period_s:
            bound = f"less than the control period {self.period_s:g} s"
            raise ValueError(f"margin_s: {self.margin_s:g} s; {bound} expected")

    @property
    def period_s(self) -> float:
        """Control period [s]."""
        return 1.0 / self.control_rate_hz


class Engine:
    """Model, planner, objective and budget that belong together.

    Args:
        model: world model with an encoder.
        planner: planner of ``model`` and ``objective``.
        objective: goal cost.
        reference: CEM reference measured with ``model``.
        config: what it was built from.
        proposer: learned guess of a plan; None: none.
        subgoals: graph of recorded latents; None: none.

    Attributes:
        budget: how long one tick may plan.
        generation: counts the models a process loaded, from 1; 0 until the owner numbers it.
        novelty: distance from what training saw; None: the model does not tell.
        perception: hash of what lies between picture and latent; empty: unknown.
    """

    def __init__(
        self,
        model: WorldModel,
        planner: Planner,
        objective: GoalObjective,
        reference: CemReference,
        config: EngineConfig,
        proposer: Proposer | None = None,
        subgoals: SubgoalGraph | None = None,
    ) -> None:
        self.model = model
        self.planner = planner
        self.objective = objective
        self.reference = reference
        self.config = config
        self.proposer = proposer
        self.subgoals = subgoals
        self.generation = 0
        self.perception = ""
        novelty = _usable_novelty(model)
        self.novelty = None if novelty is None else novelty.to(model.action_mean.device)
        self.budget = self._budget(config)

    @classmethod
    def build(
        cls,
        model: WorldModel,
        config: EngineConfig,
        objective: ObjectiveConfig | None = None,
        planner_config: Any = None,
        reference: CemReference | None = None,
        clock: Clock = monotonic,
        warm_encoder: bool = True,
        pause: Pause | None = None,
    ) -> Engine:
        """Build, calibrate and warm up; takes seconds, more with ``compile``.

        Args:
            model: world model on its final device.
            config: what to build.
            objective: weights of the goal cost; default: the published ones.
            planner_config: configuration of the planner; default: the planner's own.
            reference: reference of a model of the same shape on this device; None: measure it.
            clock: monotonic clock.
            warm_encoder: False where the encoder is one that already runs.
            pause: called between pieces of work of some milliseconds each, where a loop must not
                be disturbed; measuring a reference is one long piece. None: all at once.

        Raises:
            ValueError: unknown planner, or a control rate the model was not trained for.
            UserError: proposals or subgoals for other latents, or a file that is none; proposals
                for another horizon.
        """
        trained = model.config.control_period
        if abs(config.period_s / trained - 1) > 0.01:
            raise ValueError(
                f"control_rate_hz: {config.control_rate_hz:g} Hz; the model was trained for "
                f"{1 / trained:g} Hz"
            )
        device = model.action_mean.device
        cost = GoalObjective(
            objective or ObjectiveConfig(),
            config.horizon,
            model.visual_dim,
            model.proprio_width,
            device,
            model.goal_weights,
        )
        rest = no_pause if pause is None else pause
        rest()
        planner = make_planner(config.planner, model, cost, planner_config, clock, config.compile)
        if reference is None:
            reference = CemReference.calibrate(model, cost, clock, config.compile)
        perception = perception_hash(model)
        proposer = _load_proposer(model, config, perception)
        subgoals = _load_subgoals(model, config, perception)
        engine = cls(model, planner, cost, reference, config, proposer, subgoals)
        planner.warm_up(None if pause is None else PIECE_S, rest)
        if warm_encoder:
            rest()
            engine._warm_up_encoder()
        rest()
        engine.propose(*torch.zeros(2, *model.latent_shape, device=device))
        engine.perception = perception
        return engine

    def retuned(
        self,
        config: EngineConfig,
        objective: ObjectiveConfig,
        planner_config: Any,
        pause: Pause | None = None,
    ) -> Engine:
        """The same model under another budget, goal cost or options of the planner.

        Args:
            config: what to build; only ``budget_fraction`` may differ.
            objective: weights of the goal cost.
            planner_config: configuration of the planner.
            pause: see ``build``.
        """
        if (objective, planner_config) == (self.objective.config, self.planner.config):
            other = copy.copy(self)
            other.config = config
            other.budget = other._budget(config)
            return other
        other = Engine.build(
            self.model, config, objective, planner_config, self.reference,
            warm_encoder=False, pause=pause,
        )  # fmt: skip
        other.generation = self.generation
        return other

    def remeasured(self, reference: CemReference) -> Engine:
        """The same by another measurement of the reference."""
        other = copy.copy(self)
        other.reference = reference
        other.budget = other._budget(self.config)
        return other

    def is_tuned(
        self, config: EngineConfig, objective: ObjectiveConfig, planner_config: Any
    ) -> bool:
        """Whether this is what ``retuned`` would build."""
        mine = self.config, self.objective.config, self.planner.config
        return mine == (config, objective, planner_config)

    def check_options(self, planner_config: Any) -> None:
        """Refuse options with which not even one iteration fits into a control period.

        Args:
            planner_config: configuration of the planner.

        Raises:
            UserError: one line with the time that an iteration would take on this machine.
        """
        if planner_config == self.planner.config or not isinstance(self.planner, AnytimePlanner):
            return
        pace = self.reference.seconds / self.reference.transitions
        seconds = self.planner.first_iterate_s(planner_config, pace)
        if seconds > self.config.period_s - self.config.margin_s:
            raise UserError(
                f"planner_options: one iteration would take {seconds:.3g} s here; at most "
                f"{self.config.period_s - self.config.margin_s:.3g} s allowed"
            )

    def _budget(self, config: EngineConfig) -> Budget:
        seconds = self.reference.seconds
        return Budget(config.budget_fraction, seconds, config.period_s, config.margin_s)

    @property
    def plan_shape(self) -> tuple[int, int, int]:
        """Model steps, control steps per model step, and raw action width of a plan."""
        model = self.model.config
        return self.config.horizon, model.frameskip, model.action_dim

    def encode(self, images: np.ndarray, proprio: np.ndarray) -> Tensor:
        """Latents of pictures: uint8 ``(B, H, W, 3)``, float32 ``(B, P)`` -> ``(B, *L)``."""
        device = self.model.action_mean.device
        with torch.no_grad():
            pixels = torch.from_numpy(images).to(device, non_blocking=True)
            joints = torch.from_numpy(proprio).to(device, non_blocking=True)
            return self.model.encode(pixels, joints)

    def look(self, images: np.ndarray, proprio: np.ndarray) -> tuple[Tensor, Tensor]:
        """Latents, and novelty ``(B,)``: nan where the model does not tell. See ``encode``."""
        model = self.model
        if self.novelty is None or model.encoder is None:
            latents = self.encode(images, proprio)
            return latents, latents.new_full((len(latents),), math.nan)
        device = model.action_mean.device
        with torch.no_grad():
            pixels = torch.from_numpy(images).to(device, non_blocking=True)
            joints = torch.from_numpy(proprio).to(device, non_blocking=True)
            tokens = model.encoder(pixels)
            return model.encode_tokens(tokens, joints), self.novelty(tokens, joints)

    def propose(self, latent: Tensor, goal: Tensor) -> Tensor | None:
        """Guessed plans ``(P, T, A)`` from ``L`` to ``L``; None without a proposer."""
        if self.proposer is None:
            return None
        return self.proposer.propose(self.model, latent, goal)

    @property
    def reads_posture(self) -> bool:
        """Whether the model can tell the robot's posture from a goal picture."""
        return self.model.proprio_reader is not None

    def read_posture(self, image: np.ndarray) -> np.ndarray:
        """Posture that a goal picture shows: uint8 ``(H, W, 3)`` -> float32 ``(P,)`` raw units."""
        with torch.no_grad():
            pixels = torch.from_numpy(image[None]).to(self.model.action_mean.device)
            return self.model.read_proprio(pixels)[0].cpu().numpy()

    def distance(self, latent: Tensor, goal: Tensor) -> Tensor:
        """Root mean square difference over the channels that the goal cost weighs, 0-d."""
        counts = (self.objective.channel_weights > 0).to(latent.dtype)
        squares = (latent - goal).square().reshape(-1, len(counts)).mean(0)
        return ((squares * counts).sum() / counts.sum()).sqrt()

    def sees_like(self, other: Engine) -> bool:
        """Whether latents of both mean the same; False where that is unknown."""
        return bool(self.perception) and self.perception == other.perception

    def same_shape(self, model: WorldModel) -> bool:
        """Whether ``model`` costs what this engine's costs, so that its CEM reference holds."""
        mine, other = self.model, model
        keys = ("predictor", "predictor_args", "projector", "visual_dim", "proprio_embed",
                "proprio_dim", "action_dim", "frameskip")  # fmt: skip
        same = all(getattr(mine.config, key) == getattr(other.config, key) for key in keys)
        return same and mine.latent_shape == other.latent_shape

    def _warm_up_encoder(self) -> None:
        side = self.model.encoder.image_size if self.model.encoder else 0
        for count in (1, 2, 1, 2):
            picture = np.zeros((count, side, side, 3), np.uint8)
            self.look(picture, np.zeros((count, self.model.config.proprio_dim), np.float32))
        if self.reads_posture:
            self.read_posture(picture[0])


def _usable_novelty(model: WorldModel) -> Novelty | None:
    """Statistics of what training saw; None where there are none, or those of another encoder.

    Another encoder's would stop every robot, or none: the robot then runs without this watch, and
    the log says so.
    """
    novelty = getattr(model, "novelty", None)  # a task's own dynamics may serve as model
    if novelty is None or model.encoder is None:
        return novelty
    own = fingerprint(model.encoder)
    if novelty.encoder == own:
        return novelty
    message = "novelty: not watched; its statistics are of encoder %s, this one is %s"
    log.warning(message, novelty.encoder, own)
    return None


def _load_proposer(model: WorldModel, config: EngineConfig, perception: str) -> Proposer | None:
    if not config.proposals:
        return None
    path = Path(config.proposals).expanduser()
    proposer = load_proposer(path, model.latent_shape, model.action_width, perception)
    if proposer.horizon != config.horizon:
        raise UserError(f"proposals: horizon {proposer.horizon}; {config.horizon} expected")
    return proposer.to(model.action_mean.device)


def _load_subgoals(
    model: WorldModel, config: EngineConfig, perception: str
) -> SubgoalGraph | None:
    if not config.subgoals:
        return None
    path = Path(config.subgoals).expanduser()
    changed = path.stat().st_mtime if path.exists() else 0.0
    return _graph(path, changed, model.latent_shape, perception, model.action_mean.device)


@functools.lru_cache(maxsize=2)
def _graph(
    path: Path, changed: float, shape: tuple[int, ...], perception: str, device: torch.device
) -> SubgoalGraph:
    """A graph as it is in its file; models that see alike share it, and the ways found in it."""
    graph = load_graph(path, shape, perception).to(device)
    graph.ways_to(graph.nodes[0])  # what the first goal would import and allocate
    return graph


__all__ = ["Engine", "EngineConfig"]
