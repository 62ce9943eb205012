"""Plays a bag into running nodes under the bag's own clock, and checks the commands they give.

Messages are played in the order of time, wherever in the files they lie. ``/clock`` stands at the
stamp of the message being played, so nodes must run with ``use_sim_time``; where the recorder's
clock was set back it goes back too. Where commands are compared, every recorded command is a
meeting point: the clock waits there until the live one has come, however long the planner takes.
Nothing then depends on this machine's speed, and with the same model, parameters and seed the
commands are those of the recording.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.signals import SignalHandlerOptions
from rosgraph_msgs.msg import Clock
from tqdm import tqdm

from wm_mpc.core.errors import DataError, UserError
from wm_mpc.data.bags.clocks import choose_clocks, read_ways
from wm_mpc.data.bags.dated import DatedMessage, TimeLine
from wm_mpc.data.bags.source import Bag
from wm_mpc.data.bags.survey import survey
from wm_mpc.data.bags.topics import VectorReader, find_topic, header_ns
from wm_mpc.data.bags.typelib import Decoder
from wm_mpc.data.bags.writer import BagWriter, WriterConfig
from wm_mpc.nodes.recording.playing import PlayConfig, PlayResult
from wm_mpc.nodes.recording.recorder import message_class

_CLOCK_LEAD_S = 0.01
_FOREIGN_CLOCK_NS = 10**9
_SAME_INSTANT_NS = 20 * 10**6
"""What is no later than this is played before an answer is waited for: recorders hear topics in
any order."""

_LATCHED = ("goal_image", "goal_proprio")
_REORDER_NS = 250_000_000
"""Stamps that go back by less are of messages that overtook each other, and no clock set back."""


class Player:
    """Plays one bag.

    Args:
        bag: rosbag2 folder or file.
        config: see there.
        node: offers the publishers; it must be spun by somebody else.
        answers: bag that takes what is played and, right behind it, the commands that answer.

    Raises:
        DataError: no topic to play, or no command to compare.
    """

    def __init__(
        self, bag: Path, config: PlayConfig, node: Node, answers: BagWriter | None = None
    ) -> None:
        self.config = config
        self._out = answers
        self._bag = Bag(bag)
        self._node = node
        there = self._bag.list_topics()
        names = [find_topic(there, name, name, required=False) for name in config.topics]
        played = [name for name in names if name]
        if not played:
            raise DataError(f"bag {bag}: has none of the topics {', '.join(config.topics)}")
        self._clock = node.create_publisher(Clock, "/clock", 10)
        self._publishers = {
            name: node.create_publisher(message_class(there[name]), name, _profile(name))
            for name in played
        }
        self._decoder = Decoder(self._bag.definitions)
        self._live: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._images = {name for name in played if "image" in name and "goal" not in name}
        self._command = find_topic(there, config.command_topic, "command", required=config.compare)
        self._answers = ""
        self._now = -1
        self._began = False
        if config.compare or config.wait:
            self._listen(there)

    def run(self, progress: bool = True) -> PlayResult:
        """Play the whole bag."""
        result = PlayResult()
        bar = partial(tqdm, total=self._bag.size, unit="B", unit_scale=True, disable=not progress)
        with bar(desc="reading clocks") as look:
            line = self._time_line(lambda position: look.update(position - look.n))
        self._await_listeners()
        began: tuple[int, float] | None = None
        due: list[DatedMessage | None] = []
        segment = 0
        with bar(desc="playing") as bar:
            for message in line.messages(self._bag, 0.0, on_sorted=partial(_note, result)):
                meeting = self.config.compare and message.topic == self._command
                if message.stray:
                    result.left_out += 1
                    continue
                instant = self._instant(message)
                if message.segment != segment or (due and self._beyond(instant)):
                    self._meet(result, due)
                if message.segment != segment:
                    segment, began, self._now = message.segment, None, -1
                    result.notes.append(f"the clock was set back to {message.stamp / 1e9:.3f} s")
                began = began or (message.stamp, time.monotonic())
                self._pace(message.stamp - began[0], began[1])
                self._set_clock(instant)
                if meeting:
                    # what is said before the first picture answers nothing
                    due.extend([message] if self._began else [])
                    continue
                self._publish(message)
                result.played += 1
                if self.config.wait and message.topic in self._images:
                    due.append(None)
                bar.update(max(0, min(message.position, bar.total) - bar.n))
            self._meet(result, due)
        result.notes.extend(self._bag.problems)
        return result

    def _time_line(self, progress: Callable[[int], None]) -> TimeLine:
        """Stamps of everything that is played or compared, by the clock that was asked for.

        Raises:
            DataError: a topic is asked for by header and has none, or no clock is usable.
        """
        topics = {*self._publishers, *([self._command] if self.config.compare else [])}
        times = survey(self._bag, topics, self._decoder, progress=progress)
        general, _ = read_ways(self.config.stamps)
        words = self.config.stamps
        if general == "auto":
            at_once = all(np.ptp(found.log_ns) == 0 for found in times.values() if len(found) > 1)
            words += "" if at_once else ",receive"
        return TimeLine(times, choose_clocks(times, topics, words, _REORDER_NS))

    def _beyond(self, instant: int) -> bool:
        """Whether what is awaited must have come before the clock shows ``instant``."""
        return instant > self._now + _SAME_INSTANT_NS

    def _publish(self, message: DatedMessage) -> None:
        if not self._began and message.topic in self._images:
            self._began = True
            while not self._live.empty():
                self._live.get()
        self._publishers[message.topic].publish(bytes(message.data))
        self._keep(message.topic, message.msgtype, message.data)
        if self._answers and message.topic.endswith(_LATCHED):
            # a goal is encoded before it is pursued: the next picture must find it there
            time.sleep(self.config.settle_s)

    def _listen(self, there: dict[str, str]) -> None:
        topic = self._command or self.config.command_topic
        if self._command:
            msgtype = there[self._command]
            fields = self.config.command_fields
            self._read = VectorReader("command", msgtype, fields)
        else:
            msgtype = "std_msgs/msg/Float64MultiArray"
        self._msgtype = msgtype
        self._answers = self._node.resolve_topic_name(topic)
        self._node.create_subscription(
            message_class(msgtype), topic, self._live.put, QoSProfile(depth=100), raw=True
        )

    def _await_listeners(self) -> None:
        """Wait until somebody listens and, where answers matter, somebody answers."""
        deadline = time.monotonic() + self.config.timeout_s
        pictures = [self._publishers[name] for name in self._images]
        needed = pictures or list(self._publishers.values())
        names = ", ".join(publisher.topic_name for publisher in needed)
        while not any(publisher.get_subscription_count() for publisher in needed):
            self._idle(deadline, f"nobody listens to {names}")
        while self._answers and not self._node.count_publishers(self._answers):
            self._idle(deadline, f"nobody publishes {self._answers}")
        # who is just being activated opens its topics one after the other
        time.sleep(self.config.settle_s)

    def _idle(self, deadline: float, complaint: str) -> None:
        if time.monotonic() > deadline:
            raise UserError(f"{complaint} after {self.config.timeout_s:g} s")
        time.sleep(0.05)

    def _pace(self, elapsed_ns: int, began: float) -> None:
        if self.config.rate:
            time.sleep(max(0.0, began + elapsed_ns / 1e9 / self.config.rate - time.monotonic()))

    def _instant(self, message: DatedMessage) -> int:
        """What the clock shows for a message [ns].

        Never before its own stamp: a recorder in simulated time may hear a message before it
        hears the time.
        """
        stamp = message.stamp
        try:
            header = header_ns(self._decoder.decode(message.msgtype, message.data))
        except DataError:
            header = None
        if header is not None and header - stamp < _FOREIGN_CLOCK_NS:
            stamp = max(stamp, header)
        return stamp

    def _set_clock(self, stamp: int) -> None:
        if stamp <= self._now:
            return
        first, self._now = self._now < 0, stamp
        message = Clock()
        message.clock.sec, message.clock.nanosec = divmod(stamp, 10**9)
        self._clock.publish(message)
        if self._answers:
            # topics may overtake each other: the time must be known before what happens at it
            time.sleep(self.config.settle_s if first else _CLOCK_LEAD_S)

    def _keep(self, topic: str, msgtype: str, data: bytes | memoryview) -> None:
        if self._out is not None:
            known = msgtype in self._bag.definitions
            self._out.add_topic(topic, msgtype, self._decoder.types(msgtype) if known else None)
            self._out.write(topic, self._now, data)

    def _meet(self, result: PlayResult, due: list[DatedMessage | None]) -> None:
        """Wait for as many live commands as are due; compare them with those recorded."""
        for recorded in due:
            try:
                live = self._live.get(timeout=self.config.timeout_s)
            except queue.Empty:
                result.missing += 1
                continue
            result.commands += 1
            self._keep(self._answers, self._msgtype, live)
            if recorded is not None:
                here, then = (
                    self._read(self._decoder.decode(self._msgtype, data))
                    for data in (live, recorded.data)
                )
                result.differences.append(float(np.abs(here - then).max(initial=0.0)))
        due.clear()


def _note(result: PlayResult) -> None:
    result.notes.append("sorted by time: the files are not in its order")


def _profile(topic: str) -> QoSProfile:
    """Reliable; goals also reach who comes later."""
    latched = topic.endswith(_LATCHED)
    durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
    return QoSProfile(depth=10, durability=durability)


def play(
    bag: Path, config: PlayConfig, progress: bool = True, answers: Path | None = None
) -> PlayResult:
    """Play a bag in this process.

    Args:
        bag: rosbag2 folder or file.
        config: see there.
        progress: draw a progress bar on stderr.
        answers: new bag for what was played together with the commands that came back.

    Raises:
        DataError: the bag has nothing to play.
        UserError: nobody listens, or ``answers`` exists or was asked for without waiting for any.
    """
    if answers is None:
        return _with_node("bag_player", lambda node: Player(bag, config, node).run(progress))
    if not (config.compare or config.wait):
        raise UserError("answers: wait or compare expected with it, or none are waited for")
    with BagWriter(answers, WriterConfig()) as writer:
        return _with_node(
            "bag_player", lambda node: Player(bag, config, node, writer).run(progress)
        )


def _with_node(name: str, work: Callable[[Node], Any]) -> Any:
    """Run ``work`` with a node that a second thread spins."""
    # Ctrl-C is Python's here: rclpy's own handler would end the context in the middle of a call
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = Node(name)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    thread = threading.Thread(target=_spin, args=(executor,), daemon=True)
    thread.start()
    try:
        return work(node)
    finally:
        executor.shutdown(3.0)
        thread.join(3.0)
        node.destroy_node()
        rclpy.try_shutdown()


def _spin(executor: SingleThreadedExecutor) -> None:
    try:
        executor.spin()
    except ExternalShutdownException:
        pass
    except RuntimeError as error:
        print(f"error: {error}", file=sys.stderr)
