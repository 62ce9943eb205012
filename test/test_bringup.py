"""Launch files and the runner start the same nodes from one description."""

from __future__ import annotations

import importlib.util
import runpy
from pathlib import Path

import fake_launch
import pytest

from wm_mpc.bringup import description as bringup
from wm_mpc.core import locations
from wm_mpc.core.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
NAMES = list(bringup.BRINGUPS)
SIMS = ["pusht_sim", "point_maze_sim", "wall_sim"]
ARMS = ["planar_arm_sim", "ur5e_sim"]


def test_every_simulation_is_a_task_or_an_arm() -> None:
    assert {name for name in NAMES if name.endswith("_sim")} == {*SIMS, *ARMS}


def resolve(name: str, **given: str) -> dict[str, bringup.ResolvedNode]:
    return {node.name: node for node in bringup.resolve(bringup.find(name), given)}


def launched(name: str, monkeypatch: pytest.MonkeyPatch, **given: str) -> list[fake_launch.Node]:
    """Nodes that the launch file starts, by the launch API."""
    fake_launch.install(monkeypatch)
    described = runpy.run_path(str(ROOT / "launch" / f"{name}.launch.py"))
    entities = described["generate_launch_description"]().entities
    declared = [e for e in entities if isinstance(e, fake_launch.DeclareLaunchArgument)]
    values = {argument.name: argument.default_value for argument in declared} | given
    context = fake_launch.LaunchContext(values)
    return [
        node
        for entity in entities
        if isinstance(entity, fake_launch.OpaqueFunction)
        for node in entity.execute(context)
    ]


