"""Real processes over DDS: the loop runs, survives what dies, and refuses what is wrong."""

from __future__ import annotations

import json
import math
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import tiny_checkpoint
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.action import ActionClient
from ros import START_S, NodeProcess, Probe
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Bool, Float64MultiArray, Header

from wm_mpc.action import ReachGoal
from wm_mpc.control.engine import EngineConfig
from wm_mpc.control.tick import State
from wm_mpc.models.identity import perception_hash
from wm_mpc.models.proposers import InitNetwork, save_proposer
from wm_mpc.models.world_model import WorldModel
from wm_mpc.msg import Plan, PlannerStatus, TaskState
from wm_mpc.nodes.common import qos
from wm_mpc.nodes.common.messages import message_to_trajectory, rgb_to_image, to_stamp
from wm_mpc.srv import LoadModel, Reset, Rollout, SetGoal

SOON_S = 15.0
MPC, SIM = "wm_mpc.nodes.mpc.node", "sim_bridge.node"
JOINTS = ["agent_x", "agent_y"]
# An untrained model is tiny, and so is a tenth of its reference's time.
FAST = {"compile": False, "budget_fraction": 4.0, "joint_names": JOINTS}
# Two periods, the default, are short for a test machine whose cores are all taken.
FAST |= {"max_image_age_s": 0.3, "max_plan_age_s": 0.5}
# The robot of these tests shows one picture and never moves.
FAST |= {"max_frozen_s": 0.0}


@pytest.fixture
def probe(ros_domain: int) -> Iterator[Probe]:
    probe = Probe(ros_domain)
    probe.listen(PlannerStatus, "status")
    probe.listen(Float64MultiArray, "command")
    probe.listen(Plan, "plan")
    yield probe
    probe.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., NodeProcess]]:
    """Starts processes and makes sure that none survives the test."""
    running: list[NodeProcess] = []

    def begin(module: str, **parameters: Any) -> NodeProcess:
        log = tmp_path / f"{module}.{len(running)}.log"
        running.append(NodeProcess(module, log, **parameters))
        return running[-1]

    yield begin
    for process in running:
        if process.alive:
            process.kill()


def in_state(probe: Probe, state: State, words: str = "") -> Callable[[], bool]:
    def check() -> bool:
        status = probe.last("status")
        return status is not None and status.state == state and words in status.reason

    return check


def speed(message: TaskState) -> float:
    return math.hypot(*message.state[5:7])


def is_zero(message: Float64MultiArray) -> bool:
    return not np.any(message.data)


# ---- the closed loop ---------------------------------------------------------------------------


def test_the_loop_runs_and_survives_the_death_of_either_side(
    probe: Probe, start: Callable[..., NodeProcess], tmp_path: Path
) -> None:
    probe.listen(TaskState, "task_state")
    model = tiny_checkpoint(tmp_path / "model")
    sim = start(SIM, task="pusht", image_size=32, episode_steps=0, seed=3)
    mpc = start(MPC, model=model, **FAST)
    probe.wait(in_state(probe, State.RUNNING), START_S, "running")
    _check_a_healthy_loop(probe)
    _check_services(probe)

    moving = probe.wait(lambda: speed(probe.last("task_state")) > 50, SOON_S, "moving")
    assert moving
    when = mpc.kill()
    time.sleep(1.5)
    after = [message for message in probe.since("task_state", when + 0.5)]
    assert len(after) >= 5 and max(map(speed, after)) < 5.0
    first, last = np.array(after[0].state[:2]), np.array(after[-1].state[:2])
    assert np.linalg.norm(last - first) < 1.0

    mpc = start(MPC, model=model, proposals=proposals(model), **FAST)
    since = time.time()
    probe.wait(lambda: probe.since("command", since), START_S, "commands again")
    probe.wait(lambda: speed(probe.last("task_state")) > 50, SOON_S, "moving again")

    when = sim.kill()
    probe.wait(in_state(probe, State.SAFE_STOP, "image: 0."), SOON_S, "safe stop")
    # told at the first step of the ramp, which takes 0.2 s and ends with a tick
    time.sleep(0.75)
    quiet = probe.since("command", time.time() - 0.4)
    assert quiet and all(map(is_zero, quiet))
    assert mpc.alive

    sim = start(SIM, task="pusht", image_size=32, episode_steps=0, seed=4)
    probe.wait(in_state(probe, State.RUNNING), START_S, "running again")

    probe.wait(lambda: not is_zero(probe.last("command")), SOON_S, "commands")
    assert mpc.end(signal.SIGINT) == 0, mpc.output
    probe.wait(lambda: is_zero(probe.last("command")), SOON_S, "final rest command")
    assert sim.end(signal.SIGTERM) == 0, sim.output


