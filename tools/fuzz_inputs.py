"""Malformed messages, calls and goals for every input of ``mpc_node``; see ``fuzz_messages``."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from builtin_interfaces.msg import Time
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.action import ActionClient
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_parameters
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Bool

from wm_mpc.action import ReachGoal
from wm_mpc.nodes.common import qos
from wm_mpc.nodes.common.messages import rgb_to_image, to_stamp
from wm_mpc.srv import LoadModel, SetGoal

SIDE = 96
JOINTS = ["x", "y"]
NUMBERS = (0.0, -1.0, 1e-300, 1e6, 1e39, 1e308, float("nan"), float("inf"), -float("inf"))
SIZES = (0, 1, 15, SIDE, 16384, 2**31, 2**32 - 1)
ENCODINGS = (
    "", "rgb8", "bgr8", "rgba8", "mono8", "mono16", "8UC1", "16UC3", "32FC1", "64FC4", "yuv422",
    "nv12", "nv21", "bayer_rggb8", "bayer_gbrg16", "RGB8", "é" * 40, "x" * 5000, "rgb8\nrgb8",
)  # fmt: skip


class Fuzzer:
    """Publishers and clients, and what is still unanswered.

    Args:
        node: owner.
        rng: source of every choice.
        model: folder of a sound model.
        folder: for folders that are none.

    Attributes:
        calls: calls without an answer yet: when they were made, and what was asked.
        answered: calls that were answered.
    """

    def __init__(self, node: Node, rng: random.Random, model: Path, folder: Path) -> None:
        self.rng = rng
        self.calls: list[tuple[float, str, Any]] = []
        self.answered = 0
        self._noise = np.random.default_rng(rng.randrange(2**32))
        self._picture = self._noise.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        publish = node.create_publisher
        kinds = {"image": Image, "image/compressed": CompressedImage, "proprio": JointState}
        self._out = {topic: publish(kind, topic, qos.COMMAND) for topic, kind in kinds.items()}
        latched = {"goal_image": Image, "goal_proprio": JointState, "e_stop": Bool}
        self._out |= {topic: publish(kind, topic, qos.LATCHED) for topic, kind in latched.items()}
        self._load = node.create_client(LoadModel, "load_model", qos_profile=qos.MANY_CALLS)
        self._goal = node.create_client(SetGoal, "set_goal", qos_profile=qos.MANY_CALLS)
        self._change = node.create_client(ChangeState, "mpc_node/change_state")
        service = "mpc_node/set_parameters_atomically"
        self._set = node.create_client(
            SetParametersAtomically, service, qos_profile=qos_profile_parameters
        )
        self._reach = ActionClient(node, ReachGoal, "reach_goal")
        self._folders = self._bad_folders(model, folder)
        kinds_of_input: dict[str, tuple[int, Callable[[], object]]] = {
            "image": (20, lambda: self._send("image", self.image())),
            "image/compressed": (15, lambda: self._send("image/compressed", self.compressed())),
            "proprio": (20, lambda: self._send("proprio", self.joints())),
            "goal_image": (10, lambda: self._send("goal_image", self.image())),
            "goal_proprio": (5, lambda: self._send("goal_proprio", self.joints())),
            "wire": (10, self._wire),
            "e_stop": (1, self._e_stop),
            "set_goal": (8, self._set_goal),
            "load_model": (2, self._load_model),
            "reach_goal": (4, self._reach_goal),
            "parameters": (6, self._parameters),
            "change_state": (1, self._change_state),
        }
        self._names = list(kinds_of_input)
        self._weights = [weight for weight, _ in kinds_of_input.values()]
        self._send_one = {name: send for name, (_, send) in kinds_of_input.items()}

    def one(self) -> str:
        """Send one malformed message; returns the input's name."""
        name = self.rng.choices(self._names, self._weights)[0]
        self._send_one[name]()
        return name

    def sound(self) -> None:
        """What a sound robot sends."""
        stamp = to_stamp(time.time())
        joints = JointState(name=JOINTS, position=[10.0, 10.0], velocity=[0.0, 0.0])
        joints.header.stamp = stamp
        self._out["proprio"].publish(joints)
        row = self.rng.randrange(SIDE)
        self._picture[row] = self._noise.integers(0, 256, (SIDE, 3), np.uint8)
        self._out["image"].publish(rgb_to_image(self._picture, stamp))

    def release(self) -> None:
        """Let go of the emergency stop, activate, and ask for a goal."""
        self._out["e_stop"].publish(Bool(data=False))
        self._ask(self._change, ChangeState.Request(transition=Transition(id=1)))
        self._ask(self._change, ChangeState.Request(transition=Transition(id=3)))
        near = Parameter("tolerance", value=0.0).to_parameter_msg()
        self._ask(self._set, SetParametersAtomically.Request(parameters=[near]))
        time.sleep(0.5)
        goal = rgb_to_image(self._picture[::-1].copy(), to_stamp(time.time()))
        self._out["goal_image"].publish(goal)

    def overdue(self, seconds: float) -> list[str]:
        """Forget answered calls, and return and forget those without an answer for so long [s]."""
        now, waiting, late = time.monotonic(), [], []
        for when, asked, future in self.calls:
            if future.done():
                self.answered += 1
            elif now - when >= seconds:
                late.append(asked)
            else:
                waiting.append((when, asked, future))
        self.calls = waiting
        return late

    # ---- messages ------------------------------------------------------------------------------

    def stamp(self) -> Time:
        """Now, mostly; else anything that fits the fields."""
        if self.rng.random() < 0.6:
            return to_stamp(time.time() + self.rng.choice((0.0, -0.05, -10.0, 10.0)))
        return Time(
            sec=self.rng.choice((0, -1, 2**31 - 1, -(2**31))),
            nanosec=self.rng.choice((0, 10**9, 2**32 - 1)),
        )

    def blob(self) -> bytes:
        """Bytes of any length."""
        return self.rng.randbytes(self.rng.choice((0, 1, 7, 1000, SIDE * SIDE * 3, 200_000)))

    def image(self) -> Image:
        """A picture with some fields that do not belong together."""
        message = rgb_to_image(self._picture, self.stamp())
        for name in self.rng.sample(("height", "width", "step", "encoding", "data", "endian"), 2):
            if name == "encoding":
                message.encoding = self.rng.choice(ENCODINGS)
            elif name == "data":
                message.data = self.blob()
            elif name == "endian":
                message.is_bigendian = self.rng.choice((0, 1, 255))
            else:
                setattr(message, name, self.rng.choice(SIZES))
        message.header.frame_id = self.rng.choice(("", "camera", "f" * 100_000, "a\nb"))
        return message

    def compressed(self) -> CompressedImage:
        """A compressed picture that was cut, altered, or says that it is huge."""
        formats = ("jpeg", "png", "", "x\ny", "32FC1; png")
        message = CompressedImage(format=self.rng.choice(formats))
        message.header.stamp = self.stamp()
        suffix = self.rng.choice((".jpg", ".png"))
        data = bytearray(cv2.imencode(suffix, self._picture)[1].tobytes())
        how = self.rng.randrange(4)
        if how == 0:
            data = data[: self.rng.randrange(len(data))]
        elif how == 1:
            for _ in range(self.rng.randrange(1, 40)):
                data[self.rng.randrange(len(data))] = self.rng.randrange(256)
        elif how == 2 and suffix == ".png":
            side = self.rng.choice((0, 30_000, 2**31 - 1))
            data[16:24] = side.to_bytes(4, "big") * 2  # its header says so
        else:
            data = bytearray(self.blob())
        message.data = bytes(data)
        return message

    def joints(self) -> JointState:
        """Joints with wrong names, lengths and numbers."""
        count = self.rng.choice((0, 1, 2, 2, 2, 3, 1000))
        names = (JOINTS + [f"j{k}" for k in range(count)])[:count]
        if self.rng.random() < 0.3:
            names = [self.rng.choice(("x", "", "é", "y\n", "n" * 1000)) for _ in range(count)]
        message = JointState(name=names)
        for part in ("position", "velocity", "effort"):
            length = count if self.rng.random() < 0.8 else self.rng.choice((0, 1, 5000))
            values = [self.rng.choice(NUMBERS) for _ in range(length)]
            setattr(message, part, values if self.rng.random() < 0.7 else [10.0] * length)
        message.header.stamp = self.stamp()
        return message

    def _send(self, topic: str, message: Any) -> None:
        self._out[topic].publish(message)

    def _wire(self) -> None:
        """A message whose bytes were altered on the way."""
        topic = self.rng.choice(("image", "image/compressed", "proprio", "goal_image"))
        make = {"image/compressed": self.compressed, "proprio": self.joints}.get(topic, self.image)
        data = bytearray(serialize_message(make()))
        for _ in range(self.rng.randrange(1, 8)):
            data[self.rng.randrange(4, min(len(data), 200))] = self.rng.randrange(256)
        if self.rng.random() < 0.3:
            data = data[: self.rng.randrange(4, len(data))]
        self._out[topic].publish(bytes(data))

    def _e_stop(self) -> None:
        self._out["e_stop"].publish(Bool(data=True))
        self._out["e_stop"].publish(Bool(data=False))

    # ---- calls ---------------------------------------------------------------------------------

    def _ask(self, client: Any, request: Any) -> None:
        if client.service_is_ready():
            asked = str(request)[:300]
            self.calls.append((time.monotonic(), asked, client.call_async(request)))

    def _set_goal(self) -> None:
        numbers = [self.rng.choice(NUMBERS) for _ in range(self.rng.choice((0, 2, 2, 3, 1000)))]
        request = SetGoal.Request(goal_image=self.image(), proprio=numbers)
        request.tolerance = self.rng.choice(NUMBERS)
        self._ask(self._goal, request)

    def _load_model(self) -> None:
        self._ask(self._load, LoadModel.Request(path=self.rng.choice(self._folders)))

    def _reach_goal(self) -> None:
        goal = ReachGoal.Goal(goal_image=self.image(), tolerance=self.rng.choice(NUMBERS))
        goal.timeout_s = self.rng.choice(NUMBERS)
        goal.goal_proprio = [self.rng.choice(NUMBERS) for _ in range(self.rng.choice((0, 2, 3)))]
        if not self._reach.server_is_ready():
            return
        future = self._reach.send_goal_async(goal)
        self.calls.append((time.monotonic(), "reach_goal", future))
        if self.rng.random() < 0.5:
            future.add_done_callback(
                lambda done: done.result().accepted and done.result().cancel_goal_async()
            )

    def _parameters(self) -> None:
        names = (
            "tolerance", "planner", "rate_limit", "ramp_s", "max_frozen_s", "no_such",
            "objective.running_weight", "planner_options.starts", "planner_options.iterations",
            "planner_options.learning_rate", "budget_fraction", "use_sim_time", "publish_search",
        )  # fmt: skip
        values = (*NUMBERS, "", "x" * 10_000, True, [], [1.0], [0.1] * 1000, 1, -1, 2**62, [True])
        wanted = []
        for name in self.rng.sample(names, self.rng.randrange(1, 4)):
            value = self.rng.choice(values)
            wanted.append(Parameter(name, value=value).to_parameter_msg())
        self._ask(self._set, SetParametersAtomically.Request(parameters=wanted))

    def _change_state(self) -> None:
        """A transition that there is not, or not now; then active again."""
        number = self.rng.choice((0, 2, 4, 99, 255))
        transition = Transition(id=number, label=self.rng.choice(("", "x" * 1000)))
        self._ask(self._change, ChangeState.Request(transition=transition))
        self.release()

    def _bad_folders(self, model: Path, folder: Path) -> list[str]:
        """Paths that are no model folders, and one that is."""
        pipe, links, huge = (folder / name for name in ("pipe", "links", "huge"))
        for one in (pipe, links, huge):
            one.mkdir()
        os.mkfifo(pipe / "world_model.json")
        (links / "world_model.json").symlink_to("/dev/zero")
        (links / "world_model.safetensors").symlink_to("/dev/urandom")
        (huge / "world_model.json").write_text("[" * 100_000)
        return [
            str(model), "/no/such/folder", "~nosuchuser", "/dev/zero", "/proc/self", "x" * 5000,
            "a\nb", "/", ".", str(pipe), str(links), str(huge),
        ]  # fmt: skip


__all__ = ["Fuzzer"]
