"""Live parameters of ``mpc_node``: the loop follows from its next tick on, the planner soon after.

Limits, tolerances and watchdogs change between two ticks. A budget, a goal cost or options of the
planner need an engine of their own: it is built from the running model in the pauses of the loop
and swapped in like a new model. However many changes come meanwhile, one engine is built at a
time, and the last one is for the newest settings. The CEM reference, from which the budget
follows, is measured again in the same pauses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from rclpy.node import Node

from wm_mpc.control.controller import Controller
from wm_mpc.control.engine import Engine
from wm_mpc.control.safety import CommandFilter, SafetyLimits
from wm_mpc.core.errors import one_line
from wm_mpc.core.pauses import PIECE_S, Gaps
from wm_mpc.models.world_model import WorldModel
from wm_mpc.nodes.common.background import Bell, in_background
from wm_mpc.nodes.common.live import LiveParameters
from wm_mpc.nodes.common.parameters import ParameterReader
from wm_mpc.nodes.mpc.settings import Settings
from wm_mpc.planners.budget import CemReference
from wm_mpc.planners.reference import ReferenceMeter

FIRST = 12
"""Measurements of a model's CEM reference that follow each other soon."""
OFTEN_S, SELDOM_S = 5, 60
"""[s] Between two of them, and between all later ones."""
WORTH = 0.98
"""A reference that is not shorter by this factor is no news."""


class Tuner:
    """Settings of a node, and a running loop that follows them; the executor's thread.

    Args:
        node: owner of the parameters.
        bell: rung when something happened.
        gaps: pauses of the loop.
        may_build: whether nothing else is being built.

    Raises:
        UserError: a parameter that cannot be used.

    Attributes:
        settings: as they are now.
        busy: an engine is being built.
    """

    def __init__(
        self, node: Node, bell: Bell, gaps: Gaps, may_build: Callable[[], bool]
    ) -> None:
        reader = ParameterReader(node, live=True)
        self.settings = Settings.read(reader)
        self.busy = False
        self._node, self._bell, self._gaps = node, bell, gaps
        self._may_build = may_build
        self._at_start = self.settings
        self._live = LiveParameters(
            reader, self.settings.configs(), self._change, lambda: self._loop is None
        )
        self._limits = self.settings.limits.for_period(self.settings.engine.period_s)
        self._live.at_start[SafetyLimits] = self._limits
        self._untunable: Settings | None = None
        self._loop: tuple[Controller, CommandFilter] | None = None
        self._meter: tuple[WorldModel, ReferenceMeter] | None = None
        self._measured = self._seconds = 0

    def attach(self, controller: Controller, command_filter: CommandFilter) -> None:
        """Let a loop, built from the present settings, follow later ones."""
        self._loop = controller, command_filter
        controller.trace_search = self.settings.node.publish_search
        model = controller.engine.model.config
        self._live.at_start[SafetyLimits] = replace(
            self._limits,
            action_low=self._limits.action_low or tuple(map(float, model.action_low)),
            action_high=self._limits.action_high or tuple(map(float, model.action_high)),
        )

    def detach(self) -> None:
        """Let the loop go."""
        self._loop = self._meter = None

    def _change(self, configs: Mapping[type, Any]) -> None:
        """Use other settings; ``ValueError``: they cannot be used, and nothing has changed."""
        settings = self.settings.changed(configs)
        if self._loop is not None:
            settings.use(*self._loop)
        if settings.engine.planner != self.settings.engine.planner:
            if settings.engine.planner == self._at_start.engine.planner:
                settings = replace(settings, options=self._at_start.options)
            self._live.replace("planner_options.", settings.options)
        self.settings = settings
        self.tune()

    def tune(self) -> None:
        """See to it that the engine has the budget, goal cost and options asked for."""
        if self._loop is None or self.busy or not self._may_build() or not self._node.executor:
            return
        engine = self._loop[0].newest_engine
        if self.settings.fits(engine) or self.settings == self._untunable:
            return
        self.busy = True
        self._node.executor.create_task(self._build)

    def remeasure(self) -> None:
        """Measure the CEM reference again in a pause of the loop; called once a second."""
        self._seconds += 1
        every = OFTEN_S if self._measured < FIRST else SELDOM_S
        executor = self._node.executor
        if self._loop is None or self.busy or not self._may_build() or not executor:
            return
        if self._seconds < every:
            return
        self._seconds, self.busy = 0, True
        executor.create_task(self._measure)

    async def _measure(self) -> None:
        loop = self._loop
        try:
            if loop is None:
                return
            base = loop[0].newest_engine
            reference = await in_background(self._bell, lambda: self._better(base))
            self._measured += 1
            ours = self._loop is loop and loop[0].newest_engine is base
            if ours and reference.seconds < WORTH * base.reference.seconds:
                loop[0].swap_model(base.remeasured(reference))
        except Exception as error:  # the reference stays
            self._node.get_logger().error(f"CEM reference: not measured again; {one_line(error)}")
        finally:
            self.busy = False
        self.tune()

    def _better(self, engine: Engine) -> CemReference:
        """Reference of an engine, measured again where a loop ticks and a piece fits a pause."""
        reference, config = engine.reference, engine.config
        piece = max(PIECE_S, reference.seconds / reference.iterations)
        if piece > config.margin_s or not self._gaps.wait():
            return reference
        if self._meter is None or self._meter[0] is not engine.model:
            measures = ReferenceMeter(
                engine.model, engine.objective, reference, compile=config.compile,
                pause=self._gaps.wait,
            )  # fmt: skip
            self._meter, self._measured = (engine.model, measures), 0
            self._gaps.wait()
        return self._meter[1].better(reference)

    async def _build(self) -> None:
        """Build an engine for the settings of this moment."""
        settings, loop = self.settings, self._loop
        try:
            if loop is None:
                return
            base = loop[0].newest_engine
            wanted = settings.engine, settings.objective, settings.options
            with self._gaps.work():
                engine = await in_background(
                    self._bell, lambda: base.retuned(*wanted, self._gaps.wait)
                )
            if self._loop is loop and loop[0].newest_engine is base:
                loop[0].swap_model(engine)
        except Exception as error:  # the running planner stays
            self._untunable = settings
            self._node.get_logger().error(f"parameters: not used; {one_line(error)}")
        finally:
            self.busy = False
        self.tune()


__all__ = ["Tuner"]