def proposals(model: Path, latents: str = "") -> Path:
    """File of an untrained proposer; ``latents``: of another model than that in the folder."""
    world = WorldModel.load(model)
    network = InitNetwork(world.latent_shape, world.action_width, EngineConfig.horizon, width=8)
    return save_proposer(network, model, latents or perception_hash(world))


def test_proposals_for_another_model_are_refused(
    probe: Probe, start: Callable[..., NodeProcess], tmp_path: Path
) -> None:
    model = tiny_checkpoint(tmp_path / "model")
    mpc = start(MPC, model=model, proposals=proposals(model, "0123"), **FAST)
    words = "made for latents 0123, not"
    probe.wait(in_state(probe, State.FAULT, words), START_S, "a refusal")
    assert not probe.heard["command"]
    assert mpc.end(signal.SIGTERM) == 0, mpc.output


def _check_a_healthy_loop(probe: Probe) -> None:
    """Every tick is told in full, and commands come at the control rate."""
    status = probe.wait(
        lambda: probe.last("status").ticks >= 15 and probe.last("status"), SOON_S, "15 ticks"
    )
    assert status.reason == "" and status.planner == "adam" and status.generation == 1
    assert len(status.model_hash) == 12 and status.iterations > 0 and status.transitions > 0
    assert 0 < status.encode_ms < status.tick_ms and 0 < status.plan_ms < status.tick_ms
    assert status.tick_p50_ms <= status.tick_p95_ms <= status.tick_p99_ms <= status.tick_max_ms
    assert status.cem_ratio_wall == pytest.approx(status.plan_ms / status.cem_reference_ms)
    expected = status.transitions / status.transitions_reference
    assert status.cem_ratio_transitions == pytest.approx(expected)
    assert status.latent_distance > 0
    plan, command = probe.last("plan"), probe.last("command")
    assert (plan.horizon, plan.action_dim, plan.dt) == (25, 2, pytest.approx(0.1))
    assert len(plan.actions) == 50 and len(command.data) == 2
    assert np.abs(command.data).max() <= 1.0


def _check_services(probe: Probe) -> None:
    """Reset is exact and repeatable; a rollout does not disturb the episode."""
    answers = [probe.call(Reset, "reset", Reset.Request(seed=11)) for _ in range(2)]
    assert all(answer.success for answer in answers), answers[0].message
    assert answers[0].state == answers[1].state
    assert answers[0].goal_state == answers[1].goal_state
    refused = probe.call(Reset, "reset", Reset.Request(start=[1.0, 2.0]))
    assert not refused.success and "start: shape (2,); (7,) expected" in refused.message

    episode = probe.last("task_state").episode
    actions = np.tile([0.2, -0.1], 6)
    request = Rollout.Request(snapshot=answers[0].state, actions=actions, action_dim=2)
    once, again = (probe.call(Rollout, "rollout", request) for _ in range(2))
    assert once.success, once.message
    trajectory = message_to_trajectory(once.trajectory)
    assert len(trajectory) == 6 and trajectory.image_steps.tolist() == [0, 6]
    assert trajectory.state[0].tolist() == list(answers[0].state)
    assert once.trajectory.state == again.trajectory.state
    assert probe.last("task_state").episode == episode
    request.action_dim = 3
    assert "rows of 2 expected" in probe.call(Rollout, "rollout", request).message


# ---- bad inputs --------------------------------------------------------------------------------


