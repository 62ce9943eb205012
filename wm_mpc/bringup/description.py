"""The one description of nodes, parameters and remappings.

``launch/*.launch.py`` and ``wm-mpc launch`` both read it, so that they cannot drift apart. It
knows neither ``launch`` nor rclpy: :func:`resolve` turns launch arguments (text) into the nodes to
start.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from wm_mpc.core.errors import UserError
from wm_mpc.core.locations import share_dir


@dataclass(frozen=True)
class Argument:
    """A launch argument. An empty value means: leave it to the parameter file.

    Attributes:
        name: as written on the command line, ``name:=value``.
        default: text.
        description: one line for people.
        choices: allowed values; empty: any.
    """

    name: str
    default: str
    description: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class NodeSpec:
    """A node of a bringup before arguments are known.

    Attributes:
        executable: file in ``lib/wm_mpc``.
        name: node name; also its section in the parameter file.
        parameters: parameter name -> launch argument that sets it when it is not empty.
        remappings: topic name -> launch argument that holds the new name when it is not empty.
        required: when it ends, everything ends.
        condition: launch arguments, apart by spaces, that must be true for the node to start;
            empty: always.
        gated: its commands are requests to ``command_gate``, where that is started.
        host: where two machines are used, it belongs to the strong one, not to the robot.
    """

    executable: str
    name: str
    parameters: Mapping[str, str]
    remappings: Mapping[str, str]
    required: bool = True
    condition: str = ""
    gated: bool = False
    host: bool = False


@dataclass(frozen=True)
class Bringup:
    """A set of nodes that is started together.

    Attributes:
        name: ``wm-mpc launch NAME`` and ``launch/NAME.launch.py``.
        description: one line for people.
        arguments: every launch argument, in the order they are shown.
        nodes: in start order.
    """

    name: str
    description: str
    arguments: tuple[Argument, ...]
    nodes: tuple[NodeSpec, ...]


@dataclass(frozen=True)
class ResolvedNode:
    """A node that is to be started.

    Attributes:
        executable: file in ``lib/wm_mpc``.
        name: node name.
        namespace: ROS namespace; empty: the root.
        params_file: parameter file, an existing path.
        overrides: parameters that win over the file, typed.
        remappings: pairs (from, to).
        log_level: rcl log level of the process.
        required: when it ends, everything ends.
        enclave: SROS2 enclave; empty: none.
    """

    executable: str
    name: str
    namespace: str
    params_file: Path
    overrides: Mapping[str, Any]
    remappings: tuple[tuple[str, str], ...]
    log_level: str
    required: bool
    enclave: str = ""


_BOOL = ("true", "false")
_ENCLAVE = Argument(
    "enclave", "", "SROS2: prefix of the nodes' enclaves, e.g. /wm_mpc; empty: none."
)
_LOG_LEVELS = ("debug", "info", "warn", "error", "fatal")


def _common(config: str) -> tuple[Argument, ...]:
    return (
        Argument("params_file", config, "Parameter file; a bare name is looked up in config/."),
        Argument("namespace", "", "ROS namespace of all nodes; empty: the root."),
        Argument("model", "", "World-model folder; empty: the parameter file's."),
        Argument("planner", "", "Planner, e.g. adam, cem; empty: the parameter file's."),
        Argument("device", "", "cpu, cuda or cuda:N; empty: the parameter file's."),
        Argument("seed", "", "Seed of every random draw (integer); empty: the parameter file's."),
        Argument("dry_run", "", "true: plan and report, publish no command.", ("", *_BOOL)),
        Argument("gate", "true", "Commands go through command_gate; false: straight.", _BOOL),
        Argument("use_sim_time", "false", "Take time from /clock.", _BOOL),
        Argument("online_finetune", "false", "Also start trainer_node.", _BOOL),
        Argument("live", "", "Working folder of trainer_node; empty: the parameter file's."),
        Argument("replay", "", "Store that trainer_node mixes in; empty: the parameter file's."),
        Argument("record", "false", "Also start recorder_node.", _BOOL),
        Argument("view", "false", "Also serve the live page, node view.", _BOOL),
        Argument(
            "markers", "false", "Also draw plans for RViz and Foxglove, node markers.", _BOOL
        ),
        Argument(
            "publish_search",
            "",
            "true: plans tell their search, for the live page; empty: true with view:=true or "
            "markers:=true, else the parameter file's.",
            ("", *_BOOL),
        ),
        Argument("bag", "", "Folder of the recorded bag; empty: named by task and time of day."),
        Argument("log_level", "info", "Log level of all nodes.", _LOG_LEVELS),
        Argument(
            "part",
            "all",
            "Two machines: host starts mpc_node and trainer_node, robot all other nodes.",
            ("all", "host", "robot"),
        ),
        _ENCLAVE,
    )


_SIMULATED = (
    Argument(
        "real_time_factor",
        "",
        "Simulated over wall time; other than 1 needs use_sim_time:=true.",
    ),
)
_TASK = (
    Argument("task", "", "Task by name or as module:TASK; empty: the parameter file's."),
    Argument("control_rate_hz", "", "The task's control rate [Hz]; empty: the parameter file's."),
)
_ROBOT = (
    Argument("control_rate_hz", "", "Control rate [Hz]; empty: the parameter file's."),
    Argument("task", "", "Task the model was trained for; empty: the parameter file's."),
    Argument(
        "command_type",
        "",
        "Message type of command; empty: the parameter file's.",
        ("", "float64_multi_array", "twist_stamped", "joint_trajectory"),
    ),
    Argument("image_topic", "", "Camera topic, sensor_msgs/Image; empty: image."),
    Argument("proprio_topic", "", "Joint state topic, sensor_msgs/JointState; empty: proprio."),
    Argument("goal_topic", "", "Goal picture topic, sensor_msgs/Image; empty: goal_image."),
    Argument("goal_proprio_topic", "", "Joint state at the goal; empty: goal_proprio."),
    Argument("command_topic", "", "Topic the robot listens to; empty: command."),
    Argument("e_stop_topic", "", "Emergency stop topic, std_msgs/Bool; empty: e_stop."),
)
_TOPICS = {
    "image": "image_topic",
    "proprio": "proprio_topic",
    "goal_image": "goal_topic",
    "goal_proprio": "goal_proprio_topic",
    "command": "command_topic",
    "e_stop": "e_stop_topic",
}
# a remapping holds for one exact name; these come in a second form
_ALSO_COMPRESSED = ("image",)
_SHARED = {"seed": "seed", "use_sim_time": "use_sim_time"}
_MPC = {
    **_SHARED,
    "model": "model",
    "planner": "planner",
    "device": "device",
    "dry_run": "dry_run",
    "publish_search": "publish_search",
}


# the gate plans nothing and draws no random number
_GATE = {"use_sim_time": "use_sim_time", "dry_run": "dry_run"}
REQUEST = "command_request"
"""Topic of what the controller asks for where ``command_gate`` has the last word."""


def _controlled(mpc: Mapping[str, str], gate: Mapping[str, str], topics: Mapping[str, str]) -> (
    tuple[NodeSpec, ...]
):
    """``command_gate``, first, and ``mpc_node`` with its commands led through it."""
    return (
        NodeSpec("command_gate", "command_gate", gate, topics, condition="gate"),
        NodeSpec("mpc_node", "mpc_node", mpc, topics, gated=True, host=True),
    )


def _extras(
    parameters: Mapping[str, str],
    topics: Mapping[str, str],
    heard: tuple[str, ...] = (),
    drawn: Mapping[str, str] | None = None,
) -> tuple[NodeSpec, ...]:
    """``trainer_node``, ``recorder_node``, ``view`` and ``markers``.

    Args:
        parameters: of all.
        topics: remappings of all.
        heard: launch arguments that say how commands read; the recorder takes them as they come.
        drawn: parameters of ``markers``, whose task is a simulated one or none.
    """
    own = ("model", "device", "replay", *heard)
    trainer = {**_SHARED, **parameters, **{name: name for name in own}, "out": "live"}
    recorder = {"use_sim_time": "use_sim_time", **parameters, "out": "bag"}
    page = {"use_sim_time": "use_sim_time", **parameters, "model": "model"}
    drawing = {"use_sim_time": "use_sim_time", **(drawn or {})}
    return (
        NodeSpec(
            "trainer_node", "trainer_node", trainer, topics, False, "online_finetune", host=True
        ),
        NodeSpec("recorder_node", "recorder_node", recorder, topics, False, "record"),
        NodeSpec("view", "view", page, topics, False, "view"),
        NodeSpec("markers", "markers", drawing, topics, False, "markers"),
    )


def _simulated(task: str) -> Bringup:
    bridge = {**_SHARED, "real_time_factor": "real_time_factor"}
    nodes = (
        NodeSpec("sim_bridge", "sim_bridge", bridge, {}),
        *_controlled(_MPC, _GATE, {}),
        *_extras({}, {}),
    )
    description = f"Task {task} in simulation, driven by the controller."
    arguments = (*_common(f"{task}.yaml"), *_SIMULATED)
    return Bringup(f"{task}_sim", description, arguments, nodes)


_CONTROL = Argument(
    "control", "true", "false: the arm alone, for explore_node or whoever commands it.", _BOOL
)


def _simulated_arm(arm: str, title: str) -> Bringup:
    """An arm that is reached as a real one is: camera, joint states and a controller."""
    topics = {"proprio": "proprio_topic"}
    joints = Argument("proprio_topic", "joint_states", "Joint state topic of the arm.")
    nodes = (
        NodeSpec("sim_arm", "sim_arm", _SHARED, {}),
        NodeSpec("command_gate", "command_gate", _GATE, topics, condition="gate control"),
        NodeSpec(
            "mpc_node", "mpc_node", _MPC, topics, condition="control", gated=True, host=True
        ),
        *_extras({}, topics),
    )
    description = f"{title} in simulation, driven by the controller."
    return Bringup(
        f"{arm}_sim", description, (*_common(f"{arm}.yaml"), joints, _CONTROL), nodes
    )


def _explore() -> Bringup:
    parameters = {**_SHARED, "minutes": "minutes"}
    topics = {
        name: _TOPICS[name] for name in ("proprio", "command", "e_stop")
    }
    arguments = (
        Argument("params_file", "robot.yaml", "Parameter file with a section explore_node."),
        Argument("namespace", "", "ROS namespace of all nodes; empty: the root."),
        Argument("minutes", "", "Length of the motion [min]; empty: the parameter file's."),
        Argument("seed", "", "Seed of the motion (integer); empty: the parameter file's."),
        Argument("dry_run", "", "true: compute and report commands, publish none.", ("", *_BOOL)),
        Argument("gate", "true", "Commands go through command_gate; false: straight.", _BOOL),
        Argument("use_sim_time", "false", "Take time from /clock.", _BOOL),
        Argument("proprio_topic", "", "Joint state topic; empty: proprio."),
        Argument("command_topic", "", "Topic the robot listens to; empty: command."),
        Argument("e_stop_topic", "", "Emergency stop topic, std_msgs/Bool; empty: e_stop."),
        Argument("log_level", "info", "Log level of all nodes.", _LOG_LEVELS),
        _ENCLAVE,
    )
    nodes = (
        NodeSpec("command_gate", "command_gate", _GATE, topics, condition="gate"),
        NodeSpec("explore_node", "explore_node", parameters, topics, gated=True),
    )
    return Bringup("explore", "Moves a robot for data, inside a box.", arguments, nodes)


def _any_simulated() -> Bringup:
    shared = {name: name for name in ("task", "control_rate_hz")}
    bridge = {**_SHARED, **shared, "real_time_factor": "real_time_factor"}
    nodes = (
        NodeSpec("sim_bridge", "sim_bridge", bridge, {}),
        *_controlled({**_MPC, **shared}, {**_GATE, "control_rate_hz": "control_rate_hz"}, {}),
        *_extras({"task": "task"}, {}, drawn={"task": "task"}),
    )
    description = "Any task in simulation, by name or as module:TASK, driven by the controller."
    return Bringup("sim", description, (*_common("sim.yaml"), *_TASK, *_SIMULATED), nodes)


def _robot() -> Bringup:
    own = ("task", "command_type", "control_rate_hz")
    parameters = {**_MPC, **{name: name for name in own}}
    gate = {**_GATE, "command_type": "command_type", "control_rate_hz": "control_rate_hz"}
    nodes = (
        *_controlled(parameters, gate, _TOPICS),
        *_extras({"task": "task"}, _TOPICS, ("command_type",)),
    )
    description = "The controller alone, on a robot's own topics."
    return Bringup("robot", description, (*_common("robot.yaml"), *_ROBOT), nodes)


def simulated_tasks() -> tuple[str, ...]:
    """Tasks with a parameter file of their own, ``config/TASK.yaml``, and so a ``TASK_sim``."""
    try:
        files = sorted((share_dir() / "config").glob("*.yaml"))
    except UserError:
        return ()
    bridged = (file for file in files if "/sim_bridge:" in file.read_text())
    return tuple(file.stem for file in bridged if file.stem != "sim")


BRINGUPS: dict[str, Bringup] = {
    bringup.name: bringup
    for bringup in (
        *map(_simulated, simulated_tasks()),
        _any_simulated(),
        _simulated_arm("planar_arm", "A planar arm of two joints"),
        _simulated_arm("ur5e", "A UR5e with a gripper"),
        _explore(),
        _robot(),
    )
}


def find(name: str) -> Bringup:
    """Look up a bringup.

    Raises:
        UserError: unknown name; the message lists the known ones.
    """
    if name not in BRINGUPS:
        raise UserError(f"bringup: {name!r} is unknown; one of {', '.join(BRINGUPS)} expected")
    return BRINGUPS[name]


def parse_arguments(bringup: Bringup, words: list[str]) -> dict[str, str]:
    """Read ``key:=value`` words.

    Returns:
        Only what was given; :func:`resolve` adds the defaults.

    Raises:
        UserError: a word of another form, or an unknown or repeated argument.
    """
    known = [argument.name for argument in bringup.arguments]
    given: dict[str, str] = {}
    for word in words:
        key, separator, value = word.partition(":=")
        if not separator or not key:
            raise UserError(f"argument: {word!r}; key:=value expected")
        if key not in known:
            raise UserError(f"argument: {key!r} is unknown; one of {', '.join(known)} expected")
        if key in given:
            raise UserError(f"argument: {key!r} is given twice")
        given[key] = value
    return given


def resolve(bringup: Bringup, given: Mapping[str, str]) -> list[ResolvedNode]:
    """Turn launch arguments into the nodes to start.

    Args:
        bringup: one of :data:`BRINGUPS`.
        given: launch argument -> text; what is absent takes its default.

    Raises:
        UserError: a value outside its choices, or a parameter file that does not exist or parse.
    """
    values = {argument.name: argument.default for argument in bringup.arguments} | dict(given)
    for argument in bringup.arguments:
        value = values[argument.name]
        if argument.choices and value not in argument.choices:
            allowed = ", ".join(choice for choice in argument.choices if choice)
            raise UserError(f"{argument.name}: {value!r}; one of {allowed} expected")
    shown = "true" in (values.get("view"), values.get("markers"))
    if values.get("publish_search") == "" and shown:
        values["publish_search"] = "true"
    params_file = params_path(values["params_file"])
    return [
        ResolvedNode(
            executable=node.executable,
            name=node.name,
            namespace=values["namespace"],
            params_file=params_file,
            overrides={
                parameter: _typed(argument, values[argument])
                for parameter, argument in node.parameters.items()
                if values[argument]
            },
            remappings=tuple(
                pair
                for topic, target in _targets(node, values).items()
                for pair in _remap(topic, target)
            ),
            log_level=values["log_level"],
            required=node.required,
            enclave=_enclave(values["enclave"], node.name),
        )
        for node in bringup.nodes
        if all(values[name] == "true" for name in node.condition.split())
        and values.get("part", "all") in ("all", "host" if node.host else "robot")
    ]


def _enclave(prefix: str, name: str) -> str:
    if prefix and not prefix.startswith("/"):
        raise UserError(f"enclave: {prefix!r}; a path that begins with / expected")
    return f"{prefix.rstrip('/')}/{name}" if prefix else ""


def _targets(node: NodeSpec, values: Mapping[str, str]) -> dict[str, str]:
    """Topic -> its new name."""
    given = {topic: values[name] for topic, name in node.remappings.items() if values[name]}
    through = node.gated and values["gate"] == "true"
    return given | ({"command": REQUEST} if through else {})


def _remap(topic: str, target: str) -> list[tuple[str, str]]:
    pairs = [(topic, target)]
    if topic in _ALSO_COMPRESSED:
        pairs.append((f"{topic}/compressed", f"{target}/compressed"))
    return pairs


def _typed(argument: str, text: str) -> Any:
    """Parameters are typed where launch arguments are text: read the text as the node will."""
    try:
        if argument in ("control_rate_hz", "real_time_factor", "minutes"):
            return float(text)
        if argument == "seed":
            return int(text)
    except ValueError:
        kind = "an integer" if argument == "seed" else "a number"
        raise UserError(f"{argument}: {text!r}; {kind} expected") from None
    return text == "true" if text in _BOOL else text


def params_path(text: str) -> Path:
    """Where a parameter file lies; a bare name is looked up in the package's config/.

    Raises:
        UserError: it does not exist, or is none.
    """
    path = Path(text).expanduser()
    if path.name == text and not path.is_file():
        path = share_dir() / "config" / text
    if not path.is_file():
        raise UserError(f"params_file: {path} does not exist")
    node_parameters(path)
    return path.resolve()


def node_parameters(path: Path) -> dict[str, dict[str, Any]]:
    """Read a ROS parameter file: node name -> its parameters, without the namespace pattern.

    Raises:
        UserError: the file is not YAML of the form ``node: {ros__parameters: {...}}``.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise UserError(f"params_file: {path}: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"params_file: {path}: node sections expected")
    sections: dict[str, dict[str, Any]] = {}
    for key, section in content.items():
        if not isinstance(section, dict) or not isinstance(section.get("ros__parameters"), dict):
            raise UserError(f"params_file: {path}: {key}: ros__parameters expected")
        sections[str(key).rsplit("/", 1)[-1]] = section["ros__parameters"]
    return sections
