"""``wm-mpc``: a table of commands. Each lives in its own module, imported when it is called.

A command's module has a ``Config`` (frozen dataclass; its docstrings are the help) or, for
commands with sub-commands, ``configs`` (name -> such a class; ``configs_for`` tells more of them
where the words of the command line name one), and ``run(config)``, which returns
the exit code.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from wm_mpc import __version__
from wm_mpc.core.errors import UserError


@dataclass(frozen=True)
class Command:
    """A row of the table.

    Attributes:
        module: import path of the module that implements the command.
        help: one line for people.
        example: arguments of a call that works as it stands.
    """

    module: str
    help: str
    example: str


COMMANDS: dict[str, Command] = {
    "demo": Command("wm_mpc.cli.demo", "run simulated episodes over ROS 2 and report on them", ""),
    "launch": Command(
        "wm_mpc.cli.launch", "start the nodes, as `ros2 launch` would", "pusht_sim seed:=7"
    ),
    "explore": Command(
        "wm_mpc.cli.explore",
        "move a robot for data, inside a box, through the command gate",
        "--params-file planar_arm.yaml --minutes 15",
    ),
    "goal": Command("wm_mpc.cli.goal", "goals of a robot: from its camera, or a bag", "--help"),
    "trial": Command(
        "wm_mpc.cli.trial",
        "give a running robot goals and tell how many it reached and held",
        "--goals goals --out out/trial",
    ),
    "collect": Command(
        "sim_bridge.collect",
        "record simulator trajectories into a store",
        "pusht --episodes 100 --seed 0 --out data/pusht",
    ),
    "train": Command("wm_mpc.cli.train", "train a world model", "pusht --help"),
    "validate": Command(
        "wm_mpc.cli.validate",
        "rank correlation, open-loop error and success of a world model",
        "--help",
    ),
    "finetune": Command(
        "wm_mpc.cli.finetune",
        "improve a world model: adversarial, online",
        "pusht --method online --help",
    ),
    "gap": Command(
        "wm_mpc.cli.gap",
        "model error where experts went against where the planner goes",
        "pusht --help",
    ),
    "live": Command(
        "wm_mpc.cli.live",
        "learn while a simulated robot runs, disturb it, and report on it",
        "wall --out out/live --help",
    ),
    "eval": Command(
        "wm_mpc.cli.eval",
        "closed-loop success in the true simulator, with intervals",
        "--task pusht --planner adam --goals 50 --seed 1 --report out/eval.json",
    ),
    "bench": Command(
        "wm_mpc.cli.bench",
        "the planner table at a stated budget",
        "--task pusht --planners cem,adam --report out/bench.json",
    ),
    "view": Command(
        "wm_mpc.cli.view", "a page: what the controller sees, plans and why", "--port 8765"
    ),
    "bag": Command("wm_mpc.cli.bag", "rosbag2 files in and out", "--help"),
    "export": Command("wm_mpc.cli.export", "encoder to ONNX", "--help"),
    "doctor": Command("wm_mpc.cli.doctor", "what this machine has, and what is missing", ""),
}

# module that fails to import -> how to get it
_EXTRAS: dict[str, str] = {
    **dict.fromkeys(("gymnasium", "gym_pusht", "pymunk", "pygame", "shapely"), "sim"),
    **dict.fromkeys(("gymnasium_robotics", "mujoco"), "sim"),
    **dict.fromkeys(("jinja2", "matplotlib", "PIL"), "viz"),
    "ogbench": "arm",
    **dict.fromkeys(("onnx", "onnxscript", "onnxruntime"), "export"),
    **dict.fromkeys(("rclpy", "rcl_interfaces", "sensor_msgs", "std_msgs", "std_srvs"), "ros"),
    **dict.fromkeys(("geometry_msgs", "trajectory_msgs", "diagnostic_msgs"), "ros"),
    **dict.fromkeys(("action_msgs", "lifecycle_msgs", "rosidl_generator_py"), "ros"),
}
_INTERFACES = ("wm_mpc.msg", "wm_mpc.srv", "wm_mpc.action")


def usage() -> str:
    """Text of ``wm-mpc --help``."""
    width = max(map(len, COMMANDS))
    rows = [f"  {name:<{width}}  {command.help}" for name, command in COMMANDS.items()]
    examples = [
        f"  wm-mpc {name} {command.example}".rstrip()
        for name, command in COMMANDS.items()
        if command.example != "--help"
    ]
    return "\n".join(
        [
            "usage: wm-mpc COMMAND [options]",
            "",
            "Model predictive control through learned latent world models, as ROS 2 nodes.",
            "",
            "commands:",
            *rows,
            "",
            "examples:",
            *examples,
            "",
            "wm-mpc COMMAND --help explains a command; wm-mpc --version tells the version.",
            "Exit codes: 0 success, 1 failure, 2 bad input, 130 interrupted.",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: arguments without the program's name; default: this process's.

    Returns:
        The exit code: 0 only on success, 2 on bad input with one line on stderr that says what.
    """
    try:
        code = _dispatch(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return code
    except UserError as error:
        return _fail(" ".join(str(error).split()))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # the reader of our output left (`| head`); Python must not complain about it at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        return 0 if words else 2
    if words[0] == "--version":
        print(f"wm-mpc {__version__}")
        return 0
    name, rest = words[0], words[1:]
    if name not in COMMANDS:
        raise UserError(f"command: {name!r} is unknown; one of {', '.join(COMMANDS)} expected")
    try:
        module = importlib.import_module(COMMANDS[name].module)
        config = _parse(name, module, rest)
        return int(module.run(config))
    except ImportError as error:
        message = explain_import(name, error)
        if message is None:
            raise
        raise UserError(message) from error


def _parse(name: str, module: ModuleType, words: list[str]) -> Any:
    """Read a command's arguments; what a Config's own checks refuse is the user's mistake."""
    import tyro

    from wm_mpc.cli import bounds

    told: dict[str, Any] = {
        "prog": f"wm-mpc {name}",
        "description": module.__doc__,
        "args": words,
        "registry": bounds.registry(),
    }
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            if hasattr(module, "configs"):
                table = module.configs
                if hasattr(module, "configs_for"):
                    table = module.configs_for(words)
                return tyro.extras.subcommand_cli_from_dict(table, **told)
            return tyro.cli(module.Config, **told)
    except SystemExit as end:
        if not end.code:
            raise
        raise UserError(f"{name}: {_one_line(complaint.getvalue())}") from None
    except ValueError as error:
        raise UserError(f"{name}: {error}") from error


def _one_line(box: str) -> str:
    """What an error box of tyro says, without box, line breaks and pointer to --help."""
    said = []
    for line in box.splitlines():
        text = re.sub(r"\x1b\[[0-9;]*m", "", line).strip("│ ")
        if line.startswith("╭"):
            continue
        if text.startswith(("──", "╰")):
            break
        said.append(text)
    return " ".join(said).removeprefix("Error parsing Config: ") or " ".join(box.split())


def explain_import(command: str, error: ImportError) -> str | None:
    """Say in one line how to get what an import did not find; None when it is a defect of ours."""
    missing = error.name or ""
    if missing == COMMANDS[command].module:
        return f"{command}: {missing} is not part of this installation"
    if missing in _INTERFACES:
        return (
            f"{command}: {missing}: the ROS interfaces are not built; "
            "pip install . or colcon build (and source install/setup.sh)"
        )
    top = missing.partition(".")[0]
    if top in _EXTRAS:
        return f"{command}: module {top} is missing: pip install 'wm-mpc[{_EXTRAS[top]}]'"
    if "libGL" in str(error) or "libgthread" in str(error):
        return f"{command}: {error}: apt install libgl1 libglib2.0-0"
    if top and top not in ("wm_mpc", "sim_bridge"):
        return f"{command}: module {top} is missing: pip install wm-mpc (again)"
    return None


def _fail(message: str) -> int:
    print(f"wm-mpc: error: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