class FakeRobot:
    """Publishes a camera picture and joints at 10 Hz; tests spoil them."""

    def __init__(self, probe: Probe) -> None:
        self.probe = probe
        node = probe.node
        self.image_out = node.create_publisher(Image, "image", 1)
        self.proprio_out = node.create_publisher(JointState, "proprio", 1)
        self.goal_out = node.create_publisher(Image, "goal_image", qos.LATCHED)
        self.e_stop_out = node.create_publisher(Bool, "e_stop", 1)
        self.picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        self.position = [200.0, 200.0]
        self.spoil: Callable[[Image], None] = lambda _: None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(0.1):
            stamp = to_stamp(time.time())
            joints = JointState(name=JOINTS, position=self.position, velocity=[0.0, 0.0])
            joints.header.stamp = stamp
            self.proprio_out.publish(joints)
            image = rgb_to_image(self.picture, stamp)
            self.spoil(image)
            self.image_out.publish(image)

    def set_goal(self, spoil: Callable[[Image], None] = lambda _: None) -> None:
        goal = rgb_to_image(self.picture[::-1].copy(), to_stamp(time.time()))
        spoil(goal)
        self.goal_out.publish(goal)

    def close(self) -> None:
        self._stop.set()
        self._thread.join(2)


@pytest.fixture
def robot(probe: Probe) -> Iterator[FakeRobot]:
    robot = FakeRobot(probe)
    yield robot
    robot.close()


