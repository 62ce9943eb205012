from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

import pytest
import rclpy
from annotated_types import Ge, Gt, Le, Lt
from rclpy.node import Node

from sim_bridge.config import SimBridgeConfig
from sim_bridge.node import SimBridge
from wm_mpc.control.controller import ControllerConfig
from wm_mpc.control.engine import EngineConfig
from wm_mpc.control.safety import SafetyLimits
from wm_mpc.core.errors import UserError
from wm_mpc.core.fields import Checked, field_docs
from wm_mpc.nodes.common.parameters import ParameterReader
from wm_mpc.nodes.mpc.config import MpcNodeConfig
from wm_mpc.nodes.mpc.node import MpcNode
from wm_mpc.planners.registry import PLANNERS

CONFIGS = sorted((Path(__file__).parents[2] / "config").glob("*.yaml"))
ROBOTS = {"robot", "planar_arm", "ur5e"}
"""Files without a simulated task: sim_bridge ignores them."""


@dataclass(frozen=True)
class Sample(Checked):
    """One field of every kind.

    Attributes:
        rate: how often; it goes on
            in a second line.
        count: how many.
        on: whether.
        name: which.
        gains: how much each.
        names: which each.
        kind: one of few.
        share: part of all.
    """

    rate: Annotated[float, Ge(0.5), Le(2.0)] = 1.0
    count: Annotated[int, Ge(1), Lt(10)] = 3
    on: bool = False
    name: str = "a"
    gains: tuple[Annotated[float, Ge(0.0), Le(1.0)], ...] = ()
    names: tuple[str, ...] = ()
    kind: Literal["one", "two"] = "one"
    share: Annotated[float, Gt(0)] = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.name == "bad":
            raise ValueError("name: 'bad'; anything else expected")


@pytest.fixture
def node(ros_domain: int) -> Iterator[Callable[..., Node]]:
    """Builds a node with parameters from a command line."""
    made: list[Node] = []

    def make(*words: str, create: Callable[[], Node] | None = None) -> Node:
        rclpy.init(args=["--ros-args", *words])
        automatic = {"automatically_declare_parameters_from_overrides": True}
        made.append(create() if create else Node("sample", **automatic))
        return made[-1]

    yield make
    for one in made:
        one.destroy_node()
    rclpy.try_shutdown()


def given(*words: str) -> list[str]:
    return [part for word in words for part in ("-p", word)]


def test_defaults_hold_without_parameters(node: Callable[..., Node]) -> None:
    reader = ParameterReader(node())
    assert reader.read(Sample()) == Sample()
    reader.reject_unknown()


def test_parameters_replace_defaults(node: Callable[..., Node]) -> None:
    words = ("rate:=2", "count:=4", "on:=true", "name:=b", "gains:=[0, 1]", "names:=[p, q]")
    reader = ParameterReader(node(*given(*words)))
    assert reader.read(Sample()) == Sample(2.0, 4, True, "b", (0.0, 1.0), ("p", "q"))
    reader.reject_unknown()


def test_prefixes_keep_dataclasses_apart(node: Callable[..., Node]) -> None:
    reader = ParameterReader(node(*given("count:=4", "inner.count:=5")))
    assert reader.read(Sample()).count == 4
    assert reader.read(Sample(), "inner.").count == 5
    reader.reject_unknown()


def test_a_parameter_describes_itself(node: Callable[..., Node]) -> None:
    one = node()
    ParameterReader(one).read(Sample())
    about = one.describe_parameter("rate")
    assert about.description == "how often; it goes on in a second line." and about.read_only
    assert about.floating_point_range[0].to_value == 2.0
    count = one.describe_parameter("count").integer_range[0]
    assert (count.from_value, count.to_value) == (1, 9)
    share = one.describe_parameter("share").floating_point_range[0]
    assert 0 < share.from_value < 1e-300 and share.to_value >= 1e300
    assert one.describe_parameter("kind").additional_constraints == "one or two"
    assert one.describe_parameter("gains").additional_constraints == "each entry 0 to 1"


@pytest.mark.parametrize(
    ("word", "error"),
    [
        ("rate:=9.0", "parameter rate: 9.0; 0.5 to 2 expected"),
        ("rate:=fast", "parameter rate: 'fast'; a number expected"),
        ("count:=1.5", "parameter count: 1.5; a whole number expected"),
        ("count:=true", "parameter count: True; a whole number expected"),
        ("on:=1", "parameter on: 1; true or false expected"),
        ("share:=0.0", "parameter share: 0.0; more than 0 expected"),
        ("kind:=three", "parameter kind: 'three'; one or two expected"),
        ("name:=3", "parameter name: 3; a text expected"),
        ("name:=bad", "parameter name: 'bad'; anything else expected"),
        ("gains:=0.5", "parameter gains: 0.5; a list expected"),
        ("gains:=[0.5, 7.0]", r"parameter gains: \(0.5, 7.0\); 0 to 1 expected"),
        ("ratte:=1.0", "parameter ratte: unknown; rate"),
    ],
)
def test_bad_parameters_are_named(node: Callable[..., Node], word: str, error: str) -> None:
    reader = ParameterReader(node(*given(word)))
    with pytest.raises(UserError, match=error):
        reader.read(Sample())
        reader.reject_unknown()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
@pytest.mark.parametrize("create", [MpcNode, SimBridge])
def test_every_shipped_parameter_file_is_accepted(
    node: Callable[..., Node], path: Path, create: Callable[[], Node]
) -> None:
    one = node("--params-file", str(path), create=create)
    if path.stem == "sim":
        assert one.config.task == "pusht"
    elif create is MpcNode or path.stem not in ROBOTS:
        assert one.config.task == path.stem


@pytest.mark.parametrize(
    "config",
    [SafetyLimits(), EngineConfig(), ControllerConfig(), MpcNodeConfig(), SimBridgeConfig(),
     *(entry.config for entry in PLANNERS.values())],
    ids=lambda config: type(config).__name__,
)  # fmt: skip
def test_every_parameter_has_words(config: object) -> None:
    words = field_docs(type(config))
    assert not [item.name for item in fields(config) if not words.get(item.name)]


@pytest.mark.parametrize("name", PLANNERS)
def test_every_planner_takes_its_options_as_parameters(
    node: Callable[..., Node], name: str
) -> None:
    one = node(*given(f"planner:={name}", "planner_options.chunk:=2"), create=MpcNode)
    assert one.planner_options.chunk == 2


def test_real_time_factor_needs_simulated_time(node: Callable[..., Node]) -> None:
    with pytest.raises(UserError, match="real_time_factor: 2; 1 expected unless use_sim_time"):
        node(*given("real_time_factor:=2.0"), create=SimBridge)