def test_every_bringup_has_a_launch_file_and_every_launch_file_a_bringup() -> None:
    files = {path.name.removesuffix(".launch.py") for path in (ROOT / "launch").iterdir()}
    assert files - {"__pycache__"} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_launch_file_declares_every_argument_with_a_description(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_launch.install(monkeypatch)
    described = runpy.run_path(str(ROOT / "launch" / f"{name}.launch.py"))
    entities = described["generate_launch_description"]().entities
    declared = [e for e in entities if isinstance(e, fake_launch.DeclareLaunchArgument)]
    expected = [(a.name, a.default, a.description) for a in bringup.find(name).arguments]
    assert [(d.name, d.default_value, d.description) for d in declared] == expected
    assert all(d.description for d in declared)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"seed": "7", "dry_run": "true", "namespace": "left", "log_level": "debug"},
        {"online_finetune": "true", "record": "true", "model": "/models/a"},
        {"enclave": "/wm_mpc"},
    ],
)
def test_launch_file_starts_what_the_description_resolves_to(
    name: str, given: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = resolve(name, **given)
    nodes = launched(name, monkeypatch, **given)
    assert [node.name for node in nodes] == list(expected)
    for node in nodes:
        want = expected[node.name]
        assert (node.package, node.executable) == ("wm_mpc", want.executable)
        assert (node.namespace or "") == want.namespace
        assert node.remappings == list(want.remappings)
        assert node.parameters[0] == str(want.params_file)
        assert (node.parameters[1:] or [{}]) == [dict(want.overrides)]
        enclave = ["--enclave", want.enclave] if want.enclave else []
        assert node.ros_arguments == ["--log-level", want.log_level, *enclave]
        assert want.enclave == (f"/wm_mpc/{node.name}" if "enclave" in given else "")
        assert (node.on_exit is not None) == want.required


def test_a_required_node_that_ends_shuts_down_once(monkeypatch: pytest.MonkeyPatch) -> None:
    node = launched("pusht_sim", monkeypatch)[0]
    (action,) = node.on_exit(None, fake_launch.LaunchContext(is_shutdown=False))
    assert isinstance(action, fake_launch.Shutdown) and node.name in action.reason
    assert node.on_exit(None, fake_launch.LaunchContext(is_shutdown=True)) is None


@pytest.mark.skipif(importlib.util.find_spec("launch_ros") is None, reason="no ROS distribution")
def test_launch_files_describe_themselves_with_the_real_launch() -> None:
    for name in NAMES:
        described = runpy.run_path(str(ROOT / "launch" / f"{name}.launch.py"))
        declared = described["generate_launch_description"]().get_launch_arguments()
        assert [d.name for d in declared] == [a.name for a in bringup.find(name).arguments]


@pytest.mark.parametrize("name", NAMES)
def test_parameter_file_has_a_section_for_every_node(name: str) -> None:
    extras = dict.fromkeys(("online_finetune", "record", "view", "markers"), "true")
    nodes = resolve(name, **extras)
    if name == "explore":
        nodes |= resolve("robot", **extras)
    if name not in (*SIMS, "sim"):  # a robot's file also says where it may be moved for data
        nodes |= resolve("explore", params_file=str(nodes["mpc_node"].params_file))
    for node in nodes.values():
        sections = bringup.node_parameters(node.params_file)
        assert set(sections) == set(nodes)


@pytest.mark.parametrize("name", ARMS)
def test_an_arm_and_who_commands_it_agree(name: str) -> None:
    sections = bringup.node_parameters(resolve(name)["mpc_node"].params_file)
    mpc, explore, arm = (sections[part] for part in ("mpc_node", "explore_node", "sim_arm"))
    assert name == f"{mpc['task']}_sim" == f"{arm['arm']}_sim"
    assert arm["camera_rate_hz"] == mpc["control_rate_hz"] == explore["control_rate_hz"]
    assert mpc["image_shape"] == [arm["image_size"]] * 2
    gate = sections["command_gate"]
    for shared in ("action_low", "action_high", "rate_limit", "command_type", "command_names"):
        assert mpc[shared] == gate[shared]
    for shared in ("command_type", "command_names", "joint_names"):
        assert mpc[shared] == explore[shared] == sections["trainer_node"][shared]
    kinds = {"forward_command": "float64_multi_array", "twist": "twist_stamped"}
    assert kinds[arm["controller"]] == mpc["command_type"]
    width = {len(explore[part]) for part in ("low", "high", "speed", "command_names")}
    assert width == {len(mpc[part]) for part in ("action_low", "action_high", "rate_limit")}
    assert explore["speed"] == mpc["action_high"]


@pytest.mark.parametrize("name", ARMS)
def test_an_arm_can_be_started_alone(name: str) -> None:
    assert list(resolve(name, control="false")) == ["sim_arm"]


@pytest.mark.parametrize("name", SIMS)
def test_simulator_and_controller_agree(name: str) -> None:
    node = resolve(name)["mpc_node"]
    sections = bringup.node_parameters(node.params_file)
    mpc, sim = sections["mpc_node"], sections["sim_bridge"]
    for shared in ("task", "control_rate_hz"):
        assert mpc[shared] == sim[shared]
    assert name == f"{mpc['task']}_sim"
    assert 0 < mpc["budget_fraction"] <= 0.10
    assert len(mpc["action_low"]) == len(mpc["action_high"]) == len(mpc["rate_limit"])
    assert all(low < high for low, high in zip(mpc["action_low"], mpc["action_high"], strict=True))
    assert sim["command_timeout_s"] <= 0.5


@pytest.mark.parametrize("name", SIMS)
def test_parameter_file_fits_the_task(name: str) -> None:
    specs = pytest.importorskip("sim_bridge.tasks.specs")
    sections = bringup.node_parameters(resolve(name)["mpc_node"].params_file)
    mpc = sections["mpc_node"]
    spec = specs.SPECS[mpc["task"]]
    assert mpc["control_rate_hz"] == pytest.approx(1 / spec.control_period)
    assert tuple(mpc["action_low"]) == spec.action_low
    assert tuple(mpc["action_high"]) == spec.action_high


def test_robot_commands_nothing_until_it_is_told_to() -> None:
    parameters = bringup.node_parameters(resolve("robot")["mpc_node"].params_file)["mpc_node"]
    assert parameters["dry_run"] is parameters["hardware"] is True
    assert "action_low" not in parameters and "action_high" not in parameters


@pytest.mark.parametrize("name", [name for name in NAMES if name != "explore"])
def test_two_machines_together_start_what_one_does(name: str) -> None:
    more = {"online_finetune": "true", "record": "true"}
    both, host, robot = (resolve(name, part=p, **more) for p in ("all", "host", "robot"))
    assert list(host) == ["mpc_node", "trainer_node"] and "command_gate" in robot
    assert not set(host) & set(robot) and host | robot == both


@pytest.mark.parametrize("name", [name for name in NAMES if name != "explore"])
def test_a_controller_that_cannot_start_ends_its_launch(name: str) -> None:
    node = resolve(name)["mpc_node"]
    parameters = bringup.node_parameters(node.params_file)["mpc_node"]
    assert node.required and parameters["exit_on_failed_start"] is True


def test_arguments_override_the_file_with_typed_values() -> None:
    nodes = resolve("pusht_sim", seed="7", real_time_factor="5", dry_run="false", model="/m/12")
    assert nodes["mpc_node"].overrides == {
        "seed": 7,
        "use_sim_time": False,
        "model": "/m/12",
        "dry_run": False,
    }
    assert nodes["sim_bridge"].overrides["real_time_factor"] == 5.0
    robot = resolve("robot", control_rate_hz="20", record="true", bag="b")
    assert robot["mpc_node"].overrides["control_rate_hz"] == 20.0
    assert robot["recorder_node"].overrides["out"] == "b"


def test_absent_arguments_leave_the_file_alone() -> None:
    for node in resolve("pusht_sim", gate="false").values():
        assert node.overrides == {"use_sim_time": False}
        assert node.remappings == ()


@pytest.mark.parametrize("name", NAMES)
def test_commands_go_through_the_gate_unless_told_otherwise(name: str) -> None:
    nodes = resolve(name, record="true", online_finetune="true")
    order, driver = list(nodes), "explore_node" if name == "explore" else "mpc_node"
    assert order.index("command_gate") < order.index(driver), "it is there first"
    assert nodes["command_gate"].required
    joints = (("proprio", "joint_states"),) if name in ARMS else ()
    for node in nodes.values():
        expected = (("command", "command_request"),) if node.name == driver else ()
        heard = () if node.name == "sim_arm" else joints
        assert node.remappings == heard + expected, "who hears commands hears those that left"
    straight = resolve(name, gate="false")
    assert "command_gate" not in straight and straight[driver].remappings == joints


@pytest.mark.parametrize("name", [*SIMS, *ARMS, "robot"])
def test_gate_and_controller_agree(name: str) -> None:
    sections = bringup.node_parameters(resolve(name)["mpc_node"].params_file)
    mpc, gate = sections["mpc_node"], sections["command_gate"]
    for shared in ("control_rate_hz", "command_type", "dry_run"):
        assert gate[shared] == mpc[shared]
    limits = ("action_low", "action_high", "rate_limit", "rest", "hold_at_rest", "hardware")
    for limit in limits:
        assert gate.get(limit) == mpc.get(limit)


def test_a_dry_run_and_the_command_type_hold_for_the_gate_too() -> None:
    given = {"dry_run": "true", "command_type": "twist_stamped", "control_rate_hz": "20"}
    nodes = resolve("robot", **given)
    for name in ("command_gate", "mpc_node"):
        overrides = nodes[name].overrides
        assert overrides["dry_run"] is True and overrides["control_rate_hz"] == 20.0
        assert overrides["command_type"] == "twist_stamped"


def test_robot_topics_are_remapped_for_every_node_that_uses_them() -> None:
    given = {"image_topic": "/cam/color", "command_topic": "/arm/command", "record": "true"}
    for node in resolve("robot", **given).values():
        command = "command_request" if node.name == "mpc_node" else "/arm/command"
        assert node.remappings == (
            ("image", "/cam/color"),
            ("image/compressed", "/cam/color/compressed"),
            ("command", command),
        )


def test_who_hears_commands_is_told_how_they_read() -> None:
    given = {"command_type": "twist_stamped", "online_finetune": "true", "record": "true"}
    nodes = resolve("robot", **given)
    for name in ("mpc_node", "trainer_node"):
        assert nodes[name].overrides["command_type"] == "twist_stamped"
    assert "command_type" not in nodes["recorder_node"].overrides, "it records what comes"
    for node in resolve("robot", online_finetune="true").values():
        assert "command_type" not in node.overrides


@pytest.mark.parametrize("argument", ["online_finetune", "record"])
def test_optional_nodes_start_when_asked_and_are_not_required(argument: str) -> None:
    before, after = resolve("pusht_sim"), resolve("pusht_sim", **{argument: "true"})
    (extra,) = set(after) - set(before)
    assert not after[extra].required
    assert all(node.required for node in before.values())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nope:=1"], "'nope' is unknown; one of params_file,"),
        (["seed=1"], "'seed=1'; key:=value expected"),
        ([":=1"], "key:=value expected"),
        (["seed:=1", "seed:=2"], "'seed' is given twice"),
    ],
)
def test_bad_words_are_named(words: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        bringup.parse_arguments(bringup.find("pusht_sim"), words)


def test_values_may_hold_the_separator_and_may_be_empty() -> None:
    parsed = bringup.parse_arguments(bringup.find("pusht_sim"), ["model:=a:=b", "seed:="])
    assert parsed == {"model": "a:=b", "seed": ""}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"seed": "x"}, "seed: 'x'; an integer expected"),
        ({"real_time_factor": "fast"}, "real_time_factor: 'fast'; a number expected"),
        ({"record": "yes"}, "record: 'yes'; one of true, false expected"),
        ({"log_level": "loud"}, "log_level: 'loud'; one of debug"),
        ({"params_file": "none.yaml"}, "params_file: .*none.yaml does not exist"),
    ],
)
def test_bad_values_are_named(given: dict[str, str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        resolve("pusht_sim", **given)


def test_unknown_bringup_names_the_known_ones() -> None:
    known = "point_maze_sim, pusht_sim, wall_sim, sim, planar_arm_sim, ur5e_sim, explore, robot"
    with pytest.raises(UserError, match=known):
        bringup.find("pusht")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "params_file"),
        ("- a", "node sections expected"),
        ("mpc_node: {task: pusht}", "mpc_node: ros__parameters expected"),
    ],
)
def test_a_broken_parameter_file_is_one_line(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=said) as caught:
        resolve("pusht_sim", params_file=str(file))
    assert "\n" not in str(caught.value)


def test_data_files_of_an_installation_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "share" / "wm_mpc" / "config").mkdir(parents=True)
    (tmp_path / "lib" / "wm_mpc").mkdir(parents=True)
    (tmp_path / "lib" / "wm_mpc" / "mpc_node").touch()
    monkeypatch.setattr(locations, "checkout", lambda: None)
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"/nowhere:{tmp_path}")
    assert locations.share_dir() == tmp_path / "share" / "wm_mpc"
    assert locations.executable_path("mpc_node") == tmp_path / "lib" / "wm_mpc" / "mpc_node"
    with pytest.raises(UserError, match="no_node: not in lib/wm_mpc"):
        locations.executable_path("no_node")
