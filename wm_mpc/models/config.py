"""Architecture of a world model and the interface of the task it was trained for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from annotated_types import Gt, Unit

from wm_mpc.core.fields import Checked, NonNegativeInt, PositiveInt, one_of
from wm_mpc.models.action_basis import knots_of
from wm_mpc.models.predictors import PREDICTORS
from wm_mpc.models.projectors import PROJECTORS


@dataclass(frozen=True)
class WorldModelConfig(Checked):
    """Architecture and the task's interface.

    Attributes:
        task: task the model was trained for.
        action_dim: raw action width.
        proprio_dim: raw proprioception width.
        frameskip: control steps per model step.
        control_period: seconds per control step.
        action_low, action_high: raw action bounds, ``action_dim`` values each.
        projector: ``identity`` (patch layout) or ``keypoint_pool`` (compact layout).
        visual_dim: visual latent width; the encoder's for ``identity``.
        proprio_embed: width of a learned proprioception embedding; 0 uses the normalised values
            themselves.
        predictor: ``mlp``, ``gru`` or ``vit``.
        goal_weights: relative weight of each raw proprioception channel in goal costs, >= 0;
            empty: all equal. Only meaningful without a learned proprioception embedding.
        proprio_reader: whether the model can read the robot's own posture from a picture, for
            goals given as a picture alone.
        action_basis: how a model step describes its commands: ``raw``, every one of them;
            ``held``, one for all; ``blocks`` or ``spline`` of ``action_knots`` numbers per
            action dimension.
        action_knots: numbers per action dimension of ``blocks`` and ``spline``; else 0.
        projector_args, predictor_args: further arguments of the two, see their classes.
    """

    task: str
    action_dim: PositiveInt
    proprio_dim: NonNegativeInt
    frameskip: PositiveInt
    control_period: Annotated[float, Gt(0), Unit("s")]
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    projector: str = "keypoint_pool"
    visual_dim: PositiveInt = 32
    proprio_embed: NonNegativeInt = 0
    predictor: str = "mlp"
    goal_weights: tuple[float, ...] = ()
    proprio_reader: bool = False
    action_basis: str = "raw"
    action_knots: NonNegativeInt = 0
    projector_args: dict[str, Any] = field(default_factory=dict)
    predictor_args: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        knots_of(self.action_basis, self.frameskip, self.action_knots)
        for name in ("action_low", "action_high"):
            object.__setattr__(self, name, tuple(float(v) for v in getattr(self, name)))
            if len(getattr(self, name)) != self.action_dim:
                raise ValueError(
                    f"{name}: {len(getattr(self, name))} values for "
                    f"{self.action_dim} action dimensions"
                )
        object.__setattr__(self, "goal_weights", tuple(float(v) for v in self.goal_weights))
        if self.goal_weights and (
            len(self.goal_weights) != self.proprio_dim or min(self.goal_weights) < 0
        ):
            raise ValueError(
                f"goal_weights: {self.goal_weights}; "
                f"{self.proprio_dim} values of at least 0 expected"
            )
        if any(lo >= hi for lo, hi in zip(self.action_low, self.action_high, strict=True)):
            raise ValueError(
                f"action_low: {self.action_low} is not below action_high {self.action_high}"
            )
        one_of(self, "projector", PROJECTORS)
        one_of(self, "predictor", PREDICTORS)
