"""Parameters that change while ``mpc_node`` runs, over its parameter services."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from helpers import tiny_checkpoint
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.srv import DescribeParameters, GetParameters, SetParametersAtomically
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_parameters
from ros import START_S, NodeProcess, Probe
from ros_domain import reserved_domain
from std_msgs.msg import Float64MultiArray
from test_integration import FAST, MPC, SOON_S, FakeRobot, in_state

from wm_mpc.control.tick import State
from wm_mpc.msg import Plan, PlannerStatus
from wm_mpc.planners.registry import planner_config

LIMITS = {"action_low": [-0.9, -0.9], "action_high": [0.9, 0.9], "rate_limit": [20.0]}


class Running:
    """A node that drives, and its parameter services."""

    def __init__(self, probe: Probe, process: NodeProcess) -> None:
        self.probe, self.process = probe, process

    def set(self, **values: Any) -> str:
        """Set parameters atomically (``__`` stands for a dot); returns why not."""
        wanted = [
            Parameter(name.replace("__", "."), value=value).to_parameter_msg()
            for name, value in values.items()
        ]
        request = SetParametersAtomically.Request(parameters=wanted)
        service = "mpc_node/set_parameters_atomically"
        result = self.probe.call(SetParametersAtomically, service, request).result
        assert result.successful == (result.reason == "")
        return result.reason

    def get(self, name: str) -> Any:
        request = GetParameters.Request(names=[name])
        answer = self.probe.call(GetParameters, "mpc_node/get_parameters", request)
        return Parameter.from_parameter_msg(
            type("P", (), {"name": name, "value": answer.values[0]})
        ).value

    def status(self, holds: Callable[[Any], Any], what: str) -> Any:
        """Next status that ``holds``."""
        since = time.time()
        return self.probe.wait(
            lambda: next((m for m in self.probe.since("status", since) if holds(m)), None),
            SOON_S,
            what,
        )


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One node for all of these tests: starting it takes longer than they do."""
    folder = tmp_path_factory.mktemp("live")
    patch = pytest.MonkeyPatch()
    with reserved_domain() as domain:
        patch.setenv("ROS_DOMAIN_ID", str(domain))
        patch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        patch.setenv("ROS_LOG_DIR", str(folder / "log"))
        probe = Probe(domain)
        probe.listen(PlannerStatus, "status")
        probe.listen(Float64MultiArray, "command")
        probe.listen(Plan, "plan")
        robot = FakeRobot(probe)
        robot.set_goal()
        options = {"planner_options.iterations": 40}
        model = tiny_checkpoint(folder / "model")
        process = NodeProcess(MPC, folder / "mpc.log", model=model, **FAST, **LIMITS, **options)
        try:
            probe.wait(in_state(probe, State.RUNNING), START_S, "running")
            yield Running(probe, process)
            assert process.alive, process.output
            assert "Traceback" not in process.output, process.output
        finally:
            process.kill()
            robot.close()
            probe.close()
            patch.undo()


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("horizon", 3, "parameter horizon: cannot change while the node runs; set it and restart"),
        ("planner", "cem", "parameter planner: cannot change while the node runs"),
        ("use_sim_time", True, "parameter use_sim_time: cannot change while the node runs"),
        ("dry_run", True, "parameter dry_run: cannot change while the node runs"),
        ("tolerance", "far", "parameter tolerance: 'far'; a number expected"),
        ("action_high", [0.95, 0.9], "at most [0.9, 0.9], as at the start, expected"),
        ("action_low", [-0.9, -2.0], "at least [-0.9, -0.9], as at the start, expected"),
        ("action_low", [-0.5, 0.5], "rest: [0.0, 0.0]; "),
        ("rate_limit", [30.0], "at most [20.0], as at the start, expected"),
        ("rate_limit", [1.0, 1.0, 1.0], "rate_limit: 3 values; 1 or 2 expected"),
        ("acceleration_limit", [-1.0], "acceleration_limit: (-1.0,); more than 0 expected"),
        ("novelty_limit", 0.0, "parameter novelty_limit: 0.0; at most"),
        ("max_image_age_s", 0.0, "parameter max_image_age_s: 0.0; at most 0.3, as at the start"),
        ("objective.mode", "best", "running or geometric"),
        ("planner_options.starts", 100_000_000, "planner_options: one iteration would take"),
    ],
)  # fmt: skip
def test_what_may_not_change_is_refused_with_the_reason(
    running: Running, name: str, value: Any, reason: str
) -> None:
    before = running.get(name)
    words = running.set(**{name.replace(".", "__"): value})
    assert reason in words and "\n" not in words
    assert running.get(name) == before


def test_numbers_out_of_bounds_are_refused(running: Running) -> None:
    for value in (-1.0, float("nan"), float("inf"), 1e7):
        assert "tolerance" in running.set(tolerance=value)
    assert running.get("tolerance") == 0.0


def test_all_of_a_call_or_nothing(running: Running) -> None:
    assert "horizon" in running.set(tolerance=0.5, horizon=9)
    assert running.get("tolerance") == 0.0
    assert "rate_limit" in running.set(tolerance=0.5, rate_limit=[1.0, 1.0, 1.0])
    assert running.get("tolerance") == 0.0


