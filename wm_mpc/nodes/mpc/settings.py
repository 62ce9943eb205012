"""The parameters of ``mpc_node`` as one value, and how a running loop follows a change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from wm_mpc.control.controller import Controller, ControllerConfig
from wm_mpc.control.engine import Engine, EngineConfig
from wm_mpc.control.guard import GuardConfig
from wm_mpc.control.safety import CommandFilter, SafetyLimits
from wm_mpc.core.errors import UserError
from wm_mpc.nodes.common.parameters import ParameterReader
from wm_mpc.nodes.mpc.config import MpcNodeConfig
from wm_mpc.planners.objective import ObjectiveConfig
from wm_mpc.planners.registry import planner_config


@dataclass(frozen=True)
class Settings:
    """The configurations of a node.

    Attributes:
        node: what the node reads and writes.
        engine: what a planner is built for.
        controller: how the loop runs.
        limits: what may leave, and how old its inputs may be.
        guard: when an update of the model is refused.
        objective: weights of the goal cost.
        options: configuration of the planner.
    """

    node: MpcNodeConfig
    engine: EngineConfig
    controller: ControllerConfig
    limits: SafetyLimits
    guard: GuardConfig
    objective: ObjectiveConfig
    options: Any

    @classmethod
    def read(cls, reader: ParameterReader) -> Settings:
        """Read all parameters; ``UserError`` names the one that cannot be used."""
        node = reader.read(MpcNodeConfig())
        engine = reader.read(EngineConfig())
        settings = cls(
            node,
            engine,
            reader.read(ControllerConfig()),
            reader.read(SafetyLimits()),
            reader.read(GuardConfig()),
            reader.read(ObjectiveConfig(), "objective."),
            reader.read(planner_config(engine.planner), "planner_options."),
        )
        reader.reject_unknown()
        return settings

    def configs(self) -> list[Any]:
        """One configuration of each class."""
        return list(vars(self).values())

    def changed(self, configs: Mapping[type, Any]) -> Settings:
        """Settings with some configurations replaced, by their classes.

        Another planner comes with its own options, as they are by default.

        Raises:
            UserError: an unknown planner, or options together with another planner.
        """
        fields = {name: configs.get(type(old), old) for name, old in vars(self).items()}
        if fields["engine"].planner != self.engine.planner:
            if type(self.options) in configs:
                raise UserError("planner: with options; set them after it, in another call")
            fields["options"] = planner_config(fields["engine"].planner)
        return replace(self, **fields)

    def fits(self, engine: Engine) -> bool:
        """Whether an engine has this budget, goal cost and these options of the planner."""
        return engine.is_tuned(self.engine, self.objective, self.options)

    def use(self, controller: Controller, command_filter: CommandFilter) -> None:
        """Let a running loop follow from its next tick on; the engine is another matter.

        Raises:
            ValueError: they cannot be used; then nothing has changed.
        """
        controller.newest_engine.check_options(self.options)
        command_filter.adopt(self.limits)
        controller.change(self.controller, self.limits, self.node.publish_search)


__all__ = ["Settings"]