def spoiled_checkpoints(folder: Path, good: Path) -> dict[str, tuple[Path, str]]:
    """Name -> folder and what the error must say."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(good, folder / name))

    flipped = copy("flipped")
    weights = flipped / "world_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    cases = {"flipped": (flipped, "sha256")}
    for name, change, words in (
        ("version", {"version": 99}, "version: 99; this release reads 1"),
        ("format", {"format": "other"}, "format: 'wm_mpc.world_model' expected"),
        ("key", {"encoder": None}, "key 'encoder' is missing"),
    ):
        path = copy(name)
        record = json.loads((path / "world_model.json").read_text()) | change
        record = {key: value for key, value in record.items() if value is not None}
        (path / "world_model.json").write_text(json.dumps(record))
        cases[name] = (path, words)
    cases["absent"] = (folder / "absent", "world_model.json is missing")
    return cases


def put(**changes: Any) -> Callable[[Image], None]:
    def spoil(image: Image) -> None:
        for name, value in changes.items():
            setattr(image, name, value)

    return spoil


BAD_IMAGES = {
    "wrong encoding": (put(encoding="yuv9"), "image.encoding: 'yuv9'"),
    "wrong size": (put(height=40), "image.data: 3072 bytes; 3840 expected"),
    "other size": (put(height=16, width=64, step=192), "image: 16 x 64 px; 32 x 32 px expected"),
    "zero length": (put(data=b""), "image.data: 0 bytes; 3072 expected"),
    "wrong step": (put(step=90), "image.step: 90; at least 96 expected"),
    "old stamp": (put(header=Header(stamp=to_stamp(5.0))), " s old; at most 0.3 s allowed"),
}


def test_bad_inputs_are_told_and_command_nothing(
    probe: Probe, start: Callable[..., NodeProcess], robot: FakeRobot, tmp_path: Path
) -> None:
    good, other = (tiny_checkpoint(tmp_path / str(seed), seed) for seed in (0, 1))
    cases = spoiled_checkpoints(tmp_path, good)
    mpc = start(MPC, model=cases["flipped"][0], image_shape=[32, 32], **FAST)
    _check_bad_checkpoints(probe, cases)
    answer = probe.call(LoadModel, "load_model", LoadModel.Request(path=str(good)), START_S)
    assert answer.success and answer.generation == 1, answer.message

    probe.wait(in_state(probe, State.IDLE, "goal: none set"), SOON_S, "idle")
    robot.set_goal(put(encoding="nothing"))
    probe.wait(in_state(probe, State.IDLE, "goal_image.encoding: 'nothing'"), SOON_S, "bad goal")
    refused = probe.call(SetGoal, "set_goal", SetGoal.Request())
    assert not refused.success and "goal_image.encoding: ''" in refused.message
    assert not probe.heard["command"], "a command without a model or a goal"

    robot.set_goal()
    probe.wait(in_state(probe, State.RUNNING), SOON_S, "running")
    for name, (spoil, words) in BAD_IMAGES.items():
        robot.spoil = spoil
        _check_safe_stop(probe, words, name)
        robot.spoil = lambda _: None
        probe.wait(in_state(probe, State.RUNNING), SOON_S, f"recovery from {name}")
    robot.position = [200.0, math.nan]
    _check_safe_stop(probe, "proprio.position: nan at joint 'agent_y'", "NaN proprioception")
    robot.position = [200.0, 200.0]
    probe.wait(in_state(probe, State.RUNNING), SOON_S, "recovery from NaN")

    _check_e_stop(probe, robot)
    _check_model_swap(probe, cases, other)
    _check_reach_goal(probe, robot)
    _check_lifecycle(probe, robot)
    assert mpc.alive
    assert mpc.end(signal.SIGTERM) == 0, mpc.output
    assert "Traceback" not in mpc.output


def test_a_model_never_brings_up_a_node_that_was_taken_down(
    probe: Probe, start: Callable[..., NodeProcess], robot: FakeRobot, tmp_path: Path
) -> None:
    models = [tiny_checkpoint(tmp_path / str(seed), seed) for seed in range(3)]
    mpc = start(MPC, model=models[0], **FAST)
    probe.wait(in_state(probe, State.IDLE, "goal: none set"), START_S, "idle")
    robot.set_goal()
    probe.wait(in_state(probe, State.RUNNING), SOON_S, "running")

    def load(model: Path) -> LoadModel.Response:
        request = LoadModel.Request(path=str(model))
        return probe.call(LoadModel, "load_model", request, START_S)

    def check_still_down(state: State) -> None:
        since = time.time()
        time.sleep(2.5)
        states = {message.state for message in probe.since("status", since)}
        assert states == {state} and not probe.since("command", since)

    assert change(probe, Transition.TRANSITION_DEACTIVATE)
    answer = load(models[1])
    assert answer.success and answer.message.endswith(": prepared; activate mpc_node to use it")
    check_still_down(State.IDLE)

    assert change(probe, Transition.TRANSITION_CLEANUP)
    answer = load(models[2])
    words = ": prepared; configure and activate mpc_node to use it"
    assert answer.success and answer.message.endswith(words), answer.message
    assert answer.model_hash == "", "none is active"
    check_still_down(State.UNCONFIGURED)

    assert change(probe, Transition.TRANSITION_CONFIGURE)
    check_still_down(State.IDLE)
    assert change(probe, Transition.TRANSITION_ACTIVATE)
    probe.wait(in_state(probe, State.RUNNING), SOON_S, "running again")
    assert probe.last("status").model_hash == WorldModel.load(models[2]).hash

    assert change(probe, Transition.TRANSITION_ACTIVE_SHUTDOWN)
    assert is_zero(probe.last("command"))
    answer = load(models[1])
    assert not answer.success and "shut down" in answer.message
    check_still_down(State.UNCONFIGURED)
    assert mpc.end(signal.SIGTERM) == 0, mpc.output
    assert "Traceback" not in mpc.output


def change(probe: Probe, transition: int) -> bool:
    """Ask for a lifecycle transition; returns whether it succeeded."""
    request = ChangeState.Request(transition=Transition(id=transition))
    return probe.call(ChangeState, "mpc_node/change_state", request).success


def _check_bad_checkpoints(probe: Probe, cases: dict[str, tuple[Path, str]]) -> None:
    """Each is told, by the start and by the service; nothing runs."""
    probe.wait(in_state(probe, State.FAULT, cases["flipped"][1]), START_S, "fault")
    for path, words in cases.values():
        answer = probe.call(LoadModel, "load_model", LoadModel.Request(path=str(path)))
        assert not answer.success and words in answer.message, answer.message
    assert not probe.heard["command"]


def _check_safe_stop(probe: Probe, words: str, name: str) -> None:
    """The reason is told, and after the ramp every command is rest."""
    probe.wait(in_state(probe, State.SAFE_STOP, words), SOON_S, name)
    time.sleep(0.45)
    commands = probe.since("command", time.time() - 0.15)
    assert commands and all(map(is_zero, commands)), name


def _check_e_stop(probe: Probe, robot: FakeRobot) -> None:
    robot.e_stop_out.publish(Bool(data=True))
    probe.wait(in_state(probe, State.E_STOP, "latched"), SOON_S, "e-stop")
    assert is_zero(probe.last("command"))
    request = SetGoal.Request(goal_image=rgb_to_image(robot.picture, to_stamp(0.0)))
    refused = probe.call(SetGoal, "set_goal", request)
    assert not refused.success and "e_stop: engaged" in refused.message
    robot.e_stop_out.publish(Bool(data=False))
    time.sleep(0.3)
    assert in_state(probe, State.E_STOP)(), "false alone must not release"
    assert probe.call(SetGoal, "set_goal", request).success
    probe.wait(in_state(probe, State.RUNNING), SOON_S, "released")


def _check_model_swap(probe: Probe, cases: dict[str, tuple[Path, str]], other: Path) -> None:
    """A bad model leaves the running one alone; a good one takes over without a stop."""
    before = probe.last("status").model_hash
    path, words = cases["flipped"]
    answer = probe.call(LoadModel, "load_model", LoadModel.Request(path=str(path)))
    assert not answer.success and words in answer.message and answer.model_hash == before
    since = time.time()
    answer = probe.call(LoadModel, "load_model", LoadModel.Request(path=str(other)), START_S)
    assert answer.success and answer.generation == 2 and answer.model_hash != before
    probe.wait(lambda: probe.last("status").model_hash == answer.model_hash, SOON_S, "swap")
    stops = [m.reason for m in probe.since("status", since) if m.state != State.RUNNING]
    assert not stops


def _check_reach_goal(probe: Probe, robot: FakeRobot) -> None:
    client = ActionClient(probe.node, ReachGoal, "reach_goal")
    assert client.wait_for_server(SOON_S)
    here = rgb_to_image(robot.picture, to_stamp(0.0))
    there = rgb_to_image(robot.picture[::-1].copy(), to_stamp(0.0))
    feedback: list[Any] = []

    def send(**goal: Any) -> Any:
        future = client.send_goal_async(
            ReachGoal.Goal(**goal), feedback_callback=lambda m: feedback.append(m.feedback.status)
        )
        return probe.result(future, SOON_S, "acceptance")

    def ending(handle: Any) -> ReachGoal.Result:
        return probe.result(handle.get_result_async(), SOON_S, "result").result

    result = ending(send(goal_image=here, tolerance=1e-3))
    assert result.success and result.reason == "reached" and result.final_distance <= 1e-3
    assert feedback and result.ticks >= 1
    result = ending(send(goal_image=there, timeout_s=0.5))
    assert not result.success and result.reason == "timeout"
    handle = send(goal_image=there)
    time.sleep(0.3)
    probe.result(handle.cancel_goal_async(), SOON_S, "cancel")
    assert ending(handle).reason == "cancelled"
    probe.wait(in_state(probe, State.IDLE), SOON_S, "idle after cancelling")
    there.step = 3
    assert "goal_image.step: 3" in ending(send(goal_image=there)).reason


def _check_lifecycle(probe: Probe, robot: FakeRobot) -> None:
    """Deactivated it is silent; activated again it hears the latched goal and runs."""
    robot.set_goal()
    probe.wait(in_state(probe, State.RUNNING), SOON_S, "running")
    assert change(probe, Transition.TRANSITION_DEACTIVATE)
    probe.wait(in_state(probe, State.IDLE, "inactive"), SOON_S, "inactive")
    assert is_zero(probe.last("command"))
    since = time.time()
    time.sleep(0.5)
    assert not probe.since("command", since)
    assert change(probe, Transition.TRANSITION_ACTIVATE)
    probe.wait(in_state(probe, State.RUNNING), SOON_S, "running again")
