"""What an import is asked to do; the options of ``wm-mpc bag import`` are made from it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt, Unit

from wm_mpc.core.errors import UserError
from wm_mpc.core.fields import Checked, NonNegativeFloat, NonNegativeInt, PositiveInt
from wm_mpc.data.bags.clocks import read_ways
from wm_mpc.data.bags.topics import TopicConfig

Method = Literal["linear", "nearest", "zoh"]


@dataclass(frozen=True)
class AlignConfig(Checked):
    """How samples become steps.

    Attributes:
        period_s: [s] control period: one step.
        image_tolerance_s: [s] a frame this near to a step belongs to it; 0: just under half a
            period.
        proprio_method: ``linear``, ``nearest`` or ``zoh`` (the newest that is not later).
        proprio_tolerance_s: [s] samples used for a step lie at most this far from it; 0: one
            period.
        command_method: ``zoh``, ``nearest`` or ``linear``.
        command_phase: at which part of its step the command is read: late, so that the answer to
            a frame counts for that frame however long thinking took; 0.5 for commands that come
            much faster than steps.
        command_tolerance_s: [s] a command is held at most this long; 0: one and a half periods.
        step_tolerance: [share of the period] steps differ from the period by at most this much: a
            frame further off leaves its step without a picture; 0: any frame within
            ``image_tolerance_s`` will do.
        frame_stride: [steps] from one frame to the next, where frames are rarer than steps; an
            episode whose marker tells its own ``frame_stride`` has that.
        max_missing: so many expected frames in a row may be missing; more end the episode.
        min_steps: [steps] shorter episodes are dropped.
        max_steps: [steps] longer episodes are cut: bounds the memory that an import needs.
        reorder_s: [s] messages may arrive this much out of order.
        patience_s: [s] a topic that is this much behind the others is no longer waited for.
    """

    period_s: Annotated[float, Gt(0), Lt(60), Unit("s")]
    image_tolerance_s: NonNegativeFloat = 0.0
    proprio_method: Method = "linear"
    proprio_tolerance_s: NonNegativeFloat = 0.0
    command_method: Method = "zoh"
    command_phase: Annotated[float, Ge(0), Lt(1)] = 0.9
    command_tolerance_s: NonNegativeFloat = 0.0
    step_tolerance: Annotated[float, Ge(0), Lt(0.5)] = 0.0
    frame_stride: PositiveInt = 1
    max_missing: NonNegativeInt = 3
    min_steps: PositiveInt = 5
    max_steps: PositiveInt = 1000
    reorder_s: NonNegativeFloat = 0.25
    patience_s: NonNegativeFloat = 2.0

    def __post_init__(self) -> None:
        """Check ranges and fill in the defaults that follow from the period."""
        super().__post_init__()
        for name, periods in (
            ("image_tolerance_s", 0.499), ("proprio_tolerance_s", 1.0),
            ("command_tolerance_s", 1.5),
        ):  # fmt: skip
            object.__setattr__(self, name, getattr(self, name) or periods * self.period_s)
        if self.image_tolerance_s >= self.period_s / 2:
            raise UserError(
                f"image_tolerance_s: {self.image_tolerance_s}; less than half a period expected "
                f"({self.period_s / 2} s), or a frame would fit two steps"
            )
        if self.max_steps < self.min_steps:
            raise UserError(
                f"max_steps: {self.max_steps}; at least min_steps, {self.min_steps}, expected"
            )


@dataclass(frozen=True)
class ImportConfig(Checked):
    """What an import does to every bag.

    Attributes:
        align: time alignment.
        topics: which topic is what.
        size: (height, width) of the stored pictures [px]; None: the store's, or the first frame's.
        crop: cut pictures to the wanted aspect around the centre before scaling; else stretch.
        task: task or robot name; empty: the existing store's, or ``robot``.
        stamps: ``auto``, ``header`` or ``receive`` (the recorder's, ``recorder``): which clock
            dates a message; ``TOPIC=word`` entries beside it, by commas, for single topics.
            ``auto`` takes headers where they can be used together.
        rate_tolerance: [share of the period] a step differs from the period by at most this much,
            or its bag is refused with the rate that fits.
        strict: a bag that is not wholly sound leaves nothing in the store.
        types: folders with PACKAGE/msg/NAME.msg of types that a bag does not define.
        depth_range: [m] (near, far) by which depth pictures become grey; None: they are refused.
    """

    align: AlignConfig
    topics: TopicConfig = field(default_factory=TopicConfig)
    size: tuple[Annotated[int, Ge(1), Le(4096)], Annotated[int, Ge(1), Le(4096)]] | None = None
    crop: bool = True
    task: str = ""
    stamps: str = "auto"
    rate_tolerance: Annotated[float, Gt(0), Lt(0.5)] = 0.1
    strict: bool = False
    types: tuple[Path, ...] = ()
    depth_range: tuple[NonNegativeFloat, NonNegativeFloat] | None = None

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        read_ways(self.stamps)
        near, far = self.depth_range or (0.0, 1.0)
        if not near < far:
            raise UserError(f"depth_range: {self.depth_range}; near less than far [m] expected")
        aligned = replace(self.align, step_tolerance=self.rate_tolerance)
        object.__setattr__(self, "align", aligned)

    def digest(self) -> str:
        """8 hex digits that change with any setting; episodes carry it."""
        settings = asdict(self)
        for name in ("strict", "types"):
            del settings[name]
        text = json.dumps(settings, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]