def test_parameters_say_whether_they_are_live(running: Running) -> None:
    names = ["tolerance", "rate_limit", "horizon", "planner", "planner_options.starts"]
    answer = running.probe.call(
        DescribeParameters, "mpc_node/describe_parameters", DescribeParameters.Request(names=names)
    )
    told = [one.additional_constraints for one in answer.descriptors]
    assert told == [
        "live", "each entry more than 0; live, downward", "needs a restart", "while unconfigured",
        "live",
    ]  # fmt: skip


def test_a_tolerance_counts_for_the_goal_that_is_pursued(running: Running) -> None:
    assert running.set(tolerance=1e6) == ""
    running.status(lambda m: m.state == State.REACHED, "reached")
    assert running.set(tolerance=0) == ""  # a whole number stands for a real one
    running.status(lambda m: m.state == State.RUNNING, "running again")


def test_narrower_limits_hold_and_no_rate_is_broken_on_the_way(running: Running) -> None:
    since = time.time()
    assert running.set(action_high=[0.05, 0.05], action_low=[-0.05, -0.05], rate_limit=[2.0]) == ""
    running.probe.wait(
        lambda: len(running.probe.since("command", since)) >= 15, SOON_S, "15 commands"
    )
    commands = [np.array(m.data) for m in running.probe.since("command", since)]
    assert np.abs(commands[-5:]).max() <= 0.05
    # Twice the period is the longest step that a late tick may make.
    assert np.abs(np.diff(commands[1:], axis=0)).max() <= 2.0 * 0.2 + 1e-9
    assert running.set(action_high=[0.9, 0.9], action_low=[-0.9, -0.9], rate_limit=[20.0]) == ""


def test_budget_goal_cost_and_planner_options_reach_the_planner(running: Running) -> None:
    before = running.status(lambda m: m.iterations > 0, "a plan")
    assert running.set(budget_fraction=0.01) == ""
    changed = running.status(lambda m: m.budget_ms != before.budget_ms, "another budget")
    assert changed.budget_ms == pytest.approx(0.01 * changed.cem_reference_ms)
    assert running.set(budget_fraction=4.0) == ""

    assert running.set(planner_options__iterations=3, planner_options__chunk=1) == ""
    few = running.status(lambda m: m.iterations == 3, "three iterations")
    assert few.generation == before.generation and few.model_hash == before.model_hash
    cost = few.goal_cost
    weights = {"objective__running_weight": 0.0, "objective__action_weight": 1e6}
    assert running.set(**weights) == ""
    running.status(lambda m: m.goal_cost > 100 * cost, "another cost")
    weights = {"objective__running_weight": 0.02, "objective__action_weight": 0.0}
    assert running.set(**weights, planner_options__iterations=60) == ""
    running.status(lambda m: m.goal_cost < 100 * cost, "the cost as before")


def test_the_search_is_told_while_it_is_asked_for(running: Running) -> None:
    def plans(told: bool, what: str) -> None:
        since = time.time()
        running.probe.wait(
            lambda: any(bool(m.candidates) == told for m in running.probe.since("plan", since)),
            SOON_S, what,
        )  # fmt: skip

    plans(False, "a plan without its search")
    assert running.set(publish_search=True) == ""
    plans(True, "a plan with its search")
    assert running.set(publish_search=False) == ""
    plans(False, "a plan without its search again")


def test_a_storm_of_changes_ends_with_the_last_one(running: Running) -> None:
    client = running.probe.node.create_client(
        SetParametersAtomically, "mpc_node/set_parameters_atomically",
        qos_profile=qos_profile_parameters,
    )  # fmt: skip
    futures, since = [], time.time()
    for number in range(150):
        values = {"planner_options.iterations": 1 + number % 7, "tolerance": -1.0 * (number % 2)}
        wanted = [Parameter(k, value=v).to_parameter_msg() for k, v in values.items()]
        futures.append(client.call_async(SetParametersAtomically.Request(parameters=wanted)))
        time.sleep(0.002)
    running.probe.wait(lambda: all(f.done() for f in futures), SOON_S, "150 answers")
    reasons = [f.result().result.reason for f in futures]
    assert not any(reasons[::2]), reasons[::2]
    assert all("tolerance" in reason for reason in reasons[1::2])
    running.status(lambda m: m.iterations == 1 + 148 % 7, "the last options")
    states = {m.state for m in running.probe.since("status", since)}
    assert State.FAULT not in states and State.RUNNING in states


def test_another_planner_comes_with_its_options_while_the_node_is_unconfigured(
    running: Running,
) -> None:
    def change(*transitions: int) -> None:
        for number in transitions:
            request = ChangeState.Request(transition=Transition(id=number))
            assert running.probe.call(ChangeState, "mpc_node/change_state", request).success

    down = Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP
    up = Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE
    change(*down)
    assert "planner: 'magic' unknown" in running.set(planner="magic")
    assert "planner: with options" in running.set(planner="cem", planner_options__iterations=3)
    assert running.set(planner="cem") == ""
    assert running.get("planner_options.elites") == planner_config("cem").elites
    assert running.set(planner_options__samples=50, planner_options__elites=5) == ""
    change(*up)
    running.status(lambda m: m.planner == "cem" and m.iterations > 0, "a plan by CEM")
    assert "clean up (lifecycle) or restart mpc_node" in running.set(planner="adam")
    assert running.set(planner_options__samples=60) == ""
    change(*down)
    assert running.set(planner="adam") == ""
    assert running.get("planner_options.iterations") == 40, "as at the start"
    change(*up)
    running.status(lambda m: m.planner == "adam" and m.iterations > 0, "a plan by Adam")
